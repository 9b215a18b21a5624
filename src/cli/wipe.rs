//! `efface wipe`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{duration, loss, rate, size_per_second, some_size};
use super::evidence::EvidenceArgs;
use super::ionice::IoNice;
use super::order::{ExpectArgs, OrderArgs};
use super::output::{OutputArgs, TerminalObserver};
use super::state::StateDirArgs;
use crate::engine::fleet::Parallel;
use crate::engine::{Settings, Yield};
use crate::error::{Error, Result};
use crate::plan::OnMismatch;
use crate::session::plan_file::PlanFile;
use crate::session::{self, Slots, Targets};
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

impl WipeArgs {
    pub fn run(self) -> Result<Verdict> {
        if self.dry_run {
            return super::plan::show(&self.devices, &self.order, &self.expect, self.output.is_json());
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
