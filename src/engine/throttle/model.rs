//! A disk whose I/Os take the longer the more of them there are, a neighbour on it, and a wipe that the
//! pace drives, in a time of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Admission, Settings, Throttle};
use crate::io::IoStats;

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

/// Takes one I/O after the other.
#[derive(Clone, Copy)]
struct DiskModel {
    /// What an I/O of the neighbour's costs, give or take a half, and one of ours without its bytes.
    theirs: Duration,
    ours: Duration,
    bytes_per_second: f64,
    below: Below,
    /// The neighbour works on another device over the same one below.
    beside: bool,
    /// The neighbour waits so long between two I/Os.
    thinks: Duration,
    /// Our I/Os need not wait for the neighbour's, though those wait for ours.
    cached: bool,
}

const FLASH: DiskModel = DiskModel {
    theirs: Duration::from_micros(80),
    ours: Duration::from_micros(80),
    bytes_per_second: 2e9,
    below: Below::Nothing,
    beside: false,
    thinks: Duration::ZERO,
    cached: false,
};
const PLATTERS: DiskModel = DiskModel {
    theirs: Duration::from_millis(8),
    ours: Duration::from_millis(8),
    bytes_per_second: 160e6,
    ..FLASH
};
/// A drive that takes writes into its cache.
const CACHED: DiskModel =
    DiskModel { ours: Duration::from_micros(5), bytes_per_second: 4e9, cached: true, ..FLASH };
const NEIGHBOUR_BYTES: u64 = 4096;
const MS: Duration = Duration::from_millis(1);

struct SentIo {
    at: Instant,
    done: Instant,
    bytes: u64,
}

/// What happened, by the time since the start.
#[derive(Default)]
struct Timeline {
    theirs: Vec<(Duration, Duration)>,
    ours: Vec<(Duration, u64)>,
    /// When we had more than one I/O in flight.
    deep: Vec<Duration>,
}

struct Run<'a> {
    model: DiskModel,
    start: Instant,
    now: Instant,
    /// When the disk is done with all that it has, and with all of ours.
    free: Instant,
    free_of_ours: Instant,
    dice: u64,
    ours: VecDeque<SentIo>,
    theirs: Option<SentIo>,
    theirs_next: Instant,
    works: &'a dyn Fn(Duration) -> bool,
    disk: IoStats,
    below: IoStats,
    written_back: Instant,
    backlog: u64,
    course: Timeline,
}

impl Run<'_> {
    fn serve(&mut self, ours: bool, cost: Duration, bytes: u64) -> SentIo {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let luck = 0.5 + (self.dice >> 40) as f64 / (1 << 24) as f64;
        let transfer = bytes as f64 / self.model.bytes_per_second;
        let before = if ours && self.model.cached { self.free_of_ours } else { self.free };
        let done = before.max(self.now) + cost.mul_f64(luck) + Duration::from_secs_f64(transfer);
        self.free = self.free.max(done);
        if ours {
            self.free_of_ours = done;
        }
        SentIo { at: self.now, done, bytes }
    }

    fn complete(&mut self) {
        while self.ours.front().is_some_and(|sent| sent.done <= self.now) {
            let sent = self.ours.pop_front().unwrap();
            count(&mut self.disk, &sent);
            match self.model.below {
                Below::Nothing => {}
                Below::Same => count(&mut self.below, &sent),
                Below::Amplified => {
                    count(&mut self.below, &sent);
                    count(&mut self.below, &sent);
                    self.below.read_bytes += sent.bytes / 8;
                }
                Below::WrittenBack => self.backlog += sent.bytes / 2,
            }
            self.course.ours.push((self.now - self.start, sent.bytes));
        }
        if let Some(sent) = self.theirs.take_if(|sent| sent.done <= self.now) {
            let stats = if self.model.beside { &mut self.below } else { &mut self.disk };
            stats.read_bytes += sent.bytes;
            stats.ended += 1;
            stats.ended_in += sent.done - sent.at;
            self.course.theirs.push((sent.at - self.start, sent.done - sent.at));
            self.theirs_next = self.now + self.model.thinks;
        }
        while self.written_back + MS <= self.now {
            self.written_back += MS;
            let bytes = self.backlog.min(256 << 10);
            self.backlog -= bytes;
            self.below.write_bytes += bytes;
        }
        self.disk.writes_in_flight = self.ours.len() as u64;
        self.below.writes_in_flight = u64::from(self.backlog > 0);
        let stats = if self.model.beside { &mut self.below } else { &mut self.disk };
        stats.reads_in_flight = self.theirs.is_some().into();
    }

    fn step(&mut self, throttle: Option<&mut Throttle>) {
        self.complete();
        if self.theirs.is_none() && self.theirs_next <= self.now {
            if (self.works)(self.now - self.start) {
                self.theirs = Some(self.serve(false, self.model.theirs, NEIGHBOUR_BYTES));
            } else {
                self.theirs_next = self.now + MS;
            }
        }
        let mut wake = throttle.and_then(|throttle| self.feed(throttle));
        for at in [self.ours.front().map(|sent| sent.done), self.theirs.as_ref().map(|sent| sent.done)] {
            wake = [wake, at].into_iter().flatten().min();
        }
        if self.theirs.is_none() {
            wake = Some(wake.map_or(self.theirs_next, |wake| wake.min(self.theirs_next)));
        }
        self.now = wake.expect("an I/O or a pause is pending").max(self.now);
    }

    fn feed(&mut self, throttle: &mut Throttle) -> Option<Instant> {
        let settings = Settings::default();
        while self.ours.len() < settings.depth {
            let stats = vec![self.disk, IoStats { below: true, ..self.below }];
            match throttle.admit(self.now, self.ours.len(), || stats.clone()) {
                Admission::Wait(until) => return until,
                Admission::Start { bytes_max } => {
                    let bytes = settings.chunk_bytes.min(bytes_max);
                    let sent = self.serve(true, self.model.ours, bytes);
                    self.ours.push_back(sent);
                    throttle.spend(bytes, self.now);
                    if self.ours.len() > 1 {
                        self.course.deep.push(self.now - self.start);
                    }
                }
            }
        }
        None
    }
}

fn count(stats: &mut IoStats, ours: &SentIo) {
    stats.write_bytes += ours.bytes;
    stats.ended += 1;
    stats.ended_in += ours.done - ours.at;
}

/// Simulates `seconds` of a wipe (or of none), beside a neighbour that works at these times.
fn run(model: DiskModel, wipe: Option<bool>, seconds: u64, works: &dyn Fn(Duration) -> bool) -> Timeline {
    let start = Instant::now();
    let mut run = Run {
        model,
        start,
        now: start,
        free: start,
        free_of_ours: start,
        dice: 1,
        ours: VecDeque::new(),
        theirs: None,
        theirs_next: start,
        works,
        disk: IoStats::default(),
        below: IoStats::default(),
        written_back: start,
        backlog: 0,
        course: Timeline::default(),
    };
    let mut throttle =
        wipe.map(|yields| Throttle::new(&Settings { yields, ..Settings::default() }, true, start));
    while run.now < start + Duration::from_secs(seconds) {
        run.step(throttle.as_mut());
    }
    run.course
}

const ALWAYS: &dyn Fn(Duration) -> bool = &|_| true;
const NEVER: &dyn Fn(Duration) -> bool = &|_| false;

impl Timeline {
    /// Our bytes a second between two seconds.
    fn rate(&self, from: f64, to: f64) -> f64 {
        let within = |at: &Duration| (from..to).contains(&at.as_secs_f64());
        self.ours.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| *bytes as f64).sum::<f64>()
            / (to - from)
    }

    fn p99(&self) -> Duration {
        let mut times: Vec<Duration> = self.theirs.iter().map(|(_, took)| *took).collect();
        times.sort();
        times[times.len() * 99 / 100]
    }
}

/// The neighbour's I/Os per second and 99th percentile latency, relative to those without a wipe.
fn neighbour_effect(model: DiskModel, yields: bool) -> (f64, f64) {
    let (alone, beside) = (run(model, None, 20, ALWAYS), run(model, Some(yields), 20, ALWAYS));
    let ios = beside.theirs.len() as f64 / alone.theirs.len() as f64;
    (ios, beside.p99().as_secs_f64() / alone.p99().as_secs_f64())
}

#[test]
fn a_neighbour_keeps_its_share_and_latency() {
    for model in [FLASH, PLATTERS, CACHED] {
        for (below, beside) in [(Below::Nothing, false), (Below::Same, true), (Below::WrittenBack, true)] {
            let model = DiskModel { below, beside, ..model };
            let (ios, p99) = neighbour_effect(model, true);
            assert!(ios >= 0.8 && p99 <= 1.5, "{ios} {p99} {below:?} {:?}", model.ours);
        }
        let (ios, p99) = neighbour_effect(model, false);
        assert!(ios < 0.8 && p99 > 1.5, "the model has no load that a neighbour feels: {ios} {p99}");
    }
}

#[test]
fn an_idle_disk_is_used_at_full_speed() {
    for model in [FLASH, PLATTERS, CACHED] {
        for below in [Below::Nothing, Below::Same, Below::Amplified, Below::WrittenBack] {
            let model = DiskModel { below, ..model };
            let [plain, yielding] =
                [false, true].map(|yields| run(model, Some(yields), 20, NEVER).rate(0.0, 20.0));
            assert!(yielding >= 0.95 * plain, "{yielding} of {plain}, {below:?} {:?}", model.ours);
        }
    }
}

#[test]
fn full_speed_returns_within_a_second() {
    for model in [FLASH, PLATTERS, CACHED] {
        for until in [5.0, 5.1, 5.7] {
            let works = |at: Duration| (2.0..until).contains(&at.as_secs_f64());
            let course = run(model, Some(true), 9, &works);
            let beside = |at: &&Duration| (2.4..until).contains(&at.as_secs_f64());
            assert_eq!(course.deep.iter().find(beside), None, "{:?}", model.ours);
            let (before, after) = (course.rate(0.5, 2.0), course.rate(until + 1.0, until + 3.0));
            assert!(after >= 0.95 * before, "{after} of {before} {:?}", model.ours);
        }
    }
}

#[test]
fn the_rate_does_not_oscillate_beside_a_neighbour() {
    for model in [FLASH, PLATTERS, CACHED] {
        // Busy, and with fifty I/Os a second at most.
        for thinks in [Duration::ZERO, 20 * MS] {
            let course = run(DiskModel { thinks, ..model }, Some(true), 100, ALWAYS);
            let last = course.deep.last().copied().unwrap_or_default();
            assert!(last < Duration::from_millis(500), "deep again at {last:?} {thinks:?} {:?}", model.ours);
            let rates: Vec<f64> = (0..3)
                .map(|part| 10.0 + 30.0 * f64::from(part))
                .map(|from| course.rate(from, from + 30.0))
                .collect();
            let (low, high) =
                (rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max));
            assert!(low > 0.0 && high < 2.0 * low, "{rates:?} {thinks:?} {:?}", model.ours);
        }
    }
}

#[test]
fn a_sample_delayed_by_a_flush_is_ignored() {
    let (start, mut stats) = (Instant::now(), IoStats { below: true, ..IoStats::default() });
    let mut throttle = Throttle::new(&Settings { yields: true, ..Settings::default() }, true, start);
    let alone = Admission::Start { bytes_max: u64::MAX };
    assert_eq!(throttle.admit(start, 0, || vec![stats]), Admission::Wait(Some(start + MS)));
    stats.read_bytes = 4096;
    assert_eq!(throttle.admit(start + 1000 * MS, 0, || vec![stats]), alone);
    throttle.spend(1 << 20, start + 1000 * MS);
    let next = start + 1200 * MS;
    assert_eq!(throttle.admit(next, 0, || vec![stats]), Admission::Wait(Some(next + MS)));
    assert_eq!(throttle.admit(next + MS, 0, || vec![stats]), alone);
}

#[test]
fn cheap_ios_get_a_growing_share() {
    let rate = |model| run(model, Some(true), 20, ALWAYS).rate(5.0, 20.0);
    assert!(rate(CACHED) > 100e6, "{}", rate(CACHED));
    assert!(rate(FLASH) > 3e6 && rate(FLASH) < 50e6, "{}", rate(FLASH));
}
