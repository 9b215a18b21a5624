//! What survives a crash: how far each wipe has come, in a folder that is never on the device.
//!
//! Two files a disk, named after what the disk is and never after its path. `KEY.journal` is replaced
//! whole after each epoch and each step, behind the flush; its first line is the HMAC of the rest, by
//! a key that only its owner reads (`journal.key`).
//! `KEY.running` is locked as long as the job runs, so that the lock dies with it, and holds its live
//! state. A journal that is damaged costs the progress, never the truth.

mod key;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::key::Key;
use crate::device::identity::{Identity, Kind};
use crate::device::{Tree, WriteCounter};
use crate::digest::sha256;
use crate::directory::{Directory, Lock, MODE_PRIVATE};
use crate::engine::fleet::Keep;
use crate::engine::job::{Process, Progress, Resume};
use crate::engine::status::State;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::printable::printable_path;
use crate::verdict::Verdict;

/// Another version may mean something else.
const VERSION: u32 = 3;
/// Longer ones are none of ours.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What a job that runs says of itself is a line.
const LIVE_BYTES_MAX: u64 = 64 << 10;
const MODE_OF_DIRECTORY: u32 = 0o700;
/// Of the wipes that have ended so many stay listed.
const ENDED_MAX: usize = 100;

/// What a journal says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    efface_journal: u32,
    /// What the disk is.
    disk: BTreeMap<String, String>,
    /// What it was called.
    pub device: String,
    /// The work by its outline: what a command that resumes it has to ask for again.
    outline: Vec<String>,
    plan: Plan,
    pub begun: Timestamp,
    pub written: Timestamp,
    /// How things were when this was written.
    closed: Circumstances,
    /// Whose work the progress is.
    process: Process,
    progress: Progress,
    /// None as long as it runs, or where it was killed.
    pub verdict: Option<Verdict>,
}

/// Where all of these are known and the same, nobody has written to the disk in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Circumstances {
    boot_id: String,
    disk_sequence: Option<u64>,
    /// None where others can write past the disk's counter.
    written_bytes: Option<u64>,
}

impl Circumstances {
    fn now(identity: &Identity, counter: Option<&WriteCounter>) -> Circumstances {
        Circumstances {
            boot_id: Tree::real().boot_id(),
            disk_sequence: identity.disk_sequence,
            written_bytes: counter
                .filter(|_| counts_every_write(&Tree::real(), identity))
                .and_then(WriteCounter::changed_bytes),
        }
    }

    fn proves_the_same(&self, now: &Circumstances) -> bool {
        let known = !self.boot_id.is_empty() && self.disk_sequence.is_some() && self.written_bytes.is_some();
        known && self == now
    }
}

/// Whether all writes to a disk go through this kernel, and so through its counter: not so of a loop's
/// file, of what lies below a mapping, of a disk that several hosts can reach (FC, iSCSI, NVMe over
/// fabrics or with several controllers, SAS with its two ports), and of any disk of a virtual machine,
/// whose host can write to it.
fn counts_every_write(tree: &Tree, identity: &Identity) -> bool {
    let alone = match identity.transport.as_deref() {
        Some("sata" | "usb" | "mmc") => true,
        Some("nvme") => identity.number.is_some_and(|number| {
            let folder = tree.sys.join(format!("dev/block/{number}")).canonicalize().unwrap_or_default();
            let is_in = |name: &str| folder.components().any(|component| component.as_os_str() == name);
            is_in("nvme") && !is_in("virtual")
        }),
        _ => false,
    };
    alone && identity.physical && matches!(identity.kind, Kind::Disk | Kind::Partition)
}

fn this_process() -> Process {
    Process { pid: std::process::id(), boot_id: Tree::real().boot_id() }
}

impl Entry {
    /// Whether another process may go on with it.
    pub fn is_resumable(&self) -> bool {
        matches!(self.verdict, None | Some(Verdict::Failed | Verdict::Interrupted | Verdict::Terminated))
    }

    /// `step 2 of 4, overwrite random, to byte 4294967296`
    pub fn describe(&self) -> String {
        let steps = self.plan.steps.len();
        let done = self.progress.steps.len();
        match &self.progress.running {
            Some(running) => {
                let upto = running.covered.extents.iter().last().map_or(0, |last| last.end);
                format!("step {} of {steps}, {}, to byte {upto}", done + 1, running.step)
            }
            None => format!("{done} of {steps} steps"),
        }
    }
}

/// What a job that runs says of itself, once a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
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
    /// None until something is done.
    pub seconds_left: Option<u64>,
}

impl Live {
    fn of(state: &State) -> Live {
        let (done, elapsed) = (state.done_before + state.done, state.started.elapsed().as_secs_f64());
        let left = state.total.saturating_sub(done) as f64;
        Live {
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

/// The folder with the journals.
#[derive(Clone, Debug)]
pub struct Folder(Directory);

/// What `efface jobs` shows of one disk.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Job {
    Running(Live),
    Resumable(Summary),
    Ended(Summary),
    Damaged { file: PathBuf },
}

#[derive(Debug, Serialize)]
pub struct Summary {
    pub device: String,
    pub disk: BTreeMap<String, String>,
    pub method: String,
    /// Of one that could go on.
    pub progress: Option<String>,
    pub begun: Timestamp,
    pub written: Timestamp,
    pub verdict: Option<Verdict>,
}

/// What was kept of an earlier wipe of a disk.
enum Kept {
    Nothing,
    Damaged(String),
    Entry(Box<Entry>),
}

impl Folder {
    /// One that is there.
    pub fn at(path: &Path) -> io::Result<Folder> {
        Directory::trusted(path).map(Folder)
    }

    /// Makes it, where it is not there.
    pub fn open(path: &Path) -> io::Result<Folder> {
        Directory::make_all(path, MODE_OF_DIRECTORY).map(Folder)
    }

    fn keys(&self) -> io::Result<Vec<String>> {
        let names = self.0.names()?.into_iter();
        let mut keys: Vec<String> =
            names.filter_map(|name| Some(name.strip_suffix(".journal")?.into())).collect();
        keys.sort();
        Ok(keys)
    }

    fn read(&self, key: &str) -> Kept {
        let text = match self.0.read(journal(key), FILE_BYTES_MAX) {
            Ok(None) => return Kept::Nothing,
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let entry = text.and_then(|text| self.decode(key, &text));
        entry.map_or_else(Kept::Damaged, |entry| Kept::Entry(Box::new(entry)))
    }

    /// The state of a job that runs: while it does, its file is locked.
    fn live(&self, key: &str) -> Option<Live> {
        let look = || self.0.read_locked(&running(key), LIVE_BYTES_MAX).ok().flatten();
        // It is written in place: another look, where it was looked at in between.
        (0..10).map_while(|_| look()).find_map(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// All wipes that are known here, those that run first.
    pub fn jobs(&self) -> io::Result<Vec<Job>> {
        let job = |key: &String| {
            if let Some(live) = self.live(key) {
                return Some(Job::Running(live));
            }
            match self.read(key) {
                Kept::Nothing => None,
                Kept::Damaged(_) => Some(Job::Damaged { file: self.0.path_of(journal(key)) }),
                Kept::Entry(entry) if entry.is_resumable() => Some(Job::Resumable(Summary::of(&entry))),
                Kept::Entry(entry) => Some(Job::Ended(Summary::of(&entry))),
            }
        };
        let mut jobs: Vec<Job> = self.keys()?.iter().filter_map(job).collect();
        jobs.sort_by_key(|job| match job {
            Job::Running(live) => (0, live.device.clone()),
            Job::Resumable(summary) => (1, summary.device.clone()),
            Job::Damaged { file } => (2, printable_path(file)),
            Job::Ended(summary) => (3, summary.written.to_string()),
        });
        Ok(jobs)
    }

    /// Forgets the oldest of those that have ended.
    fn prune(&self) -> io::Result<()> {
        let ended = |key: &String| match self.read(key) {
            Kept::Entry(entry) if !entry.is_resumable() => Some((entry.written, key.clone())),
            _ => None,
        };
        let mut ended: Vec<(Timestamp, String)> = self.keys()?.iter().filter_map(ended).collect();
        ended.sort();
        let old = ended.len().saturating_sub(ENDED_MAX);
        ended.iter().take(old).try_for_each(|(_, key)| self.0.remove(journal(key)))
    }

    /// An unfinished wipe of another disk that was called the same.
    fn other_disk_at(&self, device: &str, key: &str) -> Option<Entry> {
        let keys = self.keys().unwrap_or_default();
        keys.iter().filter(|other| *other != key).find_map(|other| match self.read(other) {
            Kept::Entry(entry) if entry.device == device && entry.is_resumable() => Some(*entry),
            _ => None,
        })
    }
}

fn journal(key: &str) -> String {
    format!("{key}.journal")
}

fn running(key: &str) -> String {
    format!("{key}.running")
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

impl Folder {
    fn decode(&self, key: &str, text: &str) -> std::result::Result<Entry, String> {
        let (seal, rest) = text.split_once('\n').ok_or("it ends early")?;
        if !Key::read(&self.0).map_err(|error| error.to_string())?.fits(seal, rest.as_bytes()) {
            return Err("its seal is wrong: it was changed, or written with another key".into());
        }
        let entry: Entry = serde_json::from_str(rest).map_err(|error| error.to_string())?;
        if entry.efface_journal != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", entry.efface_journal));
        }
        if name_of(&entry.disk) != key {
            return Err("it is another disk's".into());
        }
        Ok(entry)
    }

    fn encode(&self, entry: &Entry) -> io::Result<String> {
        let json = serde_json::to_string(entry).map_err(io::Error::other)?;
        Ok(format!("{}\n{json}", Key::open(&self.0)?.seal(json.as_bytes())))
    }
}

/// What the files of a disk are called.
fn name_of(disk: &BTreeMap<String, String>) -> String {
    sha256(format!("{disk:?}").as_bytes())[..32].to_string()
}

/// What a journal is about.
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
    key: String,
    entry: Entry,
    identity: Identity,
    counter: Option<WriteCounter>,
    running: Lock,
    /// It was told that nothing can be kept.
    broken: bool,
}

/// A job with its journal, and what an earlier process left of it.
pub struct Begun {
    pub journal: Journal,
    pub plan: Plan,
    pub resume: Option<Resume>,
}

impl Folder {
    /// Opens the journal of a disk: goes on where an earlier wipe ended, if that is asked for and
    /// there is one, else begins anew. None of a disk that has no name of its own.
    pub fn begin(&self, subject: Subject, plan: &Plan, resume: bool) -> Result<Option<Begun>> {
        let (Some(marks), None) = (subject.identity.enduring(), &plan.keys) else { return Ok(None) };
        let disk: BTreeMap<String, String> =
            marks.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let key = name_of(&disk);
        let device = printable_path(subject.device);
        let closed = Circumstances::now(subject.identity, subject.counter.as_ref());
        let fresh = Entry {
            efface_journal: VERSION,
            disk,
            device,
            outline: subject.outline,
            plan: plan.clone(),
            begun: Timestamp::now(),
            written: Timestamp::now(),
            closed,
            process: this_process(),
            progress: Progress::default(),
            verdict: None,
        };
        if let Err(error) = Key::open(&self.0) {
            no_journal(&fresh.device, &error);
            return Ok(None);
        }
        let earlier = match self.read(&key) {
            Kept::Entry(entry) if entry.is_resumable() => Some(*entry),
            Kept::Entry(_) | Kept::Nothing => None,
            Kept::Damaged(why) => {
                tracing::warn!("{}: its journal is damaged ({why}): it begins anew", fresh.device);
                None
            }
        };
        let (entry, believed) = match earlier {
            Some(earlier) if resume => {
                fresh.suits(&earlier)?;
                let believed = earlier.closed.proves_the_same(&fresh.closed);
                (Entry { verdict: None, device: fresh.device, ..earlier }, Some(believed))
            }
            Some(earlier) => {
                let (device, how) = (&fresh.device, earlier.describe());
                tracing::warn!(
                    "{device}: an earlier wipe of it ended at {how}; this one begins anew (--resume goes on)"
                );
                (fresh, None)
            }
            None if resume => {
                fresh.refuse_another(self, &key)?;
                tracing::info!("{}: there is nothing to resume: it begins anew", fresh.device);
                (fresh, None)
            }
            None => (fresh, None),
        };
        let Some(running) = self.lock(&key, &entry.device) else { return Ok(None) };
        // What was true when the earlier process wrote it is all that counts, until the job has looked.
        let (identity, counter) = (subject.identity.clone(), subject.counter);
        let resume = believed.map(|believed| Resume {
            progress: entry.progress.clone(),
            believed,
            earlier: entry.process.clone(),
            now: this_process(),
        });
        let plan = entry.plan.clone();
        let mut open = Open { folder: self.clone(), key, entry, identity, counter, running, broken: false };
        open.write_as_it_was();
        Ok(Some(Begun { journal: Journal(Arc::new(Mutex::new(open))), plan, resume }))
    }

    fn lock(&self, key: &str, device: &str) -> Option<Lock> {
        let locked = self
            .0
            .lock(running(key))
            .and_then(|lock| lock.ok_or_else(|| io::Error::other("another process keeps one of this disk")));
        locked.map_err(|error| no_journal(device, &error)).ok()
    }
}

/// No reason not to wipe.
pub fn no_journal(device: &str, why: &dyn std::fmt::Display) {
    tracing::warn!("{device}: no journal can be kept ({why}): if it is interrupted, it has to begin anew");
}

impl Entry {
    /// Whether an earlier wipe is of the same work.
    fn suits(&self, earlier: &Entry) -> Result<()> {
        if earlier.outline == self.outline && earlier.plan.area == self.plan.area {
            return Ok(());
        }
        let told = |entry: &Entry| format!("bytes {}: {}", entry.plan.area, entry.outline.join("; "));
        let what = format!("what is to be resumed is other work: {}; not {}", told(earlier), told(self));
        Err(Error::refused(what).way_out("give the options of then, or begin anew without --resume"))
    }

    fn refuse_another(&self, folder: &Folder, key: &str) -> Result<()> {
        let Some(other) = folder.other_disk_at(&self.device, key) else { return Ok(()) };
        let told = |disk: &BTreeMap<String, String>| {
            disk.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
        };
        let what = format!(
            "it is another disk than the one whose wipe ended early here: {}; not {}",
            told(&self.disk),
            told(&other.disk)
        );
        Err(Error::refused(what).way_out(
            "see which disk is which (efface list), and begin anew without --resume if it is this one",
        ))
    }
}

impl Journal {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the job: keeps how far it is.
    pub fn keeper(&self) -> Keep {
        let journal = self.clone();
        Box::new(move |progress| {
            let mut open = journal.open();
            open.entry.progress = progress.clone();
            open.write();
        })
    }

    /// For `efface jobs`.
    pub fn tell(&self, state: &State) {
        let text = serde_json::to_string(&Live::of(state)).unwrap_or_default() + "\n";
        let open = self.open();
        let file = open.running.file();
        let written = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        written.unwrap_or_else(|error| tracing::debug!("efface jobs is not told: {error}"));
    }

    /// The job has ended; says whether another can go on from here.
    pub fn end(&self, verdict: Verdict) -> bool {
        let mut open = self.open();
        open.entry.verdict = Some(verdict);
        let resumable = open.entry.is_resumable();
        if !resumable {
            open.entry.progress = Progress::default();
        }
        open.write_as_it_was();
        let pruned = open.folder.0.remove(running(&open.key)).and_then(|()| open.folder.prune());
        pruned.unwrap_or_else(|error| tracing::debug!("the journals are not tidied up: {error}"));
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
        let text = self.folder.encode(&self.entry);
        let written =
            text.and_then(|text| self.folder.0.replace(journal(&self.key), text.as_bytes(), MODE_PRIVATE));
        if let Err(error) = written
            && !std::mem::replace(&mut self.broken, true)
        {
            no_journal(&self.entry.device, &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plan::{Device, Method, Policy};

    /// A disk with this serial number, found here.
    fn disk(node: &str, serial: Option<&str>) -> Identity {
        serde_json::from_value(serde_json::json!({
            "path": node, "node": node, "kind": "disk", "size_bytes": 1 << 20, "serial": serial,
            "disk_sequence": 7
        }))
        .unwrap()
    }

    fn begin(folder: &Folder, identity: &Identity, resume: bool) -> Result<Option<Begun>> {
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
    fn a_disk_that_comes_back_under_another_name_is_known_by_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path()).unwrap();
        let first = begin(&folder, &disk("/dev/sda", Some("Z1")), true).unwrap().unwrap();
        assert!(first.resume.is_none());
        first.journal.end(Verdict::Interrupted);
        let again = begin(&folder, &disk("/dev/sdb", Some("Z1")), true).unwrap().unwrap();
        assert!(again.resume.is_some() && again.plan == first.plan, "the same seed goes on");
        again.journal.end(Verdict::Wiped);
        let anew = begin(&folder, &disk("/dev/sdb", Some("Z1")), true).unwrap().unwrap();
        assert!(anew.resume.is_none() && anew.plan != first.plan, "what has ended is not resumed");
    }

    #[test]
    fn another_disk_under_the_same_name_is_refused() {
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
    fn a_disk_without_a_name_of_its_own_has_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        assert!(begin(&Folder::at(folder.path()).unwrap(), &disk("/dev/sda", None), true).unwrap().is_none());
    }

    #[test]
    fn only_the_same_boot_disk_and_count_prove_that_nobody_wrote() {
        let now = Circumstances::now(&disk("/dev/sda", None), None);
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!((now.boot_id.as_str(), now.disk_sequence), (boot_id.trim(), Some(7)));
        assert!(!now.proves_the_same(&now), "nothing was counted");

        let then = Circumstances { written_bytes: Some(512), ..now };
        assert!(then.proves_the_same(&then.clone()));
        let but = |change: fn(&mut Circumstances)| {
            let mut other = then.clone();
            change(&mut other);
            other
        };
        let unknown = [
            but(|other| other.boot_id.clear()),
            but(|other| other.disk_sequence = None),
            but(|other| other.written_bytes = None),
        ];
        assert!(unknown.iter().all(|other| !other.proves_the_same(&other.clone())));
        let changed = [
            but(|other| other.boot_id.push('0')),
            but(|other| other.disk_sequence = Some(8)),
            but(|other| other.written_bytes = Some(1024)),
        ];
        assert!(changed.iter().all(|other| !then.proves_the_same(other)));
    }

    #[test]
    fn a_journal_of_another_version_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = Folder::at(folder.path()).unwrap();
        let begun = begin(&at, &disk("/dev/sda", Some("Z1")), false).unwrap().unwrap();
        let (entry, name) = {
            let open = begun.journal.open();
            (serde_json::to_string(&open.entry).unwrap(), open.key.clone())
        };
        let key = Key::read(&at.0).unwrap();
        let read = |entry: &str| at.decode(&name, &format!("{}\n{entry}", key.seal(entry.as_bytes())));
        assert!(read(&entry).is_ok());
        let error = read(&entry.replace("\"efface_journal\":3", "\"efface_journal\":4")).unwrap_err();
        assert!(error.contains("version 4"), "{error}");
        let error = read(&entry.replace("Z1", "Z2")).unwrap_err();
        assert!(error.contains("another disk's"), "{error}");
        let hash = sha256(entry.as_bytes());
        for text in [format!("{hash}\n{entry}"), entry.clone(), format!("\n{entry}")] {
            assert!(at.decode(&name, &text).is_err(), "who has no key can compute no seal");
        }
    }

    /// A tree with one disk of this sysfs path.
    fn tree_of(path: &str) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().canonicalize().unwrap().join("sys");
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        fs::create_dir_all(sys.join(path)).unwrap();
        std::os::unix::fs::symlink(sys.join(path), sys.join("dev/block/259:0")).unwrap();
        let mut tree = Tree::real();
        tree.sys = sys;
        (root, tree)
    }

    #[test]
    fn only_the_counter_of_a_drive_of_this_host_alone_counts_every_write() {
        let (_root, pcie) = tree_of("devices/pci0000:00/0000:00:1d.0/nvme/nvme0/nvme0n1");
        let identity = |kind: &str, transport: Option<&str>| -> Identity {
            serde_json::from_value(serde_json::json!({
                "path": "/dev/x", "node": "/dev/x", "kind": kind, "number": "259:0", "size_bytes": 1 << 20,
                "transport": transport, "physical": true
            }))
            .unwrap()
        };
        for transport in ["sata", "usb", "mmc", "nvme"] {
            assert!(counts_every_write(&pcie, &identity("disk", Some(transport))), "{transport}");
            assert!(counts_every_write(&pcie, &identity("partition", Some(transport))), "{transport}");
        }
        for kind in ["loop", "device_mapper", "md", "image"] {
            assert!(!counts_every_write(&pcie, &identity(kind, Some("sata"))), "{kind}");
        }
        for transport in
            [None, Some("virtio"), Some("xen"), Some("fc"), Some("iscsi"), Some("sas"), Some("new")]
        {
            assert!(!counts_every_write(&pcie, &identity("disk", transport)), "{transport:?}");
        }
        for path in [
            "devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1",
            "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
        ] {
            let (_root, tree) = tree_of(path);
            assert!(!counts_every_write(&tree, &identity("disk", Some("nvme"))), "{path}");
        }
        let virtual_one = Identity { physical: false, ..identity("disk", Some("sata")) };
        assert!(!counts_every_write(&pcie, &virtual_one), "in a virtual machine");
    }

    #[test]
    fn only_the_newest_of_those_that_have_ended_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path()).unwrap();
        for number in 0..ENDED_MAX + 5 {
            let disk = disk("/dev/sda", Some(&number.to_string()));
            begin(&folder, &disk, false).unwrap().unwrap().journal.end(Verdict::Wiped);
        }
        assert_eq!(folder.jobs().unwrap().len(), ENDED_MAX);
    }
}
