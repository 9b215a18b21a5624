//! What a journal holds of one wipe or purge, and when another process may trust it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::JournalSubject;
use super::key::SealKey;
use crate::device::identity::{DeviceKind, Identity};
use crate::device::purge_scope::{PurgeScope, Reach, SubsystemKey};
use crate::device::{Tree, WriteCounter};
use crate::digest::sha256;
use crate::engine::job::{Checkpoint, JobProcess};
use crate::engine::purge::job::PurgeCheckpoint;
use crate::engine::purge::report::PurgeReport;
use crate::error::{Error, Result};
use crate::plan::{PURGE, Plan, PurgePolicy};
use crate::printable::printable_path;
use crate::verdict::Verdict;

/// The fields of another version may mean something else.
const VERSION: u32 = 4;

/// The content of a journal: one wipe of one disk, or one purge of one drive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    efface_journal: u32,
    /// What the disk is, by the marks that stay the same under any path.
    pub(super) disk: BTreeMap<String, String>,
    /// The path that the disk had.
    pub device: String,
    pub begun: Timestamp,
    pub written: Timestamp,
    /// The process that made this progress.
    pub(super) process: JobProcess,
    /// `None` while the job runs, and where it was killed.
    pub verdict: Option<Verdict>,
    pub(super) work: Work,
}

/// What is done to it, and how far that is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Wipe(Box<WipeWork>),
    Purge(Box<PurgeWork>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WipeWork {
    /// The outline of the work: the command that resumes it has to ask for the same.
    outline: Vec<String>,
    pub plan: Plan,
    /// The circumstances when `progress` was written.
    pub closed: DiskState,
    pub progress: Checkpoint,
}

/// A purge: of all that its commands reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeWork {
    pub scope: PurgeScope,
    pub reach: Reach,
    pub policy: PurgePolicy,
    /// `None` until a command is about to be sent, and once nothing is left to resume.
    pub checkpoint: Option<PurgeCheckpoint>,
    /// `None` until it has ended.
    pub report: Option<PurgeReport>,
}

/// Where all of these are known and unchanged, no process has written to the disk in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskState {
    boot_id: String,
    disk_sequence: Option<u64>,
    /// `None` where the disk's counter does not see every write.
    written_bytes: Option<u64>,
}

impl DiskState {
    pub fn now(identity: &Identity, counter: Option<&WriteCounter>) -> DiskState {
        DiskState {
            boot_id: Tree::real().boot_id(),
            disk_sequence: identity.disk_sequence,
            written_bytes: counter
                .filter(|_| counts_every_write(&Tree::real(), identity))
                .and_then(WriteCounter::changed_bytes),
        }
    }

    pub fn prove_unwritten_until(&self, now: &DiskState) -> bool {
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
    alone && identity.physical && matches!(identity.kind, DeviceKind::Disk | DeviceKind::Partition)
}

pub(super) fn this_process() -> JobProcess {
    JobProcess { pid: std::process::id(), boot_id: Tree::real().boot_id() }
}

fn owned(marks: BTreeMap<&'static str, String>) -> BTreeMap<String, String> {
    marks.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn name(disk: &BTreeMap<String, String>) -> String {
    sha256(format!("{disk:?}").as_bytes())[..32].to_string()
}

fn marks_of_drive(key: &SubsystemKey) -> BTreeMap<String, String> {
    let SubsystemKey { nqn, model, serial } = key;
    let marks = [("nqn", nqn.as_ref()), ("drive model", Some(model)), ("drive serial", Some(serial))];
    let known = marks.into_iter().filter_map(|(name, mark)| Some((name.to_string(), mark?.clone())));
    known.collect()
}

/// As [`Entry::name`], of a drive that may have no journal yet.
pub(super) fn name_of_drive(key: &SubsystemKey) -> String {
    name(&marks_of_drive(key))
}

/// As [`Entry::name`], of a disk that may have no journal yet.
pub(super) fn name_of(identity: &Identity) -> Option<String> {
    identity.enduring().map(|marks| name(&owned(marks)))
}

impl Entry {
    /// A wipe that has done nothing yet. `None` for a disk without marks of its own, and for a plan with
    /// keys.
    pub(super) fn begin(subject: &JournalSubject, plan: &Plan) -> Option<Entry> {
        let (Some(marks), None) = (subject.identity.enduring(), &plan.keys) else { return None };
        Some(Entry {
            efface_journal: VERSION,
            disk: owned(marks),
            device: printable_path(subject.device),
            begun: Timestamp::now(),
            written: Timestamp::now(),
            process: this_process(),
            verdict: None,
            work: Work::Wipe(Box::new(WipeWork {
                outline: subject.outline.clone(),
                plan: plan.clone(),
                closed: DiskState::now(subject.identity, subject.counter.as_ref()),
                progress: Checkpoint::default(),
            })),
        })
    }

    /// A purge that has sent nothing yet, of a drive with this key.
    pub(super) fn begin_purge(device: &Path, key: &SubsystemKey, work: PurgeWork) -> Entry {
        Entry {
            efface_journal: VERSION,
            disk: marks_of_drive(key),
            device: printable_path(device),
            begun: Timestamp::now(),
            written: Timestamp::now(),
            process: this_process(),
            verdict: None,
            work: Work::Purge(Box::new(work)),
        }
    }

    /// What is recorded as the method of the work.
    pub fn method(&self) -> &str {
        match &self.work {
            Work::Wipe(wipe) => &wipe.plan.method,
            Work::Purge(_) => PURGE,
        }
    }

    /// The wipe; `None` of a purge.
    pub(super) fn wipe(&self) -> Option<&WipeWork> {
        match &self.work {
            Work::Wipe(wipe) => Some(wipe),
            Work::Purge(_) => None,
        }
    }

    /// As [`Entry::wipe`].
    pub(super) fn wipe_mut(&mut self) -> Option<&mut WipeWork> {
        match &mut self.work {
            Work::Wipe(wipe) => Some(wipe),
            Work::Purge(_) => None,
        }
    }

    /// The purge; `None` of a wipe.
    pub(super) fn purge(&self) -> Option<&PurgeWork> {
        match &self.work {
            Work::Purge(purge) => Some(purge),
            Work::Wipe(_) => None,
        }
    }

    /// As [`Entry::purge`].
    pub(super) fn purge_mut(&mut self) -> Option<&mut PurgeWork> {
        match &mut self.work {
            Work::Purge(purge) => Some(purge),
            Work::Wipe(_) => None,
        }
    }

    /// What the files of the disk are called, without their extensions.
    pub(super) fn name(&self) -> String {
        name(&self.disk)
    }

    /// Whether another process may resume it.
    pub fn is_resumable(&self) -> bool {
        let unended =
            matches!(self.verdict, None | Some(Verdict::Failed | Verdict::Interrupted | Verdict::Terminated));
        unended && self.purge().is_none_or(|purge| purge.checkpoint.is_some())
    }

    /// Nothing of it is resumed any more.
    pub(super) fn forget_progress(&mut self) {
        match &mut self.work {
            Work::Wipe(wipe) => wipe.progress = Checkpoint::default(),
            Work::Purge(purge) => purge.checkpoint = None,
        }
    }

    /// The same wipe, which goes on under this path.
    pub(super) fn resumed_at(self, device: String) -> Entry {
        Entry { verdict: None, device, ..self }
    }

    /// `step 2 of 4, overwrite random, to byte 4294967296`
    pub fn describe(&self) -> String {
        let wipe = match &self.work {
            Work::Wipe(wipe) => wipe,
            Work::Purge(purge) => {
                let sent = purge.checkpoint.as_ref().map(|checkpoint| checkpoint.report.rung);
                return sent.map_or("nothing was sent".into(), |rung| format!("{rung} was sent"));
            }
        };
        let steps = wipe.plan.steps.len();
        let done = wipe.progress.steps.len();
        match &wipe.progress.running {
            Some(running) => {
                let upto = running.covered.extents.iter().last().map_or(0, |last| last.end);
                format!("step {} of {steps}, {}, to byte {upto}", done + 1, running.step)
            }
            None => format!("{done} of {steps} steps"),
        }
    }

    /// The content of the journal's file: a line with the HMAC of the rest, and the entry as JSON.
    pub(super) fn seal(&self, key: &SealKey) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{}\n{json}", key.seal(json.as_bytes())))
    }

    /// The entry in the file of this name.
    pub(super) fn unseal(text: &str, name: &str, key: &SealKey) -> std::result::Result<Entry, String> {
        let (seal, rest) = text.split_once('\n').ok_or("it ends early")?;
        if !key.fits(seal, rest.as_bytes()) {
            return Err("its seal is wrong: it was changed, or written with another key".into());
        }
        let entry: Entry = serde_json::from_str(rest).map_err(|error| error.to_string())?;
        if entry.efface_journal != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", entry.efface_journal));
        }
        if entry.name() != name {
            return Err("it is another disk's".into());
        }
        Ok(entry)
    }

    /// Refuses to resume an earlier wipe of other work.
    pub(super) fn refuse_other_work(&self, earlier: &Entry) -> Result<()> {
        let work = |entry: &Entry| {
            entry.wipe().map(|wipe| format!("bytes {}: {}", wipe.plan.area, wipe.outline.join("; ")))
        };
        let (earlier, own) = (work(earlier).unwrap_or_default(), work(self).unwrap_or_default());
        if earlier == own {
            return Ok(());
        }
        let what = format!("what is to be resumed is other work: {earlier}; not {own}");
        Err(Error::refused(what)
            .with_remedy("give the options of the earlier command, or start over without --resume"))
    }

    /// Refuses to resume where the unfinished wipe at this path was of another disk.
    pub(super) fn refuse_other_disk(&self, other: &Entry) -> Result<()> {
        let marks = |entry: &Entry| {
            entry.disk.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
        };
        let what = format!(
            "it is another disk than the one whose wipe ended early here: {}; not {}",
            marks(self),
            marks(other)
        );
        Err(Error::refused(what).with_remedy(
            "see which disk is which (efface list), and start over without --resume if it is this one",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::JournalStore;
    use super::super::tests::{begin, disk};
    use super::*;
    use crate::directory::Directory;

    #[test]
    fn only_the_same_boot_disk_and_count_prove_that_no_process_wrote() {
        let now = DiskState::now(&disk("/dev/sda", None), None);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!((now.boot_id.as_str(), now.disk_sequence), (boot_id.trim(), Some(7)));
        assert!(!now.prove_unwritten_until(&now), "nothing was counted");

        let then = DiskState { written_bytes: Some(512), ..now };
        assert!(then.prove_unwritten_until(&then.clone()));
        let but = |change: fn(&mut DiskState)| {
            let mut other = then.clone();
            change(&mut other);
            other
        };
        let unknown = [
            but(|other| other.boot_id.clear()),
            but(|other| other.disk_sequence = None),
            but(|other| other.written_bytes = None),
        ];
        assert!(unknown.iter().all(|other| !other.prove_unwritten_until(&other.clone())));
        let changed = [
            but(|other| other.boot_id.push('0')),
            but(|other| other.disk_sequence = Some(8)),
            but(|other| other.written_bytes = Some(1024)),
        ];
        assert!(changed.iter().all(|other| !then.prove_unwritten_until(other)));
    }

    #[test]
    fn a_journal_is_read_only_under_its_own_seal_version_and_name() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealKey::open(&Directory::trusted(folder.path()).unwrap()).unwrap();
        let begun = begin(&JournalStore::open(folder.path()).unwrap(), &disk("/dev/sda", Some("Z1")), false);
        let entry = begun.unwrap().unwrap().journal.open().entry.clone();
        let (name, json) = (entry.name(), serde_json::to_string(&entry).unwrap());
        let read = |json: &str| Entry::unseal(&format!("{}\n{json}", key.seal(json.as_bytes())), &name, &key);
        assert!(read(&json).is_ok() && entry.seal(&key).unwrap().ends_with(&json));
        let error = read(&json.replace("\"efface_journal\":4", "\"efface_journal\":5")).unwrap_err();
        assert!(error.contains("version 5"), "{error}");
        let error = read(&json.replace("Z1", "Z2")).unwrap_err();
        assert!(error.contains("another disk's"), "{error}");
        let hash = sha256(json.as_bytes());
        for text in [format!("{hash}\n{json}"), json.clone(), format!("\n{json}")] {
            assert!(Entry::unseal(&text, &name, &key).is_err(), "who has no key can compute no seal");
        }
    }

    /// A tree with one disk of this sysfs path.
    fn tree_of(path: &str) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().canonicalize().unwrap().join("sys");
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        fs::create_dir_all(sys.join(path)).unwrap();
        symlink(sys.join(path), sys.join("dev/block/259:0")).unwrap();
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
}
