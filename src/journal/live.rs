//! What `efface jobs` shows: the state that a running job writes once a second, and the wipes that are
//! not running.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::store::{JournalStore, Running, StoredEntry};
use crate::engine::status::JobStatus;
use crate::printable::printable_path;
use crate::verdict::Verdict;

/// It is written in place, and may be read while it is half written.
const LIVE_READS_MAX: usize = 10;

/// The state of a running job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveStatus {
    pub pid: u32,
    pub device: String,
    /// From 1; 0 while it waits.
    pub step: usize,
    pub steps: usize,
    pub act: String,
    /// Of all steps together.
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub unusable_bytes: u64,
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
            act: state.act.clone(),
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
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

/// What `efface jobs` shows of one disk.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ListedJob {
    Running(LiveStatus),
    Resumable(Summary),
    Ended(Summary),
    Damaged { file: PathBuf },
}

/// A wipe that is not running.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub device: String,
    pub disk: BTreeMap<String, String>,
    pub method: String,
    /// `None` where it cannot be resumed.
    pub progress: Option<String>,
    pub begun: Timestamp,
    pub written: Timestamp,
    pub verdict: Option<Verdict>,
}

impl Summary {
    fn of(entry: &Entry) -> Summary {
        Summary {
            device: entry.device.clone(),
            disk: entry.disk.clone(),
            method: entry.plan.method.clone(),
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
            if let Some(live) = self.live(name) {
                return Some(ListedJob::Running(live));
            }
            match self.read(name) {
                StoredEntry::Nothing => None,
                StoredEntry::Damaged(_) => Some(ListedJob::Damaged { file: self.path_of(name) }),
                StoredEntry::Entry(entry) if entry.is_resumable() => {
                    Some(ListedJob::Resumable(Summary::of(&entry)))
                }
                StoredEntry::Entry(entry) => Some(ListedJob::Ended(Summary::of(&entry))),
            }
        };
        let mut jobs: Vec<ListedJob> = self.names()?.iter().filter_map(job).collect();
        jobs.sort_by_key(|job| match job {
            ListedJob::Running(live) => (0, live.device.clone()),
            ListedJob::Resumable(summary) => (1, summary.device.clone()),
            ListedJob::Damaged { file } => (2, printable_path(file)),
            ListedJob::Ended(summary) => (3, summary.written.to_string()),
        });
        Ok(jobs)
    }

    /// The state of a running job.
    fn live(&self, name: &str) -> Option<LiveStatus> {
        let mut reads = (0..LIVE_READS_MAX).map_while(|_| self.read_running(name));
        reads.find_map(|bytes| serde_json::from_slice(&bytes).ok())
    }
}
