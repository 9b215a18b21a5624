//! What survives a crash: how far each wipe is, in a folder that is never on the device.
//!
//! The journal of a disk is named after what the disk is, never after its path. It is replaced whole
//! after each epoch and each step, behind the flush; its first line is the HMAC of the rest, by a key
//! that only its owner reads (`journal.key`). A damaged journal costs the progress, and no more: what it
//! says is trusted only where nothing can have been written since.

mod entry;
mod key;
mod live;
mod purge;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::entry::{DiskState, this_process};
pub use self::entry::{Entry, PurgeWork};
pub use self::live::{ListedJob, LiveStatus, Summary};
pub use self::purge::{LockedDrive, SavePurge};
pub use self::store::JournalStore;
use self::store::{Running, StoredEntry};
use crate::device::identity::Identity;
use crate::device::{Tree, WriteCounter};
use crate::engine::fleet::SaveCheckpoint;
use crate::engine::job::{Checkpoint, Resume};
use crate::engine::status::JobStatus;
use crate::error::Result;
use crate::plan::Plan;
use crate::verdict::Verdict;

/// The disk and the work that a journal is about.
pub struct JournalSubject<'a> {
    pub device: &'a Path,
    pub identity: &'a Identity,
    pub counter: Option<WriteCounter>,
    /// The work, without what is drawn for each run.
    pub outline: Vec<String>,
}

/// The journal of one job, open.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<OpenJournal>>);

struct OpenJournal {
    folder: JournalStore,
    name: String,
    entry: Entry,
    /// `None` of a drive.
    identity: Option<Identity>,
    counter: Option<WriteCounter>,
    /// `None` once the job has ended.
    running: Option<Running>,
    /// A write has failed, and a warning has said so.
    broken: bool,
}

/// A job with its journal, and what an earlier process left of it.
pub struct StartedJournal {
    pub journal: Journal,
    pub plan: Plan,
    pub resume: Option<Resume>,
}

/// A process that removes old journals holds the lock of one for as long as it takes to read it.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The journals of the jobs of one command, whose devices are all claimed: from then on no other process
/// begins a wipe at one of their paths. The folder's journals are read at most once while jobs begin,
/// and once at the end, for any number of jobs.
pub struct Journals {
    folder: JournalStore,
    /// Unfinished wipes as they were at the first question: path of the disk, and name.
    unfinished: OnceLock<Vec<(String, String)>>,
}

impl Journals {
    pub fn new(folder: JournalStore) -> Journals {
        Journals { folder, unfinished: OnceLock::new() }
    }

    /// Opens the journal of a disk. With `resume` the job goes on where an earlier wipe ended, if there
    /// is one; else it starts over. `None` for a disk without marks of its own, and where no journal can
    /// be kept.
    ///
    /// # Errors
    /// What is to be resumed is other work, or was another disk.
    pub fn begin(
        &self,
        subject: JournalSubject,
        plan: &Plan,
        resume: bool,
    ) -> Result<Option<StartedJournal>> {
        let Some(fresh) = Entry::begin(&subject, plan) else { return Ok(None) };
        let name = fresh.name();
        // What is read behind the lock is what no other process changes any more.
        let running = self.lock(&fresh, &name);
        let earlier = self.earlier(&fresh, &name, resume)?;
        let Some(running) = running else { return Ok(None) };
        // Until the job has read the disk, the circumstances are those that the earlier process wrote.
        let resume = earlier.as_ref().zip(fresh.wipe()).and_then(|(earlier, fresh)| {
            let work = earlier.wipe()?;
            Some(Resume {
                progress: work.progress.clone(),
                trusted: work.closed.prove_unwritten_until(&fresh.closed),
                earlier: earlier.process.clone(),
                now: this_process(),
            })
        });
        let entry = match earlier {
            Some(earlier) => earlier.resumed_at(fresh.device),
            None => fresh,
        };
        let plan = entry.wipe().map_or_else(|| plan.clone(), |wipe| wipe.plan.clone());
        let mut open = OpenJournal {
            folder: self.folder.clone(),
            name,
            entry,
            identity: Some(subject.identity.clone()),
            counter: subject.counter,
            running: Some(running),
            broken: false,
        };
        open.restore_entry();
        Ok(Some(StartedJournal { journal: Journal(Arc::new(Mutex::new(open))), plan, resume }))
    }

    fn lock(&self, fresh: &Entry, name: &str) -> Option<Running> {
        match self.folder.lock(name, Instant::now() + LOCK_WAIT) {
            Ok(Some(running)) => return Some(running),
            Ok(None) => warn_no_journal(&fresh.device, &"another process keeps one of this disk"),
            Err(error) => warn_no_journal(&fresh.device, &error),
        }
        None
    }

    /// The earlier wipe that is to be resumed.
    fn earlier(&self, fresh: &Entry, name: &str, resume: bool) -> Result<Option<Entry>> {
        let device = &fresh.device;
        match self.folder.read(name) {
            StoredEntry::Entry(earlier) if earlier.is_resumable() => {
                if resume {
                    fresh.refuse_other_work(&earlier)?;
                    return Ok(Some(*earlier));
                }
                let end = earlier.describe();
                tracing::warn!(
                    "{device}: an earlier wipe of it ended at {end}; this one starts over (--resume goes on)"
                );
                return Ok(None);
            }
            StoredEntry::Entry(_) | StoredEntry::Nothing => {}
            StoredEntry::Damaged(why) => {
                tracing::warn!("{device}: its journal is damaged ({why}): it starts over")
            }
        }
        if resume {
            self.other_disks_at(device, name).try_for_each(|other| fresh.refuse_other_disk(&other))?;
            tracing::info!("{device}: there is nothing to resume: it starts over");
        }
        Ok(None)
    }

    /// Unfinished wipes of other disks that had this path. What the scan found is read again: its process
    /// may have finished it since.
    fn other_disks_at(&self, device: &str, name: &str) -> impl Iterator<Item = Entry> {
        let unfinished = self.unfinished.get_or_init(|| {
            let entries = self.folder.scan().into_iter().flatten();
            let unfinished = entries.filter(|(_, entry)| entry.is_resumable());
            unfinished.map(|(name, entry)| (entry.device, name)).collect()
        });
        let others = unfinished.iter().filter(move |(path, other)| path == device && other != name);
        others.filter_map(move |(_, other)| match self.folder.read(other) {
            StoredEntry::Entry(entry) if entry.device == device && entry.is_resumable() => Some(*entry),
            _ => None,
        })
    }

    /// Removes the oldest of the ended wipes and those whose volume is gone, when all jobs have ended.
    pub fn prune(&self) {
        let pruned = self.folder.prune(&Tree::real());
        pruned.unwrap_or_else(|error| tracing::debug!("old journals are not removed: {error}"));
    }
}

/// Warns that a wipe goes on without a journal.
pub fn warn_no_journal(device: &str, why: &dyn std::fmt::Display) {
    tracing::warn!("{device}: no journal can be kept ({why}): if it is interrupted, it has to start over");
}

impl Journal {
    fn open(&self) -> MutexGuard<'_, OpenJournal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the job: writes its progress.
    pub fn checkpoint_writer(&self) -> SaveCheckpoint {
        let journal = self.clone();
        Box::new(move |progress| {
            let mut open = journal.open();
            open.write(progress);
        })
    }

    /// Writes the live state for `efface jobs`.
    pub fn show(&self, state: &JobStatus) {
        let shown = self.open().running.as_ref().map_or(Ok(()), |running| live::write(running, state));
        shown.unwrap_or_else(|error| tracing::debug!("efface jobs shows no state: {error}"));
    }

    /// The job has ended; whether it can be resumed.
    pub fn end(&self, verdict: Verdict) -> bool {
        let mut open = self.open();
        open.entry.verdict = Some(verdict);
        let resumable = open.entry.is_resumable();
        if !resumable {
            open.entry.forget_progress();
        }
        open.restore_entry();
        open.running = None;
        resumable && !open.broken
    }
}

impl OpenJournal {
    /// Behind the flush, and before anything is written to the disk again.
    fn write(&mut self, progress: &Checkpoint) {
        let closed = self.identity.as_ref().map(|disk| DiskState::now(disk, self.counter.as_ref()));
        if let Some((work, closed)) = self.entry.wipe_mut().zip(closed) {
            (work.closed, work.progress) = (closed, progress.clone());
        }
        self.entry.process = this_process();
        self.restore_entry();
    }

    fn restore_entry(&mut self) {
        self.entry.written = Timestamp::now();
        if let Err(error) = self.folder.write(&self.name, &self.entry)
            && !std::mem::replace(&mut self.broken, true)
        {
            warn_no_journal(&self.entry.device, &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;
    use crate::plan::{Device, Method, Policy};

    /// A disk with this serial number, at this path.
    pub fn disk(node: &str, serial: Option<&str>) -> Identity {
        serde_json::from_value(serde_json::json!({
            "path": node, "node": node, "kind": "disk", "size_bytes": 1 << 20, "serial": serial,
            "disk_sequence": 7
        }))
        .unwrap()
    }

    /// By a command for this disk alone.
    pub fn begin(folder: &JournalStore, identity: &Identity, resume: bool) -> Result<Option<StartedJournal>> {
        begin_in(&Journals::new(folder.clone()), identity, resume)
    }

    fn begin_in(journals: &Journals, identity: &Identity, resume: bool) -> Result<Option<StartedJournal>> {
        let device = Device { size: 1 << 20, logical_block: 512, physical_block: 4096 };
        let method = Method::named("random").unwrap();
        let area = device.area(None, None).unwrap();
        let mut draw = crate::pattern::Seed::from_kernel;
        let plan = Plan::new(&method, Policy::None, area, &device, &mut draw).unwrap();
        let outline = plan.outline(&method);
        let subject = JournalSubject { device: &identity.path, identity, counter: None, outline };
        journals.begin(subject, &plan, resume)
    }

    #[test]
    fn a_disk_at_another_path_is_resumed_by_its_serial_number() {
        let folder = tempfile::tempdir().unwrap();
        let folder = JournalStore::open(folder.path()).unwrap();
        let first = begin(&folder, &disk("/dev/sda", Some("Z1")), true).unwrap().unwrap();
        assert!(first.resume.is_none());
        first.journal.end(Verdict::Interrupted);
        let again = begin(&folder, &disk("/dev/sdb", Some("Z1")), true).unwrap().unwrap();
        assert!(again.resume.is_some() && again.plan == first.plan, "the same seed goes on");
        again.journal.end(Verdict::Wiped);
        let ended = begin(&folder, &disk("/dev/sdb", Some("Z1")), true).unwrap().unwrap();
        assert!(ended.resume.is_none() && ended.plan != first.plan, "what has ended is not resumed");
    }

    #[test]
    fn another_disk_at_the_same_path_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = JournalStore::open(folder.path()).unwrap();
        begin(&folder, &disk("/dev/sda", Some("Z1")), false)
            .unwrap()
            .unwrap()
            .journal
            .end(Verdict::Interrupted);
        let error = begin(&folder, &disk("/dev/sda", Some("Z2")), true).err().expect("refused").to_string();
        assert!(error.contains("serial Z2") && error.contains("serial Z1"), "{error}");
        assert!(begin(&folder, &disk("/dev/sda", Some("Z2")), false).unwrap().is_some());
    }

    #[test]
    fn a_disk_without_marks_of_its_own_has_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            begin(&JournalStore::open(folder.path()).unwrap(), &disk("/dev/sda", None), true)
                .unwrap()
                .is_none()
        );
    }

    /// How often each file of a folder was opened meanwhile.
    fn opened(folder: &Path, work: impl FnOnce()) -> BTreeMap<String, usize> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        // Events of the same kind and file in a row are one, so the closing counts as another kind.
        watch.add_watch(folder, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE).unwrap();
        work();
        let mut opened = BTreeMap::new();
        while let Ok(events) = watch.read_events() {
            for event in events.into_iter().filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN)) {
                let name = event.name.unwrap_or_default().into_string().unwrap();
                *opened.entry(name).or_default() += 1;
            }
        }
        opened
    }

    #[test]
    fn a_command_reads_the_key_once_and_kept_journals_as_often_for_ten_disks_as_for_one() {
        for disks in [1, 10] {
            let folder = tempfile::tempdir().unwrap();
            let earlier = JournalStore::open(folder.path()).unwrap();
            for number in 0..5 {
                let disk = disk(&format!("/dev/old{number}"), Some(&format!("Z{number}")));
                begin(&earlier, &disk, false).unwrap().unwrap().journal.end(Verdict::Interrupted);
            }
            let opened = opened(folder.path(), || {
                let journals = Journals::new(JournalStore::open(folder.path()).unwrap());
                let begin = |number| {
                    let disk = disk(&format!("/dev/new{number}"), Some(&format!("Y{number}")));
                    begin_in(&journals, &disk, true).unwrap().unwrap()
                };
                let begun: Vec<StartedJournal> = (0..disks).map(begin).collect();
                for begun in &begun {
                    begun.journal.end(Verdict::Wiped);
                }
                journals.prune();
            });
            assert_eq!(opened["journal.key"], 1, "{disks} disks");
            for name in earlier.names().unwrap() {
                let entry = earlier.read(&name);
                let kept = matches!(entry, StoredEntry::Entry(entry) if entry.is_resumable());
                let reads = opened[&format!("{name}.journal")];
                assert_eq!(reads, if kept { 2 } else { 1 }, "{name} with {disks} disks");
            }
        }
    }

    #[test]
    fn a_wipe_that_another_process_finished_after_the_scan_refuses_no_disk_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, other) =
            (JournalStore::open(folder.path()).unwrap(), JournalStore::open(folder.path()).unwrap());
        let old = disk("/dev/sda", Some("Z1"));
        begin(&other, &old, false).unwrap().unwrap().journal.end(Verdict::Interrupted);
        let journals = Journals::new(folder);
        assert!(begin_in(&journals, &disk("/dev/sda", Some("Z2")), true).is_err(), "it is not the same disk");
        begin(&other, &old, true).unwrap().unwrap().journal.end(Verdict::Wiped);
        assert!(begin_in(&journals, &disk("/dev/sda", Some("Z3")), true).unwrap().is_some());
    }

    #[test]
    fn a_journal_is_read_behind_its_lock() {
        let path = tempfile::tempdir().unwrap();
        let folder = JournalStore::open(path.path()).unwrap();
        let disk = disk("/dev/sda", Some("Z1"));
        let first = begin(&folder, &disk, true).unwrap().unwrap();
        let watch = Inotify::init(InitFlags::empty()).unwrap();
        let running = format!("{}.running", folder.names().unwrap()[0]);
        watch.add_watch(&path.path().join(running), AddWatchFlags::IN_CLOSE).unwrap();
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| begin(&folder, &disk, true).unwrap());
            // The second has tried to lock it, and failed.
            watch.read_events().unwrap();
            first.journal.end(Verdict::Wiped);
            second.join().unwrap()
        });
        let second = second.expect("it has waited for the lock");
        assert!(second.resume.is_none(), "a wipe that has ended is not resumed");
        assert!(second.plan != first.plan);
    }
}
