//! Execution of plans on disks, without knowledge of device nodes or terminals.

mod comparison;
pub mod cover;
pub mod estimate;
pub mod event;
mod fingerprints;
pub mod fleet;
pub mod job;
pub mod purge;
mod recheck;
pub mod sampling;
pub mod status;
pub mod step;
pub mod survivors;
pub mod throttle;
pub mod watchdog;

pub use recheck::SIZE_MAX;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::Geometry;
use crate::plan::{OnMismatch, Step};
use crate::verdict::Verdict;

/// How a job does its I/O. `Settings { depth: 32, ..Settings::default() }` leaves the rest as the program has it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of one write, or of one read of a full check: a multiple of the device's logical block.
    pub chunk_bytes: u64,
    /// I/Os in flight on one device, at least 1; 64 in a step that reads drawn blocks.
    pub depth: usize,
    /// Each step first tries which I/Os suit the device: of `chunk_bytes` at most, and more than `depth` only
    /// where they share one buffer. Without effect with `rate` or `yields`.
    pub trial: bool,
    /// I/Os in flight of a step that visits drawn blocks.
    pub probe_depth: usize,
    /// Threads that make random data, where one is slower than the device: 1 or 2.
    pub fill_threads: usize,
    /// Bytes between two flushes.
    pub epoch_bytes: u64,
    /// Failed I/Os after which a device is given up.
    pub errors_max: u64,
    /// An I/O that takes longer is reported at once; the job keeps waiting.
    pub io_timeout: Duration,
    /// A device that has not answered for so long, or has only failed, is given up.
    pub give_up_after: Duration,
    /// A device slower than this (bytes per second, in a sequential step) is given up.
    pub rate_min: Option<u64>,
    /// The time over which that is measured.
    pub rate_window: Duration,
    /// Bytes a second at most.
    pub rate: Option<u64>,
    /// Back off beside other users of the disk.
    pub yields: Option<Yield>,
    /// Concerns a check that is a sample; one that reads everything is a map already.
    pub on_mismatch: OnMismatch,
}

/// What other users of the disk may lose by a job that backs off beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Yield {
    /// Of their I/O rate, in percent from 1 to 50. Their mean service time may grow by half as much again.
    pub loss_percent: u8,
    /// Bytes a second that the job does in any case, together with other jobs that back off on the same disk;
    /// `None` for the lesser of 16 MiB and 5 % of the rate seen alone.
    pub rate_min: Option<u64>,
}

impl Default for Yield {
    fn default() -> Yield {
        Yield { loss_percent: 10, rate_min: None }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            chunk_bytes: 1 << 20,
            depth: 8,
            trial: true,
            probe_depth: 64,
            fill_threads: 2,
            epoch_bytes: 4 << 30,
            errors_max: 10_000,
            io_timeout: Duration::from_secs(60),
            give_up_after: Duration::from_secs(30 * 60),
            rate_min: None,
            rate_window: Duration::from_secs(60),
            rate: None,
            yields: None,
            on_mismatch: OnMismatch::default(),
        }
    }
}

/// One I/O of a drawn probe is small, but larger where a probe is; many of them in flight hide a disk's latency.
const PROBE_BYTES_MIN: u64 = 16 << 10;
const PROBE_BYTES_MAX: u64 = 64 << 10;
/// The buffers of all jobs of a command.
const BUFFERS_BYTES: u64 = 128 << 20;
/// One write-zeroes or discard: large enough to be worth a command, and soon over.
const COMMAND_BYTES: u64 = 64 << 20;

impl Settings {
    /// Whether they suit a device.
    ///
    /// # Errors
    /// A usage error where an I/O is not made of the device's logical blocks.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        if self.chunk_bytes.is_multiple_of(geometry.logical_block) {
            return Ok(());
        }
        Err(Error::usage(format!("I/Os of {} bytes are not made of logical blocks", self.chunk_bytes))
            .with_remedy(format!("--block-size must be a multiple of {} bytes", geometry.logical_block)))
    }

    /// The most bytes in flight of a step that visits all of its scope.
    fn bytes_in_flight_max(&self) -> u64 {
        self.chunk_bytes.saturating_mul(self.depth as u64)
    }

    /// For each of `jobs` that run at once: so few I/Os in flight that the buffers of all jobs together are
    /// bounded, but for a chosen number; and no more threads than there are processors.
    pub fn shared_by(self, jobs: usize) -> Settings {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let fill_threads = self.fill_threads.min((processors / jobs.max(1)).max(1));
        let each = BUFFERS_BYTES / jobs.max(1) as u64;
        let most = |depth: usize, bytes: u64| depth.min((each / bytes).max(1) as usize);
        let depth = if self.trial { most(self.depth, self.chunk_bytes) } else { self.depth };
        Settings { depth, probe_depth: most(self.probe_depth, PROBE_BYTES_MAX), fill_threads, ..self }
    }

    /// The queue depth that a disk needs for all of a job's steps.
    pub fn depth_max(&self) -> usize {
        self.depth.max(self.probe_depth)
    }

    /// The bytes of one I/O of a step, and how many are in flight.
    fn transfers(&self, step: &Step) -> (u64, usize) {
        if !step.transfers() {
            return (COMMAND_BYTES, 1);
        }
        match step.sample() {
            None => (self.chunk_bytes, self.depth),
            Some(sample) => {
                let probe = sample.block_bytes.clamp(PROBE_BYTES_MIN, PROBE_BYTES_MAX);
                (probe.min(self.chunk_bytes), self.probe_depth)
            }
        }
    }
}

/// Asks running jobs to end: they stop submitting, drain and flush. Holds the number of the signal
/// that asked, 0 while none did.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// `signal` holds 0, and the number of the signal once one has asked: SIGTERM (15), or any other.
    pub fn new(signal: Arc<AtomicUsize>) -> Stop {
        Stop(signal)
    }

    /// The verdict of a job that was asked to stop; `None` if it was not.
    pub fn verdict(&self) -> Option<Verdict> {
        const SIGTERM: usize = 15;
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            SIGTERM => Some(Verdict::Terminated),
            _ => Some(Verdict::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffers_of_many_jobs_are_bounded_and_chosen_ones_stay() {
        let depth = |jobs| Settings::default().shared_by(jobs).depth;
        assert_eq!([0, 1, 16, 32, 64, 1000].map(depth), [8, 8, 8, 4, 2, 1]);
        let probes = |jobs| Settings::default().shared_by(jobs).probe_depth;
        assert_eq!([1, 32, 64, 256].map(probes), [64, 64, 32, 8]);
        let chosen = Settings { trial: false, ..Settings::default() };
        assert_eq!(chosen.shared_by(64).depth, 8);
    }
}
