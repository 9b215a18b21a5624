//! Many devices: one job, one thread and one ring for each; one that fails stops no other.

use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::event::{Emitter, Event};
use super::job::{self, JobReport};
use super::{Settings, Stop};
use crate::error::{Error, Result};
use crate::io::Disk;
use crate::pattern::Seed;
use crate::plan::Plan;

/// Opens a disk on the thread that will use it.
pub type Opener<'a> = Box<dyn FnOnce() -> Result<Box<dyn Disk>> + Send + 'a>;

/// The jobs that may still start.
struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Given back when the job has ended, however it ended.
struct Slot<'a>(&'a Slots);

impl Slots {
    fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// Runs the jobs, at most `parallel` of them at once, and hands their events, with the job's number, to `watch` on this thread.
pub fn run(
    jobs: Vec<(Opener<'_>, Plan)>,
    parallel: usize,
    settings: &Settings,
    stop: &Stop,
    mut watch: impl FnMut(usize, Event),
) -> Vec<Result<JobReport>> {
    let (to, events) = channel();
    let slots = Slots { free: Mutex::new(parallel.max(1)), freed: Condvar::new() };
    thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(job, (open, plan))| {
                let emitter = Emitter { job, to: to.clone() };
                let slots = &slots;
                scope.spawn(move || {
                    let _slot = slots.take();
                    let mut disk = open()?;
                    Ok(job::run(&mut *disk, plan, settings, stop, &emitter, &mut Seed::from_kernel))
                })
            })
            .collect();
        drop(to);
        for (job, event) in events {
            watch(job, event);
        }
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(crashed()))).collect()
    })
}

fn crashed() -> Error {
    Error::failed("efface made a mistake of its own and stopped this job")
        .way_out("please report the message above")
}
