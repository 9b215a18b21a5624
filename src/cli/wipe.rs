//! `efface wipe`: claim, plan, ask, run, report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;

use super::arguments::{rate, size, some_size};
use super::confirm::confirm;
use super::ionice::IoNice;
use super::signals;
use crate::device::Tree;
use crate::device::guard::{self, Claim, Request};
use crate::device::identity::Identity;
use crate::engine::fleet::{self, Opener};
use crate::engine::{Settings, Stop};
use crate::error::{Error, Kind, Result};
use crate::io::Geometry;
use crate::pattern::Seed;
use crate::plan::{Device, Method, Plan, Policy, SCHEMES};
use crate::report::{Record, Report, Wanted};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Wipe {
    /// Block devices (or files, with --image)
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<PathBuf>,

    /// What to write
    #[arg(long, default_value = "zero", value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(SCHEMES.iter().map(|scheme| scheme.name)),
          long_help = methods())]
    method: String,

    /// Passes of your own, as in 0x00,0xff,0x55aa,random
    #[arg(long, value_name = "LIST", conflicts_with = "method")]
    passes: Option<String>,

    /// Add a pass of zeroes, so that the next owner reads zeroes
    #[arg(long)]
    final_zero: bool,

    /// Write the zeroes, or let the kernel make them (reported as write-zeroes, never as overwrite)
    #[arg(long, default_value = "write", value_name = "HOW")]
    zero_with: ZeroWith,

    /// How much to read back
    #[arg(long, default_value = "standard", value_name = "POLICY")]
    verify: Verification,

    #[command(flatten)]
    part: Part,

    #[command(flatten)]
    transfer: Transfer,

    /// Wait this many seconds for a device that another efface, or a closing one, still holds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: Output,
}

/// Which part of the device, and whether it is one.
#[derive(Args)]
pub struct Part {
    /// Begin at this byte (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    offset: Option<u64>,

    /// Go no further than this many bytes (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    size: Option<u64>,

    /// The targets are image files, not devices
    #[arg(long)]
    pub image: bool,
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

    /// I/O priority: idle, best-effort:N, realtime:N
    #[arg(long, value_name = "CLASS")]
    ionice: Option<IoNice>,
}

#[derive(Args)]
pub struct Output {
    /// Events and the result as JSON lines on stdout
    #[arg(long)]
    json: bool,

    /// The same lines on this open descriptor
    #[arg(long, value_name = "N")]
    progress_fd: Option<i32>,

    /// Only errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ZeroWith {
    Write,
    Offload,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Verification {
    /// Read nothing back
    None,
    /// 4,608 probes: 99 % confidence that at most 0.1 % of the blocks differ
    Standard,
    /// 69,120 probes: 99.9 % confidence that at most 0.01 % differ
    High,
    /// Read everything
    Full,
}

impl From<Verification> for Policy {
    fn from(verification: Verification) -> Policy {
        match verification {
            Verification::None => Policy::None,
            Verification::Standard => Policy::Standard,
            Verification::High => Policy::High,
            Verification::Full => Policy::Full,
        }
    }
}

fn methods() -> String {
    let line = |scheme: &crate::plan::Scheme| format!("  {:13} {}", scheme.name, scheme.about);
    let lines: Vec<String> = SCHEMES.iter().map(line).collect();
    format!("What to write:\n{}", lines.join("\n"))
}

impl Part {
    pub fn area(&self, device: &Device) -> Result<crate::range::Extent> {
        device.area(self.offset, self.size)
    }
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
        Ok(Settings { chunk_bytes: self.block_size, depth, rate: self.rate, ..Settings::default() })
    }

    /// Before any thread is started, since threads inherit it.
    pub fn set_priority(&self) -> Result<()> {
        self.ionice.map_or(Ok(()), IoNice::set)
    }
}

/// Of buffers, for one device.
const MEMORY_MAX: u64 = 1 << 30;

impl Output {
    pub fn wanted(&self) -> Result<Wanted> {
        let progress = self.progress_fd.map(crate::io::inherited).transpose().map_err(|error| {
            Error::usage("--progress-fd: no such open descriptor")
                .because(error)
                .way_out("open it in the calling program, as in 3>progress.json")
        })?;
        Ok(Wanted { json: self.json, progress, quiet: self.quiet })
    }
}

/// What planning needs of a target.
pub fn device(geometry: &Geometry) -> Device {
    let &Geometry { size, logical_block, physical_block, .. } = geometry;
    Device { size, logical_block, physical_block }
}

/// A target that may be worked on: its name, what it is, how it is opened, and what is to be done.
pub struct Job<'a> {
    pub device: PathBuf,
    pub identity: Identity,
    pub open: Opener<'a>,
    pub plan: Plan,
}

/// Runs the jobs and tells of all devices, in the order that they were asked for.
pub fn run_jobs(
    jobs: Vec<Job<'_>>,
    refused: Vec<Record>,
    asked: &[PathBuf],
    settings: &Settings,
    stop: &Stop,
    wanted: Wanted,
) -> Verdict {
    let names: Vec<String> = jobs.iter().map(|job| job.device.display().to_string()).collect();
    let mut report = Report::new(wanted, &names);
    let started = Timestamp::now();
    let (targets, work): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| ((job.device, job.identity), (job.open, job.plan))).unzip();
    let results = fleet::run(work, settings, stop, |job, event| report.watch(job, &event));

    let mut records = refused;
    for ((device, identity), result) in targets.into_iter().zip(results) {
        records.push(match result {
            Ok(job) => Record::of_job(&device, identity, started, job),
            Err(error) => Record::of_error(&device, Some(identity), started, error),
        });
    }
    records.sort_by_key(|record| asked.iter().position(|device| *device == record.device));
    report.end(&records)
}

impl Wipe {
    pub fn run(self) -> Result<Verdict> {
        let method = self.method()?;
        let wanted = self.output.wanted()?;
        self.transfer.set_priority()?;
        let tree = Tree::real();
        guard::distinct(&tree, &self.devices)?;

        let mut refused = Vec::new();
        let claims = self.claim(&tree, &mut refused)?;
        let settings = self.transfer.settings(claims.iter().map(Claim::geometry))?;
        let planned =
            claims.into_iter().map(|claim| self.plan(claim, &method)).collect::<Result<Vec<_>>>()?;

        let mut jobs = Vec::new();
        for (claim, plan) in planned {
            let device = claim.identity().path.clone();
            let identity = claim.identity().clone();
            if !self.yes
                && let Err(error) = confirm(&tree, &identity, &plan)
            {
                refused.push(Record::of_error(&device, Some(identity), Timestamp::now(), error));
                continue;
            }
            let depth = settings.depth_max();
            jobs.push(Job { device, identity, open: Box::new(move || claim.open(depth)), plan });
        }
        Ok(run_jobs(jobs, refused, &self.devices, &settings, &signals::listen(), wanted))
    }

    fn method(&self) -> Result<Method> {
        let mut method = match &self.passes {
            Some(list) => Method::from_list(list)?,
            None => Method::named(&self.method)?,
        };
        if self.final_zero {
            method = method.then_zero();
        }
        if self.zero_with == ZeroWith::Offload {
            method = method.offload_zeroes()?;
        }
        method.allows(self.verify.into())?;
        Ok(method)
    }

    /// Claims every device. What is wrong with the command line stops all of them; what is wrong
    /// with a device stops that one.
    fn claim(&self, tree: &Tree, refused: &mut Vec<Record>) -> Result<Vec<Claim>> {
        let deadline = Instant::now() + Duration::from_secs(self.wait);
        let mut claims = Vec::new();
        for path in &self.devices {
            match guard::claim(tree, &Request { path, image: self.part.image, deadline }) {
                Ok(claim) => claims.push(claim),
                Err(error) if error.kind == Kind::Usage => return Err(error.on(path)),
                Err(error) => refused.push(Record::of_error(path, None, Timestamp::now(), error)),
            }
        }
        Ok(claims)
    }

    fn plan(&self, claim: Claim, method: &Method) -> Result<(Claim, Plan)> {
        let device = device(&claim.geometry());
        let plan = self
            .part
            .area(&device)
            .and_then(|area| Plan::new(method, self.verify.into(), area, &device, &mut Seed::from_kernel))
            .map_err(|error| error.on(&claim.identity().path))?;
        Ok((claim, plan))
    }
}
