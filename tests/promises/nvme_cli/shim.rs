//! Preloaded into `nvme`: its ioctls on NVMe devices go to the test at the other end of descriptor 0, and the
//! test's answers come back. `tool.rs` compiles it and has the other end.

use std::ffi::{c_int, c_long, c_ulong};
use std::io::{Error, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;

// linux/nvme_ioctl.h
const ID: u32 = 0x4e40;
const RESCAN: u32 = 0x4e46;
const ADMIN: u32 = 0xc048_4e41;
const ADMIN64: u32 = 0xc050_4e47;
const IO: u32 = 0xc048_4e43;
const IO64: u32 = 0xc050_4e48;

// The fields of its structures that are used here.
const ADDRESS: usize = 24;
const DATA_LENGTH: usize = 36;
const RESULT_32: usize = 68;
const RESULT_64: usize = 72;
const BYTES_64: usize = 80;

#[cfg(target_arch = "x86_64")]
const SYS_IOCTL: c_long = 16;
#[cfg(target_arch = "aarch64")]
const SYS_IOCTL: c_long = 29;
const EIO: c_int = 5;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

/// In the place of ioctl(2).
///
/// # Safety
/// As of ioctl(2): `argument` points to the structure of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut u8) -> c_int {
    // SAFETY: the caller's structure has the size that its request says; of the others nothing is used.
    let answer = match request as u32 {
        ID | RESCAN => unsafe { exchange(request as u32, argument, 0, None) },
        number @ (ADMIN | IO) => unsafe {
            exchange(number, argument, RESULT_64, Some(RESULT_32..RESULT_64))
        },
        number @ (ADMIN64 | IO64) => unsafe {
            exchange(number, argument, BYTES_64, Some(RESULT_64..BYTES_64))
        },
        // SAFETY: as the caller called it.
        _ => return unsafe { syscall(SYS_IOCTL, descriptor, request, argument) as c_int },
    };
    let errno = match answer {
        Ok(answer) if answer >= 0 => return answer,
        Ok(errno) => -errno,
        Err(_) => EIO,
    };
    // SAFETY: the address of this thread's errno.
    unsafe { *__errno_location() = errno };
    -1
}

/// Sends the number of a request and 80 bytes of its structure; receives the ioctl's return value or a negative
/// errno, the result, and the data with its length.
///
/// # Safety
/// `argument` points to this many bytes, and the structure's address to as many as its data length says.
unsafe fn exchange(
    request: u32,
    argument: *mut u8,
    bytes: usize,
    result: Option<std::ops::Range<usize>>,
) -> Result<c_int, Error> {
    // SAFETY: the tool is started with the socket as this descriptor; it stays open.
    let mut test = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(0) });
    let mut command = [0; BYTES_64];
    // SAFETY: the caller says so.
    unsafe { argument.copy_to(command.as_mut_ptr(), bytes) };
    test.write_all(&request.to_ne_bytes())?;
    test.write_all(&command)?;

    let mut answer = [0; 16];
    test.read_exact(&mut answer)?;
    let value = c_int::from_ne_bytes(answer[..4].try_into().unwrap());
    let length = u32::from_ne_bytes(answer[4..8].try_into().unwrap());
    let mut data = vec![0; length as usize];
    test.read_exact(&mut data)?;
    if let Some(result) = result {
        let address = usize::from_ne_bytes(command[ADDRESS..ADDRESS + 8].try_into().unwrap());
        let space = u32::from_ne_bytes(command[DATA_LENGTH..DATA_LENGTH + 4].try_into().unwrap());
        let result_bytes = &answer[8..8 + result.len()];
        // SAFETY: the caller says so, and no more is written than fits.
        unsafe {
            argument.add(result.start).copy_from(result_bytes.as_ptr(), result_bytes.len());
            (address as *mut u8).copy_from(data.as_ptr(), data.len().min(space as usize));
        }
    }
    Ok(value)
}
