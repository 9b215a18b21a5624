//! What is kept of one device: asked for, it is wiped, refused or failed, and never left out.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::claim::{claim, limitations};
use crate::device::guard::Findings;
use crate::device::identity::Identity;
use crate::engine::job::JobReport;
use crate::error::{Error, Kind};
use crate::verdict::Verdict;

/// What a job is about.
pub struct Subject {
    /// As the user gave it.
    pub device: PathBuf,
    pub identity: Identity,
    pub findings: Findings,
}

#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub device: PathBuf,
    pub verdict: Verdict,
    pub claim: String,
    pub limitations: Vec<String>,
    pub error: Option<String>,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub identity: Option<Identity>,
    /// What was on it before, and which refusals were overridden.
    pub findings: Option<Findings>,
    pub job: Option<JobReport>,
}

impl Record {
    /// A job that ran, to whatever end.
    pub fn of_job(subject: Subject, started: Timestamp, job: JobReport) -> Record {
        let Subject { device, identity, findings } = subject;
        Record {
            verdict: job.verdict,
            claim: claim(&job),
            limitations: limitations(&job.plan, &identity, &findings, job.io_path.direct),
            error: job.error.as_ref().map(|error| format!("{}: {error}", device.display())),
            device,
            started,
            ended: Timestamp::now(),
            identity: Some(identity),
            findings: Some(findings),
            job: Some(job),
        }
    }

    /// A job that never started, or broke.
    pub fn of_error(device: &Path, subject: Option<Subject>, started: Timestamp, error: Error) -> Record {
        let (identity, findings) = subject.map(|subject| (subject.identity, subject.findings)).unzip();
        let error = error.on(device);
        let claim = match error.kind {
            Kind::Failed => "Nothing is claimed of this device.",
            Kind::Usage | Kind::Refused | Kind::Unsupported | Kind::Busy => "Nothing was written.",
        };
        Record {
            device: device.into(),
            verdict: error.kind.into(),
            claim: claim.into(),
            limitations: Vec::new(),
            error: Some(error.to_string()),
            started,
            ended: Timestamp::now(),
            identity,
            findings,
            job: None,
        }
    }
}
