//! Preloaded into tools: their ioctls on NVMe devices, and their SG_IO, go to the test at the other end of
//! descriptor 0, and the test's answers come back. They do not sleep. `preloaded.rs` compiles it and has the other end.

use std::ffi::{c_int, c_long, c_uint, c_ulong};
use std::io::{Error, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;

/// scsi/sg.h: the number says nothing of its structure, which has these fields.
const SG_IO: u32 = 0x2285;
const SG_BYTES: usize = 88;
const SG_DIRECTION: usize = 4;
const SG_CDB_LENGTH: usize = 8;
const SG_DATA_LENGTH: usize = 12;
const SG_DATA: usize = 16;
const SG_CDB: usize = 24;
const SG_DIRECTION_OUT: i32 = -2;

/// linux/nvme_ioctl.h: the numbers of this type say how long their structures are.
const NVME_TYPE: u32 = b'N' as u32;

#[cfg(target_arch = "x86_64")]
const SYS_IOCTL: c_long = 16;
#[cfg(target_arch = "aarch64")]
const SYS_IOCTL: c_long = 29;
const EIO: c_int = 5;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

/// In the place of sleep(3): the clock is the test's.
#[unsafe(no_mangle)]
pub extern "C" fn sleep(_: c_uint) -> c_uint {
    0
}

/// In the place of ioctl(2).
///
/// # Safety
/// As of ioctl(2): `argument` points to the structure of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut u8) -> c_int {
    let number = request as u32;
    let bytes = match number {
        SG_IO => SG_BYTES,
        _ if number >> 8 & 0xff == NVME_TYPE => (number >> 16 & 0x3fff) as usize,
        // SAFETY: as the caller called it.
        _ => return unsafe { syscall(SYS_IOCTL, descriptor, request, argument) as c_int },
    };
    // SAFETY: the caller's structure has the size that its request says.
    let errno = match unsafe { exchange(number, argument, bytes) } {
        Ok(answer) if answer >= 0 => return answer,
        Ok(errno) => -errno,
        Err(_) => EIO,
    };
    // SAFETY: the address of this thread's errno.
    unsafe { *__errno_location() = errno };
    -1
}

/// Sends the number of a request, its structure, and what a SCSI command is made of; receives the ioctl's return
/// value or a negative errno, the structure as it is then, and bytes with the addresses where they go.
///
/// # Safety
/// `argument` points to this many bytes, and their addresses to as many as their lengths say.
unsafe fn exchange(number: u32, argument: *mut u8, bytes: usize) -> Result<c_int, Error> {
    // SAFETY: the tool is started with the socket as this descriptor; it stays open.
    let mut test = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(0) });
    let mut structure = vec![0; bytes];
    // SAFETY: the caller says so.
    unsafe { argument.copy_to(structure.as_mut_ptr(), bytes) };
    // SAFETY: the same.
    let scsi = if number == SG_IO { unsafe { scsi_command(&structure) } } else { Vec::new() };
    test.write_all(&number.to_ne_bytes())?;
    send(&mut test, &structure)?;
    send(&mut test, &scsi)?;

    let value = receive_number(&mut test)? as c_int;
    let structure = receive(&mut test)?;
    // SAFETY: the test answers with as many bytes as it got.
    unsafe { argument.copy_from(structure.as_ptr(), bytes.min(structure.len())) };
    for _ in 0..receive_number(&mut test)? {
        let mut address = [0; size_of::<usize>()];
        test.read_exact(&mut address)?;
        let bytes = receive(&mut test)?;
        // SAFETY: the test writes to addresses of the structure alone, and no more than its lengths say.
        unsafe { (usize::from_ne_bytes(address) as *mut u8).copy_from(bytes.as_ptr(), bytes.len()) };
    }
    Ok(value)
}

/// The CDB, and the data that goes to the drive.
///
/// # Safety
/// The addresses of the header point to as many bytes as its lengths say.
unsafe fn scsi_command(header: &[u8]) -> Vec<u8> {
    let word = |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut sent = Vec::new();
    let mut append = |at: usize, length: usize| {
        let address = usize::from_ne_bytes(header[at..at + size_of::<usize>()].try_into().unwrap());
        let end = sent.len();
        sent.resize(end + length, 0);
        // SAFETY: the caller says so.
        unsafe { (address as *const u8).copy_to(sent[end..].as_mut_ptr(), length) };
    };
    append(SG_CDB, header[SG_CDB_LENGTH].into());
    if word(SG_DIRECTION) == SG_DIRECTION_OUT {
        append(SG_DATA, word(SG_DATA_LENGTH) as usize);
    }
    sent
}

fn send(test: &mut UnixStream, bytes: &[u8]) -> Result<(), Error> {
    test.write_all(&(bytes.len() as u32).to_ne_bytes())?;
    test.write_all(bytes)
}

fn receive_number(test: &mut UnixStream) -> Result<u32, Error> {
    let mut number = [0; 4];
    test.read_exact(&mut number)?;
    Ok(u32::from_ne_bytes(number))
}

fn receive(test: &mut UnixStream) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; receive_number(test)? as usize];
    test.read_exact(&mut bytes)?;
    Ok(bytes)
}
