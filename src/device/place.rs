//! Places: what a path leads to, a block device by its number or a file by its inode.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::DeviceNumber;
use super::identity::Inode;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Device(DeviceNumber),
    File(Inode),
}

impl Place {
    pub fn of(metadata: &Metadata) -> Place {
        if metadata.file_type().is_block_device() {
            Place::Device(DeviceNumber(metadata.rdev()))
        } else {
            Place::File(Inode::of(metadata))
        }
    }

    /// `None` if nothing is there.
    pub fn at(path: &Path) -> Option<Place> {
        fs::metadata(path).ok().as_ref().map(Place::of)
    }
}
