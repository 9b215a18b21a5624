//! The status of a running job, from its events.

use std::time::Instant;

use super::estimate::plan_bytes;
use super::event::Event;
use crate::units::bytes;

pub struct JobStatus {
    pub device: String,
    /// From 1; 0 before the first.
    pub step: usize,
    pub steps: usize,
    pub step_name: String,
    pub bytes: u64,
    pub done: u64,
    /// Of all steps so far.
    pub done_before: u64,
    pub unusable: u64,
    /// The bytes of all steps together.
    pub total: u64,
    pub started: Instant,
}

impl JobStatus {
    pub fn new(device: &str) -> JobStatus {
        JobStatus {
            device: device.into(),
            step: 0,
            steps: 0,
            step_name: String::new(),
            bytes: 0,
            done: 0,
            done_before: 0,
            unusable: 0,
            total: 0,
            started: Instant::now(),
        }
    }

    pub fn watch(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step, steps, step_name, bytes } => {
                self.done_before += self.done;
                (self.step, self.steps, self.bytes, self.done) = (step + 1, *steps, *bytes, 0);
                self.step_name.clone_from(step_name);
                // Of a purge the steps are known when they begin.
                self.total = self.total.max(self.done_before + bytes);
            }
            Event::Progress { bytes, .. } => self.done = *bytes,
            Event::Unusable { at, .. } => self.unusable += at.len(),
            Event::Started { plan, .. } => self.total = plan_bytes(plan),
            Event::Waiting { .. }
            | Event::Late { .. }
            | Event::Checkpoint { .. }
            | Event::StepEnded { .. } => {}
        }
    }

    pub fn describe(&self) -> String {
        if self.step == 0 {
            return format!("{}: waiting", self.device);
        }
        let percent = u128::from(self.done) * 100 / u128::from(self.bytes.max(1));
        format!(
            "{}: step {} of {}, {}: {percent} %, {} of {}",
            self.device,
            self.step,
            self.steps,
            self.step_name,
            bytes(self.done),
            bytes(self.bytes)
        )
    }
}
