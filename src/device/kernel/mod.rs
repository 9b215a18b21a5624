//! What only reads the kernel: its file systems, libblkid, device-mapper, and its counters.

pub mod blkid;
pub mod load;
pub mod procfs;
pub mod sysfs;
pub mod thin;
