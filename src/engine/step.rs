//! What one step did.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern::{Pattern, Seed};
use crate::plan::Act;
use crate::range::{Extent, ExtentSet};

/// How many extents a finding lists; beyond that only their bytes are counted.
const LISTED_MAX: usize = 4096;

/// Ranges that were found, of which at most 4096 are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    pub extents: ExtentSet,
    pub bytes: u64,
    /// More was found than is listed.
    pub more: bool,
}

impl Found {
    pub fn add(&mut self, extent: Extent) {
        self.bytes += extent.len();
        if self.extents.len() < LISTED_MAX {
            self.extents.insert(extent);
        } else {
            self.more = true;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    pub act: Act,
    /// Bytes that were written, or read.
    pub bytes: u64,
    pub milliseconds: u64,
    /// The last flush of a writing step succeeded, with nothing after it.
    pub flushed: bool,
    /// Blocks that could not be written, or not be read.
    pub unusable: ExtentSet,
    /// Blocks that hold something else than the check expects.
    pub differing: Found,
    /// Pieces that failed first and succeeded later.
    pub retried: ExtentSet,
    /// I/Os that failed.
    pub errors: u64,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// When each 128th of its bytes was done, in microseconds from its start: how fast the device is,
    /// over its addresses. Empty where the step visits single places.
    pub course: Vec<u64>,
}

impl StepReport {
    /// One report of a step that two processes did. It wrote: no check goes on in another process.
    pub fn after(self, before: &StepReport) -> StepReport {
        let both = |one: &ExtentSet, other: &ExtentSet| one.iter().chain(other.iter()).collect();
        StepReport {
            bytes: before.bytes + self.bytes,
            milliseconds: before.milliseconds + self.milliseconds,
            unusable: both(&before.unusable, &self.unusable),
            retried: both(&before.retried, &self.retried),
            errors: before.errors + self.errors,
            started: before.started,
            course: Vec::new(),
            ..self
        }
    }

    /// What a random pass was made from.
    pub fn seed(&self) -> Option<&Seed> {
        match &self.act {
            Act::Write { pattern } | Act::WritePart { pattern, .. } | Act::WriteFound { pattern } => {
                match pattern {
                    Pattern::Random { seed } | Pattern::Headless { seed, .. } => Some(seed),
                    Pattern::Constant { .. } => None,
                }
            }
            _ => None,
        }
    }
}
