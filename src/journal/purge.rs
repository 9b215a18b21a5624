//! The journal of a purge: one of each drive, named after its subsystem, whatever device of it is named.
//!
//! Its lock makes two purges of one drive one: the second waits for the first, and takes its result.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::entry::{Entry, PurgeWork, name_of_drive};
use super::store::{Running, StoredEntry};
use super::{Journal, JournalStore, OpenJournal, this_process};
use crate::device::purge_scope::SubsystemKey;
use crate::engine::job::JobProcess;
use crate::engine::purge::job::PurgeCheckpoint;
use crate::engine::purge::report::PurgeReport;
use crate::error::{Error, Result};
use crate::verdict::Verdict;

/// A drive that no other efface purges as long as this is held.
pub struct LockedDrive {
    store: JournalStore,
    name: String,
    key: SubsystemKey,
    running: Running,
    earlier: Option<Entry>,
    waited: bool,
}

/// The callback of a purge that keeps its checkpoints.
pub type SavePurge = Box<dyn FnMut(&PurgeCheckpoint) -> Result<()> + Send>;

/// As long as a purge can take.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

impl LockedDrive {
    /// Waits for another process that purges this drive, after `on_wait`; without `wait` that is an error.
    ///
    /// # Errors
    /// Of kind [`Kind::Busy`](crate::Kind::Busy) without `wait`; of kind [`Kind::Failed`](crate::Kind::Failed)
    /// where no journal can be kept, without which a purge that is cut short could not be resumed.
    pub fn lock(
        store: &JournalStore,
        key: &SubsystemKey,
        wait: bool,
        on_wait: impl FnOnce(),
    ) -> Result<LockedDrive> {
        let name = name_of_drive(key);
        let lock = |until| store.lock(&name, until).map_err(no_journal);
        let (running, waited) = match lock(Instant::now())? {
            Some(running) => (Some(running), false),
            None if !wait => (None, false),
            None => {
                on_wait();
                (lock(Instant::now() + LONG)?, true)
            }
        };
        let running = running.ok_or_else(|| {
            Error::busy("another efface purges this drive")
                .with_remedy("see how far it is: efface jobs; or wait for it: leave --no-wait out")
        })?;
        let earlier = match store.read(&name) {
            StoredEntry::Entry(entry) => Some(*entry),
            StoredEntry::Nothing => None,
            StoredEntry::Damaged(why) => {
                tracing::warn!("the journal of {} {} is damaged ({why})", key.model, key.serial);
                None
            }
        };
        Ok(LockedDrive { store: store.clone(), name, key: key.clone(), running, earlier, waited })
    }

    /// Whether another process purged the drive when this one came.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// What a purge came to that this one waited for, and its process.
    pub fn awaited(&self) -> Option<(&PurgeWork, &PurgeReport, &JobProcess)> {
        let entry = self.earlier.as_ref().filter(|_| self.waited)?;
        let work = entry.purge()?;
        let report = work.report.as_ref().filter(|_| entry.verdict == Some(Verdict::Erased))?;
        Some((work, report, &entry.process))
    }

    /// A purge that ended early after its command was, or may have been, sent.
    pub fn unended(&self) -> Option<(&PurgeWork, &PurgeCheckpoint)> {
        let work = self.earlier.as_ref().filter(|entry| entry.is_resumable())?.purge()?;
        Some((work, work.checkpoint.as_ref()?))
    }

    /// Opens the journal of this purge.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(self, device: &Path, work: PurgeWork) -> Result<Journal> {
        let LockedDrive { store, name, key, running, .. } = self;
        let entry = Entry::begin_purge(device, &key, work);
        store.write(&name, &entry).map_err(no_journal)?;
        let (identity, counter, running) = (None, None, Some(running));
        let open = OpenJournal { folder: store, name, entry, identity, counter, running, broken: false };
        Ok(Journal(Arc::new(Mutex::new(open))))
    }
}

impl Journal {
    /// For a purge: writes its checkpoint.
    pub fn purge_writer(&self) -> SavePurge {
        let journal = self.clone();
        Box::new(move |checkpoint| {
            let mut open = journal.open();
            if let Some(work) = open.entry.purge_mut() {
                work.checkpoint = Some(checkpoint.clone());
            }
            open.entry.process = this_process();
            open.entry.written = jiff::Timestamp::now();
            open.folder.write(&open.name, &open.entry).map_err(no_journal)
        })
    }

    /// What a purge came to, for processes that wait for it.
    pub fn keep_report(&self, report: &PurgeReport) {
        if let Some(work) = self.open().entry.purge_mut() {
            work.report = Some(report.clone());
        }
    }
}

fn no_journal(error: std::io::Error) -> Error {
    Error::failed("no journal of the purge can be kept")
        .because(error)
        .with_remedy("name a folder for it that can be written: --state-dir")
}
