//! When a device that does not answer is reported, and when it is given up: every limit on time, for the
//! loop and for the fleet.
//!
//! The loop sees the I/Os that it has in flight. Its calls (open, flush, close, a command without a
//! queue) keep its thread in the kernel: [`CallMonitor`] shows them to the fleet, whose thread does no I/O.
//!
//! | what | reported as late | given up | why |
//! |---|---|---|---|
//! | an I/O in flight, or a call | after `io_timeout` | after `give_up_after` | a drive's own recovery takes minutes |
//! | a command with a timeout of its own | after `io_timeout` | after that, if it is longer | a drive formats for hours |
//! | an I/O, once a signal asked for an end | | at the age of `STOP_IO_MAX`, or `io_timeout` if shorter | leaves time for the flush behind it |
//! | a call, once a signal asked for an end | | `STOP_MAX`, or `io_timeout` if shorter, after both the signal and its start | a flush may take long, and is worth a wait |
//! | any call, once a signal asked for an end | | `STOP_MAX` after the signal | supervisors kill a process that takes longer |
//! | the close of a disk whose result is there | | after `STOP_MAX` | nothing depends on it any more |
//! | a device that answers with errors alone | | after `give_up_after` | it only fails |
//! | a device that is read or written in order | | at less than `rate_min` over `rate_window` | it would take too long |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Settings;
use crate::range::Extent;

/// The age at which an I/O in flight is given up, once a signal asked for an end.
const STOP_IO_MAX: Duration = Duration::from_secs(10);
/// How long a job's thread may take to end once a signal asked for it, all its calls together; and to
/// close its disk once its result is there.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Decides how long an I/O or a call may take.
#[derive(Clone, Copy)]
pub struct Watchdog {
    io_timeout: Duration,
    give_up_after: Duration,
}

impl Watchdog {
    pub fn new(settings: &Settings) -> Watchdog {
        Watchdog { io_timeout: settings.io_timeout, give_up_after: settings.give_up_after }
    }

    /// Whether it is late, and was not before.
    pub fn is_newly_late(&self, pending: &mut Pending, now: Instant) -> bool {
        let newly = !pending.late && pending.age(now) >= self.io_timeout;
        pending.late |= newly;
        newly
    }

    /// Whether an I/O of this age is given up; `stopping` once a signal asked for an end.
    pub fn gives_up_io(&self, age: Duration, stopping: bool) -> bool {
        age >= self.give_up_after || (stopping && age >= STOP_IO_MAX.min(self.io_timeout))
    }

    /// Whether a call of this age is given up; `stopping` is how long ago a signal asked for an end.
    fn gives_up_call(
        &self,
        call: &BlockingCall,
        age: Duration,
        stopping: Option<Duration>,
        has_result: bool,
    ) -> bool {
        let stopped = stopping.is_some_and(|stopping| {
            stopping >= STOP_MAX || stopping.min(age) >= STOP_MAX.min(self.io_timeout)
        });
        stopped || (has_result && age >= STOP_MAX) || age >= self.give_up_after.max(call.timeout)
    }
}

/// An I/O or a call that has not been answered yet.
#[derive(Clone, Copy)]
pub struct Pending {
    pub since: Instant,
    late: bool,
}

impl Pending {
    pub fn new(since: Instant) -> Pending {
        Pending { since, late: false }
    }

    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// A call into the kernel that may not come back.
#[derive(Clone, Copy, Debug)]
pub struct BlockingCall {
    /// Of its job: no two have the same.
    pub number: u64,
    pub operation: &'static str,
    pub at: Extent,
    /// Of the operation itself, 0 for one that has none.
    pub timeout: Duration,
}

/// The call that a job's thread is in, for other threads to see.
#[derive(Clone, Default)]
pub struct CallMonitor(Arc<Mutex<CallState>>);

#[derive(Default)]
struct CallState {
    count: u64,
    current: Option<BlockingCall>,
}

impl CallMonitor {
    pub fn within<T>(&self, operation: &'static str, at: Extent, call: impl FnOnce() -> T) -> T {
        self.within_timeout(operation, at, Duration::ZERO, call)
    }

    /// The same, of an operation for which the kernel waits as long as this.
    pub fn within_timeout<T>(
        &self,
        operation: &'static str,
        at: Extent,
        timeout: Duration,
        call: impl FnOnce() -> T,
    ) -> T {
        self.with(|state| {
            state.count += 1;
            state.current = Some(BlockingCall { number: state.count, operation, at, timeout });
        });
        let result = call();
        self.with(|state| state.current = None);
        result
    }

    pub fn current(&self) -> Option<BlockingCall> {
        self.with(|state| state.current)
    }

    fn with<T>(&self, look: impl FnOnce(&mut CallState) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a call has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// Since this look; the next ones do not repeat it.
    Late,
    GivenUp,
}

/// Watches the calls of one job from another thread.
pub struct CallWatch {
    watchdog: Watchdog,
    calls: CallMonitor,
    /// The call that is watched now, by its number: its time begins when it is first seen.
    pending: Option<(u64, Pending)>,
}

impl CallWatch {
    pub fn new(settings: &Settings, calls: CallMonitor) -> CallWatch {
        CallWatch { watchdog: Watchdog::new(settings), calls, pending: None }
    }

    /// The call that has become late or is given up, and its age. `stopping` is how long ago a signal asked
    /// for an end; `has_result` that only the close is left.
    pub fn check(
        &mut self,
        now: Instant,
        stopping: Option<Duration>,
        has_result: bool,
    ) -> Option<(BlockingCall, Duration, Stall)> {
        let call = self.calls.current()?;
        let known = self.pending.filter(|(number, _)| *number == call.number);
        let (_, mut pending) = known.unwrap_or((call.number, Pending::new(now)));
        let late = self.watchdog.is_newly_late(&mut pending, now);
        self.pending = Some((call.number, pending));
        let age = pending.age(now);
        if self.watchdog.gives_up_call(&call, age, stopping, has_result) {
            return Some((call, age, Stall::GivenUp));
        }
        late.then_some((call, age, Stall::Late))
    }
}

/// Whether a device that answers gets anywhere.
pub struct StallDetector {
    failing_since: Option<Instant>,
    rate_min: Option<u64>,
    rate_window: Duration,
    window_from: Instant,
    window_bytes: u64,
}

impl StallDetector {
    pub fn new(settings: &Settings, now: Instant) -> StallDetector {
        let Settings { rate_min, rate_window, .. } = *settings;
        StallDetector { failing_since: None, rate_min, rate_window, window_from: now, window_bytes: 0 }
    }

    pub fn succeeded(&mut self) {
        self.failing_since = None;
    }

    /// How long all I/Os have failed, with the one that failed now.
    pub fn failed(&mut self, now: Instant) -> Duration {
        now - *self.failing_since.get_or_insert(now)
    }

    /// The rate over the window that ends now, where it is below the least one; `bytes` are all so far.
    pub fn slow_rate(&mut self, bytes: u64, now: Instant) -> Option<String> {
        let (rate_min, took) = (self.rate_min?, now - self.window_from);
        if took < self.rate_window {
            return None;
        }
        let rate = ((bytes - self.window_bytes) as f64 / took.as_secs_f64()) as u64;
        (self.window_from, self.window_bytes) = (now, bytes);
        let seconds = took.as_secs_f64();
        (rate < rate_min).then(|| {
            format!("given up: {rate} bytes a second over {seconds:.0} s, where {rate_min} is the least")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BEFORE: Duration = Duration::from_millis(1);

    fn watchdog(io_timeout: Duration) -> Watchdog {
        Watchdog::new(&Settings { io_timeout, give_up_after: 1800 * SECOND, ..Settings::default() })
    }

    #[test]
    fn what_is_late_is_reported_once() {
        let start = Instant::now();
        let (watchdog, mut pending) = (watchdog(60 * SECOND), Pending::new(start));
        assert!(!watchdog.is_newly_late(&mut pending, start + 60 * SECOND - BEFORE));
        assert!(watchdog.is_newly_late(&mut pending, start + 60 * SECOND));
        assert!(!watchdog.is_newly_late(&mut pending, start + 120 * SECOND));
    }

    #[test]
    fn an_io_is_given_up_at_the_limit_or_sooner_after_a_signal() {
        for (io_timeout, stopping, limit) in [
            (60 * SECOND, false, 1800 * SECOND),
            (60 * SECOND, true, STOP_IO_MAX),
            (2 * SECOND, false, 1800 * SECOND),
            (2 * SECOND, true, 2 * SECOND),
        ] {
            let watchdog = watchdog(io_timeout);
            assert!(watchdog.gives_up_io(limit, stopping), "{limit:?}");
            assert!(!watchdog.gives_up_io(limit - BEFORE, stopping), "{limit:?}");
        }
    }

    #[test]
    fn a_call_is_given_up_at_the_limit_or_sooner_after_a_signal_or_a_result() {
        let call = |timeout| BlockingCall { number: 0, operation: "flush", at: Extent::new(0, 1), timeout };
        let long = 100 * SECOND;
        let watchdog_60 = watchdog(60 * SECOND);
        assert!(watchdog_60.gives_up_call(&call(Duration::ZERO), 1800 * SECOND, None, false));
        assert!(!watchdog_60.gives_up_call(&call(Duration::ZERO), 1800 * SECOND - BEFORE, None, false));
        // Its own time counts from the signal; the time of all calls together does too.
        assert!(watchdog_60.gives_up_call(&call(Duration::ZERO), long, Some(STOP_MAX), false));
        assert!(watchdog_60.gives_up_call(&call(Duration::ZERO), BEFORE, Some(STOP_MAX), false));
        assert!(!watchdog_60.gives_up_call(&call(Duration::ZERO), long, Some(STOP_MAX - BEFORE), false));
        let watchdog_2 = watchdog(2 * SECOND);
        assert!(watchdog_2.gives_up_call(&call(Duration::ZERO), 2 * SECOND, Some(2 * SECOND), false));
        assert!(!watchdog_2.gives_up_call(
            &call(Duration::ZERO),
            2 * SECOND - BEFORE,
            Some(3 * SECOND),
            false
        ));
        assert!(!watchdog_2.gives_up_call(
            &call(Duration::ZERO),
            3 * SECOND,
            Some(2 * SECOND - BEFORE),
            false
        ));
        assert!(watchdog_60.gives_up_call(&call(Duration::ZERO), STOP_MAX, None, true));
        assert!(!watchdog_60.gives_up_call(&call(Duration::ZERO), STOP_MAX - BEFORE, None, true));
        // A format takes hours, and ends as soon as a signal asks for it all the same.
        let format = call(7200 * SECOND);
        assert!(!watchdog_60.gives_up_call(&format, 7200 * SECOND - BEFORE, None, false));
        assert!(watchdog_60.gives_up_call(&format, 7200 * SECOND, None, false));
        assert!(watchdog_60.gives_up_call(&format, long, Some(STOP_MAX), false));
    }

    #[test]
    fn each_call_has_its_own_time() {
        let (start, calls) = (Instant::now(), CallMonitor::default());
        let mut watch = CallWatch::new(&Settings::default(), calls.clone());
        let mut look = |seconds: u32| {
            let seen = watch.check(start + seconds * SECOND, None, false);
            seen.map(|(call, age, stall)| (call.operation, age.as_secs(), stall))
        };
        calls.within("write", Extent::new(0, 1), || {
            assert_eq!([look(0), look(59)], [None, None]);
            assert_eq!(look(60), Some(("write", 60, Stall::Late)));
            assert_eq!(look(1799), None);
        });
        // At the first look it has taken no time, whatever the one before took.
        calls.within("flush", Extent::new(0, 1), || {
            assert_eq!(look(1800), None);
            assert_eq!(look(1870), Some(("flush", 70, Stall::Late)));
            assert_eq!(look(3600), Some(("flush", 1800, Stall::GivenUp)));
        });
        assert_eq!(look(9999), None);
    }

    #[test]
    fn a_device_that_fails_now_and_then_is_not_one_that_only_fails() {
        let start = Instant::now();
        let mut stalls = StallDetector::new(&Settings::default(), start);
        assert_eq!(stalls.failed(start + SECOND), Duration::ZERO);
        assert_eq!(stalls.failed(start + 4 * SECOND), 3 * SECOND);
        stalls.succeeded();
        assert_eq!(stalls.failed(start + 5 * SECOND), Duration::ZERO);
    }

    #[test]
    fn the_least_rate_is_measured_over_each_window() {
        let start = Instant::now();
        let settings = Settings { rate_min: Some(100), rate_window: 10 * SECOND, ..Settings::default() };
        let mut stalls = StallDetector::new(&settings, start);
        assert_eq!(stalls.slow_rate(0, start + 10 * SECOND - BEFORE), None);
        assert_eq!(stalls.slow_rate(1000, start + 10 * SECOND), None);
        let slow = stalls.slow_rate(1990, start + 20 * SECOND).unwrap();
        assert!(slow.contains("99 bytes a second over 10 s, where 100 is the least"), "{slow}");
    }
}
