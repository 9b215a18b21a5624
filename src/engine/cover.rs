//! The loop: visit every block of an area once, and write, zero, discard or check it.
//!
//! Pieces of the area go to the disk as long as there are buffers; what comes back short is
//! continued, what fails is bisected down to the logical block, and what stays unusable is
//! residue. After each epoch the disk is drained and flushed, and only then is a checkpoint told.

mod trouble;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use trouble::{Trouble, advice};

use super::event::{Emitter, Event};
use super::pace::{Leave, Pace};
use super::step::{Listed, StepReport};
use super::watchdog::{Pending, StallDetector, Watchdog};
use super::{Settings, Stop};
use crate::error::Error;
use crate::io::{Buf, Disk, Done, Geometry, Op};
use crate::pattern::Pattern;
use crate::plan::{Operation, Step};
use crate::range::{Extent, ExtentSet, align_down, align_up};
use crate::verdict::Verdict;

/// How often a waiting loop looks up: for a signal, and to tell its progress.
const TICK: Duration = Duration::from_millis(100);
/// Tries for a piece that cannot be cut any more.
const TRIES_MAX: u32 = 3;
/// Into how many parts the course of a step is cut.
const COURSE_PARTS: u64 = 128;

/// What a step needs from its job.
pub struct Context<'a> {
    pub disk: &'a mut dyn Disk,
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub emitter: &'a Emitter,
    /// The step's number in its plan, from 0.
    pub number: usize,
    /// Shown what a survey reads, and the blocks that a check finds to differ.
    pub see: &'a mut dyn FnMut(Extent, &[u8]),
    /// Told after each epoch, with the offset below which everything was visited, and is durable
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

/// A piece that the disk has, and what its buffer holds.
struct Flight {
    piece: Piece,
    holds: Option<(u64, usize)>,
    operation: &'static str,
    pending: Pending,
}

/// A buffer, and what a constant pattern left in it: its phase, and up to which length.
struct Sheet {
    buf: Buf,
    holds: Option<(u64, usize)>,
}

impl Sheet {
    fn prepare(&mut self, pattern: &Pattern, at: u64, len: usize) {
        self.buf.set_len(len);
        let phase = pattern.phase(at);
        if let (Some(phase), Some((held, filled))) = (phase, self.holds)
            && phase == held
            && len <= filled
        {
            return;
        }
        pattern.fill(at, &mut self.buf);
        self.holds = phase.map(|phase| (phase, len));
    }
}

/// Runs one step over an area, and says why it ended early where it did.
pub fn cover<'a>(context: Context<'a>, step: &'a Step, area: &ExtentSet) -> (StepReport, Option<Halt>) {
    let (transfer, depth) = context.settings.transfers(step);
    let number = context.number;
    let disk_failed = |error| Halt::Failed(Error::failed("no buffers for the disk's I/O").because(error));
    let mut cover = Cover::new(context, step, area, transfer, depth);
    let buffers = if step.transfers() { depth } else { 0 };
    match cover.disk.buffers(buffers, transfer as usize) {
        Ok(bufs) => cover.idle.extend(bufs.into_iter().map(|buf| Sheet { buf, holds: None })),
        Err(error) => cover.halt = Some(disk_failed(error)),
    }
    cover.run();
    cover.report.milliseconds = cover.elapsed().as_millis() as u64;
    cover.report.ended = Timestamp::now();
    cover.report.covered = cover.covered();
    cover.emitter.emit(Event::Progress { step: number, bytes: cover.report.bytes });
    (cover.report, cover.halt)
}

struct Cover<'a> {
    disk: &'a mut dyn Disk,
    settings: &'a Settings,
    stop: &'a Stop,
    emitter: &'a Emitter,
    number: usize,
    step: &'a Step,
    geometry: Geometry,
    depth: usize,
    see: &'a mut dyn FnMut(Extent, &[u8]),
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
    again: Vec<Piece>,
    flying: HashMap<u64, Flight>,
    /// The longest piece that is begun now: short after a failure, since bad blocks lie together, and
    /// twice as long after each success.
    reach: u64,
    reach_max: u64,
    watchdog: Watchdog,
    stalls: StallDetector,
    idle: Vec<Sheet>,
    done: Vec<Done>,
    /// What a constant check expects, filled once.
    expected: Sheet,
    pace: Pace,
    reported_at: Instant,
    report: StepReport,
    halt: Option<Halt>,
}

impl<'a> Cover<'a> {
    fn new(context: Context<'a>, step: &'a Step, area: &ExtentSet, transfer: u64, depth: usize) -> Cover<'a> {
        let Context { disk, settings, stop, emitter, number, see, checkpoint } = context;
        let (geometry, now) = (disk.geometry(), disk.clock().now());
        let extents: Vec<Extent> = area.iter().collect();
        let mut fresh = extents.into_iter().flat_map(move |extent| extent.chunks(transfer));
        let report = StepReport {
            step: step.clone(),
            covered: Listed::default(),
            bytes: 0,
            failed_bytes: 0,
            milliseconds: 0,
            flushed: false,
            unusable: ExtentSet::new(),
            differing: Listed::default(),
            retried: ExtentSet::new(),
            errors: 0,
            started: Timestamp::now(),
            ended: Timestamp::now(),
            course: Vec::new(),
        };
        Cover {
            geometry,
            depth,
            see,
            checkpoint,
            started: now,
            area_bytes: area.bytes(),
            in_order: area.len() == 1,
            covered: ExtentSet::new(),
            next: fresh.next(),
            fresh: Box::new(fresh),
            epoch_left: settings.epoch_bytes,
            end: area.iter().last().map_or(0, |extent| extent.end),
            again: Vec::new(),
            flying: HashMap::new(),
            reach: transfer,
            reach_max: transfer,
            watchdog: Watchdog::new(settings),
            stalls: StallDetector::new(settings, now),
            idle: Vec::new(),
            done: Vec::new(),
            expected: Sheet {
                buf: Buf::new(if step.writes() { 1 } else { transfer as usize }, 1),
                holds: None,
            },
            pace: Pace::new(settings, step.writes(), now),
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

    fn run(&mut self) {
        loop {
            if self.halt.is_none() {
                self.halt = self.stop.verdict().map(Halt::Asked);
            }
            let wake = self.feed();
            if !self.flying.is_empty() {
                self.reap(wake);
            } else if let Some(wake) = wake {
                let clock = self.disk.clock();
                clock.sleep_until(wake.min(clock.now() + TICK));
            } else if !self.end_epoch() {
                return;
            }
        }
    }

    /// Submits what may be submitted; tells when more may be, where the pace forbids it now.
    fn feed(&mut self) -> Option<Instant> {
        while self.halt.is_none() && self.flying.len() < self.depth && self.has_piece() {
            let now = self.now();
            let bytes_max = match self.pace.leave(now, self.flying.len(), || self.disk.loads()) {
                Leave::Start { bytes_max } => bytes_max,
                Leave::Wait(until) => return until,
            };
            let piece = self.take_piece(bytes_max.min(self.reach));
            let bytes = piece.extent.len();
            if !self.submit(piece) {
                return None;
            }
            self.pace.spend(bytes, now);
        }
        None
    }

    fn has_piece(&self) -> bool {
        !self.again.is_empty() || (self.epoch_left > 0 && self.next.is_some())
    }

    /// The next piece, where there is one, cut where it is longer than is allowed.
    fn take_piece(&mut self, bytes_max: u64) -> Piece {
        if let Some(piece) = self.again.pop() {
            return piece;
        }
        let (extent, rest) = self.cut_short(self.next.expect("somebody looked"), bytes_max);
        self.next = if rest.is_empty() { self.fresh.next() } else { Some(rest) };
        self.epoch_left = self.epoch_left.saturating_sub(extent.len());
        Piece { extent, tries: 0, failed_before: false }
    }

    /// A discard stays whole: a device ignores those that are smaller than its own granularity.
    fn cut_short(&self, extent: Extent, bytes_max: u64) -> (Extent, Extent) {
        let grain = self.geometry.physical_block;
        let len = align_down(bytes_max, grain).max(grain);
        let whole = extent.len() <= len || self.step.discards();
        extent.split(if whole { extent.end } else { align_down(extent.start + len, grain) })
    }

    /// Sends a piece to the disk; says whether the disk took it.
    fn submit(&mut self, piece: Piece) -> bool {
        let (at, len) = (piece.extent.start, piece.extent.len());
        let (op, holds) = match self.step.operation() {
            Operation::WriteZeroes => (Op::Zero { at, len }, None),
            Operation::Discard => (Op::Discard { at, len }, None),
            Operation::Write { pattern } => {
                let mut sheet = self.idle.pop().expect("as many buffers as pieces in flight");
                sheet.prepare(pattern, at, len as usize);
                (Op::Write { at, buf: sheet.buf }, sheet.holds)
            }
            Operation::FindNonZero | Operation::Fingerprint | Operation::Compare { .. } => {
                let mut buf = self.idle.pop().expect("as many buffers as pieces in flight").buf;
                buf.set_len(len as usize);
                (Op::Read { at, buf }, None)
            }
        };
        let operation = op.name();
        self.report.flushed = false;
        let Cover { disk, emitter, .. } = self;
        // A command, and a backend without a queue, come back only when the device has answered.
        match emitter.calls.within(operation, piece.extent, || disk.submit(op)) {
            Ok(()) => {
                let pending = Pending::new(self.now());
                self.flying.insert(at, Flight { piece, holds, operation, pending });
                true
            }
            Err(op) => {
                self.idle.extend(op.into_buf().map(|buf| Sheet { buf, holds }));
                self.again.push(piece);
                false
            }
        }
    }

    fn reap(&mut self, wake: Option<Instant>) {
        let tick = self.now() + TICK;
        let mut done = std::mem::take(&mut self.done);
        let reaped = self.disk.reap(&mut done, Some(wake.map_or(tick, |wake| wake.min(tick))));
        for done in done.drain(..) {
            self.settle(done);
        }
        self.done = done;
        if let Err(error) = reaped {
            self.abandon(Error::failed("the disk's queue broke").because(error));
        }
        let now = self.now();
        if now >= self.reported_at + TICK {
            self.reported_at = now;
            self.emitter.emit(Event::Progress { step: self.number, bytes: self.report.bytes });
            self.check_limits(now);
        }
    }

    /// Reports I/Os that take long, and gives a device up that does not answer, or is too slow.
    fn check_limits(&mut self, now: Instant) {
        for flight in self.flying.values_mut() {
            if self.watchdog.is_newly_late(&mut flight.pending, now) {
                let (at, seconds) = (flight.piece.extent, flight.pending.age(now).as_secs());
                self.emitter.emit(Event::Late { at, operation: flight.operation, seconds });
            }
        }
        let stopping = matches!(self.halt, Some(Halt::Asked(_)));
        let oldest = self.flying.values().min_by_key(|flight| flight.pending.since);
        if let Some(flight) =
            oldest.filter(|flight| self.watchdog.gives_up_io(flight.pending.age(now), stopping))
        {
            let seconds = flight.pending.age(now).as_secs();
            let what = format!("a {} has not been answered for {seconds} s", flight.operation);
            let error = Error::failed(what).at(flight.piece.extent);
            return self.abandon(error.way_out(advice(self.disk.medium(), trouble::GONE)));
        }
        if self.in_order
            && let Some(slow) = self.stalls.too_slow(self.report.bytes, now)
        {
            self.fail(Error::failed(slow).way_out("replace the device, or wipe it without --min-rate"));
        }
    }

    /// What is still in flight stays with the disk, which outlives it or leaks it.
    fn abandon(&mut self, error: Error) {
        self.fail(error);
        if let Some(Halt::Failed(first)) = self.halt.take() {
            self.halt = Some(Halt::Abandoned(first));
        }
        self.flying.clear();
    }

    fn settle(&mut self, done: Done) {
        let Done { op, result } = done;
        let flight = self.flying.remove(&op.at()).expect("only what was submitted comes back");
        let Flight { piece, holds, .. } = flight;
        let name = op.name();
        match result {
            Ok(bytes) => self.landed(&op, piece, bytes),
            Err(error) => self.troubled(piece, name, &error),
        }
        self.idle.extend(op.into_buf().map(|buf| Sheet { buf, holds }));
    }

    /// Counts what was done of a piece, and goes on with the rest from a whole block.
    fn landed(&mut self, op: &Op, piece: Piece, bytes: u64) {
        let extent = piece.extent;
        let whole = if bytes >= extent.len() {
            extent.end
        } else {
            align_down(extent.start + bytes, self.geometry.logical_block).max(extent.start)
        };
        if whole == extent.start {
            // Nothing moved: an error, or a loop without end.
            let nothing = io::Error::from_raw_os_error(libc::EIO);
            return self.troubled(piece, op.name(), &nothing);
        }
        let (good, rest) = extent.split(whole);
        self.stalls.succeeded();
        if !piece.failed_before {
            self.reach = (self.reach * 2).min(self.reach_max);
        }
        self.report.bytes += good.len();
        self.covered.insert(good);
        self.note_course();
        if let Op::Read { buf, .. } = op {
            let bytes = &buf[..good.len() as usize];
            match self.step.expected() {
                Some(expected) => self.compare(expected, good, bytes),
                None => (self.see)(good, bytes),
            }
        }
        if piece.failed_before {
            self.report.retried.insert(good);
        }
        if !rest.is_empty() {
            self.again.push(Piece { extent: rest, ..piece });
        }
    }

    fn note_course(&mut self) {
        if !self.in_order {
            return;
        }
        let done = u128::from(self.report.bytes) * u128::from(COURSE_PARTS);
        let parts = (done / u128::from(self.area_bytes)) as usize;
        if parts > self.report.course.len() {
            let now = self.elapsed().as_micros() as u64;
            self.report.course.resize(parts, now);
        }
    }

    /// Notes the blocks of `extent` that do not hold what they should.
    fn compare(&mut self, expect: &Pattern, extent: Extent, bytes: &[u8]) {
        self.expected.prepare(expect, extent.start, bytes.len());
        if *self.expected.buf == *bytes {
            return;
        }
        let mut differing = ExtentSet::new();
        for block in extent.chunks(self.geometry.logical_block) {
            let range = (block.start - extent.start) as usize..(block.end - extent.start) as usize;
            if self.expected.buf[range.clone()] != bytes[range.clone()] {
                differing.insert(block);
                (self.see)(block, &bytes[range]);
            }
        }
        differing.iter().for_each(|extent| self.report.differing.add(extent));
    }

    fn troubled(&mut self, piece: Piece, operation: &'static str, error: &io::Error) {
        let extent = piece.extent;
        self.report.failed_bytes += extent.len();
        let told = |what: &str| Error::failed(what).at(extent).because(again(error));
        let lost = self.stalls.failed(self.now());
        let medium = self.disk.medium();
        let failing = advice(medium, "the device is failing: replace it, or destroy it");
        let short = !extent.len().is_multiple_of(self.geometry.logical_block);
        match Trouble::of(error, short) {
            Trouble::Passing | Trouble::Media if lost >= self.settings.give_up_after => {
                let what = format!("given up: for {} s every I/O has failed", lost.as_secs());
                self.fail(told(&what).way_out(failing));
            }
            Trouble::Passing | Trouble::Media if self.report.errors >= self.settings.errors_max => {
                let what =
                    format!("given up after {} failed I/Os, the last one a {operation}", self.report.errors);
                self.fail(told(&what).way_out(failing));
            }
            Trouble::Passing => {
                self.report.errors += 1;
                self.again.push(piece);
            }
            Trouble::Media => self.cut(piece, operation, error),
            Trouble::Unsupported if self.report.bytes == 0 => {
                let what = format!("the device does not support {operation}");
                let way_out = "use a method that writes, such as --method zero";
                self.fail(Error::unsupported(what).because(again(error)).way_out(way_out));
            }
            Trouble::Unsupported | Trouble::Fatal => {
                let (what, way_out) =
                    trouble::fatal(operation, error, self.disk.unchanged().is_err(), medium);
                self.fail(told(&what).way_out(way_out));
            }
        }
    }

    /// Narrows a failure down: halves to the physical block, that one again, its logical blocks.
    fn cut(&mut self, piece: Piece, operation: &'static str, error: &io::Error) {
        self.report.errors += 1;
        let Geometry { logical_block, physical_block, .. } = self.geometry;
        let extent = piece.extent;
        self.reach = physical_block;
        let part = |extent| Piece { extent, tries: 0, failed_before: true };
        if let Some(middle) = middle(extent, physical_block) {
            let (left, right) = extent.split(middle);
            self.again.extend([part(right), part(left)]);
        } else if piece.tries + 1 < TRIES_MAX {
            self.again.push(Piece { extent, tries: piece.tries + 1, failed_before: true });
        } else if extent.len() > logical_block {
            self.again.extend(extent.chunks(logical_block).map(part));
        } else {
            self.report.unusable.insert(extent);
            self.covered.insert(extent);
            let error = error.to_string();
            self.emitter.emit(Event::Unusable { step: self.number, at: extent, operation, error });
        }
    }

    /// Makes an epoch durable when nothing is in flight; says whether there is more to do.
    fn end_epoch(&mut self) -> bool {
        assert!(self.halt.is_some() || self.again.is_empty(), "an idle disk took no piece");
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
                        .way_out(advice(medium, "do not trust this device; run it again or destroy it")),
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
        let pending = self.again.iter().map(|piece| piece.extent.start);
        pending.chain(self.next.map(|extent| extent.start)).min().unwrap_or(self.end)
    }

    fn covered(&self) -> Listed {
        let bytes = self.covered.bytes();
        let whole_sample = self.step.sample().is_some() && bytes == self.area_bytes;
        if whole_sample { Listed::unlisted(bytes) } else { self.covered.clone().into() }
    }

    /// The first failure stands; what is in flight is still drained.
    fn fail(&mut self, error: Error) {
        if !self.halt.as_ref().is_some_and(Halt::is_failure) {
            self.halt = Some(Halt::Failed(error));
        }
    }
}

/// Where to cut a piece in two, on a physical block; none where it has no more than one.
fn middle(extent: Extent, physical_block: u64) -> Option<u64> {
    let half = extent.start + extent.len() / 2;
    [align_down(half, physical_block), align_up(half, physical_block)]
        .into_iter()
        .find(|middle| (extent.start + 1..extent.end).contains(middle))
}

/// The same error once more: io::Error cannot be cloned.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}
