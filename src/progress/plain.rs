//! Progress where there is no terminal: a line at each step, and one now and then between.

use std::time::{Duration, Instant};

use super::late;
use super::tell;
use crate::engine::event::Event;
use crate::units::{bytes, rate};

const NOW_AND_THEN: Duration = Duration::from_secs(10);

struct Job {
    device: String,
    step: String,
    bytes: u64,
    started: Instant,
    told: Instant,
}

pub struct Plain {
    jobs: Vec<Job>,
}

impl Plain {
    pub fn new(devices: &[String]) -> Plain {
        let now = Instant::now();
        let job = |device: &String| Job {
            device: device.clone(),
            step: String::new(),
            bytes: 0,
            started: now,
            told: now,
        };
        Plain { jobs: devices.iter().map(job).collect() }
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        let job = &mut self.jobs[job];
        match event {
            Event::Started { io_path, .. } => {
                for fallback in &io_path.fallbacks {
                    tell(format_args!("{}: {fallback}", job.device));
                }
            }
            Event::StepStarted { step, steps, act, bytes: total } => {
                let now = Instant::now();
                job.step = format!("step {} of {steps}, {act}", step + 1);
                (job.bytes, job.started, job.told) = (*total, now, now);
                tell(format_args!("{}: {}: {}", job.device, job.step, bytes(*total)));
            }
            Event::Progress { bytes: done, .. } if job.told.elapsed() >= NOW_AND_THEN => {
                job.told = Instant::now();
                tell(format_args!("{}: {}: {}", job.device, job.step, job.progress(*done)));
            }
            Event::Unusable { at, operation, error, .. } => {
                tell(format_args!("{}: bytes {at}: {operation}: {error}", job.device));
            }
            Event::Late { at, operation, seconds } => {
                tell(format_args!("{}: {}", job.device, late(*at, operation, *seconds)));
            }
            Event::Progress { .. } | Event::Checkpoint { .. } | Event::StepEnded { .. } => {}
        }
    }
}

impl Job {
    fn progress(&self, done: u64) -> String {
        let took = self.started.elapsed();
        let percent = done * 100 / self.bytes.max(1);
        let left = took.as_secs_f64() * (self.bytes - done) as f64 / done.max(1) as f64;
        let speed = rate(done, took.as_millis() as u64);
        format!("{percent} %, {} of {}, {speed}, {left:.0} s left", bytes(done), bytes(self.bytes))
    }
}
