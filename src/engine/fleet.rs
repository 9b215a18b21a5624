//! Many devices: one job, one thread and one ring for each; one that fails or hangs stops no other.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::event::{Calls, Emitter, Event};
use super::job::{self, JobReport, Progress, Resume, Surroundings};
use super::{Settings, Stop};
use crate::error::{Error, Result};
use crate::io::Disk;
use crate::pattern::Seed;
use crate::plan::Plan;

/// Opens a disk on the thread that will use it.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Disk>> + Send>;
/// Keeps how far a job is.
pub type Keep = Box<dyn FnMut(&Progress) + Send>;

/// One job to do.
pub struct Work {
    pub open: Opener,
    pub plan: Plan,
    pub resume: Option<Resume>,
    pub keep: Keep,
    /// What the device hangs on, together with others.
    pub bus: Option<String>,
}

/// Jobs at once.
#[derive(Clone, Copy, Debug)]
pub struct Parallel {
    pub all: usize,
    /// On one bus.
    pub per_bus: usize,
}

impl Default for Parallel {
    fn default() -> Parallel {
        Parallel { all: usize::MAX, per_bus: usize::MAX }
    }
}

/// The jobs that run, by their bus.
struct Places {
    parallel: Parallel,
    taken: Mutex<Vec<Option<String>>>,
    freed: Condvar,
}

/// Given back when the job has ended, however it ended.
struct Place<'a>(&'a Places, Option<String>);

impl Places {
    fn take(&self, bus: Option<String>) -> Place<'_> {
        let Parallel { all, per_bus } = self.parallel;
        let full = |taken: &mut Vec<Option<String>>| {
            let beside = taken.iter().filter(|other| bus.is_some() && **other == bus).count();
            taken.len() >= all || beside >= per_bus
        };
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.freed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        taken.push(bus.clone());
        Place(self, bus)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.iter().position(|bus| *bus == self.1).expect("it was taken");
        taken.swap_remove(mine);
        self.0.freed.notify_all();
    }
}

/// How often it is looked whether a job's thread still comes back from the kernel.
const TICK: Duration = Duration::from_millis(100);
/// How long a thread may take to come back once it was asked to end.
const LEAVE_MAX: Duration = Duration::from_secs(15);

/// Runs the jobs, so many at once, and hands their events, with the job's number, to `watch` on this
/// thread, and now and then none. A thread that the kernel does not give back is left behind.
pub fn run(
    jobs: Vec<Work>,
    parallel: Parallel,
    settings: &Settings,
    stop: &Stop,
    mut watch: impl FnMut(Option<(usize, &Event)>),
) -> Vec<Result<JobReport>> {
    let (to, events) = channel();
    let places = Arc::new(Places { parallel, taken: Mutex::new(Vec::new()), freed: Condvar::new() });
    let mut watched: Vec<Watched> = jobs
        .into_iter()
        .enumerate()
        .map(|(job, work)| {
            let emitter = Emitter::new(job, to.clone());
            Watched::start(work, emitter, places.clone(), *settings, stop.clone())
        })
        .collect();
    drop(to);
    while !watched.iter().all(Watched::is_over) {
        match events.recv_timeout(TICK) {
            Ok((job, event)) => watch(Some((job, &event))),
            // Nobody speaks any more: those who are left are about to end.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK / 10),
            Err(RecvTimeoutError::Timeout) => watch(None),
        }
        for (job, each) in watched.iter_mut().enumerate() {
            each.look(settings, stop).into_iter().for_each(|event| watch(Some((job, &event))));
        }
    }
    events.try_iter().for_each(|(job, event)| watch(Some((job, &event))));
    watched.into_iter().map(Watched::end).collect()
}

/// A job's thread, seen from outside.
struct Watched {
    calls: Calls,
    thread: JoinHandle<()>,
    result: Arc<Mutex<Option<Result<JobReport>>>>,
    /// The call that was already told of.
    told: Option<Instant>,
    abandoned: Option<Error>,
}

impl Watched {
    fn start(work: Work, emitter: Emitter, places: Arc<Places>, settings: Settings, stop: Stop) -> Watched {
        let result = Arc::new(Mutex::new(None));
        let (slot, calls) = (result.clone(), emitter.calls.clone());
        let thread = thread::spawn(move || {
            let Work { open, plan, resume, mut keep, bus } = work;
            let _place = places.take(bus);
            let opened = emitter.calls.within("open", plan.area, open);
            let give = |report| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
            match opened {
                Err(error) => give(Err(error)),
                Ok(mut disk) => {
                    let (draw, keep) = (&mut Seed::from_kernel, &mut *keep);
                    let surroundings =
                        Surroundings { settings: &settings, stop: &stop, emitter: &emitter, draw, keep };
                    let area = plan.area;
                    give(Ok(job::run(&mut *disk, plan, resume, surroundings)));
                    emitter.calls.within("close", area, || drop(disk));
                }
            }
        });
        Watched { calls, thread, result, told: None, abandoned: None }
    }

    fn is_over(&self) -> bool {
        self.abandoned.is_some() || self.thread.is_finished()
    }

    /// Whether its thread has been in the kernel for too long.
    fn look(&mut self, settings: &Settings, stop: &Stop) -> Option<Event> {
        if self.is_over() {
            return None;
        }
        let call = self.calls.now()?;
        let since = call.since.elapsed();
        let asked = stop.verdict().is_some() && since >= LEAVE_MAX.min(settings.io_timeout);
        if asked || since >= settings.give_up_after {
            let what =
                format!("{} has not come back from the kernel for {} s", call.operation, since.as_secs());
            self.abandoned = Some(Error::failed(what).at(call.at).way_out(
                "the kernel does not let go of this process until the device answers: see its cable, its \
                 controller and dmesg",
            ));
            return None;
        }
        let late = since >= settings.io_timeout && self.told != Some(call.since);
        late.then(|| {
            self.told = Some(call.since);
            Event::Late { at: call.at, operation: call.operation, seconds: since.as_secs() }
        })
    }

    fn end(self) -> Result<JobReport> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (result, self.abandoned) {
            (Some(result), _) => result,
            (None, Some(error)) => Err(error),
            (None, None) => Err(crashed()),
        }
    }
}

fn crashed() -> Error {
    Error::failed("efface made a mistake of its own and stopped this job")
        .way_out("please report the message above")
}
