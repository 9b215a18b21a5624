//! Reports of steps.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern::{Pattern, Seed};
use crate::plan::Step;
use crate::range::{Extent, ExtentSet};

/// How many extents a finding lists; beyond that only their bytes are counted.
const LISTED_MAX: usize = 4096;

/// Extents of which at most 4096 are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ListedExtents {
    /// The first 4096 of them, absolute on the device.
    pub extents: ExtentSet,
    /// Of all, listed or not.
    pub bytes: u64,
    /// There are more than are listed.
    pub more: bool,
}

impl From<ExtentSet> for ListedExtents {
    fn from(extents: ExtentSet) -> ListedExtents {
        let (bytes, more) = (extents.bytes(), extents.len() > LISTED_MAX);
        let extents = if more { extents.iter().take(LISTED_MAX).collect() } else { extents };
        ListedExtents { extents, bytes, more }
    }
}

impl ListedExtents {
    /// Without the list, where it follows from something else.
    pub fn unlisted(bytes: u64) -> ListedExtents {
        ListedExtents { extents: ExtentSet::new(), bytes, more: bytes > 0 }
    }

    /// Counts an extent, and lists it while there is space.
    pub fn add(&mut self, extent: Extent) {
        self.bytes += extent.len();
        if self.extents.len() < LISTED_MAX {
            self.extents.insert(extent);
        } else {
            self.more = true;
        }
    }

    /// Whether it has no byte, listed or not.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct StepReport {
    /// As the plan has it.
    pub step: Step,
    /// What was visited, unusable blocks with it. The places of a whole sample are not listed: they
    /// follow from its seed.
    pub covered: ListedExtents,
    /// Bytes that were written, or read: each time that they were.
    pub bytes: u64,
    /// Bytes of the I/Os that failed; 0 in a record of version 2, which did not count them.
    pub failed_bytes: u64,
    /// How long it took, waits for a throttle included.
    pub milliseconds: u64,
    /// The last flush of a writing step succeeded, with nothing after it.
    pub flushed: bool,
    /// Blocks that could not be written, or not be read.
    pub unusable: ExtentSet,
    /// Blocks that hold something else than the check expects.
    pub differing: ListedExtents,
    /// Pieces that failed first and succeeded later.
    pub retried: ExtentSet,
    /// I/Os that failed.
    pub errors: u64,
    /// Of the process that began it, where several did it.
    pub started: Timestamp,
    /// When its last flush, or read, had been answered.
    pub ended: Timestamp,
    /// When each 128th of its bytes was done, in microseconds from its start: how fast the device is,
    /// over its addresses. Empty where the step visits single places.
    pub course: Vec<u64>,
    /// Of a step that backed off beside other users of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yielding: Option<Yielding>,
}

/// How long a step backed off beside other users of the disk, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Yielding {
    /// Others used the disk.
    pub beside_ms: u64,
    /// Of this: the lowest rate decided, and what the others may lose did not.
    pub floor_ms: u64,
    /// Of `beside_ms`: what the others lose could not be measured.
    pub unmeasured_ms: u64,
    /// Before the step: another job backed off on the same disk.
    pub waited_ms: u64,
}

impl Yielding {
    fn and(self, other: Yielding) -> Yielding {
        Yielding {
            beside_ms: self.beside_ms + other.beside_ms,
            floor_ms: self.floor_ms + other.floor_ms,
            unmeasured_ms: self.unmeasured_ms + other.unmeasured_ms,
            waited_ms: self.waited_ms + other.waited_ms,
        }
    }
}

impl StepReport {
    /// One report of a step that two processes did, of which the later one visited again what the
    /// earlier one is not trusted for. It wrote: no check goes on in another process.
    pub fn after(self, before: &StepReport) -> StepReport {
        let both =
            |one: &ExtentSet, other: &ExtentSet| -> ExtentSet { one.iter().chain(other.iter()).collect() };
        StepReport {
            covered: both(&before.covered.extents, &self.covered.extents).into(),
            bytes: before.bytes + self.bytes,
            failed_bytes: before.failed_bytes + self.failed_bytes,
            milliseconds: before.milliseconds + self.milliseconds,
            unusable: both(&before.unusable, &self.unusable),
            retried: both(&before.retried, &self.retried),
            errors: before.errors + self.errors,
            started: before.started,
            course: Vec::new(),
            yielding: match (before.yielding, self.yielding) {
                (Some(before), Some(after)) => Some(before.and(after)),
                (before, after) => before.or(after),
            },
            ..self
        }
    }

    /// Where it was done: covered, and not unusable.
    pub fn done(&self) -> ExtentSet {
        self.covered.extents.clone().without(&self.unusable)
    }

    /// What a random pass was made from.
    pub fn seed(&self) -> Option<&Seed> {
        match self.step.written()? {
            Pattern::Random { seed } | Pattern::Headless { seed, .. } => Some(seed),
            Pattern::Constant { .. } => None,
        }
    }
}
