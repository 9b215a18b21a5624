//! Back-off of `--yield` while others use the disk.
//!
//! The kernel counts the I/O of all users of a disk, and our own appears below it in other shapes and
//! later. So contention is sampled while our queue is drained: what moves then is foreign. (PSI does not
//! help: it covers the whole machine, and counts tasks that wait for our own I/O.)
//!
//! On an otherwise idle disk a sample of one millisecond is taken ten times per second. Beside a neighbour
//! (any other user of the disk), quiet windows without our I/O alternate with active ones, nine times as
//! long. The two are compared: what the neighbour loses of its rate, and how much longer its I/Os take on
//! average, must stay within the budget. A comparison of enough of the neighbour's I/Os sets our pace (see
//! [`super::pace`]); the lowest rate goes before the budget (see [`super::floor`]).
//!
//! Now and then a quiet window comes after a longer rest of ours. Where the neighbour is better off there,
//! three times in turn, a cache below still writes what we sent, and the short quiet windows show too little.

use std::time::{Duration, Instant};

use super::super::Yield;
use super::super::step::Yielding;
use super::Admission;
use super::floor::Floor;
use super::measure::{Budget, Sample, Strain, Totals};
use super::pace::{Compared, KEPT, Known, Pace};
use crate::io::{IoStats, Traffic};

/// The interval between samples on an otherwise idle disk.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// The duration of such a sample.
const SAMPLE_TIME: Duration = Duration::from_millis(1);
/// A sample that ends this late is ignored: a flush or the scheduler delayed it.
const SAMPLE_LATE: Duration = Duration::from_millis(20);
/// How long a neighbour must be idle to count as gone: longer if it returned soon before.
const REST_MIN: Duration = Duration::from_millis(300);
const REST_MAX: Duration = Duration::from_millis(700);
const RETURN_SOON: Duration = Duration::from_secs(2);
/// The neighbour's I/Os in a quiet window, and the bounds of its length.
const QUIET_IOS: f64 = 24.0;
const QUIET_MIN: Duration = Duration::from_millis(20);
const QUIET_MAX: Duration = Duration::from_millis(200);
/// Active windows are longer by this factor, up to a length at which a neighbour is seen to leave in time.
const ACTIVE: u32 = 9;
const ACTIVE_MAX: Duration = Duration::from_millis(600);
/// The neighbour's I/Os, quiet and active, until the pace is set again.
const IOS_QUIET_MIN: f64 = 24.0;
const IOS_ACTIVE_MIN: f64 = 80.0;
/// The volleys until it is known how many I/Os meet one.
const VOLLEYS_MIN: f64 = 4.0;
/// Of the neighbour's mean service time from one quiet window to the next.
const VARIANCE_FIRST: f64 = 0.01;
const VARIANCE_WEIGHT: f64 = 0.1;
/// One change counts as this multiple of the variance at most.
const OUTLIER: f64 = 9.0;
/// A window is split so often, to see a neighbour leave in time.
const WINDOW_MAX: Duration = Duration::from_millis(200);
/// How often, and how long, we rest longer.
const LONG_REST_FIRST: Duration = Duration::from_secs(3);
const LONG_REST_EVERY: Duration = Duration::from_secs(30);
const LONG_REST_MIN: Duration = Duration::from_millis(500);
const LONG_REST_MAX: Duration = Duration::from_secs(8);
/// So much better off a neighbour is after a long rest that the short ones are too short.
const RECOVERED: f64 = 1.05;

enum Phase {
    /// I/O may start, until it is time for a sample.
    Alone {
        since: Option<Instant>,
    },
    /// None of ours is in flight until then.
    Sampling {
        until: Instant,
        from: Sample,
    },
    Beside(Box<Neighbour>),
}

/// The control loop: a pure function of the samples and times that it is given.
pub struct Backoff {
    budget: Budget,
    floor: Floor,
    spent: Spent,
    writes: bool,
    volley_max: u64,
    phase: Phase,
    own: OwnIo,
    first: Option<Sample>,
    last: Option<Sample>,
    /// The last neighbour, and what was learned beside it.
    known: Option<Box<Neighbour>>,
    /// How long the neighbour must be idle, and when the last one counted as gone.
    rest: Duration,
    gone: Option<Instant>,
}

/// How long a step was beside others.
#[derive(Default)]
struct Spent {
    beside: Duration,
    /// Of this: the floor decided; and what they lose could not be measured.
    at_floor: Duration,
    unmeasured: Duration,
}

/// Bytes that we sent, and how long one I/O at least was in flight.
#[derive(Default)]
struct OwnIo {
    bytes: u64,
    busy: Duration,
    busy_since: Option<Instant>,
}

impl OwnIo {
    fn note(&mut self, now: Instant, in_flight: usize) {
        if let Some(since) = self.busy_since {
            self.busy += now.saturating_duration_since(since);
        }
        self.busy_since = (in_flight > 0).then_some(now);
    }
}

impl Backoff {
    /// `volley_max` is the longest volley, in bytes.
    pub fn new(yields: Yield, volley_max: u64, now: Instant) -> Backoff {
        Backoff {
            budget: Budget::of(yields),
            floor: Floor::new(yields.rate_min, now),
            spent: Spent::default(),
            writes: true,
            volley_max,
            phase: Phase::Alone { since: None },
            own: OwnIo::default(),
            first: None,
            last: None,
            known: None,
            rest: REST_MIN,
            gone: None,
        }
    }

    /// A step begins, with nothing in flight. What was learned beside the same neighbour holds for a step that
    /// goes the same way.
    pub fn begin_step(&mut self, writes: bool) {
        if let Phase::Beside(neighbour) = std::mem::replace(&mut self.phase, Phase::Alone { since: None }) {
            self.known = Some(neighbour);
        }
        if writes != self.writes {
            self.known = None;
        }
        (self.writes, self.first, self.last) = (writes, None, None);
    }

    pub fn end_step(&mut self, now: Instant) -> Yielding {
        if let Phase::Beside(neighbour) = &self.phase {
            self.spent.beside += now - neighbour.began;
        }
        let Spent { beside, at_floor, unmeasured } = std::mem::take(&mut self.spent);
        let [beside_ms, floor_ms, unmeasured_ms] =
            [beside, at_floor, unmeasured].map(|time| time.as_millis() as u64);
        Yielding { beside_ms, floor_ms, unmeasured_ms, ..Yielding::default() }
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.own.bytes += bytes;
        self.own.note(now, 1);
        match &mut self.phase {
            Phase::Alone { since } => drop(since.get_or_insert(now)),
            Phase::Sampling { .. } => {}
            Phase::Beside(neighbour) => {
                self.floor.spend(bytes);
                neighbour.pace.spend(bytes, now);
            }
        }
    }

    pub fn admit(
        &mut self,
        now: Instant,
        in_flight: usize,
        mut stats: impl FnMut() -> Vec<IoStats>,
    ) -> Admission {
        self.own.note(now, in_flight);
        loop {
            match &mut self.phase {
                Phase::Alone { since } => {
                    let due =
                        self.first.is_none() || since.is_some_and(|since| now - since >= SAMPLE_INTERVAL);
                    if !due {
                        return Admission::Start { bytes_max: u64::MAX };
                    }
                    if in_flight > 0 {
                        return Admission::Wait(None);
                    }
                    let from = self.sample(stats());
                    self.first.get_or_insert_with(|| from.clone());
                    self.last.get_or_insert_with(|| from.clone());
                    self.phase = Phase::Sampling { until: now + SAMPLE_TIME, from };
                }
                Phase::Sampling { until, .. } if now < *until => return Admission::Wait(Some(*until)),
                Phase::Sampling { until, from } => {
                    let (late, from) = (now > *until + SAMPLE_LATE, std::mem::take(from));
                    self.phase = Phase::Alone { since: None };
                    let to = self.sample(stats());
                    if !late && self.is_foreign(&from, &to, true) {
                        self.meet(now, &to);
                    }
                    self.last = Some(to);
                    if matches!(self.phase, Phase::Alone { .. }) {
                        return Admission::Start { bytes_max: u64::MAX };
                    }
                }
                Phase::Beside(neighbour) => {
                    let in_volley = neighbour.pace.in_volley();
                    let admission = neighbour.admit(now, in_flight);
                    if neighbour.pace.in_volley() != in_volley {
                        let sample =
                            Sample { stats: stats(), own_bytes: self.own.bytes, own_busy: self.own.busy };
                        neighbour.note_volley(now, sample, self.writes, &mut self.floor);
                    }
                    match admission {
                        Some(admission) if neighbour.window == Window::Active => {
                            return self.floor.raise(admission, now, in_flight);
                        }
                        Some(admission) => return admission,
                        None => {}
                    }
                    let to = self.sample(stats());
                    self.end_window(now, to);
                }
            }
        }
    }

    fn sample(&mut self, stats: Vec<IoStats>) -> Sample {
        if let Some(last) = &self.last {
            self.floor.measure(self.own.bytes - last.own_bytes, self.own.busy - last.own_busy);
        }
        Sample { stats, own_bytes: self.own.bytes, own_busy: self.own.busy }
    }

    fn meet(&mut self, now: Instant, sample: &Sample) {
        let soon = self.gone.is_some_and(|gone| now - gone < RETURN_SOON);
        self.rest = if soon { (self.rest * 2).min(REST_MAX) } else { REST_MIN };
        let mut neighbour = self.known.take().unwrap_or_else(|| {
            Box::new(Neighbour::new(now, Pace::new(self.budget.loss, self.volley_max, now)))
        });
        neighbour.meet(now, sample.clone());
        self.floor.begin(now);
        self.phase = Phase::Beside(neighbour);
    }

    /// None of our I/Os is in flight.
    fn end_window(&mut self, now: Instant, to: Sample) {
        let Phase::Beside(neighbour) = &self.phase else { unreachable!("a window is that of a neighbour") };
        // Below, what moves while ours is in flight can be ours.
        let drained = neighbour.window != Window::Active;
        let present = self.is_foreign(&neighbour.from, &to, drained);
        let gone = !present && now - neighbour.seen >= self.rest;
        match std::mem::replace(&mut self.phase, Phase::Alone { since: None }) {
            Phase::Beside(neighbour) if gone => (self.known, self.gone) = (Some(neighbour), Some(now)),
            Phase::Beside(mut neighbour) => {
                let time = now - neighbour.began;
                self.spent.beside += time;
                if self.floor.take_decided() {
                    self.spent.at_floor += time;
                    // It would not be kept in a longer rest, and what that showed would not count.
                    neighbour.rest.next = neighbour.rest.next.max(now + LONG_REST_FIRST);
                }
                neighbour.end_window(now, to.clone(), self.writes, present, self.budget);
                self.spent.unmeasured += if neighbour.quiet.is_measured() { Duration::ZERO } else { time };
                self.phase = Phase::Beside(neighbour);
            }
            Phase::Alone { .. } | Phase::Sampling { .. } => unreachable!("as above"),
        }
        self.last = Some(to);
    }

    /// Whether others are at one of the devices; those below count only if all of ours was drained.
    fn is_foreign(&self, before: &Sample, after: &Sample, drained: bool) -> bool {
        let devices = (0..after.stats.len()).filter(|device| drained || !after.stats[*device].below);
        devices.into_iter().any(|device| self.is_foreign_on(device, &before.stats[device], after))
    }

    /// On the disk itself bytes add up: what moved since the last look beyond what we sent is another's.
    /// Below it only what moves or waits in a quiet moment counts. And even that can be ours, as a page
    /// cache or a write-back cache writes it later: so what goes our way counts there only where more
    /// bytes of it have gone than we ever sent.
    fn is_foreign_on(&self, device: usize, before: &IoStats, after: &Sample) -> bool {
        let Some((first, last)) = self.first.as_ref().zip(self.last.as_ref()) else { return false };
        let (below, own_bytes, after) = (after.stats[device].below, after.own_bytes, &after.stats[device]);
        let since = if below { first } else { last };
        let surplus = self.moved(&since.stats[device], after).0 > own_bytes - since.own_bytes;
        let (our_way, other_way) = self.moved(if below { before } else { &last.stats[device] }, after);
        let (ours, others) = self.ways(after);
        let ours_moves =
            if below { surplus && our_way + ours.in_flight > 0 } else { surplus || ours.in_flight > 0 };
        ours_moves || other_way + others.in_flight > 0
    }

    /// Bytes that moved the way ours go, and the other way.
    fn moved(&self, before: &IoStats, after: &IoStats) -> (u64, u64) {
        let ((ours, others), (ours_then, others_then)) = (self.ways(after), self.ways(before));
        (ours.bytes.saturating_sub(ours_then.bytes), others.bytes.saturating_sub(others_then.bytes))
    }

    fn ways(&self, stats: &IoStats) -> (Traffic, Traffic) {
        if self.writes { (stats.writes, stats.reads) } else { (stats.reads, stats.writes) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Window {
    /// Our I/O goes on at its pace.
    Active,
    /// None of ours is sent; what it left behind passes.
    Settle,
    /// None of ours is sent, and the neighbour is measured.
    Quiet,
}

struct Neighbour {
    seen: Instant,
    pace: Pace,
    known: Known,
    window: Window,
    /// When the window ends, and when it is looked at next.
    until: Instant,
    look: Instant,
    began: Instant,
    from: Sample,
    quiet: Totals,
    active: Totals,
    /// Of the last active windows.
    pending: Totals,
    /// When the running volley began, and what was counted then; and what went on in the last ones.
    volley: Option<(Instant, Sample)>,
    met: Totals,
    /// The last quiet window, and the variance of the mean service time from one to the next.
    last_quiet: Option<Totals>,
    variance: f64,
    /// How long our last I/Os took to end.
    drain: Duration,
    rest: LongRest,
}

/// A rest of ours that is longer than the others.
struct LongRest {
    next: Instant,
    length: Duration,
    now: bool,
    /// How much faster the neighbour was after the last ones.
    recovery: [f64; 3],
}

impl Neighbour {
    fn new(now: Instant, pace: Pace) -> Neighbour {
        Neighbour {
            seen: now,
            pace,
            known: Known::default(),
            window: Window::Quiet,
            until: now,
            look: now,
            began: now,
            from: Sample::default(),
            quiet: Totals::default(),
            active: Totals::default(),
            pending: Totals::default(),
            volley: None,
            met: Totals::default(),
            last_quiet: None,
            variance: VARIANCE_FIRST,
            drain: Duration::ZERO,
            rest: LongRest {
                next: now + LONG_REST_FIRST,
                length: LONG_REST_MIN,
                now: false,
                recovery: [1.0; 3],
            },
        }
    }

    /// It is there, or again: it may do something else now, and is looked at before our I/O goes on.
    fn meet(&mut self, now: Instant, from: Sample) {
        (self.quiet, self.active, self.pending, self.met) = Default::default();
        (self.window, self.rest.now) = (Window::Quiet, false);
        (self.seen, self.began, self.from) = (now, now, from);
        (self.until, self.look) = (now + QUIET_MIN, now + QUIET_MIN);
    }

    /// `None` at the end of a window, when all of ours has ended.
    fn admit(&mut self, now: Instant, in_flight: usize) -> Option<Admission> {
        if now >= self.look {
            return (in_flight > 0).then_some(Admission::Wait(None));
        }
        Some(match self.window {
            Window::Settle | Window::Quiet => Admission::Wait(Some(self.look)),
            Window::Active => match self.pace.admit(now, in_flight, self.known) {
                Admission::Wait(Some(until)) => Admission::Wait(Some(until.min(self.look))),
                admission => admission,
            },
        })
    }

    /// A volley begins or ends.
    fn note_volley(&mut self, now: Instant, sample: Sample, writes: bool, floor: &mut Floor) {
        let Some((began, from)) = self.volley.take() else {
            self.volley = Some((now, sample));
            return;
        };
        floor.measure(sample.own_bytes - from.own_bytes, sample.own_busy - from.own_busy);
        self.met.add(Totals::between(writes, &from, &sample, now - began));
    }

    fn end_window(&mut self, now: Instant, to: Sample, writes: bool, present: bool, budget: Budget) {
        let moved = Totals::between(writes, &self.from, &to, now - self.began);
        if present {
            self.seen = now;
        }
        self.measure(moved, present);
        if now >= self.until {
            self.next_window(now, budget);
        }
        (self.began, self.from) = (now, to);
        self.look = self.until.min(now + WINDOW_MAX.max(self.until.saturating_duration_since(now) / 20));
    }

    /// What went on beside our I/O counts where the neighbour is still there after it.
    fn measure(&mut self, moved: Totals, present: bool) {
        match self.window {
            Window::Active => self.pending.add(moved),
            Window::Settle => {}
            Window::Quiet if !present => self.pending = Totals::default(),
            Window::Quiet if self.rest.now && self.quiet.is_measured() => {
                self.rest.note(moved.rate_of(&self.quiet));
            }
            Window::Quiet => {
                self.note_variance(moved);
                self.quiet.add(moved);
                self.active.add(std::mem::take(&mut self.pending));
                let service_time = self.quiet.all_seconds / self.quiet.all_ios.max(1.0);
                let concurrency = self.quiet.all_seconds / self.quiet.seconds;
                let cautious = concurrency < 0.5 || !self.quiet.is_measured();
                self.known = Known { service_time: service_time.max(1e-5), cautious };
            }
        }
    }

    /// From one quiet window to the next.
    fn note_variance(&mut self, moved: Totals) {
        if let Some(before) = self.last_quiet.replace(moved) {
            let change = moved.time_of(&before).unwrap_or_else(|| moved.rate_of(&before)) - 1.0;
            if change.is_finite() {
                let square = (change.powi(2) / 2.0).min(OUTLIER * self.variance);
                self.variance += VARIANCE_WEIGHT * (square - self.variance);
            }
        }
    }

    /// Of quiet and of active windows.
    fn window_lengths(&self) -> (Duration, Duration) {
        let ios_a_second = (self.quiet.all_ios / self.quiet.seconds).max(1e-3);
        let quiet = Duration::from_secs_f64(QUIET_IOS / ios_a_second).clamp(QUIET_MIN, QUIET_MAX);
        (quiet, (quiet * ACTIVE).min(ACTIVE_MAX))
    }

    fn next_window(&mut self, now: Instant, budget: Budget) {
        let (quiet, active) = self.window_lengths();
        let length;
        (self.window, length) = match self.window {
            Window::Active => {
                self.drain = now.saturating_duration_since(self.until);
                self.rest.now = now >= self.rest.next;
                let settle = (quiet / 4).max(3 * self.drain).min(LONG_REST_MIN);
                (Window::Settle, if self.rest.now { self.rest.length } else { settle })
            }
            Window::Settle => (Window::Quiet, if self.rest.now { 4 * quiet } else { quiet }),
            Window::Quiet => {
                if std::mem::take(&mut self.rest.now) {
                    self.rest.plan(now);
                }
                self.set_pace(now, budget);
                self.pace.begin(now);
                self.volley = None;
                (Window::Active, active)
            }
        };
        self.until = now + length;
    }

    /// Learns from the windows so far, once they hold enough.
    fn set_pace(&mut self, now: Instant, budget: Budget) {
        if !self.quiet.is_measured() {
            self.pace.be_cautious();
            return;
        }
        let ios_a_second = self.quiet.all_ios / self.quiet.seconds;
        if self.quiet.all_ios < IOS_QUIET_MIN || ios_a_second * self.active.seconds < IOS_ACTIVE_MIN {
            return;
        }
        if self.active.own_bytes == 0.0 {
            // All of them lay in the pause behind a volley, or between two steps.
            self.quiet.decay(KEPT);
            self.active.decay(KEPT);
            return;
        }
        let (quiet, active) = self.window_lengths();
        let share = active.as_secs_f64() / (active + quiet).as_secs_f64();
        let strain = Strain::of(
            budget,
            (&self.quiet, &self.active),
            share,
            self.part_met(),
            self.rest.recovery(),
            self.variance.sqrt() / self.quiet.windows.sqrt(),
        );
        let compared = Compared {
            strain,
            rate: self.active.own_rate(),
            busy: self.active.own_busy / self.active.seconds,
            windows: self.quiet.windows,
        };
        let weight = self.pace.learn(now, compared, self.known);
        self.quiet.decay(weight.max(KEPT));
        self.active.decay(weight);
        self.met.decay(weight);
    }

    /// The part of the neighbour's I/Os that met ours: those that ended in a volley; without volleys, as
    /// many as of the time. `None`: too few volleys.
    fn part_met(&self) -> Option<f64> {
        let busy = self.active.own_busy / self.active.seconds;
        let rate = if self.met.windows > 0.0 { self.met.rate_of(&self.active) } else { 1.0 };
        (self.met.windows == 0.0 || self.met.windows >= VOLLEYS_MIN).then_some(busy * rate)
    }
}

impl LongRest {
    fn note(&mut self, recovery: f64) {
        self.recovery = [recovery, self.recovery[0], self.recovery[1]];
    }

    /// What all of the last ones showed: one alone can be chance.
    fn recovery(&self) -> f64 {
        let least = self.recovery.iter().copied().fold(f64::INFINITY, f64::min);
        if least > RECOVERED { least } else { 1.0 }
    }

    /// After one that showed something the next follows soon, or else it is longer, and late after the longest.
    fn plan(&mut self, now: Instant) {
        let shown = self.recovery[0] > RECOVERED;
        self.next = now
            + match (shown, self.recovery() > 1.0) {
                (true, false) => LONG_REST_FIRST,
                (false, _) if self.length == LONG_REST_MAX => 4 * LONG_REST_EVERY,
                _ => LONG_REST_EVERY,
            };
        if !shown {
            self.length = (2 * self.length).min(LONG_REST_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_a_volley_has_met_it() {
        let (now, ms) = (Instant::now(), Duration::from_millis(1));
        let mut neighbour = Neighbour::new(now, Pace::new(0.1, 8 << 20, now));
        let mut floor = Floor::new(None, now);
        let sample = |reads: u64, own_bytes, own_busy: Duration| {
            let reads = Traffic { ended: reads, bytes: 4096 * reads, ..Traffic::default() };
            Sample { stats: vec![IoStats { reads, ..IoStats::default() }], own_bytes, own_busy }
        };
        // A thousand I/Os in ten volleys of a millisecond each: two end in each of them.
        neighbour.active =
            Totals::between(true, &sample(0, 0, Duration::ZERO), &sample(1000, 80, 10 * ms), 100 * ms);
        let met = |neighbour: &Neighbour| neighbour.part_met().map(|part| (1000.0 * part).round());
        assert_eq!(met(&neighbour), Some(100.0), "as many as of the time");
        for number in 0..10 {
            let (reads, began) = (100 * number, now + 10 * number as u32 * ms);
            neighbour.note_volley(began, sample(reads, 8 * number, Duration::ZERO), true, &mut floor);
            neighbour.note_volley(began + ms, sample(reads + 2, 8 * number + 8, ms), true, &mut floor);
            if number == 0 {
                assert_eq!(met(&neighbour), None, "of one volley");
            }
        }
        assert_eq!(met(&neighbour), Some(20.0));
    }
}
