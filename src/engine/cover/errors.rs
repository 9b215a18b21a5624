//! Classification of device errors; docs/errors.md has the table.

use std::io;

use crate::io::Medium;

pub const GONE: &str = "see its cable, its controller and dmesg; then wipe it again";

/// What an error says about the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Nothing: try again.
    Passing,
    /// Some block of this piece is bad.
    Media,
    /// It does not know this command.
    Unsupported,
    Fatal,
}

impl ErrorClass {
    /// `short` is a piece that is no whole number of logical blocks: the end of a device of an odd size.
    pub fn of(error: &io::Error, short: bool) -> ErrorClass {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => ErrorClass::Passing,
            // What kernels answer for a medium error: SCSI and NVMe say ENODATA, brd and loop EIO.
            Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::ETIMEDOUT) => {
                ErrorClass::Media
            }
            Some(libc::EINVAL) if short => ErrorClass::Media,
            Some(libc::EOPNOTSUPP | libc::ENOTTY) => ErrorClass::Unsupported,
            _ => ErrorClass::Fatal,
        }
    }
}

/// What to do about a device that fails: `drive` where it is one, else where to look below it.
pub fn advice(medium: Medium, drive: &'static str) -> &'static str {
    match medium {
        Medium::Drive => drive,
        Medium::Mapping => {
            "see what lies below this mapping: a snapshot or pool that ran full, a device that is suspended \
             or fails (dmsetup status, lvs, /proc/mdstat, dmesg)"
        }
        Medium::File => "see what lies below this file: its file system, and the drive under it (dmesg)",
    }
}

/// What an error that ends the job says of the device, and what to do. A virtio or NVMe disk that
/// vanishes answers as if its end had been reached: so it is looked at again whether it changed.
pub fn fatal(operation: &str, error: &io::Error, changed: bool, medium: Medium) -> (String, &'static str) {
    let gone = advice(medium, GONE);
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => ("the device is gone".into(), gone),
        Some(libc::ENOSPC) if changed => ("the device is gone, or smaller than it was".into(), gone),
        Some(libc::ENOSPC) => (
            format!(
                "{operation} found no space: the storage below the device is full (a thin pool, a file system)"
            ),
            "free space there, and wipe it again",
        ),
        Some(libc::EFBIG) => {
            (format!("this process may not {operation} so far into a file"), "raise its limit (ulimit -f)")
        }
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => (
            format!("the device does not allow a {operation} any more"),
            "see what the kernel says of it (dmesg): drives that fail make themselves read-only",
        ),
        Some(libc::EINVAL) => (
            format!("the device does not take a {operation} of this shape"),
            "see its logical block (efface list --json), and try --block-size with a multiple of it",
        ),
        _ => (format!("{operation} failed"), "see what the kernel says of it: dmesg"),
    }
}
