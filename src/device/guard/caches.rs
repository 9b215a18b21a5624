//! The page caches between a target and the storage: each node of a block device has one of its own, and
//! so has the file that a loop device stands on. What they hold dirty is written back at any time, over
//! what was wiped; what they hold clean is read instead of the storage.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::super::Tree;
use super::super::graph::{Role, Shared};
use super::super::place::Place;
use super::super::usage::Usage;
use crate::range::ExtentSet;

const PAGE_BYTES: u64 = 4096;

/// Descriptors on every node but the target's own whose bytes are the target's.
#[derive(Debug, Default)]
pub(super) struct Caches {
    nodes: Vec<(PathBuf, File, ExtentSet)>,
    /// Why what is read can come from a cache below.
    pub indirect: Vec<String>,
}

impl Caches {
    /// Down to the first file and never below it: what lies there is its file system's.
    pub fn open(tree: &Tree, usage: &Usage, sharing: &[Shared]) -> Caches {
        let mut caches = Caches::default();
        let below = || sharing.iter().filter(|shared| shared.role != Role::Above);
        for shared in below().filter(|shared| shared.role != Role::Target) {
            caches.add(tree, usage, shared);
        }
        let emptied = if caches.indirect.is_empty() { ", which was emptied before each check" } else { "" };
        for shared in below() {
            caches.add_reader(tree, usage, shared, emptied);
        }
        caches
    }

    /// A loop device reads its backing file through the page cache, where it is not set to direct I/O.
    fn add_reader(&mut self, tree: &Tree, usage: &Usage, shared: &Shared, emptied: &str) {
        let Place::Device(number) = shared.place else { return };
        let Ok(block) = tree.block(number) else { return };
        let is_loop = usage.stack().graph.layer(shared.place).is_some_and(|layer| layer.kind == "loop");
        if is_loop && block.number_attribute("loop/dio") != Some(1) {
            let name = block.name();
            self.indirect.push(format!("{name} reads what it stands on through the page cache{emptied}"));
        }
    }

    fn add(&mut self, tree: &Tree, usage: &Usage, shared: &Shared) {
        let paths = match shared.place {
            Place::Device(number) => {
                tree.block(number).map(|block| tree.dev.join(block.name())).into_iter().collect()
            }
            Place::File(_) => usage.backing_paths(shared.place),
        };
        let opened = paths.iter().find_map(|path| Some((path.clone(), open(path, shared.place)?)));
        match opened {
            Some((path, file)) => self.nodes.push((path, file, shared.extents.clone())),
            None => {
                let name =
                    paths.first().map_or("what it stands on".into(), |path| path.display().to_string());
                self.indirect
                    .push(format!("{name} cannot be opened here, so its page cache was not emptied"));
            }
        }
    }

    /// Writes back what the caches hold of the target's bytes, and drops it.
    pub fn drop_all(&self) -> io::Result<()> {
        for (path, file, extents) in &self.nodes {
            let emptied = file.sync_all().and_then(|()| drop_ranges(file, extents));
            emptied.map_err(|error| {
                let what = format!("the page cache of {} cannot be written back: {error}", path.display());
                io::Error::new(error.kind(), what)
            })?;
        }
        Ok(())
    }
}

/// Pages that lie in a range only in part are left alone by the kernel, so the range is widened.
fn drop_ranges(file: &File, extents: &ExtentSet) -> io::Result<()> {
    for extent in extents.iter() {
        let start = extent.start - extent.start % PAGE_BYTES;
        // A length of 0 goes to the end.
        let length = match i64::try_from(extent.end) {
            Ok(_) => (extent.end.next_multiple_of(PAGE_BYTES) - start) as i64,
            Err(_) => 0,
        };
        posix_fadvise(file, start as i64, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

fn open(path: &Path, place: Place) -> Option<File> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    (Place::of(&file.metadata().ok()?) == place).then_some(file)
}
