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

    /// What a purge came to that this one waited for, and its process. What contradicts itself is no result.
    pub fn awaited(&self) -> Option<(&PurgeWork, &PurgeReport, &JobProcess)> {
        let entry = self.earlier.as_ref().filter(|_| self.waited)?;
        let work = entry.purge()?;
        let report = work.report.as_ref().filter(|_| entry.verdict == Some(Verdict::Erased))?;
        let consistent = report.verdict == Verdict::Erased && report.check().is_ok();
        consistent.then_some((work, report, &entry.process))
    }

    /// A purge that ended early after its command was, or may have been, sent.
    pub fn unended(&self) -> Option<(&PurgeWork, &PurgeCheckpoint)> {
        let work = self.earlier.as_ref().filter(|entry| entry.is_resumable())?.purge()?;
        Some((work, work.checkpoint.as_ref()?))
    }

    /// How the last purge ended that left nothing to resume.
    pub fn ended(&self) -> Option<Verdict> {
        self.earlier.as_ref().filter(|entry| !entry.is_resumable())?.verdict
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::device::purge_scope::{PurgeScope, Reach};
    use crate::engine::event::Emitter;
    use crate::engine::purge::job::{OpenNamespace, PurgeContext, run};
    use crate::engine::purge::known::IoContext;
    use crate::engine::{Settings, Stop};
    use crate::error::Kind;
    use crate::io::passthrough::sim::nvme::{NvmeSim, Setup};
    use crate::journal::ListedJob;
    use crate::pattern::Seed;
    use crate::plan::PurgePolicy;

    fn key(serial: &str) -> SubsystemKey {
        SubsystemKey { nqn: None, model: "A drive".into(), serial: serial.into() }
    }

    fn work() -> PurgeWork {
        let scope = PurgeScope {
            key: key("Z1"),
            namespaces: Vec::new(),
            controllers: Vec::new(),
            other_namespaces: false,
            other_controllers: false,
        };
        let policy = PurgePolicy::default();
        PurgeWork { scope, reach: Reach::Subsystem, policy, checkpoint: None, report: None }
    }

    /// Purges a simulated drive, and keeps its checkpoints.
    fn purged(keep: &mut dyn FnMut(&PurgeCheckpoint) -> Result<()>) -> PurgeReport {
        let sim = NvmeSim::new(Setup::of((0..1 << 20).map(|at| b"old data "[at % 9]).collect()));
        let (to, _events) = channel();
        let (emitter, stop, settings) = (Emitter::new(0, to), Stop::default(), Settings::default());
        let context = PurgeContext {
            io: IoContext { settings: &settings, stop: &stop, emitter: &emitter },
            clock: &**sim.clock(),
            draw: &mut Seed::from_kernel,
            keep,
            give_up_after: None,
        };
        let namespace = OpenNamespace { nsid: 1, disk: Box::new(sim.disk(1)) };
        run(&mut sim.path(0), &mut [namespace], PurgePolicy::default(), context)
    }

    fn lock(store: &JournalStore) -> Result<LockedDrive> {
        LockedDrive::lock(store, &key("Z1"), false, || panic!("it does not wait"))
    }

    fn store() -> (tempfile::TempDir, JournalStore) {
        let path = tempfile::tempdir().unwrap();
        let store = JournalStore::open(path.path()).unwrap();
        (path, store)
    }

    fn states(store: &JournalStore) -> Vec<&'static str> {
        store.jobs().unwrap().iter().map(ListedJob::state).collect()
    }

    #[test]
    fn a_purge_that_was_killed_can_be_resumed_from_its_first_command_on() {
        let (_path, store) = store();
        let journal = lock(&store).unwrap().begin(Path::new("/dev/nvme0n1"), work()).unwrap();
        assert_eq!(states(&store), ["waiting"]);
        drop(journal);
        let locked = lock(&store).unwrap();
        assert!(locked.unended().is_none() && locked.ended().is_none(), "nothing was sent");
        drop(locked);
        assert_eq!(states(&store), ["ended"], "there is nothing to resume");

        let journal = lock(&store).unwrap().begin(Path::new("/dev/nvme0n1"), work()).unwrap();
        let (mut keep, mut kept) = (journal.purge_writer(), Vec::new());
        let report = purged(&mut |checkpoint| {
            kept.push(checkpoint.clone());
            keep(checkpoint)
        });
        assert!(kept.len() >= 2);
        drop((journal, keep));
        let locked = lock(&store).unwrap();
        let (work, checkpoint) = locked.unended().expect("its process has ended early");
        assert_eq!(Some(checkpoint), kept.last());
        assert!(work.report.is_none() && locked.awaited().is_none());
        assert_eq!(states(&store), ["waiting"], "another process has its lock");
        drop(locked);
        assert_eq!(states(&store), ["resumable"]);

        let earlier = work_of(&store);
        let journal = lock(&store).unwrap().begin(Path::new("/dev/nvme0n1"), earlier).unwrap();
        journal.keep_report(&report);
        assert!(!journal.end(report.verdict));
        drop(journal);
        assert_eq!(states(&store), ["ended"]);
        let locked = lock(&store).unwrap();
        assert!(locked.unended().is_none());
        assert_eq!(locked.ended(), Some(Verdict::Erased));
        let kept = locked.earlier.as_ref().and_then(Entry::purge).unwrap();
        assert!(kept.checkpoint.is_none() && kept.report.as_ref() == Some(&report));
    }

    #[test]
    fn a_result_that_is_no_success_is_not_taken() {
        let (_path, store) = store();
        let report = purged(&mut |_| Ok(()));
        let taken = |report: &PurgeReport, verdict| {
            let journal = lock(&store).unwrap().begin(Path::new("/dev/nvme0n1"), work()).unwrap();
            journal.keep_report(report);
            journal.end(verdict);
            drop(journal);
            let waited = LockedDrive { waited: true, ..lock(&store).unwrap() };
            waited.awaited().is_some()
        };
        assert!(taken(&report, Verdict::Erased));
        for verdict in [Verdict::Failed, Verdict::Surviving, Verdict::Interrupted] {
            assert!(!taken(&report, verdict), "{verdict:?}");
        }
        let failed = PurgeReport { verdict: Verdict::Failed, ..report.clone() };
        assert!(!taken(&failed, Verdict::Erased));
        let contradicts_itself = PurgeReport { rungs: Vec::new(), ..report };
        assert!(!taken(&contradicts_itself, Verdict::Erased));
    }

    fn work_of(store: &JournalStore) -> PurgeWork {
        lock(store).unwrap().unended().unwrap().0.clone()
    }

    #[test]
    fn a_second_purge_of_a_drive_waits_for_the_first_and_has_its_result() {
        let (path, store) = store();
        let journal = lock(&store).unwrap().begin(Path::new("/dev/nvme0n1"), work()).unwrap();
        let busy = lock(&JournalStore::open(path.path()).unwrap()).err().expect("it is locked");
        assert_eq!(busy.kind, Kind::Busy, "{busy}");
        assert!(LockedDrive::lock(&store, &key("Z2"), false, || ()).is_ok(), "another drive");
        let (waits, waiting) = channel();
        let other = JournalStore::open(path.path()).unwrap();
        let second = thread::spawn(move || {
            let lock = LockedDrive::lock(&other, &key("Z1"), true, || waits.send(()).unwrap()).unwrap();
            lock.awaited().map(|(_, report, process)| (report.clone(), process.pid))
        });
        waiting.recv().unwrap();
        let report = purged(&mut |_| Ok(()));
        journal.keep_report(&report);
        journal.end(report.verdict);
        drop(journal);
        assert_eq!(second.join().unwrap(), Some((report, std::process::id())));
        assert!(lock(&store).unwrap().awaited().is_none(), "it has not waited");
    }

    #[test]
    fn a_journal_that_cannot_be_written_keeps_the_command_from_being_sent() {
        let report = purged(&mut |_| Err(no_journal(std::io::Error::other("no space"))));
        assert_eq!((report.verdict, report.rungs.len()), (Verdict::Failed, 0));
        assert!(report.error.unwrap().contains("no journal of the purge can be kept: no space"));
        let mut first = true;
        let report = purged(&mut |_| {
            let kept = if first { Ok(()) } else { Err(no_journal(std::io::Error::other("no space"))) };
            first = false;
            kept
        });
        assert_eq!(report.verdict, Verdict::Erased, "the command was sent: it is seen to its end");
    }
}
