//! A command from its targets to its records, without a terminal: claim, plan, confirm, run, record, keep.
//!
//! [`Wipe::run`] is the program's main job in one call. Questions and progress go through an
//! [`Observer`]; the result is an [`Outcome`].

mod order;
pub mod outline;
pub mod plan_file;
pub mod purge;
mod slots;
pub mod targets;
mod wipe;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use order::{Order, Passes};
pub use purge::PurgeQuestion;
pub use wipe::{Slots, Targets, Wipe};

use self::purge::PurgeJob;

use crate::device::Findings;
use crate::device::WriteCounter;
use crate::device::guard::Claim;
use crate::device::identity::Identity;
use crate::device::purge_scope::{PurgeScope, Reach};
use crate::engine::event::Event;
use crate::engine::fleet::{self, FleetJob, OpenDisk, Parallel, WipeJob};
use crate::engine::job::{JobReport, Resume};
use crate::engine::purge::report::PurgeReport;
use crate::engine::status::JobStatus;
use crate::engine::{Settings, Stop};
use crate::error::{Error, Result};
use crate::journal::{self, Journal, Journals, StartedJournal};
use crate::parallel;
use crate::plan::Plan;
use crate::printable::printable_path;
use crate::record::evidence::Evidence;
use crate::record::purge::PurgeRecord;
use crate::record::{Assignment, Record, Subject, Tool};
use crate::verdict::Verdict;

/// A claimed device and its plan, to be confirmed.
#[non_exhaustive]
pub struct Question<'a> {
    /// What the guard found it to be.
    pub identity: &'a Identity,
    /// What would be lost: file systems, partition tables, and overridden refusals.
    pub findings: &'a Findings,
    /// What would be done.
    pub plan: &'a Plan,
}

/// Callbacks of a session, on the thread that started it. The default methods agree and do nothing.
pub trait Observer {
    /// Confirms one claimed device, before anything is written.
    ///
    /// # Errors
    /// An error leaves this device unchanged; its record contains the error.
    fn confirm(&mut self, _question: &Question) -> Result<()> {
        Ok(())
    }

    /// Confirms one claimed drive, before anything is written and any command is sent that erases.
    ///
    /// # Errors
    /// As [`Observer::confirm`].
    fn confirm_purge(&mut self, _question: &PurgeQuestion) -> Result<()> {
        Ok(())
    }

    /// Another process purges this drive, and is waited for.
    fn awaits(&mut self, _device: &Path) {}

    /// All devices are claimed and confirmed: from here on this stop ends the session.
    fn begin(&mut self) -> Stop {
        Stop::default()
    }

    /// `before` processes are queued before this one, and `slots` may work at once.
    fn queued(&mut self, _before: usize, _slots: u16) {}

    /// The jobs that are about to run, by their devices' names.
    fn started(&mut self, _devices: &[String]) {}

    /// An event of the job with this number; `None` several times a second.
    fn watch(&mut self, _event: Option<(usize, &Event)>) {}
}

/// Confirms everything, for programs that have checked by other means.
pub struct Unattended;

impl Observer for Unattended {}

/// The result of a session.
#[derive(Default)]
#[non_exhaustive]
pub struct Outcome {
    /// One record per requested device, in that order.
    pub records: Vec<Record>,
    /// An error if a record could not be kept: the session has failed, whatever was wiped.
    pub lost: Option<Error>,
    /// Devices whose journal can be resumed.
    pub resumable: Vec<PathBuf>,
}

impl Outcome {
    /// The most severe verdict.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.records.iter().map(|record| record.verdict);
        Verdict::worst(verdicts.chain(self.lost.as_ref().map(|_| Verdict::Failed)))
    }
}

/// A job to run: the device, and what is done to it.
pub struct SessionJob {
    subject: Subject,
    work: Work,
    bus: Option<String>,
    journal: Option<Journal>,
}

/// What is done to a device.
enum Work {
    Plan { open: OpenDisk, plan: Box<Plan>, resume: Option<Box<Resume>> },
    Purge(Box<PurgeJob>),
}

/// What it came to.
pub enum Report {
    Job(Box<JobReport>),
    Purge(Box<PurgeReport>),
}

impl From<JobReport> for Report {
    fn from(report: JobReport) -> Report {
        Report::Job(Box::new(report))
    }
}

impl SessionJob {
    /// Writes to a claimed device.
    pub fn wipe(device: PathBuf, claim: Claim, plan: Plan, settings: &Settings) -> SessionJob {
        let (identity, findings) = (claim.identity().clone(), claim.findings().clone());
        let subject = Subject { device, identity, findings, counter: claim.counter() };
        let (depth, bus) = (settings.depth_max(), claim.bus());
        let open: OpenDisk = Box::new(move || claim.open(depth));
        SessionJob { bus, ..SessionJob::new(subject, open, plan) }
    }

    /// Carries out a plan on a device.
    pub fn new(subject: Subject, open: OpenDisk, plan: Plan) -> SessionJob {
        let work = Work::Plan { open, plan: Box::new(plan), resume: None };
        SessionJob { subject, work, bus: None, journal: None }
    }

    /// With a journal, and the checkpoint of an earlier process if `resume`.
    fn journaled(self, journals: &Journals, outline: Vec<String>, resume: bool) -> Result<SessionJob> {
        let Subject { device, identity, counter, .. } = &self.subject;
        let subject = journal::JournalSubject { device, identity, counter: counter.clone(), outline };
        let Work::Plan { open, plan, .. } = self.work else { return Ok(self) };
        let begun = journals.begin(subject, &plan, resume).map_err(|error| error.on(device))?;
        let (plan, resume, journal) = match begun {
            Some(StartedJournal { journal, plan, resume }) => {
                (Box::new(plan), resume.map(Box::new), Some(journal))
            }
            None => (plan, None, None),
        };
        Ok(SessionJob { work: Work::Plan { open, plan, resume }, journal, ..self })
    }

    /// The record of a job that was not started.
    fn refused(self, assignment: &Assignment, started: Timestamp, error: Error) -> (PathBuf, Record) {
        let Subject { device, identity, findings, .. } = self.subject;
        let record = Record::of_error(assignment, &device, (Some(identity), Some(findings)), started, error);
        (device, record)
    }

    fn start(self) -> (StartedJob, FleetJob<Report>) {
        let SessionJob { subject, work, bus, journal } = self;
        let (job, reach) = match work {
            Work::Plan { open, plan, resume } => {
                let none = || Box::new(|_: &_| {}) as fleet::SaveCheckpoint;
                let keep = journal.as_ref().map_or_else(none, Journal::checkpoint_writer);
                (WipeJob { open, plan: *plan, resume: resume.map(|resume| *resume), keep }.on_bus(bus), None)
            }
            Work::Purge(purge) => {
                let reached = (purge.scope.clone(), purge.reach);
                (purge.on_bus(bus), Some(reached))
            }
        };
        let before = counted(&subject);
        (StartedJob { subject, before, journal, reached: reach }, job)
    }
}

/// A job that the fleet has.
struct StartedJob {
    subject: Subject,
    /// What its counter said.
    before: Option<u64>,
    journal: Option<Journal>,
    /// Of a purge.
    reached: Option<(PurgeScope, Reach)>,
}

impl StartedJob {
    /// The record of what it came to, and whether it can be resumed.
    fn end(
        self,
        result: Result<Report>,
        assignment: &Assignment,
        (started, ended): (Timestamp, Instant),
    ) -> (PathBuf, Record, bool) {
        let StartedJob { subject, before, journal, reached } = self;
        let device = subject.device.clone();
        let written = counted(&subject).zip(before).map(|(after, before)| after.saturating_sub(before));
        let record = match (result, reached) {
            (Ok(Report::Job(job)), _) => Record::of_job(assignment, subject, started, *job, written, ended),
            (Ok(Report::Purge(report)), Some((scope, reach))) => {
                journal.iter().for_each(|journal| journal.keep_report(&report));
                let purge = PurgeRecord { scope, reach, report: *report, taken_from: None };
                Record::of_purge(assignment, subject, started, purge)
            }
            (Ok(Report::Purge(_)), None) => unreachable!("a purge has a scope"),
            (Err(error), _) => {
                let known = (Some(subject.identity), Some(subject.findings));
                Record::of_error(assignment, &device, known, started, error)
            }
        };
        let resumable = journal.is_some_and(|journal: Journal| journal.end(record.verdict));
        (device, record, resumable)
    }
}

/// What all jobs of a session share.
pub struct RunContext<'a> {
    pub assignment: &'a Assignment,
    pub parallel: Parallel,
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub evidence: Evidence,
}

/// Runs the jobs, and keeps the records of all devices, in the order that they were asked for.
pub fn run(
    jobs: Vec<SessionJob>,
    refused: Vec<(PathBuf, Record)>,
    asked: &[PathBuf],
    shared: RunContext,
    observer: &mut dyn Observer,
) -> Outcome {
    let RunContext { assignment, parallel, settings, stop, mut evidence } = shared;
    let names: Vec<String> = jobs.iter().map(|job| printable_path(&job.subject.device)).collect();
    observer.started(&names);
    Tool::prepare();
    let started = Timestamp::now();
    let (jobs, work): (Vec<StartedJob>, Vec<FleetJob<Report>>) =
        jobs.into_iter().map(SessionJob::start).unzip();
    let mut states: Vec<JobStatus> = names.iter().map(|device| JobStatus::new(device)).collect();
    let mut live = JournalTicker::default();
    let settings = settings.shared_by(work.len().min(parallel.all));
    let results = fleet::run(work, parallel, &settings, stop, |event| {
        if let Some((job, event)) = event {
            states[job].watch(event);
        }
        observer.watch(event);
        live.update(&jobs, &states);
    });

    let ended = Instant::now();
    let jobs: Vec<_> = jobs.into_iter().zip(results).collect();
    let finished = parallel::map(jobs, |(job, result)| job.end(result, assignment, (started, ended)));
    let resumable = finished.iter().filter(|(_, _, resumable)| *resumable);
    let resumable = resumable.map(|(device, ..)| device.clone()).collect();
    let mut records = refused;
    records.extend(finished.into_iter().map(|(device, record, _)| (device, record)));
    records.sort_by_key(|(path, _)| asked.iter().position(|device| device == path));
    let mut records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
    let kept: Vec<Result<()>> = records.iter_mut().map(|record| evidence.keep(record, stop)).collect();
    let lost = kept.into_iter().find_map(Result::err);
    Outcome { records, lost, resumable }
}

fn counted(subject: &Subject) -> Option<u64> {
    subject.counter.as_ref().and_then(WriteCounter::bytes)
}

/// Writes the status of each job for `efface jobs`, once a second.
#[derive(Default)]
struct JournalTicker(Option<Instant>);

impl JournalTicker {
    fn update(&mut self, jobs: &[StartedJob], states: &[JobStatus]) {
        if self.0.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.0 = Some(Instant::now());
        let known = jobs.iter().zip(states).filter_map(|(job, state)| Some((job.journal.as_ref()?, state)));
        known.for_each(|(journal, state)| journal.show(state));
    }
}
