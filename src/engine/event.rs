//! Events of a running job. Data flows one way: an observer cannot slow or change the job.

use std::sync::mpsc::Sender;

use serde::Serialize;

use super::step::StepReport;
use super::watchdog::CallMonitor;
use crate::io::{Geometry, IoPath};
use crate::plan::Plan;
use crate::range::Extent;

/// What happens in a job. Steps are numbered from 0; `bytes` counts those of one step. Match with `..`, since
/// later versions add fields.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The disk is open; comes first.
    Started {
        /// That of the disk, and constant from here on.
        geometry: Geometry,
        /// How bytes get to it.
        io_path: IoPath,
        /// All of it, with its seeds but for those of the samples.
        plan: Plan,
    },
    /// A step waits, since another job that backs off works on the same disk.
    Waiting {
        /// From 0.
        step: usize,
    },
    /// A step begins; or what an earlier process wrote of it is read again first, and it begins after that.
    StepStarted {
        /// From 0.
        step: usize,
        /// How many the plan has; the map after a mismatch is one more.
        steps: usize,
        /// What it does, for people: `overwrite 0x00`.
        step_name: String,
        /// How many it visits, as far as it is known.
        bytes: u64,
    },
    /// Comes several times a second at most.
    Progress {
        /// From 0.
        step: usize,
        /// Visited so far.
        bytes: u64,
    },
    /// The step's area is done, and durable where the step writes, up to here (but for residue).
    Checkpoint {
        /// From 0.
        step: usize,
        /// Absolute on the device, exclusive.
        upto: u64,
    },
    /// A block that could not be written, or not be read.
    Unusable {
        /// From 0.
        step: usize,
        /// One logical block, or as few as the device fails together.
        at: Extent,
        /// As [`Op::name`](crate::Op::name) has it.
        operation: &'static str,
        /// The answer of the kernel.
        error: String,
    },
    /// An I/O, or another call, that has not been answered within its time. The job waits on.
    Late {
        /// What it is about; all of the area for a call like `flush`.
        at: Extent,
        /// As [`Op::name`](crate::Op::name) has it, or `open`, `flush`, `close`.
        operation: &'static str,
        /// Since it was begun.
        seconds: u64,
    },
    /// A step has ended, done or not.
    StepEnded {
        /// From 0.
        step: usize,
        /// As it will be in the record.
        report: StepReport,
    },
}

/// Where one job's events go, by the job's number.
#[derive(Clone)]
pub struct Emitter {
    pub(super) job: usize,
    to: Sender<(usize, Event)>,
    /// The call that the job's thread is in.
    pub(super) calls: CallMonitor,
}

impl Emitter {
    /// Events of the job with this number go to `to`.
    pub fn new(job: usize, to: Sender<(usize, Event)>) -> Emitter {
        Emitter { job, to, calls: CallMonitor::default() }
    }

    /// A closed channel does not stop a wipe.
    pub fn emit(&self, event: Event) {
        self.to.send((self.job, event)).ok();
    }
}
