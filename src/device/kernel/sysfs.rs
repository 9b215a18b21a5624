//! Block devices in sysfs (Documentation/ABI/testing/sysfs-block, stable/sysfs-block).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::super::{DeviceNumber, Tree, printable};

/// sysfs counts in these, whatever the device's logical block.
pub(in crate::device) const SECTOR_BYTES: u64 = 512;

impl Tree {
    pub(in crate::device) fn block(&self, number: DeviceNumber) -> io::Result<Block> {
        let link = self.sys.join("dev/block").join(number.to_string());
        Ok(Block { folder: linked_folder(&link)?, number })
    }

    /// Everything that the kernel has a number for, in the order of its names, but for unbound loop devices:
    /// tools leave hundreds of them behind.
    pub(in crate::device) fn blocks(&self) -> io::Result<Vec<Block>> {
        let mut blocks = Vec::new();
        for entry in fs::read_dir(self.sys.join("class/block"))? {
            let link = entry?.path();
            if is_unbound_loop(&link) {
                continue;
            }
            match linked_folder(&link).and_then(Block::at) {
                // A device can go while it is looked at.
                Err(error) if is_gone(&error) => {}
                block => blocks.push(block?),
            }
        }
        blocks.sort_by_cached_key(|block| natural(&block.name()));
        Ok(blocks)
    }
}

/// A loop device without a backing file: it has no bytes, and nothing stands on it. The kernel shows the file
/// before it gives the device its bytes, and until it has taken them.
fn is_unbound_loop(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // Not its partitions: these have no file of their own.
    let is_whole =
        name.strip_prefix("loop").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    is_whole && matches!(folder.join("loop/backing_file").try_exists(), Ok(false))
}

/// The folder of a device that one of sysfs' links leads to. They are relative to where they lie, and lead
/// to no other link: their words are enough, where canonicalize asks the kernel for each folder on the way.
pub(in crate::device) fn linked_folder(link: &Path) -> io::Result<PathBuf> {
    let mut folder = link.to_path_buf();
    folder.pop();
    for word in fs::read_link(link)?.components() {
        match word {
            Component::ParentDir => drop(folder.pop()),
            word => folder.push(word),
        }
    }
    Ok(folder)
}

/// `sda10` after `sda9`: letters and numbers in turn.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    for letter in name.chars() {
        let (word, number) = parts.last_mut().expect("never empty");
        match letter.to_digit(10) {
            Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
            None if *number > 0 => parts.push((letter.into(), 0)),
            None => word.push(letter),
        }
    }
    parts
}

/// What a device's count of writes can prove of others who wrote to its bytes.
/// Which of these holds depends on the driver, and on what else leads to the same media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Proof {
    /// Drivers without queues of their own (device-mapper, md) count some requests twice.
    Nothing,
    /// Whatever it counts was written; but others can write past it: through what lies below or around it.
    Presence,
    /// Every write goes through it.
    Both,
}

/// A block device's count of what was written to it (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug)]
pub struct WriteCounter(PathBuf);

impl WriteCounter {
    const SECTORS_WRITTEN: usize = 6;
    const SECTORS_DISCARDED: usize = 13;

    pub(in crate::device) fn of(block: &Block) -> WriteCounter {
        WriteCounter(block.folder.join("stat"))
    }

    /// `physical` is a whole drive of this machine, with no second path to it.
    pub fn proof(&self, physical: bool) -> Proof {
        let folder = self.0.parent().unwrap_or(&self.0);
        let partition = folder.join("partition").exists();
        let disk = if partition { folder.parent().unwrap_or(folder) } else { folder };
        match disk.join("mq").exists() {
            false => Proof::Nothing,
            true if physical && !partition => Proof::Both,
            true => Proof::Presence,
        }
    }

    /// `None` if the device is gone, or does not count.
    pub fn bytes(&self) -> Option<u64> {
        sectors(&self.0, Self::SECTORS_WRITTEN).map(|sectors| sectors * SECTOR_BYTES)
    }

    /// Everything that can have changed its bytes: of a partition what its disk counts, since writes
    /// past the partition are not the partition's; and what was discarded (kernel 4.18).
    pub fn changed_bytes(&self) -> Option<u64> {
        let folder = self.0.parent()?;
        let stat =
            if folder.join("partition").exists() { folder.parent()?.join("stat") } else { self.0.clone() };
        let discarded = sectors(&stat, Self::SECTORS_DISCARDED).unwrap_or(0);
        Some((sectors(&stat, Self::SECTORS_WRITTEN)? + discarded) * SECTOR_BYTES)
    }
}

fn sectors(stat: &Path, field: usize) -> Option<u64> {
    fs::read_to_string(stat).ok()?.split_whitespace().nth(field)?.parse().ok()
}

/// One device's folder in sysfs.
#[derive(Clone, Debug)]
pub(in crate::device) struct Block {
    folder: PathBuf,
    number: DeviceNumber,
}

impl Block {
    pub fn at(folder: PathBuf) -> io::Result<Block> {
        let number = read_whole(&folder.join("dev"))?;
        let number = String::from_utf8_lossy(&number).trim().parse();
        let number = number.map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
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

    /// The USB bus that it hangs on, else the controller (its PCI address).
    pub fn bus(&self) -> Option<String> {
        let is_usb = |name: &&str| name.strip_prefix("usb").is_some_and(|rest| rest.parse::<u8>().is_ok());
        let is_pci = |name: &&str| {
            let parts: Vec<&str> = name.split([':', '.']).collect();
            parts.iter().map(|part| part.len()).eq([4, 2, 2, 1])
                && parts.iter().all(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()))
        };
        let names = || self.folder.components().filter_map(|component| component.as_os_str().to_str());
        names().find(is_usb).or_else(|| names().rfind(is_pci)).map(String::from)
    }

    /// Of what is only shown: a question without an answer is none, too.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.folder, name)
    }

    /// `None` if the kernel has no such attribute, or an empty one. A question that is not answered is an
    /// error, and no absence.
    pub fn read_attribute(&self, name: &str) -> io::Result<Option<String>> {
        read_attribute(&self.folder, name)
    }

    pub fn number_attribute(&self, name: &str) -> Option<u64> {
        self.attribute(name)?.parse().ok()
    }

    /// 0 where it cannot be read.
    pub fn size_bytes(&self) -> u64 {
        self.read_size().unwrap_or(0)
    }

    pub fn read_size(&self) -> io::Result<u64> {
        let sectors = self.read_attribute("size")?.and_then(|sectors| sectors.parse::<u64>().ok());
        let bytes = sectors.and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
        bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its size cannot be read"))
    }

    /// What cannot be looked for counts as there.
    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).try_exists().unwrap_or(true)
    }

    /// Whether it still is there.
    pub fn exists(&self) -> bool {
        self.has("dev")
    }

    pub fn is_partition(&self) -> bool {
        self.has("partition")
    }

    /// A whole device that is made of no other that the kernel shows.
    pub fn is_disk(&self) -> bool {
        let made = || ["partition", "dm", "md"].iter().any(|kind| self.has(kind));
        // A loop device without a backing file has no folder of its kind: it is known by its name.
        !self.name().starts_with("loop") && !made() && !self.is_hidden() && !self.is_above_others()
    }

    /// By the name that people gave it, where it has one.
    pub fn map_name(&self) -> String {
        self.attribute("dm/name").unwrap_or_else(|| self.name())
    }

    /// The names in one of its folders; `None` if there is no such folder.
    pub fn names_in(&self, folder: &str) -> io::Result<Vec<String>> {
        entries(&self.folder.join(folder))
    }

    pub fn is_read_only(&self) -> bool {
        self.number_attribute("ro") == Some(1)
    }

    /// In bytes, from the start of its disk.
    pub fn partition_start(&self) -> Option<u64> {
        self.is_partition().then(|| self.number_attribute("start"))?.map(|sectors| sectors * SECTOR_BYTES)
    }

    /// A path of an NVMe multipath disk, which has no node.
    pub fn is_hidden(&self) -> bool {
        self.number_attribute("hidden") == Some(1)
    }

    /// The whole disk: of a partition the one that it lies on, else itself.
    pub fn disk(&self) -> io::Result<Block> {
        match self.folder.parent() {
            Some(parent) if self.is_partition() => Block::at(parent.to_path_buf()),
            _ => Ok(self.clone()),
        }
    }

    pub fn partitions(&self) -> io::Result<Vec<Block>> {
        let mut partitions = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let folder = entry.path();
            if entry.file_type()?.is_dir() && folder.join("partition").exists() {
                partitions.push(Block::at(folder)?);
            }
        }
        partitions.sort_by_key(Block::number);
        Ok(partitions)
    }

    /// The devices that stand on this one: device-mapper, md, bcache. A hidden path may lack the folder.
    pub fn holders(&self) -> io::Result<Vec<Block>> {
        match self.linked("holders") {
            Err(error) if is_gone(&error) && self.is_hidden() => Ok(Vec::new()),
            holders => holders,
        }
    }

    /// The devices that it stands on.
    pub fn slaves(&self) -> io::Result<Vec<Block>> {
        if self.has("slaves") { self.linked("slaves") } else { Ok(Vec::new()) }
    }

    fn linked(&self, folder: &str) -> io::Result<Vec<Block>> {
        let mut blocks = Vec::new();
        for entry in fs::read_dir(self.folder.join(folder))? {
            match linked_folder(&entry?.path()).and_then(Block::at) {
                // A disk that is gone keeps its link until what stands on it lets go.
                Err(error) if is_gone(&error) => {}
                block => blocks.push(block?),
            }
        }
        blocks.sort_by_cached_key(|block| natural(&block.name()));
        Ok(blocks)
    }

    /// Whether it stands on other devices.
    pub fn is_above_others(&self) -> bool {
        fs::read_dir(self.folder.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some())
    }
}

/// The names in a folder; `None` if there is no such folder.
pub(in crate::device) fn entries(folder: &Path) -> io::Result<Vec<String>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// As [`Block::attribute`].
pub(in crate::device) fn attribute(folder: &Path, name: &str) -> Option<String> {
    read_attribute(folder, name).ok().flatten()
}

/// Without the padding; as [`Block::read_attribute`].
pub(in crate::device) fn read_attribute(folder: &Path, name: &str) -> io::Result<Option<String>> {
    read_attribute_but(folder, name, &[libc::ENOENT, libc::ENOTDIR])
}

/// The same, where the kernel says by these errors that there is no such thing.
pub(in crate::device) fn read_attribute_but(
    folder: &Path,
    name: &str,
    absent: &[i32],
) -> io::Result<Option<String>> {
    match read_whole(&folder.join(name)) {
        Ok(bytes) => {
            let text = printable(String::from_utf8_lossy(&bytes).trim());
            Ok((!text.is_empty()).then_some(text))
        }
        Err(error) if error.raw_os_error().is_some_and(|errno| absent.contains(&errno)) => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{name} cannot be read: {error}"))),
    }
}

/// As `fs::read`, without asking for a length that sysfs does not know.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    const PAGE_BYTES: usize = 4096;
    let (mut file, mut bytes, mut length) = (File::open(path)?, vec![0; PAGE_BYTES], 0);
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(length + PAGE_BYTES, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// A folder that was there a moment ago is missing, or its device is.
pub(in crate::device) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO))
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{FakeTree, SDA};
    use super::*;

    fn names(blocks: Vec<Block>) -> Vec<String> {
        blocks.iter().map(Block::name).collect()
    }

    #[test]
    fn only_loop_devices_without_a_file_are_passed_over() {
        let fake = FakeTree::new();
        for (number, name) in ["loop7", "loop8", "loop9", "sda"].into_iter().enumerate() {
            fake.device(&format!("virtual/block/{name}"), &format!("7:{number}"));
        }
        fake.write("sys/devices/virtual/block/loop8/loop/backing_file", "/image\n");
        fake.device("virtual/block/loop8/loop8p1", "259:1");
        fake.make_unreadable("sys/devices/virtual/block/loop9/loop");
        assert_eq!(names(fake.tree.blocks().unwrap()), ["loop8", "loop8p1", "loop9", "sda"]);
    }

    #[test]
    fn a_disk_and_its_partition_know_one_another() {
        let fake = FakeTree::new();
        let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        let (disk, partition) = (fake.tree.block(disk).unwrap(), fake.tree.block(partition).unwrap());
        assert_eq!(names(disk.partitions().unwrap()), ["sda1"]);
        assert_eq!(partition.disk().unwrap().number(), disk.number());
        assert_eq!(disk.disk().unwrap().number(), disk.number());
        assert_eq!(partition.size_bytes(), 1 << 20);
    }

    #[test]
    fn a_device_is_at_its_own_folder_by_whatever_link_it_is_found() {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        fake.device("virtual/block/dm-3", "253:3");
        fake.hold(SDA, "virtual/block/dm-3");
        let devices = fake.tree.sys.join("devices");
        let disk = fake.tree.block(disk).unwrap();
        let [map] = &disk.holders().unwrap()[..] else { panic!("it has one holder") };
        assert_eq!(disk.folder(), devices.join(SDA));
        assert_eq!(map.folder(), devices.join("virtual/block/dm-3"));
        let all: Vec<PathBuf> =
            fake.tree.blocks().unwrap().iter().map(|block| block.folder().into()).collect();
        assert_eq!(all, [map.folder(), disk.folder()]);
    }

    #[test]
    fn disks_share_a_usb_bus_or_a_controller() {
        let fake = FakeTree::new();
        let bus = |folder: &str, number: &str| fake.tree.block(fake.device(folder, number)).unwrap().bus();
        assert_eq!(bus(SDA, "8:0").as_deref(), Some("0000:00:1f.2"));
        let stick = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
        assert_eq!(bus(stick, "8:16").as_deref(), Some("usb2"));
        assert_eq!(bus("virtual/block/loop0", "7:0"), None);
    }

    #[test]
    fn what_is_written_past_a_partition_or_discarded_has_changed_it() {
        let fake = FakeTree::new();
        let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        fake.write(&format!("sys/devices/{SDA}/stat"), "0 0 0 0 0 0 50 0 0 0 0 0 0 7 0 0 0\n");
        fake.write(&format!("sys/devices/{SDA}/sda1/stat"), "0 0 0 0 0 0 20 0 0 0 0 0 0 1 0 0 0\n");
        let counter = |number| WriteCounter::of(&fake.tree.block(number).unwrap());
        assert_eq!(counter(partition).bytes(), Some(20 * SECTOR_BYTES));
        assert_eq!(counter(partition).changed_bytes(), Some(57 * SECTOR_BYTES));
        assert_eq!(counter(disk).changed_bytes(), Some(57 * SECTOR_BYTES));
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
    fn a_device_without_a_number_is_gone_and_one_whose_number_cannot_be_read_is_an_error() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fs::remove_file(fake.tree.sys.join("devices").join(SDA).join("dev")).unwrap();
        assert!(fake.tree.blocks().unwrap().is_empty());
        fake.make_unreadable(&format!("sys/devices/{SDA}/dev"));
        assert!(fake.tree.blocks().is_err());
    }

    #[test]
    fn a_device_that_sysfs_does_not_show_is_an_error() {
        assert!(FakeTree::new().tree.block("8:0".parse().unwrap()).is_err());
    }
}
