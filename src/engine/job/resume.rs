//! How far a job has come, and how another process goes on from there.
//!
//! What lies below the watermark was flushed, so an honest disk holds it still. It is believed only
//! where the caller knows that nobody can have written since, and even then the last epoch is read
//! again; else all of it is. What differs is written again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Before, Halt, Job, Last, Verification};
use crate::engine::event::Event;
use crate::engine::step::StepReport;
use crate::pattern::Pattern;
use crate::plan::{Act, Sample};
use crate::range::{Extent, ExtentSet};

/// All that another process needs, after each epoch and each step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Those that have ended.
    pub steps: Vec<StepReport>,
    /// The one that has not.
    pub running: Option<Running>,
    /// The last epoch that was written and flushed, of whatever step.
    pub epoch: Option<Extent>,
    pub residue_unreadable: ExtentSet,
    /// Of a thin volume: what was not zero.
    pub found: Option<ExtentSet>,
    pub before: Option<Before>,
    pub verification: Option<Verification>,
    pub resumed: Vec<Resumption>,
}

/// A step up to its last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub report: StepReport,
    /// Everything of its area that lies below was visited.
    pub upto: u64,
}

/// Where another process left off, and what it is worth.
#[derive(Clone, Debug)]
pub struct Resume {
    pub progress: Progress,
    /// Nobody can have written since: the machine, the disk and its count of writes are as they were.
    pub believed: bool,
}

/// That a job went on after it had ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumption {
    pub at: Timestamp,
    /// The step that went on, from 0.
    pub step: usize,
    pub upto: u64,
    /// Nobody can have written since the end before, so that only the last epoch was read again.
    pub believed: bool,
    pub reread_bytes: u64,
    /// Of these: not what they should have been, or not readable. What the next pass had begun before
    /// it was journaled counts too.
    pub differing_bytes: u64,
    /// The last epoch had been flushed, nobody had written since, and it was something else: the
    /// disk does not keep what it says that it has.
    pub lost_flushed: bool,
}

/// A step that goes on: what is kept of its work, and what it still has to do.
pub(super) struct Rest {
    pub before: StepReport,
    pub area: ExtentSet,
}

impl Job<'_> {
    pub(super) fn progress(&self, running: Option<Running>) -> Progress {
        Progress {
            steps: self.steps.clone(),
            running,
            epoch: self.epoch,
            residue_unreadable: self.residue_unreadable.clone(),
            found: self.found.clone(),
            before: self.before,
            verification: self.verification.clone(),
            resumed: self.resumed.clone(),
        }
    }

    /// Goes back to where the earlier process was; gives the step to go on with.
    pub(super) fn take_up(&mut self, acts: &[Act], resume: Resume) -> Result<usize, Halt> {
        let Resume { progress, believed } = resume;
        let Progress { mut steps, mut running, epoch, .. } = progress;
        (self.before, self.resumed) = (progress.before, progress.resumed);
        if !believed && acts.contains(&Act::Find) {
            // What others wrote in between lies where nothing was found.
            self.resumed.push(Resumption::of(0, self.area.start, believed));
            return Ok(0);
        }
        self.found = progress.found;
        let reads_on = running.as_ref().is_some_and(|running| {
            let all = matches!(running.report.act, Act::Check { sample: Sample::Full, .. });
            believed && all && running.report.differing.is_empty()
        });
        if !reads_on && !running.as_ref().is_some_and(|running| running.report.act.writes()) {
            // Reading begins anew; what it is to read was written before.
            running = None;
            if let Some(last) = steps.iter().rposition(|step| step.act.writes()) {
                steps.truncate(last + 1);
                running = steps.pop().map(|report| Running { report, upto: self.area.end });
            }
        }
        let step = steps.len();
        if reads_on {
            self.residue_unreadable = progress.residue_unreadable;
        }
        if steps.iter().any(|step| step.act.expects().is_some()) {
            self.verification = progress.verification;
        }
        // What a survey could not read is nobody's loss.
        for step in steps.iter().filter(|step| !matches!(step.act, Act::Survey { .. })) {
            let found = if step.act.writes() { &mut self.residue } else { &mut self.unreadable };
            step.unusable.iter().for_each(|extent| found.insert(extent));
        }
        self.last = steps.iter().rev().find(|step| step.act.writes()).map(Last::of).unwrap_or_default();
        (self.steps, self.epoch) = (steps, epoch);
        let Some(Running { report, upto }) = running else { return Ok(step) };
        if reads_on {
            let (_, rest) = self.area.split(upto.clamp(self.area.start, self.area.end));
            self.rest = Some(Rest { before: report, area: rest.into() });
            self.resumed.push(Resumption::of(step, upto, believed));
        } else if let Some(expect) = left_by(&acts[step]) {
            let epoch = self.epoch.unwrap_or(self.area);
            self.rest =
                Some(self.read_again(step, acts, &expect, believed.then_some(epoch), report, upto)?);
        }
        Ok(step)
    }

    /// Reads what was written below the watermark, or its last epoch; gives what is left to be written.
    fn read_again(
        &mut self,
        step: usize,
        acts: &[Act],
        expect: &Pattern,
        epoch: Option<Extent>,
        before: StepReport,
        upto: u64,
    ) -> Result<Rest, Halt> {
        let all = self.area_of(&acts[step]);
        let part = |from: u64, to: u64| all.clone().intersect(&Extent::new(from.min(to), to).into());
        let (done, rest) = (part(0, upto), part(upto, self.area.end));
        let mut resumption = Resumption::of(step, upto, epoch.is_some());
        let (early, late) = match epoch {
            Some(epoch) => (part(0, epoch.start.min(upto)), part(epoch.start, upto)),
            None => (ExtentSet::new(), done),
        };
        let known = &before.unusable;
        let mut again = self.differing(step, acts, expect, late, known, &mut resumption)?;
        if !again.is_empty() && !early.is_empty() {
            resumption.lost_flushed = true;
            let more = self.differing(step, acts, expect, early, known, &mut resumption)?;
            more.iter().for_each(|extent| again.insert(extent));
        }
        known.iter().chain(rest.iter()).for_each(|extent| again.insert(extent));
        let again = again.intersect(&all);
        self.resumed.push(resumption);
        let kept = all.without(&again).bytes();
        let before = StepReport { bytes: kept, unusable: ExtentSet::new(), ..before };
        Ok(Rest { before, area: again })
    }

    /// The transfers of `range` that hold something else than they should, or cannot be read.
    fn differing(
        &mut self,
        step: usize,
        acts: &[Act],
        expect: &Pattern,
        range: ExtentSet,
        known: &ExtentSet,
        resumption: &mut Resumption,
    ) -> Result<ExtentSet, Halt> {
        let act = Act::Check { expect: expect.clone(), sample: Sample::Full };
        let range = range.without(known);
        let steps = acts.len();
        self.emitter.emit(Event::StepStarted { step, steps, act: RESUMING.into(), bytes: range.bytes() });
        let (chunk, area) = (self.settings.chunk_bytes, self.area);
        let mut differing = ExtentSet::new();
        let see = &mut |block: Extent, _: &[u8]| differing.insert(block.widen(chunk).intersect(area));
        let (read, halt) = self.quietly(step, &act, &range, see);
        resumption.reread_bytes += read.bytes;
        resumption.differing_bytes += read.differing.bytes + read.unusable.bytes();
        read.unusable.iter().for_each(|extent| differing.insert(extent));
        halt.map_or(Ok(differing), Err)
    }
}

/// What a person is told while the work of the earlier process is looked at.
const RESUMING: &str = "read again what was written";

impl Resumption {
    fn of(step: usize, upto: u64, believed: bool) -> Resumption {
        let at = Timestamp::now();
        Resumption { at, step, upto, believed, reread_bytes: 0, differing_bytes: 0, lost_flushed: false }
    }
}

/// What can be read again where this act was; none where nothing certain can.
fn left_by(act: &Act) -> Option<Pattern> {
    match act {
        Act::Write { pattern } | Act::WriteFound { pattern } => Some(pattern.clone()),
        Act::Zero => Some(Pattern::zero()),
        _ => None,
    }
}
