//! `efface purge`: drives erase themselves, and what they say of it is checked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::arguments::duration;
use super::evidence::EvidenceArgs;
use super::order::ExpectArgs;
use super::output::{OutputArgs, TerminalObserver};
use super::state::StateDirArgs;
use crate::device::Force;
use crate::engine::Settings;
use crate::engine::fleet::Parallel;
use crate::error::Result;
use crate::plan::{Choice, PurgePolicy, Rung};
use crate::progress::{print, stderr_line};
use crate::session::purge::{Purge, PurgeOrder, PurgeTargets, read_plan};
use crate::verdict::{EXIT_CODES, Verdict};
use crate::view::outline;

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct PurgeArgs {
    /// NVMe drives by path, serial:… or wwn:…: one namespace of each
    #[arg(required_unless_present = "plan", value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: PurgeOrderArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    /// Show what would be done, and stop: only queries are sent (with --json a file for --plan)
    #[arg(long, help_heading = "Plan and confirmation", conflicts_with = "plan")]
    dry_run: bool,

    /// Carry out exactly this plan (a file of `efface purge --dry-run --json`)
    #[arg(long, help_heading = "Plan and confirmation", value_name = "FILE", conflicts_with_all = ["devices", "PurgeOrderArgs", "ExpectArgs"])]
    plan: Option<PathBuf>,

    /// Do not ask for confirmation
    #[arg(long, help_heading = "Plan and confirmation")]
    yes: bool,

    /// Go on with a purge of this drive that ended early; no command is sent again
    #[arg(long, help_heading = "Resume")]
    resume: bool,

    #[command(flatten)]
    state: StateDirArgs,

    /// Wait this long for a device that another process is closing or efface has locked
    #[arg(
        long,
        help_heading = "Concurrency",
        default_value_t = 10,
        value_name = "SECONDS",
        conflicts_with = "no_wait"
    )]
    wait: u32,

    /// Do not wait for a busy device, or for another purge of the same drive (exit code 7)
    #[arg(long, help_heading = "Concurrency")]
    no_wait: bool,

    /// Limit concurrent drives of this command [default: all]
    #[arg(long, help_heading = "Concurrency", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Stop waiting for a drive after this time; it goes on alone [default: never]
    #[arg(long, help_heading = "Limits", value_name = "TIME", value_parser = duration)]
    give_up_after: Option<Duration>,

    #[command(flatten)]
    keep: EvidenceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Which of the drive's commands will do.
#[derive(Args)]
#[command(next_help_heading = "Method")]
struct PurgeOrderArgs {
    /// Use this command of the drive and no other
    #[arg(long, value_name = "RUNG", value_parser = rung(), conflicts_with_all = ["fast", "both"])]
    by: Option<Rung>,

    /// Prefer a change of keys, which takes seconds
    #[arg(long, conflicts_with = "both")]
    fast: bool,

    /// Change the keys, and then erase the blocks
    #[arg(long)]
    both: bool,

    /// Accept a command that counts as Clear and not as Purge
    #[arg(long)]
    or_clear: bool,

    /// Accept hours of overwriting: by the drive, or else by efface, which counts as Clear
    #[arg(long)]
    or_overwrite: bool,

    /// Let a drive whose sanitize fails be used again without another one
    #[arg(long)]
    unrestricted_exit: bool,

    /// Erase everything that the drive's command reaches: all namespaces, for all hosts
    #[arg(long, help_heading = "Target")]
    all_namespaces: bool,

    /// Override one kind of refusal (mounted and system disks stay refused)
    #[arg(long, help_heading = "Target", value_name = "KIND")]
    force: Vec<Force>,
}

fn rung() -> impl TypedValueParser<Value = Rung> {
    let named = |name: String| Rung::NVME.into_iter().find(|rung| rung.name() == name);
    PossibleValuesParser::new(Rung::NVME.map(Rung::name))
        .map(move |name| named(name).expect("one of the possible values"))
}

impl PurgeOrderArgs {
    fn order(&self) -> PurgeOrder {
        let choice = match (self.by, self.fast, self.both) {
            (Some(rung), ..) => Choice::By(rung),
            (None, true, _) => Choice::Fast,
            (None, false, true) => Choice::Both,
            (None, false, false) => Choice::Best,
        };
        let policy = PurgePolicy {
            choice,
            or_clear: self.or_clear,
            or_overwrite: self.or_overwrite,
            unrestricted_exit: self.unrestricted_exit,
        };
        PurgeOrder { policy, all_namespaces: self.all_namespaces, force: self.force.clone() }
    }
}

impl PurgeArgs {
    pub fn run(self) -> Result<Verdict> {
        let wait = Duration::from_secs(if self.no_wait { 0 } else { self.wait.into() });
        let planned = self.plan.as_deref().map(read_plan).transpose()?.unwrap_or_default();
        let order = planned.first().map_or_else(|| self.order.order(), |planned| planned.order.clone());
        let named = planned.iter().map(|planned| planned.device.clone().into_os_string());
        let devices: Vec<OsString> = self.devices.into_iter().chain(named).collect();
        let targets = PurgeTargets { devices, order, expected: self.expect.expected(), wait };
        if self.dry_run {
            return show(&targets, self.output.is_json());
        }
        let (details, evidence) = self.keep.prepare(targets.devices.len(), Instant::now() + wait)?;
        let most = self.parallel.map_or(usize::MAX, usize::from);
        let session = Purge {
            targets,
            planned,
            settings: Settings::default(),
            wait_for_purge: !self.no_wait,
            resume: self.resume,
            give_up_after: self.give_up_after,
            parallel: Parallel { all: most, ..Parallel::default() },
            journals: self.state.required()?,
            details,
            evidence,
        };
        let mut screen = TerminalObserver::new(self.output.options()?, self.yes);
        let outcome = session.run(&mut screen)?;
        Ok(screen.end(&outcome))
    }
}

/// Prints what would be done; refusals on stderr.
pub fn show(targets: &PurgeTargets, json: bool) -> Result<Verdict> {
    let (mut verdicts, mut text) = (Vec::new(), String::new());
    for (seen, refusal) in targets.preview()? {
        match seen {
            Some(seen) if json => text += &(serde_json::json!(seen).to_string() + "\n"),
            Some(seen) => text += &(outline::render_purge(&seen) + "\n"),
            None => {}
        }
        verdicts.push(match refusal {
            Ok(()) => Verdict::Shown,
            Err(error) => {
                stderr_line(format_args!("efface: {error}"));
                error.kind.into()
            }
        });
    }
    print(&text)?;
    Ok(Verdict::worst(verdicts))
}
