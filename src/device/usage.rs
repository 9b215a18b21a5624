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
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::fake::{FakeTree, SDA, SWAPS_HEADER};
    use super::*;

    const SDB: &str = "pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb";

    fn refusals(fake: &FakeTree, device: DeviceNumber) -> Vec<Refusal> {
        let block = fake.tree.block(device).unwrap();
        Usage::read(&fake.tree).unwrap().of_device(&block).unwrap()
    }

    fn mount(fake: &FakeTree, line: &str) {
        fake.write("proc/self/mountinfo", format!("22 27 0:21 / /proc rw - proc proc rw\n{line}\n"));
    }

    /// A dm device over another one.
    fn map(fake: &FakeTree, name: &str, number: &str, uuid: &str, over: &str) -> DeviceNumber {
        let folder = format!("virtual/block/dm-{}", number.split(':').next_back().unwrap());
        let device = fake.device(&folder, number);
        fake.write(&format!("sys/devices/{folder}/dm/name"), format!("{name}\n"));
        fake.write(&format!("sys/devices/{folder}/dm/uuid"), format!("{uuid}\n"));
        fake.hold(over, &folder);
        device
    }

    const VOLUME: &str = "LVM-AbCdEfGhIjKlMnOpQrStUvWxYz012345AbCdEfGhIjKlMnOpQrStUvWxYz543210";

    #[test]
    fn a_device_that_nobody_uses_passes() {
        let fake = FakeTree::new();
        let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
        mount(&fake, "27 1 8:16 / / rw,relatime shared:1 - ext4 /dev/sdb rw");
        fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sdb2 partition 1020 0 -2\n"));
        assert!(targets.iter().all(|target| refusals(&fake, *target).is_empty()));
    }

    type SetUp = fn(&FakeTree);

    /// Uses of sda or of sda1, and the words that name them and the way out.
    const USES: [(SetUp, &[&str]); 16] = [
        (
            |fake| mount(fake, "27 1 8:0 / /mnt rw - ext4 /dev/sda rw"),
            &["sda is mounted at /mnt", "umount /mnt"],
        ),
        (
            |fake| mount(fake, "27 1 8:1 / / rw shared:1 - ext4 /dev/root rw"),
            &["sda1 is mounted at /: the running system is on it", "boot another system"],
        ),
        (|fake| mount(fake, "27 1 8:1 / /boot rw - ext4 /dev/sda1 rw"), &["/boot", "boot another system"]),
        (|fake| mount(fake, "27 1 0:41 / /b rw - btrfs /dev/sda1 rw"), &["sda1 is mounted at /b"]),
        (
            |fake| mount(fake, "27 1 0:41 / /c rw - bcachefs /dev/sdb:/dev/sda1 rw"),
            &["sda1 is mounted at /c", "umount /c"],
        ),
        (
            |fake| {
                fake.write("proc/77/comm", "container\n");
                fs::create_dir_all(fake.tree.proc.join("77/ns")).unwrap();
                symlink("mnt:[4026532000]", fake.tree.proc.join("77/ns/mnt")).unwrap();
                fake.write("proc/77/mountinfo", "27 1 8:1 / /data rw - xfs /dev/sda1 rw\n");
            },
            &["mounted at /data in the mount namespace of process 77 (container)", "nsenter --target 77"],
        ),
        (
            |fake| fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sda1 partition 1020 0 -2\n")),
            &["sda1 is in use as swap", "swapoff /dev/sda1"],
        ),
        (
            |fake| {
                map(fake, "vg-root", "253:3", VOLUME, &format!("{SDA}/sda1"));
            },
            &[
                "sda1 is held by the logical volume vg-root (dm-3)",
                "lvchange --activate n /dev/mapper/vg-root",
            ],
        ),
        (
            |fake| {
                map(fake, "secret", "253:4", "CRYPT-LUKS2-0123-secret", SDA);
            },
            &["sda is held by the open crypt mapping secret (dm-4)", "cryptsetup close secret"],
        ),
        (
            |fake| {
                map(fake, "mpatha", "253:5", "mpath-3600508b400105e210000900000490000", SDA);
            },
            &["sda is held by the multipath map mpatha", "/dev/mapper/mpatha"],
        ),
        (
            |fake| {
                map(fake, "secret", "253:4", "CRYPT-LUKS2-0123-secret", &format!("{SDA}/sda1"));
                map(fake, "vg-root", "253:3", VOLUME, "virtual/block/dm-4");
                mount(fake, "27 1 253:3 / /home rw - ext4 /dev/mapper/vg-root rw");
            },
            &[
                "sda1 is held by the open crypt mapping secret (dm-4): \
                     dm-4 is held by the logical volume vg-root (dm-3): dm-3 is mounted at /home",
                "umount /home, then deactivate it: lvchange --activate n /dev/mapper/vg-root, then close it",
            ],
        ),
        (
            |fake| {
                fake.device("virtual/block/md127", "9:127");
                fake.write("sys/devices/virtual/block/md127/md/level", "raid1\n");
                fake.hold(SDA, "virtual/block/md127");
            },
            &["sda is held by the md array md127", "mdadm --stop /dev/md127"],
        ),
        (
            |fake| {
                fake.device("virtual/block/bcache0", "251:0");
                fake.hold(SDA, "virtual/block/bcache0");
            },
            &["sda is held by bcache0"],
        ),
        (
            |fake| {
                fake.device(SDB, "8:16");
                let members = fake.tree.sys.join("fs/btrfs/0b5e-uuid/devices");
                fs::create_dir_all(&members).unwrap();
                for (name, number) in [("sda1", "8:1"), ("sdb", "8:16")] {
                    symlink(fake.tree.sys.join("dev/block").join(number), members.join(name)).unwrap();
                }
                mount(fake, "27 1 0:41 / /pool rw - btrfs /dev/sdb rw");
            },
            &["sda1 is a member of the btrfs 0b5e-uuid, which is mounted at /pool", "umount /pool"],
        ),
        (
            |fake| {
                fake.device("virtual/block/loop3", "7:3");
                fake.write("sys/devices/virtual/block/loop3/loop/backing_file", "/dev/sda1\n");
            },
            &["sda1 is attached to the loop device loop3", "losetup --detach /dev/loop3"],
        ),
        (
            |fake| fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sda partition 1020 0 -2\n")),
            &["sda is in use as swap"],
        ),
    ];

    #[test]
    fn each_use_of_a_disk_or_its_partition_refuses_both() {
        for (set_up, words) in USES {
            let fake = FakeTree::new();
            let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
            set_up(&fake);
            for target in targets {
                let found = refusals(&fake, target);
                let first = found.first().unwrap_or_else(|| panic!("{words:?} is refused"));
                let text = format!("{}; {}", first.what, first.way_out);
                assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
                assert_eq!(first.force, None);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_pass() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fake.write("proc/self/mountinfo", "cut off");
        assert!(Usage::read(&fake.tree).is_err());
    }

    #[test]
    fn a_neighbour_on_the_same_disk_or_volume_group_is_no_reason() {
        let fake = FakeTree::new();
        let (disk, neighbour) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        let folder = format!("{SDA}/sda2");
        let free = fake.device(&folder, "8:2");
        fake.write(&format!("sys/devices/{folder}/partition"), "2\n");
        let root = map(&fake, "vg-root", "253:0", VOLUME, &format!("{SDA}/sda1"));
        let tenant = map(&fake, "vg-volume", "253:1", &VOLUME.replace('0', "9"), &format!("{SDA}/sda1"));
        mount(&fake, "27 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw");
        let passes = |number| refusals(&fake, number).is_empty();
        assert_eq!([disk, neighbour, root].map(passes), [false; 3]);
        assert_eq!([free, tenant].map(passes), [true; 2]);
    }

    #[test]
    fn the_running_system_is_told_before_all_else() {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        fake.partition(SDA, "8:1");
        map(&fake, "vg-data", "253:0", VOLUME, SDA);
        mount(
            &fake,
            "27 1 253:0 / /data rw - ext4 /dev/mapper/vg-data rw\n28 1 8:1 / / rw - ext4 /dev/sda1 rw",
        );
        assert!(refusals(&fake, disk)[0].what.contains("the running system"));
    }

    #[test]
    fn lvms_hidden_parts_are_refused_by_what_they_are() {
        for part in ["tpool", "tdata", "tmeta", "pool", "real", "cow", "cdata"] {
            let fake = FakeTree::new();
            fake.device(SDA, "8:0");
            let hidden = map(&fake, "vg-hidden", "253:0", &format!("{VOLUME}-{part}"), SDA);
            let refusal = &refusals(&fake, hidden)[0];
            assert!(refusal.what.contains(&format!("hidden part of an LVM volume ({part})")), "{refusal:?}");
            assert_eq!(refusal.force, None);
        }
    }

    #[test]
    fn a_volume_is_refused_while_a_snapshot_keeps_what_is_overwritten() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        map(&fake, "vg-lv-real", "253:0", &format!("{VOLUME}-real"), SDA);
        let origin = map(&fake, "vg-lv", "253:1", VOLUME, "virtual/block/dm-0");
        let crypt = map(&fake, "secret", "253:2", "CRYPT-LUKS2-0123-secret", "virtual/block/dm-1");
        assert!(refusals(&fake, crypt).is_empty());
        map(&fake, "vg-snap", "253:3", &VOLUME.replace('0', "9"), "virtual/block/dm-0");
        for target in [origin, crypt] {
            let found = refusals(&fake, target);
            let kept = found.last().expect("it is refused");
            assert!(kept.what.contains("kept by its snapshot vg-snap"), "{kept:?}");
            assert_eq!(kept.force, None);
        }
    }

    /// A snapshot over its exception store, as LVM makes it.
    fn snapshot() -> (FakeTree, DeviceNumber) {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        let store = map(&fake, "vg-snap-cow", "253:1", &format!("{VOLUME}-cow"), SDA);
        map(&fake, "vg-snap", "253:2", VOLUME, "virtual/block/dm-1");
        (fake, store)
    }

    #[test]
    fn only_a_closed_snapshots_store_can_be_forced() {
        let (fake, store) = snapshot();
        let [closed] = &refusals(&fake, store)[..] else { panic!("one reason") };
        assert_eq!(closed.force, Some(Force::SnapshotCow));
        assert!(closed.what.contains("exception store of the snapshot vg-snap"), "{closed:?}");

        mount(&fake, "27 1 253:2 / /snap rw - ext4 /dev/mapper/vg-snap rw");
        let open = refusals(&fake, store);
        assert!(open.iter().all(|refusal| refusal.force.is_none()), "{open:?}");
        assert!(open[0].what.contains("mounted at /snap"));

        let (fake, store) = snapshot();
        map(&fake, "other", "253:9", "", "virtual/block/dm-1");
        assert!(refusals(&fake, store).iter().all(|refusal| refusal.force.is_none()));
    }

    #[test]
    fn a_loop_device_is_its_backing_file_and_the_range_of_it() {
        let fake = FakeTree::new();
        let image = tempfile::NamedTempFile::new().unwrap();
        let attach = |name: &str, number: &str, offset: u64| {
            let folder = format!("virtual/block/{name}");
            let device = fake.device(&folder, number);
            let path = image.path().display();
            fake.write(&format!("sys/devices/{folder}/loop/backing_file"), format!("{path}\n"));
            fake.write(&format!("sys/devices/{folder}/loop/offset"), format!("{offset}\n"));
            device
        };
        let first = attach("loop5", "7:5", 0);
        assert!(refusals(&fake, first).is_empty());
        // Two ranges of one file are two devices: a volume group without device-mapper.
        let apart = attach("loop6", "7:6", 1 << 20);
        assert!(refusals(&fake, first).is_empty() && refusals(&fake, apart).is_empty());
        attach("loop7", "7:7", 4096);
        assert!(
            refusals(&fake, first)[0]
                .what
                .contains("loop5's backing file is attached to the loop device loop7")
        );

        fake.write("proc/swaps", format!("{SWAPS_HEADER}{} file 1020 0 -2\n", image.path().display()));
        assert!(refusals(&fake, first)[0].what.contains("swap"));
    }

    #[test]
    fn a_loop_device_over_a_device_has_that_devices_users() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fake.partition(SDA, "8:1");
        let device = fake.device("virtual/block/loop3", "7:3");
        fake.write("sys/devices/virtual/block/loop3/loop/backing_file", "/dev/sda\n");
        assert!(refusals(&fake, device).is_empty());
        mount(&fake, "27 1 8:1 / /mnt rw - ext4 /dev/sda1 rw");
        assert!(refusals(&fake, device)[0].what.contains("sda1 is mounted at /mnt"));
    }

    fn signature(kind: &str, partition: Option<u32>) -> Signature {
        let (usage, label) = ("filesystem".into(), Some("tank".into()));
        Signature { kind: kind.into(), usage, label, uuid: None, partition }
    }

    #[test]
    fn a_shared_file_system_is_refused_in_any_case_and_in_a_partition() {
        for kind in ["gfs2", "GFS2", "ocfs2", "VMFS", "VMFS_volume_member", "vmfs"] {
            for partition in [None, Some(3)] {
                let found = [signature("gpt", None), signature(kind, partition)];
                assert_eq!(shared(&found).unwrap().force, Some(Force::SharedFs), "{kind}");
            }
        }
        let bare = [
            "ext4",
            "LVM2_member",
            "crypto_LUKS",
            "linux_raid_member",
            "btrfs",
            "zfs_member",
            "ceph_bluestore",
        ];
        assert_eq!(shared(&bare.map(|kind| signature(kind, None))), None);
    }

    #[test]
    fn a_pool_is_in_use_when_it_is_imported() {
        let fake = FakeTree::new();
        let member = [signature("zfs_member", None)];
        assert_eq!(Usage::read(&fake.tree).unwrap().in_zpool(&member), None);
        fake.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
        let refusal = Usage::read(&fake.tree).unwrap().in_zpool(&member).unwrap();
        assert!(
            refusal.what.contains("imported ZFS pool tank") && refusal.way_out.contains("zpool export tank")
        );
        fake.write("proc/spl/kstat/zfs/dbgmsg", "");
        assert_eq!(Usage::read(&fake.tree).unwrap().in_zpool(&[signature("ext4", None)]), None);
    }

    #[test]
    fn an_opener_counts_where_its_bytes_are_the_targets() {
        let fake = FakeTree::new();
        let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        let opened = |number, writes| {
            let process = Process { id: 42, command: "qemu-system".into() };
            [Opened { process, place: Place::Device(number), writes }]
        };
        let blocks = [disk, partition].map(|number| fake.tree.block(number).unwrap());
        let refused = |opened: [Opened; 1]| {
            blocks.clone().map(|block| open_elsewhere(&fake.tree, &block, &opened).unwrap().is_some())
        };
        assert_eq!(refused(opened(disk, true)), [true, true]);
        // A monitor that reads the disk is no reason to leave a partition.
        assert_eq!(refused(opened(disk, false)), [true, false]);
        assert_eq!(refused(opened(partition, false)), [true, true]);
        assert_eq!(refused(opened("8:16".parse().unwrap(), true)), [false, false]);
        let text = open_elsewhere(&fake.tree, &blocks[0], &opened(disk, true)).unwrap().unwrap();
        assert!(text.what.contains("process 42 (qemu-system)") && text.way_out.contains("kill 42"));
    }

    #[test]
    fn zones_that_must_be_written_in_order_are_not_supported() {
        let fake = FakeTree::new();
        let disk = fake.tree.block(fake.device(SDA, "8:0")).unwrap();
        for (model, refused) in [("none", false), ("host-aware", false), ("host-managed", true)] {
            fake.write(&format!("sys/devices/{SDA}/queue/zoned"), format!("{model}\n"));
            assert_eq!(zoned(&disk).unwrap().is_some(), refused, "{model}");
        }
    }
}
