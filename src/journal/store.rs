//! The folder with the journals: two files a disk, named after what the disk is.
//!
//! `NAME.journal` is replaced whole at each checkpoint. `NAME.running` is locked while a job of this disk
//! runs, so that the lock ends with its process.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::entry::Entry;
use super::key::Key;
use crate::directory::{Directory, Lock, MODE_PRIVATE};

/// A larger file is no journal.
const FILE_BYTES_MAX: u64 = 256 << 20;
const MODE_OF_DIRECTORY: u32 = 0o700;
/// So many ended wipes stay listed.
const ENDED_MAX: usize = 100;

/// The folder with the journals.
#[derive(Clone, Debug)]
pub struct Folder(pub(super) Directory);

/// What the journal of a disk holds.
pub(super) enum Kept {
    Nothing,
    Damaged(String),
    Entry(Box<Entry>),
}

impl Folder {
    /// An existing folder.
    ///
    /// # Errors
    /// It does not exist, or another user may change it.
    pub fn at(path: &Path) -> io::Result<Folder> {
        Directory::trusted(path).map(Folder)
    }

    /// Makes the folder where it does not exist.
    ///
    /// # Errors
    /// It cannot be made, or another user may change it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        Directory::make_all(path, MODE_OF_DIRECTORY).map(Folder)
    }

    /// The names of all journals, without their extension.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let files = self.0.names()?.into_iter();
        let mut names: Vec<String> =
            files.filter_map(|file| Some(file.strip_suffix(".journal")?.into())).collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.0.path_of(journal(name))
    }

    pub(super) fn read(&self, name: &str) -> Kept {
        let text = match self.0.read(journal(name), FILE_BYTES_MAX) {
            Ok(None) => return Kept::Nothing,
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let key = Key::read(&self.0).map_err(|error| error.to_string());
        let entry = key.and_then(|key| Entry::unseal(&text?, name, &key));
        entry.map_or_else(Kept::Damaged, |entry| Kept::Entry(Box::new(entry)))
    }

    pub(super) fn write(&self, name: &str, entry: &Entry) -> io::Result<()> {
        let text = entry.seal(&Key::open(&self.0)?).map_err(io::Error::other)?;
        self.0.replace(journal(name), text.as_bytes(), MODE_PRIVATE)
    }

    /// Removes the oldest of the ended wipes.
    pub(super) fn prune(&self) -> io::Result<()> {
        let ended = |name: &String| match self.read(name) {
            Kept::Entry(entry) if !entry.is_resumable() => Some((entry.written, name.clone())),
            _ => None,
        };
        let mut ended: Vec<(Timestamp, String)> = self.names()?.iter().filter_map(ended).collect();
        ended.sort();
        let old = ended.len().saturating_sub(ENDED_MAX);
        ended.iter().take(old).try_for_each(|(_, name)| self.0.remove(journal(name)))
    }

    /// An unfinished wipe of another disk that had this path.
    pub(super) fn other_disk_at(&self, device: &str, name: &str) -> Option<Entry> {
        let names = self.names().unwrap_or_default();
        names.iter().filter(|other| *other != name).find_map(|other| match self.read(other) {
            Kept::Entry(entry) if entry.device == device && entry.is_resumable() => Some(*entry),
            _ => None,
        })
    }

    pub(super) fn lock(&self, name: &str) -> io::Result<Lock> {
        let lock = self.0.lock(running(name))?;
        lock.ok_or_else(|| io::Error::other("another process keeps one of this disk"))
    }

    pub(super) fn unlock(&self, name: &str) -> io::Result<()> {
        self.0.remove(running(name))
    }
}

pub(super) fn journal(name: &str) -> String {
    format!("{name}.journal")
}

pub(super) fn running(name: &str) -> String {
    format!("{name}.running")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{begin, disk};
    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn only_the_newest_of_the_ended_wipes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path()).unwrap();
        for number in 0..ENDED_MAX + 5 {
            let disk = disk("/dev/sda", Some(&number.to_string()));
            begin(&folder, &disk, false).unwrap().unwrap().journal.end(Verdict::Wiped);
        }
        assert_eq!(folder.jobs().unwrap().len(), ENDED_MAX);
    }
}
