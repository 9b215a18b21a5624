//! What the errors of a device mean: docs/errors.md has them as a table.

use std::io;

pub const GONE: &str = "see its cable, its controller and dmesg; then wipe it anew";

/// What an error says about the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing: try again.
    Passing,
    /// Some block of this piece is bad.
    Media,
    /// It does not know this command.
    Unsupported,
    Fatal,
}

impl Trouble {
    pub fn of(error: &io::Error) -> Trouble {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Trouble::Passing,
            // What kernels answer for a medium error: SCSI and NVMe say ENODATA, brd and loop EIO.
            Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::ETIMEDOUT) => {
                Trouble::Media
            }
            Some(libc::EOPNOTSUPP | libc::ENOTTY) => Trouble::Unsupported,
            _ => Trouble::Fatal,
        }
    }
}

/// What an error that ends the job says of the device, and what to do. A virtio or NVMe disk that
/// vanishes answers as if its end had been reached: so it is looked at again whether it changed.
pub fn fatal(operation: &str, error: &io::Error, changed: bool) -> (String, &'static str) {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => ("the device is gone".into(), GONE),
        Some(libc::ENOSPC) if changed => ("the device is gone, or smaller than it was".into(), GONE),
        Some(libc::ENOSPC) => (
            format!(
                "{operation} found no room: what is below the device is full (a thin pool, a file system)"
            ),
            "make room there, and wipe it again",
        ),
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
