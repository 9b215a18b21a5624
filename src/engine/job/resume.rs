//! Checkpoints of a job, and how another process resumes from one.
//!
//! What lies below the watermark was flushed, so an honest disk holds it still. It is trusted only
//! where the caller has excluded foreign writes, and even then the last epoch is read
//! again; else all of it is, and what lies above is compared with what the pass before left there, so
//! that no pass is claimed of bytes that this disk does not show it for. What differs is written
//! again. What another process read is never trusted: a check begins again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Halt, JobRun, SurveyResult};
use crate::engine::event::Event;
use crate::engine::step::StepReport;
use crate::pattern::Pattern;
use crate::plan::Step;
use crate::range::{Extent, ExtentSet};

/// All that another process needs, after each epoch and each step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Those that have ended.
    pub steps: Vec<StepReport>,
    /// The one that has not, up to its last checkpoint.
    pub running: Option<StepReport>,
    /// The last epoch that was written and flushed, of whatever step.
    pub epoch: Option<Extent>,
    /// What the survey found before the first pass, where it was made.
    pub survey: Option<SurveyResult>,
    /// Each time that the job went on before this checkpoint.
    pub resumed: Vec<Resumption>,
}

/// A process, on any boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobProcess {
    /// As that process saw itself: numbers repeat, and differ between PID namespaces.
    pub pid: u32,
    /// `/proc/sys/kernel/random/boot_id`: different after each boot.
    pub boot_id: String,
}

/// Where another process left off, and what it is worth.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Its last checkpoint.
    pub progress: Checkpoint,
    /// Foreign writes are excluded: boot, disk and its write counter are unchanged.
    pub trusted: bool,
    /// The process that wrote the checkpoint.
    pub earlier: JobProcess,
    /// The process that resumes.
    pub now: JobProcess,
}

/// That a job went on after it had ended too early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Resumption {
    /// When it went on.
    pub at: Timestamp,
    /// The process whose work was gone on with; `None` in a record of version 2.
    pub earlier: Option<JobProcess>,
    /// The process that went on.
    pub now: Option<JobProcess>,
    /// The step that went on, from 0.
    pub step: usize,
    /// Where the earlier process left off in that step, absolute on the device.
    pub upto: u64,
    /// Foreign writes since the interruption were excluded, so that only the last epoch was read again.
    pub trusted: bool,
    /// How much of the earlier work was read again.
    pub reread_bytes: u64,
    /// Of these: not what they should have been, or not readable. What the next pass had begun before
    /// it was journaled counts too.
    pub differing_bytes: u64,
    /// Of the area: what did not show that the passes before this step had been there. Of these bytes
    /// only the passes from this step on are known.
    #[serde(default)]
    pub fewer_passes_bytes: u64,
    /// The last epoch had been flushed, there were no foreign writes, and it still differed: the
    /// disk does not keep what it says that it has.
    pub lost_flushed: bool,
}

/// A step that goes on: what is kept of its work, and what it still has to do.
pub(super) struct Remaining {
    pub before: StepReport,
    pub area: ExtentSet,
}

impl JobRun<'_> {
    pub(super) fn progress(&self, running: Option<StepReport>) -> Checkpoint {
        Checkpoint {
            steps: self.steps.clone(),
            running,
            epoch: self.epoch,
            survey: self.survey,
            resumed: self.resumed.clone(),
        }
    }

    /// Goes back to where the earlier process was; gives the step to go on with.
    pub(super) fn restore(&mut self, plan: &[Step], resume: Resume) -> Result<usize, Halt> {
        let mut resumption = Resumption::of(&resume, self.state.area.start);
        let Checkpoint { mut steps, running, epoch, survey, resumed } = resume.progress;
        (self.survey, self.resumed) = (survey, resumed);
        if plan.iter().any(Step::finds_nonzero) {
            // What others wrote in between lies where nothing was found.
            self.resumed.push(resumption);
            return Ok(0);
        }
        let mut running = running.filter(|report| report.step.writes());
        if running.is_none()
            && let Some(last) = steps.iter().rposition(|report| report.step.writes())
        {
            // Reading begins again; what it is to read was written before.
            steps.truncate(last + 1);
            running = steps.pop();
        }
        steps.into_iter().for_each(|report| self.push(report));
        let number = self.steps.len();
        (self.epoch, resumption.step) = (epoch, number);
        match running {
            Some(running) => self.reread_written(plan, running, &mut resumption)?,
            None if number == 0 => return Ok(0),
            None => {}
        }
        self.resumed.push(resumption);
        Ok(number)
    }

    /// Reads what the earlier process wrote, as far as it is not trusted, and leaves to the step what
    /// it still has to write.
    fn reread_written(
        &mut self,
        plan: &[Step],
        before: StepReport,
        resumption: &mut Resumption,
    ) -> Result<(), Halt> {
        let number = resumption.step;
        let step = &plan[number];
        let all = self.state.extents(step);
        let done = all.clone().intersect(&before.done());
        let remaining = all.clone().without(&before.covered.extents);
        let upto = before.covered.extents.iter().last().map_or(self.state.area.start, |last| last.end);
        resumption.upto = upto;

        let own = step.leaves();
        let next = plan[number + 1..].iter().find(|step| step.writes()).and_then(Step::leaves);
        let late_from = self.epoch.unwrap_or(self.state.area).start.min(upto);
        let late_from = if resumption.trusted && own.is_some() { late_from } else { 0 };
        let below = ExtentSet::from(Extent::new(0, late_from));
        let (early, late) = (done.clone().intersect(&below), done.without(&below));
        let mut seen = self.read_again(plan, own.as_ref(), next.as_ref(), late, resumption)?;
        resumption.lost_flushed = resumption.trusted && resumption.differing_bytes > 0;
        if resumption.lost_flushed {
            seen.add(self.read_again(plan, own.as_ref(), next.as_ref(), early, resumption)?);
        }
        let earlier_pass = plan[..number].iter().rev().find(|step| step.writes());
        if let Some(earlier_pass) = earlier_pass.filter(|_| !resumption.trusted || resumption.lost_flushed) {
            let above = remaining.clone().without(&self.state.residue);
            let differed = resumption.differing_bytes;
            let left = earlier_pass.leaves();
            seen.unknown_bytes +=
                self.read_again(plan, left.as_ref(), own.as_ref(), above, resumption)?.unknown_bytes;
            // It was to be written in any case.
            resumption.differing_bytes = differed;
            resumption.fewer_passes_bytes = seen.unknown_bytes;
        }
        let mut again = seen.differing;
        before.unusable.iter().chain(remaining.iter()).for_each(|extent| again.insert(extent));
        let area = again.intersect(&all);
        let covered = all.without(&area).into();
        self.remaining =
            Some(Remaining { before: StepReport { covered, unusable: ExtentSet::new(), ..before }, area });
        Ok(())
    }

    /// Reads `range` for what does not hold `expect`, and counts of it what `or` does not explain: the
    /// pattern of the pass that was writing next, whose last blocks may be torn and hold some of each.
    fn read_again(
        &mut self,
        plan: &[Step],
        expect: Option<&Pattern>,
        or: Option<&Pattern>,
        range: ExtentSet,
        resumption: &mut Resumption,
    ) -> Result<Reread, Halt> {
        let Some(expect) = expect.filter(|_| !range.is_empty()) else {
            return Ok(Reread { unknown_bytes: range.bytes(), differing: range });
        };
        let compare = Step::compare(expect.clone(), None);
        let (step, steps) = (resumption.step, plan.len());
        self.emitter.emit(Event::StepStarted {
            step,
            steps,
            step_name: RESUMING.into(),
            bytes: range.bytes(),
        });
        let (chunk, area) = (self.settings.chunk_bytes, self.state.area);
        let mut seen = Reread::default();
        let on_read = &mut |block: Extent, bytes: &[u8]| {
            seen.differing.insert(block.widen(chunk).intersect(area));
            let known = or.is_some_and(|or| holds_some_of_each([expect, or], block.start, bytes));
            seen.unknown_bytes += if known { 0 } else { block.len() };
        };
        let (read, halt) = self.cover_silently(step, &compare, &range, on_read);
        resumption.reread_bytes += read.bytes;
        resumption.differing_bytes += read.differing.bytes + read.unusable.bytes();
        seen.unknown_bytes += read.unusable.bytes();
        read.unusable.iter().for_each(|extent| seen.differing.insert(extent));
        halt.map_or(Ok(seen), Err)
    }
}

/// The name of the step in progress reports while the work of the earlier process is read again.
const RESUMING: &str = "read again what was written";

/// What reading again found.
#[derive(Default)]
struct Reread {
    /// The transfers that hold something else than they should, or cannot be read.
    differing: ExtentSet,
    /// Of their blocks: what no pass of the plan has left there.
    unknown_bytes: u64,
}

impl Reread {
    fn add(&mut self, more: Reread) {
        more.differing.iter().for_each(|extent| self.differing.insert(extent));
        self.unknown_bytes += more.unknown_bytes;
    }
}

fn holds_some_of_each(patterns: [&Pattern; 2], at: u64, bytes: &[u8]) -> bool {
    let [one, other] = patterns.map(|pattern| {
        let mut filled = vec![0; bytes.len()];
        pattern.fill(at, &mut filled);
        filled
    });
    bytes.iter().zip(one.iter().zip(&other)).all(|(byte, (one, other))| byte == one || byte == other)
}

impl Resumption {
    fn of(resume: &Resume, upto: u64) -> Resumption {
        Resumption {
            at: Timestamp::now(),
            earlier: Some(resume.earlier.clone()),
            now: Some(resume.now.clone()),
            step: 0,
            upto,
            trusted: resume.trusted,
            reread_bytes: 0,
            differing_bytes: 0,
            fewer_passes_bytes: 0,
            lost_flushed: false,
        }
    }
}
