//! Opened targets, and safe wrappers of system calls that nix lacks.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use zeroize::Zeroizing;

use super::{Buf, Geometry};

mod ioctl {
    // linux/fs.h. The size in BLKGETSIZE64's number is that of size_t; the kernel writes a u64.
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), libc::c_uint);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), libc::c_int);
    nix::ioctl_read!(blkgetdiskseq, 0x12, 128, u64);
    // linux/loop.h
    nix::ioctl_read_bad!(loop_get_status64, 0x4c05, super::LoopInfo64);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
    // linux/dm-ioctl.h: DM_TABLE_STATUS. Its number has the size of the header alone.
    nix::ioctl_readwrite_bad!(
        dm_table_status,
        nix::request_code_readwrite!(0xfd, 12, super::DM_HEADER_BYTES),
        super::DmHeader
    );
}

/// An image has no block size of its own; these suit every file system with direct I/O.
const IMAGE_LOGICAL: u64 = 512;
const IMAGE_PHYSICAL: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    /// For reading, and only if no one has opened it exclusively.
    ReadAlone,
    /// For writing, alone: O_EXCL keeps out mounts, dm, md and one another.
    WriteAlone,
    /// For writing beside the one who has it for itself alone.
    WriteBeside,
}

impl Access {
    fn writes(self) -> bool {
        matches!(self, Access::WriteAlone | Access::WriteBeside)
    }

    fn flags(self) -> libc::c_int {
        let alone = matches!(self, Access::ReadAlone | Access::WriteAlone);
        libc::O_CLOEXEC | if alone { libc::O_EXCL } else { 0 }
    }
}

/// An existing block device or image file, open.
#[derive(Debug)]
pub(crate) struct Target {
    file: File,
    geometry: Geometry,
    image: bool,
    direct: bool,
    sequence: Option<u64>,
}

impl Target {
    /// Never creates a file. Falls back to the page cache where O_DIRECT is refused.
    pub(crate) fn open(path: &Path, access: Access) -> io::Result<Target> {
        let open = |more| {
            let flags = access.flags() | more;
            File::options().read(true).write(access.writes()).custom_flags(flags).open(path)
        };
        let direct = match open(libc::O_DIRECT) {
            Ok(file) => Some(Target::direct(file)?),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            Err(error) => return Err(error),
        };
        match direct.flatten() {
            Some(target) => Ok(target),
            None => Target::describe(open(0)?, false),
        }
    }

    /// `None` if this file takes no direct I/O, or not up to its last byte.
    fn direct(file: File) -> io::Result<Option<Target>> {
        let target = Target::describe(file, true)?;
        let Geometry { size, logical_block, memory_align, .. } = target.geometry;
        if target.image && !size.is_multiple_of(logical_block) {
            return Ok(None);
        }
        // Some file systems accept the flag and refuse the transfer.
        let mut probe = Buf::new(logical_block as usize, memory_align as usize);
        match target.file.read_at(&mut probe, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            _ => Ok(Some(target)),
        }
    }

    fn describe(file: File, direct: bool) -> io::Result<Target> {
        let metadata = file.metadata()?;
        let image = !metadata.file_type().is_block_device();
        let geometry =
            if image { image_geometry(&file, &metadata)? } else { block_geometry(&file, &metadata)? };
        let sequence = disk_sequence(&file);
        Ok(Target { file, geometry, image, direct, sequence })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    pub(crate) fn is_read_only(&self) -> io::Result<bool> {
        if self.image {
            return Ok(false);
        }
        let mut read_only = 0;
        // SAFETY: BLKROGET writes one int, and `read_only` is one.
        unsafe { ioctl::blkroget(self.file.as_raw_fd(), &mut read_only) }?;
        Ok(read_only != 0)
    }

    /// Counts up with every new disk, so that a node that was given away is noticed (5.15).
    pub(crate) fn disk_sequence(&self) -> Option<u64> {
        disk_sequence(&self.file)
    }

    /// The same device or file once more, to be read through the page cache by who cannot align.
    pub(crate) fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether it still is what it was when it was opened: the same medium, of the same size.
    pub(crate) fn unchanged(&self) -> io::Result<()> {
        let size = size_of(&self.file)?;
        if size != self.geometry.size {
            return Err(io::Error::other(format!(
                "its size is {size} bytes now, not {}",
                self.geometry.size
            )));
        }
        if self.disk_sequence() != self.sequence {
            return Err(io::Error::other("another disk or medium is behind it now (diskseq)"));
        }
        Ok(())
    }

    /// What no backend passes on: nothing, or something beyond the end (an image would grow).
    pub(crate) fn check(&self, at: u64, len: u64) -> io::Result<()> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.geometry.size);
        if len == 0 || !inside {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }

    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> io::Result<u64> {
        Ok(self.file.read_at(out, at)? as u64)
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<u64> {
        Ok(self.file.write_at(bytes, at)? as u64)
    }

    /// Makes the range read as zeroes, by whatever the device has for it.
    pub(crate) fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        if self.image {
            return self.allocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, at, len);
        }
        // SAFETY: BLKZEROOUT reads two u64, start and length, from the array.
        unsafe { ioctl::blkzeroout(self.file.as_raw_fd(), &[at, len]) }?;
        Ok(())
    }

    pub(crate) fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        if self.image {
            return self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, at, len);
        }
        // SAFETY: BLKDISCARD reads two u64, start and length, from the array.
        unsafe { ioctl::blkdiscard(self.file.as_raw_fd(), &[at, len]) }?;
        Ok(())
    }

    fn allocate(&self, how: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(&self.file, how | FallocateFlags::FALLOC_FL_KEEP_SIZE, at as i64, len as i64)?)
    }

    /// Makes durable what was written: the drive's cache too. Without direct I/O the page cache is
    /// then dropped, so that a read-back has to ask the device (as far as the kernel follows).
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.direct {
            posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        Ok(())
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn disk_sequence(file: &File) -> Option<u64> {
    let mut sequence = 0;
    // SAFETY: BLKGETDISKSEQ writes one u64, and `sequence` is one.
    unsafe { ioctl::blkgetdiskseq(file.as_raw_fd(), &mut sequence) }.ok()?;
    Some(sequence)
}

/// The bytes of a block device, or of a file.
pub(crate) fn size_of(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.file_type().is_block_device() {
        return Ok(metadata.len());
    }
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64, and `size` is one.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &mut size) }?;
    Ok(size)
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
pub(crate) struct LoopInfo64 {
    device: u64,
    inode: u64,
    real_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What a loop device stands on, whatever namespace it lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backing {
    Device(u64),
    File { device: u64, inode: u64 },
}

/// Asks a loop device for what it stands on, and where it begins there (LOOP_GET_STATUS64).
pub(crate) fn loop_backing(node: &Path) -> io::Result<(Backing, u64)> {
    let file = File::options().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(node)?;
    // SAFETY: all-zero bytes are a valid LoopInfo64.
    let mut info: LoopInfo64 = unsafe { std::mem::zeroed() };
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64, and `info` is one.
    unsafe { ioctl::loop_get_status64(file.as_raw_fd(), &mut info) }?;
    // Only the inode of a device node has a device number of its own.
    let backing = match info.real_device {
        0 => Backing::File { device: info.device, inode: info.inode },
        number => Backing::Device(number),
    };
    Ok((backing, info.offset))
}

/// `struct dm_ioctl` of linux/dm-ioctl.h.
#[repr(C)]
pub(crate) struct DmHeader {
    version: [u32; 3],
    data_bytes: u32,
    data_start: u32,
    targets: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    unused: [u8; 7],
}

const DM_HEADER_BYTES: usize = 312;
const _: () = assert!(std::mem::size_of::<DmHeader>() == DM_HEADER_BYTES);
/// Enough for most tables; a longer one is asked for again with more.
const DM_BUFFER_BYTES: usize = 16 << 10;
const DM_BUFFER_BYTES_MAX: usize = 16 << 20;
const DM_STATUS_TABLE: u32 = 1 << 4;
const DM_BUFFER_FULL: u32 = 1 << 8;
const DM_NOFLUSH: u32 = 1 << 11;
const DM_QUERY_INACTIVE_TABLE: u32 = 1 << 12;

/// What device-mapper is asked about a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DmLine {
    Table,
    /// The table that is loaded and comes into force with the next resume; empty if there is none.
    NextTable,
    /// After a thin pool has committed, so that its figures are of this moment.
    Status,
    /// As it is kept in memory: a pool that does not answer is not waited for.
    StatusInMemory,
}

/// One line of a device-mapper table, or of its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DmTarget {
    /// In sectors of 512 bytes.
    pub start: u64,
    pub sectors: u64,
    pub kind: String,
    /// A crypt line has its key in it: forgotten when it is dropped.
    pub line: Zeroizing<String>,
}

/// The lines of a device-mapper device, in their order.
pub(crate) fn dm_targets(control: &Path, device: u64, line: DmLine) -> io::Result<Vec<DmTarget>> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(control)?;
    let mut bytes = DM_BUFFER_BYTES;
    while bytes <= DM_BUFFER_BYTES_MAX {
        // Of u64, since the header has to be aligned like one.
        let mut buffer = Zeroizing::new(vec![0_u64; bytes / 8]);
        let header = buffer.as_mut_ptr().cast::<DmHeader>();
        // SAFETY: the buffer is larger than a header, aligned for it, and all-zero bytes are a valid one.
        unsafe {
            (*header).version = [4, 0, 0];
            (*header).data_bytes = bytes as u32;
            (*header).data_start = DM_HEADER_BYTES as u32;
            (*header).device = device;
            (*header).flags = match line {
                DmLine::Table => DM_STATUS_TABLE,
                DmLine::NextTable => DM_STATUS_TABLE | DM_QUERY_INACTIVE_TABLE,
                DmLine::Status => 0,
                DmLine::StatusInMemory => DM_NOFLUSH,
            };
        }
        // SAFETY: DM_TABLE_STATUS writes no more than `data_bytes` from the start of the buffer.
        unsafe { ioctl::dm_table_status(file.as_raw_fd(), header) }?;
        // SAFETY: as above; the kernel has filled the header in.
        let (flags, targets) = unsafe { ((*header).flags, (*header).targets) };
        if flags & DM_BUFFER_FULL == 0 {
            let bytes: Zeroizing<Vec<u8>> =
                Zeroizing::new(buffer.iter().flat_map(|word| word.to_ne_bytes()).collect());
            return parse_dm(&bytes[DM_HEADER_BYTES..], targets).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a device-mapper table is cut off")
            });
        }
        bytes *= 8;
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a device-mapper table is larger than 16 MiB"))
}

/// Each line is a `struct dm_target_spec` (start, sectors, status, offset of the next line from the
/// first, kind) with text that ends with a zero behind it.
fn parse_dm(data: &[u8], targets: u32) -> Option<Vec<DmTarget>> {
    const SPEC_BYTES: usize = 40;
    let text = |bytes: &[u8]| {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).trim().to_string()
    };
    let mut at = 0_usize;
    let mut found = Vec::new();
    for _ in 0..targets {
        let spec = data.get(at..at.checked_add(SPEC_BYTES)?)?;
        let number = |at: usize| Some(u64::from_ne_bytes(spec.get(at..at + 8)?.try_into().ok()?));
        found.push(DmTarget {
            start: number(0)?,
            sectors: number(8)?,
            kind: text(&spec[24..]),
            line: Zeroizing::new(text(&data[at + SPEC_BYTES..])),
        });
        at = u32::from_ne_bytes(spec[20..24].try_into().ok()?) as usize;
    }
    Some(found)
}

fn block_geometry(file: &File, metadata: &Metadata) -> io::Result<Geometry> {
    let fd = file.as_raw_fd();
    let size = size_of(file)?;
    let (mut logical, mut physical) = (0, 0);
    // SAFETY: BLKSSZGET writes one int, and `logical` is one.
    unsafe { ioctl::blksszget(fd, &mut logical) }?;
    // SAFETY: BLKPBSZGET writes one unsigned int, and `physical` is one.
    unsafe { ioctl::blkpbszget(fd, &mut physical) }?;
    let logical_block = logical as u64;
    let physical_block = u64::from(physical).max(logical_block);
    let memory_align = dma_align(metadata.rdev()).unwrap_or(logical_block).next_power_of_two();
    Ok(Geometry { size, logical_block, physical_block, memory_align })
}

/// From sysfs; a partition shares the queue of its disk.
fn dma_align(device: u64) -> Option<u64> {
    let folder =
        format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mask = ["queue", "../queue"].iter().find_map(|queue| {
        let path = PathBuf::from(&folder).join(queue).join("dma_alignment");
        std::fs::read_to_string(path).ok()
    })?;
    Some((mask.trim().parse::<u64>().ok()? + 1).max(IMAGE_LOGICAL))
}

fn image_geometry(file: &File, metadata: &Metadata) -> io::Result<Geometry> {
    let (memory, offset) = direct_alignment(file)?.unwrap_or((IMAGE_LOGICAL, IMAGE_LOGICAL));
    let logical_block = offset.max(IMAGE_LOGICAL);
    Ok(Geometry {
        size: metadata.len(),
        logical_block,
        physical_block: IMAGE_PHYSICAL.max(logical_block),
        memory_align: memory.max(IMAGE_LOGICAL).next_power_of_two(),
    })
}

/// The alignment of memory and of offsets that the file system requires, if it reports them (Linux 6.1).
fn direct_alignment(file: &File) -> io::Result<Option<(u64, u64)>> {
    // SAFETY: all-zero bytes are a valid statx.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is an empty C string, and `answer` is a statx that outlives the call.
    let done = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &mut answer) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let reported = answer.stx_mask & mask != 0 && answer.stx_dio_offset_align != 0;
    Ok(reported.then(|| (answer.stx_dio_mem_align.into(), answer.stx_dio_offset_align.into())))
}

/// The classes of I/O priority (linux/ioprio.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PriorityClass {
    Realtime = 1,
    BestEffort = 2,
    Idle = 3,
}

/// Sets the I/O priority of this thread; threads that it starts inherit it.
pub fn set_io_priority(class: PriorityClass, level: u8) -> io::Result<()> {
    const CLASS_SHIFT: u32 = 13;
    const WHO_PROCESS: libc::c_int = 1;
    let priority = (class as libc::c_int) << CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: ioprio_set takes three integers and touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A copy of a descriptor that the calling program left open for us.
pub fn inherited(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes two integers; a number that is no descriptor gives EBADF.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
