//! `efface selftest`: the main job on a scratch device, the disk faults that the verification detects, and the drives that lie about an erase.

mod faulty_disks;
mod lying_drives;
mod scratch;

use std::time::{Duration, Instant};

use clap::Args;

use super::output::TerminalObserver;
use crate::device::Force;
use crate::device::Tree;
use crate::device::guard::{self, Request};
use crate::engine::fleet::Parallel;
use crate::engine::{Settings, Stop};
use crate::error::Result;
use crate::pattern::{Pattern, Seed};
use crate::plan::{Device, Method, Plan, Policy};
use crate::progress::OutputOptions;
use crate::record::Assignment;
use crate::record::evidence::Evidence;
use crate::session::{self, Observer, RunContext, SessionJob};
use crate::verdict::Verdict;
use scratch::Scratch;

#[derive(Args)]
pub struct SelftestArgs {}

/// Large enough that the standard policy samples instead of reading everything.
const SCRATCH_BYTES: u64 = 256 << 20;

impl SelftestArgs {
    pub fn run(self) -> Result<Verdict> {
        let mut screen = TerminalObserver::new(OutputOptions::default(), true);
        let stop = screen.begin();
        let scratch = Scratch::new(SCRATCH_BYTES)?;
        println!("1. A scratch device full of data is wiped as `efface wipe --method shred` does it.\n");
        let (verdict, written) = wipe(&scratch, &stop, screen)?;
        if verdict != Verdict::Wiped {
            return Ok(verdict);
        }
        scratch.compare(&written)?;
        println!("Read again below the device: every byte is the last pass's, no old data is left.\n");
        println!("2. Simulated disks that lie are wiped and read back in full: who is found out?\n");
        let found_out = faulty_disks::run()?;
        println!("3. Simulated drives erase themselves, and some lie: which check finds it?\n");
        let purged = lying_drives::run()?;
        Ok(stop.verdict().unwrap_or(Verdict::worst([found_out, purged])))
    }
}

/// Runs the main job; returns the pattern of the last pass.
fn wipe(scratch: &Scratch, stop: &Stop, mut screen: TerminalObserver) -> Result<(Verdict, Pattern)> {
    let path = scratch.path();
    let deadline = Instant::now() + Duration::from_secs(10);
    // It was made a moment ago, and no other process has been given it: who else there is does not matter.
    let force = &[Force::Unseen];
    let request = Request { path: &path, image: scratch.is_image(), deadline, force };
    let claim = guard::claim(&Tree::real(), &request).map_err(|error| error.on(&path))?;
    let geometry = Device::from(&claim.geometry());
    let seed = Seed::from_kernel()?;
    let area = geometry.area(None, None)?;
    let plan = Plan::new(&Method::named("shred")?, Policy::Standard, area, &geometry, &mut || Ok(seed))?;
    let settings = Settings::default();
    let job = SessionJob::wipe(path.clone(), claim, plan, &settings);
    let assignment = &Assignment { method: "shred".into(), ..Assignment::default() };
    let (parallel, evidence) = (Parallel::default(), Evidence::default());
    let shared = RunContext { assignment, parallel, settings: &settings, stop, evidence };
    let outcome = session::run(vec![job], Vec::new(), &[path], shared, &mut screen);
    Ok((screen.end(&outcome), Pattern::Random { seed }))
}
