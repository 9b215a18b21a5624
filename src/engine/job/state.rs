//! The state of a job after its steps so far: one fold over its reports, for the job that runs and for
//! whoever computes its record again.

use crate::engine::sampling::{Bound, Probes, draw, probes};
use crate::engine::step::StepReport;
use crate::io::{Geometry, IoPath};
use crate::pattern::Seed;
use crate::plan::{Plan, Scope, Step};
use crate::range::{Extent, ExtentSet, align_down};

#[derive(Clone)]
pub(in crate::engine) struct JobState {
    geometry: Geometry,
    chunk_bytes: u64,
    /// The plan's area without the odd tail that direct I/O cannot reach.
    pub area: Extent,
    /// Blocks that some pass could not write.
    pub residue: ExtentSet,
    /// Blocks that a check could not read.
    pub unreadable: ExtentSet,
    /// What was not zero before the first pass, where it was looked for: only the running job knows.
    pub nonzero: Option<ExtentSet>,
    pub last_pass: LastPass,
    written: bool,
}

/// What is known of the last pass that wrote.
#[derive(Clone, Default)]
pub(in crate::engine) struct LastPass {
    pub retried: ExtentSet,
    /// Known to be something else than a check expects.
    pub residue: ExtentSet,
}

impl JobState {
    /// Before the first step: what direct I/O does not reach stays as it is.
    pub fn new(plan: &Plan, geometry: &Geometry, io_path: &IoPath, chunk_bytes: u64) -> JobState {
        let (area, tail) = served(plan.area, geometry, io_path);
        let nothing = ExtentSet::new();
        let (residue, unreadable) =
            if plan.writes() { (tail.into(), nothing) } else { (nothing, tail.into()) };
        JobState {
            geometry: *geometry,
            chunk_bytes,
            area,
            residue,
            unreadable,
            nonzero: None,
            last_pass: LastPass::default(),
            written: false,
        }
    }

    /// What a step left that has ended.
    pub fn add(&mut self, report: &StepReport) {
        let step = &report.step;
        if let Some(check) = step.earlier_check() {
            self.last_pass = LastPass { retried: check.retried.clone(), residue: check.residue.clone() };
        }
        if step.writes() {
            self.written = true;
            self.last_pass = LastPass { retried: report.retried.clone(), residue: report.unusable.clone() };
            report.unusable.iter().for_each(|extent| self.residue.insert(extent));
        } else if step.expected().is_some() || self.written {
            // What cannot be read before the first pass is no reason not to write.
            report.unusable.iter().for_each(|extent| self.unreadable.insert(extent));
        }
    }

    /// What a step that writes, or finds, is about.
    pub fn extents(&self, step: &Step) -> ExtentSet {
        match step.scope() {
            Scope::Ranges { ranges } => ranges.clone(),
            Scope::NonZero => self.nonzero.clone().expect("found before it is written"),
            Scope::Area | Scope::Sample { .. } | Scope::Recorded { .. } => self.area.into(),
        }
    }

    /// The blocks that a fingerprint reads.
    pub fn drawn(&self, step: &Step, seed: &Seed) -> ExtentSet {
        draw(step.sample(), self.area, seed)
    }

    /// The blocks that a check reads: what the last pass could not write is known to be something else.
    pub fn probes(&self, step: &Step, seed: &Seed) -> Probes {
        let (seed, chunk_bytes, retried, residue) = match step.earlier_check() {
            Some(check) => (&check.seed, check.chunk_bytes, &check.retried, &check.residue),
            None => (seed, self.chunk_bytes, &self.last_pass.retried, &self.last_pass.residue),
        };
        let edges = edges(self.area, chunk_bytes);
        let Probes { drawn, extents } =
            probes(step.sample(), self.area, &self.geometry, seed, &edges, retried);
        Probes { drawn, extents: extents.without(residue) }
    }

    /// What a check proves that read all of its probes, and found all of them good.
    pub fn bound(&self, probes: &Probes, report: &StepReport) -> Option<Bound> {
        let good = report.unusable.is_empty() && report.differing.is_empty();
        let complete = report.bytes == probes.extents.bytes() && self.last_pass.residue.is_empty();
        let sample = report.step.sample().filter(|_| good && complete)?;
        Some(Bound::of(probes.drawn?, sample.confidence_ppm))
    }
}

/// The part of an area that can be read and written, and the odd tail: a device whose size is no
/// multiple of its logical block never serves that.
fn served(area: Extent, geometry: &Geometry, io_path: &IoPath) -> (Extent, Extent) {
    let end =
        if io_path.takes_whole_blocks() { align_down(area.end, geometry.logical_block) } else { area.end };
    area.split(end.max(area.start))
}

/// Where transfers first and last met: the place of the classic mistakes.
fn edges(area: Extent, chunk_bytes: u64) -> [u64; 2] {
    [align_down(area.start, chunk_bytes).saturating_add(chunk_bytes), align_down(area.end, chunk_bytes)]
}
