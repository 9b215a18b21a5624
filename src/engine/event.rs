//! Events of a running job. Data flows one way: an observer cannot slow or change the job.

use std::sync::mpsc::Sender;

use serde::Serialize;

use super::step::StepReport;
use super::watchdog::CallMonitor;
use crate::io::{Geometry, IoPath};
use crate::plan::Plan;
use crate::range::Extent;

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Started {
        geometry: Geometry,
        io_path: IoPath,
        plan: Plan,
    },
    StepStarted {
        step: usize,
        steps: usize,
        step_name: String,
        bytes: u64,
    },
    Progress {
        step: usize,
        bytes: u64,
    },
    /// The step's area is done, and durable where the step writes, up to here (but for residue).
    Checkpoint {
        step: usize,
        upto: u64,
    },
    /// A block that could not be written, or not be read.
    Unusable {
        step: usize,
        at: Extent,
        operation: &'static str,
        error: String,
    },
    /// An I/O, or another call, that has not been answered within its time. The job waits on.
    Late {
        at: Extent,
        operation: &'static str,
        seconds: u64,
    },
    StepEnded {
        step: usize,
        report: StepReport,
    },
}

/// Where one job's events go, by the job's number.
#[derive(Clone)]
pub struct Emitter {
    pub job: usize,
    pub to: Sender<(usize, Event)>,
    pub calls: CallMonitor,
}

impl Emitter {
    pub fn new(job: usize, to: Sender<(usize, Event)>) -> Emitter {
        Emitter { job, to, calls: CallMonitor::default() }
    }

    /// A closed channel does not stop a wipe.
    pub fn emit(&self, event: Event) {
        self.to.send((self.job, event)).ok();
    }
}
