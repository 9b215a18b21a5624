//! The inventory: all disks, what is on them, and whether the guard would accept them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::capabilities::{Capabilities, Prober};
use super::identity::Identity;
use super::kernel::blkid::{self, Signature};
use super::kernel::sysfs::Block;
use super::openers::Openers;
use super::place::Place;
use super::refusal::{self, Refusal};
use super::usage::{self, Usage};
use super::{DeviceNumber, Tree};
use crate::error::{Error, Result};
use crate::io::{Access, Target};
use crate::parallel;

/// One device, with what stands on it.
#[derive(Debug, Serialize)]
pub struct InventoryEntry {
    pub identity: Identity,
    /// Its stable names: /dev/disk/by-id, where udev runs.
    pub links: Vec<PathBuf>,
    pub read_only: bool,
    /// `None` if they cannot be read.
    pub signatures: Option<Vec<Signature>>,
    pub mounts: Vec<PathBuf>,
    pub swap: bool,
    /// Why a wipe would not take it; `None` if it would.
    pub refusal: Option<Refusal>,
    /// What the drive itself offers for erasing. `None` where that was not asked for, and of what stands on a
    /// disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Its partitions, and the devices that stand on it.
    pub above: Vec<InventoryEntry>,
}

/// Every disk that has bytes, and all that stands on it. Reads only. Without a `prober` no command is sent to
/// any drive.
pub fn inventory(tree: &Tree, prober: Option<&Prober>) -> Result<Vec<InventoryEntry>> {
    let unseen = |error| {
        Error::failed("the devices cannot be seen")
            .because(error)
            .with_remedy("see that /sys and /proc are mounted")
    };
    let survey = InventoryScan::new(tree).map_err(unseen)?;
    let blocks = tree.blocks().map_err(unseen)?;
    let lowest = |block: &&Block| !block.is_partition() && !block.is_hidden() && !block.is_above_others();
    let with_bytes = blocks.iter().filter(lowest).filter(|block| block.size_bytes() > 0);
    let entries = parallel::map(with_bytes.collect(), |block| survey.entry(block));
    let mut entries = entries.into_iter().collect::<io::Result<Vec<_>>>().map_err(unseen)?;
    if let Some(prober) = prober {
        let disks: Vec<&Identity> = entries.iter().map(|entry| &entry.identity).collect();
        let capabilities = prober.capabilities(tree, &disks);
        entries.iter_mut().zip(capabilities).for_each(|(entry, found)| entry.capabilities = Some(found));
    }
    Ok(entries)
}

const LOOK: Duration = Duration::from_millis(200);

/// What is looked up once for all devices.
struct InventoryScan<'a> {
    tree: &'a Tree,
    usage: Usage,
    openers: Openers,
    links: BTreeMap<DeviceNumber, Vec<PathBuf>>,
}

impl<'a> InventoryScan<'a> {
    fn new(tree: &'a Tree) -> io::Result<InventoryScan<'a>> {
        let usage = Usage::read(tree)?;
        let openers = kept_open(tree, &usage)?;
        Ok(InventoryScan { tree, usage, openers, links: links(tree) })
    }

    fn entry(&self, block: &Block) -> io::Result<InventoryEntry> {
        let node = self.tree.dev.join(block.name());
        let (number, partitions) = (block.number(), block.partitions()?);
        let probed = match self.usage.suspended(Place::Device(number)) {
            None => File::open(&node).and_then(|file| blkid::signatures(&file)),
            Some(suspended) => Err(io::Error::other(suspended.what)),
        };
        let refusal = self.refusal(block, &probed)?;
        let mut signatures = probed.ok();
        if !partitions.is_empty() {
            // Each partition has an entry of its own for these.
            signatures.iter_mut().for_each(|found| found.retain(|signature| signature.partition.is_none()));
        }
        let above = partitions
            .iter()
            .chain(&block.holders()?)
            .map(|each| self.entry(each))
            .collect::<io::Result<_>>()?;
        Ok(InventoryEntry {
            identity: Identity::of_block(self.tree, &node, node.clone(), block)?,
            links: self.links.get(&number).cloned().unwrap_or_default(),
            read_only: block.is_read_only(),
            signatures,
            mounts: self.mount_points(number),
            swap: self.usage.is_swap(number),
            refusal,
            capabilities: None,
            above,
        })
    }

    /// Each once, however many namespaces have it.
    fn mount_points(&self, number: DeviceNumber) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let points = self.usage.mounts_of(number).map(|mount| mount.point.clone());
        points.filter(|point| seen.insert(point.clone())).collect()
    }

    /// What the guard would say, in its order.
    fn refusal(&self, block: &Block, probed: &io::Result<Vec<Signature>>) -> io::Result<Option<Refusal>> {
        if let Some(used) = self.usage.of_device(block)?.into_iter().next() {
            return Ok(Some(used));
        }
        if let Some(suspended) = self.usage.suspended(Place::Device(block.number())) {
            return Ok(Some(suspended));
        }
        if let Some(zoned) = usage::zoned(block)? {
            return Ok(Some(zoned));
        }
        if block.is_read_only() {
            return Ok(Some(refusal::read_only()));
        }
        let signatures = match probed {
            Ok(signatures) => signatures,
            Err(error) => return Ok(Some(refusal::unprobed(error))),
        };
        if let Some(unread) = blkid::unread(signatures) {
            return Ok(Some(refusal::unprobed(&unread)));
        }
        let (place, node) = (Place::Device(block.number()), self.tree.dev.join(block.name()));
        let in_zpool =
            self.usage.in_zpool(place, signatures, || Target::open(&node, Access::ReadAlone).is_ok());
        if let Some(refusal) = in_zpool.or_else(|| usage::shared(signatures)) {
            return Ok(Some(refusal));
        }
        let opened = self.usage.open_elsewhere(place, &self.openers, &node);
        Ok(opened.or_else(|| Some(refusal::unseen(self.openers.unseen.first()?))))
    }
}

/// What processes have open, and still have after a moment: udev opens devices only briefly.
fn kept_open(tree: &Tree, usage: &Usage) -> io::Result<Openers> {
    let files = usage.files();
    let look = || Openers::read(tree, &files);
    let openers = look()?;
    if openers.is_empty() {
        return Ok(openers);
    }
    thread::sleep(LOOK);
    Ok(openers.still_in(&look()?))
}

/// By device, the names that udev gave it.
fn links(tree: &Tree) -> BTreeMap<DeviceNumber, Vec<PathBuf>> {
    let mut links: BTreeMap<DeviceNumber, Vec<PathBuf>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(tree.dev.join("disk/by-id")) else { return links };
    for link in entries.flatten().map(|entry| entry.path()) {
        if let Ok(node) = fs::metadata(&link) {
            links.entry(DeviceNumber(node.rdev())).or_default().push(link);
        }
    }
    links.values_mut().for_each(|names| names.sort());
    links
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::super::fake::{FakeTree, SDA, zfs_label};
    use super::*;
    use crate::loops::Loop;

    #[test]
    fn what_stands_on_a_disk_is_below_it_and_nothing_is_left_out() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fake.partition(SDA, "8:1");
        fake.device("virtual/block/dm-0", "253:0");
        fake.write("sys/devices/virtual/block/dm-0/dm/name", "vg-root\n");
        fake.hold(&format!("{SDA}/sda1"), "virtual/block/dm-0");
        fake.device("virtual/block/loop0", "7:0");
        fake.write("sys/devices/virtual/block/loop0/size", "0\n");
        fake.write("proc/self/mountinfo", "27 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n28 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n");
        let entries = inventory(&fake.tree, None).unwrap();
        let [sda] = &entries[..] else { panic!("{entries:?}") };
        let [sda1] = &sda.above[..] else { panic!("{sda:?}") };
        let [root] = &sda1.above[..] else { panic!("{sda1:?}") };
        assert_eq!(root.mounts, [PathBuf::from("/")]);
        for entry in [sda, sda1, root] {
            assert_eq!(entry.refusal.as_ref().unwrap().short, "mounted at /", "{entry:?}");
        }
    }

    #[test]
    fn a_label_of_an_imported_zfs_pool_counts_only_where_the_device_is_held() {
        let Some(device) = Loop::new(&zfs_label("tank"), &[]) else { return };
        let fake = FakeTree::new();
        fs::create_dir_all(fake.tree.proc.join("spl/kstat/zfs/tank")).unwrap();
        let tree = Tree { proc: fake.tree.proc.clone(), ..Tree::real() };
        let number = Place::of(&fs::metadata(&device.node).unwrap());
        let refusal = || {
            let blocks = tree.blocks().unwrap();
            let block = blocks.iter().find(|block| Place::Device(block.number()) == number).unwrap();
            let refusal = InventoryScan::new(&tree).unwrap().entry(block).unwrap().refusal;
            refusal.map(|refusal| refusal.short)
        };
        assert_eq!(refusal(), None);
        let mut held = File::options();
        let _member = held.read(true).custom_flags(libc::O_EXCL).open(&device.node).unwrap();
        assert_eq!(refusal().as_deref(), Some("in ZFS pool tank"));
    }
}
