//! The guard: the only constructor of a writable disk over a real target. It never writes anything.
//!
//! Every reason not to write is looked for before the targets are opened, and again afterwards: O_EXCL
//! keeps mounts, dm and md away from then on. One scan of the machine's storage and processes serves all
//! targets of a command, before the opens and once after them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::graph::{Role, Shared};
use super::identity::Identity;
use super::kernel::blkid;
use super::kernel::io_stats::StackCounters;
use super::kernel::sysfs::{Block, WriteCounter};
use super::openers::Openers;
use super::place::Place;
use super::refusal::{self, Force};
use super::usage::{self, Usage};
use super::{Findings, Tree, volume};
use crate::error::{Error, Kind, Result};
use crate::io::passthrough::ReadOnly;
use crate::io::passthrough::linux::BlockDescriptor;
use crate::io::{Access, Buf, Disk, Done, Geometry, IoPath, IoStats, Medium, Op, Target, Turn};
use crate::parallel;
use crate::plan::KeyPlan;
use caches::Caches;
use candidate::{Candidate, check_content, check_writable, overridden};
use hold::Held;
use watch::Watch;

mod caches;
mod candidate;
mod hold;
mod turn;
mod watch;

/// What is asked of the guard for one target.
pub struct Request<'a> {
    /// A block device's node, or with `image` a regular file; links are followed.
    pub path: &'a Path,
    /// The user says that it is an image file.
    pub image: bool,
    /// Until then a busy target is tried again.
    pub deadline: Instant,
    /// The refusals that the user overrides.
    pub force: &'a [Force],
}

/// The right to write to one target, which has no other user as long as the claim stands.
#[derive(Debug)]
pub struct Claim {
    examined: Examined,
    counter: Option<WriteCounter>,
    bus: Option<String>,
    held: Held,
    watch: Watch,
}

impl Claim {
    /// What it hangs on together with others; `None` if that is nothing real.
    pub fn bus(&self) -> Option<String> {
        self.bus.clone()
    }

    /// `None` for an image.
    pub fn counter(&self) -> Option<WriteCounter> {
        self.counter.clone()
    }

    /// What it is, as it was at the claim.
    pub fn identity(&self) -> &Identity {
        self.examined.identity()
    }

    /// What was on it and around it when it was claimed.
    pub fn findings(&self) -> &Findings {
        self.examined.findings()
    }

    /// Where the LUKS volume whose header is on it keeps its keys; another thing on it, or data that
    /// is not encrypted, is an error. `data` is the data device of a detached header.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`] where destroying keys would not make its data unreadable, and
    /// [`Kind::Refused`] where the header cannot be read.
    pub fn keys(&self, data: Option<&Claim>) -> Result<KeyPlan> {
        self.examined.keys_of(data.map(|data| &data.examined))
    }

    /// Of the descriptor that is held.
    pub fn geometry(&self) -> Geometry {
        self.examined.geometry()
    }

    /// A way for the commands of the drive itself, by the descriptor that is held.
    ///
    /// # Errors
    /// Of kind [`Kind::Failed`] where the process may open no more files.
    pub(crate) fn pass_through(&self) -> Result<BlockDescriptor> {
        BlockDescriptor::of_claimed(&self.examined.target).map_err(|error| self.examined.no_descriptor(error))
    }

    /// The disk, on the thread that will use it, with up to `depth` operations in flight.
    ///
    /// # Errors
    /// Of kind [`Kind::Failed`] where neither io_uring nor plain I/O can be set up.
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        let Claim { examined, held, watch, .. } = self;
        examined.start(depth, Some((held, watch)))
    }
}

/// A target that is only read.
#[derive(Debug)]
pub struct Examined {
    target: Target,
    identity: Identity,
    findings: Findings,
    counters: StackCounters,
    caches: Caches,
}

impl Examined {
    /// What it is, as it was when it was examined.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was on it and around it; of a target that is only read, its layers alone.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Of the descriptor that is held.
    pub fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    /// A way for queries to the drive itself, by the descriptor that is held.
    ///
    /// # Errors
    /// As [`Claim::pass_through`].
    pub(crate) fn queries(&self) -> Result<ReadOnly<BlockDescriptor>> {
        BlockDescriptor::of_inspected(&self.target).map_err(|error| self.no_descriptor(error))
    }

    fn no_descriptor(&self, error: io::Error) -> Error {
        Error::failed("no command can be sent to it").because(error).on(&self.identity.path)
    }

    /// As [`Claim::keys`].
    ///
    /// # Errors
    /// As [`Claim::keys`].
    pub fn keys(&self) -> Result<KeyPlan> {
        self.keys_of(None)
    }

    fn keys_of(&self, data: Option<&Examined>) -> Result<KeyPlan> {
        let data = data.map(|data| (&data.target, &data.findings));
        volume::keys(&self.target, &self.findings, data).map_err(|error| error.on(&self.identity.path))
    }

    /// The disk, on the thread that will use it, with up to `depth` reads in flight.
    ///
    /// # Errors
    /// As [`Claim::open`].
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        self.start(depth, None)
    }

    fn start(self, depth: usize, held: Option<(Held, Watch)>) -> Result<Box<dyn Disk>> {
        let Examined { target, identity, counters, caches, .. } = self;
        let disk = crate::io::open_disk(target, depth)
            .map_err(|error| Error::failed("no I/O can be set up").because(error).on(&identity.path))?;
        let mut io_path = disk.io_path().clone();
        io_path.direct &= caches.indirect.is_empty();
        let medium = identity.kind.medium();
        Ok(Box::new(GuardedDisk { disk, io_path, medium, counters, caches, held }))
    }
}

/// Claims targets for writing, or says of each why it must not be written.
pub fn claim_all(tree: &Tree, requests: &[Request]) -> Vec<Result<Claim>> {
    let taken = take_all(tree, requests, |candidate, usage, request| {
        let mut held = until(request.deadline, || candidate.lock(tree, usage))?;
        held._below =
            until(request.deadline, || hold::hold_below(tree, usage, &usage.chain(candidate.place)))?;
        let forced = candidate.check_unused(usage, request.force)?;
        let target = until(request.deadline, || candidate.open_alone(tree, &forced, &mut held))?;
        Ok((target, held))
    });
    let claim = |(candidate, examined, held, watch): (Candidate, Examined, Held, Watch)| {
        let counter = candidate.block.as_ref().map(WriteCounter::of);
        let bus = candidate.block.as_ref().and_then(Block::bus);
        Claim { examined, counter, bus, held, watch }
    };
    taken.into_iter().map(|taken| taken.map(claim)).collect()
}

pub fn claim(tree: &Tree, request: &Request) -> Result<Claim> {
    claim_all(tree, std::slice::from_ref(request)).remove(0)
}

/// Everything that [`claim_all`] checks, without a lock and without opening for writing.
pub fn inspect_all(tree: &Tree, requests: &[Request]) -> Vec<Result<Examined>> {
    let taken = take_all(tree, requests, |candidate, usage, request| {
        let below = until(request.deadline, || hold::hold_below(tree, usage, &usage.chain(candidate.place)))?;
        let forced = candidate.check_unused(usage, request.force)?;
        let beside = forced.iter().any(|refusal| refusal.force == Some(Force::SnapshotCow));
        let access = if beside { Access::Read } else { Access::ReadAlone };
        let target = until(request.deadline, || candidate.open(tree, access))?;
        Ok((target, Held { _below: below, ..Held::default() }))
    });
    taken.into_iter().map(|taken| taken.map(|(_, examined, ..)| examined)).collect()
}

/// What a target is that was not taken, as far as it is known: nothing is opened.
pub fn describe(tree: &Tree, path: &Path, image: bool) -> Option<Identity> {
    Candidate::find(tree, path, image).ok().map(|candidate| candidate.identity)
}

/// Opens a target for reading only: no lock, and no check of its users.
pub fn examine(tree: &Tree, path: &Path, image: bool) -> Result<Examined> {
    let examine = || {
        let candidate = Candidate::find(tree, path, image)?;
        let target = Target::open(&candidate.identity.node, Access::Read).map_err(not_opened)?;
        candidate.check_opened(&target)?;
        let usage = Usage::read(tree).map_err(unseen)?;
        let sharing = usage.sharing(candidate.place);
        let caches = Caches::open(tree, &usage, &sharing);
        let findings = Findings {
            layers: usage.layers(candidate.place),
            indirect: caches.indirect.clone(),
            ..Findings::default()
        };
        let counters = StackCounters::of(tree, usage.stack(), candidate.place);
        Ok(Examined { target, identity: candidate.identity, findings, counters, caches })
    };
    examine().map_err(|error: Error| error.on(path))
}

/// A target that was opened, and what keeps others away from it.
struct OpenedCandidate {
    candidate: Candidate,
    target: Target,
    held: Held,
    findings: Findings,
}

/// Opens targets, and reads their users before and after.
fn take_all(
    tree: &Tree,
    requests: &[Request],
    open: impl Fn(&Candidate, &Usage, &Request) -> Result<(Target, Held)> + Sync,
) -> Vec<Result<(Candidate, Examined, Held, Watch)>> {
    let before = Usage::read(tree);
    let take = |request: &Request| {
        let candidate = Candidate::find(tree, request.path, request.image)?;
        let usage = before.as_ref().map_err(unseen_too)?;
        candidate.check_unused(usage, request.force)?;
        let (target, held) = open(&candidate, usage, request)?;
        candidate.check_opened(&target)?;
        check_writable(&target)?;
        let (signatures, forced) = check_content(&target, request.force)?;
        let findings = Findings { signatures, forced, ..Findings::default() };
        Ok(OpenedCandidate { candidate, target, held, findings })
    };
    let taken = parallel::map(requests.iter().collect(), take);
    let after = Usage::since(tree, Instant::now());
    let openers =
        after.as_ref().map_err(unseen_too).and_then(|usage| openers_after_wait(tree, usage, &taken));
    let finish = |(taken, request): (Result<OpenedCandidate>, &Request)| {
        let usage = after.as_ref().map_err(unseen_too);
        let taken = taken.and_then(|taken| {
            let openers = openers.as_ref().map_err(|error: &Error| Error::refused(error.what()))?;
            taken.finish(tree, usage?, openers, request.force)
        });
        taken.map_err(|error: Error| error.on(request.path))
    };
    taken.into_iter().zip(requests).map(finish).collect()
}

/// The processes that have the targets open, once those that open every device for a moment (udev) are gone.
fn openers_after_wait(tree: &Tree, usage: &Usage, taken: &[Result<OpenedCandidate>]) -> Result<Openers> {
    let candidates = || taken.iter().flatten().map(|taken| &taken.candidate);
    let files = usage.files_of(candidates().map(|candidate| candidate.place));
    let deadline = Instant::now() + OPENERS_WAIT_MAX;
    let mut openers = Openers::default();
    loop {
        openers = Openers::read(tree, &files).map_err(unseen)?.lasting_first(&openers);
        let open = candidates().any(|candidate| candidate.open_elsewhere(usage, &openers).is_some());
        if !open || Instant::now() >= deadline {
            return Ok(openers);
        }
        thread::sleep(RETRY);
    }
}

impl OpenedCandidate {
    /// Checks all that can be checked once it is open.
    fn finish(
        self,
        tree: &Tree,
        usage: &Usage,
        openers: &Openers,
        force: &[Force],
    ) -> Result<(Candidate, Examined, Held, Watch)> {
        let OpenedCandidate { candidate, target, held, mut findings } = self;
        findings.forced.extend(candidate.check_unused(usage, force)?);
        if candidate.block.is_some() {
            let unread = blkid::unread(&findings.signatures).map(|why| refusal::unprobed(&why));
            // Of a snapshot's store it is the snapshot that is held.
            let alone = || !findings.forced.iter().any(|forced| forced.force == Some(Force::SnapshotCow));
            let in_zpool = usage.in_zpool(candidate.place, &findings.signatures, alone);
            let found = [unread, in_zpool, usage::shared(&findings.signatures)];
            let mut found = found.into_iter().flatten();
            found.try_for_each(|refusal| overridden(refusal, force, &mut findings.forced))?;
        }
        if let Some(refusal) = candidate.open_elsewhere(usage, openers) {
            return Err(refusal.into());
        }
        // A user of an image needs a path to it; a device can be used by any process with a node of it.
        for what in openers.unseen.iter().filter(|_| candidate.block.is_some()) {
            overridden(refusal::unseen(what), force, &mut findings.forced)?;
        }
        findings.unseen = openers.unseen.iter().cloned().chain(usage.limits(candidate.place)).collect();
        let sharing = usage.sharing(candidate.place);
        let caches = Caches::open(tree, usage, &sharing);
        findings.layers = usage.layers(candidate.place);
        findings.indirect = caches.indirect.clone();
        let counters = StackCounters::of(tree, usage.stack(), candidate.place);
        let watch = Watch::new(tree, usage, candidate.place, &candidate.identity.node, force);
        let identity = candidate.identity.clone();
        Ok((candidate, Examined { target, identity, findings, counters, caches }, held, watch))
    }
}

/// The same target twice, or two that share bytes, is a mistake of the command line; two partitions of one
/// disk are none. Nothing is opened.
pub fn distinct(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    let usage = if paths.len() > 1 { Usage::read(tree).ok() } else { None };
    let mut seen: Vec<(&Path, Place, Vec<Shared>)> = Vec::new();
    for path in paths {
        // A path that leads nowhere is reported by the claim.
        let Ok(metadata) = fs::metadata(path) else { continue };
        let place = Place::of(&metadata);
        for (other, other_place, sharing) in &seen {
            let shared = sharing.iter().find(|shared| shared.place == place);
            if place == *other_place || shared.is_some_and(|shared| shared.role == Role::Path) {
                return Err(Error::usage(format!("it is the same target as {}", other.display()))
                    .with_remedy("give each target once")
                    .on(path));
            }
            if shared.is_some() {
                return Err(Error::usage(format!("it shares its bytes with {}", other.display()))
                    .with_remedy("give one of the two")
                    .on(path));
            }
        }
        let sharing = usage.as_ref().map(|usage| usage.sharing(place)).unwrap_or_default();
        seen.push((path, place, sharing));
    }
    Ok(())
}

/// An open disk with its counters and caches. What is held goes when the disk has gone.
struct GuardedDisk {
    disk: Box<dyn Disk>,
    io_path: IoPath,
    medium: Medium,
    counters: StackCounters,
    caches: Caches,
    held: Option<(Held, Watch)>,
}

impl Disk for GuardedDisk {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
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

    fn drop_caches(&mut self) -> io::Result<()> {
        self.caches.drop_all()
    }

    fn unchanged(&self, since: Instant) -> io::Result<()> {
        self.disk.unchanged(since)?;
        self.held.as_ref().map_or(Ok(()), |(_, watch)| watch.check(since))
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn io_stats(&self) -> Vec<IoStats> {
        self.counters.read()
    }

    fn take_turn(&self) -> Option<Turn> {
        turn::take(self.counters.numbers())
    }
}

/// The ring of a killed efface holds its device for some milliseconds.
const RETRY: Duration = Duration::from_millis(50);
/// udev and its like open a new device for a moment.
const OPENERS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Tries until it is busy no more, or the deadline has passed.
fn until<T>(deadline: Instant, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind == Kind::Busy && Instant::now() < deadline => thread::sleep(RETRY),
            decided => return decided,
        }
    }
}

const SEE_DEVICES: &str = "see which block devices there are: efface list";
const WAIT: &str = "try again when it is free, or wait longer with --wait";

fn not_found(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::usage("there is no such device").with_remedy(SEE_DEVICES)
        }
        _ => Error::failed("it cannot be looked up")
            .because(error)
            .with_remedy("check the path and its permissions"),
    }
}

/// What cannot be seen is assumed to be used.
fn unseen(error: io::Error) -> Error {
    Error::refused("it cannot be seen who uses it")
        .because(error)
        .with_remedy("see that /sys and /proc are mounted, and that lsblk shows the device")
}

/// The same, for an answer that serves several targets.
fn unseen_too(error: &io::Error) -> Error {
    unseen(io::Error::new(error.kind(), error.to_string()))
}

fn not_opened(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EROFS) => refusal::read_only().into(),
        Some(libc::EACCES | libc::EPERM) => Error::refused("it may not be opened")
            .because(error)
            .with_remedy("run efface as root, or as a member of the group that owns it (disk)"),
        _ => Error::failed("it cannot be opened")
            .because(error)
            .with_remedy("see what the kernel says of it: dmesg"),
    }
}

#[cfg(test)]
mod tests;
