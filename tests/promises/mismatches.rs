//! Mismatches: a block with unexpected content is found, mapped and classified.

use std::collections::HashMap;

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, patterns, plan, run, settings};
use efface::internals::engine::Settings;
use efface::internals::engine::survivors::{Holds, Survivor};
use efface::internals::io::sim::{AliasFault, Faults, SimDisk};
use efface::internals::pattern::{Pattern, Seed};
use efface::internals::plan::{Device, Method, OnMismatch, Plan, Policy};
use efface::internals::range::Extent;
use efface::internals::verdict::Verdict;

const SIZE: usize = 256 * 1024;
/// Large enough to be sampled.
const LARGE: usize = 80 << 20;

fn pattern_at(pattern: &Pattern, at: Extent) -> Vec<u8> {
    let mut bytes = vec![0; at.len() as usize];
    pattern.fill(at.start, &mut bytes);
    bytes
}

/// What the report says of a run is what the disk holds there.
fn assert_true(run: &Survivor, disk: &SimDisk, plan: &Plan, context: &str) {
    let on_disk = |at: Extent| &disk.live()[at.start as usize..at.end as usize];
    let written = |step: usize| plan.steps[step].written().expect(context).clone();
    let bytes = on_disk(run.at);
    match run.holds {
        Holds::OldData => assert!(bytes.iter().all(|byte| *byte == SECRET), "{context}: {run:?}"),
        Holds::Zeroes => assert!(bytes.iter().all(|byte| *byte == 0), "{context}: {run:?}"),
        Holds::Step { step } => {
            assert!(step + 2 < plan.steps.len(), "{context}: not the last pass");
            assert!(*bytes == pattern_at(&written(step), run.at), "{context}: {run:?}");
        }
        Holds::Elsewhere { step, offset } => {
            let there = Extent::at(offset, run.at.len());
            assert!(
                offset != run.at.start && *bytes == pattern_at(&written(step), there),
                "{context}: {run:?}"
            );
        }
        _ => panic!("{context}: {run:?} could have been known"),
    }
}

#[test]
fn every_survivor_is_what_the_report_calls_it() {
    let plan = plan(&Method::from_list("0x55,random,random").unwrap(), Policy::Full, SIZE as u64);
    let last = patterns(&plan).pop().unwrap();
    let mut seen = HashMap::new();
    for seed in 0..450 {
        let alias = (seed % 3 == 0).then_some(AliasFault::Wrap { capacity: SIZE as u64 - 8 * LOGICAL });
        let faults = Faults { lose: 40, tear: 40, misdirect: 40, ..Faults::default() };
        // With aliased addresses alone, "elsewhere" is what the alias folds.
        let faults = if alias.is_some() { Faults { alias, ..Faults::default() } } else { faults };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, seed, faults);
        let (report, _) = run(&mut disk, plan.clone(), &settings());
        if alias.is_some() {
            let kinds = report.surviving.kinds();
            assert!(kinds.iter().all(|(kind, _)| *kind == "the pattern of another offset"), "{kinds:?}");
            assert_eq!(report.surviving.bytes, 8 * LOGICAL);
            continue;
        }
        let wrong = Extent::new(0, SIZE as u64).chunks(LOGICAL).filter(|block| {
            disk.live()[block.start as usize..block.end as usize] != pattern_at(&last, *block)
        });
        assert_eq!(report.surviving.bytes, wrong.count() as u64 * LOGICAL, "seed {seed}");
        for survivor in &report.surviving.runs {
            assert_true(survivor, &disk, &plan, &format!("seed {seed}"));
            *seen.entry(std::mem::discriminant(&survivor.holds)).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|count| *count > 5), "one-sided: {seen:?}");
}

/// A disk that shows five times what it has: each block holds what was written to its last address.
#[test]
fn all_blocks_of_a_disk_with_a_false_capacity_are_the_pattern_of_another_offset() {
    const REAL: u64 = LARGE as u64 / 5;
    let plan = plan(&Method::named("random").unwrap(), Policy::Full, LARGE as u64);
    let faults = Faults { alias: Some(AliasFault::Wrap { capacity: REAL }), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; LARGE], LOGICAL, PHYSICAL, 1, faults);
    // One I/O at a time: the disk carries out in any order what is in flight.
    let (report, _) = run(&mut disk, plan, &Settings { depth: 1, ..Settings::default() });
    let carried = |each: u64| Survivor {
        at: Extent::at(each * REAL, REAL),
        holds: Holds::Elsewhere { step: 1, offset: 4 * REAL },
    };
    assert_eq!(report.verdict, Verdict::Surviving);
    assert_eq!(report.surviving.runs, (0..4).map(carried).collect::<Vec<_>>());
}

/// A discard that does nothing: the sample finds it, and the map lists all of it.
#[test]
fn a_sample_that_finds_something_is_followed_by_a_map() {
    let plan = plan(&Method::named("discard").unwrap(), Policy::Standard, LARGE as u64);
    let job = |on_mismatch| {
        let faults = Faults { idle_discard: true, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; LARGE], LOGICAL, PHYSICAL, 1, faults);
        let settings = Settings { on_mismatch, ..Settings::default() };
        run(&mut disk, plan.clone(), &settings).0
    };
    let mapped = job(OnMismatch::Map);
    assert_eq!(mapped.verdict, Verdict::Surviving);
    let all = Survivor { at: Extent::new(0, LARGE as u64), holds: Holds::OldData };
    assert_eq!(mapped.surviving.bytes, LARGE as u64);
    assert_eq!(mapped.surviving.runs, [all]);

    let stopped = job(OnMismatch::Stop);
    assert_eq!((stopped.verdict, stopped.steps.len()), (Verdict::Surviving, 3));
    assert!(stopped.surviving.bytes < LARGE as u64 / 2 && !stopped.surviving.is_empty());
}

/// Reading alone shows as much: the pattern is a function of the seed and the offset.
#[test]
fn a_misplaced_block_is_recognised_by_reading_alone() {
    let expect = Pattern::Random { seed: Seed([3; 32]) };
    let mut content = pattern_at(&expect, Extent::new(0, SIZE as u64));
    content.copy_within(8192..16384, 65536);
    let device = Device { size: SIZE as u64, logical_block: LOGICAL, physical_block: PHYSICAL };
    let plan = Plan::check(expect, Policy::Full, Extent::new(0, SIZE as u64), &device);
    let mut disk = SimDisk::new(content, LOGICAL, PHYSICAL, 1, Faults::default());
    let (report, _) = run(&mut disk, plan, &settings());
    let misplaced =
        Survivor { at: Extent::new(65536, 65536 + 8192), holds: Holds::Elsewhere { step: 0, offset: 8192 } };
    assert_eq!((report.verdict, report.surviving.runs), (Verdict::Surviving, vec![misplaced]));
}

#[test]
fn the_survey_counts_what_already_matched() {
    let half_zero: Vec<u8> = (0..LARGE).map(|at| if at < LARGE / 2 { 0 } else { SECRET }).collect();
    let shares = |method: &str, content: Vec<u8>| {
        let plan = plan(&Method::named(method).unwrap(), Policy::Standard, LARGE as u64);
        let mut disk = SimDisk::new(content, LOGICAL, PHYSICAL, 1, Faults::default());
        let survey = run(&mut disk, plan, &Settings::default()).0.survey.unwrap();
        (survey.zero_bytes * 100 / survey.read_bytes, survey.expected_bytes * 100 / survey.read_bytes)
    };
    let (zero, expected) = shares("zero", half_zero.clone());
    assert!((45..=55).contains(&zero) && zero == expected, "{zero} {expected}");
    assert_eq!(shares("random", half_zero).1, 0);
    assert_eq!(shares("zero", vec![0; LARGE]), (100, 100));
    assert_eq!(shares("zero", vec![SECRET; LARGE]), (0, 0));
}

/// A block that cannot be read before is written all the same.
#[test]
fn unreadable_blocks_before_the_wipe_do_not_stop_it() {
    let plan = plan(&Method::named("zero").unwrap(), Policy::Standard, SIZE as u64);
    let bad_reads = Extent::new(0, SIZE as u64).into();
    let mut disk =
        SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, Faults { bad_reads, ..Faults::default() });
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!(report.verdict, Verdict::Residue, "{:?}", report.error);
    assert!(report.survey.unwrap().read_bytes == 0 && report.steps[0].errors <= 20);
    assert!(disk.durable().iter().all(|byte| *byte == 0));
}
