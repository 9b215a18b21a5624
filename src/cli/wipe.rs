//! `efface wipe`: claim, plan, ask, run, report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::arguments::{rate, some_size};
use super::confirm::confirm;
use super::destroy_key::no_core_dumps;
use super::evidence::Keep;
use super::ionice::IoNice;
use super::order::{Expect, Order};
use super::plan::{PlanFile, Planning};
use super::signals;
use crate::device::guard::{self, Claim, Request};
use crate::device::{Tree, WriteCounter, select};
use crate::engine::fleet::{self, Opener};
use crate::engine::{OnMismatch, Settings, Stop};
use crate::error::{Error, Kind, Result};
use crate::io::Geometry;
use crate::plan::Plan;
use crate::report::evidence::Evidence;
use crate::report::record::{Assignment, Subject};
use crate::report::{Record, Report, Wanted};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Wipe {
    /// Block devices by path, serial:… or wwn:… (or files, with --image)
    #[arg(required_unless_present = "plan", value_name = "DEVICE")]
    devices: Vec<String>,

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

    /// Wipe so many devices at once [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Wait this many seconds for a device that another efface, or a closing one, still holds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    keep: Keep,

    #[command(flatten)]
    output: Output,
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

    /// At most this much a second on each device (200MiB/s)
    #[arg(long, value_parser = rate, value_name = "BYTES/s")]
    rate: Option<u64>,

    /// Use only what others leave of the disk
    #[arg(long = "yield")]
    yields: bool,

    /// Give a device up after so many failed I/Os
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_errors: u64,

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
            rate: self.rate,
            yields: self.yields,
            on_mismatch: self.on_mismatch.into(),
            errors_max: self.max_errors,
            ..Settings::default()
        })
    }

    /// Before any thread is started, since threads inherit it.
    pub fn set_priority(&self) -> Result<()> {
        self.ionice.map_or(Ok(()), IoNice::set)
    }
}

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
        Ok(Wanted { json: self.json, progress, quiet: self.quiet, metrics: self.metrics.clone() })
    }
}

/// A target that may be worked on: what it is, how it is opened, and what is to be done.
pub struct Job<'a> {
    pub subject: Subject,
    pub open: Opener<'a>,
    pub plan: Plan,
}

impl Job<'_> {
    /// Writes to a claimed device.
    pub fn wipe(device: PathBuf, claim: Claim, plan: Plan, settings: &Settings) -> Job<'static> {
        let (identity, findings) = (claim.identity().clone(), claim.findings().clone());
        let subject = Subject { device, identity, findings, counter: claim.counter() };
        let depth = settings.depth_max();
        Job { subject, open: Box::new(move || claim.open(depth)), plan }
    }
}

/// What all jobs of a command share.
pub struct Shared<'a> {
    pub assignment: Assignment,
    /// Jobs at once; all where it is none.
    pub parallel: Option<u16>,
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub wanted: Wanted,
    pub evidence: Evidence,
}

/// Runs the jobs, keeps and tells the records of all devices, in the order that they were asked for.
pub fn run_jobs(
    jobs: Vec<Job<'_>>,
    refused: Vec<(PathBuf, Error)>,
    asked: &[PathBuf],
    shared: Shared,
) -> Verdict {
    let Shared { assignment, parallel, settings, stop, wanted, mut evidence } = shared;
    let names: Vec<String> = jobs.iter().map(|job| job.subject.device.display().to_string()).collect();
    let mut report = Report::new(wanted, &names);
    let started = Timestamp::now();
    let (subjects, work): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| (job.subject, (job.open, job.plan))).unzip();
    let counted = |subject: &Subject| subject.counter.as_ref().and_then(WriteCounter::bytes);
    let written_before: Vec<Option<u64>> = subjects.iter().map(counted).collect();
    let parallel = parallel.map_or(usize::MAX, usize::from);
    let results = fleet::run(work, parallel, settings, stop, |job, event| {
        report.watch(job, &event);
        if signals::state_asked() {
            report.tell_state();
        }
    });

    let mut records: Vec<(PathBuf, Record)> = Vec::new();
    for (device, error) in refused {
        records.push((device.clone(), Record::of_error(&assignment, &device, None, started, error)));
    }
    for ((subject, before), result) in subjects.into_iter().zip(written_before).zip(results) {
        let device = subject.device.clone();
        let written = counted(&subject).zip(before).map(|(after, before)| after.saturating_sub(before));
        let record = match result {
            Ok(job) => Record::of_job(&assignment, subject, started, job, written),
            Err(error) => Record::of_error(&assignment, &device, Some(subject), started, error),
        };
        records.push((device, record));
    }
    records.sort_by_key(|(path, _)| asked.iter().position(|device| device == path));
    let mut records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
    let kept: Vec<Result<()>> = records.iter_mut().map(|record| evidence.keep(record)).collect();
    let lost = kept.into_iter().find_map(Result::err);
    report.end(&records, lost.as_ref())
}

/// One device that is to be wiped: claimed, or not to be had.
pub type Claimed = (PathBuf, Result<(Claim, Plan)>);

impl Wipe {
    pub fn run(self) -> Result<Verdict> {
        let tree = Tree::real();
        if self.dry_run {
            return Planning::new(&tree, &self.devices, self.order, self.expect)?.show(self.output.json);
        }
        let wanted = self.output.wanted()?;
        self.transfer.set_priority()?;
        let deadline = Instant::now() + Duration::from_secs(self.wait);
        let plan = self.plan.as_deref().map(PlanFile::read).transpose()?;
        let method = plan.as_ref().map_or_else(|| self.order.method(), PlanFile::method)?.name;
        let count = plan.as_ref().map_or(self.devices.len(), PlanFile::devices);
        let (details, evidence) = self.keep.prepare(count)?;
        let claimed = match plan {
            Some(plan) => plan.claim(&tree, deadline)?,
            None => self.claim(&tree, deadline)?,
        };

        let devices: Vec<PathBuf> = claimed.iter().map(|(path, _)| path.clone()).collect();
        let geometries = claimed.iter().filter_map(|(_, claim)| Some(claim.as_ref().ok()?.0.geometry()));
        let settings = self.transfer.settings(geometries)?;
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        for (path, claim) in claimed {
            let confirmed = claim.and_then(|(claim, plan)| {
                self.confirm(&tree, &claim, &plan)?;
                Ok((claim, plan))
            });
            match confirmed {
                Ok((claim, plan)) => jobs.push(Job::wipe(path, claim, plan, &settings)),
                Err(error) => refused.push((path, error)),
            }
        }
        if jobs.iter().any(|job| job.plan.keys.is_some()) {
            no_core_dumps();
        }
        let (assignment, stop) = (Assignment { method, details }, signals::listen());
        let shared = Shared {
            assignment,
            parallel: self.parallel,
            settings: &settings,
            stop: &stop,
            wanted,
            evidence,
        };
        Ok(run_jobs(jobs, refused, &devices, shared))
    }

    /// Claims every device. What is wrong with the command line stops all of them; what is wrong
    /// with a device stops that one.
    fn claim(&self, tree: &Tree, deadline: Instant) -> Result<Vec<Claimed>> {
        let method = self.order.method()?;
        let (force, expected) = (self.order.force(), self.expect.expected());
        let claim = |path: PathBuf| {
            let request = Request { path: &path, image: self.order.part.image, deadline, force: &force };
            let claim = guard::claim(tree, &request).and_then(|claim| {
                expected.check(claim.identity())?;
                let plan =
                    self.order.plan(&method, claim.identity(), &claim.geometry(), || claim.keys(false))?;
                Ok((claim, plan))
            });
            match claim {
                Err(error) if error.kind == Kind::Usage => Err(error.on(&path)),
                claim => Ok((path, claim)),
            }
        };
        selected(tree, &self.devices)?.into_iter().map(claim).collect()
    }

    fn confirm(&self, tree: &Tree, claim: &Claim, plan: &Plan) -> Result<()> {
        if self.yes { Ok(()) } else { confirm(tree, claim.identity(), claim.findings(), plan) }
    }
}

/// The paths of the targets, none of them twice.
pub fn selected(tree: &Tree, targets: &[String]) -> Result<Vec<PathBuf>> {
    let paths = targets.iter().map(|target| select(tree, target)).collect::<Result<Vec<_>>>()?;
    guard::distinct(tree, &paths)?;
    Ok(paths)
}
