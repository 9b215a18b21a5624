//! Who uses the bytes of a device: mounts, swap, device-mapper, md, btrfs, ZFS, loop devices.
//!
//! Everything here is read from /sys and /proc. A use is looked for on the device itself, on the
//! disk that it lies on and on its partitions, and up from there through everything that stands on
//! them. What only shares the disk (another partition, another logical volume) is no use of it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blkid::Signature;
use super::place::Place;
use super::procfs::{self, Mount, Opened, Process};
use super::sysfs::{Block, Loop};
use super::{DeviceNumber, Tree, printable};
use crate::error::Error;
use crate::range::Extent;

/// A refusal that the user may override, by its name in `--force`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Force {
    /// A file system that other hosts may have mounted.
    SharedFs,
    /// A closed snapshot's exception store, which only its snapshot holds.
    SnapshotCow,
    /// What is on the device cannot be read.
    Unprobed,
}

impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Force::SharedFs => "shared-fs",
            Force::SnapshotCow => "snapshot-cow",
            Force::Unprobed => "unprobed",
        })
    }
}

/// Why a device is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// In a few words.
    pub short: String,
    /// What holds which of its bytes.
    pub what: String,
    pub way_out: String,
    /// What overrides it; nothing does where this is none.
    pub force: Option<Force>,
    /// The running system stands on it.
    #[serde(skip)]
    system: bool,
}

impl Refusal {
    pub(super) fn new(
        short: impl Into<String>,
        what: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Refusal {
        let (short, what, way_out) = (short.into(), what.into(), way_out.into());
        Refusal { short, what, way_out, force: None, system: false }
    }

    fn unless(self, force: Force) -> Refusal {
        Refusal {
            way_out: format!("{}, or override it with --force {force}", self.way_out),
            force: Some(force),
            ..self
        }
    }

    /// The same, seen from a device below the one that it is about.
    fn below(self, name: &str, held_by: &str, close: &str) -> Refusal {
        let way_out = if self.system { self.way_out } else { format!("{}, then {close}", self.way_out) };
        Refusal { what: format!("{name} is held by {held_by}: {}", self.what), way_out, ..self }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::refused(refusal.what).way_out(refusal.way_out)
    }
}

/// Where the running system lives.
const SYSTEM: [&str; 4] = ["/", "/boot", "/boot/efi", "/usr"];

/// A chain of devices that stand on one another is never longer.
const DEPTH_MAX: u32 = 16;

/// What the kernel told at one moment.
pub(super) struct Usage<'a> {
    tree: &'a Tree,
    mounts: Vec<Mount>,
    swaps: Vec<PathBuf>,
    /// Each member of a mounted btrfs, with the UUID of that.
    btrfs: Vec<(DeviceNumber, String)>,
    /// The imported ZFS pools.
    pools: Vec<String>,
    loops: Vec<Loop>,
}

impl<'a> Usage<'a> {
    pub fn read(tree: &'a Tree) -> io::Result<Usage<'a>> {
        Ok(Usage {
            tree,
            mounts: procfs::mounts(tree)?,
            swaps: procfs::swaps(tree)?,
            btrfs: btrfs_members(tree)?,
            pools: entries(&tree.proc.join("spl/kstat/zfs"))?,
            loops: tree.loops()?,
        })
    }

    pub fn mounts_of(&self, number: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.is_of(number, self.tree))
    }

    pub fn is_swap(&self, number: DeviceNumber) -> bool {
        self.swaps.iter().any(|swap| self.tree.number_of(swap) == Some(number))
    }

    /// Everything that uses bytes of this device, the gravest first.
    pub fn of_device(&self, target: &Block) -> io::Result<Vec<Refusal>> {
        if let Some(refusal) = self.closed_snapshot_cow(target)? {
            return Ok(vec![refusal]);
        }
        let mut refusals = self.of_device_at(target, 0)?;
        refusals.extend(hidden_by_lvm(target));
        refusals.extend(kept_by_snapshots(target, 0)?);
        refusals.sort_by_key(|refusal| !refusal.system);
        Ok(refusals)
    }

    fn of_device_at(&self, target: &Block, depth: u32) -> io::Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        for block in target.overlapping()? {
            refusals.extend(self.of_block(&block, depth)?);
            refusals.extend(self.loop_over(&block, target));
        }
        if let Some(own) = Loop::of(target) {
            refusals.extend(self.of_backing(&own, depth)?);
        }
        Ok(refusals)
    }

    /// What uses one device as such, and what uses the devices that stand on it.
    fn of_block(&self, block: &Block, depth: u32) -> io::Result<Vec<Refusal>> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("{} stands on too many others", block.name())));
        }
        let (name, number) = (block.name(), block.number());
        let mut refusals: Vec<Refusal> = self.mounts_of(number).map(|mount| mounted(&name, mount)).collect();
        let swaps = self.swaps.iter().filter(|swap| self.tree.number_of(swap) == Some(number));
        refusals.extend(swaps.map(|swap| swapped_to(&name, swap)));
        if refusals.is_empty() {
            refusals.extend(self.in_btrfs(&name, number));
        }
        for holder in block.holders()? {
            let (held_by, close) = holding(&holder);
            let above = self.of_device_at(&holder, depth + 1)?;
            if above.is_empty() {
                let short = format!("held by {}", map_name(&holder));
                refusals.push(Refusal::new(short, format!("{name} is held by {held_by}"), close));
            } else {
                refusals.extend(above.into_iter().map(|use_| use_.below(&name, &held_by, &close)));
            }
        }
        Ok(refusals)
    }

    /// A mounted btrfs shows only one of its devices as mounted.
    fn in_btrfs(&self, name: &str, number: DeviceNumber) -> Option<Refusal> {
        let (_, uuid) = self.btrfs.iter().find(|(member, _)| *member == number)?;
        let members = self.btrfs.iter().filter(|(_, other)| other == uuid).map(|(member, _)| *member);
        let mount = members.into_iter().find_map(|member| self.mounts_of(member).next());
        let mut refusal = match mount {
            Some(mount) => mounted(name, mount),
            None => Refusal::new("mounted", "", "unmount that file system first"),
        };
        let place =
            mount.map_or(String::new(), |mount| format!(" at {}", printable(&mount.point.to_string_lossy())));
        refusal.what = format!("{name} is a member of the btrfs {uuid}, which is mounted{place}");
        Some(refusal)
    }

    /// A loop device can stand on a block device too.
    fn loop_over(&self, block: &Block, target: &Block) -> Option<Refusal> {
        let over = |each: &&Loop| {
            each.number != target.number() && self.tree.number_of(&each.file) == Some(block.number())
        };
        let device = self.loops.iter().find(over)?;
        Some(attached(&block.name(), device))
    }

    /// A loop device is its backing file: that must not be swap, nor belong to a second loop device.
    fn of_backing(&self, own: &Loop, depth: u32) -> io::Result<Vec<Refusal>> {
        match own.place(self.tree) {
            Some(Place::Device(number)) => {
                // Its bytes are those of another device; our own loop device over it is no use.
                let below = self.tree.block(number)?;
                let mut refusals = Vec::new();
                for block in below.overlapping()? {
                    refusals.extend(self.of_block(&block, depth + 1)?);
                }
                Ok(refusals)
            }
            place => Ok(self.of_file(place, Some(own))),
        }
    }

    /// Who uses an image file: swap, and loop devices (but for the one that is asked about, and
    /// those over other ranges of the file).
    pub fn of_file(&self, place: Option<Place>, own: Option<&Loop>) -> Vec<Refusal> {
        let name = own.map_or("it".into(), |own| format!("{}'s backing file", own.name));
        let bytes = own.map_or(Extent::new(0, u64::MAX), |own| own.bytes);
        let same_file = |other: &Loop| match (place, other.place(self.tree)) {
            (Some(place), Some(other)) => place == other,
            // A file that nobody can reach any more is known by its name alone.
            _ => own.is_some_and(|own| own.file == other.file),
        };
        let swap = self.swaps.iter().filter(|swap| place.is_some() && Place::at(swap) == place);
        let loops = self.loops.iter().filter(|other| {
            own.is_none_or(|own| own.number != other.number)
                && !other.bytes.intersect(bytes).is_empty()
                && same_file(other)
        });
        swap.map(|swap| swapped_to(&name, swap)).chain(loops.map(|other| attached(&name, other))).collect()
    }

    /// Members of an imported pool have no holder in sysfs: their label names the pool.
    pub fn in_zpool(&self, signatures: &[Signature]) -> Option<Refusal> {
        let member = |signature: &&Signature| {
            signature.kind == "zfs_member"
                && signature.label.as_ref().is_some_and(|pool| self.pools.contains(pool))
        };
        let pool = signatures.iter().find(member)?.label.as_ref()?;
        let what = format!("it is a member of the imported ZFS pool {pool}");
        Some(Refusal::new(
            format!("in ZFS pool {pool}"),
            what,
            format!("export the pool first: zpool export {pool}"),
        ))
    }

    /// The exception store of a snapshot that nobody uses: LVM keeps it open, and no one else.
    fn closed_snapshot_cow(&self, target: &Block) -> io::Result<Option<Refusal>> {
        let Some(snapshot) = snapshot_of_cow(target)? else { return Ok(None) };
        if !self.of_device_at(&snapshot, 1)?.is_empty() {
            return Ok(None);
        }
        let (name, map) = (target.name(), map_name(&snapshot));
        let what = format!("{name} is the exception store of the snapshot {map}");
        let way_out = format!("make a plain volume of it first: lvconvert --splitsnapshot {map}");
        Ok(Some(Refusal::new("snapshot's exception store", what, way_out).unless(Force::SnapshotCow)))
    }
}

/// The snapshot that stands on this exception store, where it alone does.
pub(super) fn snapshot_of_cow(target: &Block) -> io::Result<Option<Block>> {
    let uuid = |block: &Block| block.attribute("dm/uuid");
    let Some(volume) = uuid(target).and_then(|uuid| Some(uuid.strip_suffix("-cow")?.to_string())) else {
        return Ok(None);
    };
    let mut holders = target.holders()?;
    Ok(match (holders.pop(), holders.pop()) {
        (Some(snapshot), None) if uuid(&snapshot) == Some(volume) => Some(snapshot),
        _ => None,
    })
}

/// A file system that other hosts may have mounted, whatever ours knows.
pub(super) fn shared(signatures: &[Signature]) -> Option<Refusal> {
    const SHARED: [&str; 3] = ["gfs", "ocfs", "vmfs"];
    let is_shared = |signature: &&Signature| {
        let kind = signature.kind.to_ascii_lowercase();
        SHARED.iter().any(|shared| kind.starts_with(shared))
    };
    let found = signatures.iter().find(is_shared)?.describe();
    let what = format!("it holds {found}, a file system that other hosts may have mounted");
    let refusal =
        Refusal::new(format!("{found}: other hosts may use it"), what, "make sure that no host uses it");
    Some(refusal.unless(Force::SharedFs))
}

/// What cannot be read is not taken for empty.
pub(super) fn unprobed(error: &io::Error) -> Refusal {
    let what = format!("what is on it cannot be read: {error}");
    Refusal::new("cannot be probed", what, "see what the kernel says of it: dmesg").unless(Force::Unprobed)
}

pub(super) fn read_only() -> Refusal {
    let way_out = "lift the write protection (blockdev --setrw), if it may be lifted";
    Refusal::new("read-only", "it is read-only", way_out)
}

/// Zones that must be written in order cannot be written by offset.
pub(super) fn zoned(block: &Block) -> io::Result<Option<Refusal>> {
    let model = block.disk()?.attribute("queue/zoned");
    let way_out = "reset its zones: blkzone reset, or sanitize it by the drive's own command";
    Ok((model.as_deref() == Some("host-managed"))
        .then(|| Refusal::new("host-managed zones", "its zones can only be written in order", way_out)))
}

/// The block devices, and the backing files of these loop devices, that other processes have open.
pub(super) fn openers(tree: &Tree, loops: &[Loop]) -> Vec<Opened> {
    let backing: Vec<Place> = loops.iter().filter_map(|device| device.place(tree)).collect();
    procfs::opened(tree, &|file| file.file_type().is_block_device() || backing.contains(&Place::of(file)))
}

/// A descriptor of another process on the target, a partition of it, the disk that it lies on, or
/// a loop device's backing file.
pub(super) fn open_elsewhere(tree: &Tree, target: &Block, opened: &[Opened]) -> io::Result<Option<Refusal>> {
    let disk = Place::Device(target.disk()?.number());
    let own: Vec<Place> = target.overlapping()?.iter().map(|block| Place::Device(block.number())).collect();
    let uses = |each: &&Opened| {
        own.contains(&each.place)
            // Many a monitor keeps the whole disk open for reading.
            && (each.writes || !target.is_partition() || each.place != disk)
    };
    if let Some(each) = opened.iter().find(uses) {
        return Ok(Some(open_in(&each.process)));
    }
    let backing = Loop::of(target).and_then(|device| device.place(tree));
    let writer = opened.iter().find(|each| each.writes && Some(each.place) == backing);
    Ok(writer.map(|each| {
        let mut refusal = open_in(&each.process);
        refusal.what = format!("its backing file: {}", refusal.what);
        refusal
    }))
}

pub(super) fn open_in(process: &Process) -> Refusal {
    let way_out = format!("end that process first, if it may end: kill {}", process.id);
    Refusal::new(format!("open in {process}"), format!("{process} has it open"), way_out)
}

fn mounted(name: &str, mount: &Mount) -> Refusal {
    let point = printable(&mount.point.to_string_lossy());
    let (whose, umount) = match &mount.seen_by {
        None => (String::new(), format!("umount {point}")),
        Some(process) => (
            format!(" in the mount namespace of {process}"),
            format!("nsenter --target {} --mount umount {point}", process.id),
        ),
    };
    let mut refusal = Refusal::new(
        format!("mounted at {point}"),
        format!("{name} is mounted at {point}{whose}"),
        format!("unmount it first: {umount}"),
    );
    if SYSTEM.iter().any(|system| mount.point == Path::new(system)) {
        refusal.system = true;
        refusal.what += ": the running system is on it";
        refusal.way_out = "boot another system to wipe this disk".into();
    }
    refusal
}

fn swapped_to(name: &str, swap: &Path) -> Refusal {
    let way_out = format!("take it out of use first: swapoff {}", swap.display());
    Refusal::new("swap", format!("{name} is in use as swap"), way_out)
}

fn attached(name: &str, device: &Loop) -> Refusal {
    let loop_device = &device.name;
    Refusal::new(
        format!("attached to {loop_device}"),
        format!("{name} is attached to the loop device {loop_device}"),
        format!("detach it first: losetup --detach /dev/{loop_device}"),
    )
}

/// By the name that people gave it, where it has one.
fn map_name(block: &Block) -> String {
    block.attribute("dm/name").unwrap_or_else(|| block.name())
}

/// What a holder is, and how to end it.
fn holding(holder: &Block) -> (String, String) {
    let upper = holder.name();
    let Some(map) = holder.attribute("dm/name") else {
        return match holder.has("md") {
            true => (format!("the md array {upper}"), format!("stop the array: mdadm --stop /dev/{upper}")),
            false => (upper.clone(), format!("stop what runs on /dev/{upper}")),
        };
    };
    let uuid = holder.attribute("dm/uuid").unwrap_or_default();
    let (what, close) = match uuid.split('-').next() {
        Some("CRYPT") => ("the open crypt mapping", format!("close it: cryptsetup close {map}")),
        Some("LVM") => {
            ("the logical volume", format!("deactivate it: lvchange --activate n /dev/mapper/{map}"))
        }
        Some("mpath") => {
            ("the multipath map", format!("wipe the map instead of its path: /dev/mapper/{map}"))
        }
        _ => ("the device-mapper device", format!("remove it: dmsetup remove {map}")),
    };
    (format!("{what} {map} ({upper})"), close)
}

/// LVM's own parts of a volume: their UUID has a word behind that of the volume.
fn hidden_by_lvm(target: &Block) -> Option<Refusal> {
    let uuid = target.attribute("dm/uuid")?;
    let part = uuid.strip_prefix("LVM-")?.split_once('-')?.1.to_string();
    let map = map_name(target);
    let what = format!("{map} is a hidden part of an LVM volume ({part})");
    Some(Refusal::new(
        format!("hidden part of LVM ({part})"),
        what,
        "name the volume that it belongs to: lvs --all",
    ))
}

/// Of a volume with snapshots, and of what stands on one, the old data goes to those as it is overwritten.
fn kept_by_snapshots(target: &Block, depth: u32) -> io::Result<Option<Refusal>> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("{} stands on too many others", target.name())));
    }
    let data = target.attribute("dm/uuid").map(|uuid| format!("{uuid}-real"));
    for below in target.slaves()? {
        if data.is_none() || below.attribute("dm/uuid") != data {
            if let Some(refusal) = kept_by_snapshots(&below, depth + 1)? {
                return Ok(Some(refusal));
            }
            continue;
        }
        let snapshots = below.holders()?.into_iter().filter(|holder| holder.number() != target.number());
        let names: Vec<String> = snapshots.map(|snapshot| map_name(&snapshot)).collect();
        if !names.is_empty() {
            let (origin, names) = (map_name(target), names.join(", "));
            let short = format!("origin of the snapshot {names}");
            let what = format!("what is overwritten of {origin} is kept by its snapshot {names}");
            let way_out = format!("remove the snapshot first: lvremove, or lvs --all to see them ({names})");
            return Ok(Some(Refusal::new(short, what, way_out)));
        }
    }
    Ok(None)
}

fn btrfs_members(tree: &Tree) -> io::Result<Vec<(DeviceNumber, String)>> {
    let folder = tree.sys.join("fs/btrfs");
    let mut members = Vec::new();
    for uuid in entries(&folder)? {
        for name in entries(&folder.join(&uuid).join("devices"))? {
            let number = fs::read_to_string(folder.join(&uuid).join("devices").join(name).join("dev"))?;
            let number = number.trim().parse().map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
            members.push((number, uuid.clone()));
        }
    }
    Ok(members)
}

/// The names in a folder; none where there is no such folder.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
