//! What is kept of one device: asked for, it is wiped, refused or failed, and never left out.
//!
//! A record is a document: it goes as a line to machines, as text to people, and as a certificate to
//! a file. Everything that it concludes follows from what it reports, so that a stranger can compute
//! it again ([`Record::check`]). Numbers are integers.

pub mod certificate;
pub mod claim;
pub mod destination;
pub mod details;
pub mod evidence;
pub mod ledger;
pub mod sign;
mod version_2;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::claim::{Category, changed_layers, claim, copies, limitations, measured, pool};
use self::details::Details;
use crate::device::Findings;
use crate::device::identity::{DeviceKind, Identity};
use crate::device::{Layer, Proof, Thin, Tree, WriteCounter, layers_since};
use crate::digest::sha256;
use crate::engine::SIZE_MAX;
use crate::engine::job::JobReport;
use crate::error::Error;
use crate::io::Geometry;
use crate::printable::{printable, printable_path};
use crate::verdict::Verdict;

/// The version of the form: a field that is added, or changes its meaning, raises it.
pub const VERSION: u32 = 3;
/// Records from this version on are read: what they do not have yet is optional.
pub const VERSION_MIN: u32 = 2;

/// What a job is about.
pub struct Subject {
    /// As the user gave it.
    pub device: std::path::PathBuf,
    pub identity: Identity,
    pub findings: Findings,
    /// Of a device that is written.
    pub counter: Option<WriteCounter>,
}

/// What is the same for all devices of a command.
#[derive(Clone, Default, Debug)]
pub struct Assignment {
    pub method: String,
    pub details: Details,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A record of efface", deny_unknown_fields)]
pub struct Record {
    /// The version of this form.
    pub efface_record: u32,
    /// Of this job on this device: 128 bits of a hash over its boot, process, start and path.
    pub id: String,
    pub device: String,
    pub verdict: Verdict,
    pub exit_code: u8,
    /// What is said of the device, in words.
    pub claim: String,
    /// What is not said, or not known. Never empty.
    pub limitations: Vec<String>,
    pub error: Option<String>,
    /// The scheme that was carried out, or asked for; `verify` where nothing was to be written.
    pub method: String,
    /// The category that the plan could reach; none where nothing was planned.
    pub asked: Option<Category>,
    pub achieved: Category,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub identity: Option<Identity>,
    /// What was on it before, and which refusals were overridden.
    pub findings: Option<Findings>,
    pub job: Option<JobReport>,
    /// What the device's counter saw written during the job beyond the job's own writes; `None` if that
    /// is not known: where writes can go past the counter, or failed ones make it uncertain.
    pub foreign_writes_bytes: Option<u64>,
    /// Of a thin volume, as it was afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin_after: Option<Thin>,
    /// The layers below as they were afterwards, where they were not what they had been before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_after: Option<Vec<Layer>>,
    /// The devices below that may keep copies of the old data: by `--force copies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    pub details: Details,
    pub host: Host,
    pub tool: Tool,
    /// Its place in a ledger.
    pub chain: Option<Link>,
}

/// The place of a record in a ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// From 1.
    pub sequence: u64,
    /// SHA-256 of the file of the record before; none of the first.
    pub previous: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub architecture: String,
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

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    pub name: String,
    pub version: String,
    /// Of the source: `-dirty` where it was changed after that.
    pub commit: String,
    /// SHA-256 of the running program's file.
    pub sha256: Option<String>,
}

impl Tool {
    fn this() -> Tool {
        static SHA256: OnceLock<Option<String>> = OnceLock::new();
        let hash = || Some(sha256(&fs::read("/proc/self/exe").ok()?));
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

/// What follows from the rest of a record.
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

/// What others wrote, as far as the device's own counter can show it.
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
    /// A job that ran, to whatever end; `written` is what the device saw written during it, and after
    /// `ended` what lies below it is looked at once more.
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

    /// A job that never started, or broke; of its device as much as is known.
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
        let (Some(job), Some(identity), Some(findings)) = (&self.job, &self.identity, &self.findings) else {
            let written = matches!(self.verdict, Verdict::Failed);
            let claim = if written { "Nothing is claimed of this device." } else { "Nothing was written." };
            return Conclusions {
                exit_code,
                claim: claim.into(),
                limitations: vec!["No work was done: what the device holds is not known.".into()],
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

    /// What of it cannot be computed again: an earlier version's words follow earlier rules.
    pub fn unchecked(&self) -> Option<String> {
        (self.efface_record < VERSION).then(|| {
            format!(
                "A record of version {}: its numbers and its verdict were computed again; its sentences and \
                 categories are those of efface {}, which wrote it.",
                self.efface_record, self.tool.version
            )
        })
    }

    /// Computes again what the record concludes, and says what does not hold.
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
        if let Some(job) = &self.job {
            job.check()?;
            if identity.is_some_and(|identity| !fits(identity, &job.geometry)) {
                return Err("the size of its device, or of its blocks, is not that of its job".into());
            }
            let findings = self.findings.as_ref().ok_or("it has a job and no findings")?;
            if verdict(job, findings) != self.verdict {
                return Err("its verdict is not that of its job".into());
            }
        } else if matches!(self.verdict, Verdict::Wiped | Verdict::Verified | Verdict::Shown) {
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
