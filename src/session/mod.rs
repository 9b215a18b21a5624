//! A command from its targets to its records, without a terminal: claim, plan, confirm, run, record, keep.
//!
//! [`Wipe::run`] is the program's main job in one call. Questions and progress go through an
//! [`Observer`]; the result is an [`Outcome`].

mod order;
pub mod outline;
pub mod plan_file;
mod slots;
pub mod targets;
mod wipe;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use order::{Order, Passes};
pub use wipe::{Slots, Targets, Wipe};

use crate::device::Findings;
use crate::device::WriteCounter;
use crate::device::guard::Claim;
use crate::device::identity::Identity;
use crate::engine::event::Event;
use crate::engine::fleet::{self, FleetJob, OpenDisk, Parallel};
use crate::engine::job::Resume;
use crate::engine::status::JobStatus;
use crate::engine::{Settings, Stop};
use crate::error::{Error, Result};
use crate::journal::{self, Journal, Journals, StartedJournal};
use crate::parallel;
use crate::plan::Plan;
use crate::printable::printable_path;
use crate::record::evidence::Evidence;
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

/// A job to run: the device, how to open it, and the plan.
pub struct SessionJob {
    pub subject: Subject,
    pub open: OpenDisk,
    pub plan: Plan,
    pub bus: Option<String>,
    pub journal: Option<Journal>,
    pub resume: Option<Resume>,
}

impl SessionJob {
    /// Writes to a claimed device.
    pub fn wipe(device: PathBuf, claim: Claim, plan: Plan, settings: &Settings) -> SessionJob {
        let (identity, findings) = (claim.identity().clone(), claim.findings().clone());
        let subject = Subject { device, identity, findings, counter: claim.counter() };
        let (depth, bus) = (settings.depth_max(), claim.bus());
        SessionJob {
            subject,
            open: Box::new(move || claim.open(depth)),
            plan,
            bus,
            journal: None,
            resume: None,
        }
    }

    /// With a journal, and the checkpoint of an earlier process if `resume`.
    fn journaled(self, journals: &Journals, outline: Vec<String>, resume: bool) -> Result<SessionJob> {
        let Subject { device, identity, counter, .. } = &self.subject;
        let subject = journal::JournalSubject { device, identity, counter: counter.clone(), outline };
        let begun = journals.begin(subject, &self.plan, resume).map_err(|error| error.on(device))?;
        Ok(match begun {
            Some(StartedJournal { journal, plan, resume }) => {
                SessionJob { plan, resume, journal: Some(journal), ..self }
            }
            None => self,
        })
    }

    /// The record of a job that was not started.
    fn refused(self, assignment: &Assignment, started: Timestamp, error: Error) -> (PathBuf, Record) {
        let Subject { device, identity, findings, .. } = self.subject;
        let record = Record::of_error(assignment, &device, (Some(identity), Some(findings)), started, error);
        (device, record)
    }

    fn work(self) -> (Subject, Option<Journal>, FleetJob) {
        let SessionJob { subject, open, plan, bus, journal, resume } = self;
        let keep = journal
            .as_ref()
            .map_or_else(|| Box::new(|_: &_| {}) as fleet::SaveCheckpoint, Journal::checkpoint_writer);
        (subject, journal, FleetJob { open, plan, resume, keep, bus })
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
    let (mut subjects, mut journals, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for (subject, journal, job) in jobs.into_iter().map(SessionJob::work) {
        let before = counted(&subject);
        subjects.push((subject, before));
        journals.push(journal);
        work.push(job);
    }
    let mut states: Vec<JobStatus> = names.iter().map(|device| JobStatus::new(device)).collect();
    let mut live = JournalTicker::default();
    let settings = settings.shared_by(work.len().min(parallel.all));
    let results = fleet::run(work, parallel, &settings, stop, |event| {
        if let Some((job, event)) = event {
            states[job].watch(event);
        }
        observer.watch(event);
        live.update(&journals, &states);
    });

    let ended = Instant::now();
    let jobs: Vec<_> = subjects.into_iter().zip(journals).zip(results).collect();
    let finished = parallel::map(jobs, |(((subject, before), journal), result)| {
        let device = subject.device.clone();
        let written = counted(&subject).zip(before).map(|(after, before)| after.saturating_sub(before));
        let record = match result {
            Ok(job) => Record::of_job(assignment, subject, started, job, written, ended),
            Err(error) => {
                let known = (Some(subject.identity), Some(subject.findings));
                Record::of_error(assignment, &device, known, started, error)
            }
        };
        let resumable = journal.is_some_and(|journal: Journal| journal.end(record.verdict));
        (device, record, resumable)
    });
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
    fn update(&mut self, journals: &[Option<Journal>], states: &[JobStatus]) {
        if self.0.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.0 = Some(Instant::now());
        let known =
            journals.iter().zip(states).filter_map(|(journal, state)| Some((journal.as_ref()?, state)));
        known.for_each(|(journal, state)| journal.show(state));
    }
}
