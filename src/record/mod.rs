//! The record of one device, whether it was wiped, refused or failed.
//!
//! A record is a document: a line for programs, text for people, and a certificate as a file. Its
//! conclusions follow from its numbers, so that anyone can recompute them ([`Record::check`]). Numbers are
//! integers.

pub mod certificate;
pub mod claim;
pub mod destination;
pub mod details;
pub mod evidence;
pub mod ledger;
pub mod purge;
pub mod sign;
mod version_2;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::claim::{Category, changed_layers, claim, copies, limitations, measured, pool};
use self::details::Details;
use self::purge::PurgeRecord;
use crate::device::Findings;
use crate::device::identity::{DeviceKind, Identity};
use crate::device::{Layer, Proof, Thin, Tree, WriteCounter, layers_since};
use crate::digest::{sha256, sha256_of_file};
use crate::engine::SIZE_MAX;
use crate::engine::job::JobReport;
use crate::error::Error;
use crate::io::Geometry;
use crate::printable::{printable, printable_path};
use crate::verdict::Verdict;

/// The version of the form: a field that is added, or changes its meaning, raises it.
pub const VERSION: u32 = 4;
/// The oldest version that can be read: fields added since are optional.
pub const VERSION_MIN: u32 = 2;
/// Since this version the sentences follow the rules of today.
const RULES_SINCE: u32 = 3;

/// The device of a job.
pub struct Subject {
    /// As the user gave it.
    pub device: std::path::PathBuf,
    /// What the guard found it to be.
    pub identity: Identity,
    /// What was on it and around it before the work.
    pub findings: Findings,
    /// `Some` for a device that is written.
    pub counter: Option<WriteCounter>,
}

/// What all devices of a command have in common.
#[derive(Clone, Default, Debug)]
pub struct Assignment {
    /// As it is recorded for a device whose plan was never made.
    pub method: String,
    /// Recorded as given.
    pub details: Details,
}

/// All that is kept about one device. docs/certificate.schema.json is its form as JSON, and
/// docs/certificates.md explains it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A record of efface", deny_unknown_fields)]
#[non_exhaustive]
pub struct Record {
    /// The version of this form.
    pub efface_record: u32,
    /// Of this job on this device: 128 bits of a hash over its boot, process, start and path.
    pub id: String,
    /// As the user gave it, with control and formatting characters replaced.
    pub device: String,
    /// Of the job and the layers below it together.
    pub verdict: Verdict,
    /// Of the verdict ([`Verdict::exit_code`]).
    pub exit_code: u8,
    /// The claim about the device, as a sentence.
    pub claim: String,
    /// What is not claimed or not known. Never empty.
    pub limitations: Vec<String>,
    /// Why the job did not reach its end, with the device and the way out; `None` where it did.
    pub error: Option<String>,
    /// The method executed or requested; `verify` if nothing was to be written.
    pub method: String,
    /// The category that the plan could reach; `None` if nothing was planned.
    pub asked: Option<Category>,
    /// The category that was reached on the media.
    pub achieved: Category,
    /// When the session had claimed its devices; of a refused one, when the session began.
    pub started: Timestamp,
    /// When the record was made.
    pub ended: Timestamp,
    /// `None` where the target was not found or is no block device or image.
    pub identity: Option<Identity>,
    /// What was on it before, and which refusals were overridden.
    pub findings: Option<Findings>,
    /// `None` where no job was started, or it was given up while it hung in the kernel.
    pub job: Option<JobReport>,
    /// What the drive did itself, in place of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<PurgeRecord>,
    /// Bytes that the device's counter saw written during the job beyond the job's own writes; `None` if
    /// not known: writes can bypass the counter, or failed writes make it uncertain.
    pub foreign_writes_bytes: Option<u64>,
    /// The state of a thin volume after the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin_after: Option<Thin>,
    /// The layers below after the job, if they had changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_after: Option<Vec<Layer>>,
    /// The devices below that may keep copies of old data (`--force copies`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// What only people know.
    pub details: Details,
    /// The machine that did the work.
    pub host: Host,
    /// The program that did it.
    pub tool: Tool,
    /// Its place in a ledger.
    pub chain: Option<Link>,
}

/// The place of a record in a ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Link {
    /// From 1.
    pub sequence: u64,
    /// SHA-256 of the previous record's file; `None` for the first.
    pub previous: Option<String>,
}

/// The machine that a record was made on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Host {
    /// `/proc/sys/kernel/hostname`; this and the next are empty where they cannot be read.
    pub name: String,
    /// `/proc/sys/kernel/osrelease`, as `uname -r` prints it.
    pub kernel: String,
    /// That the program was built for: `x86_64`, `aarch64`.
    pub architecture: String,
    /// `/proc/sys/kernel/random/boot_id`: different after each boot.
    pub boot_id: String,
}

impl Host {
    fn this() -> Host {
        let kernel = Tree::real().proc.join("sys/kernel");
        let read = |name| {
            let bytes = fs::read(kernel.join(name)).unwrap_or_default();
            printable(String::from_utf8_lossy(&bytes).trim())
        };
        Host {
            name: read("hostname"),
            kernel: read("osrelease"),
            architecture: std::env::consts::ARCH.into(),
            boot_id: Tree::real().boot_id(),
        }
    }
}

/// The program that a record was made by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Tool {
    /// `efface`.
    pub name: String,
    /// That of the package.
    pub version: String,
    /// Of the source: `-dirty` where it was changed after that.
    pub commit: String,
    /// SHA-256 of the running program's file.
    pub sha256: Option<String>,
}

impl Tool {
    /// Reads the program's file beside other work: records need its hash.
    pub(crate) fn prepare() {
        thread::spawn(Tool::this);
    }

    fn this() -> Tool {
        static SHA256: OnceLock<Option<String>> = OnceLock::new();
        let hash = || sha256_of_file(Path::new("/proc/self/exe")).ok();
        Tool {
            name: "efface".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("EFFACE_COMMIT").into(),
            sha256: SHA256.get_or_init(hash).clone(),
        }
    }
}

/// Whether a job's disk has the size and the blocks of what was identified.
fn fits(identity: &Identity, geometry: &Geometry) -> bool {
    let block = identity.logical_block.unwrap_or(geometry.logical_block);
    (identity.size_bytes, block) == (geometry.size, geometry.logical_block)
}

/// The fields of a record that are computed from its other fields.
#[derive(PartialEq)]
struct Conclusions {
    exit_code: u8,
    claim: String,
    limitations: Vec<String>,
    copies: Vec<String>,
    asked: Option<Category>,
    achieved: Category,
}

/// A wipe that leaves copies in a layer below has left residue.
fn verdict(job: &JobReport, findings: &Findings) -> Verdict {
    let copies = !copies(&findings.layers).is_empty();
    match job.verdict {
        Verdict::Wiped if copies => Verdict::Residue,
        verdict => verdict,
    }
}

/// Foreign writes, as far as the device's own counter can show them.
fn foreign_writes(job: &JobReport, identity: &Identity, counter: &WriteCounter, written: u64) -> Option<u64> {
    let failed = job.error.is_some() || job.steps.iter().any(|report| report.errors > 0);
    if failed || !job.resumed.is_empty() {
        return None;
    }
    let own = job.steps.iter().filter(|report| report.step.writes() && !report.step.discards());
    let foreign = written.saturating_sub(own.map(|report| report.bytes).sum());
    match counter.proof(identity.physical && identity.kind == DeviceKind::Disk) {
        Proof::Nothing => None,
        Proof::Presence => (foreign > 0).then_some(foreign),
        Proof::Both => Some(foreign),
    }
}

fn layers_after(identity: &Identity, findings: &Findings, ended: Instant) -> Option<Vec<Layer>> {
    let now = layers_since(&Tree::real(), identity.number?, ended);
    (now != findings.layers).then_some(now)
}

impl Record {
    /// The record of a job that ran, however it ended; `written` is what the device's counter saw, and the
    /// layers below are examined again after `ended`.
    pub fn of_job(
        assignment: &Assignment,
        subject: Subject,
        started: Timestamp,
        job: JobReport,
        written: Option<u64>,
        ended: Instant,
    ) -> Record {
        let Subject { device, identity, findings, counter } = subject;
        let foreign = counter.and_then(|counter| foreign_writes(&job, &identity, &counter, written?));
        let empty = Record::empty(assignment, &device, started);
        let thin = identity.thin.as_ref().and(identity.number);
        Record {
            thin_after: thin.and_then(|number| Thin::now(&Tree::real(), number)),
            layers_after: layers_after(&identity, &findings, ended),
            method: job.plan.method.clone(),
            verdict: verdict(&job, &findings),
            error: job
                .error
                .as_ref()
                .map(|error| printable(&format!("{}: {error}", printable_path(&device)))),
            identity: Some(identity),
            findings: Some(findings),
            job: Some(job),
            foreign_writes_bytes: foreign,
            ..empty
        }
        .concluded()
    }

    /// The record of a purge, however it ended.
    pub fn of_purge(
        assignment: &Assignment,
        subject: Subject,
        started: Timestamp,
        purge: PurgeRecord,
    ) -> Record {
        let Subject { device, identity, findings, .. } = subject;
        let error = purge.report.error.as_ref();
        Record {
            verdict: purge.report.verdict,
            error: error.map(|error| printable(&format!("{}: {error}", printable_path(&device)))),
            identity: Some(identity),
            findings: Some(findings),
            purge: Some(purge),
            ..Record::empty(assignment, &device, started)
        }
        .concluded()
    }

    /// The record of a job that never started or crashed, with what is known about its device.
    pub fn of_error(
        assignment: &Assignment,
        device: &Path,
        (identity, findings): (Option<Identity>, Option<Findings>),
        started: Timestamp,
        error: Error,
    ) -> Record {
        let empty = Record::empty(assignment, device, started);
        let error = error.on(device);
        Record { verdict: error.kind.into(), error: Some(error.to_string()), identity, findings, ..empty }
            .concluded()
    }

    fn empty(assignment: &Assignment, device: &Path, started: Timestamp) -> Record {
        let (host, device) = (Host::this(), printable_path(device));
        let id = sha256(format!("{} {} {started} {device}", host.boot_id, std::process::id()).as_bytes());
        Record {
            efface_record: VERSION,
            id: id[..32].into(),
            device,
            verdict: Verdict::Failed,
            exit_code: 0,
            claim: String::new(),
            limitations: Vec::new(),
            error: None,
            method: assignment.method.clone(),
            asked: None,
            achieved: Category::None,
            started,
            ended: Timestamp::now(),
            identity: None,
            findings: None,
            job: None,
            purge: None,
            foreign_writes_bytes: None,
            thin_after: None,
            layers_after: None,
            copies: Vec::new(),
            details: assignment.details.clone(),
            host,
            tool: Tool::this(),
            chain: None,
        }
    }

    fn concluded(mut self) -> Record {
        let Conclusions { exit_code, claim, limitations, copies, asked, achieved } = self.conclusions();
        (self.exit_code, self.claim, self.limitations) = (exit_code, claim, limitations);
        self.copies = copies;
        (self.asked, self.achieved) = (asked, achieved);
        self
    }

    fn conclusions(&self) -> Conclusions {
        let exit_code = self.verdict.exit_code();
        if let (Some(purge), Some(identity), Some(findings)) = (&self.purge, &self.identity, &self.findings) {
            return Conclusions {
                exit_code,
                claim: purge.claim(identity),
                limitations: purge.limitations(identity, findings),
                copies: Vec::new(),
                asked: Some(purge.asked()),
                achieved: purge.achieved(identity),
            };
        }
        let (Some(job), Some(identity), Some(findings)) = (&self.job, &self.identity, &self.findings) else {
            let written = matches!(self.verdict, Verdict::Failed);
            let claim = if written { "Nothing is claimed for this device." } else { "Nothing was written." };
            return Conclusions {
                exit_code,
                claim: claim.into(),
                limitations: vec!["No work was done: the content of the device is not known.".into()],
                copies: Vec::new(),
                asked: None,
                achieved: Category::None,
            };
        };
        let copies = copies(&findings.layers);
        let mut not_said = measured(job, self.foreign_writes_bytes);
        not_said
            .extend(identity.thin.iter().zip(&self.thin_after).map(|(before, after)| pool(before, after)));
        not_said.extend(limitations(&job.plan, identity, findings, job.io_path.direct));
        not_said.extend(changed_layers(self.layers_after.as_deref(), findings));
        Conclusions {
            exit_code,
            claim: claim(job, &copies),
            limitations: not_said,
            copies,
            asked: job.plan.writes().then(|| Category::of(&job.plan, identity)),
            achieved: match self.layers_after {
                None => Category::achieved(job, identity),
                Some(_) => Category::None,
            },
        }
    }

    /// What cannot be recomputed: the sentences of earlier versions follow earlier rules.
    pub fn unchecked(&self) -> Option<String> {
        (self.efface_record < RULES_SINCE).then(|| {
            format!(
                "A record of version {}: its numbers and its verdict were recomputed; its sentences and categories \
                 are those of efface {}, which wrote it.",
                self.efface_record, self.tool.version
            )
        })
    }

    /// Recomputes the conclusions, and returns what does not hold.
    ///
    /// # Errors
    /// The first conclusion that does not follow, or number that contradicts another, as a clause.
    pub fn check(&self) -> std::result::Result<(), String> {
        let hex =
            |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex(&self.id, 32) {
            return Err("its id is not one of ours".into());
        }
        let identity = self.identity.as_ref();
        if identity.is_some_and(|identity| identity.size_bytes > SIZE_MAX) {
            return Err("its device is larger than any".into());
        }
        if self.purge.is_some() && (self.job.is_some() || self.efface_record < VERSION) {
            return Err("it has a purge beside a job, or in a form without purges".into());
        }
        if let Some(job) = &self.job {
            job.check()?;
            if identity.is_some_and(|identity| !fits(identity, &job.geometry)) {
                return Err("the size of its device, or of its blocks, is not that of its job".into());
            }
            let findings = self.findings.as_ref().ok_or("it has a job and no findings")?;
            if verdict(job, findings) != self.verdict {
                return Err("its verdict is not that of its job".into());
            }
        } else if let Some(purge) = &self.purge {
            let identity = identity.ok_or("it has a purge and no device")?;
            purge.check(identity)?;
            if purge.report.verdict != self.verdict {
                return Err("its verdict is not that of its purge".into());
            }
        } else if self.verdict.exit_code() == 0 {
            return Err("it claims success without a job".into());
        }
        if self.unchecked().is_some() {
            let fits = self.exit_code == self.verdict.exit_code();
            return if fits { Ok(()) } else { Err("its exit code is not that of its verdict".into()) };
        }
        let found = Conclusions {
            exit_code: self.exit_code,
            claim: self.claim.clone(),
            limitations: self.limitations.clone(),
            copies: self.copies.clone(),
            asked: self.asked,
            achieved: self.achieved,
        };
        if found == self.conclusions() {
            Ok(())
        } else {
            Err("its claims do not follow from what it reports".into())
        }
    }
}
