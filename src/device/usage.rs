//! Users of a device's or image's bytes, found over everything that shares these in the graph.
//!
//! A use is a mount, swap, a member of a mounted file system, an export, an external journal. Whatever
//! stands on the bytes, and is no plain view of them, is a use by itself. What only shares a disk with
//! them (another partition, another logical volume) is none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::graph::read::Stack;
use super::graph::{ALL, Role, Shared, Unplaced};
use super::identity::Inode;
use super::kernel::blkid::Signature;
use super::kernel::procfs::{self, Mount};
use super::kernel::sysfs::{Block, SECTOR_BYTES, entries};
use super::layer::{Effect, Layer};
use super::openers::Openers;
use super::place::Place;
use super::refusal::{Force, Refusal, open_in, unseen};
use super::{DeviceNumber, Tree};
use crate::io::{Access, Target};
use crate::range::Extent;
use exports::{Export, exports};
use users::Users;

mod exports;
mod users;

/// What the kernel showed at one moment.
#[derive(Debug)]
pub(super) struct Usage {
    tree: Tree,
    stack: Stack,
    mounts: Vec<Mount>,
    swaps: Vec<PathBuf>,
    /// Each member of a mounted btrfs, with the UUID of that.
    btrfs: Vec<(DeviceNumber, String)>,
    /// The imported ZFS pools.
    pools: Vec<String>,
    /// Each device that a file system keeps its journal on.
    journals: Vec<DeviceNumber>,
    /// What the kernel's own targets export (LIO, nvmet).
    exports: Vec<Export>,
    /// What could not be looked into.
    unseen: Vec<String>,
}

/// The latest look at the real machine, and when it began.
static LATEST: Mutex<Option<(Instant, Arc<Usage>)>> = Mutex::new(None);

/// The layers below a device as they were at that time or later; where they cannot be looked at, one
/// that is not known.
pub fn layers_since(tree: &Tree, number: DeviceNumber, since: Instant) -> Vec<Layer> {
    let usage = tree.block(number).and_then(|_| Usage::since(tree, since));
    usage.map(|usage| usage.layers(Place::Device(number))).unwrap_or_else(|error| {
        let kind = format!("what lies below it could not be looked at again: {error}");
        vec![Layer::unknown(number.to_string(), kind)]
    })
}

impl Usage {
    /// A look that began no earlier than this. Jobs that ask at the same time share one.
    pub fn since(tree: &Tree, since: Instant) -> io::Result<Arc<Usage>> {
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, usage)) = &*latest
            && *begun >= since
            && usage.tree.sys == tree.sys
        {
            return Ok(Arc::clone(usage));
        }
        let (begun, usage) = (Instant::now(), Arc::new(Usage::read(tree)?));
        *latest = Some((begun, Arc::clone(&usage)));
        Ok(usage)
    }

    pub fn read(tree: &Tree) -> io::Result<Usage> {
        let (mounts, unseen) = procfs::mounts(tree)?;
        let unseen = unseen.describe().map(|who| format!("the mounts of {who}"));
        let mut usage = Usage {
            tree: tree.clone(),
            stack: Stack::read(tree)?,
            mounts,
            swaps: procfs::swaps(tree)?,
            btrfs: btrfs_members(tree)?,
            pools: entries(&tree.proc.join("spl/kstat/zfs"))?,
            journals: external_journals(tree)?,
            exports: exports(tree)?,
            unseen: unseen.into_iter().collect(),
        };
        usage.add_overlay_names();
        Ok(usage)
    }

    pub fn mounts_of(&self, number: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.is_of(number))
    }

    pub fn is_swap(&self, number: DeviceNumber) -> bool {
        self.swaps.iter().any(|swap| self.tree.number_of(swap) == Some(number))
    }

    /// All that shares bytes with a device or file.
    pub fn sharing(&self, place: Place) -> Vec<Shared> {
        self.stack.graph.sharing(place, self.bytes_of(place))
    }

    /// The device or file and all that it stands on.
    pub fn chain(&self, place: Place) -> Vec<Shared> {
        let mut sharing = self.sharing(place);
        sharing.retain(|shared| matches!(shared.role, Role::Target | Role::Below));
        sharing
    }

    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    fn bytes_of(&self, place: Place) -> Extent {
        match place {
            Place::Device(number) => self.stack.areas.get(&number).copied().unwrap_or(ALL),
            Place::File(_) => ALL,
        }
    }

    /// The layers that its bytes go through, from the target down.
    pub fn layers(&self, place: Place) -> Vec<Layer> {
        self.chain(place).iter().filter_map(|shared| self.stack.graph.layer(shared.place).cloned()).collect()
    }

    /// Everything that uses bytes of this device, the gravest first.
    pub fn of_device(&self, target: &Block) -> io::Result<Vec<Refusal>> {
        if let Some(refusal) = self.closed_snapshot_cow(target)? {
            return Ok(vec![refusal]);
        }
        let place = Place::Device(target.number());
        let mut refusals = self.users(place);
        refusals.extend(hidden_by_lvm(target)?);
        refusals.extend(self.keepers(place));
        refusals.extend(self.twins(target)?);
        refusals.extend(self.unread(place));
        refusals.extend(self.unplaced(place, None));
        refusals.extend(self.unseen.iter().chain(&self.nowhere()).map(|what| unseen(what)));
        if !self.tree.sys.join("class/block").join(target.name().replace('/', "!")).exists() {
            refusals.push(unseen("sysfs does not list the device itself"));
        }
        refusals.sort_by_key(|refusal| (!refusal.system, refusal.force.is_some()));
        Ok(refusals)
    }

    /// A suspended mapping at or below a target: it answers no I/O, and whoever asks cannot even be killed.
    pub fn suspended(&self, target: Place) -> Option<Refusal> {
        let map = |shared: Shared| match shared.place {
            Place::Device(number) => self.tree.block(number).ok(),
            Place::File(_) => None,
        };
        let mut maps = self.chain(target).into_iter().filter_map(map);
        let name = maps.find(|map| map.number_attribute("dm/suspended") == Some(1))?.map_name();
        let what = format!("the mapping {name} is suspended: it answers neither reads nor writes");
        Some(Refusal::new("suspended", what, format!("resume it: dmsetup resume {name}")))
    }

    /// Everything that uses bytes of this image file, which lies at this path.
    pub fn of_file(&self, inode: Inode, path: &Path) -> Vec<Refusal> {
        let place = Place::File(inode);
        let mut refusals = self.users(place);
        for name in self.overlay_names(inode) {
            refusals.extend(self.users(Place::File(name)));
        }
        refusals.extend(self.unread(place));
        refusals.extend(self.unplaced(place, Some(path)));
        refusals.sort_by_key(|refusal| refusal.force.is_some());
        refusals
    }

    fn users(&self, target: Place) -> Vec<Refusal> {
        Users::new(self, self.sharing(target)).refusals()
    }

    /// Layers below that keep old data where a write does not reach.
    fn keepers(&self, target: Place) -> Vec<Refusal> {
        let keeper = |layer: Layer| match layer.effect {
            Effect::KeepsCopies { on, drain } => {
                let (device, kind) = (layer.device, layer.kind);
                let what = format!("{device} ({kind}) keeps another copy of its data on {on}");
                Some(Refusal::new(format!("copies on {on}"), what, drain).unless(Force::Copies))
            }
            Effect::PassesThrough | Effect::Unknown => None,
        };
        self.layers(target).into_iter().filter_map(keeper).collect()
    }

    /// Disks that may be this one, and are in use or read the same.
    fn twins(&self, target: &Block) -> io::Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        let chain = self.chain(Place::Device(target.number()));
        let is_below = |twin: &DeviceNumber| chain.iter().any(|each| each.place == Place::Device(*twin));
        for shared in &chain {
            let Place::Device(number) = shared.place else { continue };
            // A multipath map stands on all of its paths.
            let beside = self.stack.twins.iter().filter_map(|twins| Some((twins, twins.beside(number)?)));
            for (twins, twin) in beside.filter(|(_, twin)| !is_below(twin)) {
                let (disk, twin) = (self.tree.block(number)?, self.tree.block(twin)?);
                let used = self.users(Place::Device(twin.number())).into_iter().next();
                let why = match used {
                    Some(used) => used.what,
                    None if reads_the_same(&self.tree, &disk, &twin) => {
                        "what was read of both is the same".into()
                    }
                    None => continue,
                };
                refusals.push(may_be_one(&disk, &twin, twins.unread.as_deref(), &why));
            }
        }
        Ok(refusals)
    }

    /// Whether other disks may be the target, or a disk that it stands on.
    fn has_twins(&self, target: Place) -> bool {
        self.chain(target).iter().any(|shared| match shared.place {
            Place::Device(number) => self.stack.twins.iter().any(|twins| twins.beside(number).is_some()),
            Place::File(_) => false,
        })
    }

    /// What the kernel did not say of the devices that share bytes with the target.
    fn unread(&self, target: Place) -> Vec<Refusal> {
        let sharing = self.sharing(target);
        let shares = |place: Place| sharing.iter().any(|shared| shared.place == place);
        let unread = self.stack.graph.unread.iter().filter(|(place, _)| shares(*place));
        unread.map(|(_, what)| unseen(what)).collect()
    }

    /// Loop devices that may stand on bytes of the target.
    fn unplaced(&self, target: Place, image: Option<&Path>) -> Vec<Refusal> {
        let chain = self.chain(target);
        let placed_nowhere = |each: &&Unplaced| {
            chain.iter().any(|shared| {
                let own = shared.place == Place::Device(each.number);
                own || self.may_stand_on(each, shared, image)
            })
        };
        let loops = self.stack.graph.unplaced.iter().filter(placed_nowhere);
        let loops = loops.map(|each| {
            let name = &each.name;
            unseen(&format!("what the loop device {name} stands on cannot be found out without /dev/{name}"))
        });
        loops.collect()
    }

    /// A loop device that has no node here is compared by its text: where that leads to another file here, it
    /// is taken to be that one, else by name and by size.
    fn may_stand_on(&self, each: &Unplaced, lower: &Shared, image: Option<&Path>) -> bool {
        let (Some(text), Some(end)) = (&each.text, each.end) else { return true };
        let name = |path: &Path| path.file_name().map(|name| name.to_os_string());
        // The file of a name that was removed can have another one.
        let kept = text.strip_suffix(" (deleted)");
        if let Some(here) = Place::at(Path::new(text)).filter(|_| kept.is_none()) {
            return here == lower.place;
        }
        let called = name(Path::new(kept.unwrap_or(text)));
        let fits = |other: &Path, size: u64| called == name(other) || ends_at(end, size);
        match lower.place {
            Place::Device(number) => {
                self.tree.block(number).is_ok_and(|block| fits(Path::new(&block.name()), block.size_bytes()))
            }
            Place::File(_) => {
                let of_image = image
                    .and_then(|path| Some((path.to_string_lossy().into(), fs::metadata(path).ok()?.len())));
                let known = self.texts_of(lower.place).chain(of_image);
                known.into_iter().any(|(text, size)| fits(Path::new(&text), size))
            }
        }
    }

    /// What the loop devices over a file call it, and where they end in it.
    fn texts_of(&self, file: Place) -> impl Iterator<Item = (String, u64)> {
        self.stack.graph.edges_above(file).filter_map(|edge| {
            let Place::Device(number) = edge.upper else { return None };
            let text = self.tree.block(number).ok()?.attribute("loop/backing_file")?;
            Some((text, edge.from.end))
        })
    }

    /// Limitations of what was found, beside its refusals: where a use of an image could stay unseen.
    pub fn limits(&self, place: Place) -> Vec<String> {
        let on_overlay = |shared: &Shared| match shared.place {
            Place::File(inode) => self.is_overlay(inode),
            Place::Device(_) => false,
        };
        let overlay = "the image lies on an overlay file system: whether its file in the folder below is used by \
                       another name cannot be seen in full";
        let overlay = self.chain(place).iter().any(on_overlay).then(|| overlay.to_string());
        let nowhere = if matches!(place, Place::File(_)) { self.nowhere() } else { Vec::new() };
        overlay.into_iter().chain(nowhere).collect()
    }

    /// What is in use by a path that leads nowhere here: any device, or any file.
    fn nowhere(&self) -> Vec<String> {
        let exports = self.exports.iter().filter(|export| export.place.is_none());
        exports.map(|export| format!("where the export {} leads cannot be found out", export.name)).collect()
    }

    fn is_overlay(&self, inode: Inode) -> bool {
        self.mounts.iter().filter_map(Mount::overlay).any(|number| number == DeviceNumber(inode.device))
    }

    /// A file of an overlay has its inode number in the folder below too, on another device.
    fn overlay_names(&self, inode: Inode) -> Vec<Inode> {
        let files = self.stack.graph.files();
        let is_name = |other: &Inode| {
            other.inode == inode.inode
                && other.device != inode.device
                && (self.is_overlay(inode) || self.is_overlay(*other))
        };
        files.filter(is_name).collect()
    }

    fn add_overlay_names(&mut self) {
        let files: Vec<Inode> = self.stack.graph.files().collect();
        for file in files {
            for other in self.overlay_names(file) {
                self.stack.graph.add_path(Place::File(file), Place::File(other));
            }
        }
    }

    /// Another process that has bytes of the target open.
    pub fn open_elsewhere(&self, target: Place, openers: &Openers, path: &Path) -> Option<Refusal> {
        let sharing = self.sharing(target);
        let mut names = vec![path.to_path_buf()];
        for shared in &sharing {
            match shared.place {
                Place::Device(number) => {
                    names.extend(self.tree.block(number).map(|block| self.tree.dev.join(block.name())));
                }
                file => names.extend(self.texts_of(file).map(|(text, _)| text.into())),
            }
        }
        openers.of(&sharing, &names).map(|(process, below)| {
            let mut refusal = open_in(process);
            if below && matches!(target, Place::Device(_)) {
                refusal.what = format!("its backing file, or a device below it: {}", refusal.what);
            }
            refusal
        })
    }

    /// Where a file lies, as the loop devices over it call it.
    pub fn backing_paths(&self, file: Place) -> Vec<PathBuf> {
        self.texts_of(file).map(|(text, _)| text.into()).collect()
    }

    /// The files among what shares bytes with these targets.
    pub fn files_of(&self, targets: impl Iterator<Item = Place>) -> BTreeSet<Inode> {
        let file = |shared: Shared| match shared.place {
            Place::File(inode) => Some(inode),
            Place::Device(_) => None,
        };
        targets.flat_map(|place| self.sharing(place)).filter_map(file).collect()
    }

    /// Every file that a loop device stands on.
    pub fn files(&self) -> BTreeSet<Inode> {
        self.stack.graph.files().collect()
    }

    /// Members of an imported pool have no holder in sysfs: their label names the pool, and whoever wrote to
    /// the device could have put any name there. ZFS opens its members exclusively, so that a device which
    /// `opens_alone` is no member of a pool; by another path of the same disk it could still be.
    pub fn in_zpool(
        &self,
        target: Place,
        signatures: &[Signature],
        opens_alone: impl FnOnce() -> bool,
    ) -> Option<Refusal> {
        let member = |signature: &&Signature| {
            signature.kind == "zfs_member"
                && signature.label.as_ref().is_some_and(|pool| self.pools.contains(pool))
        };
        let pool = signatures.iter().find(member)?.label.as_ref()?;
        if !self.has_twins(target) && opens_alone() {
            return None;
        }
        let what = format!("it is a member of the imported ZFS pool {pool}");
        Some(Refusal::new(
            format!("in ZFS pool {pool}"),
            what,
            format!("export the pool first: zpool export {pool}"),
        ))
    }

    /// The exception store of a snapshot that is not in use: LVM alone keeps it open.
    fn closed_snapshot_cow(&self, target: &Block) -> io::Result<Option<Refusal>> {
        let Some(snapshot) = snapshot_of_cow(target)? else { return Ok(None) };
        if !self.users(Place::Device(snapshot.number())).is_empty() {
            return Ok(None);
        }
        let (name, map) = (target.name(), snapshot.map_name());
        let what = format!("{name} is the exception store of the snapshot {map}");
        let remedy = format!("make a plain volume of it first: lvconvert --splitsnapshot {map}");
        Ok(Some(Refusal::new("snapshot's exception store", what, remedy).unless(Force::SnapshotCow)))
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

/// Zones that must be written in order cannot be written by offset.
pub(super) fn zoned(block: &Block) -> io::Result<Option<Refusal>> {
    let model = block.disk()?.read_attribute("queue/zoned")?;
    let remedy = "reset its zones: blkzone reset, or sanitize it by the drive's own command";
    Ok((model.as_deref() == Some("host-managed"))
        .then(|| Refusal::new("host-managed zones", "its zones can only be written in order", remedy)))
}

/// LVM's own parts of a volume: their UUID has a word behind that of the volume.
fn hidden_by_lvm(target: &Block) -> io::Result<Option<Refusal>> {
    let uuid = target.read_attribute("dm/uuid")?;
    let part = uuid.as_ref().and_then(|uuid| Some(uuid.strip_prefix("LVM-")?.split_once('-')?.1));
    let map = target.map_name();
    Ok(part.map(|part| {
        let what = format!("{map} is a hidden part of an LVM volume ({part})");
        let remedy = "name the volume that it belongs to: lvs --all";
        Refusal::new(format!("hidden part of LVM ({part})"), what, remedy)
    }))
}

/// Two disks without a known difference, one of which is in use or has the same content.
fn may_be_one(disk: &Block, twin: &Block, unread: Option<&str>, why: &str) -> Refusal {
    let (disk, twin) = (disk.name(), twin.name());
    let (reason, force) = match unread {
        None => ("they have one serial number".to_string(), Force::SameSerial),
        Some(unread) => (format!("what would distinguish them is not known ({unread})"), Force::Unseen),
    };
    let what = format!("{disk} and {twin} may be one disk, since {reason}: {why}");
    let remedy = format!("free {twin} first, or take it away");
    Refusal::new(format!("perhaps another path of {twin}"), what, remedy).unless(force)
}

/// Whether a loop device that ends here reaches the end of a file or device: the kernel counts sectors, and
/// leaves away what is less than one.
fn ends_at(end: u64, size: u64) -> bool {
    end <= size && size - end < SECTOR_BYTES
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

/// The devices that hold nothing but a journal of a mounted ext3 or ext4: /proc/fs/jbd2 names an internal
/// journal by device and inode, and an external one by its device alone.
fn external_journals(tree: &Tree) -> io::Result<Vec<DeviceNumber>> {
    let names = entries(&tree.proc.join("fs/jbd2"))?;
    Ok(names
        .iter()
        .filter_map(|name| tree.number_of(&Path::new("/dev").join(name.replace('!', "/"))))
        .collect())
}

/// Whether drawn blocks of two disks are the same. What cannot be read is not known to differ.
fn reads_the_same(tree: &Tree, one: &Block, other: &Block) -> bool {
    const BLOCK_BYTES: usize = 4096;
    const DRAWN: u64 = 64;
    let read = |block: &Block, at: u64| {
        let target = Target::open(&tree.dev.join(block.name()), Access::Read)?;
        let mut bytes = crate::io::Buf::new(BLOCK_BYTES, BLOCK_BYTES);
        target.read(at, &mut bytes).map(|_| bytes.to_vec())
    };
    let blocks = one.size_bytes() / BLOCK_BYTES as u64;
    (0..DRAWN.min(blocks)).all(|number| {
        // The first and the last, and places that nothing prepares for.
        let drawn = match number {
            0 => 0,
            1 => blocks - 1,
            _ => getrandom::u64().unwrap_or(number) % blocks,
        };
        let at = drawn * BLOCK_BYTES as u64;
        match (read(one, at), read(other, at)) {
            (Ok(one), Ok(other)) => one == other,
            _ => true,
        }
    })
}

#[cfg(test)]
mod layer_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unseen_tests;
