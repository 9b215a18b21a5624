//! Progress lines without a terminal: one per step, and one per interval.

use std::time::{Duration, Instant};

use super::stderr_line;
use super::{WAITING, late};
use crate::engine::event::Event;
use crate::units::{bytes, rate};

const UPDATE_INTERVAL: Duration = Duration::from_secs(10);

struct PlainJob {
    device: String,
    step: String,
    bytes: u64,
    started: Instant,
    reported_at: Instant,
}

pub struct Plain {
    jobs: Vec<PlainJob>,
}

impl Plain {
    pub fn new(devices: &[String]) -> Plain {
        let now = Instant::now();
        let job = |device: &String| PlainJob {
            device: device.clone(),
            step: String::new(),
            bytes: 0,
            started: now,
            reported_at: now,
        };
        Plain { jobs: devices.iter().map(job).collect() }
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        let job = &mut self.jobs[job];
        match event {
            Event::Started { io_path, .. } => {
                for fallback in &io_path.fallbacks {
                    stderr_line(format_args!("{}: {fallback}", job.device));
                }
            }
            Event::StepStarted { step, steps, step_name, bytes: total } => {
                let now = Instant::now();
                job.step = format!("step {} of {steps}, {step_name}", step + 1);
                (job.bytes, job.started, job.reported_at) = (*total, now, now);
                stderr_line(format_args!("{}: {}: {}", job.device, job.step, bytes(*total)));
            }
            Event::Progress { bytes: done, .. } if job.reported_at.elapsed() >= UPDATE_INTERVAL => {
                job.reported_at = Instant::now();
                stderr_line(format_args!("{}: {}: {}", job.device, job.step, job.progress(*done)));
            }
            Event::Unusable { at, operation, error, .. } => {
                stderr_line(format_args!("{}: bytes {at}: {operation}: {error}", job.device));
            }
            Event::Waiting { .. } => {
                stderr_line(format_args!("{}: {WAITING}", job.device));
            }
            Event::Late { at, operation, seconds } => {
                stderr_line(format_args!("{}: {}", job.device, late(*at, operation, *seconds)));
            }
            Event::Progress { .. } | Event::Checkpoint { .. } | Event::StepEnded { .. } => {}
        }
    }
}

impl PlainJob {
    fn progress(&self, done: u64) -> String {
        let took = self.started.elapsed();
        let percent = done * 100 / self.bytes.max(1);
        let left = took.as_secs_f64() * (self.bytes - done) as f64 / done.max(1) as f64;
        let speed = rate(done, took.as_millis() as u64);
        format!("{percent} %, {} of {}, {speed}, {left:.0} s left", bytes(done), bytes(self.bytes))
    }
}
