//! Which device this is, and whether it may be wiped.

pub mod guard;
pub mod identity;
mod lock;
mod sysfs;

use std::path::PathBuf;

/// Where the kernel's file trees are: a fake one tests what no test may do to a real disk.
#[derive(Clone, Debug)]
pub struct Tree {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub dev: PathBuf,
}

impl Tree {
    pub fn real() -> Tree {
        Tree { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}
