//! A job: the execution of one plan on one disk, up to the verdict.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::comparison::Comparison;
use super::cover::{Halt, StepContext, cover};
use super::event::{Emitter, Event};
use super::fingerprints::FingerprintSet;
use super::step::StepReport;
use super::survivors::{MismatchClassifier, Survivors};
use super::throttle::Throttle;
use super::{Settings, Stop};
use crate::error::{Error, Result};
use crate::io::{Disk, Geometry};
use crate::luks::data::is_uniform;
use crate::pattern::{Pattern, Seed};
use crate::plan::{KeyPlan, OnMismatch, Operation, Plan, Step};
use crate::range::{Extent, ExtentSet};
use crate::verdict::Verdict;

mod report;
mod resume;
mod state;

pub use report::{JobReport, SurveyResult, Verification};
use resume::Remaining;
pub use resume::{Checkpoint, JobProcess, Resume, Resumption};
pub(super) use state::JobState;

/// A step begins by a look at what lies below that is no older than this: as much can lie between a look and
/// the step's first I/O. The look after the last step is always a new one.
const LOOK_AGE_MAX: Duration = Duration::from_millis(50);

/// What a job needs besides its disk and its plan.
pub struct JobContext<'a> {
    /// Those that the disk's queue depth was chosen by ([`Settings::depth_max`]).
    pub settings: &'a Settings,
    /// Looked at before each I/O.
    pub stop: &'a Stop,
    /// Events go there, and the job never waits for a receiver.
    pub emitter: &'a Emitter,
    /// Gives the seeds of the samples, each after the flush before it.
    pub draw: &'a mut dyn FnMut() -> Result<Seed>,
    /// Keeps how far it is, after each epoch and each step, before anything else is done.
    pub keep: &'a mut dyn FnMut(&Checkpoint),
}

/// Carries a plan out, or what another process left of it.
/// Never fails as a call: an error is part of the report, with all that was done before it. Call it on the
/// thread that opened the disk.
pub fn run(disk: &mut dyn Disk, plan: Plan, resume: Option<Resume>, context: JobContext) -> JobReport {
    let geometry = disk.geometry();
    let io_path = disk.io_path().clone();
    let JobContext { settings, stop, emitter, draw, keep } = context;
    emitter.emit(Event::Started { geometry, io_path: io_path.clone(), plan: plan.clone() });
    let mut job = JobRun::new(disk, settings, stop, emitter, keep, &plan);
    let halt = job.run(&plan.steps, resume, draw);
    let verdict = job.verdict(&halt, plan.writes());
    let error = match halt {
        Some(Halt::Failed(error) | Halt::Abandoned(error)) => Some(error.to_string()),
        Some(Halt::Asked(_)) | None => None,
    };
    let JobRun {
        steps,
        state: JobState { residue, unreadable, nonzero, .. },
        surviving,
        survey,
        verification,
        unchanged_key_bytes,
        residue_unreadable,
        resumed,
        ..
    } = job;
    JobReport {
        verdict,
        plan,
        geometry,
        io_path,
        steps,
        residue,
        residue_unreadable,
        unreadable,
        surviving,
        survey,
        verification,
        unchanged_key_bytes,
        found_bytes: nonzero.map(|nonzero| nonzero.bytes()),
        chunk_bytes: settings.chunk_bytes,
        resumed,
        error,
    }
}

/// The survey is given up after this many failed reads: each can take a drive's full error recovery time.
const SURVEY_ERRORS_MAX: u64 = 16;

/// The smallest block of a thin pool: nothing is gained by looking more closely.
const FIND_BYTES: u64 = 64 << 10;

struct JobRun<'a> {
    disk: &'a mut dyn Disk,
    settings: &'a Settings,
    /// Of all steps: what it learned of a neighbour in one holds in the next.
    throttle: Throttle,
    stop: &'a Stop,
    emitter: &'a Emitter,
    keep: &'a mut dyn FnMut(&Checkpoint),
    geometry: Geometry,
    state: JobState,
    steps: Vec<StepReport>,
    residue_unreadable: ExtentSet,
    surviving: Survivors,
    survey: Option<SurveyResult>,
    fingerprint_set: Option<FingerprintSet>,
    verification: Option<Verification>,
    /// Where the keys are that are to be destroyed.
    key_material: Option<ExtentSet>,
    unchanged_key_bytes: Option<u64>,
    /// The last epoch that was written.
    epoch: Option<Extent>,
    /// Of the step that goes on.
    remaining: Option<Remaining>,
    resumed: Vec<Resumption>,
}

impl<'a> JobRun<'a> {
    fn new(
        disk: &'a mut dyn Disk,
        settings: &'a Settings,
        stop: &'a Stop,
        emitter: &'a Emitter,
        keep: &'a mut dyn FnMut(&Checkpoint),
        plan: &Plan,
    ) -> JobRun<'a> {
        let geometry = disk.geometry();
        let state = JobState::new(plan, &geometry, disk.io_path(), settings.chunk_bytes);
        let throttle = Throttle::new(settings, disk.clock().now());
        JobRun {
            disk,
            settings,
            throttle,
            stop,
            emitter,
            keep,
            geometry,
            state,
            steps: Vec::new(),
            residue_unreadable: ExtentSet::new(),
            surviving: Survivors::default(),
            survey: None,
            fingerprint_set: None,
            verification: None,
            key_material: plan.keys.as_ref().map(KeyPlan::material),
            unchanged_key_bytes: None,
            epoch: None,
            remaining: None,
            resumed: Vec::new(),
        }
    }

    fn run(
        &mut self,
        steps: &[Step],
        resume: Option<Resume>,
        draw: &mut dyn FnMut() -> Result<Seed>,
    ) -> Option<Halt> {
        let first = match resume.map(|resume| self.restore(steps, resume)) {
            None => 0,
            Some(Ok(number)) => number,
            Some(Err(halt)) => return Some(halt),
        };
        for (number, step) in steps.iter().enumerate().skip(first) {
            let lately = Instant::now().checked_sub(LOOK_AGE_MAX).unwrap_or_else(Instant::now);
            if let Err(halt) =
                self.same_disk(lately).and_then(|()| self.drop_caches(number == first || !step.writes()))
            {
                return Some(halt);
            }
            let done = match step.operation() {
                Operation::Write { .. } | Operation::WriteZeroes | Operation::Discard => {
                    Ok(self.write(number, steps))
                }
                Operation::FindNonZero => Ok(self.find(number, steps)),
                Operation::Fingerprint if self.fingerprint_set.is_some() => {
                    Ok(self.compare_keys(number, steps))
                }
                Operation::Fingerprint => draw().and_then(|seed| self.take_survey(number, steps, seed)),
                Operation::Compare { pattern } => match step.earlier_check() {
                    Some(earlier) => {
                        let places = self.state.probes(step, &earlier.seed).extents;
                        Ok(self.compare(number, steps, step, pattern, &places))
                    }
                    None => draw().map(|seed| self.check(number, steps, pattern, seed)),
                },
            };
            if let Some(halt) = done.unwrap_or_else(|error| Some(Halt::Failed(error))) {
                return Some(halt);
            }
            if !self.surviving.is_empty() {
                // Nothing that comes after it makes the claim true.
                return self.map_differences(steps, step).or_else(|| self.same_disk(Instant::now()).err());
            }
            let progress = self.progress(None);
            (self.keep)(&progress);
        }
        self.same_disk(Instant::now()).err()
    }

    /// The report of a step that has ended, or was given up.
    fn push(&mut self, report: StepReport) {
        self.state.add(&report);
        self.steps.push(report);
    }

    /// A disk that was swapped or resized between two passes is not the one that was to be wiped.
    fn same_disk(&self, since: Instant) -> std::result::Result<(), Halt> {
        let look = || self.disk.unchanged(since);
        let unchanged = self.emitter.calls.within("look at what lies below", self.state.area, look);
        unchanged.map_err(|error| {
            let changed = Error::failed("the device changed while it was in use").because(error);
            Halt::Failed(
                changed.with_remedy("see what is behind this path now (efface list), and wipe it again"),
            )
        })
    }

    /// What the caches of others hold would be written over a pass, or read in place of the storage.
    fn drop_caches(&mut self, matters: bool) -> std::result::Result<(), Halt> {
        if !matters {
            return Ok(());
        }
        let (disk, area) = (&mut self.disk, self.state.area);
        let dropped = self.emitter.calls.within("emptying of page caches", area, || disk.drop_caches());
        dropped.map_err(|error| {
            let failed = Error::failed("page caches over the same bytes cannot be emptied").because(error);
            Halt::Failed(failed.with_remedy("see what the kernel says of the devices below: dmesg"))
        })
    }

    /// Reads drawn blocks before the first pass. What cannot be read is no reason not to write.
    fn take_survey(&mut self, number: usize, steps: &[Step], seed: Seed) -> Result<Option<Halt>> {
        let block = self.geometry.logical_block;
        let drawn = self.state.drawn(&steps[number], &seed);
        let expect = steps.iter().rev().find_map(Step::expected);
        let mut fingerprint_set = FingerprintSet::new(block)?;
        let mut survey = SurveyResult { seed, read_bytes: 0, zero_bytes: 0, expected_bytes: 0 };
        let mut zero = Comparison::new(&Pattern::zero(), block);
        let mut expected = expect.map(|expect| Comparison::new(expect, block));
        let mut on_read = |extent: Extent, bytes: &[u8]| {
            fingerprint_set.keep(extent.start, bytes);
            survey.read_bytes += extent.len();
            survey.zero_bytes += zero.equal_bytes(extent, bytes);
            survey.expected_bytes +=
                expected.as_mut().map_or(0, |expected| expected.equal_bytes(extent, bytes));
        };
        let settings = Settings { errors_max: SURVEY_ERRORS_MAX, ..*self.settings };
        let (report, halt) = self.cover(number, steps.len(), &steps[number], &drawn, &settings, &mut on_read);
        self.push(report);
        (self.survey, self.fingerprint_set) = (Some(survey), Some(fingerprint_set));
        Ok(halt.filter(|halt| !matches!(halt, Halt::Failed(_))))
    }

    /// Reads all of it for what is not zero; what cannot be read may be anything.
    fn find(&mut self, number: usize, steps: &[Step]) -> Option<Halt> {
        let mut found = ExtentSet::new();
        let mut on_read = |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(FIND_BYTES).zip(bytes.chunks(FIND_BYTES as usize)) {
                if bytes.iter().any(|byte| *byte != 0) {
                    found.insert(at);
                }
            }
        };
        let settings = *self.settings;
        let step = &steps[number];
        let all = self.state.extents(step);
        let (report, halt) = self.cover(number, steps.len(), step, &all, &settings, &mut on_read);
        report.unusable.iter().for_each(|extent| found.insert(extent));
        self.push(report);
        self.state.nonzero = Some(found);
        halt
    }

    /// Looks again at what was surveyed: no block of key material may be what it was.
    fn compare_keys(&mut self, number: usize, steps: &[Step]) -> Option<Halt> {
        let block = self.geometry.logical_block;
        let material = self.key_material.clone().unwrap_or_default();
        let fingerprint_set = self.fingerprint_set.take();
        let mut unchanged = 0;
        let mut on_read = |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(block).zip(bytes.chunks(block as usize)) {
                let same = fingerprint_set
                    .as_ref()
                    .is_some_and(|fingerprint_set| fingerprint_set.holds(at.start, bytes));
                // One byte over and over is no key, and may well be what was to be written.
                let key = material.contains(at.start) && !is_uniform(bytes);
                unchanged += if same && key { at.len() } else { 0 };
            }
        };
        let settings = *self.settings;
        let all = self.state.area.into();
        let (report, halt) = self.cover(number, steps.len(), &steps[number], &all, &settings, &mut on_read);
        self.push(report);
        self.unchanged_key_bytes = Some(unchanged);
        halt
    }

    fn write(&mut self, number: usize, steps: &[Step]) -> Option<Halt> {
        let (settings, step) = (*self.settings, &steps[number]);
        let extents = self.state.extents(step);
        let (mut report, mut halt) =
            self.cover(number, steps.len(), step, &extents, &settings, &mut |_, _| {});
        // What is only given back after it counts for nothing.
        let last = steps[number + 1..].iter().all(|step| !step.writes() || step.discards());
        if last && halt.is_none() && !report.unusable.is_empty() {
            halt = self.retry_unusable(number, step, &mut report);
        }
        self.push(report);
        halt
    }

    /// Tries what the last pass could not write once more: a drive may have found other sectors for it
    /// by now. Then it is read: what can be read can be found by others.
    fn retry_unusable(&mut self, number: usize, step: &Step, report: &mut StepReport) -> Option<Halt> {
        let failed = report.unusable.clone();
        let (again, halt) = self.cover_silently(number, step, &failed, &mut |_, _| {});
        report.bytes += again.bytes;
        report.failed_bytes += again.failed_bytes;
        report.errors += again.errors;
        report.milliseconds += again.milliseconds;
        report.ended = again.ended;
        report.flushed &= again.flushed;
        if halt.is_some() {
            // What was not tried again is what it was.
            return halt;
        }
        let written = failed.without(&again.unusable);
        written.iter().for_each(|extent| report.retried.insert(extent));
        report.unusable = again.unusable;
        if report.unusable.is_empty() {
            return None;
        }
        let read = Step::fingerprint(None);
        let (read, halt) = self.cover_silently(number, &read, &report.unusable, &mut |_, _| {});
        self.residue_unreadable = read.unusable;
        halt
    }

    /// A cover that is no step of the plan.
    fn cover_silently(
        &mut self,
        number: usize,
        step: &Step,
        area: &ExtentSet,
        on_read: &mut dyn FnMut(Extent, &[u8]),
    ) -> (StepReport, Option<Halt>) {
        let JobRun { disk, settings, throttle, stop, emitter, .. } = self;
        let checkpoint = &mut |_: &StepReport, _| {};
        cover(
            StepContext { disk: &mut **disk, settings, throttle, stop, emitter, number, on_read, checkpoint },
            step,
            area,
        )
    }

    /// Reads back what the pass before could write: its residue is known to be something else.
    fn check(&mut self, number: usize, steps: &[Step], expected: &Pattern, seed: Seed) -> Option<Halt> {
        let drawn = Timestamp::now();
        let step = &steps[number];
        let probes = self.state.probes(step, &seed);
        let halt = self.compare(number, steps, step, expected, &probes.extents);
        let report = self.steps.last().expect("the check's own");
        self.verification = Some(Verification {
            sample: step.sample().copied(),
            seed,
            drawn,
            probes: probes.drawn,
            bytes_read: report.bytes,
            bound: self.state.bound(&probes, report),
        });
        halt
    }

    /// Reads everything after a sample that found a difference.
    fn map_differences(&mut self, steps: &[Step], step: &Step) -> Option<Halt> {
        let expected = step.expected().filter(|_| step.sample().is_some())?;
        if self.settings.on_mismatch == OnMismatch::Stop {
            return None;
        }
        let map = Step::compare(expected.clone(), None);
        let all = ExtentSet::from(self.state.area).without(&self.state.last_pass.residue);
        self.compare(self.steps.len(), steps, &map, expected, &all)
    }

    /// Reads, and finds out what is there where it is not what it should be.
    fn compare(
        &mut self,
        number: usize,
        steps: &[Step],
        step: &Step,
        expected: &Pattern,
        extents: &ExtentSet,
    ) -> Option<Halt> {
        let fingerprint_set = self.fingerprint_set.take();
        let block_bytes = self.geometry.logical_block;
        let mut classifier =
            MismatchClassifier::new(expected, steps, fingerprint_set.as_ref(), self.state.area, block_bytes);
        let settings = *self.settings;
        let count = steps.len().max(number + 1);
        let (report, halt) = self.cover(number, count, step, extents, &settings, &mut |at, bytes| {
            classifier.classify_block(at, bytes)
        });
        if !report.differing.is_empty() {
            self.surviving = classifier.end(self.stop);
        }
        self.fingerprint_set = fingerprint_set;
        self.push(report);
        halt
    }

    /// Runs step `number` of `count`.
    fn cover(
        &mut self,
        number: usize,
        count: usize,
        step: &Step,
        extents: &ExtentSet,
        settings: &Settings,
        on_read: &mut dyn FnMut(Extent, &[u8]),
    ) -> (StepReport, Option<Halt>) {
        let (before, extents) = match self.remaining.take() {
            Some(Remaining { before, area: left }) => (Some(before), extents.clone().intersect(&left)),
            None => (None, extents.clone()),
        };
        let mut progress = self.progress(None);
        let JobRun { disk, throttle, stop, emitter, keep, epoch, .. } = self;
        let bytes = extents.bytes();
        emitter.emit(Event::StepStarted { step: number, steps: count, step_name: step.to_string(), bytes });
        let whole = |report: StepReport| match &before {
            Some(before) => report.after(before),
            None => report,
        };
        let mut from = extents.iter().next().map_or(0, |first| first.start);
        let checkpoint = &mut |report: &StepReport, upto: u64| {
            emitter.emit(Event::Checkpoint { step: number, upto });
            // An end that was asked for right behind a flush is no epoch.
            if step.writes() && upto > from {
                *epoch = Some(Extent::new(from, upto));
                from = upto;
            }
            progress.epoch = *epoch;
            progress.running = Some(whole(report.clone()));
            keep(&progress);
        };
        let context =
            StepContext { disk: &mut **disk, settings, throttle, stop, emitter, number, on_read, checkpoint };
        let (report, halt) = cover(context, step, &extents);
        let report = whole(report);
        if halt.is_none() {
            emitter.emit(Event::StepEnded { step: number, report: report.clone() });
        }
        (report, halt)
    }

    fn verdict(&self, halt: &Option<Halt>, writes: bool) -> Verdict {
        let unusable = !self.state.residue.is_empty() || !self.state.unreadable.is_empty();
        match halt {
            // Surviving data is the worst news, whatever came after it.
            _ if !self.surviving.is_empty() || self.unchanged_key_bytes > Some(0) => Verdict::Surviving,
            Some(Halt::Failed(error) | Halt::Abandoned(error)) => self.failed(error),
            Some(Halt::Asked(verdict)) => *verdict,
            None if unusable && writes => Verdict::Residue,
            None if unusable => Verdict::Failed,
            None if writes => Verdict::Wiped,
            None => Verdict::Verified,
        }
    }

    /// A device that cannot do what was asked is "unsupported" only while nothing was written.
    fn failed(&self, error: &Error) -> Verdict {
        let written = self.steps.iter().any(|report| report.step.writes() && report.bytes > 0);
        if written { Verdict::Failed } else { error.kind.into() }
    }
}
