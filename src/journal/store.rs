//! The folder with the journals: two files a disk, named after what the disk is.
//!
//! `NAME.journal` is replaced whole at each checkpoint. `NAME.running` is locked while a job of this disk
//! runs, so that the lock ends with its process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::entry::Entry;
use super::key::SealKey;
use crate::device::Tree;
use crate::directory::{Directory, Lock, MODE_PRIVATE};

/// A larger file is no journal.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// A live state is one line.
const LIVE_BYTES_MAX: u64 = 64 << 10;
const MODE_OF_DIRECTORY: u32 = 0o700;
/// The ended wipes that stay listed, the newest first.
const ENDED_MAX: usize = 100;

/// The folder with the journals. Its key is read once: where the file is replaced later, what this
/// process writes is damaged for those that read the new key.
#[derive(Clone)]
pub struct JournalStore {
    directory: Directory,
    /// Or why it cannot be read: then every journal is damaged.
    key: Arc<Result<SealKey, String>>,
}

/// What the journal of a disk holds.
pub(super) enum StoredEntry {
    Nothing,
    Damaged(String),
    Entry(Box<Entry>),
}

/// The lock of a disk's journal. Its file is removed while it is still locked, so that only a process
/// that is killed leaves one.
pub(super) struct Running {
    directory: Directory,
    file: String,
    lock: Lock,
}

impl Running {
    /// The file that is locked, for the live state.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let removed = self.directory.remove(&self.file);
        removed.unwrap_or_else(|error| tracing::debug!("{} is not removed: {error}", self.file));
    }
}

impl JournalStore {
    /// An existing folder.
    ///
    /// # Errors
    /// It does not exist, or another user may change it.
    pub fn at(path: &Path) -> io::Result<JournalStore> {
        let directory = Directory::trusted(path)?;
        let key = SealKey::read(&directory).map_err(|error| error.to_string());
        Ok(JournalStore { directory, key: Arc::new(key) })
    }

    /// Makes the folder and its key where they do not exist.
    ///
    /// # Errors
    /// They cannot be made, or another user may change the folder or read the key.
    pub fn open(path: &Path) -> io::Result<JournalStore> {
        let directory = Directory::make_all(path, MODE_OF_DIRECTORY)?;
        let key = SealKey::open(&directory)?;
        Ok(JournalStore { directory, key: Arc::new(Ok(key)) })
    }

    fn key(&self) -> Result<&SealKey, String> {
        self.key.as_ref().as_ref().map_err(String::clone)
    }

    /// The names of all journals, without their extension.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let files = self.directory.names()?.into_iter();
        let mut names: Vec<String> =
            files.filter_map(|file| Some(file.strip_suffix(".journal")?.into())).collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.directory.path_of(journal(name))
    }

    pub(super) fn read(&self, name: &str) -> StoredEntry {
        let text = match self.directory.read(journal(name), FILE_BYTES_MAX) {
            Ok(None) => return StoredEntry::Nothing,
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let entry = text.and_then(|text| Entry::unseal(&text, name, self.key()?));
        entry.map_or_else(StoredEntry::Damaged, |entry| StoredEntry::Entry(Box::new(entry)))
    }

    pub(super) fn write(&self, name: &str, entry: &Entry) -> io::Result<()> {
        let text = entry.seal(self.key().map_err(io::Error::other)?).map_err(io::Error::other)?;
        self.directory.replace(journal(name), text.as_bytes(), MODE_PRIVATE)
    }

    /// Locks the journal of a disk; `None` where another process has it until the deadline. A status that a
    /// killed process left in the lock file is removed.
    pub(super) fn lock(&self, name: &str, deadline: Instant) -> io::Result<Option<Running>> {
        let file = format!("{name}.running");
        let Some(lock) = self.directory.lock_until(&file, deadline, || false)? else { return Ok(None) };
        lock.file().set_len(0)?;
        Ok(Some(Running { directory: self.directory.clone(), file, lock }))
    }

    /// What the process that has locked this journal writes about its job.
    pub(super) fn read_running(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.directory.read_locked(&format!("{name}.running"), LIVE_BYTES_MAX)
    }

    /// All undamaged journals by name, each read once.
    pub(super) fn scan(&self) -> io::Result<impl Iterator<Item = (String, Entry)>> {
        Ok(self.names()?.into_iter().filter_map(|name| match self.read(&name) {
            StoredEntry::Entry(entry) => Some((name, *entry)),
            StoredEntry::Nothing | StoredEntry::Damaged(_) => None,
        }))
    }

    /// Removes the oldest of the ended wipes, and what no disk is left to be resumed for.
    pub(super) fn prune(&self, tree: &Tree) -> io::Result<()> {
        let (mut ended, mut useless) = (Vec::new(), Vec::new());
        for (name, entry) in self.scan()? {
            if !entry.is_resumable() {
                ended.push((entry.written, name));
            } else if tree.is_gone(&entry.disk) {
                useless.push(name);
            }
        }
        ended.sort();
        let old = ended.len().saturating_sub(ENDED_MAX);
        useless.extend(ended.into_iter().take(old).map(|(_, name)| name));
        useless.iter().try_for_each(|name| self.remove_useless(tree, name))
    }

    /// Another process may have begun a wipe of this disk since the scan: the journal is removed only
    /// where, under its lock, it is still useless.
    fn remove_useless(&self, tree: &Tree, name: &str) -> io::Result<()> {
        let Some(_running) = self.lock(name, Instant::now())? else { return Ok(()) };
        match self.read(name) {
            StoredEntry::Entry(entry) if !entry.is_resumable() || tree.is_gone(&entry.disk) => {
                self.directory.remove(journal(name))
            }
            _ => Ok(()),
        }
    }
}

fn journal(name: &str) -> String {
    format!("{name}.journal")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::tests::{begin, disk};
    use super::*;
    use crate::device::identity::Identity;
    use crate::verdict::Verdict;

    fn folder() -> (tempfile::TempDir, JournalStore) {
        let path = tempfile::tempdir().unwrap();
        let folder = JournalStore::open(path.path()).unwrap();
        (path, folder)
    }

    fn files(path: &tempfile::TempDir) -> Vec<String> {
        let mut files = Directory::open(path.path()).unwrap().names().unwrap();
        files.sort();
        files
    }

    #[test]
    fn only_the_newest_of_the_ended_wipes_are_kept() {
        let (path, folder) = folder();
        for number in 0..ENDED_MAX + 5 {
            let disk = disk("/dev/sda", Some(&number.to_string()));
            begin(&folder, &disk, false).unwrap().unwrap().journal.end(Verdict::Wiped);
        }
        let resumable = begin(&folder, &disk("/dev/sda", Some("Z1")), false).unwrap().unwrap();
        resumable.journal.end(Verdict::Interrupted);
        let mut names: Vec<(Timestamp, String)> =
            folder.scan().unwrap().map(|(name, entry)| (entry.written, name)).collect();
        names.sort();
        folder.prune(&Tree::real()).unwrap();
        let mut expected: Vec<String> = names.into_iter().skip(5).map(|(_, name)| journal(&name)).collect();
        expected.push("journal.key".into());
        expected.sort();
        assert_eq!(files(&path), expected);
    }

    /// As by another process, between the scan and the removal.
    #[test]
    fn a_journal_that_is_locked_or_begun_again_is_not_removed() {
        let (path, folder) = folder();
        let disk = disk("/dev/sda", Some("Z1"));
        begin(&folder, &disk, false).unwrap().unwrap().journal.end(Verdict::Wiped);
        let name = folder.names().unwrap().remove(0);
        let kept = || {
            folder.remove_useless(&Tree::real(), &name).unwrap();
            files(&path).contains(&journal(&name))
        };
        let other = JournalStore::open(path.path()).unwrap();
        let locked = other.lock(&name, Instant::now()).unwrap().expect("it is free");
        assert!(kept(), "another process is about to write it");
        drop(locked);
        begin(&other, &disk, false).unwrap().unwrap().journal.end(Verdict::Interrupted);
        assert!(kept(), "it can be resumed");
        begin(&other, &disk, true).unwrap().unwrap().journal.end(Verdict::Wiped);
        assert!(!kept(), "it has ended");
        assert_eq!(files(&path), ["journal.key"]);
    }

    #[test]
    fn what_is_to_be_resumed_on_a_volume_that_is_gone_is_forgotten() {
        let (path, folder) = folder();
        let fake = tempfile::tempdir().unwrap();
        let tree_at = |sys: PathBuf| {
            let mut tree = Tree::real();
            tree.sys = sys;
            tree
        };
        let tree = tree_at(fake.path().into());
        let uuid = |name: &str| fake.path().join("class/block").join(name).join("dm/uuid");
        let set = |name: &str, text: &str| {
            std::fs::create_dir_all(uuid(name).parent().unwrap()).unwrap();
            std::fs::write(uuid(name), text).unwrap();
        };
        set("dm-0", "LVM-other\n");
        let volume = Identity { dm_uuid: Some("LVM-volume".into()), ..disk("/dev/mapper/volume", None) };
        for disk in [&volume, &disk("/dev/sda", Some("Z1"))] {
            begin(&folder, disk, false).unwrap().unwrap().journal.end(Verdict::Interrupted);
        }
        let kept = || {
            folder.prune(&tree).unwrap();
            files(&path).iter().filter(|file| file.ends_with(".journal")).count()
        };
        set("dm-1", "LVM-volume\n");
        assert_eq!(kept(), 2, "it is there");
        std::fs::remove_file(uuid("dm-1")).unwrap();
        assert_eq!(kept(), 1, "the disk may be plugged in again");
        let lost = tree_at(fake.path().join("nothing"));
        begin(&folder, &volume, false).unwrap().unwrap().journal.end(Verdict::Interrupted);
        folder.prune(&lost).unwrap();
        set("dm-1", "LVM-volume\n");
        assert_eq!(kept(), 2, "where nothing can be seen, nothing is gone");
    }
}
