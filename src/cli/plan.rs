//! `efface plan`: the outline of a wipe or purge, and the plan file.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::order::{ExpectArgs, OrderArgs};
use crate::device::Tree;
use crate::error::Result;
use crate::progress::{print, stderr_line};
use crate::session::plan_file::Plans;
use crate::session::purge::PurgeTargets;
use crate::verdict::{EXIT_CODES, Verdict};
use crate::view::outline;

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct PlanArgs {
    /// Block devices by path, serial:… or wwn:… (files with --image)
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<OsString>,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    expect: ExpectArgs,

    /// Print a plan file for efface wipe --plan, or of a purge for efface purge --plan
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl PlanArgs {
    pub fn run(self) -> Result<Verdict> {
        let PlanArgs { devices, order, expect, json } = self;
        let Some(purge) = order.purge()? else { return show(&devices, &order, &expect, json) };
        let (expected, wait) = (expect.expected(), Duration::ZERO);
        super::purge::show(&PurgeTargets { devices, order: purge, expected, wait }, json)
    }
}

/// Prints the outline of a wipe, or a plan file. Refusals are printed on stderr as well.
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
