//! A target before it is accepted: its identity, its users, and how it is opened.

use std::fs::{self, File, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::super::identity::Identity;
use super::super::kernel::blkid;
use super::super::kernel::sysfs::Block;
use super::super::openers::Openers;
use super::super::place::Place;
use super::super::refusal::{self, Force, Refusal};
use super::super::usage::{self, Usage};
use super::super::{Signature, Thin, Tree};
use super::hold::{self, Held};
use super::{SEE_DEVICES, WAIT, not_found, not_opened, unseen};
use crate::error::{Error, Result};
use crate::io::{Access, Target};

/// A block device, or a file that the user calls an image, before it is known if it may be written.
pub(super) struct Candidate {
    pub identity: Identity,
    pub place: Place,
    /// `None` for an image.
    pub block: Option<Block>,
}

impl Candidate {
    pub fn find(tree: &Tree, path: &Path, image: bool) -> Result<Candidate> {
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
    pub fn check_unused(&self, usage: &Usage, force: &[Force]) -> Result<Vec<Refusal>> {
        let refusals = match (&self.block, self.place) {
            (Some(block), _) => usage.of_device(block).map_err(unseen)?,
            (None, Place::File(inode)) => usage.of_file(inode, &self.identity.node),
            (None, Place::Device(_)) => unreachable!("an image is a file"),
        };
        let mut forced = Vec::new();
        refusals.into_iter().try_for_each(|refusal| overridden(refusal, force, &mut forced))?;
        if let Some(suspended) = usage.suspended(self.place) {
            return Err(suspended.into());
        }
        if let Some(refusal) = self.block.as_ref().map(usage::zoned).transpose().map_err(unseen)?.flatten() {
            return Err(Error::unsupported(refusal.what).with_remedy(refusal.remedy));
        }
        Ok(forced)
    }

    /// Another process has it open: of an image, and of what lies below a device, only writers matter.
    pub fn open_elsewhere(&self, usage: &Usage, openers: &Openers) -> Option<Refusal> {
        usage.open_elsewhere(self.place, openers, &self.identity.node)
    }

    pub fn lock(&self, tree: &Tree, usage: &Usage) -> Result<Held> {
        let locks = match &self.block {
            Some(block) => {
                let disk = block.disk().map_err(unseen)?;
                hold::lock_disk(tree, usage, &disk, &self.identity.node)?
            }
            None => hold::lock_image(tree, &self.identity.node)?,
        };
        Ok(Held { _locks: locks, ..Held::default() })
    }

    /// For writing, exclusively. A snapshot's exception store is its snapshot's alone: that is then
    /// kept closed by an exclusive open of it.
    pub fn open_alone(&self, tree: &Tree, forced: &[Refusal], held: &mut Held) -> Result<Target> {
        if !forced.iter().any(|refusal| refusal.force == Some(Force::SnapshotCow)) {
            return self.open(tree, Access::WriteAlone);
        }
        let snapshot = self.block.as_ref().map(usage::snapshot_of_cow).transpose().map_err(unseen)?.flatten();
        let node = snapshot.map(|snapshot| tree.dev.join(snapshot.name()));
        let snapshot = node.map(|node| Target::open(&node, Access::ReadAlone)).transpose();
        held._snapshot = snapshot.map_err(|error| {
            Error::refused("its snapshot cannot be kept closed")
                .because(error)
                .with_remedy("see that the snapshot is not in use: lsof")
        })?;
        self.open(tree, Access::WriteBeside)
    }

    pub fn open(&self, tree: &Tree, access: Access) -> Result<Target> {
        Target::open(&self.identity.node, access).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => self.why_busy(tree),
            _ => not_opened(error),
        })
    }

    /// Another process has the device open exclusively: a known user is a refusal, an unknown one may close it.
    fn why_busy(&self, tree: &Tree) -> Error {
        let usage = match Usage::read(tree) {
            Ok(usage) => usage,
            Err(error) => return unseen(error),
        };
        if let Err(used) = self.check_unused(&usage, &[Force::Unseen, Force::Copies, Force::SameSerial]) {
            return used;
        }
        if let Some(member) = self.zpool_member(&usage) {
            return member.into();
        }
        let files = usage.files_of([self.place].into_iter());
        let openers = Openers::read(tree, &files).unwrap_or_default();
        let (ours, others) = openers.split(|process| process.command == "efface");
        match (self.open_elsewhere(&usage, &others), self.open_elsewhere(&usage, &ours)) {
            (Some(refusal), _) => refusal.into(),
            (None, Some(refusal)) => Error::busy(refusal.what).with_remedy(WAIT),
            (None, None) => Error::busy("it is held by something that cannot be seen").with_remedy(WAIT),
        }
    }

    fn zpool_member(&self, usage: &Usage) -> Option<Refusal> {
        let file = File::open(&self.identity.node).ok()?;
        usage.in_zpool(self.place, &blkid::signatures(&file).ok()?, || false)
    }

    /// A path can be given to another device between the check and the open.
    pub fn check_opened(&self, target: &Target) -> Result<()> {
        let metadata = target.metadata().map_err(not_opened)?;
        let (seen, opened) = (self.identity.disk_sequence, target.disk_sequence());
        let another_disk = seen.zip(opened).is_some_and(|(seen, opened)| seen != opened);
        if Place::of(&metadata) != self.place || another_disk {
            return Err(Error::refused("another target took its place while it was being checked")
                .with_remedy(SEE_DEVICES));
        }
        if target.geometry().size == 0 {
            return Err(Error::refused("it has no bytes: its size is 0")
                .with_remedy("attach a medium or a backing file, or name another device"));
        }
        Ok(())
    }
}

fn check_type(file_type: FileType, image: bool) -> Result<()> {
    let wanted = if image { file_type.is_file() } else { file_type.is_block_device() };
    if wanted {
        return Ok(());
    }
    let (what, remedy) = if file_type.is_block_device() {
        ("a block device, not an image file", "leave --image away")
    } else if file_type.is_file() {
        ("a regular file, not a block device", "add --image if it is a disk image that may be wiped")
    } else if file_type.is_dir() {
        ("a directory, not a block device", SEE_DEVICES)
    } else if file_type.is_char_device() {
        ("a character device, not a block device", SEE_DEVICES)
    } else if file_type.is_fifo() {
        ("a fifo, not a block device", SEE_DEVICES)
    } else {
        ("a socket, not a block device", SEE_DEVICES)
    };
    Err(Error::refused(format!("it is {what}")).with_remedy(remedy))
}

/// What libblkid finds on it; what cannot be read is refused.
pub(super) fn check_content(target: &Target, force: &[Force]) -> Result<(Vec<Signature>, Vec<Refusal>)> {
    let mut forced = Vec::new();
    match target.reader().and_then(|file| blkid::signatures(&file)) {
        Ok(signatures) => Ok((signatures, forced)),
        Err(error) => {
            overridden(refusal::unprobed(&error), force, &mut forced)?;
            Ok((Vec::new(), forced))
        }
    }
}

/// Keeps a refusal that the user overrides; any other stands.
pub(super) fn overridden(refusal: Refusal, force: &[Force], forced: &mut Vec<Refusal>) -> Result<()> {
    if !refusal.force.is_some_and(|kind| force.contains(&kind)) {
        return Err(refusal.into());
    }
    forced.push(refusal);
    Ok(())
}

pub(super) fn check_writable(target: &Target) -> Result<()> {
    if target.is_read_only().map_err(not_opened)? { Err(refusal::read_only().into()) } else { Ok(()) }
}
