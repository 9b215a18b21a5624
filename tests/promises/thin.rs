//! Thin volumes: only data that is not zero is written, and it is all gone.

use efface::internals::engine::Settings;
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::plan::{Method, Plan, Policy};
use efface::internals::range::Extent;
use efface::internals::verdict::Verdict;

use crate::jobs::{LOGICAL, PHYSICAL, plan, run};

const SIZE: usize = 1 << 20;
/// What is looked at is this large.
const FOUND: usize = 64 << 10;

/// A little data in two places, the last block among them.
fn sparse() -> Vec<u8> {
    let mut content = vec![0; SIZE];
    content[3 * FOUND + 5] = 1;
    content[SIZE - 1] = 1;
    content
}

#[test]
fn only_nonzero_blocks_of_a_thin_volume_are_overwritten() {
    for method in ["zero", "random", "dod3"] {
        let plan = plan(&Method::named(method).unwrap(), Policy::Full, SIZE as u64).on_thin(true).unwrap();
        overwrites_what_is_not_zero(plan, method);
    }
}

/// `--skip-zeroes`: the same for any device, but for the discard; the check is the one that was ordered.
#[test]
fn only_nonzero_blocks_are_overwritten_where_zeroes_are_skipped() {
    for (method, policy) in [("zero", Policy::Standard), ("random", Policy::Full), ("dod3", Policy::High)] {
        let plan = plan(&Method::named(method).unwrap(), policy, SIZE as u64).skip_zeroes().unwrap();
        overwrites_what_is_not_zero(plan, method);
    }
}

/// The device reads as zeroes afterwards.
fn overwrites_what_is_not_zero(plan: Plan, method: &str) {
    let mut disk = SimDisk::new(sparse(), LOGICAL, PHYSICAL, 1, Faults::default());
    let (report, _) = run(&mut disk, plan, &Settings::default());
    assert_eq!((report.verdict, report.found_bytes), (Verdict::Wiped, Some(2 * FOUND as u64)), "{method}");
    let passes: Vec<u64> = report
        .steps
        .iter()
        .filter(|report| report.step.writes() && !report.step.discards())
        .map(|pass| pass.bytes)
        .collect();
    assert!(
        !passes.is_empty() && passes.iter().all(|bytes| *bytes == 2 * FOUND as u64),
        "{method}: {passes:?}"
    );
    assert_eq!(report.check(), Ok(()));
    assert!(disk.live().iter().all(|byte| *byte == 0));
}

#[test]
fn blocks_of_a_thin_volume_that_cannot_be_written_are_residue() {
    let bad = Extent::at(3 * FOUND as u64, LOGICAL);
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64).on_thin(false).unwrap();
    let faults = Faults { bad_writes: bad.into(), ..Faults::default() };
    let mut disk = SimDisk::new(sparse(), LOGICAL, PHYSICAL, 1, faults);
    let (report, _) = run(&mut disk, plan, &Settings::default());
    assert_eq!((report.verdict, &report.residue), (Verdict::Residue, &bad.into()));
    assert_eq!(report.check(), Ok(()));
}
