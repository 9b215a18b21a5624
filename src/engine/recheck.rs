//! Recheck of a kept report: its numbers are recomputed from its plan.
//!
//! A certificate is checked with it by a third party, so nothing in it is trusted: every count that
//! leads to work or memory is looked at first.

use super::job::{JobReport, JobState};
use super::sampling::Probes;
use super::step::StepReport;
use crate::plan::{PROBES_MAX, Sample, Step};
use crate::range::{Extent, ExtentSet};
use crate::verdict::Verdict;

/// So that no sum of two sizes overflows.
pub const SIZE_MAX: u64 = 1 << 62;

type CheckResult = Result<(), String>;

fn ensure(holds: bool, otherwise: &str) -> CheckResult {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// The last check that was begun, and what the steps before it had left.
struct LastCheck<'a> {
    state: JobState,
    report: &'a StepReport,
    probes: Probes,
}

impl JobReport {
    /// Says what does not hold.
    ///
    /// # Errors
    /// The first number that contradicts another, as a clause.
    pub fn check(&self) -> CheckResult {
        self.check_plan()?;
        self.check_steps()?;
        self.check_verification()?;
        self.check_verdict()
    }

    fn check_plan(&self) -> CheckResult {
        let (geometry, area) = (&self.geometry, self.plan.area);
        let blocks = [geometry.logical_block, geometry.physical_block, self.chunk_bytes];
        ensure(blocks.iter().all(|block| (1..=1 << 40).contains(block)), "its blocks have no size")?;
        ensure(geometry.size <= SIZE_MAX, "its device is larger than any")?;
        let unreadable = self.residue_unreadable.clone().without(&self.residue);
        ensure(unreadable.is_empty(), "unreadable residue is no residue")?;
        ensure(!area.is_empty() && area.end <= geometry.size, "its area is not on the device")?;
        ensure(
            [&self.residue, &self.unreadable].iter().all(|set| self.inside(set)),
            "it reports blocks outside its area",
        )?;
        ensure(
            self.plan.partial == (area != Extent::new(0, geometry.size)),
            "whether it is partial contradicts its area",
        )?;
        let area = JobState::new(&self.plan, geometry, &self.io_path, self.chunk_bytes).area;
        let samples = self.plan.steps.iter().filter_map(Step::sample);
        ensure(samples.clone().all(|sample| fits(sample, area)), "its sample does not fit its area")
    }

    fn inside(&self, set: &ExtentSet) -> bool {
        set.iter().all(|each| each.intersect(self.plan.area) == each)
    }

    fn check_steps(&self) -> CheckResult {
        let planned = &self.plan.steps;
        for (number, report) in self.steps.iter().enumerate() {
            let as_planned = planned.get(number) == Some(&report.step);
            // After a mismatch the next step is the map.
            ensure(as_planned || is_map(&report.step), "a step is not the one that was planned")?;
            let sets =
                [&report.unusable, &report.retried, &report.differing.extents, &report.covered.extents];
            ensure(sets.iter().all(|set| self.inside(set)), "a step reports blocks outside its area")?;
            let all = &report.covered;
            let unusable = report.unusable.clone().without(&all.extents);
            ensure(all.more || unusable.is_empty(), "what a step could not use it did not visit")?;
            let listed = all.extents.bytes();
            ensure(
                listed <= all.bytes && (all.more || listed == all.bytes),
                "a step covered more than it says",
            )?;
            let done = all.bytes.checked_sub(report.unusable.bytes());
            ensure(
                done.is_some_and(|done| done <= report.bytes),
                "a step covered more than it wrote or read",
            )?;
        }
        let state = self.state_after(self.steps.len());
        ensure(state.residue == self.residue, "its residue is not what its passes could not write")?;
        ensure(state.unreadable == self.unreadable, "its checks could not read other blocks than it says")?;
        let resumed = self.resumed.iter().all(|each| {
            let inside = (self.plan.area.start..=self.plan.area.end).contains(&each.upto);
            let fewer = each.fewer_passes_bytes <= self.plan.area.len();
            inside && fewer && each.step < planned.len() && self.plan.keys.is_none()
        });
        ensure(resumed, "it was resumed where its plan has no step")?;
        let survey = self
            .survey
            .iter()
            .all(|survey| survey.read_bytes >= survey.zero_bytes.max(survey.expected_bytes));
        ensure(survey, "more was found before than was read")
    }

    /// What the first `count` steps have left.
    fn state_after(&self, count: usize) -> JobState {
        let mut state = JobState::new(&self.plan, &self.geometry, &self.io_path, self.chunk_bytes);
        self.steps[..count].iter().for_each(|report| state.add(report));
        state
    }

    /// The last check that was begun: its places follow from the seed.
    fn last_check(&self) -> Option<LastCheck<'_>> {
        let verification = self.verification.as_ref()?;
        let drawn_again = |step: &Step| step.expected().is_some() && step.earlier_check().is_none();
        let begun = self.plan.steps.iter().zip(&self.steps).rposition(|(step, _)| drawn_again(step))?;
        let (state, report) = (self.state_after(begun), &self.steps[begun]);
        let probes = state.probes(&self.plan.steps[begun], &verification.seed);
        Some(LastCheck { state, report, probes })
    }

    /// The blocks that the checks have read; of a report that was checked.
    pub fn places_read(&self) -> ExtentSet {
        let checks = self.steps.iter().filter(|report| report.step.expected().is_some());
        let listed = checks.flat_map(|report| report.done().iter().collect::<Vec<_>>());
        // The places of a whole sample are not listed.
        let drawn = self.last_check().and_then(|LastCheck { report, probes, .. }| {
            let whole = report.covered.extents.is_empty() && report.covered.bytes == probes.extents.bytes();
            whole.then(|| probes.extents.without(&report.unusable))
        });
        listed.chain(drawn.iter().flat_map(ExtentSet::iter)).collect()
    }

    fn check_verification(&self) -> CheckResult {
        let Some(claimed) = &self.verification else { return Ok(()) };
        let check = self.last_check().ok_or("it reports a check that was not planned")?;
        let LastCheck { state, report, probes } = check;
        let all = probes.extents.bytes();
        let complete = report.bytes.checked_add(report.unusable.bytes()) == Some(all);
        ensure(
            claimed.sample.as_ref() == report.step.sample() && claimed.probes == probes.drawn,
            "its check is not the one that was planned",
        )?;
        ensure(
            claimed.bytes_read == report.bytes && report.bytes <= all,
            "its check read other blocks than its seed draws",
        )?;
        ensure(complete || !self.claims(), "its check did not read all that its seed draws")?;
        ensure(claimed.bound == state.bound(&probes, report), "its bound does not follow from its probes")
    }

    /// The verdicts that say something of the device.
    fn claims(&self) -> bool {
        matches!(self.verdict, Verdict::Wiped | Verdict::Verified | Verdict::Residue)
    }

    fn check_verdict(&self) -> CheckResult {
        let survives = self.unchanged_key_bytes > Some(0)
            || !self.surviving.is_empty()
            || self.steps.iter().any(|step| !step.differing.is_empty());
        ensure(
            survives == (self.verdict == Verdict::Surviving),
            "its verdict hides what survives, or makes it up",
        )?;
        if !self.claims() {
            return Ok(());
        }
        let unusable = !self.residue.is_empty() || !self.unreadable.is_empty();
        let keys = self.plan.keys.is_some() == self.unchanged_key_bytes.is_some();
        ensure(keys && self.unchanged_key_bytes.unwrap_or(0) == 0, "its keys are not proven to be gone")?;
        let data = self.plan.keys.as_ref().and_then(|keys| keys.data);
        ensure(
            data.is_none_or(|sample| sample.holds()),
            "it destroyed keys beside data that is not encrypted",
        )?;
        ensure(self.error.is_none(), "it claims success with an error")?;
        ensure(unusable == (self.verdict == Verdict::Residue), "its verdict hides residue, or makes it up")?;
        ensure(
            self.plan.writes() != (self.verdict == Verdict::Verified),
            "its verdict is not that of its plan",
        )?;
        ensure(self.steps.len() == self.plan.steps.len(), "it claims success with steps undone")?;
        let checks = self.plan.steps.iter().any(|step| step.expected().is_some());
        ensure(checks == self.verification.is_some(), "its check is missing")?;
        let looked = self.plan.steps.iter().any(Step::finds_nonzero);
        ensure(looked == self.found_bytes.is_some(), "the non-zero bytes that it found are missing")?;
        let state = self.state_after(0);
        // What was not searched was not written either.
        let whole = |report: &&StepReport| report.step.writes() || report.step.finds_nonzero();
        for report in self.steps.iter().filter(whole) {
            ensure(
                report.flushed || !report.step.writes(),
                "it claims success with a pass that was not flushed",
            )?;
            let all = if report.step.covers_nonzero() {
                self.found_bytes == Some(report.covered.bytes)
            } else {
                report.covered == state.extents(&report.step).into()
            };
            ensure(all, "it claims success with a step that did not cover its area")?;
        }
        Ok(())
    }
}

/// What reads everything: a full check, or the map after a mismatch.
fn is_map(step: &Step) -> bool {
    step.expected().is_some() && step.covers_area()
}

/// Whether a sample can be drawn in this area, with no more work than any of ours.
fn fits(sample: &Sample, area: Extent) -> bool {
    let Sample { strata, per_stratum, block_bytes, confidence_ppm } = *sample;
    let probes = strata.checked_mul(per_stratum);
    let stratum_blocks = (area.len().checked_div(block_bytes)).and_then(|blocks| blocks.checked_div(strata));
    probes.is_some_and(|probes| (1..=PROBES_MAX).contains(&probes))
        && stratum_blocks.is_some_and(|blocks| blocks >= per_stratum)
        && (1..1_000_000).contains(&confidence_ppm)
}
