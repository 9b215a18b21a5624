//! `efface wipe`: the options of a wipe, and the screen that shows it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::arguments::{duration, rate, some_size};
use super::confirm::confirm;
use super::evidence::EvidenceArgs;
use super::ionice::IoNice;
use super::order::{ExpectArgs, OrderArgs};
use super::signals;
use super::state::StateDirArgs;
use crate::device::Tree;
use crate::engine::event::Event;
use crate::engine::fleet::Parallel;
use crate::engine::{OnMismatch, Settings, Stop};
use crate::error::{Error, Result};
use crate::progress::{Metrics, OutputOptions, Report, stderr_line};
use crate::session::plan_file::PlanFile;
use crate::session::{self, Observer, Outcome, Question, Slots, Targets};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct WipeArgs {
    /// Block devices by path, serial:… or wwn:… (or files, with --image)
    #[arg(required_unless_present = "plan", value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    /// Carry out this file of `efface plan --json`, and only that
    #[arg(long, value_name = "FILE", conflicts_with_all = ["devices", "OrderArgs", "ExpectArgs"])]
    plan: Option<PathBuf>,

    /// Show what would be done, and do nothing (as efface plan)
    #[arg(long, conflicts_with = "plan")]
    dry_run: bool,

    #[command(flatten)]
    transfer: IoArgs,

    /// Go on where an earlier wipe of this disk ended early
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    state: StateDirArgs,

    #[command(flatten)]
    many: ConcurrencyArgs,

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
    keep: EvidenceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// How many at once.
#[derive(Args)]
struct ConcurrencyArgs {
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

impl ConcurrencyArgs {
    fn parallel(&self) -> Parallel {
        let most = |count: Option<u16>| count.map_or(usize::MAX, usize::from);
        Parallel { all: most(self.parallel), per_bus: most(self.parallel_per_bus) }
    }
}

/// How the I/O is done.
#[derive(Args)]
pub struct IoArgs {
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
    on_mismatch: MismatchAction,
}

#[derive(Clone, Copy, ValueEnum)]
enum MismatchAction {
    /// Read everything, and list what survives
    Map,
    /// The verdict is enough
    Stop,
}

impl From<MismatchAction> for OnMismatch {
    fn from(mismatch: MismatchAction) -> OnMismatch {
        match mismatch {
            MismatchAction::Map => OnMismatch::Map,
            MismatchAction::Stop => OnMismatch::Stop,
        }
    }
}

#[derive(Args)]
pub struct OutputArgs {
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

impl IoArgs {
    pub fn settings(&self) -> Result<Settings> {
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

/// Of buffers, for one device.
const MEMORY_MAX: u64 = 1 << 30;

impl OutputArgs {
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn options(&self) -> Result<OutputOptions> {
        let progress = self.progress_fd.map(crate::io::inherited).transpose().map_err(|error| {
            Error::usage("--progress-fd: no such open descriptor")
                .because(error)
                .way_out("open it in the calling program, as in 3>progress.json")
        })?;
        let metrics = self.metrics.as_deref().map(Metrics::open).transpose()?;
        Ok(OutputOptions { json: self.json, progress, quiet: self.quiet, metrics })
    }
}

/// Shows a session on the terminal, or as it was asked for.
pub struct TerminalObserver {
    options: Option<OutputOptions>,
    report: Option<Report>,
    /// Nothing is asked.
    yes: bool,
}

impl TerminalObserver {
    pub fn new(options: OutputOptions, yes: bool) -> TerminalObserver {
        TerminalObserver { options: Some(options), report: None, yes }
    }

    /// The last word on the devices.
    pub fn end(self, outcome: &Outcome) -> Verdict {
        self.report.expect("it was started").end(outcome)
    }
}

impl Observer for TerminalObserver {
    fn confirm(&mut self, question: &Question) -> Result<()> {
        if self.yes { Ok(()) } else { confirm(&Tree::real(), question) }
    }

    fn begin(&mut self) -> Stop {
        signals::listen()
    }

    fn queued(&mut self, before: usize, slots: u16) {
        stderr_line(format_args!(
            "efface: waiting: {before} others came before, and {slots} may work at once"
        ));
    }

    fn started(&mut self, devices: &[String]) {
        self.report = Some(Report::new(self.options.take().expect("it is started once"), devices));
    }

    fn watch(&mut self, event: Option<(usize, &Event)>) {
        let report = self.report.as_mut().expect("it was started");
        if let Some((job, event)) = event {
            report.watch(job, event);
        }
        if signals::status_requested() {
            report.print_status();
        }
    }
}

impl WipeArgs {
    pub fn run(self) -> Result<Verdict> {
        if self.dry_run {
            return super::plan::show(&self.devices, &self.order, &self.expect, self.output.json);
        }
        let mut screen = TerminalObserver::new(self.output.options()?, self.yes);
        self.transfer.set_priority()?;
        let wait = if self.no_wait { 0 } else { self.wait.into() };
        let deadline = Instant::now() + Duration::from_secs(wait);
        let targets = match &self.plan {
            Some(file) => Targets::Plan(PlanFile::read(file)?),
            None => Targets::Devices {
                devices: self.devices,
                order: self.order.order(),
                expected: self.expect.expected(),
            },
        };
        let (details, evidence) = self.keep.prepare(targets.count(), deadline)?;
        let session = session::Wipe {
            targets,
            settings: self.transfer.settings()?,
            deadline,
            journals: self.state.open(),
            resume: self.resume,
            parallel: self.many.parallel(),
            slots: self.many.slots.map(|count| Slots { count, wait: !self.no_wait }),
            details,
            evidence,
        };
        let outcome = session.run(&mut screen)?;
        Ok(screen.end(&outcome))
    }
}
