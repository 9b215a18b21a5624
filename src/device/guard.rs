//! The only maker of a writable disk over a real device: it refuses what is in use, by name.
//!
//! A claim holds the descriptor that was checked (O_EXCL: no mount, dm, md or other exclusive
//! opener can come) and the lock on the whole disk, until its disk is dropped.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Tree;
use super::identity::Identity;
use super::lock::Lock;
use super::sysfs::{Node, Number, loops};
use crate::error::{Error, Result};
use crate::io::{Access, open_disk};
use crate::io::{Buf, Disk, Done, Geometry, IoPath, Op, Target};

/// How often a busy device is asked again.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Request<'a> {
    pub path: &'a Path,
    /// The target is to be an image file.
    pub image: bool,
    /// Until when a busy device is waited for.
    pub deadline: Instant,
}

/// A target that may be written.
pub struct Claim {
    target: Target,
    identity: Identity,
    lock: Arc<Lock>,
}

/// A target that is only read.
pub struct Examined {
    target: Target,
    identity: Identity,
}

/// Checks the target, locks its disk, and opens it for this process alone.
pub fn claim(tree: &Tree, request: &Request<'_>) -> Result<Claim> {
    let told = |error: Error| error.on(request.path);
    let metadata = target(request.path, request.image).map_err(told)?;
    refuse_in_use(tree, &metadata).map_err(told)?;
    let lock = lock(tree, request, &metadata).map_err(told)?;
    let target = open_exclusively(tree, request, &metadata).map_err(told)?;
    let identity = checked(tree, request.path, &metadata, &target).map_err(told)?;
    if target.is_read_only().map_err(|error| opening(error).on(request.path))? {
        return Err(read_only().on(request.path));
    }
    Ok(Claim { target, identity, lock })
}

/// Opens the target for reading, whoever else uses it.
pub fn examine(tree: &Tree, path: &Path, image: bool) -> Result<Examined> {
    let told = |error: Error| error.on(path);
    let metadata = target(path, image).map_err(told)?;
    let target = Target::open(path, Access::Read).map_err(|error| told(opening(error)))?;
    let identity = checked(tree, path, &metadata, &target).map_err(told)?;
    Ok(Examined { target, identity })
}

/// Refuses a list that names one disk's bytes twice, by whatever names.
pub fn distinct(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    let mut seen: HashMap<(bool, u64, u64), &Path> = HashMap::new();
    for path in paths {
        // What cannot be looked at is refused by its claim, with the reason.
        let Ok(metadata) = fs::metadata(path) else { continue };
        let block = metadata.file_type().is_block_device();
        let own = if block { (true, 0, metadata.rdev()) } else { (false, metadata.dev(), metadata.ino()) };
        if let Some(first) = seen.insert(own, path) {
            return Err(Error::usage(format!("the same target as {}", first.display()))
                .on(path)
                .way_out("name each target once"));
        }
    }
    let blocks = seen.iter().filter(|((block, ..), _)| *block);
    for ((_, _, rdev), path) in blocks {
        let Some(node) = Node::find(tree, Number::of(*rdev)) else { continue };
        let disk = node.whole_disk().number;
        let whole =
            seen.iter().find(|((block, _, other), _)| *block && Number::of(*other) == disk && other != rdev);
        if let Some((_, whole)) = whole {
            return Err(Error::usage(format!("a partition of {}, which is named too", whole.display()))
                .on(path)
                .way_out("name the disk or its partitions"));
        }
    }
    Ok(())
}

impl Claim {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    /// On the thread that will use it.
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        let path = self.identity.path;
        let disk = open_disk(self.target, depth).map_err(|error| backend(error).on(&path))?;
        Ok(Box::new(Claimed { disk, _lock: self.lock }))
    }
}

impl Examined {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    /// On the thread that will use it.
    pub fn open(self, depth: usize) -> Result<Box<dyn Disk>> {
        open_disk(self.target, depth).map_err(|error| backend(error).on(&self.identity.path))
    }
}

/// A disk whose lock is held as long as it lives. The disk is dropped first.
struct Claimed {
    disk: Box<dyn Disk>,
    _lock: Arc<Lock>,
}

impl Disk for Claimed {
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
}

/// What stands at the path, where it is something that can be wiped.
fn target(path: &Path, image: bool) -> Result<Metadata> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::usage("there is no such device").way_out("lsblk lists them"),
        _ => Error::refused("it cannot be looked at").because(error),
    })?;
    let kind = metadata.file_type();
    let what = match () {
        _ if kind.is_block_device() && image => {
            return Err(
                Error::refused("a block device, though --image was given").way_out("leave --image out")
            );
        }
        _ if kind.is_block_device() => return Ok(metadata),
        _ if kind.is_file() && !image => {
            let what = "a regular file, not a device";
            return Err(
                Error::refused(what).way_out("add --image where the file itself is to be overwritten")
            );
        }
        _ if kind.is_file() && metadata.len() == 0 => {
            return Err(Error::refused("an empty file: it has no bytes to work on"));
        }
        _ if kind.is_file() => return Ok(metadata),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_char_device() => "a character device",
        _ => "neither a block device nor a file",
    };
    Err(Error::refused(what).way_out("name a block device, as lsblk lists them"))
}

/// One line of mountinfo.
pub struct Mount {
    pub number: Number,
    pub at: String,
    source: String,
}

/// What is mounted in this process's namespace (proc_pid_mountinfo(5)).
pub fn mounts(tree: &Tree) -> Vec<Mount> {
    let text = fs::read_to_string(tree.proc.join("self/mountinfo")).unwrap_or_default();
    let parse = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let source = rest.split(' ').nth(1)?;
        Some(Mount {
            number: Number::parse(fields.get(2)?)?,
            at: unescape(fields.get(4)?),
            source: unescape(source),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The kernel writes blanks in paths as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_string(), |text, (escaped, plain)| text.replace(escaped, plain))
}

fn swaps(tree: &Tree) -> Vec<PathBuf> {
    let text = fs::read_to_string(tree.proc.join("swaps")).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| Some(unescape(line.split_whitespace().next()?).into())).collect()
}

/// Refuses what is mounted, swapped on or held, itself or in one of its partitions.
fn refuse_in_use(tree: &Tree, metadata: &Metadata) -> Result<()> {
    if !metadata.file_type().is_block_device() {
        return refuse_image_in_use(tree, metadata);
    }
    let number = Number::of(metadata.rdev());
    let Some(node) = Node::find(tree, number) else {
        let what = format!("sysfs does not know the device {number}");
        return Err(
            Error::refused(what).way_out("see that /sys is mounted: without it nothing can be checked")
        );
    };
    for part in std::iter::once(node.clone()).chain(node.partitions()) {
        refuse_mounted(tree, &part)?;
        for swap in swaps(tree) {
            if number_of(&swap) == Some(part.number) {
                let what = format!("{} is in use as swap", part.name);
                return Err(Error::refused(what).way_out(format!("swapoff {}", swap.display())));
            }
        }
        if let Some(holder) = part.holders().first() {
            let what = format!("{} is held by {holder}", part.name);
            return Err(Error::refused(what)
                .way_out("take it out of use first (vgchange -an, cryptsetup close, mdadm --stop)"));
        }
    }
    Ok(())
}

fn refuse_mounted(tree: &Tree, part: &Node) -> Result<()> {
    for mount in mounts(tree) {
        // A btrfs has a number of its own; its source still names one of its devices.
        let by_source =
            || mount.source.starts_with('/') && number_of(Path::new(&mount.source)) == Some(part.number);
        if mount.number == part.number || by_source() {
            let what = format!("{} is mounted at {}", part.name, mount.at);
            return Err(
                Error::refused(what).way_out(format!("umount {}, if it is the right disk at all", mount.at))
            );
        }
    }
    Ok(())
}

fn refuse_image_in_use(tree: &Tree, metadata: &Metadata) -> Result<()> {
    let same = |path: &Path| fs::metadata(path).is_ok_and(|other| same_file(&other, metadata));
    if let Some(swap) = swaps(tree).iter().find(|swap| same(swap)) {
        return Err(
            Error::refused("the file is in use as swap").way_out(format!("swapoff {}", swap.display()))
        );
    }
    if let Some((name, _)) = loops(tree).iter().find(|(_, backing)| same(backing)) {
        let what = format!("the file is attached as {name}");
        return Err(
            Error::refused(what).way_out(format!("losetup --detach /dev/{name}, or wipe that device"))
        );
    }
    Ok(())
}

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn number_of(path: &Path) -> Option<Number> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_block_device().then(|| Number::of(metadata.rdev()))
}

/// Locks the whole disk, or the image file.
fn lock(tree: &Tree, request: &Request<'_>, metadata: &Metadata) -> Result<Arc<Lock>> {
    let (path, key) = match metadata.file_type().is_block_device() {
        false => (request.path.to_path_buf(), (metadata.dev(), metadata.ino())),
        true => whole_disk(tree, request.path, Number::of(metadata.rdev())),
    };
    loop {
        if let Some(lock) = Lock::take(&path, key).map_err(opening)? {
            return Ok(lock);
        }
        if Instant::now() >= request.deadline {
            let holder = fs::metadata(&path).ok().and_then(|locked| lock_holder(tree, &locked));
            let holder = holder.map_or("another process".into(), |process| process.to_string());
            let what = format!("{holder} holds the lock on {}", path.display());
            return Err(Error::busy(what).way_out("try again when it is done, or wait longer with --wait"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The node of the disk that holds the device; the device's own where that has none.
fn whole_disk(tree: &Tree, path: &Path, number: Number) -> (PathBuf, (u64, u64)) {
    let own = (path.to_path_buf(), (number.major, number.minor));
    let Some(disk) = Node::find(tree, number).map(|node| node.whole_disk()) else { return own };
    if disk.number == number {
        return own;
    }
    let node = tree.dev.join(&disk.name);
    if number_of(&node) == Some(disk.number) { (node, (disk.number.major, disk.number.minor)) } else { own }
}

/// Opens the target alone. A named holder refuses; an unnamed one, or another efface, is waited for.
fn open_exclusively(tree: &Tree, request: &Request<'_>, metadata: &Metadata) -> Result<Target> {
    loop {
        let error = match Target::open(request.path, Access::Exclusive) {
            Ok(target) => return Ok(target),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(opening(error));
        }
        refuse_in_use(tree, metadata)?;
        let holder = opener(tree, metadata.rdev());
        if let Some(foreign) = holder.as_ref().filter(|process| !process.is_efface()) {
            let what = format!("{foreign} has it open");
            return Err(Error::refused(what).way_out("end that program, if it is the right disk at all"));
        }
        if Instant::now() >= request.deadline {
            let holder =
                holder.map_or("something that cannot be found".into(), |process| process.to_string());
            return Err(
                Error::busy(format!("held by {holder}")).way_out("try again, or wait longer with --wait")
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// The opened descriptor is what was checked, and has bytes.
fn checked(tree: &Tree, path: &Path, before: &Metadata, target: &Target) -> Result<Identity> {
    let now = target.metadata().map_err(opening)?;
    let same = match before.file_type().is_block_device() {
        true => now.file_type().is_block_device() && now.rdev() == before.rdev(),
        false => same_file(&now, before),
    };
    if !same {
        return Err(Error::refused("the path was given to something else while it was checked"));
    }
    if target.geometry().size == 0 {
        return Err(Error::refused("the device has no bytes (is a medium in it, a file attached?)"));
    }
    Ok(Identity::read(tree, path, &now, target.geometry(), target.disk_sequence()))
}

fn opening(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::refused("it may not be opened")
            .because(error)
            .way_out("run efface as root, or see that it is not read-only"),
        Some(libc::EROFS) => read_only().because(error),
        Some(libc::ENXIO | libc::ENOMEDIUM) => {
            Error::refused("there is nothing behind this node").because(error)
        }
        _ => Error::failed("it cannot be opened").because(error),
    }
}

fn read_only() -> Error {
    Error::refused("the device is read-only").way_out("blockdev --setrw, if it is the right disk at all")
}

fn backend(error: io::Error) -> Error {
    Error::failed("no I/O can be set up").because(error)
}

/// A process, as far as it can be seen.
struct Process {
    pid: u32,
    command: String,
}

impl Process {
    fn at(tree: &Tree, pid: u32) -> Process {
        let command = fs::read_to_string(tree.proc.join(pid.to_string()).join("comm")).unwrap_or_default();
        Process { pid, command: command.trim().into() }
    }

    fn is_efface(&self) -> bool {
        self.command == "efface"
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Another process with a descriptor on the device.
fn opener(tree: &Tree, rdev: u64) -> Option<Process> {
    let processes = fs::read_dir(&tree.proc).ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let descriptors =
            fs::read_dir(tree.proc.join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .any(|opened| opened.file_type().is_block_device() && opened.rdev() == rdev)
    };
    pids.filter(|pid| *pid != std::process::id()).find(has_it).map(|pid| Process::at(tree, pid))
}

/// The process that /proc/locks names for this file.
fn lock_holder(tree: &Tree, locked: &Metadata) -> Option<Process> {
    let file = Number::of(locked.dev());
    let place = format!("{:02x}:{:02x}:{}", file.major, file.minor, locked.ino());
    let text = fs::read_to_string(tree.proc.join("locks")).ok()?;
    let line = text.lines().find(|line| line.contains(" FLOCK ") && line.contains(&place))?;
    let pid = line.split_whitespace().nth(4)?.parse().ok()?;
    Some(Process::at(tree, pid))
}
