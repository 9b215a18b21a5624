//! Exclusion of others during a claim: locks, and exclusive opens below loop devices.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::super::graph::{Role, Shared};
use super::super::kernel::procfs;
use super::super::kernel::sysfs::Block;
use super::super::place::Place;
use super::super::usage::Usage;
use super::super::{DeviceNumber, Tree, refusal};
use super::{WAIT, not_opened, unseen};
use crate::error::{Error, Result};
use crate::io::Target;

/// What keeps others away as long as the disk is used.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub _locks: Vec<Arc<FileLock>>,
    /// Devices that only a loop device stands on: the loop driver does not claim what is below it.
    pub _below: Vec<Arc<File>>,
    pub _snapshot: Option<Target>,
}

/// A BSD lock, by the convention of systemd's BLOCK_DEVICE_LOCKING: it keeps udev and partition
/// tools away from the whole disk.
pub(super) type FileLock = Flock<File>;

/// What this process holds: its jobs share a lock, and an exclusive open, of one disk.
struct SharedHandles<T>(Mutex<BTreeMap<Place, Weak<T>>>);

impl<T> SharedHandles<T> {
    fn get(&self, place: Place, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get(&place).and_then(Weak::upgrade) {
            return Ok(held);
        }
        let made = Arc::new(make()?);
        held.insert(place, Arc::downgrade(&made));
        Ok(made)
    }
}

static LOCKS: SharedHandles<FileLock> = SharedHandles(Mutex::new(BTreeMap::new()));
static BELOW: SharedHandles<File> = SharedHandles(Mutex::new(BTreeMap::new()));

/// Locks the target's own disk by each of its nodes, in the order of their numbers.
pub(super) fn lock_disk(
    tree: &Tree,
    usage: &Usage,
    disk: &Block,
    given: &Path,
) -> Result<Vec<Arc<FileLock>>> {
    let own = Place::Device(disk.number());
    let mut nodes: Vec<Place> = usage.stack().graph.paths_of(own).chain([own]).collect();
    nodes.sort_unstable();
    let lock_node = |place: Place| {
        let Place::Device(number) = place else { unreachable!("a path of a disk is a device") };
        let block = tree.block(number).map_err(unseen)?;
        LOCKS.get(place, || lock(tree, &node_of(tree, &block, given)?))
    };
    nodes.into_iter().map(lock_node).collect()
}

pub(super) fn lock_image(tree: &Tree, node: &Path) -> Result<Vec<Arc<FileLock>>> {
    Ok(vec![Arc::new(lock(tree, node)?)])
}

/// The node that every efface locks for this disk: the kernel's name below /dev, else the given one.
fn node_of(tree: &Tree, disk: &Block, given: &Path) -> Result<PathBuf> {
    let usual = tree.dev.join(disk.name());
    let leads_there = |node: &&PathBuf| Place::at(node) == Some(Place::Device(disk.number()));
    let node = [usual.clone(), given.to_path_buf()];
    node.iter().find(leads_there).cloned().ok_or_else(|| {
        Error::refused(format!("the disk that it lies on cannot be locked without {}", usual.display()))
            .with_remedy("run efface where that node is, or make it")
    })
}

fn lock(tree: &Tree, node: &Path) -> Result<FileLock> {
    let file = File::open(node).map_err(not_opened)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return Error::failed("it cannot be locked").because(errno.into());
        }
        let holder = file.metadata().ok().and_then(|metadata| procfs::lock_holder(tree, &metadata));
        let holder = holder.map_or("another process".into(), |process| process.to_string());
        Error::busy(format!("{holder} has locked {}", node.display())).with_remedy(WAIT)
    })
}

/// Opens each block device exclusively that lies directly below a loop device of this chain. One with a
/// mapping or an array in between is held by that.
pub(super) fn hold_below(tree: &Tree, usage: &Usage, chain: &[Shared]) -> Result<Vec<Arc<File>>> {
    let mut held = Vec::new();
    for upper in chain.iter().filter(|shared| matches!(shared.role, Role::Target | Role::Below)) {
        let is_loop = usage.stack().graph.layer(upper.place).is_some_and(|layer| layer.kind == "loop");
        for edge in usage.stack().graph.edges_below(upper.place).filter(|_| is_loop) {
            if let Place::Device(number) = edge.lower {
                held.push(BELOW.get(edge.lower, || open_alone(tree, number))?);
            }
        }
    }
    Ok(held)
}

fn open_alone(tree: &Tree, number: DeviceNumber) -> Result<File> {
    let block = tree.block(number).map_err(unseen)?;
    let (name, node) = (block.name(), tree.dev.join(block.name()));
    if Place::at(&node) != Some(Place::Device(number)) {
        let why = format!("{name}, which it stands on, cannot be held without {}", node.display());
        return Err(refusal::unseen(&why).into());
    }
    let flags = libc::O_EXCL | libc::O_CLOEXEC | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(&node).map_err(|error| below_error(&name, error))
}

fn below_error(name: &str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            Error::busy(format!("{name}, which it stands on, is held by another user")).with_remedy(WAIT)
        }
        _ => not_opened(error),
    }
}
