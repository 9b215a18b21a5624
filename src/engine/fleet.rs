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

impl Parallel {
    /// Whether no other job may start now beside those on these buses.
    fn is_full(self, taken: &[Option<String>], bus: &Option<String>) -> bool {
        let beside = taken.iter().filter(|other| bus.is_some() && *other == bus).count();
        taken.len() >= self.all || beside >= self.per_bus
    }
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
        let full = |taken: &mut Vec<Option<String>>| self.parallel.is_full(taken, &bus);
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::io::{Buf, Done, Geometry, IoPath, Op};
    use crate::plan::{Device, Method, Policy};
    use crate::verdict::Verdict;

    #[test]
    fn so_many_at_once_and_so_many_on_one_bus() {
        let bus = |name: &str| Some(name.to_string());
        let taken = [bus("usb2"), None];
        let full = |all, per_bus, at: &Option<String>| Parallel { all, per_bus }.is_full(&taken, at);
        assert!(full(9, 1, &bus("usb2")) && !full(9, 2, &bus("usb2")) && !full(9, 1, &bus("usb3")));
        assert!(!full(9, 1, &None), "what hangs on nothing shares nothing");
        assert!(full(2, 9, &bus("usb3")));
    }

    /// A disk whose flush comes back only when somebody lets it.
    struct Stuck {
        disk: SimDisk,
        free: Arc<AtomicBool>,
    }

    impl Disk for Stuck {
        fn geometry(&self) -> Geometry {
            self.disk.geometry()
        }
        fn io_path(&self) -> &IoPath {
            self.disk.io_path()
        }
        fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
            self.disk.buffers(count, len)
        }
        fn submit(&mut self, op: Op) -> std::result::Result<(), Op> {
            self.disk.submit(op)
        }
        fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
            self.disk.reap(out, until)
        }
        fn flush(&mut self) -> io::Result<()> {
            while !self.free.load(Ordering::Relaxed) {
                thread::sleep(TICK);
            }
            self.disk.flush()
        }
        fn unchanged(&self) -> io::Result<()> {
            self.disk.unchanged()
        }
    }

    fn work(free: Arc<AtomicBool>) -> Work {
        let device = Device { size: 1 << 20, logical_block: 512, physical_block: 4096 };
        let area = device.area(None, None).unwrap();
        let method = Method::named("zero").unwrap();
        let plan = Plan::new(&method, Policy::None, area, &device, &mut Seed::from_kernel).unwrap();
        let open = Box::new(move || {
            let disk = SimDisk::new(vec![1; 1 << 20], 512, 4096, 1, Faults::default());
            Ok(Box::new(Stuck { disk, free }) as Box<dyn Disk>)
        });
        Work { open, plan, resume: None, keep: Box::new(|_| {}), bus: None }
    }

    #[test]
    fn a_flush_that_does_not_come_back_is_left_behind_and_the_other_disk_goes_on() {
        let free = Arc::new(AtomicBool::new(false));
        let jobs = vec![work(free.clone()), work(Arc::new(AtomicBool::new(true)))];
        let settings = Settings { io_timeout: TICK, give_up_after: 4 * TICK, ..Settings::default() };
        let mut late = Vec::new();
        let results = run(jobs, Parallel::default(), &settings, &Stop::default(), |event| {
            if let Some((job, Event::Late { operation, .. })) = event {
                late.push((job, *operation));
            }
        });
        assert_eq!(late, [(0, "flush")]);
        let error = results[0].as_ref().expect_err("it is still there").to_string();
        assert!(error.contains("flush has not come back from the kernel"), "{error}");
        assert_eq!(results[1].as_ref().unwrap().verdict, Verdict::Wiped);
        free.store(true, Ordering::Relaxed);
    }
}
