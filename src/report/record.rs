//! What is kept of one device: asked for, it is wiped, refused or failed, and never left out.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::claim::{claim, limitations};
use crate::device::identity::Identity;
use crate::engine::job::JobReport;
use crate::error::{Error, Kind};
use crate::verdict::Verdict;

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
    pub job: Option<JobReport>,
}

impl Record {
    /// A job that ran, to whatever end.
    pub fn of_job(device: &Path, identity: Identity, started: Timestamp, job: JobReport) -> Record {
        Record {
            device: device.into(),
            verdict: job.verdict,
            claim: claim(&job),
            limitations: limitations(&job, &identity),
            error: job.error.as_ref().map(|error| format!("{}: {error}", device.display())),
            started,
            ended: Timestamp::now(),
            identity: Some(identity),
            job: Some(job),
        }
    }

    /// A job that never started, or broke.
    pub fn of_error(device: &Path, identity: Option<Identity>, started: Timestamp, error: Error) -> Record {
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
            job: None,
        }
    }
}
