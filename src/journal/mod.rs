//! What survives a crash: how far each wipe is, in a folder that is never on the device.
//!
//! The journal of a disk is named after what the disk is, never after its path. It is replaced whole
//! after each epoch and each step, behind the flush; its first line is the HMAC of the rest, by a key
//! that only its owner reads (`journal.key`). A damaged journal costs the progress, and no more: what it
//! says is believed only where nothing can have been written since.

mod entry;
mod key;
mod live;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

pub use self::entry::Entry;
use self::entry::{Circumstances, this_process};
use self::key::Key;
pub use self::live::{Job, Live, Summary};
pub use self::store::Folder;
use self::store::Kept;
use crate::device::WriteCounter;
use crate::device::identity::Identity;
use crate::directory::Lock;
use crate::engine::fleet::Keep;
use crate::engine::job::{Progress, Resume};
use crate::engine::status::State;
use crate::error::Result;
use crate::plan::Plan;
use crate::verdict::Verdict;

/// The disk and the work that a journal is about.
pub struct Subject<'a> {
    pub device: &'a Path,
    pub identity: &'a Identity,
    pub counter: Option<WriteCounter>,
    /// The work, without what is drawn for each run.
    pub outline: Vec<String>,
}

/// The journal of one job, open.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Open>>);

struct Open {
    folder: Folder,
    name: String,
    entry: Entry,
    identity: Identity,
    counter: Option<WriteCounter>,
    running: Lock,
    /// A write has failed, and a warning has said so.
    broken: bool,
}

/// A job with its journal, and what an earlier process left of it.
pub struct Begun {
    pub journal: Journal,
    pub plan: Plan,
    pub resume: Option<Resume>,
}

impl Folder {
    /// Opens the journal of a disk. With `resume` the job goes on where an earlier wipe ended, if there
    /// is one; else it starts over. `None` for a disk without marks of its own, and where no journal can
    /// be kept.
    ///
    /// # Errors
    /// What is to be resumed is other work, or was another disk.
    pub fn begin(&self, subject: Subject, plan: &Plan, resume: bool) -> Result<Option<Begun>> {
        let Some(fresh) = Entry::begin(&subject, plan) else { return Ok(None) };
        if let Err(error) = Key::open(&self.0) {
            no_journal(&fresh.device, &error);
            return Ok(None);
        }
        let earlier = self.earlier(&fresh, resume)?;
        let name = fresh.name();
        let Ok(running) = self.lock(&name).inspect_err(|error| no_journal(&fresh.device, error)) else {
            return Ok(None);
        };
        // Until the job has read the disk, the circumstances are those that the earlier process wrote.
        let resume = earlier.as_ref().map(|earlier| Resume {
            progress: earlier.progress.clone(),
            believed: earlier.closed.prove_unwritten_until(&fresh.closed),
            earlier: earlier.process.clone(),
            now: this_process(),
        });
        let entry = match earlier {
            Some(earlier) => earlier.resumed_at(fresh.device),
            None => fresh,
        };
        let (identity, counter) = (subject.identity.clone(), subject.counter);
        let plan = entry.plan.clone();
        let mut open = Open { folder: self.clone(), name, entry, identity, counter, running, broken: false };
        open.write_as_it_was();
        Ok(Some(Begun { journal: Journal(Arc::new(Mutex::new(open))), plan, resume }))
    }

    /// The earlier wipe that is to be resumed.
    fn earlier(&self, fresh: &Entry, resume: bool) -> Result<Option<Entry>> {
        let device = &fresh.device;
        match self.read(&fresh.name()) {
            Kept::Entry(earlier) if earlier.is_resumable() => {
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
            Kept::Entry(_) | Kept::Nothing => {}
            Kept::Damaged(why) => tracing::warn!("{device}: its journal is damaged ({why}): it starts over"),
        }
        if resume {
            if let Some(other) = self.other_disk_at(device, &fresh.name()) {
                fresh.refuse_other_disk(&other)?;
            }
            tracing::info!("{device}: there is nothing to resume: it starts over");
        }
        Ok(None)
    }
}

/// Warns that a wipe goes on without a journal.
pub fn no_journal(device: &str, why: &dyn std::fmt::Display) {
    tracing::warn!("{device}: no journal can be kept ({why}): if it is interrupted, it has to start over");
}

impl Journal {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the job: writes its progress.
    pub fn keeper(&self) -> Keep {
        let journal = self.clone();
        Box::new(move |progress| {
            let mut open = journal.open();
            open.entry.progress = progress.clone();
            open.write();
        })
    }

    /// Writes the live state for `efface jobs`.
    pub fn show(&self, state: &State) {
        live::write(&self.open().running, state)
            .unwrap_or_else(|error| tracing::debug!("efface jobs shows no state: {error}"));
    }

    /// The job has ended; whether it can be resumed.
    pub fn end(&self, verdict: Verdict) -> bool {
        let mut open = self.open();
        open.entry.verdict = Some(verdict);
        let resumable = open.entry.is_resumable();
        if !resumable {
            open.entry.progress = Progress::default();
        }
        open.write_as_it_was();
        let pruned = open.folder.unlock(&open.name).and_then(|()| open.folder.prune());
        pruned.unwrap_or_else(|error| tracing::debug!("old journals are not removed: {error}"));
        resumable && !open.broken
    }
}

impl Open {
    /// Behind the flush, and before anything is written to the disk again.
    fn write(&mut self) {
        self.entry.closed = Circumstances::now(&self.identity, self.counter.as_ref());
        self.entry.process = this_process();
        self.write_as_it_was();
    }

    fn write_as_it_was(&mut self) {
        self.entry.written = Timestamp::now();
        if let Err(error) = self.folder.write(&self.name, &self.entry)
            && !std::mem::replace(&mut self.broken, true)
        {
            no_journal(&self.entry.device, &error);
        }
    }
}

#[cfg(test)]
mod tests {
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

    pub fn begin(folder: &Folder, identity: &Identity, resume: bool) -> Result<Option<Begun>> {
        let device = Device { size: 1 << 20, logical_block: 512, physical_block: 4096 };
        let method = Method::named("random").unwrap();
        let area = device.area(None, None).unwrap();
        let mut draw = crate::pattern::Seed::from_kernel;
        let plan = Plan::new(&method, Policy::None, area, &device, &mut draw).unwrap();
        let outline = plan.outline(&method);
        let subject = Subject { device: &identity.path, identity, counter: None, outline };
        folder.begin(subject, &plan, resume)
    }

    #[test]
    fn a_disk_at_another_path_is_resumed_by_its_serial_number() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path()).unwrap();
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
        let folder = Folder::at(folder.path()).unwrap();
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
        assert!(begin(&Folder::at(folder.path()).unwrap(), &disk("/dev/sda", None), true).unwrap().is_none());
    }
}
