//! What sysfs shows of a block device (Documentation/ABI/testing/sysfs-block, stable/sysfs-block).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DeviceNumber, Tree};

/// sysfs counts in these, whatever the device's logical block.
const SECTOR_BYTES: u64 = 512;

impl Tree {
    pub(super) fn block(&self, number: DeviceNumber) -> io::Result<Block> {
        let folder = self.sys.join("dev/block").join(number.to_string()).canonicalize()?;
        Ok(Block { folder, number })
    }

    /// Each loop device that has one, and its backing file.
    pub(super) fn loop_files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.sys.join("block"))? {
            let entry = entry?;
            if let Some(file) = attribute(&entry.path(), "loop/backing_file") {
                files.push((entry.file_name().to_string_lossy().into_owned(), file.into()));
            }
        }
        Ok(files)
    }
}

/// One device's folder in sysfs.
#[derive(Clone, Debug)]
pub(super) struct Block {
    folder: PathBuf,
    number: DeviceNumber,
}

impl Block {
    fn at(folder: &Path) -> io::Result<Block> {
        let folder = folder.canonicalize()?;
        let number = fs::read_to_string(folder.join("dev"))?;
        let number = number.trim().parse().map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Block { folder, number })
    }

    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// As under /dev: a slash in it is a '!' in sysfs.
    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().replace('!', "/")
    }

    /// Where it stands among the kernel's devices, from the bus down.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.folder, name)
    }

    pub fn number_attribute(&self, name: &str) -> Option<u64> {
        self.attribute(name)?.parse().ok()
    }

    pub fn size_bytes(&self) -> u64 {
        self.number_attribute("size").map_or(0, |sectors| sectors * SECTOR_BYTES)
    }

    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    pub fn is_partition(&self) -> bool {
        self.has("partition")
    }

    /// The whole disk: of a partition the one that it lies on, else itself.
    pub fn disk(&self) -> io::Result<Block> {
        match self.folder.parent() {
            Some(parent) if self.is_partition() => Block::at(parent),
            _ => Ok(self.clone()),
        }
    }

    pub fn partitions(&self) -> io::Result<Vec<Block>> {
        let mut partitions = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let folder = entry?.path();
            if folder.join("partition").exists() {
                partitions.push(Block::at(&folder)?);
            }
        }
        partitions.sort_by_key(Block::number);
        Ok(partitions)
    }

    /// The devices that stand on this one: device-mapper, md, bcache.
    pub fn holders(&self) -> io::Result<Vec<Block>> {
        let mut holders = Vec::new();
        for entry in fs::read_dir(self.folder.join("holders"))? {
            holders.push(Block::at(&entry?.path())?);
        }
        Ok(holders)
    }

    /// All that share bytes with it: itself, its partitions, and the disk that it lies on.
    pub fn overlapping(&self) -> io::Result<Vec<Block>> {
        let mut blocks = vec![self.clone()];
        if self.is_partition() {
            blocks.push(self.disk()?);
        } else {
            blocks.extend(self.partitions()?);
        }
        Ok(blocks)
    }
}

/// Without the padding; none where it is missing or empty.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(folder.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_string();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTree, SDA};
    use super::*;

    fn names(blocks: Vec<Block>) -> Vec<String> {
        blocks.iter().map(Block::name).collect()
    }

    #[test]
    fn a_disk_and_its_partition_know_one_another() {
        let fake = FakeTree::new();
        let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        let (disk, partition) = (fake.tree.block(disk).unwrap(), fake.tree.block(partition).unwrap());
        assert_eq!(names(disk.overlapping().unwrap()), ["sda", "sda1"]);
        assert_eq!(names(partition.overlapping().unwrap()), ["sda1", "sda"]);
        assert_eq!(partition.disk().unwrap().number(), disk.number());
        assert_eq!(disk.disk().unwrap().number(), disk.number());
        assert_eq!(partition.size_bytes(), 1 << 20);
    }

    #[test]
    fn what_stands_on_a_device_is_its_holder() {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        fake.device("virtual/block/dm-3", "253:3");
        fake.hold(SDA, "virtual/block/dm-3");
        assert_eq!(names(fake.tree.block(disk).unwrap().holders().unwrap()), ["dm-3"]);
    }

    #[test]
    fn a_device_that_sysfs_does_not_show_is_an_error() {
        assert!(FakeTree::new().tree.block("8:0".parse().unwrap()).is_err());
    }
}
