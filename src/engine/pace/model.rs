//! A disk whose I/Os take the longer the more of them there are, a neighbour on it, and a wipe that the
//! pace drives, in a time of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Leave, Pace, Settings};
use crate::io::Load;

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
struct Model {
    /// What an I/O of the neighbour's costs, give or take a half, and one of ours without its bytes.
    his: Duration,
    ours: Duration,
    bytes_per_second: f64,
    below: Below,
    /// The neighbour works on another device over the same one below.
    beside: bool,
    /// The neighbour waits so long between two I/Os.
    thinks: Duration,
    /// Ours need not wait for his, though his wait for ours.
    cached: bool,
}

const FLASH: Model = Model {
    his: Duration::from_micros(80),
    ours: Duration::from_micros(80),
    bytes_per_second: 2e9,
    below: Below::Nothing,
    beside: false,
    thinks: Duration::ZERO,
    cached: false,
};
const PLATTERS: Model =
    Model { his: Duration::from_millis(8), ours: Duration::from_millis(8), bytes_per_second: 160e6, ..FLASH };
/// A drive that takes writes into its cache.
const CACHED: Model = Model { ours: Duration::from_micros(5), bytes_per_second: 4e9, cached: true, ..FLASH };
const HIS_BYTES: u64 = 4096;
const MS: Duration = Duration::from_millis(1);

struct Sent {
    at: Instant,
    done: Instant,
    bytes: u64,
}

/// What happened, by the time since the start.
#[derive(Default)]
struct Course {
    his: Vec<(Duration, Duration)>,
    ours: Vec<(Duration, u64)>,
    /// When we had more than one I/O in flight.
    deep: Vec<Duration>,
}

struct Run<'a> {
    model: Model,
    start: Instant,
    now: Instant,
    /// When the disk is done with all that it has, and with all of ours.
    free: Instant,
    free_of_ours: Instant,
    dice: u64,
    ours: VecDeque<Sent>,
    his: Option<Sent>,
    his_next: Instant,
    works: &'a dyn Fn(Duration) -> bool,
    disk: Load,
    below: Load,
    written_back: Instant,
    backlog: u64,
    course: Course,
}

impl Run<'_> {
    fn serve(&mut self, ours: bool, cost: Duration, bytes: u64) -> Sent {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let luck = 0.5 + (self.dice >> 40) as f64 / (1 << 24) as f64;
        let transfer = bytes as f64 / self.model.bytes_per_second;
        let before = if ours && self.model.cached { self.free_of_ours } else { self.free };
        let done = before.max(self.now) + cost.mul_f64(luck) + Duration::from_secs_f64(transfer);
        self.free = self.free.max(done);
        if ours {
            self.free_of_ours = done;
        }
        Sent { at: self.now, done, bytes }
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
        if let Some(sent) = self.his.take_if(|sent| sent.done <= self.now) {
            let load = if self.model.beside { &mut self.below } else { &mut self.disk };
            load.read_bytes += sent.bytes;
            load.ended += 1;
            load.ended_in += sent.done - sent.at;
            self.course.his.push((sent.at - self.start, sent.done - sent.at));
            self.his_next = self.now + self.model.thinks;
        }
        while self.written_back + MS <= self.now {
            self.written_back += MS;
            let bytes = self.backlog.min(256 << 10);
            self.backlog -= bytes;
            self.below.write_bytes += bytes;
        }
        self.disk.writes_in_flight = self.ours.len() as u64;
        self.below.writes_in_flight = u64::from(self.backlog > 0);
        let load = if self.model.beside { &mut self.below } else { &mut self.disk };
        load.reads_in_flight = self.his.is_some().into();
    }

    fn step(&mut self, pace: Option<&mut Pace>) {
        self.complete();
        if self.his.is_none() && self.his_next <= self.now {
            if (self.works)(self.now - self.start) {
                self.his = Some(self.serve(false, self.model.his, HIS_BYTES));
            } else {
                self.his_next = self.now + MS;
            }
        }
        let mut wake = pace.and_then(|pace| self.feed(pace));
        for at in [self.ours.front().map(|sent| sent.done), self.his.as_ref().map(|sent| sent.done)] {
            wake = [wake, at].into_iter().flatten().min();
        }
        if self.his.is_none() {
            wake = Some(wake.map_or(self.his_next, |wake| wake.min(self.his_next)));
        }
        self.now = wake.expect("somebody waits for something").max(self.now);
    }

    fn feed(&mut self, pace: &mut Pace) -> Option<Instant> {
        let settings = Settings::default();
        while self.ours.len() < settings.depth {
            let loads = vec![self.disk, Load { below: true, ..self.below }];
            match pace.leave(self.now, self.ours.len(), || loads.clone()) {
                Leave::Wait(until) => return until,
                Leave::Start { bytes_max } => {
                    let bytes = settings.chunk_bytes.min(bytes_max);
                    let sent = self.serve(true, self.model.ours, bytes);
                    self.ours.push_back(sent);
                    pace.spend(bytes, self.now);
                    if self.ours.len() > 1 {
                        self.course.deep.push(self.now - self.start);
                    }
                }
            }
        }
        None
    }
}

fn count(load: &mut Load, ours: &Sent) {
    load.write_bytes += ours.bytes;
    load.ended += 1;
    load.ended_in += ours.done - ours.at;
}

/// So many seconds of a wipe (or of none), beside a neighbour that works at these times.
fn run(model: Model, wipe: Option<bool>, seconds: u64, works: &dyn Fn(Duration) -> bool) -> Course {
    let start = Instant::now();
    let mut run = Run {
        model,
        start,
        now: start,
        free: start,
        free_of_ours: start,
        dice: 1,
        ours: VecDeque::new(),
        his: None,
        his_next: start,
        works,
        disk: Load::default(),
        below: Load::default(),
        written_back: start,
        backlog: 0,
        course: Course::default(),
    };
    let mut pace = wipe.map(|yields| Pace::new(&Settings { yields, ..Settings::default() }, true, start));
    while run.now < start + Duration::from_secs(seconds) {
        run.step(pace.as_mut());
    }
    run.course
}

const ALWAYS: &dyn Fn(Duration) -> bool = &|_| true;
const NEVER: &dyn Fn(Duration) -> bool = &|_| false;

impl Course {
    /// Our bytes a second between two seconds.
    fn rate(&self, from: f64, to: f64) -> f64 {
        let within = |at: &Duration| (from..to).contains(&at.as_secs_f64());
        self.ours.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| *bytes as f64).sum::<f64>()
            / (to - from)
    }

    fn p99(&self) -> Duration {
        let mut times: Vec<Duration> = self.his.iter().map(|(_, took)| *took).collect();
        times.sort();
        times[times.len() * 99 / 100]
    }
}

/// What the neighbour has of what he has alone: his I/Os a second, and how long they take.
fn felt(model: Model, yields: bool) -> (f64, f64) {
    let (alone, beside) = (run(model, None, 20, ALWAYS), run(model, Some(yields), 20, ALWAYS));
    let ios = beside.his.len() as f64 / alone.his.len() as f64;
    (ios, beside.p99().as_secs_f64() / alone.p99().as_secs_f64())
}

#[test]
fn a_neighbour_keeps_his_share_and_his_latency() {
    for model in [FLASH, PLATTERS, CACHED] {
        for (below, beside) in [(Below::Nothing, false), (Below::Same, true), (Below::WrittenBack, true)] {
            let model = Model { below, beside, ..model };
            let (ios, p99) = felt(model, true);
            assert!(ios >= 0.8 && p99 <= 1.5, "{ios} {p99} {below:?} {:?}", model.ours);
        }
        let (ios, p99) = felt(model, false);
        assert!(ios < 0.8 && p99 > 1.5, "the model has no load that a neighbour feels: {ios} {p99}");
    }
}

#[test]
fn a_disk_of_our_own_is_used_at_full_speed() {
    for model in [FLASH, PLATTERS, CACHED] {
        for below in [Below::Nothing, Below::Same, Below::Amplified, Below::WrittenBack] {
            let model = Model { below, ..model };
            let [plain, yielding] =
                [false, true].map(|yields| run(model, Some(yields), 20, NEVER).rate(0.0, 20.0));
            assert!(yielding >= 0.95 * plain, "{yielding} of {plain}, {below:?} {:?}", model.ours);
        }
    }
}

#[test]
fn full_speed_is_back_within_a_second() {
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
fn while_a_neighbour_is_there_nothing_goes_up_and_down() {
    for model in [FLASH, PLATTERS, CACHED] {
        // Busy, and with fifty I/Os a second at most.
        for thinks in [Duration::ZERO, 20 * MS] {
            let course = run(Model { thinks, ..model }, Some(true), 100, ALWAYS);
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
fn a_look_that_a_flush_came_into_says_nothing() {
    let (start, mut load) = (Instant::now(), Load { below: true, ..Load::default() });
    let mut pace = Pace::new(&Settings { yields: true, ..Settings::default() }, true, start);
    let alone = Leave::Start { bytes_max: u64::MAX };
    assert_eq!(pace.leave(start, 0, || vec![load]), Leave::Wait(Some(start + MS)));
    load.read_bytes = 4096;
    assert_eq!(pace.leave(start + 1000 * MS, 0, || vec![load]), alone);
    pace.spend(1 << 20, start + 1000 * MS);
    let next = start + 1200 * MS;
    assert_eq!(pace.leave(next, 0, || vec![load]), Leave::Wait(Some(next + MS)));
    assert_eq!(pace.leave(next + MS, 0, || vec![load]), alone);
}

#[test]
fn cheap_ios_use_more_than_a_trickle() {
    let rate = |model| run(model, Some(true), 20, ALWAYS).rate(5.0, 20.0);
    assert!(rate(CACHED) > 100e6, "{}", rate(CACHED));
    assert!(rate(FLASH) > 3e6 && rate(FLASH) < 50e6, "{}", rate(FLASH));
}
