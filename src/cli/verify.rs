//! `efface verify`: reads, and says whether the device holds what is expected.

use std::path::PathBuf;

use clap::Args;

use super::signals;
use super::wipe::{Job, Output, Part, Transfer, Verification, device, run_jobs};
use crate::device::{Tree, guard};
use crate::error::{Error, Result};
use crate::pattern::Pattern;
use crate::plan::Plan;
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Verify {
    /// A block device (or a file, with --image)
    #[arg(value_name = "DEVICE")]
    device: PathBuf,

    /// What it should hold: zero, 0x55aa, or random:SEED with the seed that the wipe reported
    #[arg(long, value_name = "PATTERN")]
    expect: Pattern,

    /// How much to read
    #[arg(long, default_value = "standard", value_name = "POLICY")]
    policy: Verification,

    #[command(flatten)]
    part: Part,

    #[command(flatten)]
    transfer: Transfer,

    #[command(flatten)]
    output: Output,
}

impl Verify {
    pub fn run(self) -> Result<Verdict> {
        if matches!(self.policy, Verification::None) {
            return Err(
                Error::usage("--policy none would read nothing").way_out("choose standard, high or full")
            );
        }
        let wanted = self.output.wanted()?;
        self.transfer.set_priority()?;
        let target = guard::examine(&Tree::real(), &self.device, self.part.image)
            .map_err(|error| error.on(&self.device))?;
        let device = device(&target.geometry());
        let area = self.part.area(&device).map_err(|error| error.on(&self.device))?;
        let plan = Plan::check(self.expect, self.policy.into(), area, &device);
        let settings = self.transfer.settings([target.geometry()].into_iter())?;
        let identity = target.identity().clone();
        let depth = settings.depth_max();
        let job =
            Job { device: self.device.clone(), identity, open: Box::new(move || target.open(depth)), plan };
        Ok(run_jobs(vec![job], Vec::new(), &[self.device], &settings, &signals::listen(), wanted))
    }
}
