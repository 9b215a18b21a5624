//! `efface wipe`: claim, plan, ask, run, report.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::arguments::{duration, rate, some_size};
use super::confirm::confirm;
use super::evidence::Keep;
use super::ionice::IoNice;
use super::order::{Expect, Order};
use super::plan::{PlanFile, Planning};
use super::state::StateDir;
use super::{signals, slots};
use crate::device::guard::{self, Claim, Request};
use crate::device::{Tree, WriteCounter, select};
use crate::engine::fleet::{self, Opener, Parallel, Work};
use crate::engine::job::Resume;
use crate::engine::{OnMismatch, Settings, Stop};
use crate::error::{Error, Kind, Result};
use crate::io::Geometry;
use crate::journal::{self, Begun, Folder, Journal};
use crate::plan::Plan;
use crate::printable::printable_path;
use crate::report::evidence::Evidence;
use crate::report::record::{Assignment, Subject};
use crate::report::state::State;
use crate::report::{Metrics, Record, Report, Wanted};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Wipe {
    /// Block devices by path, serial:… or wwn:… (or files, with --image)
    #[arg(required_unless_present = "plan", value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: Order,

    #[command(flatten)]
    expect: Expect,

    /// Carry out this file of `efface plan --json`, and only that
    #[arg(long, value_name = "FILE", conflicts_with_all = ["devices", "Order", "Expect"])]
    plan: Option<PathBuf>,

    /// Show what would be done, and do nothing (as efface plan)
    #[arg(long, conflicts_with = "plan")]
    dry_run: bool,

    #[command(flatten)]
    transfer: Transfer,

    /// Go on where an earlier wipe of this disk ended early
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    many: Many,

    /// Wait this many seconds for a device that another efface, or a closing one, still holds
    #[arg(long, default_value_t = 10, value_name = "SECONDS", conflicts_with = "no_wait")]
    wait: u32,

    /// Wait neither for a device nor for a slot: that is code 7
    #[arg(long)]
    no_wait: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    keep: Keep,

    #[command(flatten)]
    output: Output,
}

/// How many at once.
#[derive(Args)]
struct Many {
    /// Wipe so many devices at once [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Wipe so many devices at once on one controller or USB bus [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel_per_bus: Option<u16>,

    /// Let so many efface processes work at once on this host; the others wait in their order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    slots: Option<u16>,
}

impl Many {
    fn parallel(&self) -> Parallel {
        let most = |count: Option<u16>| count.map_or(usize::MAX, usize::from);
        Parallel { all: most(self.parallel), per_bus: most(self.parallel_per_bus) }
    }
}

/// How the I/O is done.
#[derive(Args)]
pub struct Transfer {
    /// Bytes of one I/O
    #[arg(long, default_value = "1MiB", value_parser = some_size, value_name = "BYTES")]
    block_size: u64,

    /// I/Os in flight on each device
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    queue_depth: u16,

    /// Flush, and keep how far it is, after so many bytes
    #[arg(long, default_value = "4GiB", value_parser = some_size, value_name = "BYTES")]
    epoch_size: u64,

    /// At most this much a second on each device (200MiB/s)
    #[arg(long, value_parser = rate, value_name = "BYTES/s")]
    rate: Option<u64>,

    /// Use only what others leave of the disk
    #[arg(long = "yield")]
    yields: bool,

    /// Give a device up after so many failed I/Os
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_errors: u64,

    /// Say so when the device takes longer than this for an I/O, and wait on
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration)]
    io_timeout: Duration,

    /// Give a device up that has not answered for so long, or has only failed
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = duration)]
    give_up_after: Duration,

    /// Give a device up that does less than this in a minute [default: 0]
    #[arg(long, value_parser = rate, value_name = "BYTES/s", conflicts_with = "yields")]
    min_rate: Option<u64>,

    /// I/O priority: idle, best-effort:N, realtime:N
    #[arg(long, value_name = "CLASS")]
    ionice: Option<IoNice>,

    /// When the read-back finds something else than it should
    #[arg(long, default_value = "map", value_name = "ACTION")]
    on_mismatch: Mismatch,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mismatch {
    /// Read everything, and list what survives
    Map,
    /// The verdict is enough
    Stop,
}

impl From<Mismatch> for OnMismatch {
    fn from(mismatch: Mismatch) -> OnMismatch {
        match mismatch {
            Mismatch::Map => OnMismatch::Map,
            Mismatch::Stop => OnMismatch::Stop,
        }
    }
}

#[derive(Args)]
pub struct Output {
    /// Events and the result as JSON lines on stdout
    #[arg(long)]
    json: bool,

    /// The same lines on this open descriptor
    #[arg(long, value_name = "N")]
    progress_fd: Option<i32>,

    /// Keep a textfile for node_exporter here
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// Only errors
    #[arg(short, long)]
    quiet: bool,
}

impl Transfer {
    /// The settings for all devices; the block size has to suit each.
    pub fn settings(&self, devices: impl Iterator<Item = Geometry>) -> Result<Settings> {
        let coarsest = devices.map(|geometry| geometry.logical_block).max().unwrap_or(512);
        if !self.block_size.is_multiple_of(coarsest) {
            return Err(Error::usage(format!(
                "--block-size {} is not made of logical blocks",
                self.block_size
            ))
            .way_out(format!("it must be a multiple of {coarsest} bytes")));
        }
        if self.rate.zip(self.min_rate).is_some_and(|(most, least)| most <= least) {
            return Err(Error::usage("--min-rate is not below --rate: every device would be given up")
                .way_out("leave one of them out"));
        }
        let depth = self.queue_depth.into();
        if self.block_size.saturating_mul(depth as u64) > MEMORY_MAX {
            return Err(Error::usage(format!(
                "{depth} I/Os of {} bytes need too much memory",
                self.block_size
            ))
            .way_out("--block-size times --queue-depth may be 1 GiB at most"));
        }
        Ok(Settings {
            chunk_bytes: self.block_size,
            depth,
            epoch_bytes: self.epoch_size,
            rate: self.rate,
            yields: self.yields,
            on_mismatch: self.on_mismatch.into(),
            errors_max: self.max_errors,
            io_timeout: self.io_timeout,
            give_up_after: self.give_up_after,
            rate_min: self.min_rate,
            ..Settings::default()
        })
    }

    /// Before any thread is started, since threads inherit it.
    pub fn set_priority(&self) -> Result<()> {
        self.ionice.map_or(Ok(()), IoNice::set)
    }
}

const LATER: &str = "try again later, or leave --no-wait out";

/// Of buffers, for one device.
const MEMORY_MAX: u64 = 1 << 30;

impl Output {
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn wanted(&self) -> Result<Wanted> {
        let progress = self.progress_fd.map(crate::io::inherited).transpose().map_err(|error| {
            Error::usage("--progress-fd: no such open descriptor")
                .because(error)
                .way_out("open it in the calling program, as in 3>progress.json")
        })?;
        let metrics = self.metrics.as_deref().map(Metrics::open).transpose()?;
        Ok(Wanted { json: self.json, progress, quiet: self.quiet, metrics })
    }
}

/// A target that may be worked on: what it is, how it is opened, and what is to be done.
pub struct Job {
    pub subject: Subject,
    pub open: Opener,
    pub plan: Plan,
    pub bus: Option<String>,
    pub journal: Option<Journal>,
    pub resume: Option<Resume>,
}

impl Job {
    /// Writes to a claimed device.
    pub fn wipe(device: PathBuf, claim: Claim, plan: Plan, settings: &Settings) -> Job {
        let (identity, findings) = (claim.identity().clone(), claim.findings().clone());
        let subject = Subject { device, identity, findings, counter: claim.counter() };
        let (depth, bus) = (settings.depth_max(), claim.bus());
        Job { subject, open: Box::new(move || claim.open(depth)), plan, bus, journal: None, resume: None }
    }

    /// The same, or what another process left of it.
    fn journaled(self, folder: &Folder, outline: Vec<String>, resume: bool) -> Result<Job> {
        let Subject { device, identity, counter, .. } = &self.subject;
        let subject = journal::Subject { device, identity, counter: counter.clone(), outline };
        let begun = folder.begin(subject, &self.plan, resume).map_err(|error| error.on(device))?;
        Ok(match begun {
            Some(Begun { journal, plan, resume }) => Job { plan, resume, journal: Some(journal), ..self },
            None => self,
        })
    }

    fn work(self) -> (Subject, Option<Journal>, Work) {
        let Job { subject, open, plan, bus, journal, resume } = self;
        let keep = journal.as_ref().map_or_else(|| Box::new(|_: &_| {}) as fleet::Keep, Journal::keeper);
        (subject, journal, Work { open, plan, resume, keep, bus })
    }
}

/// What all jobs of a command share.
pub struct Shared<'a> {
    pub assignment: Assignment,
    pub parallel: Parallel,
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub wanted: Wanted,
    pub evidence: Evidence,
}

/// Runs the jobs, keeps and tells the records of all devices, in the order that they were asked for.
pub fn run_jobs(
    jobs: Vec<Job>,
    refused: Vec<(PathBuf, Record)>,
    asked: &[PathBuf],
    shared: Shared,
) -> Verdict {
    let Shared { assignment, parallel, settings, stop, wanted, mut evidence } = shared;
    let names: Vec<String> = jobs.iter().map(|job| printable_path(&job.subject.device)).collect();
    let mut report = Report::new(wanted, &names);
    let started = Timestamp::now();
    let (mut subjects, mut journals, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for (subject, journal, job) in jobs.into_iter().map(Job::work) {
        let before = counted(&subject);
        subjects.push((subject, before));
        journals.push(journal);
        work.push(job);
    }
    let mut told = Told::default();
    let results = fleet::run(work, parallel, settings, stop, |event| {
        if let Some((job, event)) = event {
            report.watch(job, event);
        }
        if signals::state_asked() {
            report.tell_state();
        }
        told.now_and_then(&journals, report.states());
    });

    let ended = Instant::now();
    let mut records = refused;
    let mut resumable = Vec::new();
    for (((subject, before), journal), result) in subjects.into_iter().zip(journals).zip(results) {
        let device = subject.device.clone();
        let written = counted(&subject).zip(before).map(|(after, before)| after.saturating_sub(before));
        let record = match result {
            Ok(job) => Record::of_job(&assignment, subject, started, job, written, ended),
            Err(error) => {
                let known = (Some(subject.identity), Some(subject.findings));
                Record::of_error(&assignment, &device, known, started, error)
            }
        };
        if journal.is_some_and(|journal| journal.end(record.verdict)) {
            resumable.push(device.clone());
        }
        records.push((device, record));
    }
    records.sort_by_key(|(path, _)| asked.iter().position(|device| device == path));
    let mut records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
    let kept: Vec<Result<()>> = records.iter_mut().map(|record| evidence.keep(record, stop)).collect();
    let lost = kept.into_iter().find_map(Result::err);
    report.end(&records, lost.as_ref(), &resumable)
}

fn counted(subject: &Subject) -> Option<u64> {
    subject.counter.as_ref().and_then(WriteCounter::bytes)
}

/// Tells `efface jobs`, once a second.
#[derive(Default)]
struct Told(Option<Instant>);

impl Told {
    fn now_and_then(&mut self, journals: &[Option<Journal>], states: &[State]) {
        if self.0.is_some_and(|told| told.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.0 = Some(Instant::now());
        let known =
            journals.iter().zip(states).filter_map(|(journal, state)| Some((journal.as_ref()?, state)));
        known.for_each(|(journal, state)| journal.tell(state));
    }
}

/// One device that is to be wiped: claimed, or not to be had, with the record of that.
pub type Claimed = (PathBuf, std::result::Result<(Claim, Plan), Box<Record>>);

/// Makes the records of devices that are not taken, at the time that they are not.
pub struct Refusals<'a> {
    pub tree: &'a Tree,
    pub assignment: &'a Assignment,
    pub image: bool,
    pub started: Timestamp,
}

impl Refusals<'_> {
    pub fn record(&self, device: &Path, error: Error) -> Box<Record> {
        let known = (guard::describe(self.tree, device, self.image), None);
        Box::new(Record::of_error(self.assignment, device, known, self.started, error))
    }
}

impl Wipe {
    pub fn run(self) -> Result<Verdict> {
        let tree = Tree::real();
        if self.dry_run {
            return Planning::new(&tree, &self.devices, self.order, self.expect)?.show(self.output.json);
        }
        let wanted = self.output.wanted()?;
        self.transfer.set_priority()?;
        let wait = if self.no_wait { 0 } else { self.wait.into() };
        let deadline = Instant::now() + Duration::from_secs(wait);
        let plan = self.plan.as_deref().map(PlanFile::read).transpose()?;
        let method = plan.as_ref().map_or_else(|| self.order.method(), PlanFile::method)?;
        let count = plan.as_ref().map_or(self.devices.len(), PlanFile::devices);
        let (details, evidence) = self.keep.prepare(count, deadline)?;
        let assignment = Assignment { method: method.name.clone(), details };
        let image = plan.as_ref().map_or(self.order.part.image, PlanFile::image);
        let refusals = Refusals { tree: &tree, assignment: &assignment, image, started: Timestamp::now() };
        let claimed = match plan {
            Some(plan) => plan.claim(deadline, &refusals)?,
            None => self.claim(deadline, &refusals)?,
        };

        let devices: Vec<PathBuf> = claimed.iter().map(|(path, _)| path.clone()).collect();
        let geometries = claimed.iter().filter_map(|(_, claim)| Some(claim.as_ref().ok()?.0.geometry()));
        let settings = self.transfer.settings(geometries)?;
        let folder = self.state.open();
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        for (path, claim) in claimed {
            let job = claim.and_then(|(claim, plan)| {
                let begun = self.confirm(&tree, &claim, &plan).and_then(|()| {
                    let outline = plan.outline(&method);
                    let job = Job::wipe(path.clone(), claim, plan, &settings);
                    match &folder {
                        Some(folder) => job.journaled(folder, outline, self.resume),
                        None => Ok(job),
                    }
                });
                begun.map_err(|error| refusals.record(&path, error))
            });
            match job {
                Ok(job) => jobs.push(job),
                Err(record) => refused.push((path, *record)),
            }
        }
        let stop = signals::listen();
        let _ticket = match self.many.slots.map(|slots| slots::take(slots, !self.no_wait, &stop)) {
            Some(Err(error)) if error.kind == Kind::Busy => {
                let busy = |Job { subject: Subject { device, identity, findings, .. }, .. }: Job| {
                    let (error, known) =
                        (Error::busy(error.what()).way_out(LATER), (Some(identity), Some(findings)));
                    let record = Record::of_error(&assignment, &device, known, refusals.started, error);
                    (device, record)
                };
                refused.extend(jobs.drain(..).map(busy));
                None
            }
            taken => taken.transpose()?.flatten(),
        };
        let shared = Shared {
            assignment: assignment.clone(),
            parallel: self.many.parallel(),
            settings: &settings,
            stop: &stop,
            wanted,
            evidence,
        };
        Ok(run_jobs(jobs, refused, &devices, shared))
    }

    /// Claims every device. What is wrong with the command line stops all of them; what is wrong
    /// with a device stops that one.
    fn claim(&self, deadline: Instant, refusals: &Refusals) -> Result<Vec<Claimed>> {
        let tree = refusals.tree;
        let method = self.order.method()?;
        let (force, expected) = (self.order.force(), self.expect.expected());
        let paths = selected(tree, &self.devices)?;
        let request = |path| Request { path, image: self.order.part.image, deadline, force: &force };
        let requests: Vec<Request> = paths.iter().map(|path| request(path)).collect();
        let claim = |(path, claim): (&PathBuf, Result<Claim>)| {
            let claim = claim.and_then(|claim| {
                expected.check(claim.identity())?;
                let plan =
                    self.order.plan(&method, claim.identity(), &claim.geometry(), || claim.keys(None))?;
                Ok((claim, plan))
            });
            match claim {
                Err(error) if error.kind == Kind::Usage => Err(error.on(path)),
                claim => {
                    let claim = claim.map_err(|error| refusals.record(path, error));
                    Ok((path.clone(), claim))
                }
            }
        };
        paths.iter().zip(guard::claim_all(tree, &requests)).map(claim).collect()
    }

    fn confirm(&self, tree: &Tree, claim: &Claim, plan: &Plan) -> Result<()> {
        if self.yes { Ok(()) } else { confirm(tree, claim.identity(), claim.findings(), plan) }
    }
}

/// The paths of the targets, none of them twice.
pub fn selected(tree: &Tree, targets: &[OsString]) -> Result<Vec<PathBuf>> {
    let paths = targets.iter().map(|target| select(tree, target)).collect::<Result<Vec<_>>>()?;
    guard::distinct(tree, &paths)?;
    Ok(paths)
}
