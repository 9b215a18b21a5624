//! What the kernel's counters say of a neighbour: any other user of the disk.

use std::time::Duration;

use super::super::Yield;
use crate::io::{IoStats, Traffic};

/// The counters of all devices at one moment, and what of it is ours.
#[derive(Clone, Default)]
pub struct Sample {
    pub stats: Vec<IoStats>,
    pub own_bytes: u64,
    /// How long one of our I/Os at least was in flight.
    pub own_busy: Duration,
}

/// The least I/Os that say something of a neighbour, and the least part of all I/Os.
const IOS_MIN: f64 = 8.0;
const IOS_PART: f64 = 0.2;

/// A neighbour's I/O, and ours, over some time.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    pub seconds: f64,
    /// Of the neighbour, where they are distinguished from ours.
    pub bytes: f64,
    /// I/Os that go the other way than ours, flushes too, and their time.
    pub ios: f64,
    pub io_seconds: f64,
    /// All I/Os that ended, and their time.
    pub all_ios: f64,
    pub all_seconds: f64,
    pub own_bytes: f64,
    pub own_busy: f64,
    /// How many windows these are.
    pub windows: f64,
}

impl Totals {
    /// Between two samples. Our own bytes add up on the disk itself; below it they show in other shapes,
    /// so that only what goes the other way is surely not ours.
    pub fn between(writes: bool, from: &Sample, to: &Sample, time: Duration) -> Totals {
        let own_bytes = (to.own_bytes - from.own_bytes) as f64;
        let mut totals = Totals {
            seconds: time.as_secs_f64(),
            own_bytes,
            own_busy: (to.own_busy - from.own_busy).as_secs_f64(),
            windows: 1.0,
            ..Totals::default()
        };
        for (before, after) in from.stats.iter().zip(&to.stats) {
            let (reads, writes_) = (moved(&before.reads, &after.reads), moved(&before.writes, &after.writes));
            let (own_way, other_way) = if writes { (writes_, reads) } else { (reads, writes_) };
            totals.bytes += other_way.0;
            if !after.below {
                totals.bytes += (own_way.0 - own_bytes).max(0.0);
            }
            let flushes = moved(&before.flushes, &after.flushes);
            totals.ios += other_way.1 + flushes.1;
            totals.io_seconds += other_way.2 + flushes.2;
            totals.all_ios += own_way.1 + other_way.1 + flushes.1;
            totals.all_seconds += own_way.2 + other_way.2 + flushes.2;
        }
        totals
    }

    pub fn add(&mut self, other: Totals) {
        self.combine(other, |own, other| *own += other);
    }

    /// What was measured earlier weighs less.
    pub fn decay(&mut self, weight: f64) {
        self.combine(Totals::default(), |own, _| *own *= weight);
    }

    fn combine(&mut self, other: Totals, with: impl Fn(&mut f64, f64)) {
        with(&mut self.seconds, other.seconds);
        with(&mut self.bytes, other.bytes);
        with(&mut self.ios, other.ios);
        with(&mut self.io_seconds, other.io_seconds);
        with(&mut self.all_ios, other.all_ios);
        with(&mut self.all_seconds, other.all_seconds);
        with(&mut self.own_bytes, other.own_bytes);
        with(&mut self.own_busy, other.own_busy);
        with(&mut self.windows, other.windows);
    }

    /// Whether anything of it is distinguished from our I/O.
    pub fn is_measured(&self) -> bool {
        self.bytes + self.ios > 0.0
    }

    /// Its rate relative to another one: by I/Os where many of them surely are its own, else by bytes.
    pub fn rate_of(&self, other: &Totals) -> f64 {
        let by_ios = other.has_ios() || other.bytes == 0.0;
        let amount = |totals: &Totals| if by_ios { totals.ios } else { totals.bytes };
        (amount(self) / self.seconds) / (amount(other) / other.seconds)
    }

    /// Its mean service time relative to another one.
    pub fn time_of(&self, other: &Totals) -> Option<f64> {
        let time = |totals: &Totals| totals.io_seconds / totals.ios;
        (other.has_ios() && self.ios > 0.0).then(|| time(self) / time(other))
    }

    fn has_ios(&self) -> bool {
        self.ios >= IOS_MIN && self.ios >= IOS_PART * self.all_ios
    }

    pub fn own_rate(&self) -> f64 {
        self.own_bytes / self.seconds
    }
}

/// Bytes, I/Os, and seconds.
fn moved(before: &Traffic, after: &Traffic) -> (f64, f64, f64) {
    let bytes = after.bytes.saturating_sub(before.bytes) as f64;
    let ended = after.ended.saturating_sub(before.ended) as f64;
    (bytes, ended, after.ended_in.saturating_sub(before.ended_in).as_secs_f64())
}

/// The part of its I/O rate that a neighbour may lose, and the growth of its mean service time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub loss: f64,
    pub growth: f64,
}

impl Budget {
    pub fn of(yields: Yield) -> Budget {
        let loss = f64::from(yields.loss_percent) / 100.0;
        Budget { loss, growth: 1.5 * loss }
    }
}

/// The time of a neighbour's I/O that meets one of ours may grow by this on average, where more than one in
/// a hundred does: its 99th percentile then stays below one and a half.
const HIT_GROWTH_MAX: f64 = 0.5;
const HITS_MAX: f64 = 0.01;
/// A neighbour that stops loses all of its rate: one comparison counts so much at most.
const STRAIN_BOUND: f64 = 3.0;
/// What we cost a neighbour, relative to the budget: at most 1 keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Strain {
    /// Of rate and mean service time.
    pub means: f64,
    /// By how much `means` can be wrong: what the neighbour does by itself from one window to the next.
    pub error: f64,
    /// The part of its I/Os that meet ours, where it is known; and what these cost, at least and at most.
    pub met: Option<f64>,
    pub hits: (f64, f64),
}

impl Strain {
    /// `active` was beside our I/O, for `share` of the time, and `quiet` without it. `met`: the part of its
    /// I/Os that met ours. `recovery`: how much better the neighbour's I/O gets after a long rest of ours than
    /// it is in `quiet`. `deviation`: of the mean time in `quiet`, relative to it.
    pub fn of(
        budget: Budget,
        (quiet, active): (&Totals, &Totals),
        share: f64,
        met: Option<f64>,
        recovery: f64,
        deviation: f64,
    ) -> Strain {
        let loss = 1.0 - active.rate_of(quiet) / recovery;
        let growth = active.time_of(quiet).map(|time| time * recovery - 1.0);
        // Where its service time is not distinguished from ours, a neighbour that pauses hides part of its loss.
        let loss_max = if growth.is_some() { budget.loss } else { budget.loss / 2.0 };
        let means = bounded(share * (loss / loss_max).max(growth.unwrap_or(0.0) / budget.growth));
        let error = bounded(share * deviation / loss_max);

        let each = growth.unwrap_or(loss);
        let met = met.filter(|met| met.is_finite());
        let often = met.filter(|met| *met > HITS_MAX);
        let hits = |each: f64| often.map_or(0.0, |met| bounded(each / met / HIT_GROWTH_MAX));
        Strain { means, error, met, hits: (hits(each - deviation), hits(each + deviation)) }
    }
}

impl Strain {
    /// The least and the most that it may be.
    pub fn range(self) -> (f64, f64) {
        (self.hits.0.max(self.means - self.error), self.hits.1.max(self.means + self.error))
    }
}

/// The kernel counts time in milliseconds: few short I/Os can take none, and then all growth is infinite.
fn bounded(strain: f64) -> f64 {
    if strain.is_finite() { strain.clamp(-STRAIN_BOUND, STRAIN_BOUND) } else { STRAIN_BOUND }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strain_is_a_number_whatever_was_counted() {
        let budget = Budget::of(Yield::default());
        let totals = |ios: f64, io_seconds: f64| Totals {
            seconds: 1.0,
            ios,
            io_seconds,
            all_ios: ios,
            all_seconds: io_seconds,
            own_bytes: 1e6,
            own_busy: 0.1,
            windows: 2.0,
            ..Totals::default()
        };
        for quiet in [totals(100.0, 0.0), totals(100.0, 0.01)] {
            for active in [totals(0.0, 0.0), totals(100.0, 0.0), totals(100.0, 5.0)] {
                for met in [None, Some(0.0), Some(f64::INFINITY), Some(f64::NAN), Some(0.1)] {
                    let strain = Strain::of(budget, (&quiet, &active), 0.9, met, 1.0, 0.1);
                    for value in [strain.means, strain.hits.0, strain.hits.1] {
                        assert!(value.abs() <= STRAIN_BOUND, "{strain:?} of {quiet:?} and {active:?}");
                    }
                }
            }
        }
    }
}
