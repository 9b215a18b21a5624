//! Helpers: a job on a simulated disk, and everything that it claimed.

use std::sync::mpsc::channel;

use efface::internals::engine::event::{Emitter, Event};
use efface::internals::engine::job::{self, Checkpoint, JobContext, JobReport, Resume};
use efface::internals::engine::{Settings, Stop};
use efface::internals::io::Disk;
use efface::internals::pattern::{Pattern, Seed};
use efface::internals::plan::{Device, Method, Plan, Policy};

pub const LOGICAL: u64 = 512;
pub const PHYSICAL: u64 = 4096;

/// What stood on the disk before: no pass writes it.
pub const SECRET: u8 = b'S';

/// Small chunks and epochs, so that a small disk sees many of them.
pub fn settings() -> Settings {
    Settings { chunk_bytes: 8192, depth: 4, epoch_bytes: 32768, ..Settings::default() }
}

pub fn plan(method: &Method, policy: Policy, size: u64) -> Plan {
    let device = Device { size, logical_block: LOGICAL, physical_block: PHYSICAL };
    let mut drawn = 0;
    Plan::new(method, policy, device.area(None, None).unwrap(), &device, &mut || {
        drawn += 1;
        Ok(Seed([drawn; 32]))
    })
    .unwrap()
}

pub fn run(disk: &mut dyn Disk, plan: Plan, settings: &Settings) -> (JobReport, Vec<Event>) {
    run_on(disk, plan, None, settings, &Stop::default(), &mut |_| {})
}

/// The same, or what an earlier run left of it; `keep` is the journal.
pub fn run_on(
    disk: &mut dyn Disk,
    plan: Plan,
    resume: Option<Resume>,
    settings: &Settings,
    stop: &Stop,
    keep: &mut dyn FnMut(&Checkpoint),
) -> (JobReport, Vec<Event>) {
    let (to, events) = channel();
    let (emitter, draw) = (Emitter::new(0, to), &mut || Ok(Seed([9; 32])));
    let context = JobContext { settings, stop, emitter: &emitter, draw, keep };
    let report = job::run(disk, plan, resume, context);
    drop(emitter);
    (report, events.into_iter().map(|(_, event)| event).collect())
}

/// The patterns of a plan's passes, in order.
pub fn patterns(plan: &Plan) -> Vec<Pattern> {
    plan.steps
        .iter()
        .filter_map(|step| step.leaves().or_else(|| step.discards().then(Pattern::zero)))
        .collect()
}

/// What a pattern's bytes are for a whole disk.
pub fn image(pattern: &Pattern, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    pattern.fill(0, &mut bytes);
    bytes
}
