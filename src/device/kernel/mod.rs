//! Read-only access to the kernel: its file systems, libblkid, device-mapper, and its counters.

pub mod blkid;
pub mod io_stats;
pub mod procfs;
pub mod sysfs;
pub mod thin;
