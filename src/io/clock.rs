//! The clock on which deadlines are read: the system's, or that of a simulated disk, whose time passes
//! only while it is waited for.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A time, and a way to wait for one.
pub trait Clock: Send + Sync {
    /// Never before an earlier answer.
    fn now(&self) -> Instant;

    /// Returns at once if that time is past.
    fn sleep_until(&self, until: Instant);
}

/// That of the machine, which does not go back.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, until: Instant) {
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// Moves only when it is advanced or slept on: an hour is over at once.
pub struct SimClock(Mutex<Instant>);

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock(Mutex::new(Instant::now()))
    }
}

impl SimClock {
    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep_until(&self, until: Instant) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = until.max(*now);
    }
}
