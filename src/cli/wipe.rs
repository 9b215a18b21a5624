//! `efface wipe`: its arguments, and the session observer on the terminal.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{duration, loss, rate, size_per_second, some_size};
use super::confirm::{confirm, confirm_purge};
use super::evidence::EvidenceArgs;
use super::ionice::IoNice;
use super::order::{ExpectArgs, OrderArgs};
use super::signals;
use super::state::StateDirArgs;
use crate::device::Tree;
use crate::engine::event::Event;
use crate::engine::fleet::Parallel;
use crate::engine::{Settings, Stop, Yield};
use crate::error::{Error, Result};
use crate::plan::OnMismatch;
use crate::printable::printable_path;
use crate::progress::{Metrics, OutputOptions, Report, stderr_line};
use crate::session::plan_file::PlanFile;
use crate::session::{self, Observer, Outcome, PurgeQuestion, Question, Slots, Targets};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct WipeArgs {
    /// Block devices by path, serial:… or wwn:… (files with --image)
    #[arg(required_unless_present = "plan", value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    /// Execute exactly this plan (a file of `efface plan --json`)
    #[arg(long, help_heading = "Plan and confirmation", value_name = "FILE", conflicts_with_all = ["devices", "OrderArgs", "ExpectArgs"])]
    plan: Option<PathBuf>,

    /// Show what would be done, and stop (as efface plan)
    #[arg(long, help_heading = "Plan and confirmation", conflicts_with = "plan")]
    dry_run: bool,

    #[command(flatten)]
    transfer: IoArgs,

    /// Resume an interrupted wipe of this disk from its checkpoint
    #[arg(long, help_heading = "Resume")]
    resume: bool,

    #[command(flatten)]
    state: StateDirArgs,

    #[command(flatten)]
    many: ConcurrencyArgs,

    /// Wait this long for a busy device, not counting its holder's time in the queue of --slots
    #[arg(long, default_value_t = 10, value_name = "SECONDS", conflicts_with = "no_wait")]
    wait: u32,

    /// Do not wait for a busy device or a slot (exit code 7)
    #[arg(long)]
    no_wait: bool,

    /// Do not ask for confirmation
    #[arg(long, help_heading = "Plan and confirmation")]
    yes: bool,

    #[command(flatten)]
    keep: EvidenceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Limits on concurrent jobs.
#[derive(Args)]
#[command(next_help_heading = "Concurrency")]
struct ConcurrencyArgs {
    /// Limit concurrent devices of this command [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Limit concurrent devices on one controller or USB bus [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel_per_bus: Option<u16>,

    /// Limit concurrent efface processes on this host; others queue in FIFO order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    slots: Option<u16>,
}

impl ConcurrencyArgs {
    fn parallel(&self) -> Parallel {
        let most = |count: Option<u16>| count.map_or(usize::MAX, usize::from);
        Parallel { all: most(self.parallel), per_bus: most(self.parallel_per_bus) }
    }
}

/// I/O parameters and limits.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub struct IoArgs {
    /// Set the size of one I/O [default: found by a trial, 1MiB at most]
    #[arg(long, help_heading = "I/O", value_parser = some_size, value_name = "BYTES")]
    block_size: Option<u64>,

    /// Set the number of I/Os in flight per device [default: found by a trial]
    #[arg(long, help_heading = "I/O", value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    queue_depth: Option<u16>,

    /// Flush and write a checkpoint every BYTES
    #[arg(long, help_heading = "I/O", default_value = "4GiB", value_parser = some_size, value_name = "BYTES")]
    epoch_size: u64,

    /// Limit the rate on each device (200MiB/s)
    #[arg(long, value_parser = rate, value_name = "BYTES/s")]
    rate: Option<u64>,

    /// Back off beside other processes that use the disk: they lose LOSS of their I/O rate at most
    #[arg(long = "yield", value_name = "LOSS", num_args = 0..=1, require_equals = true, default_missing_value = "10%", value_parser = loss)]
    yields: Option<u8>,

    /// With --yield, work at this rate at least, or 0 [default: 16 MiB/s, or 5 % of the rate alone]
    #[arg(long, value_parser = size_per_second, value_name = "BYTES/s", requires = "yields")]
    yield_min: Option<u64>,

    /// Give up a device after this many failed I/Os
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_errors: u64,

    /// Report an I/O that takes longer than this, and keep waiting
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration)]
    io_timeout: Duration,

    /// Give up a device after this time without an answer, or with failures only
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = duration)]
    give_up_after: Duration,

    /// Give up a device that is slower than this over a minute [default: no limit]
    #[arg(long, value_parser = rate, value_name = "BYTES/s", conflicts_with = "yields")]
    min_rate: Option<u64>,

    /// Set the I/O priority: idle, best-effort:N, realtime:N
    #[arg(long, help_heading = "I/O", value_name = "CLASS")]
    ionice: Option<IoNice>,

    /// Choose what to do when the read-back finds a mismatch
    #[arg(long, help_heading = "Verification", default_value = "map", value_name = "ACTION")]
    on_mismatch: OnMismatch,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print events and the result as JSON lines on stdout
    #[arg(long)]
    json: bool,

    /// Write the JSON lines to this open file descriptor
    #[arg(long, value_name = "N")]
    progress_fd: Option<i32>,

    /// Maintain a metrics textfile for node_exporter
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

impl IoArgs {
    pub fn settings(&self) -> Result<Settings> {
        if self.rate.zip(self.min_rate).is_some_and(|(most, least)| most <= least) {
            return Err(Error::usage("--min-rate is not below --rate: every device would be given up")
                .with_remedy("leave one of them out"));
        }
        let defaults = Settings::default();
        let chunk_bytes = self.block_size.unwrap_or(defaults.chunk_bytes);
        let depth = self.queue_depth.map_or(defaults.depth, usize::from);
        if chunk_bytes.saturating_mul(depth as u64) > MEMORY_MAX {
            return Err(Error::usage(format!("{depth} I/Os of {chunk_bytes} bytes need too much memory"))
                .with_remedy("--block-size times --queue-depth may be 1 GiB at most"));
        }
        Ok(Settings {
            chunk_bytes,
            depth,
            trial: self.block_size.is_none() && self.queue_depth.is_none(),
            epoch_bytes: self.epoch_size,
            rate: self.rate,
            yields: self.yields.map(|loss_percent| Yield { loss_percent, rate_min: self.yield_min }),
            on_mismatch: self.on_mismatch,
            errors_max: self.max_errors,
            io_timeout: self.io_timeout,
            give_up_after: self.give_up_after,
            rate_min: self.min_rate,
            ..defaults
        })
    }

    /// Call before any thread is started: threads inherit the priority.
    pub fn set_priority(&self) -> Result<()> {
        self.ionice.map_or(Ok(()), IoNice::set)
    }
}

/// Largest total size of the buffers of one device.
const MEMORY_MAX: u64 = 1 << 30;

impl OutputArgs {
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn options(&self) -> Result<OutputOptions> {
        let progress = self.progress_fd.map(crate::io::inherited).transpose().map_err(|error| {
            Error::usage("--progress-fd: no such open descriptor")
                .because(error)
                .with_remedy("open it in the calling program, as in 3>progress.json")
        })?;
        let metrics = self.metrics.as_deref().map(Metrics::open).transpose()?;
        Ok(OutputOptions { json: self.json, progress, quiet: self.quiet, metrics })
    }
}

/// Reports a session on the terminal, or as JSON.
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

    fn confirm_purge(&mut self, question: &PurgeQuestion) -> Result<()> {
        if self.yes { Ok(()) } else { confirm_purge(&Tree::real(), question) }
    }

    fn awaits(&mut self, device: &Path) {
        stderr_line(format_args!(
            "efface: {}: waiting for another efface, which purges this drive",
            printable_path(device)
        ));
    }

    fn begin(&mut self) -> Stop {
        signals::listen()
    }

    fn queued(&mut self, before: usize, slots: u16) {
        stderr_line(format_args!(
            "efface: waiting: {before} processes are queued before this one, and {slots} may work at once"
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
        let wait = Duration::from_secs(wait);
        let targets = match &self.plan {
            Some(file) => Targets::Plan(PlanFile::read(file)?),
            None => Targets::Devices {
                devices: self.devices,
                order: self.order.order(),
                expected: self.expect.expected(),
            },
        };
        let (details, evidence) = self.keep.prepare(targets.count(), Instant::now() + wait)?;
        let session = session::Wipe {
            targets,
            settings: self.transfer.settings()?,
            wait,
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
