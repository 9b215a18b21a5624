//! `efface verify`: reads, and says whether the device holds what is expected.

use clap::Args;

use super::order::{Bound, Part, Verification, device};
use super::signals;
use super::wipe::{Job, Output, Transfer, run_jobs};
use crate::device::{Tree, guard, select};
use crate::error::{Error, Result};
use crate::pattern::Pattern;
use crate::plan::Plan;
use crate::report::record::Subject;
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Verify {
    /// A block device by path, serial:… or wwn:… (or a file, with --image)
    #[arg(value_name = "DEVICE")]
    device: String,

    /// What it should hold: zero, 0x55aa, or random:SEED with the seed that the wipe reported
    #[arg(long, value_name = "PATTERN")]
    expect: Pattern,

    /// How much to read
    #[arg(long, default_value = "standard", value_name = "POLICY", conflicts_with = "confidence")]
    policy: Verification,

    #[command(flatten)]
    bound: Bound,

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
        let tree = Tree::real();
        let path = select(&tree, &self.device)?;
        let target = guard::examine(&tree, &path, self.part.image)?;
        let device = device(&target.geometry());
        let area = self.part.area(&device).map_err(|error| error.on(&path))?;
        let plan = Plan::check(self.expect, self.bound.policy(self.policy), area, &device);
        let settings = self.transfer.settings([target.geometry()].into_iter())?;
        let (identity, findings) = (target.identity().clone(), target.findings().clone());
        let subject = Subject { device: path.clone(), identity, findings };
        let depth = settings.depth_max();
        let job = Job { subject, open: Box::new(move || target.open(depth)), plan };
        Ok(run_jobs(vec![job], Vec::new(), &[path], &settings, &signals::listen(), wanted))
    }
}
