//! `efface plan`: what a wipe would do, and what it could claim.

use std::ffi::OsString;

use clap::Args;

use super::order::{ExpectArgs, OrderArgs};
use crate::device::Tree;
use crate::error::Result;
use crate::progress::{print, stderr_line};
use crate::session::plan_file::Plans;
use crate::verdict::{EXIT_CODES, Verdict};
use crate::view::outline;

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct PlanArgs {
    /// Block devices by path, serial:… or wwn:… (or files, with --image)
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    /// As a file for efface wipe --plan
    #[arg(long)]
    json: bool,
}

impl PlanArgs {
    pub fn run(self) -> Result<Verdict> {
        show(&self.devices, &self.order, &self.expect, self.json)
    }
}

/// Prints what would be done, as a file or for a person. What is refused is said on stderr too.
pub fn show(devices: &[OsString], order: &OrderArgs, expect: &ExpectArgs, json: bool) -> Result<Verdict> {
    let plans = Plans::new(&Tree::real(), devices, order.order(), &expect.expected())?;
    let refused = plans.refused.iter().map(|record| record.verdict);
    let verdict = Verdict::worst(refused.chain(plans.outlines().map(|_| Verdict::Shown)));
    for error in plans.refused.iter().filter_map(|record| record.error.as_ref()) {
        stderr_line(format_args!("efface: {error}"));
    }
    let text = if json {
        plans.into_json()?
    } else {
        plans.outlines().map(|each| outline::render(each) + "\n").collect()
    };
    print(&text)?;
    Ok(verdict)
}
