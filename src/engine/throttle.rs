//! Throttling: when the next I/O may start, and how large it may be (`--rate` and `--yield`).

use std::time::{Duration, Instant};

use super::Settings;
use super::step::Yielding;
use crate::io::IoStats;

mod backoff;
mod floor;
mod measure;
#[cfg(test)]
mod model;
mod pace;

use backoff::Backoff;

/// What may pile up while the device is slower than the limit.
const BURST: Duration = Duration::from_millis(100);

/// The longest volley beside a neighbour, in full queues.
const VOLLEY_DEPTHS: u64 = 2;

/// Whether an I/O may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    Start {
        bytes_max: u64,
    },
    /// Ask again at this time, or where there is none, when all that is in flight has come home.
    Wait(Option<Instant>),
}

pub struct Throttle {
    limit: RateLimit,
    backoff: Option<Backoff>,
}

impl Throttle {
    pub fn new(settings: &Settings, now: Instant) -> Throttle {
        let volley_max = settings.bytes_in_flight_max().saturating_mul(VOLLEY_DEPTHS);
        let backoff = settings.yields.map(|yields| Backoff::new(yields, volley_max, now));
        Throttle { limit: RateLimit::new(settings.rate, now), backoff }
    }

    /// A step begins, that writes or only reads.
    pub fn begin_step(&mut self, writes: bool) {
        if let Some(backoff) = &mut self.backoff {
            backoff.begin_step(writes);
        }
    }

    /// A step ends: what it did beside others, where it backs off at all.
    pub fn end_step(&mut self, now: Instant) -> Option<Yielding> {
        self.backoff.as_mut().map(|backoff| backoff.end_step(now))
    }

    /// `stats` looks at the disk (see [`crate::io::Disk::io_stats`]); it is asked only when needed.
    pub fn admit(
        &mut self,
        now: Instant,
        in_flight: usize,
        stats: impl FnMut() -> Vec<IoStats>,
    ) -> Admission {
        let admission = match &mut self.backoff {
            Some(backoff) => backoff.admit(now, in_flight, stats),
            None => Admission::Start { bytes_max: u64::MAX },
        };
        match (admission, self.limit.wait(now)) {
            (Admission::Start { .. }, Some(until)) => Admission::Wait(Some(until)),
            (admission, _) => admission,
        }
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.limit.spend(bytes, now);
        if let Some(backoff) = &mut self.backoff {
            backoff.spend(bytes, now);
        }
    }
}

/// Each I/O costs its bytes' time at the limit; the next may start when the account is even.
struct RateLimit {
    bytes_per_second: Option<u64>,
    even_at: Instant,
}

impl RateLimit {
    fn new(bytes_per_second: Option<u64>, now: Instant) -> RateLimit {
        RateLimit { bytes_per_second, even_at: now }
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
    fn a_rate_limit_spreads_bytes_over_time() {
        let start = Instant::now();
        let mut limit = RateLimit::new(Some(1_000_000), start);
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
        let mut limit = RateLimit::new(Some(1_000_000), start);
        let later = start + Duration::from_secs(3600);
        limit.spend(1_000_000, later);
        assert!(limit.wait(later).unwrap() > later + Duration::from_millis(800));
    }

    #[test]
    fn no_io_waits_without_a_rate_limit() {
        let now = Instant::now();
        let mut limit = RateLimit::new(None, now);
        limit.spend(u64::MAX, now);
        assert_eq!(limit.wait(now), None);
    }
}
