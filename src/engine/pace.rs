//! When the next I/O may start, and how large it may be: the hard limit of `--rate`, and `--yield`.

use std::time::{Duration, Instant};

use super::Settings;
use crate::io::Load;

mod manners;
#[cfg(test)]
mod model;

use manners::Manners;

/// What may pile up while the device is slower than the limit.
const BURST: Duration = Duration::from_millis(100);

/// Whether an I/O may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    Start {
        bytes_max: u64,
    },
    /// Ask again at this time, or where there is none, when all that is in flight has come home.
    Wait(Option<Instant>),
}

pub struct Pace {
    limit: Limit,
    manners: Option<Manners>,
}

impl Pace {
    /// For a step that writes, or only reads.
    pub fn new(settings: &Settings, writes: bool, now: Instant) -> Pace {
        let manners = settings.yields.then(|| Manners::new(writes));
        Pace { limit: Limit::new(settings.rate, now), manners }
    }

    /// `loads` looks at the disk (see [`crate::io::Disk::loads`]); it is asked only when needed.
    pub fn leave(&mut self, now: Instant, in_flight: usize, loads: impl FnMut() -> Vec<Load>) -> Leave {
        let leave = match &mut self.manners {
            Some(manners) => manners.leave(now, in_flight, loads),
            None => Leave::Start { bytes_max: u64::MAX },
        };
        match (leave, self.limit.wait(now)) {
            (Leave::Start { .. }, Some(until)) => Leave::Wait(Some(until)),
            (leave, _) => leave,
        }
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.limit.spend(bytes, now);
        if let Some(manners) = &mut self.manners {
            manners.spend(bytes, now);
        }
    }
}

/// Each I/O costs its bytes' time at the limit; the next may start when the account is even.
struct Limit {
    bytes_per_second: Option<u64>,
    even_at: Instant,
}

impl Limit {
    fn new(bytes_per_second: Option<u64>, now: Instant) -> Limit {
        Limit { bytes_per_second, even_at: now }
    }

    /// When the next I/O may start, where that is not yet.
    fn wait(&self, now: Instant) -> Option<Instant> {
        (self.even_at > now).then_some(self.even_at)
    }

    fn spend(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.bytes_per_second else { return };
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.even_at = self.even_at.max(earliest) + Duration::from_secs_f64(bytes as f64 / rate as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_spreads_the_bytes_over_time() {
        let start = Instant::now();
        let mut limit = Limit::new(Some(1_000_000), start);
        let mut now = start;
        for _ in 0..50 {
            now = limit.wait(now).unwrap_or(now);
            limit.spend(100_000, now);
        }
        // 5 MB at 1 MB/s, less the first I/O and the burst.
        let took = limit.wait(now).unwrap() - start;
        assert!((4.7..=5.1).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut limit = Limit::new(Some(1_000_000), start);
        let later = start + Duration::from_secs(3600);
        limit.spend(1_000_000, later);
        assert!(limit.wait(later).unwrap() > later + Duration::from_millis(800));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        let mut limit = Limit::new(None, now);
        limit.spend(u64::MAX, now);
        assert_eq!(limit.wait(now), None);
    }
}
