//! Whether a report that somebody kept can be true: its numbers are computed again from its plan.
//!
//! A certificate is checked with it by a stranger, so nothing in it is believed: every count that
//! leads to work or memory is looked at first.

use super::job::{JobReport, Last, places, served};
use super::sampling::{Bound, Probes};
use super::step::StepReport;
use crate::plan::{Act, PROBES_MAX, Sample};
use crate::range::{Extent, ExtentSet};
use crate::verdict::Verdict;

/// So that no sum of two sizes overflows.
pub const SIZE_MAX: u64 = 1 << 62;

type Checked = Result<(), String>;

fn hold(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

struct LastCheck<'a> {
    sample: Sample,
    last: Last,
    report: &'a StepReport,
    probes: Probes,
}

impl JobReport {
    /// Says what does not hold.
    pub fn check(&self) -> Checked {
        self.check_plan()?;
        self.check_steps()?;
        self.check_verification()?;
        self.check_verdict()
    }

    fn check_plan(&self) -> Checked {
        let (geometry, area) = (&self.geometry, self.plan.area);
        let blocks = [geometry.logical_block, geometry.physical_block, self.chunk_bytes];
        hold(blocks.iter().all(|block| (1..=1 << 40).contains(block)), "its blocks have no size")?;
        hold(geometry.size <= SIZE_MAX, "its device is larger than any")?;
        let unreadable = self.residue_unreadable.clone().without(&self.residue);
        hold(unreadable.is_empty(), "unreadable residue is no residue")?;
        hold(!area.is_empty() && area.end <= geometry.size, "its area is not on the device")?;
        hold(
            [&self.residue, &self.unreadable].iter().all(|set| self.inside(set)),
            "it tells of blocks outside its area",
        )?;
        hold(self.plan.partial == (area != Extent::new(0, geometry.size)), "it is not told if it is a part")?;
        let (served_area, _) = served(area, geometry, &self.io_path);
        for act in &self.plan.steps {
            let sample = match act {
                Act::Survey { sample } | Act::Check { sample, .. } => sample,
                Act::Replay { check, .. } => &check.sample,
                _ => continue,
            };
            hold(fits(sample, served_area), "its sample does not fit its area")?;
        }
        Ok(())
    }

    fn inside(&self, set: &ExtentSet) -> bool {
        set.iter().all(|each| each.intersect(self.plan.area) == each)
    }

    fn check_steps(&self) -> Checked {
        let planned = &self.plan.steps;
        for (number, step) in self.steps.iter().enumerate() {
            let as_planned = planned.get(number).map_or(is_map(&step.act), |act| *act == step.act);
            // After a mismatch the next step is the map.
            hold(as_planned || is_map(&step.act), "a step is not the one that was planned")?;
            let sets = [&step.unusable, &step.retried, &step.differing.extents];
            hold(sets.iter().all(|set| self.inside(set)), "a step tells of blocks outside its area")?;
            let residue = step.unusable.clone().without(&self.residue);
            hold(
                !step.act.writes() || residue.is_empty(),
                "what a pass could not write is not in the residue",
            )?;
        }
        let resumed = self.resumed.iter().all(|each| {
            let inside = (self.plan.area.start..=self.plan.area.end).contains(&each.upto);
            let fewer = each.fewer_passes_bytes <= self.plan.area.len();
            inside && fewer && each.step < planned.len() && self.plan.keys.is_none()
        });
        hold(resumed, "it went on where its plan has nothing")?;
        let before = self
            .before
            .iter()
            .all(|before| before.read_bytes >= before.zero_bytes.max(before.expected_bytes));
        hold(before, "more was found before than was read")
    }

    /// The last check that was begun: its places follow from the seed.
    fn last_check(&self) -> Option<LastCheck<'_>> {
        let told = self.verification.as_ref()?;
        let mut last = Last::default();
        let mut found = None;
        for (act, report) in self.plan.steps.iter().zip(&self.steps) {
            match act {
                Act::Check { sample, .. } => found = Some((*sample, last.clone(), report)),
                Act::Replay { check, .. } => {
                    last = Last { retried: check.retried.clone(), residue: check.residue.clone() };
                }
                Act::Find | Act::Survey { .. } => {}
                Act::Write { .. }
                | Act::WritePart { .. }
                | Act::WriteFound { .. }
                | Act::Zero
                | Act::Discard => {
                    last = Last::of(report);
                }
            }
        }
        let (sample, last, report) = found?;
        let (area, _) = served(self.plan.area, &self.geometry, &self.io_path);
        let probes = places(&sample, area, &self.geometry, &told.seed, self.chunk_bytes, &last);
        Some(LastCheck { sample, last, report, probes })
    }

    /// The blocks that the last check was to read, or all that it was followed by; of a report that
    /// was checked.
    pub fn places_read(&self) -> ExtentSet {
        if self.steps.iter().any(|step| is_map(&step.act)) {
            return self.plan.area.into();
        }
        self.last_check().map(|check| check.probes.extents).unwrap_or_default()
    }

    fn check_verification(&self) -> Checked {
        let Some(told) = &self.verification else { return Ok(()) };
        let check = self.last_check().ok_or("it tells of a check that was not planned")?;
        let LastCheck { sample, last, report, probes } = check;
        let all = probes.extents.bytes();
        let complete = report.bytes.checked_add(report.unusable.bytes()) == Some(all);
        hold(
            told.sample == sample && told.probes == probes.drawn,
            "its check is not the one that was planned",
        )?;
        hold(
            told.bytes_read == report.bytes && report.bytes <= all,
            "its check read other blocks than its seed draws",
        )?;
        hold(complete || !self.claims(), "its check did not read all that its seed draws")?;
        let clean =
            complete && report.unusable.is_empty() && report.differing.is_empty() && last.residue.is_empty();
        let bound = match (sample, probes.drawn) {
            (Sample::Stratified { confidence_ppm, .. }, Some(drawn)) if clean => {
                Some(Bound::of(drawn, confidence_ppm))
            }
            _ => None,
        };
        hold(told.bound == bound, "its bound does not follow from its probes")
    }

    /// The verdicts that say something of the device.
    fn claims(&self) -> bool {
        matches!(self.verdict, Verdict::Wiped | Verdict::Verified | Verdict::Residue)
    }

    fn check_verdict(&self) -> Checked {
        let survives = self.unchanged_key_bytes > Some(0)
            || !self.surviving.is_empty()
            || self.steps.iter().any(|step| !step.differing.is_empty());
        hold(
            survives == (self.verdict == Verdict::Surviving),
            "its verdict hides what survives, or makes it up",
        )?;
        if !self.claims() {
            return Ok(());
        }
        let unusable = !self.residue.is_empty() || !self.unreadable.is_empty();
        let keys = self.plan.keys.is_some() == self.unchanged_key_bytes.is_some();
        hold(keys && self.unchanged_key_bytes.unwrap_or(0) == 0, "its keys are not proven to be gone")?;
        let data = self.plan.keys.as_ref().and_then(|keys| keys.data);
        hold(
            data.is_none_or(|sample| sample.holds()),
            "it destroyed keys beside data that is not encrypted",
        )?;
        hold(self.error.is_none(), "it claims success with an error")?;
        hold(unusable == (self.verdict == Verdict::Residue), "its verdict hides residue, or makes it up")?;
        hold(
            self.plan.writes() != (self.verdict == Verdict::Verified),
            "its verdict is not that of its plan",
        )?;
        hold(self.steps.len() == self.plan.steps.len(), "it claims success with steps undone")?;
        let checks = self.plan.steps.iter().any(|act| matches!(act, Act::Check { .. }));
        hold(checks == self.verification.is_some(), "it does not tell of its check")?;
        let (area, _) = served(self.plan.area, &self.geometry, &self.io_path);
        let passes = self.steps.iter().filter(|step| step.act.writes());
        let found_bytes = self.found_bytes.unwrap_or(0);
        let looked = self.plan.steps.contains(&Act::Find);
        hold(looked == self.found_bytes.is_some(), "it does not tell what it found")?;
        for pass in passes {
            hold(pass.flushed, "it claims success with a pass that was not flushed")?;
            let bytes = match &pass.act {
                Act::WritePart { part, .. } => part.bytes(),
                Act::WriteFound { .. } => found_bytes,
                _ => area.len(),
            };
            let all = pass.bytes.checked_add(pass.unusable.bytes()) == Some(bytes);
            hold(all, "it claims success with a pass that did not cover its area")?;
        }
        Ok(())
    }
}

/// What reads everything: a full check, or the map after a mismatch.
fn is_map(act: &Act) -> bool {
    matches!(act, Act::Check { sample: Sample::Full, .. })
}

/// Whether a sample can be drawn in this area, with no more work than any of ours.
fn fits(sample: &Sample, area: Extent) -> bool {
    let Sample::Stratified { strata, per_stratum, block_bytes, confidence_ppm } = *sample else {
        return true;
    };
    let probes = strata.checked_mul(per_stratum);
    let stratum_blocks = (area.len().checked_div(block_bytes)).and_then(|blocks| blocks.checked_div(strata));
    probes.is_some_and(|probes| (1..=PROBES_MAX).contains(&probes))
        && stratum_blocks.is_some_and(|blocks| blocks >= per_stratum)
        && (1..1_000_000).contains(&confidence_ppm)
}
