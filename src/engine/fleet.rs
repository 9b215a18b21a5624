//! The jobs of many devices, each with a thread and a ring: a failing or hanging one does not stop the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::event::{Emitter, Event};
use super::job::{self, Checkpoint, JobContext, JobReport, Resume};
use super::watchdog::{CallWatch, Stall};
use super::{Settings, Stop};
use crate::error::{Error, Result};
use crate::io::{Clock, Disk, SystemClock};
use crate::pattern::Seed;
use crate::plan::Plan;
use crate::range::Extent;

/// Opens a disk on the thread that will use it.
pub type OpenDisk = Box<dyn FnOnce() -> Result<Box<dyn Disk>> + Send>;
/// Keeps how far a job is.
pub type SaveCheckpoint = Box<dyn FnMut(&Checkpoint) + Send>;

/// One job to do, which comes to a report.
pub struct FleetJob<R> {
    /// Opens its device on the thread that will use it.
    pub open: OpenJob<R>,
    /// Of the device: what a call that does not come back is about.
    pub area: Extent,
    /// What the device hangs on, together with others.
    pub bus: Option<String>,
}

/// Opens the device of a job.
pub type OpenJob<R> = Box<dyn FnOnce() -> Result<Box<dyn OpenedJob<R>>> + Send>;

/// A job whose device is open, and is closed when it is dropped.
pub trait OpenedJob<R> {
    /// All of its work; called once.
    fn run(&mut self, context: WorkerContext) -> R;
}

/// What a job needs besides its device.
#[derive(Clone, Copy)]
pub struct WorkerContext<'a> {
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub emitter: &'a Emitter,
}

/// A wipe.
pub struct WipeJob {
    pub open: OpenDisk,
    pub plan: Plan,
    pub resume: Option<Resume>,
    pub keep: SaveCheckpoint,
}

impl WipeJob {
    pub fn on_bus<R: From<JobReport> + 'static>(self, bus: Option<String>) -> FleetJob<R> {
        let WipeJob { open, plan, resume, keep } = self;
        let area = plan.area;
        let open =
            move || Ok(Box::new(OpenedWipe { disk: open()?, plan, resume, keep }) as Box<dyn OpenedJob<R>>);
        FleetJob { open: Box::new(open), area, bus }
    }
}

struct OpenedWipe {
    disk: Box<dyn Disk>,
    plan: Plan,
    resume: Option<Resume>,
    keep: SaveCheckpoint,
}

impl<R: From<JobReport>> OpenedJob<R> for OpenedWipe {
    fn run(&mut self, context: WorkerContext) -> R {
        let WorkerContext { settings, stop, emitter } = context;
        let (draw, keep) = (&mut Seed::from_kernel, &mut *self.keep);
        let context = JobContext { settings, stop, emitter, draw, keep };
        job::run(&mut *self.disk, self.plan.clone(), self.resume.take(), context).into()
    }
}

/// How many jobs of a session run at once; the others wait. Without limits by default.
#[derive(Clone, Copy, Debug)]
pub struct Parallel {
    /// On all buses together, at least 1.
    pub all: usize,
    /// On one bus ([`Claim::bus`](crate::Claim::bus)), at least 1.
    pub per_bus: usize,
}

impl Parallel {
    /// Whether no other job may start now beside these, each with its bus.
    fn is_full(self, taken: &[(usize, Option<String>)], bus: &Option<String>) -> bool {
        let beside = taken.iter().filter(|(_, other)| bus.is_some() && other == bus).count();
        taken.len() >= self.all || beside >= self.per_bus
    }
}

impl Default for Parallel {
    fn default() -> Parallel {
        Parallel { all: usize::MAX, per_bus: usize::MAX }
    }
}

/// The jobs that run, by their number, with their bus.
struct ParallelLimit {
    parallel: Parallel,
    taken: Mutex<Vec<(usize, Option<String>)>>,
    freed: Condvar,
}

/// Given back when the job has ended, however it ended.
struct ParallelPermit<'a>(&'a ParallelLimit, usize);

impl ParallelLimit {
    fn take(&self, job: usize, bus: Option<String>) -> ParallelPermit<'_> {
        let full = |taken: &mut Vec<_>| self.parallel.is_full(taken, &bus);
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.freed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        taken.push((job, bus));
        ParallelPermit(self, job)
    }

    fn free(&self, job: usize) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != job);
        self.freed.notify_all();
    }
}

impl Drop for ParallelPermit<'_> {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

/// How often it is looked whether a job's thread still comes back from the kernel. Only how soon that is
/// seen depends on it: how long it took is read on the clock.
const TICK: Duration = Duration::from_millis(100);

/// Runs the jobs, with limited concurrency, and hands their events, with the job's number, to `watch` on this
/// thread, and now and then none. A thread that the kernel does not give back is left behind.
pub fn run<R: Send + 'static>(
    jobs: Vec<FleetJob<R>>,
    parallel: Parallel,
    settings: &Settings,
    stop: &Stop,
    watch: impl FnMut(Option<(usize, &Event)>),
) -> Vec<Result<R>> {
    run_on(&SystemClock, jobs, parallel, settings, stop, watch)
}

fn run_on<R: Send + 'static>(
    clock: &dyn Clock,
    jobs: Vec<FleetJob<R>>,
    parallel: Parallel,
    settings: &Settings,
    stop: &Stop,
    mut watch: impl FnMut(Option<(usize, &Event)>),
) -> Vec<Result<R>> {
    let (to, events) = channel();
    let limit = Arc::new(ParallelLimit { parallel, taken: Mutex::new(Vec::new()), freed: Condvar::new() });
    let mut watched: Vec<Watched<R>> = jobs
        .into_iter()
        .enumerate()
        .map(|(job, work)| {
            let emitter = Emitter::new(job, to.clone());
            Watched::start(work, emitter, limit.clone(), *settings, stop.clone())
        })
        .collect();
    drop(to);
    let mut stopping_since = None;
    while !watched.iter().all(Watched::is_over) {
        match events.recv_timeout(TICK) {
            Ok((job, event)) => watch(Some((job, &event))),
            // All senders are gone: the remaining threads are about to end.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK / 100),
            Err(RecvTimeoutError::Timeout) => watch(None),
        }
        let now = clock.now();
        if stop.verdict().is_some() {
            stopping_since.get_or_insert(now);
        }
        let stopping = stopping_since.map(|since| now - since);
        for (job, each) in watched.iter_mut().enumerate() {
            each.check(now, stopping).into_iter().for_each(|event| watch(Some((job, &event))));
        }
    }
    events.try_iter().for_each(|(job, event)| watch(Some((job, &event))));
    watched.into_iter().map(Watched::end).collect()
}

/// A job's thread, seen from outside.
struct Watched<R> {
    job: usize,
    limit: Arc<ParallelLimit>,
    calls: CallWatch,
    thread: JoinHandle<()>,
    result: Arc<Mutex<Option<Result<R>>>>,
    abandoned: Option<Error>,
}

impl<R: Send + 'static> Watched<R> {
    fn start(
        work: FleetJob<R>,
        emitter: Emitter,
        limit: Arc<ParallelLimit>,
        settings: Settings,
        stop: Stop,
    ) -> Watched<R> {
        let result = Arc::new(Mutex::new(None));
        let (slot, queue, job) = (result.clone(), limit.clone(), emitter.job);
        let calls = CallWatch::new(&settings, emitter.calls.clone());
        let thread = thread::spawn(move || {
            let FleetJob { open, area, bus } = work;
            let _permit = queue.take(job, bus);
            let opened = emitter.calls.within("open", area, open);
            let give = |report| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
            match opened {
                Err(error) => give(Err(error)),
                Ok(mut opened) => {
                    let context = WorkerContext { settings: &settings, stop: &stop, emitter: &emitter };
                    // The device is closed under the watchdog after a panic too.
                    let run = AssertUnwindSafe(|| opened.run(context));
                    give(catch_unwind(run).map_err(|_| crashed()));
                    emitter.calls.within("close", area, || drop(opened));
                }
            }
        });
        Watched { job, limit, calls, thread, result, abandoned: None }
    }

    fn is_over(&self) -> bool {
        self.abandoned.is_some() || self.thread.is_finished()
    }

    /// Whether its thread has been in the kernel for too long; `stopping` is how long ago a signal asked
    /// for an end.
    fn check(&mut self, now: Instant, stopping: Option<Duration>) -> Option<Event> {
        if self.is_over() {
            return None;
        }
        let has_result = self.result.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let (call, age, stall) = self.calls.check(now, stopping, has_result)?;
        let (operation, at, seconds) = (call.operation, call.at, age.as_secs());
        match stall {
            Stall::Late => Some(Event::Late { at, operation, seconds }),
            Stall::GivenUp => {
                let what = format!("{operation} has not come back from the kernel for {seconds} s");
                self.abandoned = Some(Error::failed(what).at(at).with_remedy(
                    "the kernel does not let go of this process until the device answers: see its cable, its \
                     controller and dmesg",
                ));
                // The next device need not wait for this one.
                self.limit.free(self.job);
                None
            }
        }
    }

    fn end(self) -> Result<R> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (result, self.abandoned) {
            (Some(result), _) => result,
            (None, Some(error)) => Err(error),
            (None, None) => Err(crashed()),
        }
    }
}

fn crashed() -> Error {
    Error::failed("internal error: the thread of this job panicked")
        .with_remedy("please report the message above")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::io::clock::SimClock;
    use crate::io::sim::{Faults, SimDisk};
    use crate::io::{Buf, Done, Geometry, IoPath, Op};
    use crate::plan::{Device, Method, Policy};
    use crate::verdict::Verdict;

    #[test]
    fn parallel_limits_hold_in_total_and_per_bus() {
        let bus = |name: &str| Some(name.to_string());
        let taken = [(0, bus("usb2")), (1, None)];
        let full = |all, per_bus, at: &Option<String>| Parallel { all, per_bus }.is_full(&taken, at);
        assert!(full(9, 1, &bus("usb2")) && !full(9, 2, &bus("usb2")) && !full(9, 1, &bus("usb3")));
        assert!(!full(9, 1, &None), "what hangs on nothing shares nothing");
        assert!(full(2, 9, &bus("usb3")));
    }

    /// Keeps calls from coming back until it is opened, and counts the jobs at work meanwhile.
    #[derive(Default)]
    struct Gate {
        at_work: AtomicUsize,
        submitted: Mutex<Option<Instant>>,
        /// Since when nothing may have changed, at each look.
        looks: Mutex<Vec<Instant>>,
        open: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        fn hold(&self) {
            self.at_work.fetch_sub(1, Ordering::Relaxed);
            let open = self.open.lock().unwrap();
            drop(self.opened.wait_while(open, |open| !*open).unwrap());
            self.at_work.fetch_add(1, Ordering::Relaxed);
        }

        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    /// A disk one of whose calls comes back only when the gate is open.
    struct Stuck {
        disk: SimDisk,
        call: &'static str,
        gate: Arc<Gate>,
    }

    impl Stuck {
        fn wait(&self, call: &str) {
            if self.call == call {
                self.gate.hold();
            }
        }
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            self.wait("close");
            self.gate.at_work.fetch_sub(1, Ordering::Relaxed);
        }
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
            *self.gate.submitted.lock().unwrap() = Some(Instant::now());
            self.disk.submit(op)
        }
        fn clock(&self) -> &dyn Clock {
            self.disk.clock()
        }
        fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
            self.disk.reap(out, until)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.wait("flush");
            self.disk.flush()
        }
        fn unchanged(&self, since: Instant) -> io::Result<()> {
            self.gate.looks.lock().unwrap().push(since);
            self.disk.unchanged(since)
        }
    }

    fn work(call: &'static str, gate: &Arc<Gate>) -> WipeJob {
        let device = Device { size: 1 << 20, logical_block: 512, physical_block: 4096 };
        let area = device.area(None, None).unwrap();
        let method = Method::named("zero").unwrap();
        let plan = Plan::new(&method, Policy::None, area, &device, &mut Seed::from_kernel).unwrap();
        let gate = gate.clone();
        let open = Box::new(move || {
            gate.at_work.fetch_add(1, Ordering::Relaxed);
            let disk = SimDisk::new(vec![1; 1 << 20], 512, 4096, 1, Faults::default());
            Ok(Box::new(Stuck { disk, call, gate }) as Box<dyn Disk>)
        });
        WipeJob { open, plan, resume: None, keep: Box::new(|_| {}) }
    }

    /// Runs the jobs on a clock that moves by `step` whenever no job is at work; says how far it moved.
    fn run_stuck(
        jobs: Vec<WipeJob>,
        parallel: Parallel,
        gate: &Gate,
        stop: &Stop,
        step: Duration,
        mut watch: impl FnMut(usize, &Event),
    ) -> (Vec<Result<JobReport>>, Duration) {
        let clock = SimClock::default();
        let start = clock.now();
        let jobs = jobs.into_iter().map(|job| job.on_bus(None)).collect();
        let results = run_on(&clock, jobs, parallel, &Settings::default(), stop, |event| match event {
            Some((job, event)) => watch(job, event),
            None if gate.at_work.load(Ordering::Relaxed) == 0 => clock.advance(step),
            None => {}
        });
        gate.open();
        (results, clock.now() - start)
    }

    const TEN_MINUTES: Duration = Duration::from_secs(600);
    const FIVE_SECONDS: Duration = Duration::from_secs(5);

    #[test]
    fn a_flush_that_does_not_come_back_is_left_behind_and_the_other_disk_goes_on() {
        let gate = Arc::default();
        let jobs = vec![work("flush", &gate), work("none", &gate)];
        let mut late = Vec::new();
        let watch = |job, event: &Event| {
            if let Event::Late { operation, seconds, .. } = event {
                late.push((job, *operation, *seconds));
            }
        };
        let (results, _) = run_stuck(jobs, Parallel::default(), &gate, &Stop::default(), TEN_MINUTES, watch);
        assert_eq!(late, [(0, "flush", 600)]);
        let error = results[0].as_ref().expect_err("it is still there").to_string();
        assert!(error.contains("flush has not come back from the kernel for 1800 s"), "{error}");
        assert_eq!(results[1].as_ref().unwrap().verdict, Verdict::Wiped);
    }

    #[test]
    fn the_look_after_the_last_step_is_no_older_than_its_last_io() {
        let gate = Arc::default();
        let jobs = vec![work("none", &gate)];
        run_stuck(jobs, Parallel::default(), &gate, &Stop::default(), TEN_MINUTES, |_, _| {});
        let (looks, submitted) = (gate.looks.lock().unwrap(), gate.submitted.lock().unwrap());
        assert_eq!(looks.len(), 2, "before the step and after it");
        assert!(looks.last() >= submitted.as_ref());
    }

    #[test]
    fn a_device_that_waits_for_its_turn_gets_it_when_the_one_before_is_left_behind() {
        let gate = Arc::default();
        let jobs = vec![work("flush", &gate), work("flush", &gate)];
        let one_by_one = Parallel { all: 1, ..Parallel::default() };
        let (results, _) = run_stuck(jobs, one_by_one, &gate, &Stop::default(), TEN_MINUTES, |_, _| {});
        for result in results {
            let error = result.expect_err("it is still there").to_string();
            assert!(error.contains("flush has not come back from the kernel for 1800 s"), "{error}");
        }
    }

    #[test]
    fn a_panicking_job_fails_even_when_its_disk_does_not_close() {
        let gate = Arc::default();
        let mut broken = work("close", &gate);
        broken.keep = Box::new(|_| panic!("a mistake of our own"));
        let (results, took) =
            run_stuck(vec![broken], Parallel::default(), &gate, &Stop::default(), FIVE_SECONDS, |_, _| {});
        let error = results[0].as_ref().expect_err("it has no result").to_string();
        assert!(error.contains("internal error"), "{error}");
        assert!((15..=20).contains(&took.as_secs()), "{took:?}");
    }

    #[test]
    fn a_signal_ends_a_job_whose_flush_hangs_within_15_s() {
        let gate = Arc::default();
        let stop = Stop::new(Arc::new(AtomicUsize::new(2)));
        let jobs = vec![work("flush", &gate)];
        let (results, took) = run_stuck(jobs, Parallel::default(), &gate, &stop, FIVE_SECONDS, |_, _| {});
        let error = results[0].as_ref().expect_err("it is still there").to_string();
        assert!(error.contains("flush has not come back from the kernel for 1"), "{error}");
        assert!((15..=20).contains(&took.as_secs()), "{took:?}");
    }
}
