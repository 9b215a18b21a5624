//! The hard limit of `--rate`.

use std::time::{Duration, Instant};

/// What may pile up while the device is slower than the limit.
const BURST: Duration = Duration::from_millis(100);

/// Each I/O costs its bytes' time at the limit; the next may start when the account is even.
pub struct Pace {
    bytes_per_second: Option<u64>,
    even_at: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace { bytes_per_second, even_at: Instant::now() }
    }

    /// When the next I/O may start, where that is not yet.
    pub fn wait(&self, now: Instant) -> Option<Instant> {
        (self.even_at > now).then_some(self.even_at)
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
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
        let mut pace = Pace::new(Some(1_000_000));
        let mut now = start;
        for _ in 0..50 {
            now = pace.wait(now).unwrap_or(now);
            pace.spend(100_000, now);
        }
        // 5 MB at 1 MB/s, less the first I/O and the burst.
        let took = pace.wait(now).unwrap() - start;
        assert!((4.7..=5.1).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(1_000_000));
        let later = start + Duration::from_secs(3600);
        pace.spend(1_000_000, later);
        assert!(pace.wait(later).unwrap() > later + Duration::from_millis(800));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(None);
        pace.spend(u64::MAX, Instant::now());
        assert_eq!(pace.wait(Instant::now()), None);
    }
}
