//! The lowest rate of a job that backs off, so that it ends.

use std::time::{Duration, Instant};

use super::Admission;

/// One I/O at the lowest rate.
const IO_BYTES: f64 = (1 << 20) as f64;
/// The default, in bytes a second, and as a part of the rate that was seen alone: the lesser one.
const RATE_MAX: f64 = (16 << 20) as f64;
const PART: f64 = 0.05;
/// The shortest time in which a rate is measured.
const MEASURED_MIN: Duration = Duration::from_millis(1);

pub struct Floor {
    /// Bytes a second; `None` for the default.
    asked: Option<u64>,
    /// The highest rate of ours while any of it was in flight.
    fastest: f64,
    /// Bytes that were not sent, at the lowest rate.
    due: f64,
    since: Instant,
    /// It has sent something since it was asked.
    decided: bool,
}

impl Floor {
    pub fn new(asked: Option<u64>, now: Instant) -> Floor {
        Floor { asked, fastest: 0.0, due: 0.0, since: now, decided: false }
    }

    fn rate(&self) -> f64 {
        self.asked.map_or(RATE_MAX.min(PART * self.fastest), |asked| asked as f64)
    }

    /// Bytes of ours that were sent while some of it was in flight for this time.
    pub fn measure(&mut self, bytes: u64, busy: Duration) {
        if busy >= MEASURED_MIN {
            self.fastest = self.fastest.max(bytes as f64 / busy.as_secs_f64());
        }
    }

    /// Others are there.
    pub fn begin(&mut self, now: Instant) {
        (self.due, self.since) = (0.0, now);
    }

    /// Lets I/O start that the budget alone would hold back.
    pub fn raise(&mut self, admission: Admission, now: Instant, in_flight: usize) -> Admission {
        let rate = self.rate();
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        // A second's worth is made up for, no more.
        self.due = (self.due + rate * passed.as_secs_f64()).min(rate.max(IO_BYTES));
        match admission {
            Admission::Wait(Some(_)) if in_flight <= 1 && self.due >= IO_BYTES => {
                self.decided = true;
                Admission::Start { bytes_max: IO_BYTES as u64 }
            }
            Admission::Wait(Some(until)) if rate > 0.0 => {
                let left = (IO_BYTES - self.due).max(0.0) / rate;
                let due = now.checked_add(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX));
                Admission::Wait(Some(due.map_or(until, |due| until.min(due))))
            }
            admission => admission,
        }
    }

    pub fn spend(&mut self, bytes: u64) {
        self.due = (self.due - bytes as f64).max(-self.rate().max(IO_BYTES));
    }

    /// Whether it has decided since this was asked.
    pub fn take_decided(&mut self) -> bool {
        std::mem::take(&mut self.decided)
    }
}
