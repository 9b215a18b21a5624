//! Block devices as the kernel shows them, and the guard in front of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::stat::{major, makedev, minor};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::printable::printable;

pub mod capabilities;
mod findings;
mod gpt;
mod graph;
pub mod guard;
pub mod identity;
pub mod inventory;
mod kernel;
mod layer;
mod media;
mod openers;
mod place;
pub mod purge_scope;
mod queued;
mod refusal;
mod select;
mod usage;
mod volume;

pub use findings::Findings;
pub use kernel::blkid::Signature;
pub use kernel::sysfs::{Proof, WriteCounter};
pub use kernel::thin::Thin;
pub use layer::{Effect, Layer};
pub use refusal::{Force, Refusal};
pub use select::select;
pub use usage::layers_since;

use crate::io::{Backing, DmLine, DmTarget, dm_targets, loop_backing};
use kernel::sysfs::Block;

/// Where the kernel shows its devices; a test gives a tree of its own.
#[derive(Clone, Debug)]
pub struct Tree {
    /// `/sys`, of the real tree.
    pub sys: PathBuf,
    /// `/proc`, of the real tree.
    pub proc: PathBuf,
    /// `/dev`, of the real tree.
    pub dev: PathBuf,
    /// `/run`, of the real tree: udev's database is below it.
    pub run: PathBuf,
    /// What only an ioctl answers.
    kernel: Kernel,
}

/// The questions that are asked by ioctl; a test answers them itself.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    /// What a loop device stands on, and where it begins there, in bytes.
    backing: fn(&Tree, &Block) -> io::Result<(Backing, u64)>,
    /// The lines of a device-mapper device.
    mapping: fn(&Tree, &Block, DmLine) -> io::Result<Vec<DmTarget>>,
}

impl Tree {
    /// That of this machine, as this process sees it.
    pub fn real() -> Tree {
        let [sys, proc, dev, run] = ["/sys", "/proc", "/dev", "/run"].map(PathBuf::from);
        let kernel = Kernel {
            backing: |tree, block| loop_backing(&tree.dev.join(block.name())),
            mapping: |tree, block, line| {
                dm_targets(&tree.dev.join("mapper/control"), block.number().for_dm(), line)
            },
        };
        Tree { sys, proc, dev, run, kernel }
    }

    /// The device that the kernel calls by this path, as in /proc/swaps. Such a path was true for
    /// the process that gave it to the kernel: where our own /dev has no such node, sysfs knows the name.
    fn number_of(&self, path: &Path) -> Option<DeviceNumber> {
        // What is mounted without a device is a word (tmpfs), and no path.
        if path.is_relative() {
            return None;
        }
        let number_at = |path: &Path| match fs::metadata(path) {
            Ok(node) if node.file_type().is_block_device() => Some(DeviceNumber(node.rdev())),
            _ => None,
        };
        let Ok(name) = path.strip_prefix("/dev") else { return number_at(path) };
        match number_at(&self.dev.join(name)) {
            Some(number) => Some(number),
            None => {
                let kernel_name = name.to_str()?.replace('/', "!");
                let number = fs::read_to_string(self.sys.join("class/block").join(kernel_name).join("dev"));
                number.ok()?.trim().parse().ok()
            }
        }
    }
}

impl Tree {
    /// Another one each time that the machine starts; empty where it cannot be read.
    pub fn boot_id(&self) -> String {
        let file = self.proc.join("sys/kernel/random/boot_id");
        std::fs::read_to_string(file).unwrap_or_default().trim().to_string()
    }

    /// Whether a disk that was known by these marks is gone for good: a mapping, or a loop device without a
    /// name of its own. A disk with a serial number may be plugged in again.
    pub fn is_gone(&self, disk: &BTreeMap<String, String>) -> bool {
        let (attribute, value) = match (disk.get("dm_uuid"), disk.get("disk_sequence")) {
            (Some(uuid), _) => ("dm/uuid", uuid),
            (None, Some(sequence)) => ("diskseq", sequence),
            (None, None) => return false,
        };
        let disks = self.sys.join("class/block");
        let is_it = |name: &String| {
            let text = fs::read_to_string(disks.join(name).join(attribute));
            text.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |text| text.trim() == value)
        };
        kernel::sysfs::entries(&disks).is_ok_and(|names| !names.is_empty() && !names.iter().any(is_it))
    }
}

/// The number of a block device, written `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, JsonSchema)]
#[schemars(with = "String")]
pub struct DeviceNumber(libc::dev_t);

impl DeviceNumber {
    /// As device-mapper's commands have it: the kernel's huge_encode_dev.
    fn for_dm(self) -> u64 {
        let (major, minor) = (major(self.0), minor(self.0));
        minor & 0xff | major << 8 | (minor & !0xff) << 12
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", major(self.0), minor(self.0))
    }
}

impl FromStr for DeviceNumber {
    type Err = ();

    fn from_str(text: &str) -> Result<DeviceNumber, ()> {
        let (major, minor) = text.split_once(':').ok_or(())?;
        Ok(DeviceNumber(makedev(major.parse().map_err(drop)?, minor.parse().map_err(drop)?)))
    }
}

impl<'de> Deserialize<'de> for DeviceNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DeviceNumber, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a device number is major:minor"))
    }
}

impl Serialize for DeviceNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod fake {
    //! A fake tree, in the shape that real kernels show.

    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    pub struct FakeTree {
        root: TempDir,
        pub tree: Tree,
    }

    impl FakeTree {
        /// Where nothing is mounted but the kernel's own file systems.
        pub fn new() -> FakeTree {
            let root = tempfile::tempdir().unwrap();
            let at = |name| root.path().join(name);
            let [sys, proc, dev, run] = ["sys", "proc", "dev", "run"].map(at);
            let kernel = Kernel { backing, mapping };
            let fake = FakeTree { tree: Tree { sys, proc, dev, run, kernel }, root };
            for folder in ["sys/block", "sys/class/block", "sys/dev/block", "proc/self", "dev"] {
                fs::create_dir_all(fake.root.path().join(folder)).unwrap();
            }
            fake.write("proc/self/mountinfo", "22 27 0:21 / /proc rw,relatime - proc proc rw\n");
            fake.write("proc/swaps", SWAPS_HEADER);
            fs::create_dir_all(fake.tree.proc.join("1/ns")).unwrap();
            symlink("pid:[4026531836]", fake.tree.proc.join("1/ns/pid")).unwrap();
            fake
        }

        pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        /// The kernel gives no answer there, neither of a file nor of a folder.
        pub fn make_unreadable(&self, path: &str) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).ok();
            symlink(&path, &path).unwrap();
        }

        /// A device of 1 MiB at a folder below sys/devices; gives its number.
        pub fn device(&self, folder: &str, number: &str) -> DeviceNumber {
            let below = format!("sys/devices/{folder}");
            self.write(&format!("{below}/dev"), format!("{number}\n"));
            self.write(&format!("{below}/size"), "2048\n");
            fs::create_dir_all(self.root.path().join(&below).join("holders")).unwrap();
            let (target, name) = (format!("../../devices/{folder}"), folder.rsplit('/').next().unwrap());
            symlink(&target, self.tree.sys.join("dev/block").join(number)).unwrap();
            symlink(&target, self.tree.sys.join("class/block").join(name)).unwrap();
            number.parse().unwrap()
        }

        /// The first partition of a disk, /dev/sda1 of /dev/sda.
        pub fn partition(&self, disk: &str, number: &str) -> DeviceNumber {
            let folder = format!("{disk}/{}1", disk.rsplit('/').next().unwrap());
            self.write(&format!("sys/devices/{folder}/partition"), "1\n");
            self.write(&format!("sys/devices/{folder}/start"), "0\n");
            self.device(&folder, number)
        }

        /// The upper device stands on the lower one.
        pub fn hold(&self, lower: &str, upper: &str) {
            let devices = self.root.path().join("sys/devices");
            let name = |folder: &str| folder.rsplit('/').next().unwrap().to_string();
            // As in sysfs: relative to where the link lies.
            let link = |of: &str, kind: &str, to: &str| {
                let up = "../".repeat(of.split('/').count() + 1);
                symlink(format!("{up}{to}"), devices.join(of).join(kind).join(name(to))).unwrap();
            };
            link(lower, "holders", upper);
            fs::create_dir_all(devices.join(upper).join("slaves")).unwrap();
            link(upper, "slaves", lower);
        }
    }

    /// By the text in sysfs, as if every path in it were true; `/hidden` stands for no node in /dev.
    fn backing(tree: &Tree, block: &Block) -> io::Result<(Backing, u64)> {
        let offset = block.number_attribute("loop/offset").unwrap_or(0);
        let text = PathBuf::from(block.attribute("loop/backing_file").unwrap_or("/hidden".into()));
        match (tree.number_of(&text), fs::metadata(&text)) {
            _ if text.starts_with("/hidden") => Err(io::ErrorKind::NotFound.into()),
            (Some(DeviceNumber(number)), _) => Ok((Backing::Device(number), offset)),
            (None, file) => {
                file.map(|file| (Backing::File { device: file.dev(), inode: file.ino() }, offset))
            }
        }
    }

    /// `dm/table`, `dm/next_table` and `dm/status` in the device's folder, as dmsetup prints them.
    fn mapping(_: &Tree, block: &Block, line: DmLine) -> io::Result<Vec<DmTarget>> {
        let text = match line {
            DmLine::Table => fs::read_to_string(block.folder().join("dm/table"))?,
            DmLine::NextTable => fs::read_to_string(block.folder().join("dm/next_table")).unwrap_or_default(),
            DmLine::Status | DmLine::StatusInMemory => fs::read_to_string(block.folder().join("dm/status"))?,
        };
        let target = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (start, sectors) = (word().parse().unwrap(), word().parse().unwrap());
            DmTarget { start, sectors, kind: word().into(), line: word().to_string().into() }
        };
        Ok(text.lines().map(target).collect())
    }

    /// What libblkid looks for in a ZFS member: four uberblocks, and the pool's name in the label's
    /// list of pairs (big-endian XDR).
    pub fn zfs_label(pool: &str) -> Vec<u8> {
        // Smaller members than this do not exist.
        let mut label = vec![0; 64 << 20];
        for uberblock in 0..4 {
            let at = (128 << 10) + uberblock * 1024;
            label[at..at + 8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
        }
        let mut pair = Vec::new();
        for (text, before) in [("name", &[64_u32][..]), (pool, &[9, 1])] {
            before.iter().for_each(|word| pair.extend(word.to_be_bytes()));
            pair.extend((text.len() as u32).to_be_bytes());
            pair.extend(text.bytes().chain([0; 3]).take(text.len().next_multiple_of(4)));
        }
        let size = (pair.len() as u32 + 4).to_be_bytes();
        let list: Vec<u8> = [0; 12].into_iter().chain(size).chain(pair).chain([0; 8]).collect();
        label[16 << 10..][..list.len()].copy_from_slice(&list);
        label
    }

    pub const SWAPS_HEADER: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    pub const SDA: &str = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
}

#[cfg(test)]
mod tests {
    use super::fake::{FakeTree, SDA};
    use super::*;

    #[test]
    fn a_device_number_is_read_as_it_is_written() {
        for text in ["7:0", "254:16", "259:1048575"] {
            assert_eq!(text.parse::<DeviceNumber>().unwrap().to_string(), text);
        }
        assert!("7".parse::<DeviceNumber>().is_err());
    }

    #[test]
    fn sysfs_knows_a_name_that_dev_lacks() {
        let fake = FakeTree::new();
        let sda = fake.device(SDA, "8:0");
        let array = fake.device("pci0000:00/0000:01:00.0/cciss0/c0d0/block/cciss!c0d0", "104:0");
        assert_eq!(fake.tree.number_of(Path::new("/dev/sda")), Some(sda));
        assert_eq!(fake.tree.number_of(Path::new("/dev/cciss/c0d0")), Some(array));
        assert_eq!(fake.tree.number_of(Path::new("/dev/sdb")), None);
        assert_eq!(fake.tree.number_of(Path::new("/swapfile")), None);
        assert_eq!(fake.tree.number_of(Path::new("tmpfs")), None);
    }
}
