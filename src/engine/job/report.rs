//! The report of a job: everything that its claim is computed from.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::resume::Resumption;
use crate::engine::sampling::Bound;
use crate::engine::step::StepReport;
use crate::engine::survivors::Survivors;
use crate::io::{Geometry, IoPath};
use crate::pattern::Seed;
use crate::plan::{EarlierCheck, Plan, Policy, Sample, Step};
use crate::range::ExtentSet;
use crate::verdict::Verdict;

/// What a job did, and what may be said of the disk now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct JobReport {
    /// Of the job alone: a record may be more severe, where a layer below keeps copies.
    pub verdict: Verdict,
    /// As it was given.
    pub plan: Plan,
    /// That of the opened disk.
    pub geometry: Geometry,
    /// What the disk said of itself when the job began.
    pub io_path: IoPath,
    /// One for each step that was begun, in order; after a mismatch the map besides.
    pub steps: Vec<StepReport>,
    /// Blocks that some pass could not write: they may hold what they held before.
    pub residue: ExtentSet,
    /// Those of them that the last pass could not write twice, and that cannot be read either.
    pub residue_unreadable: ExtentSet,
    /// Blocks that a check could not read.
    pub unreadable: ExtentSet,
    /// Blocks that a check found to hold something else than the last pass wrote.
    pub surviving: Survivors,
    /// What was there before the first pass.
    pub survey: Option<SurveyResult>,
    /// Of the last check that was begun; `None` where none was.
    pub verification: Option<Verification>,
    /// Of key material that was to be destroyed: what a last look found as it was before.
    pub unchanged_key_bytes: Option<u64>,
    /// Of a thin volume: what was not zero before the first pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_bytes: Option<u64>,
    /// Bytes of the largest transfer: where they first and last met is always read back.
    pub chunk_bytes: u64,
    /// Each time that it went on after it had ended too early.
    pub resumed: Vec<Resumption>,
    /// Why it ended before its plan did, `None` where that was a signal or did not happen.
    pub error: Option<String>,
}

/// What a survey found, in bytes of whole blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SurveyResult {
    /// The probes follow from it, as those of a check.
    pub seed: Seed,
    /// All that it read.
    pub read_bytes: u64,
    /// Of these: blocks of zeroes alone.
    pub zero_bytes: u64,
    /// That already were what the last check expects: for those it proves nothing.
    pub expected_bytes: u64,
}

/// What the last check did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Verification {
    /// `None` where all was read.
    pub sample: Option<Sample>,
    /// The probes follow from it (see `engine/sampling.rs`).
    pub seed: Seed,
    /// When the seed was drawn: after the last flush.
    pub drawn: Timestamp,
    /// How many blocks were drawn, the n of the bound; `None` where all was read.
    pub probes: Option<u64>,
    /// Of drawn blocks and those that are always read.
    pub bytes_read: u64,
    /// Only where every probe was read and was good.
    pub bound: Option<Bound>,
}

impl JobReport {
    /// A plan that reads the same places again, and then fresh ones; `None` if the last pass does
    /// not determine what to expect.
    pub fn replay(&self) -> Option<Plan> {
        let Plan { area, partial, steps, .. } = &self.plan;
        let expected = steps.iter().rev().find_map(|step| step.leaves().or(step.expected().cloned()))?;
        let last = self.steps.iter().rev().find(|report| report.step.writes());
        let again = self.verification.as_ref().map(|check| {
            let earlier = EarlierCheck {
                sample: check.sample,
                seed: check.seed,
                chunk_bytes: self.chunk_bytes,
                retried: last.map(|report| report.retried.clone()).unwrap_or_default(),
                residue: last.map(|report| report.unusable.clone()).unwrap_or_default(),
            };
            Step::compare_again(expected.clone(), earlier)
        });
        let standard = Policy::Standard.sample(*area, self.geometry.physical_block);
        let fresh = self.verification.as_ref().and_then(|check| check.sample).or(standard);
        let steps = again.into_iter().chain([Step::compare(expected, fresh)]).collect();
        Some(Plan { method: "verify".into(), area: *area, partial: *partial, steps, keys: None })
    }
}
