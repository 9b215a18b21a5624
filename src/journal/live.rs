//! What `efface jobs` shows: the state that a running job writes once a second, the wipes that are not
//! running, and what waits for one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, name_of};
use super::store::{JournalStore, Running, StoredEntry};
use crate::device::Tree;
use crate::device::identity::Identity;
use crate::engine::status::JobStatus;
use crate::printable::printable_path;
use crate::verdict::Verdict;

/// It is written in place, and may be read while it is half written.
const LIVE_READS_MAX: usize = 10;
const LIVE_READ_AGAIN: Duration = Duration::from_millis(1);

/// The state of a running job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LiveStatus {
    /// Of the process that runs the job.
    pub pid: u32,
    /// As the user gave it, printable.
    pub device: String,
    /// From 1; 0 while it waits.
    pub step: usize,
    /// How many the plan has; 0 while it waits.
    pub steps: usize,
    /// What the step does, for people.
    pub step_name: String,
    /// Of all steps together.
    pub done_bytes: u64,
    /// The most that all steps together visit.
    pub total_bytes: u64,
    /// What could not be written, or not be read, so far.
    pub unusable_bytes: u64,
    /// Since the job was started.
    pub seconds: u64,
    /// `None` until something is done.
    pub seconds_left: Option<u64>,
}

impl LiveStatus {
    fn of(state: &JobStatus) -> LiveStatus {
        let (done, elapsed) = (state.done_before + state.done, state.started.elapsed().as_secs_f64());
        let left = state.total.saturating_sub(done) as f64;
        LiveStatus {
            pid: std::process::id(),
            device: state.device.clone(),
            step: state.step,
            steps: state.steps,
            step_name: state.step_name.clone(),
            done_bytes: done,
            total_bytes: state.total,
            unusable_bytes: state.unusable,
            seconds: elapsed as u64,
            seconds_left: (done > 0).then(|| (elapsed * left / done as f64) as u64),
        }
    }
}

/// Writes the state of a job into the file that it has locked.
pub(super) fn write(running: &Running, state: &JobStatus) -> io::Result<()> {
    let text = serde_json::to_string(&LiveStatus::of(state)).map_err(io::Error::other)? + "\n";
    let file = running.lock().file();
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// What `efface jobs` shows of one disk.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ListedJob {
    /// A process runs it now.
    Running(LiveStatus),
    /// A process has its lock, and has not begun with its first step.
    Waiting(Summary),
    /// A logical volume that is deleted, and waits for a process that wipes it.
    Queued {
        /// Its path, printable.
        device: String,
        /// Of the volume; `None` where it cannot be read.
        size_bytes: Option<u64>,
    },
    /// It ended too early, and `--resume` goes on with it.
    Resumable(Summary),
    /// It reached its end.
    Ended(Summary),
    /// Its journal cannot be read, or not be trusted.
    Damaged {
        /// The journal.
        file: PathBuf,
    },
}

impl ListedJob {
    /// As in JSON.
    pub fn state(&self) -> &'static str {
        match self {
            ListedJob::Running(_) => "running",
            ListedJob::Waiting(_) => "waiting",
            ListedJob::Queued { .. } => "queued",
            ListedJob::Resumable(_) => "resumable",
            ListedJob::Ended(_) => "ended",
            ListedJob::Damaged { .. } => "damaged",
        }
    }

    /// `None` where the journal that names it is damaged.
    pub fn device(&self) -> Option<&str> {
        match self {
            ListedJob::Running(live) => Some(&live.device),
            ListedJob::Waiting(summary) | ListedJob::Resumable(summary) | ListedJob::Ended(summary) => {
                Some(&summary.device)
            }
            ListedJob::Queued { device, .. } => Some(device),
            ListedJob::Damaged { .. } => None,
        }
    }

    /// Adds the volumes that wait for a process, behind the jobs that have one. A volume whose wipe has ended,
    /// and that still is there, waits for the next one.
    ///
    /// # Errors
    /// Which volumes wait cannot be read.
    pub fn add_queued(jobs: &mut Vec<ListedJob>, tree: &Tree) -> io::Result<()> {
        let has_job = jobs.iter().filter(|job| !matches!(job, ListedJob::Ended(_)));
        let taken: Vec<&str> = has_job.filter_map(ListedJob::device).collect();
        let queued = tree.queued(&taken)?.into_iter().map(|path| ListedJob::Queued {
            size_bytes: tree.size_bytes(&path),
            device: printable_path(&path),
        });
        let queued: Vec<ListedJob> = queued.collect();
        let begun = jobs.partition_point(|job| matches!(job, ListedJob::Running(_) | ListedJob::Waiting(_)));
        drop(jobs.splice(begun..begun, queued));
        Ok(())
    }
}

/// A wipe from its journal.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// As the user gave it, printable.
    pub device: String,
    /// The names and values that the disk is known by ([`Identity::enduring`](crate::Identity::enduring)).
    pub disk: BTreeMap<String, String>,
    /// As [`Plan::method`](crate::Plan::method).
    pub method: String,
    /// `None` where it cannot be resumed.
    pub progress: Option<String>,
    /// When the job was first begun.
    pub begun: Timestamp,
    /// When its journal was last written.
    pub written: Timestamp,
    /// `None` where its process died before the end.
    pub verdict: Option<Verdict>,
}

impl Summary {
    fn of(entry: &Entry) -> Summary {
        Summary {
            device: entry.device.clone(),
            disk: entry.disk.clone(),
            method: entry.method().into(),
            progress: entry.is_resumable().then(|| entry.describe()),
            begun: entry.begun,
            written: entry.written,
            verdict: entry.verdict,
        }
    }
}

impl JournalStore {
    /// All wipes in this folder, running ones first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn jobs(&self) -> io::Result<Vec<ListedJob>> {
        let job = |name: &String| {
            let waits = match self.lock_state(name) {
                LockState::Working(live) => return Some(ListedJob::Running(live)),
                LockState::Waiting => true,
                LockState::Free => false,
            };
            Some(match self.read(name) {
                StoredEntry::Nothing => return None,
                StoredEntry::Damaged(_) => ListedJob::Damaged { file: self.path_of(name) },
                StoredEntry::Entry(entry) if waits => ListedJob::Waiting(Summary::of(&entry)),
                StoredEntry::Entry(entry) if entry.is_resumable() => {
                    ListedJob::Resumable(Summary::of(&entry))
                }
                StoredEntry::Entry(entry) => ListedJob::Ended(Summary::of(&entry)),
            })
        };
        let mut jobs: Vec<ListedJob> = self.names()?.iter().filter_map(job).collect();
        jobs.sort_by_key(|job| match job {
            ListedJob::Running(live) => (0, live.device.clone()),
            ListedJob::Waiting(summary) => (1, summary.device.clone()),
            ListedJob::Queued { device, .. } => (2, device.clone()),
            ListedJob::Resumable(summary) => (3, summary.device.clone()),
            ListedJob::Damaged { file } => (4, printable_path(file)),
            ListedJob::Ended(summary) => (5, summary.written.to_string()),
        });
        Ok(jobs)
    }

    /// Whether a process has claimed this disk, and waits to begin with it.
    pub fn is_waiting(&self, identity: &Identity) -> bool {
        name_of(identity).is_some_and(|name| matches!(self.lock_state(&name), LockState::Waiting))
    }

    /// A lock whose status cannot be read is a lock: its process has not written one yet. What cannot be
    /// opened as a lock (a link or a folder in its place) no process holds.
    fn lock_state(&self, name: &str) -> LockState {
        for read in 0..LIVE_READS_MAX {
            if read > 0 {
                thread::sleep(LIVE_READ_AGAIN);
            }
            let status = match self.read_running(name) {
                Ok(None) | Err(_) => return LockState::Free,
                Ok(Some(bytes)) => serde_json::from_slice::<LiveStatus>(&bytes).ok(),
            };
            match status {
                Some(live) if live.step == 0 => return LockState::Waiting,
                Some(live) => return LockState::Working(live),
                None => {}
            }
        }
        LockState::Waiting
    }
}

/// What the lock of a disk's journal says.
enum LockState {
    Free,
    Waiting,
    Working(LiveStatus),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Instant;

    use super::super::tests::{begin, disk};
    use super::*;

    fn states(folder: &JournalStore) -> Vec<String> {
        folder.jobs().unwrap().iter().map(state_in_json).collect()
    }

    fn state_in_json(job: &ListedJob) -> String {
        let json = serde_json::to_value(job).unwrap();
        assert_eq!(json["state"], job.state());
        json["state"].as_str().unwrap().into()
    }

    /// Where the kernel knows one device of 1 MiB, of this name in /dev/mapper.
    fn tree_with(root: &Path, name: &str) -> Tree {
        let block = root.join(format!("sys/class/block/mapper!{name}"));
        for folder in [&block, &root.join("sys/dev/block"), &root.join("dev/mapper")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(root.join("dev/mapper").join(name), "").unwrap();
        std::fs::write(block.join("dev"), "253:1\n").unwrap();
        std::fs::write(block.join("size"), "2048\n").unwrap();
        let link = format!("../../class/block/mapper!{name}");
        symlink(link, root.join("sys/dev/block/253:1")).unwrap();
        let mut tree = Tree::real();
        (tree.sys, tree.dev) = (root.join("sys"), root.join("dev"));
        tree
    }

    #[test]
    fn a_volume_without_a_job_is_queued_behind_those_that_a_process_has() {
        let (path, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = JournalStore::open(path.path()).unwrap();
        let tree = tree_with(root.path(), "vg-efface--deleted--1");
        let listed = || {
            let mut jobs = folder.jobs().unwrap();
            ListedJob::add_queued(&mut jobs, &tree).unwrap();
            jobs
        };
        let states = || listed().iter().map(state_in_json).collect::<Vec<_>>();
        assert_eq!(states(), ["queued"]);
        let _waiting = begin(&folder, &disk("/dev/sda", Some("Z1")), false).unwrap().unwrap();
        let other = begin(&folder, &disk("/dev/sdb", Some("Z2")), false).unwrap().unwrap();
        other.journal.end(Verdict::Interrupted);
        assert_eq!(states(), ["waiting", "queued", "resumable"]);
        let ListedJob::Queued { device, size_bytes } = listed().remove(1) else { panic!("it is queued") };
        assert_eq!((device.as_str(), size_bytes), ("/dev/mapper/vg-efface--deleted--1", Some(1 << 20)));
        let mine = disk(&device, Some("Z3"));
        let begun = begin(&folder, &mine, false).unwrap().unwrap();
        assert_eq!(states(), ["waiting", "waiting", "resumable"], "a process has it");
        begun.journal.end(Verdict::Interrupted);
        assert_eq!(states(), ["waiting", "resumable", "resumable"], "it was begun");
        begin(&folder, &mine, true).unwrap().unwrap().journal.end(Verdict::Residue);
        assert_eq!(states(), ["waiting", "queued", "resumable", "ended"], "it waits for the next try");
    }

    #[test]
    fn the_size_of_a_queued_volume_that_cannot_be_read_is_unknown_and_not_zero() {
        let (path, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = tree_with(root.path(), "vg-efface--deleted--1");
        std::fs::remove_file(root.path().join("sys/class/block/mapper!vg-efface--deleted--1/size")).unwrap();
        let mut jobs = JournalStore::open(path.path()).unwrap().jobs().unwrap();
        ListedJob::add_queued(&mut jobs, &tree).unwrap();
        let listed = serde_json::to_value(&jobs[0]).unwrap();
        assert_eq!(listed["size_bytes"], serde_json::Value::Null, "{listed}");
    }

    #[test]
    fn a_locked_journal_is_never_resumable_or_ended() {
        let path = tempfile::tempdir().unwrap();
        let folder = JournalStore::open(path.path()).unwrap();
        let started = begin(&folder, &disk("/dev/sda", Some("Z1")), false).unwrap().unwrap();
        assert_eq!(states(&folder), ["waiting"], "its process has written no status yet");
        let mut status = JobStatus::new("/dev/sda");
        started.journal.show(&status);
        assert_eq!(states(&folder), ["waiting"], "it waits for a slot");
        status.step = 1;
        started.journal.show(&status);
        assert_eq!(states(&folder), ["running"]);
        started.journal.end(Verdict::Interrupted);
        assert_eq!(states(&folder), ["resumable"]);
        let name = folder.names().unwrap().remove(0);
        let lock = folder.lock(&name, Instant::now()).unwrap().unwrap();
        lock.lock().file().write_all_at(b"{\"pid\": 1", 0).unwrap();
        assert_eq!(states(&folder), ["waiting"], "its status is half written");
        drop(lock);
        let left = LiveStatus { step: 1, ..LiveStatus::of(&status) };
        let left = serde_json::to_vec(&left).unwrap();
        std::fs::write(path.path().join(format!("{name}.running")), left).unwrap();
        assert_eq!(states(&folder), ["resumable"], "a process was killed");
        let _started = begin(&folder, &disk("/dev/sda", Some("Z1")), true).unwrap().unwrap();
        assert_eq!(states(&folder), ["waiting"], "the status is that of the killed process");
    }
}
