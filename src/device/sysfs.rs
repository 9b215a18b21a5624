//! What the kernel tells of block devices, as files (Documentation/ABI/stable/sysfs-block).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::Tree;

/// A device number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number {
    pub major: u64,
    pub minor: u64,
}

impl Number {
    pub fn of(rdev: u64) -> Number {
        Number { major: nix::sys::stat::major(rdev), minor: nix::sys::stat::minor(rdev) }
    }

    pub fn parse(text: &str) -> Option<Number> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Number { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One block device's folder.
#[derive(Clone, Debug)]
pub struct Node {
    folder: PathBuf,
    pub number: Number,
    /// As the kernel names it: `sda1`.
    pub name: String,
}

impl Node {
    pub fn find(tree: &Tree, number: Number) -> Option<Node> {
        Node::at(fs::canonicalize(tree.sys.join("dev/block").join(number.to_string())).ok()?)
    }

    fn at(folder: PathBuf) -> Option<Node> {
        let number = Number::parse(&fs::read_to_string(folder.join("dev")).ok()?)?;
        let name = folder.file_name()?.to_string_lossy().into_owned();
        Some(Node { folder, number, name })
    }

    /// An attribute, trimmed; none where it is absent or empty.
    pub fn read(&self, attribute: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(attribute)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_string())
    }

    pub fn has(&self, attribute: &str) -> bool {
        self.folder.join(attribute).exists()
    }

    /// The disk that a partition lies on; itself where it is none.
    pub fn whole_disk(&self) -> Node {
        let parent = self.folder.parent().filter(|_| self.has("partition"));
        parent.and_then(|folder| Node::at(folder.into())).unwrap_or_else(|| self.clone())
    }

    pub fn partitions(&self) -> Vec<Node> {
        let mut partitions: Vec<Node> =
            children(&self.folder).filter_map(Node::at).filter(|node| node.has("partition")).collect();
        partitions.sort_by_key(|node| node.number);
        partitions
    }

    /// Devices that are built on this one (dm, md), by the names that people know.
    pub fn holders(&self) -> Vec<String> {
        let known = |folder: PathBuf| {
            let name = folder.file_name()?.to_string_lossy().into_owned();
            let dm = fs::read_to_string(folder.join("dm/name")).ok();
            Some(dm.map_or(name.clone(), |dm| format!("{name} ({})", dm.trim())))
        };
        children(&self.folder.join("holders")).filter_map(known).collect()
    }
}

/// All loop devices that have a backing file, with its path.
pub fn loops(tree: &Tree) -> Vec<(String, PathBuf)> {
    children(&tree.sys.join("block"))
        .filter_map(|folder| {
            let name = folder.file_name()?.to_string_lossy().into_owned();
            let backing = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
            Some((name, backing.trim_end_matches('\n').into()))
        })
        .collect()
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
