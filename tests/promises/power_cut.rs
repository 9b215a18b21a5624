//! Power cuts at every single operation: nothing was ever claimed that the disk then lacks.

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, image, patterns, plan, run, settings};
use efface::internals::engine::event::Event;
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::plan::{Method, Plan, Policy};
use efface::internals::range::ExtentSet;
use efface::internals::verdict::Verdict;

const SIZE: usize = 130 * 1024 + 512;

/// How far a plan's writing passes were said to be durable: for each pass, the highest offset.
fn claims(plan: &Plan, events: &[Event], verdict: Verdict) -> Vec<u64> {
    // Steps and passes differ by the checks.
    let pass_of = |step: usize| plan.steps[..step].iter().filter(|step| step.writes()).count();
    let mut claimed = vec![0; patterns(plan).len()];
    for event in events {
        match event {
            Event::Checkpoint { step, upto } if plan.steps[*step].writes() => claimed[pass_of(*step)] = *upto,
            Event::StepEnded { step, .. } if plan.steps[*step].writes() => {
                claimed[pass_of(*step)] = SIZE as u64
            }
            _ => {}
        }
    }
    if matches!(verdict, Verdict::Wiped | Verdict::Residue) {
        claimed.fill(SIZE as u64);
    }
    claimed
}

/// Every claimed byte holds its pass's pattern or that of a later pass; a block that a later pass
/// was writing when the power went may hold some of each.
fn assert_durable(disk: &SimDisk, plan: &Plan, claimed: &[u64], residue: &ExtentSet, context: &str) {
    let images: Vec<Vec<u8>> = patterns(plan).iter().map(|pattern| image(pattern, SIZE)).collect();
    for (pass, &upto) in claimed.iter().enumerate() {
        for block in (0..upto.min(SIZE as u64)).step_by(LOGICAL as usize) {
            let covered = (block as usize..(block + LOGICAL) as usize)
                .all(|at| images[pass..].iter().any(|image| image[at] == disk.durable()[at]));
            assert!(covered || residue.contains(block), "{context}: pass {pass} claimed block {block}");
        }
    }
}

fn sweep(method: &Method, faults: &Faults, seed: u64) -> u64 {
    let plan = plan(method, Policy::Full, SIZE as u64);
    let disk = |cut| {
        let faults = Faults { power_cut_at: cut, ..faults.clone() };
        SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, seed, faults)
    };
    let mut whole = disk(None);
    run(&mut whole, plan.clone(), &settings());
    for cut in 0..whole.operations() {
        let mut disk = disk(Some(cut));
        let (report, events) = run(&mut disk, plan.clone(), &settings());
        assert_ne!(report.verdict, Verdict::Wiped, "seed {seed}: wiped though the power went at {cut}");
        let claimed = claims(&plan, &events, report.verdict);
        assert_durable(&disk, &plan, &claimed, &report.residue, &format!("seed {seed}, cut at {cut}"));
    }
    whole.operations()
}

#[test]
fn no_power_cut_makes_a_claim_untrue() {
    let mut cuts = 0;
    for (seed, name) in ["zero", "shred", "nnsa", "discard"].iter().enumerate() {
        cuts += sweep(&Method::named(name).unwrap(), &Faults::default(), seed as u64);
    }
    let offloaded = Method::named("random").unwrap().then_zero().offload_zeroes().unwrap();
    cuts += sweep(&offloaded, &Faults::default(), 10);
    assert!(cuts > 200, "only {cuts} cuts: the sweep has become empty");
}

#[test]
fn no_power_cut_on_a_faulty_disk_makes_a_claim_untrue() {
    let bad_writes = ExtentSet::from_iter(
        [(40, 41), (100, 117)]
            .map(|(from, to)| efface::internals::range::Extent::new(from * LOGICAL, to * LOGICAL)),
    );
    for seed in 0..3 {
        let faults =
            Faults { transient: 50, short: 100, bad_writes: bad_writes.clone(), ..Faults::default() };
        sweep(&Method::named("shred").unwrap(), &faults, seed);
    }
}

/// The sweep can see: on a disk that lies about its flush, the claims are found untrue.
#[test]
#[should_panic(expected = "claimed block")]
fn the_sweep_catches_a_lying_flush() {
    for seed in 0..20 {
        sweep(&Method::named("zero").unwrap(), &Faults { lying_flush: true, ..Faults::default() }, seed);
    }
}

#[test]
fn a_checkpoint_follows_every_epoch_and_the_last_one_is_the_end() {
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, Faults::default());
    let (report, events) = run(&mut disk, plan.clone(), &settings());
    let checkpoints: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Checkpoint { upto, .. } => Some(*upto),
            _ => None,
        })
        .collect();
    assert_eq!(checkpoints, [32768, 65536, 98304, 131072, SIZE as u64]);
    assert_eq!(report.verdict, Verdict::Wiped);
    assert!(matches!(report.steps[..], [ref only] if only.flushed && only.step.written().is_some()));
    assert_eq!(disk.durable(), image(&patterns(&plan)[0], SIZE));
}
