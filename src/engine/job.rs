//! One plan on one disk, from the first block to the verdict.

use jiff::Timestamp;

use super::cover::{Context, Halt, cover};
use super::event::{Emitter, Event};
use super::sampling::{Bound, Probes, draw, probes};
use super::step::StepReport;
use super::survivors::{Inquiry, Memory, Survivors};
use super::{OnMismatch, Settings, Stop};
use crate::error::{Error, Result};
use crate::io::{Disk, Geometry, IoPath};
use crate::luks::data::is_uniform;
use crate::pattern::{Pattern, Seed};
use crate::plan::{Act, Earlier, KeyPlan, Plan, Sample};
use crate::range::{Extent, ExtentSet, align_down};
use crate::verdict::Verdict;

mod report;
mod resume;

pub use report::{Before, JobReport, Verification};
pub use resume::{Process, Progress, Resume, Resumption};
use resume::{Rest, Running};

/// What a job needs besides its disk and its plan.
pub struct Surroundings<'a> {
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub emitter: &'a Emitter,
    /// Gives the seeds of the samples, each after the flush before it.
    pub draw: &'a mut dyn FnMut() -> Result<Seed>,
    /// Keeps how far it is, after each epoch and each step, before anything else is done.
    pub keep: &'a mut dyn FnMut(&Progress),
}

/// Carries a plan out, or what another process left of it.
pub fn run(disk: &mut dyn Disk, plan: Plan, resume: Option<Resume>, surroundings: Surroundings) -> JobReport {
    let geometry = disk.geometry();
    let io_path = disk.io_path().clone();
    let Surroundings { settings, stop, emitter, draw, keep } = surroundings;
    emitter.emit(Event::Started { geometry, io_path: io_path.clone(), plan: plan.clone() });
    let mut job = Job::new(disk, settings, stop, emitter, keep, &plan);
    let halt = job.run(&plan.steps, resume, draw);
    let verdict = job.verdict(&halt, plan.writes());
    let error = match halt {
        Some(Halt::Failed(error) | Halt::Abandoned(error)) => Some(error.to_string()),
        Some(Halt::Asked(_)) | None => None,
    };
    let Job {
        steps,
        residue,
        unreadable,
        surviving,
        before,
        verification,
        unchanged_key_bytes,
        residue_unreadable,
        resumed,
        found,
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
        before,
        verification,
        unchanged_key_bytes,
        found_bytes: found.map(|found| found.bytes()),
        chunk_bytes: settings.chunk_bytes,
        resumed,
        error,
    }
}

/// The part of an area that can be read and written, and the odd tail: a device whose size is no
/// multiple of its logical block never serves that.
pub(super) fn served(area: Extent, geometry: &Geometry, io_path: &IoPath) -> (Extent, Extent) {
    let end =
        if io_path.takes_whole_blocks() { align_down(area.end, geometry.logical_block) } else { area.end };
    area.split(end.max(area.start))
}

/// Where transfers first and last met: the place of the classic mistakes.
fn edges(area: Extent, chunk_bytes: u64) -> [u64; 2] {
    [align_down(area.start, chunk_bytes).saturating_add(chunk_bytes), align_down(area.end, chunk_bytes)]
}

/// The blocks that a check reads: what the last pass could not write is known to be something else.
pub(super) fn places(
    sample: &Sample,
    area: Extent,
    geometry: &Geometry,
    seed: &Seed,
    chunk_bytes: u64,
    last: &Last,
) -> Probes {
    let Probes { drawn, extents } =
        probes(sample, area, geometry, seed, &edges(area, chunk_bytes), &last.retried);
    Probes { drawn, extents: extents.without(&last.residue) }
}

/// A survey is given up after so many failed reads: each can cost a drive's whole patience.
const SURVEY_ERRORS_MAX: u64 = 16;

/// The smallest block of a thin pool: nothing is gained by looking more closely.
const FIND_BYTES: u64 = 64 << 10;

struct Job<'a> {
    disk: &'a mut dyn Disk,
    settings: &'a Settings,
    stop: &'a Stop,
    emitter: &'a Emitter,
    keep: &'a mut dyn FnMut(&Progress),
    geometry: Geometry,
    /// The plan's area without the odd tail that direct I/O cannot reach.
    area: Extent,
    steps: Vec<StepReport>,
    residue: ExtentSet,
    residue_unreadable: ExtentSet,
    unreadable: ExtentSet,
    surviving: Survivors,
    before: Option<Before>,
    memory: Option<Memory>,
    last: Last,
    verification: Option<Verification>,
    /// Where the keys are that are to be destroyed.
    key_material: Option<ExtentSet>,
    unchanged_key_bytes: Option<u64>,
    /// The last epoch that was written.
    epoch: Option<Extent>,
    /// Of the step that goes on.
    rest: Option<Rest>,
    resumed: Vec<Resumption>,
    /// What was not zero when it was looked for.
    found: Option<ExtentSet>,
}

/// What is known of the last pass that wrote.
#[derive(Clone, Default)]
pub(super) struct Last {
    pub retried: ExtentSet,
    /// Known to be something else than a check expects.
    pub residue: ExtentSet,
}

impl Last {
    pub fn of(pass: &StepReport) -> Last {
        Last { retried: pass.retried.clone(), residue: pass.unusable.clone() }
    }
}

impl<'a> Job<'a> {
    fn new(
        disk: &'a mut dyn Disk,
        settings: &'a Settings,
        stop: &'a Stop,
        emitter: &'a Emitter,
        keep: &'a mut dyn FnMut(&Progress),
        plan: &Plan,
    ) -> Job<'a> {
        let geometry = disk.geometry();
        let (area, tail) = served(plan.area, &geometry, disk.io_path());
        let nowhere = Extent::at(tail.end, 0);
        let (residue, unreadable) = if plan.writes() { (tail, nowhere) } else { (nowhere, tail) };
        Job {
            disk,
            settings,
            stop,
            emitter,
            keep,
            geometry,
            area,
            steps: Vec::new(),
            residue: residue.into(),
            residue_unreadable: ExtentSet::new(),
            unreadable: unreadable.into(),
            surviving: Survivors::default(),
            before: None,
            memory: None,
            last: Last::default(),
            verification: None,
            key_material: plan.keys.as_ref().map(KeyPlan::material),
            unchanged_key_bytes: None,
            epoch: None,
            rest: None,
            resumed: Vec::new(),
            found: None,
        }
    }

    fn run(
        &mut self,
        acts: &[Act],
        resume: Option<Resume>,
        draw: &mut dyn FnMut() -> Result<Seed>,
    ) -> Option<Halt> {
        let first = match resume.map(|resume| self.take_up(acts, resume)) {
            None => 0,
            Some(Ok(step)) => step,
            Some(Err(halt)) => return Some(halt),
        };
        for (step, act) in acts.iter().enumerate().skip(first) {
            if let Err(halt) =
                self.same_disk().and_then(|()| self.drop_caches(step == first || !act.writes()))
            {
                return Some(halt);
            }
            let done = match act {
                Act::Survey { .. } if self.memory.is_some() => Ok(self.compare_keys(step, acts)),
                Act::Survey { sample } => draw().and_then(|seed| self.survey(acts, sample, seed)),
                Act::Check { expect, sample } => {
                    draw().map(|seed| self.check(step, acts, expect, sample, seed))
                }
                Act::Replay { expect, check } => {
                    self.last = Last { retried: check.retried.clone(), residue: check.residue.clone() };
                    let Earlier { sample, seed, chunk_bytes, .. } = &**check;
                    let places = places(sample, self.area, &self.geometry, seed, *chunk_bytes, &self.last);
                    Ok(self.compare(step, acts, act, expect, &places.extents))
                }
                Act::Find => Ok(self.find(step, acts)),
                Act::Write { .. }
                | Act::WriteFound { .. }
                | Act::WritePart { .. }
                | Act::Zero
                | Act::Discard => Ok(self.write(step, acts, &self.area_of(act))),
            };
            if let Some(halt) = done.unwrap_or_else(|error| Some(Halt::Failed(error))) {
                return Some(halt);
            }
            if !self.surviving.is_empty() {
                // Nothing that comes after it makes the claim true.
                return self.map(acts, act).or_else(|| self.same_disk().err());
            }
            let progress = self.progress(None);
            (self.keep)(&progress);
        }
        self.same_disk().err()
    }

    /// A disk that was swapped or resized between two passes is not the one that was to be wiped.
    fn same_disk(&self) -> std::result::Result<(), Halt> {
        let unchanged =
            self.emitter.calls.within("look at what lies below", self.area, || self.disk.unchanged());
        unchanged.map_err(|error| {
            let changed = Error::failed("it is not the disk any more that was claimed").because(error);
            Halt::Failed(changed.way_out("see what is behind this path now (efface list), and wipe it anew"))
        })
    }

    /// What the caches of others hold would be written over a pass, or read in place of the storage.
    fn drop_caches(&mut self, matters: bool) -> std::result::Result<(), Halt> {
        if !matters {
            return Ok(());
        }
        let (disk, area) = (&mut self.disk, self.area);
        let dropped = self.emitter.calls.within("emptying of page caches", area, || disk.drop_caches());
        dropped.map_err(|error| {
            let failed = Error::failed("page caches over the same bytes cannot be emptied").because(error);
            Halt::Failed(failed.way_out("see what the kernel says of the devices below: dmesg"))
        })
    }

    /// Reads drawn blocks before the first pass. What cannot be read is no reason not to write.
    fn survey(&mut self, acts: &[Act], sample: &Sample, seed: Seed) -> Result<Option<Halt>> {
        let block = self.geometry.logical_block;
        let drawn = draw(sample, self.area, &seed);
        let expect = acts.iter().rev().find_map(Act::expects);
        let mut memory = Memory::new()?;
        let mut before = Before { seed, read_bytes: 0, zero_bytes: 0, expected_bytes: 0 };
        let mut expected = vec![0; block as usize];
        let mut see = |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(block).zip(bytes.chunks(block as usize)) {
                memory.keep(at.start, bytes);
                before.read_bytes += at.len();
                before.zero_bytes += if bytes.iter().all(|byte| *byte == 0) { at.len() } else { 0 };
                if let Some(expect) = expect {
                    let expected = &mut expected[..bytes.len()];
                    expect.fill(at.start, expected);
                    before.expected_bytes += if expected == bytes { at.len() } else { 0 };
                }
            }
        };
        let settings = Settings { errors_max: SURVEY_ERRORS_MAX, ..*self.settings };
        let (report, halt) = self.cover(0, acts.len(), &acts[0], &drawn, &settings, &mut see);
        self.steps.push(report);
        (self.before, self.memory) = (Some(before), Some(memory));
        Ok(halt.filter(|halt| !matches!(halt, Halt::Failed(_))))
    }

    /// Reads all of it for what is not zero; what cannot be read may be anything.
    fn find(&mut self, step: usize, acts: &[Act]) -> Option<Halt> {
        let mut found = ExtentSet::new();
        let mut see = |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(FIND_BYTES).zip(bytes.chunks(FIND_BYTES as usize)) {
                if bytes.iter().any(|byte| *byte != 0) {
                    found.insert(at);
                }
            }
        };
        let settings = *self.settings;
        let all = self.area.into();
        let (report, halt) = self.cover(step, acts.len(), &acts[step], &all, &settings, &mut see);
        report.unusable.iter().for_each(|extent| found.insert(extent));
        self.steps.push(report);
        self.found = Some(found);
        halt
    }

    /// Looks again at what was surveyed: no block of key material may be what it was.
    fn compare_keys(&mut self, step: usize, acts: &[Act]) -> Option<Halt> {
        let block = self.geometry.logical_block;
        let material = self.key_material.clone().unwrap_or_default();
        let memory = self.memory.take();
        let mut unchanged = 0;
        let mut see = |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(block).zip(bytes.chunks(block as usize)) {
                let same = memory.as_ref().is_some_and(|memory| memory.holds(at.start, bytes));
                // One byte over and over is no key, and may well be what was to be written.
                let key = material.contains(at.start) && !is_uniform(bytes);
                unchanged += if same && key { at.len() } else { 0 };
            }
        };
        let settings = *self.settings;
        let all = self.area.into();
        let (report, halt) = self.cover(step, acts.len(), &acts[step], &all, &settings, &mut see);
        report.unusable.iter().for_each(|extent| self.unreadable.insert(extent));
        self.steps.push(report);
        self.unchanged_key_bytes = Some(unchanged);
        halt
    }

    /// What a step that writes is about.
    fn area_of(&self, act: &Act) -> ExtentSet {
        match act {
            Act::WriteFound { .. } => self.found.clone().expect("looked for before it is written"),
            Act::WritePart { part, .. } => part.clone(),
            _ => self.area.into(),
        }
    }

    fn write(&mut self, step: usize, acts: &[Act], area: &ExtentSet) -> Option<Halt> {
        let settings = *self.settings;
        let (mut report, mut halt) =
            self.cover(step, acts.len(), &acts[step], area, &settings, &mut |_, _| {});
        // What is only given back after it counts for nothing.
        let last = acts[step + 1..].iter().all(|act| !act.writes() || *act == Act::Discard);
        if last && halt.is_none() && !report.unusable.is_empty() {
            halt = self.once_more(step, &acts[step], &mut report);
        }
        report.unusable.iter().for_each(|extent| self.residue.insert(extent));
        self.last = Last::of(&report);
        self.steps.push(report);
        halt
    }

    /// Tries what the last pass could not write once more: a drive may have found other sectors for it
    /// by now. Then it is read: what can be read can be found by others.
    fn once_more(&mut self, step: usize, act: &Act, report: &mut StepReport) -> Option<Halt> {
        let failed = report.unusable.clone();
        let (again, halt) = self.quietly(step, act, &failed, &mut |_, _| {});
        report.bytes += again.bytes;
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
        let survey = Act::Survey { sample: Sample::Full };
        let (read, halt) = self.quietly(step, &survey, &report.unusable, &mut |_, _| {});
        self.residue_unreadable = read.unusable;
        halt
    }

    /// A cover that is no step of the plan.
    fn quietly(
        &mut self,
        step: usize,
        act: &Act,
        area: &ExtentSet,
        see: &mut dyn FnMut(Extent, &[u8]),
    ) -> (StepReport, Option<Halt>) {
        let Job { disk, settings, stop, emitter, .. } = self;
        let checkpoint = &mut |_: &StepReport, _| {};
        cover(Context { disk: &mut **disk, settings, stop, emitter, step, see, checkpoint }, act, area)
    }

    /// Reads back what the pass before could write: its residue is known to be something else.
    fn check(
        &mut self,
        step: usize,
        acts: &[Act],
        expect: &Pattern,
        sample: &Sample,
        seed: Seed,
    ) -> Option<Halt> {
        let drawn = Timestamp::now();
        let chunk_bytes = self.settings.chunk_bytes;
        let probes = places(sample, self.area, &self.geometry, &seed, chunk_bytes, &self.last);
        let halt = self.compare(step, acts, &acts[step], expect, &probes.extents);
        let report = self.steps.last().expect("the check's own");

        let clean = halt.is_none()
            && report.differing.is_empty()
            && report.unusable.is_empty()
            && self.last.residue.is_empty();
        let bound = match (sample, probes.drawn) {
            (Sample::Stratified { confidence_ppm, .. }, Some(drawn)) if clean => {
                Some(Bound::of(drawn, *confidence_ppm))
            }
            _ => None,
        };
        self.verification = Some(Verification {
            sample: *sample,
            seed,
            drawn,
            probes: probes.drawn,
            bytes_read: report.bytes,
            bound,
        });
        halt
    }

    /// Reads everything after a sample that found a difference.
    fn map(&mut self, acts: &[Act], act: &Act) -> Option<Halt> {
        let (expect, sample) = match act {
            Act::Check { expect, sample } => (expect, sample),
            Act::Replay { expect, check } => (expect, &check.sample),
            _ => return None,
        };
        if *sample == Sample::Full || self.settings.on_mismatch == OnMismatch::Stop {
            return None;
        }
        let map = Act::Check { expect: expect.clone(), sample: Sample::Full };
        let all = ExtentSet::from(self.area).without(&self.last.residue);
        self.compare(self.steps.len(), acts, &map, expect, &all)
    }

    /// Reads, and finds out what is there where it is not what it should be.
    fn compare(
        &mut self,
        step: usize,
        acts: &[Act],
        act: &Act,
        expect: &Pattern,
        extents: &ExtentSet,
    ) -> Option<Halt> {
        let memory = self.memory.take();
        let mut inquiry = Inquiry::new(expect, acts, memory.as_ref());
        let settings = *self.settings;
        let steps = acts.len().max(step + 1);
        let (report, halt) =
            self.cover(step, steps, act, extents, &settings, &mut |at, bytes| inquiry.see(at, bytes));
        if !report.differing.is_empty() {
            self.surviving = inquiry.end(self.area, self.geometry.logical_block, self.stop);
        }
        self.memory = memory;
        report.unusable.iter().for_each(|extent| self.unreadable.insert(extent));
        self.steps.push(report);
        halt
    }

    fn cover(
        &mut self,
        step: usize,
        steps: usize,
        act: &Act,
        area: &ExtentSet,
        settings: &Settings,
        see: &mut dyn FnMut(Extent, &[u8]),
    ) -> (StepReport, Option<Halt>) {
        let (before, area) = match self.rest.take() {
            Some(Rest { before, area: left }) => (Some(before), area.clone().intersect(&left)),
            None => (None, area.clone()),
        };
        let mut progress = self.progress(None);
        let Job { disk, stop, emitter, keep, epoch, .. } = self;
        emitter.emit(Event::StepStarted { step, steps, act: act.to_string(), bytes: area.bytes() });
        let whole = |report: StepReport| match &before {
            Some(before) => report.after(before),
            None => report,
        };
        let mut from = area.iter().next().map_or(0, |first| first.start);
        let checkpoint = &mut |report: &StepReport, upto: u64| {
            emitter.emit(Event::Checkpoint { step, upto });
            // An end that was asked for right behind a flush is no epoch.
            if act.writes() && upto > from {
                *epoch = Some(Extent::new(from, upto));
                from = upto;
            }
            progress.epoch = *epoch;
            progress.running = Some(Running { report: whole(report.clone()), upto });
            keep(&progress);
        };
        let context = Context { disk: &mut **disk, settings, stop, emitter, step, see, checkpoint };
        let (report, halt) = cover(context, act, &area);
        let report = whole(report);
        if halt.is_none() {
            emitter.emit(Event::StepEnded { step, report: report.clone() });
        }
        (report, halt)
    }

    fn verdict(&self, halt: &Option<Halt>, writes: bool) -> Verdict {
        let unusable = !self.residue.is_empty() || !self.unreadable.is_empty();
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
        let written = self.steps.iter().any(|step| step.act.writes() && step.bytes > 0);
        if written { Verdict::Failed } else { error.kind.into() }
    }
}
