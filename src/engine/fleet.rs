//! Many devices: one job, one thread and one ring for each; one that fails stops no other.

use std::sync::mpsc::channel;
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

/// Runs all jobs at once, and hands their events, with the job's number, to `watch` on this thread.
pub fn run(
    jobs: Vec<(Opener<'_>, Plan)>,
    settings: &Settings,
    stop: &Stop,
    mut watch: impl FnMut(usize, Event),
) -> Vec<Result<JobReport>> {
    let (to, events) = channel();
    thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(job, (open, plan))| {
                let emitter = Emitter { job, to: to.clone() };
                scope.spawn(move || {
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
