//! The guard: the only maker of a writable disk over a real target. It never writes anything.
//!
//! Every reason not to write is looked for before the target is opened, and again where the open
//! fails: what the kernel's O_EXCL only calls busy, the guard calls by its name.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::load::Gauges;
use super::place::Place;
use super::procfs::{self, Opened};
use super::sysfs::{Block, Loop, WriteCounter};
use super::usage::{self, Force, Refusal, Usage};
use super::{Signature, Thin, Tree, blkid, volume};
use crate::error::{Error, Kind, Result};
use crate::io::{Access, Buf, Disk, Done, Geometry, IoPath, Load, Op, Target};
use crate::luks::KeyArea;

pub struct Request<'a> {
    pub path: &'a Path,
    /// The user says that it is an image file.
    pub image: bool,
    /// Until then a busy target is tried again.
    pub deadline: Instant,
    /// The refusals that the user overrides.
    pub force: &'a [Force],
}

/// What was found on a target before anything was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// File systems, volume members, crypto headers and partition tables, used or not.
    pub signatures: Vec<Signature>,
    /// Refusals that the user had overridden.
    pub forced: Vec<Refusal>,
}

/// The right to write to one target, which nobody else uses as long as the claim stands.
#[derive(Debug)]
pub struct Claim {
    target: Target,
    identity: Identity,
    findings: Findings,
    counter: Option<WriteCounter>,
    bus: Option<String>,
    gauges: Gauges,
    held: Held,
}

impl Claim {
    /// What it hangs on together with others; none where that is nothing real.
    pub fn bus(&self) -> Option<String> {
        self.bus.clone()
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Where the LUKS volume on it keeps its keys; another thing on it is an error.
    pub fn keys(&self, detached: bool) -> Result<KeyArea> {
        volume::keys(&self.target, &self.findings, detached).map_err(|error| error.on(&self.identity.path))
    }

    /// None of an image.
    pub fn counter(&self) -> Option<WriteCounter> {
        self.counter.clone()
    }

    pub fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    /// The disk, on the thread that will use it, with up to `depth` operations in flight.
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        let disk = start(self.target, &self.identity, depth)?;
        Ok(Box::new(Guarded { disk, gauges: self.gauges, _held: Some(self.held) }))
    }
}

/// A target that is only read.
#[derive(Debug)]
pub struct Examined {
    target: Target,
    identity: Identity,
    findings: Findings,
    gauges: Gauges,
}

impl Examined {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    pub fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    /// Where the LUKS volume on it keeps its keys; another thing on it is an error.
    pub fn keys(&self, detached: bool) -> Result<KeyArea> {
        volume::keys(&self.target, &self.findings, detached).map_err(|error| error.on(&self.identity.path))
    }

    /// The disk, on the thread that will use it, with up to `depth` reads in flight.
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        let disk = start(self.target, &self.identity, depth)?;
        Ok(Box::new(Guarded { disk, gauges: self.gauges, _held: None }))
    }
}

fn start(target: Target, identity: &Identity, depth: usize) -> Result<Box<dyn Disk>> {
    crate::io::open_disk(target, depth)
        .map_err(|error| Error::failed("no I/O can be set up").because(error).on(&identity.path))
}

/// Claims a target for writing, or says why it must not be written.
pub fn claim(tree: &Tree, request: &Request) -> Result<Claim> {
    let claim = || {
        let candidate = Candidate::find(tree, request.path, request.image)?;
        let mut forced = candidate.check_unused(tree, request.force)?;
        let lock = until(request.deadline, || candidate.lock(tree))?;
        let (target, snapshot) = until(request.deadline, || candidate.open_alone(tree, &forced))?;
        candidate.check_opened(&target)?;
        check_writable(&target)?;
        let signatures = candidate.check_content(tree, &target, request.force, &mut forced)?;
        candidate.check_not_open(tree)?;
        let held = Held { _lock: lock, _snapshot: snapshot };
        let counter = candidate.block.as_ref().map(WriteCounter::of);
        let bus = candidate.block.as_ref().and_then(Block::bus);
        let gauges = Gauges::of(tree, candidate.place);
        let findings = Findings { signatures, forced };
        Ok(Claim { target, identity: candidate.identity, findings, counter, bus, gauges, held })
    };
    claim().map_err(|error: Error| error.on(request.path))
}

/// Everything that [`claim`] asks, without a lock and without opening for writing.
pub fn inspect(tree: &Tree, request: &Request) -> Result<Examined> {
    let inspect = || {
        let candidate = Candidate::find(tree, request.path, request.image)?;
        let mut forced = candidate.check_unused(tree, request.force)?;
        let beside = forced.iter().any(|refusal| refusal.force == Some(Force::SnapshotCow));
        let access = if beside { Access::Read } else { Access::ReadAlone };
        let target = until(request.deadline, || candidate.open(tree, access))?;
        candidate.check_opened(&target)?;
        check_writable(&target)?;
        let signatures = candidate.check_content(tree, &target, request.force, &mut forced)?;
        candidate.check_not_open(tree)?;
        let (gauges, findings) = (Gauges::of(tree, candidate.place), Findings { signatures, forced });
        Ok(Examined { target, identity: candidate.identity, findings, gauges })
    };
    inspect().map_err(|error: Error| error.on(request.path))
}

/// Opens a target for reading only: no lock, and no question of who uses it.
pub fn examine(tree: &Tree, path: &Path, image: bool) -> Result<Examined> {
    let examine = || {
        let candidate = Candidate::find(tree, path, image)?;
        let target = Target::open(&candidate.identity.node, Access::Read).map_err(not_opened)?;
        candidate.check_opened(&target)?;
        let (gauges, findings) = (Gauges::of(tree, candidate.place), Findings::default());
        Ok(Examined { target, identity: candidate.identity, findings, gauges })
    };
    examine().map_err(|error: Error| error.on(path))
}

/// The same target twice, or a disk together with one of its partitions, is a mistake of the
/// command line; two partitions of one disk are none. Nothing is opened.
pub fn distinct(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    let mut seen: Vec<(&Path, Place, Option<Place>)> = Vec::new();
    for path in paths {
        // Of a path that leads nowhere the claim will tell.
        let Ok(metadata) = fs::metadata(path) else { continue };
        let place = Place::of(&metadata);
        let disk = place.disk(tree);
        for &(other, other_place, other_disk) in &seen {
            if place == other_place {
                return Err(Error::usage(format!("it is the same target as {}", other.display()))
                    .way_out("give each target once")
                    .on(path));
            }
            if disk == Some(other_place) || other_disk == Some(place) {
                return Err(Error::usage(format!("it shares its bytes with {}", other.display()))
                    .way_out("give the disk or its partition")
                    .on(path));
            }
        }
        seen.push((path, place, disk));
    }
    Ok(())
}

/// A block device, or a file that the user calls an image, before anybody knows if it may be written.
struct Candidate {
    identity: Identity,
    place: Place,
    /// None of an image.
    block: Option<Block>,
}

impl Candidate {
    fn find(tree: &Tree, path: &Path, image: bool) -> Result<Candidate> {
        let metadata = fs::metadata(path).map_err(not_found)?;
        check_type(metadata.file_type(), image)?;
        let node = path.canonicalize().map_err(not_found)?;
        let place = Place::of(&metadata);
        let (identity, block) = match place {
            Place::Device(number) => {
                let block = tree.block(number).map_err(unseen)?;
                Thin::of(tree, &block).map_err(unseen)?;
                (Identity::of_block(tree, path, node, &block).map_err(unseen)?, Some(block))
            }
            Place::File(_) => (Identity::of_image(path, node, &metadata), None),
        };
        Ok(Candidate { identity, place, block })
    }

    /// Refuses where bytes of it are bytes of something in use; gives what the user overrides.
    fn check_unused(&self, tree: &Tree, force: &[Force]) -> Result<Vec<Refusal>> {
        let usage = Usage::read(tree).map_err(unseen)?;
        let mut forced = Vec::new();
        match &self.block {
            Some(block) => {
                let refusals = usage.of_device(block).map_err(unseen)?;
                refusals.into_iter().try_for_each(|refusal| overridden(refusal, force, &mut forced))?;
                if let Some(refusal) = usage::zoned(block).map_err(unseen)? {
                    return Err(Error::unsupported(refusal.what).way_out(refusal.way_out));
                }
            }
            None => {
                let mut refusals = usage.of_file(Some(self.place), None).into_iter();
                refusals.try_for_each(|refusal| overridden(refusal, force, &mut forced))?;
            }
        }
        Ok(forced)
    }

    /// What libblkid finds on it: recorded, and refused where other hosts may use it.
    fn check_content(
        &self,
        tree: &Tree,
        target: &Target,
        force: &[Force],
        forced: &mut Vec<Refusal>,
    ) -> Result<Vec<Signature>> {
        let signatures = match target.reader().and_then(|file| blkid::signatures(&file)) {
            Ok(signatures) => signatures,
            Err(error) => {
                overridden(usage::unprobed(&error), force, forced)?;
                return Ok(Vec::new());
            }
        };
        if self.block.is_some() {
            let usage = Usage::read(tree).map_err(unseen)?;
            usage.in_zpool(&signatures).map_or(Ok(()), |refusal| overridden(refusal, force, forced))?;
            usage::shared(&signatures).map_or(Ok(()), |refusal| overridden(refusal, force, forced))?;
        }
        Ok(signatures)
    }

    /// Refuses where another process has it open without O_EXCL, once those who only have a look
    /// at every device (udev) are gone. Of an image or a backing file only writers matter.
    fn check_not_open(&self, tree: &Tree) -> Result<()> {
        let deadline = Instant::now() + LOOK_MAX;
        loop {
            let refusal = self.open_elsewhere(tree)?;
            match refusal {
                None => return Ok(()),
                Some(_) if Instant::now() < deadline => thread::sleep(RETRY),
                Some(refusal) => return Err(refusal.into()),
            }
        }
    }

    fn open_elsewhere(&self, tree: &Tree) -> Result<Option<Refusal>> {
        let Some(block) = &self.block else {
            return Ok(procfs::writer(tree, self.place).map(|process| usage::open_in(&process)));
        };
        let openers = usage::openers(tree, Loop::of(block).as_slice());
        usage::open_elsewhere(tree, block, &openers).map_err(unseen)
    }

    fn lock(&self, tree: &Tree) -> Result<Arc<Lock>> {
        match &self.block {
            Some(block) => {
                let disk = block.disk().map_err(unseen)?;
                lock_disk(Place::Device(disk.number()), || lock(tree, &self.node_of(tree, &disk)?))
            }
            None => lock(tree, &self.identity.node).map(Arc::new),
        }
    }

    /// The node that everybody locks for this disk: the kernel's name below /dev, else the given one.
    fn node_of(&self, tree: &Tree, disk: &Block) -> Result<PathBuf> {
        let usual = tree.dev.join(disk.name());
        let leads_there = |node: &&PathBuf| Place::at(node) == Some(Place::Device(disk.number()));
        let node = [&usual, &self.identity.node].into_iter().find(leads_there).cloned();
        node.ok_or_else(|| {
            Error::refused(format!("the disk that it lies on cannot be locked without {}", usual.display()))
                .way_out("run efface where that node is, or make it")
        })
    }

    /// For writing, and alone. A snapshot's exception store is its snapshot's alone: that is then
    /// kept closed by having it for ourselves.
    fn open_alone(&self, tree: &Tree, forced: &[Refusal]) -> Result<(Target, Option<Target>)> {
        if !forced.iter().any(|refusal| refusal.force == Some(Force::SnapshotCow)) {
            return Ok((self.open(tree, Access::WriteAlone)?, None));
        }
        let snapshot = self.block.as_ref().map(usage::snapshot_of_cow).transpose().map_err(unseen)?.flatten();
        let node = snapshot.map(|snapshot| tree.dev.join(snapshot.name()));
        let snapshot = node.map(|node| Target::open(&node, Access::ReadAlone)).transpose();
        let snapshot = snapshot.map_err(|error| {
            Error::refused("its snapshot cannot be kept closed")
                .because(error)
                .way_out("see that nobody uses the snapshot: lsof")
        })?;
        Ok((self.open(tree, Access::WriteBeside)?, snapshot))
    }

    fn open(&self, tree: &Tree, access: Access) -> Result<Target> {
        Target::open(&self.identity.node, access).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => self.why_busy(tree),
            _ => not_opened(error),
        })
    }

    /// Another has the device for itself alone: a user with a name refuses, one without may let go.
    fn why_busy(&self, tree: &Tree) -> Error {
        if let Err(used) = self.check_unused(tree, &[]) {
            return used;
        }
        if let Some(member) = self.zpool_member(tree) {
            return member.into();
        }
        let devices = usage::openers(tree, &[]);
        let ours = |each: &Opened| each.process.command == "efface";
        let (ours, foreign): (Vec<Opened>, Vec<Opened>) = devices.into_iter().partition(ours);
        let open = |devices: &[Opened]| {
            let block = self.block.as_ref()?;
            usage::open_elsewhere(tree, block, devices).ok().flatten()
        };
        match (open(&foreign), open(&ours)) {
            (Some(refusal), _) => refusal.into(),
            (None, Some(refusal)) => Error::busy(refusal.what).way_out(WAIT),
            (None, None) => Error::busy("it is held by something that cannot be seen").way_out(WAIT),
        }
    }

    fn zpool_member(&self, tree: &Tree) -> Option<Refusal> {
        let file = File::open(&self.identity.node).ok()?;
        let signatures = blkid::signatures(&file).ok()?;
        Usage::read(tree).ok()?.in_zpool(&signatures)
    }

    /// A path can be given to another device between the look and the open.
    fn check_opened(&self, target: &Target) -> Result<()> {
        let metadata = target.metadata().map_err(not_opened)?;
        let (seen, opened) = (self.identity.disk_sequence, target.disk_sequence());
        let another_disk = seen.zip(opened).is_some_and(|(seen, opened)| seen != opened);
        if Place::of(&metadata) != self.place || another_disk {
            return Err(
                Error::refused("another target took its place while it was being checked").way_out(LSBLK)
            );
        }
        if target.geometry().size == 0 {
            return Err(Error::refused("it has no bytes: its size is 0")
                .way_out("attach a medium or a backing file, or name another device"));
        }
        Ok(())
    }
}

fn check_type(file_type: FileType, image: bool) -> Result<()> {
    let wanted = if image { file_type.is_file() } else { file_type.is_block_device() };
    if wanted {
        return Ok(());
    }
    let (what, way_out) = if file_type.is_block_device() {
        ("a block device, not an image file", "leave --image away")
    } else if file_type.is_file() {
        ("a regular file, not a block device", "add --image if it is a disk image that may be wiped")
    } else if file_type.is_dir() {
        ("a directory, not a block device", LSBLK)
    } else if file_type.is_char_device() {
        ("a character device, not a block device", LSBLK)
    } else if file_type.is_fifo() {
        ("a fifo, not a block device", LSBLK)
    } else {
        ("a socket, not a block device", LSBLK)
    };
    Err(Error::refused(format!("it is {what}")).way_out(way_out))
}

/// Keeps a refusal that the user overrides; any other stands.
fn overridden(refusal: Refusal, force: &[Force], forced: &mut Vec<Refusal>) -> Result<()> {
    if !refusal.force.is_some_and(|kind| force.contains(&kind)) {
        return Err(refusal.into());
    }
    forced.push(refusal);
    Ok(())
}

fn check_writable(target: &Target) -> Result<()> {
    if target.is_read_only().map_err(not_opened)? { Err(usage::read_only().into()) } else { Ok(()) }
}

/// A BSD lock, by the convention of systemd's BLOCK_DEVICE_LOCKING: it keeps udev and partition
/// tools away from the whole disk.
type Lock = Flock<File>;

/// This process's locks: the jobs on two partitions of one disk share the disk's.
static LOCKS: Mutex<BTreeMap<Place, Weak<Lock>>> = Mutex::new(BTreeMap::new());

fn lock_disk(disk: Place, lock: impl FnOnce() -> Result<Lock>) -> Result<Arc<Lock>> {
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = locks.get(&disk).and_then(Weak::upgrade) {
        return Ok(held);
    }
    let lock = Arc::new(lock()?);
    locks.insert(disk, Arc::downgrade(&lock));
    Ok(lock)
}

fn lock(tree: &Tree, node: &Path) -> Result<Lock> {
    let file = File::open(node).map_err(not_opened)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return Error::failed("it cannot be locked").because(errno.into());
        }
        let holder = file.metadata().ok().and_then(|metadata| procfs::lock_holder(tree, &metadata));
        let holder = holder.map_or("another process".into(), |process| process.to_string());
        Error::busy(format!("{holder} has locked {}", node.display())).way_out(WAIT)
    })
}

/// What keeps others away as long as the disk is used.
#[derive(Debug)]
struct Held {
    _lock: Arc<Lock>,
    _snapshot: Option<Target>,
}

/// An open disk with its counters. Its lock, where it has one, goes when the disk has gone.
struct Guarded {
    disk: Box<dyn Disk>,
    gauges: Gauges,
    _held: Option<Held>,
}

impl Disk for Guarded {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn io_path(&self) -> &IoPath {
        self.disk.io_path()
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        self.disk.buffers(count, len)
    }

    fn submit(&mut self, op: Op) -> std::result::Result<(), Op> {
        self.disk.submit(op)
    }

    fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
        self.disk.reap(out, until)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }

    fn unchanged(&self) -> io::Result<()> {
        self.disk.unchanged()
    }

    fn loads(&self) -> Vec<Load> {
        self.gauges.read()
    }
}

/// The ring of a killed efface holds its device for some milliseconds.
const RETRY: Duration = Duration::from_millis(50);
/// udev and its like look at a new device for a moment.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Tries until it is busy no more, or the deadline has passed.
fn until<T>(deadline: Instant, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind == Kind::Busy && Instant::now() < deadline => thread::sleep(RETRY),
            decided => return decided,
        }
    }
}

const LSBLK: &str = "see which block devices there are: efface list";
const WAIT: &str = "try again when it is free, or wait longer with --wait";

fn not_found(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::usage("there is no such device").way_out(LSBLK)
        }
        _ => Error::failed("it cannot be looked up")
            .because(error)
            .way_out("check the path and its permissions"),
    }
}

/// What cannot be seen is taken for used.
fn unseen(error: io::Error) -> Error {
    Error::refused("it cannot be seen who uses it")
        .because(error)
        .way_out("see that /sys and /proc are mounted, and that lsblk shows the device")
}

fn not_opened(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EROFS) => usage::read_only().into(),
        Some(libc::EACCES | libc::EPERM) => Error::refused("it may not be opened")
            .because(error)
            .way_out("run efface as root, or as a member of the group that owns it (disk)"),
        _ => Error::failed("it cannot be opened")
            .because(error)
            .way_out("see what the kernel says of it: dmesg"),
    }
}

#[cfg(test)]
mod tests;
