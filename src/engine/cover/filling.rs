//! Filling buffers with a pattern: by a second thread where one is slower than the device.

use std::thread;
use std::time::Duration;

use crate::pattern::Pattern;

/// The buffers after which the times are compared.
const BUFFERS: u32 = 64;
/// One thread that waits for the device for less than this part of its time is the slower of the two.
const SELDOM: u32 = 8;
/// Less is filled sooner than a thread begins.
const HALF_MIN: usize = 128 << 10;

/// How long filling takes, and how long the device is waited for.
pub(super) struct Filling {
    two_allowed: bool,
    by_two: bool,
    buffers: u32,
    filling: Duration,
    waiting: Duration,
}

impl Filling {
    pub fn new(threads: usize) -> Filling {
        Filling {
            two_allowed: threads > 1,
            by_two: false,
            buffers: 0,
            filling: Duration::ZERO,
            waiting: Duration::ZERO,
        }
    }

    pub fn by_two(&self) -> bool {
        self.by_two
    }

    pub fn waited(&mut self, time: Duration) {
        self.waiting += time;
    }

    pub fn filled(&mut self, time: Duration) {
        self.filling += time;
        self.buffers += 1;
        if self.buffers == BUFFERS {
            // Two threads that wait as long as they fill could be one.
            let seldom = if self.by_two { self.waiting } else { self.waiting * SELDOM };
            let by_two = self.two_allowed && seldom < self.filling;
            (self.by_two, self.buffers) = (by_two, 0);
            (self.filling, self.waiting) = (Duration::ZERO, Duration::ZERO);
        }
    }
}

/// Writes the pattern's bytes from offset `at` on, the second half by another thread.
pub(super) fn fill_by_two(pattern: &Pattern, at: u64, out: &mut [u8]) {
    let half = out.len() / 2;
    if half < HALF_MIN {
        return pattern.fill(at, out);
    }
    thread::scope(|scope| {
        let (first, second) = out.split_at_mut(half);
        scope.spawn(move || pattern.fill(at + half as u64, second));
        pattern.fill(at, first);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Seed;

    const MS: Duration = Duration::from_millis(1);

    /// After a number of buffers that took `fill` each, with waits of `wait`.
    fn after(filling: &mut Filling, fill: Duration, wait: Duration) -> bool {
        for _ in 0..BUFFERS {
            filling.waited(wait);
            filling.filled(fill);
        }
        filling.by_two()
    }

    #[test]
    fn a_second_thread_helps_only_while_one_is_slower_than_the_device() {
        let mut filling = Filling::new(2);
        assert!(!filling.by_two());
        for (fill, wait, by_two) in [
            (MS, MS, false),
            (MS, MS / 4, false),
            (MS, MS / 10, true),
            (MS / 2, MS / 3, true),
            (MS / 2, MS, false),
        ] {
            assert_eq!(after(&mut filling, fill, wait), by_two, "{fill:?}, {wait:?}");
        }
        assert!(!after(&mut Filling::new(2), Duration::ZERO, Duration::ZERO), "a constant");
        assert!(!after(&mut Filling::new(1), MS, Duration::ZERO), "one thread alone is allowed");
    }

    #[test]
    fn two_threads_write_what_one_does() {
        let pattern = Pattern::Random { seed: Seed([7; 32]) };
        for len in [512, 2 * HALF_MIN - 512, 2 * HALF_MIN, 1 << 20, (1 << 20) + 512] {
            let (mut by_one, mut by_two) = (vec![0; len], vec![0; len]);
            pattern.fill(4096, &mut by_one);
            fill_by_two(&pattern, 4096, &mut by_two);
            assert!(by_one == by_two, "{len} bytes");
        }
    }
}
