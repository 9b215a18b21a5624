//! The trial at the beginning of a step: which size and number of I/Os this device does the most bytes with.
//!
//! The candidates take turns for a few milliseconds each, on the step's own work. The first one is what
//! suits most devices; another one has to be clearly faster in its best turn, since a turn can be
//! disturbed but not be faster than the device.

use std::time::{Duration, Instant};

/// The size and number of the I/Os in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub transfer: u64,
    pub depth: usize,
}

/// How often each candidate has its turn.
const ROUNDS: usize = 2;
/// A turn lasts at least this long, and at least this number of I/Os.
const TURN: Duration = Duration::from_millis(3);
const TURN_IOS: usize = 24;
/// What another candidate must be faster by, in percent.
const CLEARLY: u64 = 2;
/// Less than this would be over before a trial is worth its time, in transfers.
pub(super) const TRANSFERS_MIN: u64 = 1024;

pub(super) struct Trial {
    candidates: Vec<Candidate>,
    /// The turn that runs, counted over all rounds; no candidate has one after the last.
    turn: usize,
    best: usize,
    /// I/Os of the turn before, which end in this one.
    foreign_ios: usize,
    began: Option<Instant>,
    bytes: u64,
    ios: usize,
}

struct Candidate {
    shape: Shape,
    /// Bytes a second of its best turn.
    rate: u64,
}

impl Trial {
    /// No trial: this is it.
    pub fn fixed(shape: Shape) -> Trial {
        Trial::among(vec![shape])
    }

    /// Shapes within the budget of this one: no larger I/Os, and no more of them than `depth_max`.
    pub fn within(largest: Shape, depth_max: usize) -> Trial {
        let Shape { transfer, depth } = largest;
        let shape = |divisor: u64, depth: usize| Shape { transfer: transfer / divisor, depth };
        let candidates = [
            shape(1, depth.div_ceil(2)),
            largest,
            shape(2, depth),
            shape(4, depth * 2),
            shape(8, depth.div_ceil(2)),
        ];
        Trial::among(candidates.into_iter().filter(|shape| shape.depth <= depth_max).collect())
    }

    fn among(shapes: Vec<Shape>) -> Trial {
        let candidates = shapes.into_iter().map(|shape| Candidate { shape, rate: 0 }).collect();
        Trial { candidates, turn: 0, best: 0, foreign_ios: 0, began: None, bytes: 0, ios: 0 }
    }

    /// The shape to use now.
    pub fn shape(&self) -> Shape {
        let running = self.turn % self.candidates.len();
        self.candidates[if self.is_over() { self.best } else { running }].shape
    }

    fn is_over(&self) -> bool {
        self.candidates.len() == 1 || self.turn >= ROUNDS * self.candidates.len()
    }

    /// I/Os that ended; `in_flight` have not. Says which shape won, once.
    pub fn ended(&mut self, bytes: u64, ios: usize, in_flight: usize, now: Instant) -> Option<Shape> {
        if self.is_over() || ios == 0 {
            return None;
        }
        let Some(began) = self.began else {
            self.foreign_ios = self.foreign_ios.saturating_sub(ios);
            if self.foreign_ios == 0 {
                (self.began, self.bytes, self.ios) = (Some(now), 0, 0);
            }
            return None;
        };
        (self.bytes, self.ios) = (self.bytes + bytes, self.ios + ios);
        let took = now - began;
        if took < TURN || self.ios < TURN_IOS {
            return None;
        }
        let running = self.turn % self.candidates.len();
        let candidate = &mut self.candidates[running];
        candidate.rate = candidate.rate.max((self.bytes as f64 / took.as_secs_f64()) as u64);
        (self.turn, self.began, self.foreign_ios) = (self.turn + 1, None, in_flight);
        self.is_over().then(|| self.choose())
    }

    fn choose(&mut self) -> Shape {
        let rate = |number: usize| self.candidates[number].rate;
        let fastest = (0..self.candidates.len()).max_by_key(|number| rate(*number)).unwrap_or(0);
        self.best = if rate(fastest) > rate(0) * (100 + CLEARLY) / 100 { fastest } else { 0 };
        self.shape()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: Shape = Shape { transfer: 1 << 20, depth: 8 };

    /// Runs a trial on a device with this rate for each shape, and says how long it took.
    fn run(trial: &mut Trial, rate: impl Fn(Shape, usize) -> u64) -> (Shape, Duration) {
        let start = Instant::now();
        let (mut now, mut number) = (start, 0);
        loop {
            let shape = trial.shape();
            now += Duration::from_secs_f64(shape.transfer as f64 / rate(shape, number) as f64);
            number += 1;
            if let Some(shape) = trial.ended(shape.transfer, 1, shape.depth, now) {
                assert_eq!((shape, trial.ended(1, 1, 0, now)), (trial.shape(), None));
                return (shape, now - start);
            }
        }
    }

    #[test]
    fn the_fastest_shape_is_used_and_the_first_one_where_none_is_clearly_faster() {
        let first = Trial::within(LARGEST, 64).shape();
        let shapes: Vec<Shape> =
            Trial::within(LARGEST, 64).candidates.iter().map(|candidate| candidate.shape).collect();
        for best in shapes {
            let found = |faster: u64| {
                let rate = |shape, _| 5_000_000_000 + if shape == best { faster } else { 0 };
                run(&mut Trial::within(LARGEST, 64), rate).0
            };
            assert_eq!((found(500_000_000), found(50_000_000)), (best, first));
        }
    }

    #[test]
    fn a_disturbed_turn_decides_nothing() {
        let best = Shape { transfer: 1 << 19, depth: 8 };
        let rate = |shape, number| match (shape == best, number) {
            (true, 0..200) => 1_000_000_000,
            (true, _) => 6_000_000_000,
            (false, _) => 5_000_000_000,
        };
        assert_eq!(run(&mut Trial::within(LARGEST, 64), rate).0, best);
    }

    #[test]
    fn a_trial_is_short() {
        let (_, fast) = run(&mut Trial::within(LARGEST, 64), |_, _| 10_000_000_000);
        assert!(fast < Duration::from_millis(80), "{fast:?}");
        let (_, slow) = run(&mut Trial::within(LARGEST, 64), |_, _| 200_000_000);
        assert!(slow < Duration::from_secs(2), "{slow:?}");
    }

    #[test]
    fn no_shape_is_larger_than_allowed_and_what_is_fixed_is_not_tried() {
        let trial = Trial::within(LARGEST, 8);
        assert!(trial.candidates.len() > 2);
        let fits = |shape: &Shape| shape.transfer <= LARGEST.transfer && shape.depth <= 8;
        assert!(trial.candidates.iter().all(|candidate| fits(&candidate.shape)));
        let mut fixed = Trial::fixed(LARGEST);
        let now = Instant::now();
        for number in 0..1000 {
            assert_eq!(fixed.ended(1 << 20, 1, 8, now + Duration::from_millis(number)), None);
            assert_eq!(fixed.shape(), LARGEST);
        }
    }
}
