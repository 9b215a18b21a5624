//! How our I/O is sent beside a neighbour: in volleys, or steadily.
//!
//! A *volley* is a number of I/Os at once, then a pause. On a disk that serves one I/O after the other, it
//! delays few I/Os of the neighbour, however long it is: where these are less than one in a hundred, the
//! 99th percentile does not show them. So volleys are as rare as it takes, and long. On a disk that serves
//! many at once, small I/Os at a *steady* rate cost less: where that keeps the budget at a higher rate, it
//! is used.

use std::time::{Duration, Instant};

use super::Admission;
use super::measure::Strain;

const VOLLEY_MIN: u64 = 64 << 10;
/// The neighbour's I/Os from one volley to the next: as many as it takes for this part of them to meet one.
const SPACING_MIN: f64 = 200.0;
const SPACING_MAX: f64 = 800.0;
const MET: f64 = 0.007;
/// What counts as a change of it.
const SPACED: f64 = 1.2;
/// The part of the time that volleys take, relative to the loss that is allowed.
const SHARE_FIRST: f64 = 0.2;
const SHARE_MIN: f64 = 0.025;
const SHARE_MAX: f64 = 1.2;
/// The same beside a neighbour that seldom waits for the disk (each volley delays what it meets), and
/// where its loss cannot be measured.
const SHARE_CAUTIOUS: f64 = 0.1;
/// A volley that takes this part of the neighbour's service time is in no percentile.
const UNSEEN: f64 = 0.4;
/// The longest volley, in seconds.
const LENGTH_MAX: f64 = 0.05;
/// Sizes and depths of steady I/O.
const SIZES: [(u64, usize); 6] =
    [(64 << 10, 1), (256 << 10, 1), (1 << 20, 1), (64 << 10, 4), (256 << 10, 4), (1 << 20, 4)];
/// The order in which they are tried. The first costs least on a disk that serves many I/Os at once, the second
/// on one that does not.
const ORDER: [Way; 7] = [
    Way::Steady(0),
    Way::Volleys,
    Way::Steady(1),
    Way::Steady(2),
    Way::Steady(3),
    Way::Steady(4),
    Way::Steady(5),
];
/// The lowest steady rate, in bytes a second: one I/O in seconds.
const STEADY_MIN: f64 = (256 << 10) as f64;
/// What steady I/O may catch up after a delay.
const CATCH_UP: Duration = Duration::from_millis(5);
/// How long until another way is tried, doubled after each vain round, and how much faster it must be.
const TRY_FIRST: Duration = Duration::from_secs(1);
const TRY_MAX: Duration = Duration::from_secs(60);
const FASTER_ASKED: f64 = 1.2;
const FASTER: f64 = 1.1;
/// The part of a steady rate that is reached where the disk does more than that.
const REACHED: f64 = 0.9;
/// How many quiet windows it is compared with, and where that leaves it open whether the budget is kept.
const TRIAL_WINDOWS: f64 = 4.0;
const TRIAL_WINDOWS_MAX: f64 = 12.0;
/// What was measured at a pace weighs so much in the next comparison at the same.
pub const KEPT: f64 = 0.7;
/// What was measured before counts so much in the cost of our I/O.
const COST_KEPT: f64 = 0.9;
/// The least error of a strain that was measured, and of what is expected before much was measured.
const ERROR_MIN: f64 = 0.2;
const EXPECTED_ERROR: f64 = 0.5;
/// Beyond this strain the rate was too high, and within the lower one it rises. What is left to 1 is for what is
/// measured wrong.
const STRAIN_MAX: f64 = 0.85;
const STRAIN_GOAL: f64 = 0.6;
/// One comparison lowers the pace by this at most: a neighbour that pauses looks like one that we hold up.
const BACK: f64 = 0.5;
/// What was measured of single I/Os before counts so much.
const HITS_KEPT: f64 = 0.7;

/// What is known of the neighbour without our I/O.
#[derive(Clone, Copy, Default, Debug)]
pub struct Known {
    /// Mean service time.
    pub service_time: f64,
    /// It leaves the disk idle most of the time, or its loss cannot be measured.
    pub cautious: bool,
}

/// Active windows compared with quiet ones.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    pub strain: Strain,
    /// Ours, in bytes a second.
    pub rate: f64,
    /// The part of the time in which one of our I/Os at least was in flight.
    pub busy: f64,
    /// How many quiet windows there were.
    pub windows: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Volleys,
    /// Size and depth, of `SIZES`.
    Steady(usize),
}

#[derive(Debug)]
pub struct Pace {
    volleys: Volleys,
    steady: Steady,
    /// The fastest way so far that keeps the budget.
    best: Way,
    /// The rate that it reaches, on average.
    rate: f64,
    measured: bool,
    cost: Cost,
    /// Its rate at first.
    adopted: f64,
    trial: Option<Trial>,
    /// Whether another way was ever tried.
    tried: bool,
    /// The most bytes in a second of the disk's time.
    speed: f64,
    /// What the neighbour's I/Os that meet ours lose on average, relative to what they may.
    hits: f64,
    /// What is tried next, when, and how long after the last try.
    next: Way,
    next_at: Option<Instant>,
    wait: Duration,
}

/// Another way, at a higher rate.
#[derive(Debug)]
struct Trial {
    way: Way,
    /// That of `best`.
    steady: Steady,
}

impl Pace {
    /// `loss`: of the neighbour's rate, that is allowed. `volley_max`: the most bytes of a volley.
    pub fn new(loss: f64, volley_max: u64, now: Instant) -> Pace {
        Pace {
            volleys: Volleys::new(loss, volley_max, now),
            steady: Steady { size: 0, rate: STEADY_MIN, next: now },
            best: Way::Volleys,
            rate: 0.0,
            measured: false,
            cost: Cost::default(),
            adopted: 0.0,
            trial: None,
            tried: false,
            speed: 0.0,
            hits: 0.0,
            next: Way::Steady(0),
            next_at: None,
            wait: TRY_FIRST,
        }
    }

    fn way(&self) -> Way {
        self.trial.as_ref().map_or(self.best, |trial| trial.way)
    }

    /// Whether a volley is under way.
    pub fn in_volley(&self) -> bool {
        self.way() == Way::Volleys && self.volleys.began.is_some()
    }

    /// After a window without our I/O.
    pub fn begin(&mut self, now: Instant) {
        self.volleys.begin(now);
        self.steady.next = now;
    }

    pub fn admit(&mut self, now: Instant, in_flight: usize, known: Known) -> Admission {
        match self.way() {
            Way::Volleys => self.volleys.admit(now, in_flight, known),
            Way::Steady(_) => self.steady.admit(now, in_flight),
        }
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        match self.way() {
            Way::Volleys => self.volleys.left = self.volleys.left.saturating_sub(bytes),
            Way::Steady(_) => self.steady.spend(bytes, now),
        }
    }

    /// Learns from what our I/O cost the neighbour. Says how much of what was measured counts from now on.
    pub fn learn(&mut self, now: Instant, compared: Compared, known: Known) -> f64 {
        let Compared { strain, rate, busy, windows } = compared;
        self.speed = self.speed.max(rate / busy.max(1e-9));
        if self.trial.is_some() {
            let (least, most) = strain.range();
            let open = least <= STRAIN_MAX && (most > STRAIN_MAX || windows < TRIAL_WINDOWS);
            if open && windows < TRIAL_WINDOWS_MAX && rate >= FASTER * self.rate {
                return 1.0;
            }
            self.end_trial(now, (least, most), rate);
            return 0.0;
        }
        let spaced = self.best == Way::Volleys && self.volleys.space(strain.met);
        self.hits = HITS_KEPT * self.hits + (1.0 - HITS_KEPT) * strain.hits.0;
        if matches!(self.best, Way::Steady(_)) && self.hits > STRAIN_MAX {
            self.leave_steady(now, known);
            return 0.0;
        }
        let worst = match self.best {
            Way::Volleys if self.volleys.spacing >= SPACING_MAX => strain.means.max(strain.hits.0),
            // Volleys become rarer, and a lower rate of steady I/O costs those that it meets no less.
            _ => strain.means,
        };
        self.cost.note(rate, worst, strain.error);
        let strain = self.cost.strain_at(rate, busy / self.volleys.loss);
        self.rate = if self.measured { (self.rate + rate) / 2.0 } else { rate };
        self.measured = true;
        let change = match self.best {
            Way::Volleys => self.volleys.learn(strain),
            Way::Steady(_) => self.steady.learn(strain, rate),
        };
        if self.rate < self.adopted / 2.0 {
            // It was not what it seemed, or the neighbour does something else now.
            (self.adopted, self.next, self.next_at, self.wait) =
                (self.rate, Way::Volleys.unless(self.best), None, TRY_FIRST);
        }
        let due = *self.next_at.get_or_insert(now + self.wait) <= now;
        let settled = change <= 1.0 && (self.best != Way::Volleys || self.volleys.settled);
        // What volleys can do takes long to find, and seldom matters where steady I/O costs little.
        let early = !self.tried && !known.cautious;
        let tries = due && (settled || early) && strain <= STRAIN_MAX;
        if tries {
            self.begin_trial(known);
        }
        if spaced || change != 1.0 || tries { 0.0 } else { KEPT }
    }

    /// Its loss cannot be measured: volleys alone need no measurement.
    pub fn be_cautious(&mut self) {
        (self.best, self.trial) = (Way::Volleys, None);
    }

    /// Each I/O costs those that it meets too much, at any rate.
    fn leave_steady(&mut self, now: Instant, known: Known) {
        self.volleys.aim(self.rate, self.speed, known);
        (self.next, self.best) = (self.best.next(), Way::Volleys);
        (self.adopted, self.hits, self.cost, self.measured) = (0.0, 0.0, Cost::default(), false);
        self.next_at = Some(now + self.wait);
        self.wait = (2 * self.wait).min(TRY_MAX);
    }

    fn begin_trial(&mut self, known: Known) {
        self.tried = true;
        let rate = FASTER_ASKED * self.rate;
        let steady = self.steady;
        match self.next {
            Way::Volleys => self.volleys.aim(rate, self.speed, known),
            Way::Steady(size) => self.steady = Steady { size, rate: rate.max(STEADY_MIN), ..steady },
        }
        self.trial = Some(Trial { way: self.next, steady });
    }

    /// `least` and `most`: the strain that was measured.
    fn end_trial(&mut self, now: Instant, (least, most): (f64, f64), rate: f64) {
        let Some(trial) = self.trial.take() else { return };
        let strain = (least + most) / 2.0;
        if strain <= STRAIN_MAX && rate >= FASTER * self.rate {
            (self.best, self.rate, self.adopted) = (trial.way, rate, rate);
            (self.cost, self.hits) = (Cost::default(), 0.0);
            self.cost.note(rate, strain, (most - least) / 2.0);
            self.wait = TRY_FIRST;
        } else {
            self.steady = trial.steady;
        }
        self.next = trial.way.next().unless(self.best);
        if self.next.place() <= trial.way.place() {
            self.wait = (2 * self.wait).min(TRY_MAX);
        }
        self.next_at = Some(now + self.wait);
    }
}

/// Strain by rate: a line through the origin, fitted to what was measured lately, each weighted by its error.
/// Where we send little, what the neighbour loses is its own doing, and the fit passes over it. What is expected
/// counts too, and matters as long as little was measured: the neighbour loses the time that our I/O takes on
/// the disk, give or take as much.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    squares: f64,
    products: f64,
}

impl Cost {
    fn note(&mut self, rate: f64, strain: f64, error: f64) {
        let weight = error.max(ERROR_MIN).powi(-2);
        self.squares = COST_KEPT * self.squares + weight * rate * rate;
        self.products = COST_KEPT * self.products + weight * rate * strain;
    }

    fn strain_at(&self, rate: f64, expected: f64) -> f64 {
        let weight = 1.0 / (EXPECTED_ERROR.powi(2) + expected.powi(2));
        let products = self.products + weight * rate * expected;
        let squares = self.squares + weight * rate * rate;
        products / squares.max(1.0) * rate
    }
}

impl Way {
    /// Another one instead of this.
    fn unless(self, other: Way) -> Way {
        if self == other { self.next() } else { self }
    }

    fn place(self) -> usize {
        ORDER.iter().position(|way| *way == self).unwrap_or_default()
    }

    fn next(self) -> Way {
        ORDER[(self.place() + 1) % ORDER.len()]
    }
}

#[derive(Debug)]
struct Volleys {
    /// That the neighbour may lose.
    loss: f64,
    share: f64,
    /// The neighbour's I/Os from one to the next.
    spacing: f64,
    bytes: u64,
    bytes_max: u64,
    /// Of the running volley.
    began: Option<Instant>,
    left: u64,
    next: Instant,
    /// The neighbour does not notice them.
    unseen: bool,
    /// Their size fits.
    settled: bool,
}

impl Volleys {
    fn new(loss: f64, bytes_max: u64, now: Instant) -> Volleys {
        Volleys {
            loss,
            share: SHARE_FIRST * loss,
            spacing: SPACING_MIN,
            bytes: VOLLEY_MIN,
            bytes_max: bytes_max.max(VOLLEY_MIN),
            began: None,
            left: 0,
            next: now,
            unseen: false,
            settled: false,
        }
    }

    /// A pause goes on over the windows.
    fn begin(&mut self, now: Instant) {
        (self.began, self.next) = (None, self.next.max(now));
    }

    fn admit(&mut self, now: Instant, in_flight: usize, known: Known) -> Admission {
        if let Some(began) = self.began
            && self.left == 0
        {
            if in_flight > 0 {
                return Admission::Wait(None);
            }
            self.end(now, now - began, known);
        }
        if now < self.next {
            return Admission::Wait(Some(self.next));
        }
        if self.began.is_none() {
            (self.began, self.left) = (Some(now), self.bytes);
        }
        Admission::Start { bytes_max: (self.bytes / 4).max(VOLLEY_MIN).min(self.left) }
    }

    /// The pause behind a volley, and the size of the next.
    fn end(&mut self, now: Instant, took: Duration, known: Known) {
        let took = took.as_secs_f64().max(1e-6);
        let unseen = UNSEEN * known.service_time;
        let period = self.spacing * known.service_time;
        if self.bytes == VOLLEY_MIN {
            self.unseen = took <= 1.5 * unseen;
        }
        let (share, length, pause_min) = if self.unseen {
            (self.share, unseen, 0.0)
        } else if known.cautious {
            (self.share.min(SHARE_CAUTIOUS * self.loss), unseen, period)
        } else {
            (self.share, (period * self.share).min(LENGTH_MAX), period * (1.0 - self.share))
        };
        let fit = (length / took).clamp(0.5, 2.0);
        self.bytes = ((self.bytes as f64 * fit) as u64).clamp(VOLLEY_MIN, self.bytes_max);
        let at_bound = self.bytes == VOLLEY_MIN || self.bytes == self.bytes_max;
        self.settled = at_bound || (0.7..1.4).contains(&(length / took));
        let pause = (took * (1.0 / share - 1.0)).max(pause_min);
        (self.began, self.next) = (None, now + Duration::from_secs_f64(pause.min(60.0)));
    }

    /// Makes them rarer where too many of the neighbour's I/Os meet one. Says whether that is a change.
    fn space(&mut self, met: Option<f64>) -> bool {
        let Some(met) = met else { return false };
        let spacing = self.spacing * (met / MET).clamp(0.5, 2.0);
        let spacing = spacing.clamp(SPACING_MIN, SPACING_MAX);
        let change = spacing / self.spacing;
        let changes = !(1.0 / SPACED..SPACED).contains(&change);
        if changes {
            self.spacing = spacing;
        }
        changes
    }

    /// At this rate, on a disk of this speed (both in bytes a second).
    fn aim(&mut self, rate: f64, speed: f64, known: Known) {
        self.share = (rate / speed).clamp(SHARE_MIN * self.loss, SHARE_MAX * self.loss);
        let length = (self.spacing * known.service_time * self.share).min(LENGTH_MAX);
        self.bytes = ((speed * length) as u64).clamp(VOLLEY_MIN, self.bytes_max);
    }

    /// By which factor they take more of the time from now on.
    fn learn(&mut self, strain: f64) -> f64 {
        let before = self.share;
        let share = before * change(strain);
        self.share = share.clamp(SHARE_MIN * self.loss, SHARE_MAX * self.loss);
        self.share / before
    }
}

/// By which factor the rate may change.
fn change(strain: f64) -> f64 {
    match strain {
        ..0.15 => 2.0,
        ..0.3 => 1.5,
        ..0.5 => 1.2,
        ..STRAIN_GOAL => 1.05,
        ..=STRAIN_MAX => 1.0,
        _ => (STRAIN_GOAL / strain).max(BACK),
    }
}

/// I/O at a constant rate, while less than a depth is in flight.
#[derive(Clone, Copy, Debug)]
struct Steady {
    /// Of `SIZES`.
    size: usize,
    rate: f64,
    next: Instant,
}

impl Steady {
    fn admit(&mut self, now: Instant, in_flight: usize) -> Admission {
        let (bytes_max, depth) = SIZES[self.size];
        if now < self.next {
            Admission::Wait(Some(self.next))
        } else if in_flight >= depth {
            // Any completion asks again.
            Admission::Wait(Some(now + CATCH_UP))
        } else {
            Admission::Start { bytes_max }
        }
    }

    fn spend(&mut self, bytes: u64, now: Instant) {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.next = self.next.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate);
    }

    /// By which factor its rate changes.
    fn learn(&mut self, strain: f64, reached: f64) -> f64 {
        let before = self.rate;
        // Where the disk does not do more, a higher rate means nothing.
        let most = if reached < REACHED * before { FASTER_ASKED * reached } else { f64::INFINITY };
        self.rate = (before * change(strain)).min(most).max(BACK * before).max(STEADY_MIN);
        self.rate / before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(means: f64, rate: f64, busy: f64) -> Compared {
        let strain = Strain { means, error: 0.5, met: None, hits: (0.0, 0.0) };
        Compared { strain, rate, busy, windows: 9.0 }
    }

    /// A job that was held up for minutes has sent next to nothing, and tries a steady rate.
    #[test]
    fn a_steady_rate_is_never_so_low_that_its_next_io_is_out_of_sight() {
        let now = Instant::now();
        let mut pace = Pace::new(0.1, 8 << 20, now);
        pace.begin_trial(Known::default());
        assert_eq!(pace.admit(now, 0, Known::default()), Admission::Start { bytes_max: SIZES[0].0 });
        pace.spend(SIZES[0].0, now);
        assert!(pace.steady.next <= now + Duration::from_secs(2));
        pace.end_trial(now, (0.0, 0.0), 1.0);
        for _ in 0..1000 {
            pace.learn(now, compared(3.0, 1.0, 0.0), Known::default());
        }
        assert!(pace.best == Way::Steady(0) && pace.steady.rate == STEADY_MIN, "{pace:?}");
    }

    #[test]
    fn all_ways_are_tried_in_turn() {
        let mut way = Way::Steady(0);
        for expected in 1..ORDER.len() {
            way = way.next();
            assert_eq!(way.place(), expected);
        }
        assert_eq!(way.next(), Way::Steady(0));
        assert_eq!(Way::Volleys.unless(Way::Volleys), Way::Steady(1));
    }

    /// One comparison that stands out neither stops nor halves what many others bear.
    #[test]
    fn a_cost_is_that_of_many_comparisons() {
        let mut cost = Cost::default();
        assert_eq!(cost.strain_at(1e8, 0.5), 0.5, "as expected");
        for _ in 0..20 {
            cost.note(1e8, 0.4, 0.5);
        }
        cost.note(1e8, 3.0, 0.5);
        assert!((0.5..0.8).contains(&cost.strain_at(1e8, 0.5)), "{cost:?}");
        for _ in 0..4 {
            cost.note(1e8, 3.0, 0.5);
        }
        assert!(cost.strain_at(1e8, 0.5) > STRAIN_MAX, "{cost:?}");
        let little = Cost { squares: 1e12, products: 1e6 };
        assert!(
            little.strain_at(1e8, 0.2) < 0.3,
            "what was measured at a low rate says little of a high one"
        );
    }

    /// What an I/O loses that meets one of ours does not fall with the rate.
    #[test]
    fn steady_io_that_costs_those_it_meets_too_much_is_left_and_not_slowed_down() {
        let (now, known) = (Instant::now(), Known { service_time: 1e-4, cautious: false });
        let mut pace = Pace::new(0.1, 8 << 20, now);
        (pace.best, pace.steady.rate, pace.rate, pace.measured) = (Way::Steady(1), 1e8, 1e8, true);
        let costly = Strain { means: 0.5, error: 0.1, met: Some(0.1), hits: (2.0, 2.5) };
        let compared = Compared { strain: costly, ..compared(0.5, 1e8, 0.05) };
        for _ in 0..10 {
            if pace.best == Way::Volleys {
                break;
            }
            pace.learn(now, compared, known);
            assert!(pace.steady.rate >= 1e8, "{pace:?}");
        }
        assert_eq!((pace.best, pace.next), (Way::Volleys, Way::Steady(2)), "{pace:?}");
        assert!(pace.volleys.share > SHARE_MIN * 0.1, "they begin at the rate that was reached: {pace:?}");
    }

    #[test]
    fn volleys_in_a_trial_reach_its_rate() {
        let mut volleys = Volleys::new(0.1, 64 << 20, Instant::now());
        let known = Known { service_time: 1e-4, cautious: false };
        volleys.aim(5e7, 1e9, known);
        let period = volleys.spacing * known.service_time;
        assert!((0.9..1.1).contains(&(volleys.bytes as f64 / period / 5e7)), "{volleys:?}");
    }

    /// A flush of ours takes all of a window.
    #[test]
    fn a_window_in_which_little_was_sent_halves_a_steady_rate_at_most() {
        let mut steady = Steady { size: 0, rate: 1e8, next: Instant::now() };
        assert_eq!(steady.learn(0.1, 0.0), BACK);
        assert_eq!(steady.learn(0.1, 5e7), 2.0);
        assert_eq!(steady.learn(0.1, 6e7), 0.72, "the disk does not do more");
    }

    #[test]
    fn volleys_are_as_rare_as_few_ios_meet_them() {
        let mut volleys = Volleys::new(0.1, 8 << 20, Instant::now());
        let mut after = |met| (volleys.space(met), volleys.spacing);
        assert_eq!(after(None), (false, SPACING_MIN));
        assert_eq!(after(Some(MET)), (false, SPACING_MIN));
        assert_eq!(after(Some(1.5 * MET)), (true, 1.5 * SPACING_MIN));
        for spacing in [2.0 * 1.5 * SPACING_MIN, SPACING_MAX] {
            assert_eq!(after(Some(1.0)), (true, spacing));
        }
        assert_eq!(after(Some(1.0)), (false, SPACING_MAX));
        assert_eq!(after(Some(0.0)), (true, SPACING_MAX / 2.0));
    }
}
