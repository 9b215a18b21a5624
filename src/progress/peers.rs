//! Detection of devices that are slow among their peers, such as by a bad drive, cable or port.

use std::time::{Duration, Instant};

use crate::engine::status::JobStatus;
use crate::units::rate;

/// The interval of the comparison.
const UPDATE_INTERVAL: Duration = Duration::from_secs(30);
/// Fewer devices have no meaningful median.
const PEERS_MIN: usize = 3;
/// Slow is a rate below the median divided by this.
const SLOW: u64 = 2;

pub struct Peers {
    checked_at: Instant,
    done: Vec<u64>,
    reported: Vec<bool>,
}

impl Peers {
    pub fn new(devices: usize) -> Peers {
        Peers { checked_at: Instant::now(), done: vec![0; devices], reported: vec![false; devices] }
    }

    /// Each slow device is reported once.
    pub fn update_if_due(&mut self, states: &[JobStatus]) -> Vec<String> {
        let took = self.checked_at.elapsed();
        if took < UPDATE_INTERVAL {
            return Vec::new();
        }
        self.checked_at = Instant::now();
        self.slow(states, took)
    }

    fn slow(&mut self, states: &[JobStatus], took: Duration) -> Vec<String> {
        let done = |state: &JobStatus| state.done_before + state.done;
        let moved: Vec<(usize, u64)> = states
            .iter()
            .enumerate()
            .filter(|(_, state)| state.step > 0 && state.done < state.bytes)
            .map(|(job, state)| (job, done(state).saturating_sub(self.done[job])))
            .collect();
        self.done = states.iter().map(done).collect();
        if moved.len() <= PEERS_MIN {
            return Vec::new();
        }
        let mut bytes: Vec<u64> = moved.iter().map(|(_, bytes)| *bytes).collect();
        bytes.sort_unstable();
        let median = bytes[bytes.len() / 2];
        let slow = moved.into_iter().filter(|(_, bytes)| *bytes < median / SLOW);
        let new: Vec<(usize, u64)> =
            slow.filter(|(job, _)| !std::mem::replace(&mut self.reported[*job], true)).collect();
        let milliseconds = took.as_millis() as u64;
        new.into_iter()
            .map(|(job, bytes)| {
                let (own, usual) = (rate(bytes, milliseconds), rate(median, milliseconds));
                format!("{}: slow: {own}, where the median of its peers is {usual}", states[job].device)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(done: &[u64]) -> Vec<JobStatus> {
        let state = |(number, done): (usize, &u64)| JobStatus {
            step: 1,
            bytes: 1 << 40,
            done: *done,
            ..JobStatus::new(&format!("/dev/sd{number}"))
        };
        done.iter().enumerate().map(state).collect()
    }

    #[test]
    fn a_device_below_half_of_the_median_rate_is_named_once() {
        let mut peers = Peers::new(5);
        let second = Duration::from_secs(1);
        let reported = peers.slow(&states(&[200 << 20, 210 << 20, 190 << 20, 60 << 20, 205 << 20]), second);
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].starts_with("/dev/sd3: slow: 62.9 MB/s, where the median"), "{reported:?}");
        let later = [400 << 20, 420 << 20, 380 << 20, 120 << 20, 410 << 20];
        assert!(peers.slow(&states(&later), second).is_empty());
    }

    #[test]
    fn fewer_than_three_or_equally_fast_devices_are_not_named() {
        let second = Duration::from_secs(1);
        assert!(Peers::new(3).slow(&states(&[1, 1000, 1000]), second).is_empty());
        assert!(Peers::new(4).slow(&states(&[600, 1000, 1000, 900]), second).is_empty());
    }
}
