//! Models of disks, a neighbour on them, and a wipe that the throttle drives, in a time of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::Yield;
use super::super::step::Yielding;
use super::{Admission, Settings, Throttle};
use crate::io::{IoStats, Traffic};

/// How what we write shows on the device below.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Below {
    Nothing,
    Same,
    /// Twice, with something read before (a parity RAID).
    Amplified,
    /// Half of it, and that later: a page cache that writes back.
    WrittenBack,
}

/// A disk of several servers (flash chips, or one arm) behind a bus.
#[derive(Clone, Copy)]
struct DiskModel {
    name: &'static str,
    servers: usize,
    /// Of one piece of an I/O, give or take a half.
    read_time: Duration,
    write_time: Duration,
    piece_bytes: u64,
    bus_bytes_per_second: f64,
    /// Before each of the neighbour's I/Os, and before ours where the neighbour's was the last.
    seek: Duration,
    /// Bytes and I/Os a second that the host of a virtual disk allows.
    limit: Option<(f64, f64)>,
    /// Bytes that a write cache holds, and at which rate it empties, which takes time from all others.
    cache: Option<(f64, f64)>,
    /// By how much all I/Os are longer or shorter for a while, as others use the disk below a virtual one.
    drift: f64,
    below: Below,
    /// The neighbour works on another device over the same one below.
    beside: bool,
}

const SSD: DiskModel = DiskModel {
    name: "SSD",
    servers: 8,
    read_time: Duration::from_micros(80),
    write_time: Duration::from_micros(150),
    piece_bytes: 64 << 10,
    bus_bytes_per_second: 2e9,
    seek: Duration::ZERO,
    limit: None,
    cache: None,
    drift: 0.0,
    below: Below::Nothing,
    beside: false,
};
const FAST_SSD: DiskModel = DiskModel {
    name: "fast SSD",
    servers: 16,
    read_time: Duration::from_micros(60),
    write_time: Duration::from_micros(60),
    bus_bytes_per_second: 6e9,
    ..SSD
};
/// One I/O after the other.
const SERIAL_SSD: DiskModel = DiskModel {
    name: "serial SSD",
    servers: 1,
    write_time: Duration::from_micros(80),
    piece_bytes: 1 << 20,
    bus_bytes_per_second: 500e6,
    ..SSD
};
const ROTATING: DiskModel = DiskModel {
    name: "rotating disk",
    servers: 1,
    read_time: Duration::from_millis(1),
    write_time: Duration::from_micros(300),
    piece_bytes: 1 << 20,
    bus_bytes_per_second: 160e6,
    seek: Duration::from_millis(7),
    ..SSD
};
const CLOUD: DiskModel = DiskModel {
    name: "cloud disk",
    servers: 64,
    read_time: Duration::from_micros(800),
    write_time: Duration::from_micros(1200),
    piece_bytes: 256 << 10,
    bus_bytes_per_second: 1e9,
    limit: Some((250e6, 3000.0)),
    ..SSD
};
const SLOW_CACHE: DiskModel = DiskModel {
    name: "slow write cache",
    servers: 2,
    read_time: Duration::from_micros(100),
    write_time: Duration::from_micros(30),
    piece_bytes: 128 << 10,
    bus_bytes_per_second: 1e9,
    cache: Some((256e6, 60e6)),
    ..SSD
};
const DRIFTING: DiskModel = DiskModel { name: "drifting SSD", drift: 0.3, ..SERIAL_SSD };
const ALL: [DiskModel; 6] = [SSD, FAST_SSD, SERIAL_SSD, ROTATING, CLOUD, SLOW_CACHE];

/// What may pile up behind a limit.
const LIMIT_BURST: Duration = Duration::from_millis(20);
/// One I/O, as the host of a virtual disk counts.
const LIMIT_IO_BYTES: u64 = 256 << 10;
/// An emptying cache makes other I/Os longer.
const CACHE_COST: f64 = 1.3;
const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
struct NeighbourModel {
    name: &'static str,
    depth: usize,
    reads: f64,
    bytes: u64,
    /// Between two I/Os.
    pause: Duration,
    /// Each I/O with a flush.
    flushes: bool,
}

const MIXED: NeighbourModel = NeighbourModel {
    name: "4 KiB reads and writes",
    depth: 1,
    reads: 0.7,
    bytes: 4096,
    pause: Duration::ZERO,
    flushes: false,
};
const READS: NeighbourModel = NeighbourModel { name: "4 KiB reads, depth 8", depth: 8, reads: 1.0, ..MIXED };
const STREAM: NeighbourModel = NeighbourModel { name: "64 KiB reads", reads: 1.0, bytes: 64 << 10, ..MIXED };
const WRITES: NeighbourModel = NeighbourModel {
    name: "8 KiB writes",
    reads: 0.0,
    bytes: 8192,
    pause: Duration::from_micros(100),
    ..MIXED
};
const FLUSHED: NeighbourModel = NeighbourModel { name: "8 KiB writes, flushed", flushes: true, ..WRITES };
const LIGHT: NeighbourModel =
    NeighbourModel { name: "4 KiB, fifty a second", pause: Duration::from_millis(20), ..MIXED };

struct SentIo {
    at: Instant,
    done: Instant,
    bytes: u64,
    write: bool,
}

/// What happened, by the time since the start.
#[derive(Default)]
struct Timeline {
    theirs: Vec<(Duration, Duration)>,
    ours: Vec<(Duration, u64)>,
    yielding: Yielding,
}

/// Who writes beside the neighbour.
enum Writer {
    None,
    /// A plain writer with this rate, size and depth.
    Plain {
        rate: f64,
        bytes: u64,
        depth: usize,
        next: Instant,
    },
    Efface(Box<Throttle>),
}

struct Run<'a> {
    model: DiskModel,
    neighbour: NeighbourModel,
    start: Instant,
    now: Instant,
    dice: u64,
    servers: Vec<Instant>,
    bus: Instant,
    last_was_ours: bool,
    limits: (Instant, Instant),
    cached: f64,
    cached_at: Instant,
    ours: VecDeque<SentIo>,
    theirs: Vec<SentIo>,
    theirs_next: Vec<Instant>,
    works: &'a dyn Fn(Duration) -> bool,
    disk: IoStats,
    below: IoStats,
    written_back: Instant,
    backlog: u64,
    timeline: Timeline,
}

impl Run<'_> {
    fn new(model: DiskModel, neighbour: NeighbourModel, works: &dyn Fn(Duration) -> bool) -> Run<'_> {
        let start = Instant::now() + Duration::from_secs(1);
        Run {
            model,
            neighbour,
            start,
            now: start,
            dice: 1,
            servers: vec![start; model.servers],
            bus: start,
            last_was_ours: false,
            limits: (start, start),
            cached: 0.0,
            cached_at: start,
            ours: VecDeque::new(),
            theirs: Vec::new(),
            theirs_next: vec![start; neighbour.depth],
            works,
            disk: IoStats::default(),
            below: IoStats::default(),
            written_back: start,
            backlog: 0,
            timeline: Timeline::default(),
        }
    }

    fn until(&mut self, seconds: f64, writer: &mut Writer) {
        if let Writer::Plain { next, .. } = writer {
            *next = self.now;
        }
        while self.now < self.start + Duration::from_secs_f64(seconds) {
            self.step(writer);
        }
    }

    /// Until none of ours is in flight.
    fn drain(&mut self) {
        while !self.ours.is_empty() {
            self.step(&mut Writer::None);
        }
    }

    fn random(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.dice >> 40) as f64 / (1 << 24) as f64
    }

    /// From -1 to 1, another one every 400 ms.
    fn drift(&self) -> f64 {
        let slot = (self.now - self.start).as_millis() as u64 / 400;
        let mixed = (slot + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 40) as f64 / (1 << 23) as f64 - 1.0
    }

    /// When the limits let an I/O of this size begin.
    fn admitted(&mut self, bytes: u64) -> Instant {
        let Some((bytes_per_second, ios_per_second)) = self.model.limit else { return self.now };
        let earliest = self.now - LIMIT_BURST;
        let (by_bytes, by_ios) = self.limits;
        let ios = bytes.div_ceil(LIMIT_IO_BYTES) as f64;
        let by_bytes = by_bytes.max(earliest) + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
        let by_ios = by_ios.max(earliest) + Duration::from_secs_f64(ios / ios_per_second);
        self.limits = (by_bytes, by_ios);
        self.now.max(by_bytes).max(by_ios)
    }

    /// How long the cache makes an I/O wait, and by which factor longer.
    fn cache_delay(&mut self, write: bool, bytes: u64) -> (Duration, f64) {
        let Some((capacity, rate)) = self.model.cache else { return (Duration::ZERO, 1.0) };
        let since = self.now - std::mem::replace(&mut self.cached_at, self.now);
        self.cached = (self.cached - since.as_secs_f64() * rate).max(0.0);
        if write {
            self.cached += bytes as f64;
        }
        let wait = if write { (self.cached - capacity).max(0.0) / rate } else { 0.0 };
        (Duration::from_secs_f64(wait), if self.cached > 0.0 { CACHE_COST } else { 1.0 })
    }

    fn serve(&mut self, ours: bool, write: bool, bytes: u64) -> SentIo {
        let (wait, factor) = self.cache_delay(write, bytes);
        let start = self.admitted(bytes) + wait;
        let mut time = if write { self.model.write_time } else { self.model.read_time }.mul_f64(factor);
        time = time.mul_f64(1.0 + self.model.drift * self.drift());
        if !ours || !self.last_was_ours {
            time += self.model.seek;
        }
        self.last_was_ours = ours;
        let (mut left, mut done) = (bytes, start);
        while left > 0 {
            let piece = left.min(self.model.piece_bytes);
            left -= piece;
            let luck = 0.5 + self.random();
            let server = (self.random() * self.servers.len() as f64) as usize;
            let begin = self.servers[server].max(start);
            let transfer = Duration::from_secs_f64(piece as f64 / self.model.bus_bytes_per_second);
            self.bus = self.bus.max(begin) + transfer;
            let end = (begin + time.mul_f64(luck)).max(self.bus);
            self.servers[server] = if self.servers.len() == 1 { end } else { begin + time.mul_f64(luck) };
            done = done.max(end);
        }
        SentIo { at: self.now, done, bytes, write }
    }

    fn complete(&mut self) {
        while let Some(at) = self.ours.iter().position(|sent| sent.done <= self.now) {
            let sent = self.ours.remove(at).expect("it was found there");
            count(&mut self.disk, &sent);
            match self.model.below {
                Below::Nothing => {}
                Below::Same => count(&mut self.below, &sent),
                Below::Amplified => {
                    count(&mut self.below, &sent);
                    count(&mut self.below, &sent);
                    self.below.reads.bytes += sent.bytes / 8;
                }
                Below::WrittenBack => self.backlog += sent.bytes / 2,
            }
            self.timeline.ours.push((self.now - self.start, sent.bytes));
        }
        while let Some(at) = self.theirs.iter().position(|sent| sent.done <= self.now) {
            let sent = self.theirs.remove(at);
            let stats = if self.model.beside { &mut self.below } else { &mut self.disk };
            count(stats, &sent);
            if self.neighbour.flushes {
                // Of the same length, since both wait for the same queue.
                stats.flushes.ended += 1;
                stats.flushes.ended_in += sent.done - sent.at;
            }
            self.timeline.theirs.push((sent.at - self.start, sent.done - sent.at));
            self.theirs_next.push(self.now + self.neighbour.pause);
        }
        while self.written_back + MS <= self.now {
            self.written_back += MS;
            let bytes = self.backlog.min(256 << 10);
            self.backlog -= bytes;
            self.below.writes.bytes += bytes;
        }
        self.count_in_flight();
    }

    fn count_in_flight(&mut self) {
        let theirs = |write| self.theirs.iter().filter(|sent| sent.write == write).count() as u64;
        let (reads, writes) = (theirs(false), theirs(true));
        self.disk.writes.in_flight = self.ours.len() as u64;
        (self.below.reads.in_flight, self.below.writes.in_flight) = (0, u64::from(self.backlog > 0));
        let stats = if self.model.beside { &mut self.below } else { &mut self.disk };
        stats.reads.in_flight = reads;
        stats.writes.in_flight += writes;
    }

    fn step(&mut self, writer: &mut Writer) {
        self.complete();
        for next in std::mem::take(&mut self.theirs_next) {
            if next > self.now {
                self.theirs_next.push(next);
            } else if (self.works)(self.now - self.start) {
                let write = self.random() >= self.neighbour.reads;
                let sent = self.serve(false, write, self.neighbour.bytes);
                self.theirs.push(sent);
            } else {
                self.theirs_next.push(self.now + MS);
            }
        }
        self.count_in_flight();
        let wake = self.write(writer);
        let ends = self.ours.iter().chain(&self.theirs).map(|sent| sent.done);
        let times = ends.chain(self.theirs_next.iter().copied()).chain(wake);
        self.now = times.filter(|at| *at > self.now).min().unwrap_or(self.now + MS);
    }

    fn write(&mut self, writer: &mut Writer) -> Option<Instant> {
        let settings = Settings::default();
        while self.ours.len() < settings.depth {
            let bytes_max = match writer {
                Writer::None => return None,
                Writer::Plain { depth, .. } if self.ours.len() >= *depth => return None,
                Writer::Plain { next, .. } if *next > self.now => return Some(*next),
                Writer::Plain { rate, bytes, next, .. } => {
                    *next =
                        (*next).max(self.now - LIMIT_BURST) + Duration::from_secs_f64(*bytes as f64 / *rate);
                    *bytes
                }
                Writer::Efface(throttle) => {
                    let stats = vec![self.disk, IoStats { below: true, ..self.below }];
                    match throttle.admit(self.now, self.ours.len(), || stats.clone()) {
                        Admission::Wait(until) => return until,
                        Admission::Start { bytes_max } => bytes_max,
                    }
                }
            };
            let bytes = settings.chunk_bytes.min(bytes_max);
            let sent = self.serve(true, true, bytes);
            self.ours.push_back(sent);
            self.count_in_flight();
            if let Writer::Efface(throttle) = writer {
                throttle.spend(bytes, self.now);
            }
        }
        None
    }
}

fn count(stats: &mut IoStats, sent: &SentIo) {
    let Traffic { bytes, ended, ended_in, .. } =
        if sent.write { &mut stats.writes } else { &mut stats.reads };
    *bytes += sent.bytes;
    *ended += 1;
    *ended_in += sent.done - sent.at;
}

/// Simulates seconds beside a neighbour that works at these times.
fn run(
    model: DiskModel,
    neighbour: NeighbourModel,
    mut writer: Writer,
    seconds: f64,
    works: &dyn Fn(Duration) -> bool,
) -> Timeline {
    let mut run = Run::new(model, neighbour, works);
    run.until(seconds, &mut writer);
    if let Writer::Efface(throttle) = &mut writer {
        run.timeline.yielding = throttle.end_step(run.now).unwrap_or_default();
    }
    run.timeline
}

fn efface(yields: bool) -> Writer {
    limited(yields.then_some(Yield { rate_min: Some(0), ..Yield::default() }))
}

fn limited(yields: Option<Yield>) -> Writer {
    let settings = Settings { yields, ..Settings::default() };
    Writer::Efface(Box::new(Throttle::new(&settings, Instant::now())))
}

const ALWAYS: &dyn Fn(Duration) -> bool = &|_| true;
const NEVER: &dyn Fn(Duration) -> bool = &|_| false;

/// Of a neighbour: I/Os a second, mean and 99th percentile of their time in seconds.
#[derive(Clone, Copy, Debug)]
struct Service {
    rate: f64,
    mean: f64,
    p99: f64,
}

impl Service {
    /// Relative to another one.
    fn of(self, alone: Service) -> Service {
        Service { rate: self.rate / alone.rate, mean: self.mean / alone.mean, p99: self.p99 / alone.p99 }
    }

    fn is_within_budget(self) -> bool {
        self.rate >= 0.9 && self.mean <= 1.15 && self.p99 <= 1.5
    }
}

impl Timeline {
    /// Our bytes a second between two seconds.
    fn rate(&self, from: f64, to: f64) -> f64 {
        let within = |at: &Duration| (from..to).contains(&at.as_secs_f64());
        let bytes = self.ours.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| *bytes as f64);
        bytes.sum::<f64>() / (to - from)
    }

    fn service(&self, from: f64, to: f64) -> Service {
        let within = self.theirs.iter().filter(|(at, _)| (from..to).contains(&at.as_secs_f64()));
        let mut times: Vec<f64> = within.map(|(_, took)| took.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        Service { rate: times.len() as f64 / (to - from), mean, p99: times[times.len() * 99 / 100] }
    }
}

/// The neighbour's service beside us, relative to that alone, and our rate, once the pace is found.
fn beside(model: DiskModel, neighbour: NeighbourModel, seconds: f64) -> (Service, f64) {
    let (from, to) = (seconds / 3.0, seconds);
    let alone = run(model, neighbour, Writer::None, seconds, ALWAYS).service(from, to);
    let timeline = run(model, neighbour, efface(true), seconds, ALWAYS);
    (timeline.service(from, to).of(alone), timeline.rate(from, to))
}

/// The best rate of a plain writer that keeps the budget.
fn frontier(model: DiskModel, neighbour: NeighbourModel) -> f64 {
    let alone = run(model, neighbour, Writer::None, 8.0, ALWAYS).service(1.0, 8.0);
    let mut best: f64 = 0.0;
    for (bytes, depth) in [(64 << 10, 1), (64 << 10, 4), (256 << 10, 1), (256 << 10, 4), (1 << 20, 1)] {
        let (mut kept, mut lost) = (1e6, 4e9);
        for _ in 0..8 {
            let rate = f64::sqrt(kept * lost);
            let writer = Writer::Plain { rate, bytes, depth, next: Instant::now() };
            let timeline = run(model, neighbour, writer, 8.0, ALWAYS);
            if timeline.service(1.0, 8.0).of(alone).is_within_budget() {
                (kept, best) = (rate, best.max(timeline.rate(1.0, 8.0)));
            } else {
                lost = rate;
            }
        }
    }
    best
}

#[test]
fn a_neighbour_keeps_its_rate_and_service_time() {
    for model in [SSD, FAST_SSD, SERIAL_SSD, ROTATING, CLOUD] {
        let seconds = if model.seek > Duration::ZERO { 150.0 } else { 40.0 };
        for neighbour in [MIXED, READS, STREAM, WRITES, LIGHT] {
            let (service, rate) = beside(model, neighbour, seconds);
            let case = format!("{}, {}: {service:.2?} at {:.1} MB/s", model.name, neighbour.name, rate / 1e6);
            assert!(service.rate >= 0.9 && service.mean <= 1.15, "{case}");
            // What a volley leaves behind at the limit of a cloud disk is in no mean.
            let p99_max = if model.limit.is_some() && neighbour.depth > 1 { 5.0 } else { 2.5 };
            assert!(service.p99 <= p99_max, "{case}");
        }
        let full = run(model, MIXED, efface(false), 10.0, ALWAYS).service(1.0, 10.0);
        let alone = run(model, MIXED, Writer::None, 10.0, ALWAYS).service(1.0, 10.0);
        assert!(full.of(alone).rate < 0.5, "{}: a wipe that does not yield costs nothing", model.name);
    }
}

#[test]
fn the_rate_is_near_the_best_that_keeps_the_budget() {
    for (model, neighbour, part) in [
        (SSD, MIXED, 0.6),
        (SSD, READS, 0.5),
        (SSD, STREAM, 0.6),
        (FAST_SSD, MIXED, 0.5),
        (FAST_SSD, STREAM, 0.5),
        (SERIAL_SSD, READS, 0.6),
        (ROTATING, STREAM, 0.6),
        (CLOUD, MIXED, 0.3),
    ] {
        let (best, (service, rate)) = (frontier(model, neighbour), beside(model, neighbour, 60.0));
        let case = format!("{}, {}: {:.1} of {:.1} MB/s", model.name, neighbour.name, rate / 1e6, best / 1e6);
        assert!(rate >= part * best, "{case} {service:.2?}");
    }
}

/// What the disk does by itself is not taken for what we cost, as long as it lasts.
#[test]
fn a_disk_that_becomes_slower_and_faster_is_used_all_the_time() {
    let best = frontier(DRIFTING, MIXED);
    let timeline = run(DRIFTING, MIXED, efface(true), 60.0, ALWAYS);
    let rates = (2..12).map(|part| timeline.rate(5.0 * f64::from(part), 5.0 * f64::from(part + 1)) / best);
    let least = rates.clone().fold(f64::INFINITY, f64::min);
    assert!(least >= 0.25, "{least} of the best: {:.2?}", rates.collect::<Vec<_>>());
}

#[test]
fn an_idle_disk_is_used_at_full_speed() {
    for model in ALL {
        for below in [Below::Nothing, Below::Same, Below::Amplified, Below::WrittenBack] {
            let model = DiskModel { below, ..model };
            let [plain, yielding] =
                [false, true].map(|yields| run(model, MIXED, efface(yields), 10.0, NEVER).rate(0.0, 10.0));
            assert!(yielding >= 0.95 * plain, "{yielding} of {plain}, {below:?} {}", model.name);
        }
    }
}

#[test]
fn full_speed_returns_within_a_second() {
    let models = [SSD, FAST_SSD, SERIAL_SSD, ROTATING, CLOUD];
    let places =
        [(Below::Nothing, false), (Below::Same, true), (Below::Amplified, true), (Below::WrittenBack, true)];
    let models = models.iter().flat_map(|model| {
        places.iter().map(|(below, beside)| DiskModel { below: *below, beside: *beside, ..*model })
    });
    for model in models {
        for until in [5.0, 5.1, 5.7] {
            let works = |at: Duration| (2.0..until).contains(&at.as_secs_f64());
            let timeline = run(model, MIXED, efface(true), 9.0, &works);
            let (before, after) = (timeline.rate(0.5, 2.0), timeline.rate(until + 1.0, until + 3.0));
            assert!(after >= 0.9 * before, "{after} of {before} {} {:?}", model.name, model.below);
            let beside = timeline.rate(2.4, until);
            assert!(beside < 0.5 * before, "{beside} of {before} beside a neighbour, {}", model.name);
        }
    }
}

/// Seconds of work and of rest: the bursts count from 200 ms on.
#[test]
fn a_neighbour_in_bursts_keeps_its_rate() {
    let works = |at: Duration| at.as_secs().is_multiple_of(2);
    for model in [SSD, FAST_SSD] {
        let [alone, beside] = [Writer::None, efface(true)].map(|writer| {
            let timeline = run(model, MIXED, writer, 40.0, &works);
            let in_bursts = timeline.theirs.iter().filter(|(at, _)| at.as_secs_f64() % 2.0 > 0.2);
            in_bursts.count() as f64
        });
        assert!(beside >= 0.88 * alone, "{beside} of {alone} {}", model.name);
    }
}

/// It writes as we do, on another device: below, its bytes are not distinguished from ours.
#[test]
fn what_cannot_be_measured_gets_little() {
    for model in [SSD, SERIAL_SSD] {
        let model = DiskModel { beside: true, below: Below::Same, ..model };
        let (service, rate) = beside(model, WRITES, 40.0);
        assert!(service.rate >= 0.95 && rate > 0.0, "{service:.2?} at {rate} {}", model.name);
        let Yielding { beside_ms, unmeasured_ms, .. } =
            run(model, WRITES, efface(true), 10.0, ALWAYS).yielding;
        assert!(unmeasured_ms > 9_000 && beside_ms >= unmeasured_ms, "{unmeasured_ms} of {beside_ms}");
    }
}

/// What it does not do while it pauses is not taken for a loss.
#[test]
fn a_neighbour_that_pauses_now_and_then_costs_little() {
    let works = |at: Duration| at.as_secs_f64() % 2.28 < 2.0;
    for model in [SSD, FAST_SSD] {
        let rate = |works| run(model, MIXED, efface(true), 60.0, works).rate(20.0, 60.0);
        let (pausing, busy) = (rate(&works), rate(ALWAYS));
        assert!(pausing >= 0.4 * busy, "{pausing} of {busy} {}", model.name);
    }
}

/// A random and a constant pass, and a check, beside one neighbour.
#[test]
fn a_step_that_goes_the_same_way_begins_with_the_pace_of_the_last() {
    let begins = |writes: bool| {
        let mut run = Run::new(SSD, MIXED, ALWAYS);
        let mut writer = efface(true);
        run.until(20.0, &mut writer);
        run.drain();
        let Writer::Efface(throttle) = &mut writer else { unreachable!("it is efface") };
        throttle.begin_step(writes);
        run.until(21.0, &mut writer);
        run.timeline.rate(20.0, 21.0) / run.timeline.rate(10.0, 20.0)
    };
    let (same, other) = (begins(true), begins(false));
    assert!(same > 0.6 && other < 0.5, "{same} and {other} of the rate before");
}

/// Flushes are never ours: a neighbour that flushes can be measured by them.
#[test]
fn flushes_show_a_neighbour_that_writes_as_we_do() {
    let model = DiskModel { beside: true, below: Below::Same, ..SSD };
    let ((_, little), (service, rate)) = (beside(model, WRITES, 40.0), beside(model, FLUSHED, 40.0));
    assert!(service.rate >= 0.88 && rate >= 3.0 * little, "{service:.2?} at {rate}, {little} without");
}

#[test]
fn the_lowest_rate_is_kept_and_reported() {
    let (asked, seconds) = (8e6, 40.0);
    let yields = Yield { rate_min: Some(asked as u64), ..Yield::default() };
    for (yields, least) in [(yields, 0.95 * asked), (Yield::default(), 0.04 * 160e6)] {
        let timeline = run(ROTATING, MIXED, limited(Some(yields)), seconds, ALWAYS);
        let (rate, Yielding { floor_ms, .. }) = (timeline.rate(5.0, seconds), timeline.yielding);
        assert!(
            rate >= least && rate <= 2.0 * asked && floor_ms > 5_000,
            "{rate}, decided for {floor_ms} ms"
        );
    }
    let without = run(ROTATING, MIXED, efface(true), seconds, ALWAYS);
    assert!(without.rate(5.0, seconds) < 0.8 * asked && without.yielding.floor_ms == 0);
    let never_needed = run(FAST_SSD, MIXED, limited(Some(yields)), seconds, ALWAYS);
    assert!(never_needed.yielding.floor_ms < 2_000, "{:?}", never_needed.yielding);
}

#[test]
fn a_sample_delayed_by_a_flush_is_ignored() {
    let (start, mut stats) = (Instant::now(), IoStats { below: true, ..IoStats::default() });
    let mut throttle =
        Throttle::new(&Settings { yields: Some(Yield::default()), ..Settings::default() }, start);
    let alone = Admission::Start { bytes_max: u64::MAX };
    assert_eq!(throttle.admit(start, 0, || vec![stats]), Admission::Wait(Some(start + MS)));
    stats.reads.bytes = 4096;
    assert_eq!(throttle.admit(start + 1000 * MS, 0, || vec![stats]), alone);
    throttle.spend(1 << 20, start + 1000 * MS);
    let next = start + 1200 * MS;
    assert_eq!(throttle.admit(next, 0, || vec![stats]), Admission::Wait(Some(next + MS)));
    assert_eq!(throttle.admit(next + MS, 0, || vec![stats]), alone);
}
