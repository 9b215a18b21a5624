//! When a device is given up by the clock.

use std::time::{Duration, Instant};

use crate::engine::Settings;

/// How long a device has only failed, and whether it is too slow.
pub struct Patience {
    failing_since: Option<Instant>,
    rate_min: Option<u64>,
    window: Duration,
    from: Instant,
    bytes: u64,
}

impl Patience {
    pub fn new(settings: &Settings) -> Patience {
        let Settings { rate_min, rate_window: window, .. } = *settings;
        Patience { failing_since: None, rate_min, window, from: Instant::now(), bytes: 0 }
    }

    /// Something came back good.
    pub fn moved(&mut self) {
        self.failing_since = None;
    }

    /// How long nothing but failures came back.
    pub fn failing(&mut self) -> Duration {
        self.failing_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Why it is given up, where it did less than it has to over the last window.
    pub fn too_slow(&mut self, bytes: u64) -> Option<String> {
        let (rate_min, took) = (self.rate_min?, self.from.elapsed());
        if took < self.window {
            return None;
        }
        let rate = ((bytes - self.bytes) as f64 / took.as_secs_f64()) as u64;
        (self.from, self.bytes) = (Instant::now(), bytes);
        let seconds = took.as_secs_f64();
        (rate < rate_min).then(|| {
            format!("given up: {rate} bytes a second over {seconds:.0} s, where {rate_min} is the least")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_now_and_then_is_not_one_that_only_fails() {
        let mut patience = Patience::new(&Settings::default());
        patience.failing();
        let pause = Duration::from_millis(200);
        std::thread::sleep(pause);
        assert!(patience.failing() >= pause);
        patience.moved();
        assert!(patience.failing() < pause);
    }
}
