//! The cover loop: visits every block of a scope once, and writes, zeroes, discards or reads it.
//!
//! Pieces of the area go to the disk as long as there are buffers; what comes back short is
//! continued, what fails is bisected down to the logical block, and what stays unusable is
//! residue. After each epoch the disk is drained and flushed, and only then is a checkpoint reported.

mod errors;
mod filling;
mod memory;
mod trial;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use errors::{ErrorClass, advice};
use filling::Filling;
use memory::StepMemory;
use trial::{Shape, Trial};

use super::comparison::Comparison;
use super::event::{Emitter, Event};
use super::step::{ListedExtents, StepReport};
use super::throttle::{Admission, Throttle};
use super::watchdog::{Pending, StallDetector, Watchdog};
use super::{Settings, Stop};
use crate::error::Error;
use crate::io::{Disk, Done, Geometry, Op, Turn};
use crate::plan::{Operation, Step};
use crate::range::{Extent, ExtentSet, align_down, align_up};
use crate::verdict::Verdict;

/// How often a waiting loop checks for signals and reports progress.
const TICK: Duration = Duration::from_millis(100);
/// Tries for a piece that cannot be cut any more.
const TRIES_MAX: u32 = 3;
/// The number of samples of a step's speed.
const SPEED_SAMPLES: u64 = 128;

/// What a step needs from its job.
pub struct StepContext<'a> {
    pub disk: &'a mut dyn Disk,
    pub settings: &'a Settings,
    pub throttle: &'a mut Throttle,
    pub stop: &'a Stop,
    pub emitter: &'a Emitter,
    /// The step's number in its plan, from 0.
    pub number: usize,
    /// Shown what a survey reads, and the blocks that a check finds to differ.
    pub on_read: &'a mut dyn FnMut(Extent, &[u8]),
    /// Called after each epoch, with the offset below which everything was visited, and is durable
    /// where the step writes (but for residue).
    pub checkpoint: &'a mut dyn FnMut(&StepReport, u64),
}

/// Why a step ended before its area did.
#[derive(Debug)]
pub enum Halt {
    /// A signal asked for it; the verdict says how.
    Asked(Verdict),
    Failed(Error),
    /// The same, and what was in flight was not answered: the disk is busy with it, and may be asked
    /// for nothing more.
    Abandoned(Error),
}

impl Halt {
    fn is_failure(&self) -> bool {
        matches!(self, Halt::Failed(_) | Halt::Abandoned(_))
    }
}

/// A piece of the area, and how often it was tried.
struct Piece {
    extent: Extent,
    tries: u32,
    failed_before: bool,
}

/// A piece that the disk has.
struct InFlight {
    piece: Piece,
    operation: &'static str,
    pending: Pending,
}

/// Runs one step over an area, and says why it ended early where it did.
pub fn cover<'a>(context: StepContext<'a>, step: &'a Step, area: &ExtentSet) -> (StepReport, Option<Halt>) {
    let (transfer, depth) = context.settings.transfers(step);
    let number = context.number;
    let (_turn, waited) = wait_for_turn(&context);
    let (memory, halt) = match StepMemory::new(&mut *context.disk, step, transfer, depth) {
        Ok(memory) => (memory, None),
        Err(error) => {
            let failed = Error::failed("no buffers for the disk's I/O").because(error);
            (StepMemory::Each(Vec::new()), Some(Halt::Failed(failed)))
        }
    };
    let mut cover = Cover::new(context, step, area, Shape { transfer, depth }, memory);
    cover.halt = halt;
    cover.run();
    cover.report.milliseconds = cover.elapsed().as_millis() as u64;
    cover.report.ended = Timestamp::now();
    cover.report.covered = cover.covered();
    cover.report.yielding = cover.throttle.end_step(cover.now());
    if let Some(yielding) = &mut cover.report.yielding {
        yielding.waited_ms = waited.as_millis() as u64;
    }
    cover.emitter.emit(Event::Progress { step: number, bytes: cover.report.bytes });
    (cover.report, cover.halt)
}

/// Waits for other jobs that back off on the same disk, and says how long; no turn where a stop ended the wait.
fn wait_for_turn(context: &StepContext) -> (Option<Turn>, Duration) {
    if context.settings.yields.is_none() {
        return (None, Duration::ZERO);
    }
    let mut turn = context.disk.take_turn();
    if turn.is_some() {
        return (turn, Duration::ZERO);
    }
    context.emitter.emit(Event::Waiting { step: context.number });
    let clock = context.disk.clock();
    let since = clock.now();
    while turn.is_none() && context.stop.verdict().is_none() {
        clock.sleep_until(clock.now() + TICK);
        turn = context.disk.take_turn();
    }
    (turn, clock.now() - since)
}

struct Cover<'a> {
    disk: &'a mut dyn Disk,
    settings: &'a Settings,
    stop: &'a Stop,
    emitter: &'a Emitter,
    number: usize,
    step: &'a Step,
    geometry: Geometry,
    trial: Trial,
    on_read: &'a mut dyn FnMut(Extent, &[u8]),
    checkpoint: &'a mut dyn FnMut(&StepReport, u64),
    started: Instant,
    area_bytes: u64,
    /// It is visited in order: the area is one extent.
    in_order: bool,
    /// What was visited; of an area that is visited in order, few extents at any time.
    covered: ExtentSet,

    /// Pieces that were not tried yet, and the first that the running epoch leaves out.
    fresh: Box<dyn Iterator<Item = Extent>>,
    next: Option<Extent>,
    epoch_left: u64,
    end: u64,
    /// Pieces to try again: these go first.
    retries: Vec<Piece>,
    in_flight: HashMap<u64, InFlight>,
    /// The largest I/O to start: shrinks after an error, since bad blocks are adjacent, and doubles after each
    /// success.
    chunk_limit: u64,
    chunk_limit_max: u64,
    watchdog: Watchdog,
    stalls: StallDetector,
    memory: StepMemory,
    filling: Filling,
    done: Vec<Done>,
    comparison: Option<Comparison>,
    throttle: &'a mut Throttle,
    reported_at: Instant,
    report: StepReport,
    halt: Option<Halt>,
}

impl<'a> Cover<'a> {
    fn new(
        context: StepContext<'a>,
        step: &'a Step,
        area: &ExtentSet,
        shape: Shape,
        memory: StepMemory,
    ) -> Cover<'a> {
        let transfer = shape.transfer;
        let trial = Cover::trial(context.settings, step, area, shape, &memory);
        let StepContext { disk, settings, throttle, stop, emitter, number, on_read, checkpoint } = context;
        throttle.begin_step(step.writes());
        let (geometry, now) = (disk.geometry(), disk.clock().now());
        let extents: Vec<Extent> = area.iter().collect();
        let mut fresh = extents.into_iter().flat_map(move |extent| extent.chunks(transfer));
        let report = StepReport {
            step: step.clone(),
            covered: ListedExtents::default(),
            bytes: 0,
            failed_bytes: 0,
            milliseconds: 0,
            flushed: false,
            unusable: ExtentSet::new(),
            differing: ListedExtents::default(),
            retried: ExtentSet::new(),
            errors: 0,
            started: Timestamp::now(),
            ended: Timestamp::now(),
            course: Vec::new(),
            yielding: None,
        };
        Cover {
            geometry,
            trial,
            on_read,
            checkpoint,
            started: now,
            area_bytes: area.bytes(),
            in_order: area.len() == 1,
            covered: ExtentSet::new(),
            next: fresh.next(),
            fresh: Box::new(fresh),
            epoch_left: settings.epoch_bytes,
            end: area.iter().last().map_or(0, |extent| extent.end),
            retries: Vec::new(),
            in_flight: HashMap::new(),
            chunk_limit: transfer,
            chunk_limit_max: transfer,
            watchdog: Watchdog::new(settings),
            stalls: StallDetector::new(settings, now),
            memory,
            filling: Filling::new(settings.fill_threads),
            done: Vec::new(),
            comparison: step.expected().map(|expect| Comparison::new(expect, geometry.logical_block)),
            throttle,
            reported_at: now,
            report,
            halt: None,
            disk,
            settings,
            stop,
            emitter,
            number,
            step,
        }
    }

    /// Only I/O at full speed shows what a device can do: with a rate limit it is the limit that is measured,
    /// and with a back-off the others' I/O.
    fn trial(settings: &Settings, step: &Step, area: &ExtentSet, shape: Shape, memory: &StepMemory) -> Trial {
        let full_speed = settings.trial && settings.rate.is_none() && settings.yields.is_none();
        let long = area.len() == 1 && area.bytes() / shape.transfer >= trial::TRANSFERS_MIN;
        if !full_speed || !long || !step.transfers() || step.sample().is_some() {
            return Trial::fixed(shape);
        }
        let depth_max = match memory {
            StepMemory::Shared { .. } => settings.depth_max(),
            StepMemory::Each(idle) => idle.len(),
        };
        Trial::within(shape, depth_max)
    }

    fn run(&mut self) {
        loop {
            if self.halt.is_none() {
                self.halt = self.stop.verdict().map(Halt::Asked);
            }
            let wake = self.submit_ready();
            if !self.in_flight.is_empty() {
                self.reap(wake);
            } else if let Some(wake) = wake {
                let clock = self.disk.clock();
                clock.sleep_until(wake.min(clock.now() + TICK));
            } else if !self.end_epoch() {
                return;
            }
        }
    }

    /// Submits I/Os as the throttle allows; returns when more may be submitted.
    fn submit_ready(&mut self) -> Option<Instant> {
        while self.halt.is_none() && self.in_flight.len() < self.trial.shape().depth && self.has_piece() {
            let now = self.now();
            let bytes_max = match self.throttle.admit(now, self.in_flight.len(), || self.disk.io_stats()) {
                Admission::Start { bytes_max } => bytes_max,
                Admission::Wait(until) => return until,
            };
            let piece = self.next_piece(bytes_max.min(self.chunk_limit).min(self.trial.shape().transfer));
            let bytes = piece.extent.len();
            if !self.submit(piece) {
                return None;
            }
            self.throttle.spend(bytes, now);
        }
        None
    }

    fn has_piece(&self) -> bool {
        !self.retries.is_empty() || (self.epoch_left > 0 && self.next.is_some())
    }

    /// The next piece, where there is one, cut where it is longer than is allowed.
    fn next_piece(&mut self, bytes_max: u64) -> Piece {
        if let Some(piece) = self.retries.pop() {
            return piece;
        }
        let (extent, rest) = self.split_at_limit(self.next.expect("has_piece was checked"), bytes_max);
        self.next = if rest.is_empty() { self.fresh.next() } else { Some(rest) };
        self.epoch_left = self.epoch_left.saturating_sub(extent.len());
        Piece { extent, tries: 0, failed_before: false }
    }

    /// A discard stays whole: a device ignores those that are smaller than its own granularity.
    fn split_at_limit(&self, extent: Extent, bytes_max: u64) -> (Extent, Extent) {
        let grain = self.geometry.physical_block;
        let len = align_down(bytes_max, grain).max(grain);
        let whole = extent.len() <= len || self.step.discards();
        extent.split(if whole { extent.end } else { align_down(extent.start + len, grain) })
    }

    /// Sends a piece to the disk; says whether the disk took it.
    fn submit(&mut self, piece: Piece) -> bool {
        let (at, len) = (piece.extent.start, piece.extent.len());
        let op = match self.step.operation() {
            Operation::WriteZeroes => Op::Zero { at, len },
            Operation::Discard => Op::Discard { at, len },
            Operation::Write { pattern } => {
                let (began, by_two) = (self.now(), self.filling.by_two());
                let buf = self.memory.buffer_to_write(pattern, at, len as usize, by_two);
                self.filling.filled(self.now() - began);
                Op::Write { at, buf }
            }
            Operation::FindNonZero | Operation::Fingerprint | Operation::Compare { .. } => {
                Op::Read { at, buf: self.memory.buffer_to_read(len as usize) }
            }
        };
        let operation = op.name();
        self.report.flushed = false;
        let Cover { disk, emitter, .. } = self;
        // A command, and a backend without a queue, come back only when the device has answered.
        match emitter.calls.within(operation, piece.extent, || disk.submit(op)) {
            Ok(()) => {
                let pending = Pending::new(self.now());
                self.in_flight.insert(at, InFlight { piece, operation, pending });
                true
            }
            Err(op) => {
                self.memory.give_back(op.into_buf());
                self.retries.push(piece);
                false
            }
        }
    }

    fn reap(&mut self, wake: Option<Instant>) {
        let asked = self.now();
        let tick = asked + TICK;
        let mut done = std::mem::take(&mut self.done);
        let reaped = self.disk.reap(&mut done, Some(wake.map_or(tick, |wake| wake.min(tick))));
        self.filling.waited(self.now() - asked);
        let (before, ios) = (self.report.bytes, done.len());
        for done in done.drain(..) {
            self.on_completion(done);
        }
        self.done = done;
        if let Err(error) = reaped {
            self.abandon(Error::failed("the disk's queue broke").because(error));
        }
        let now = self.now();
        let bytes = self.report.bytes - before;
        if let Some(Shape { transfer, depth }) = self.trial.ended(bytes, ios, self.in_flight.len(), now) {
            tracing::debug!("step {}: {depth} I/Os of {transfer} bytes suit this device", self.number + 1);
        }
        if now >= self.reported_at + TICK {
            self.reported_at = now;
            self.emitter.emit(Event::Progress { step: self.number, bytes: self.report.bytes });
            self.check_limits(now);
        }
    }

    /// Reports I/Os that take long, and gives a device up that does not answer, or is too slow.
    fn check_limits(&mut self, now: Instant) {
        for flight in self.in_flight.values_mut() {
            if self.watchdog.is_newly_late(&mut flight.pending, now) {
                let (at, seconds) = (flight.piece.extent, flight.pending.age(now).as_secs());
                self.emitter.emit(Event::Late { at, operation: flight.operation, seconds });
            }
        }
        let stopping = matches!(self.halt, Some(Halt::Asked(_)));
        let oldest = self.in_flight.values().min_by_key(|flight| flight.pending.since);
        if let Some(flight) =
            oldest.filter(|flight| self.watchdog.gives_up_io(flight.pending.age(now), stopping))
        {
            let seconds = flight.pending.age(now).as_secs();
            let what = format!("a {} has not been answered for {seconds} s", flight.operation);
            let error = Error::failed(what).at(flight.piece.extent);
            return self.abandon(error.with_remedy(advice(self.disk.medium(), errors::GONE)));
        }
        if self.in_order
            && let Some(slow) = self.stalls.slow_rate(self.report.bytes, now)
        {
            self.fail(Error::failed(slow).with_remedy("replace the device, or wipe it without --min-rate"));
        }
    }

    /// What is still in flight stays with the disk, which outlives it or leaks it.
    fn abandon(&mut self, error: Error) {
        self.fail(error);
        if let Some(Halt::Failed(first)) = self.halt.take() {
            self.halt = Some(Halt::Abandoned(first));
        }
        self.in_flight.clear();
    }

    fn on_completion(&mut self, done: Done) {
        let Done { op, result } = done;
        let flight = self.in_flight.remove(&op.at()).expect("only what was submitted comes back");
        let InFlight { piece, .. } = flight;
        let name = op.name();
        match result {
            Ok(bytes) => self.on_success(&op, piece, bytes),
            Err(error) => self.on_error(piece, name, &error),
        }
        self.memory.give_back(op.into_buf());
    }

    /// Counts what was done of a piece, and goes on with the rest from a whole block.
    fn on_success(&mut self, op: &Op, piece: Piece, bytes: u64) {
        let extent = piece.extent;
        let whole = if bytes >= extent.len() {
            extent.end
        } else {
            align_down(extent.start + bytes, self.geometry.logical_block).max(extent.start)
        };
        if whole == extent.start {
            // Nothing moved: an error, or a loop without end.
            let nothing = io::Error::from_raw_os_error(libc::EIO);
            return self.on_error(piece, op.name(), &nothing);
        }
        let (good, rest) = extent.split(whole);
        self.stalls.succeeded();
        if !piece.failed_before {
            self.chunk_limit = (self.chunk_limit * 2).min(self.chunk_limit_max);
        }
        self.report.bytes += good.len();
        self.covered.insert(good);
        self.note_speed();
        if let Op::Read { buf, .. } = op {
            let bytes = &buf[..good.len() as usize];
            let Cover { comparison, report, on_read, .. } = self;
            match comparison {
                Some(comparison) => comparison.differing(good, bytes, &mut |block, bytes| {
                    report.differing.add(block);
                    on_read(block, bytes);
                }),
                None => on_read(good, bytes),
            }
        }
        if piece.failed_before {
            self.report.retried.insert(good);
        }
        if !rest.is_empty() {
            self.retries.push(Piece { extent: rest, ..piece });
        }
    }

    fn note_speed(&mut self) {
        if !self.in_order {
            return;
        }
        let done = u128::from(self.report.bytes) * u128::from(SPEED_SAMPLES);
        let parts = (done / u128::from(self.area_bytes)) as usize;
        if parts > self.report.course.len() {
            let now = self.elapsed().as_micros() as u64;
            self.report.course.resize(parts, now);
        }
    }

    fn on_error(&mut self, piece: Piece, operation: &'static str, error: &io::Error) {
        let extent = piece.extent;
        self.report.failed_bytes += extent.len();
        let failure = |what: &str| Error::failed(what).at(extent).because(copy_error(error));
        let lost = self.stalls.failed(self.now());
        let medium = self.disk.medium();
        let failing = advice(medium, "the device is failing: replace it, or destroy it");
        let short = !extent.len().is_multiple_of(self.geometry.logical_block);
        match ErrorClass::of(error, short) {
            ErrorClass::Passing | ErrorClass::Media if lost >= self.settings.give_up_after => {
                let what = format!("given up: for {} s every I/O has failed", lost.as_secs());
                self.fail(failure(&what).with_remedy(failing));
            }
            ErrorClass::Passing | ErrorClass::Media if self.report.errors >= self.settings.errors_max => {
                let what =
                    format!("given up after {} failed I/Os, the last one a {operation}", self.report.errors);
                self.fail(failure(&what).with_remedy(failing));
            }
            ErrorClass::Passing => {
                self.report.errors += 1;
                self.retries.push(piece);
            }
            ErrorClass::Media => self.bisect(piece, operation, error),
            ErrorClass::Unsupported if self.report.bytes == 0 => {
                let what = format!("the device does not support {operation}");
                let remedy = "use a method that writes, such as --method zero";
                self.fail(Error::unsupported(what).because(copy_error(error)).with_remedy(remedy));
            }
            ErrorClass::Unsupported | ErrorClass::Fatal => {
                let (what, remedy) =
                    errors::fatal(operation, error, self.disk.unchanged(Instant::now()).is_err(), medium);
                self.fail(failure(&what).with_remedy(remedy));
            }
        }
    }

    /// Narrows a failure down: halves to the physical block, that one again, its logical blocks.
    fn bisect(&mut self, piece: Piece, operation: &'static str, error: &io::Error) {
        self.report.errors += 1;
        let Geometry { logical_block, physical_block, .. } = self.geometry;
        let extent = piece.extent;
        self.chunk_limit = physical_block;
        let part = |extent| Piece { extent, tries: 0, failed_before: true };
        if let Some(middle) = middle(extent, physical_block) {
            let (left, right) = extent.split(middle);
            self.retries.extend([part(right), part(left)]);
        } else if piece.tries + 1 < TRIES_MAX {
            self.retries.push(Piece { extent, tries: piece.tries + 1, failed_before: true });
        } else if extent.len() > logical_block {
            self.retries.extend(extent.chunks(logical_block).map(part));
        } else {
            self.report.unusable.insert(extent);
            self.covered.insert(extent);
            let error = error.to_string();
            self.emitter.emit(Event::Unusable { step: self.number, at: extent, operation, error });
        }
    }

    /// Makes an epoch durable when nothing is in flight; says whether there is more to do.
    fn end_epoch(&mut self) -> bool {
        assert!(self.halt.is_some() || self.retries.is_empty(), "an idle disk took no piece");
        let failed = self.halt.as_ref().is_some_and(Halt::is_failure);
        if self.step.writes() && !failed {
            self.report.flushed = false;
            let medium = self.disk.medium();
            let (all, Cover { disk, emitter, .. }) = (Extent::new(0, self.geometry.size), &mut *self);
            if let Err(error) = emitter.calls.within("flush", all, || disk.flush()) {
                let what = "the flush failed, so what was written may be lost";
                self.fail(
                    Error::failed(what)
                        .because(error)
                        .with_remedy(advice(medium, "do not trust this device; run it again or destroy it")),
                );
                return false;
            }
            self.report.flushed = true;
        }
        if failed {
            return false;
        }
        self.report.milliseconds = self.elapsed().as_millis() as u64;
        self.report.ended = Timestamp::now();
        self.report.covered = self.covered();
        let upto = self.watermark();
        (self.checkpoint)(&self.report, upto);
        self.epoch_left = self.settings.epoch_bytes;
        self.halt.is_none() && self.next.is_some()
    }

    fn now(&self) -> Instant {
        self.disk.clock().now()
    }

    fn elapsed(&self) -> Duration {
        self.now() - self.started
    }

    /// Everything of the area that lies below was visited.
    fn watermark(&self) -> u64 {
        let pending = self.retries.iter().map(|piece| piece.extent.start);
        pending.chain(self.next.map(|extent| extent.start)).min().unwrap_or(self.end)
    }

    fn covered(&self) -> ListedExtents {
        let bytes = self.covered.bytes();
        let whole_sample = self.step.sample().is_some() && bytes == self.area_bytes;
        if whole_sample { ListedExtents::unlisted(bytes) } else { self.covered.clone().into() }
    }

    /// The first failure stands; what is in flight is still drained.
    fn fail(&mut self, error: Error) {
        if !self.halt.as_ref().is_some_and(Halt::is_failure) {
            self.halt = Some(Halt::Failed(error));
        }
    }
}

/// Where to cut a piece in two, on a physical block; `None` if it has only one.
fn middle(extent: Extent, physical_block: u64) -> Option<u64> {
    let half = extent.start + extent.len() / 2;
    [align_down(half, physical_block), align_up(half, physical_block)]
        .into_iter()
        .find(|middle| (extent.start + 1..extent.end).contains(middle))
}

/// The same error once more: io::Error cannot be cloned.
fn copy_error(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}
