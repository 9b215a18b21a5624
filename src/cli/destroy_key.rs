//! `efface destroy-key`: destruction of a LUKS volume's keys instead of all its data.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;

use super::evidence::EvidenceArgs;
use super::order::ExpectArgs;
use super::output::{OutputArgs, TerminalObserver};
use super::wipe::IoArgs;
use crate::device::guard::{self, Claim, Request};
use crate::device::{Force, Tree, select};
use crate::engine::fleet::Parallel;
use crate::error::{Kind, Result};
use crate::pattern::Seed;
use crate::plan::{DESTROY_KEY, KeyPlan, Plan};
use crate::printable::printable;
use crate::record::Assignment;
use crate::session::targets::Refusals;
use crate::session::{self, Observer, Question, RunContext, SessionJob};
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct DestroyKeyArgs {
    /// Device with the volume, by path, serial:… or wwn:… (a file with --image)
    #[arg(value_name = "DEVICE")]
    device: OsString,

    /// Destroy the detached header on this device or in this file
    #[arg(long, help_heading = "Target", value_name = "FILE")]
    header: Option<PathBuf>,

    /// Treat the target as an image file
    #[arg(long, help_heading = "Target")]
    image: bool,

    /// Overwrite key material and headers N times before the final pass
    #[arg(long, help_heading = "Method", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Override one kind of refusal (mounted and system disks stay refused)
    #[arg(long, help_heading = "Target", value_name = "KIND")]
    force: Vec<Force>,

    #[command(flatten)]
    statements: KeyStatementArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    #[command(flatten)]
    transfer: IoArgs,

    /// Wait this long for a device that another process is closing or efface has locked
    #[arg(long, help_heading = "Concurrency", default_value_t = 10, value_name = "SECONDS")]
    wait: u32,

    /// Do not ask for confirmation
    #[arg(long, help_heading = "Plan and confirmation")]
    yes: bool,

    #[command(flatten)]
    keep: EvidenceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Statements of the operator about the keys.
#[derive(Args)]
#[command(next_help_heading = "Evidence")]
struct KeyStatementArgs {
    /// Record the id of a secret stored elsewhere that opens the volume (Barbican)
    #[arg(long, value_name = "ID")]
    external_key: Option<String>,

    /// Record the statement that nothing was ever stored on it unencrypted
    #[arg(long)]
    encrypted_since_provisioning: bool,
}

impl DestroyKeyArgs {
    pub fn run(self) -> Result<Verdict> {
        let tree = Tree::real();
        let mut screen = TerminalObserver::new(self.output.options()?, self.yes);
        self.transfer.set_priority()?;
        let deadline = Instant::now() + Duration::from_secs(self.wait.into());
        let (details, evidence) = self.keep.prepare(1, deadline)?;
        let path = select(&tree, &self.device)?;
        let assignment = Assignment { method: DESTROY_KEY.into(), details };
        let (mut jobs, mut refused, mut _data_device) = (Vec::new(), Vec::new(), None);
        let asked = self.header.clone().unwrap_or_else(|| path.clone());
        let image = self.header.as_ref().map_or(self.image, |header| header.is_file());
        let refusals = Refusals { tree: &tree, assignment: &assignment, image, started: Timestamp::now() };
        let settings = self.transfer.settings()?;
        match self.claim(&tree, &path, deadline, &mut screen) {
            Ok((claim, data_device, plan)) => {
                // Held, so that no process opens the volume while its header is destroyed.
                _data_device = data_device;
                settings.check(&claim.geometry())?;
                jobs.push(SessionJob::wipe(asked.clone(), claim, plan, &settings));
            }
            Err(error) if error.kind == Kind::Usage => return Err(error),
            Err(error) => refused.push((asked.clone(), *refusals.record(&asked, error))),
        }
        let stop = screen.begin();
        let (assignment, parallel) = (&assignment, Parallel::default());
        let shared = RunContext { assignment, parallel, settings: &settings, stop: &stop, evidence };
        let outcome = session::run(jobs, refused, &[asked], shared, &mut screen);
        Ok(screen.end(&outcome))
    }

    /// Claims the target, and the data device of a detached header, and makes the plan.
    fn claim(
        &self,
        tree: &Tree,
        path: &Path,
        deadline: Instant,
        screen: &mut TerminalObserver,
    ) -> Result<(Claim, Option<Claim>, Plan)> {
        let claim =
            |path: &Path, image| guard::claim(tree, &Request { path, image, deadline, force: &self.force });
        let targets: Vec<PathBuf> = [path.to_path_buf()].into_iter().chain(self.header.clone()).collect();
        guard::distinct(tree, &targets)?;
        let volume = claim(path, self.image)?;
        self.expect.expected().check(volume.identity()).map_err(|error| error.on(path))?;
        let (target, data_device) = match &self.header {
            None => (volume, None),
            Some(header) => (claim(header, header.is_file())?, Some(volume)),
        };
        let keys = KeyPlan {
            data_device: data_device.as_ref().map(|claim| claim.identity().describe()),
            external_key: self.statements.external_key.as_deref().map(printable),
            encrypted_since_provisioning: self.statements.encrypted_since_provisioning,
            ..target.keys(data_device.as_ref())?
        };
        let plan = Plan::destroy_key(keys, self.rounds, &(&target.geometry()).into(), &mut Seed::from_kernel)
            .map_err(|error| error.on(&target.identity().path))?;
        let question = Question { identity: target.identity(), findings: target.findings(), plan: &plan };
        screen.confirm(&question)?;
        Ok((target, data_device, plan))
    }
}
