//! Coverage: the claim, the map and the numbers of a record end where the writing ended.

use efface::internals::engine::job::JobReport;
use efface::internals::engine::{Settings, Stop, Yield};
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::plan::{Method, Plan, Policy, Step};
use efface::internals::range::{Extent, ExtentSet};
use efface::internals::record::claim::claim;
use efface::internals::verdict::Verdict;
use efface::internals::view::map;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, plan, run, run_on};

const SIZE: u64 = 768 << 10;
const EPOCH: u64 = 192 << 10;
/// The width of the map in columns, and its first one.
const WIDTH: u64 = 720;
const LEFT: u64 = 96;

fn settings() -> Settings {
    Settings { chunk_bytes: 16 << 10, epoch_bytes: EPOCH, ..Settings::default() }
}

fn disk(content: Vec<u8>, faults: Faults) -> SimDisk {
    SimDisk::new(content, LOGICAL, PHYSICAL, 1, faults)
}

/// A wipe that is asked to end behind the first epoch of such a step.
fn interrupted(plan: &Plan, in_step: fn(&Step) -> bool) -> JobReport {
    let (signal, mut disk) =
        (Arc::new(AtomicUsize::new(0)), disk(vec![SECRET; SIZE as usize], Faults::default()));
    let stop = Stop::new(signal.clone());
    let keep = &mut |progress: &efface::internals::engine::job::Checkpoint| {
        if progress.running.as_ref().is_some_and(|report| in_step(&report.step)) {
            signal.store(2, Ordering::Relaxed);
        }
    };
    run_on(&mut disk, plan.clone(), None, &settings(), &stop, keep).0
}

/// The columns that the map marks as written, from its left edge.
fn marked(report: &JobReport) -> ExtentSet {
    marked_as("written", report)
}

fn marked_as(class: &str, report: &JobReport) -> ExtentSet {
    let svg = map::device(report).into_string();
    let path = svg.split(&format!("<path class=\"{class}\" d=\"")).nth(1).unwrap().split('"').next().unwrap();
    let column = |rectangle: &str| {
        let (x, width) = (rectangle.split(' ').next().unwrap(), rectangle.split(['h', 'v']).nth(1).unwrap());
        Extent::at(x.parse::<u64>().unwrap() - LEFT, width.parse().unwrap())
    };
    path.split('M').skip(1).map(column).collect()
}

#[test]
fn the_record_of_an_interrupted_wipe_ends_at_what_was_covered() {
    let report = interrupted(&plan(&Method::named("zero").unwrap(), Policy::Standard, SIZE), Step::writes);
    assert_eq!((report.verdict, report.check()), (Verdict::Interrupted, Ok(())));
    let pass = report.steps.iter().find(|report| report.step.writes()).unwrap();
    assert_eq!(pass.covered, ExtentSet::from(Extent::new(0, EPOCH)).into());
    assert_eq!(marked(&report), Extent::new(0, WIDTH / 4).into());
    let said = claim(&report, &[]);
    assert!(said.ends_with("The passes: overwrite 0x00 reached 192.00 KiB in bytes 0..196608."), "{said}");
}

#[test]
fn the_record_of_a_failed_wipe_ends_at_what_was_covered() {
    let faults = Faults { vanish_at: Some((40, libc::ENODEV)), ..Faults::default() };
    let method = Method::named("zero").unwrap();
    let (report, _) =
        run(&mut disk(vec![SECRET; SIZE as usize], faults), plan(&method, Policy::None, SIZE), &settings());
    assert_eq!((report.verdict, report.check()), (Verdict::Failed, Ok(())));
    let covered = &report.steps[0].covered;
    assert!(covered.bytes > 0 && covered.bytes < SIZE, "{covered:?}");
    assert_eq!(marked(&report).iter().last().unwrap().end, (covered.bytes * WIDTH).div_ceil(SIZE));
    assert!(claim(&report, &[]).contains("overwrite 0x00 reached "));
}

#[test]
fn the_map_of_a_thin_volume_shows_only_what_was_not_zero() {
    let mut content = vec![0; SIZE as usize];
    content[200 << 10..250 << 10].fill(SECRET);
    let plan = plan(&Method::named("random").unwrap(), Policy::Full, SIZE).on_thin(true).unwrap();
    let (report, _) = run(&mut disk(content, Faults::default()), plan, &settings());
    assert_eq!((report.verdict, report.check()), (Verdict::Wiped, Ok(())));
    // What is looked at is 64 KiB large; the discard behind it says nothing of the media.
    let found = Extent::new(192 << 10, 256 << 10);
    let passes = report.steps.iter().filter(|report| report.step.covers_nonzero());
    assert!(
        passes.clone().count() == 2
            && passes.clone().all(|pass| pass.covered == ExtentSet::from(found).into())
    );
    assert_eq!(marked(&report), Extent::new(180, 240).into());

    // What was not searched was not written.
    let mut half = report;
    let search = half.steps.iter().position(|report| report.step.finds_nonzero()).unwrap();
    half.steps[search].covered = ExtentSet::from(Extent::new(0, SIZE / 2)).into();
    assert!(half.check().unwrap_err().contains("did not cover its area"));
}

#[test]
fn the_map_of_an_interrupted_check_ends_at_what_was_read() {
    let compares = |step: &Step| step.expected().is_some();
    let report = interrupted(&plan(&Method::named("zero").unwrap(), Policy::Full, SIZE), compares);
    assert_eq!((report.verdict, report.check()), (Verdict::Interrupted, Ok(())));
    assert_eq!(marked(&report), Extent::new(0, WIDTH).into());
    assert_eq!(marked_as("read", &report), Extent::new(0, WIDTH / 4).into());
}

/// A record whose pass did not cover its area, and that says it did.
#[test]
fn a_claim_beyond_what_was_covered_does_not_hold() {
    let method = Method::named("zero").unwrap();
    let (whole, _) = run(
        &mut disk(vec![SECRET; SIZE as usize], Faults::default()),
        plan(&method, Policy::Full, SIZE),
        &settings(),
    );
    let pass = whole.steps.iter().position(|report| report.step.writes()).unwrap();
    let less = |covered: ExtentSet| {
        let mut report = whole.clone();
        report.steps[pass].covered = covered.into();
        report.check().unwrap_err()
    };
    let hole = ExtentSet::from(Extent::new(0, SIZE)).without(&Extent::new(4096, 8192).into());
    assert!(less(hole).contains("did not cover its area"));
    let mut report = whole.clone();
    report.steps[pass].bytes -= LOGICAL;
    assert!(report.check().unwrap_err().contains("covered more than it wrote"));
    let mut report = whole.clone();
    report.residue.insert(Extent::at(0, LOGICAL));
    assert!(report.check().unwrap_err().contains("its residue is not"));
    let mut report = whole;
    report.unreadable.insert(Extent::at(0, LOGICAL));
    assert!(report.check().unwrap_err().contains("could not read other blocks"));
}

/// What a job writes and how often, on a disk that takes its time for each I/O.
fn operations(settings: Settings) -> u64 {
    let size = 2 << 20;
    let faults = Faults { operation_time: Duration::from_micros(50), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; size as usize], LOGICAL, LOGICAL, 1, faults);
    let (report, _) = run(&mut disk, plan(&Method::named("zero").unwrap(), Policy::None, size), &settings);
    assert_eq!((report.verdict, report.check()), (Verdict::Wiped, Ok(())));
    assert_eq!(report.steps[0].bytes, size, "nothing is written twice");
    assert!(disk.durable().iter().all(|byte| *byte == 0));
    disk.operations() - 1
}

#[test]
fn a_trial_is_part_of_the_pass_and_not_made_where_it_would_measure_a_limit() {
    let settings = Settings { chunk_bytes: LOGICAL * 4, depth: 8, trial: true, ..Settings::default() };
    let whole = (2 << 20) / settings.chunk_bytes;
    // Smaller I/Os are tried, each in its turn.
    assert!(operations(settings) > whole + 2 * 24, "no trial");
    for without in [
        Settings { trial: false, ..settings },
        Settings { rate: Some(1 << 30), ..settings },
        Settings { yields: Some(Yield::default()), ..settings },
        Settings { chunk_bytes: 2 * settings.chunk_bytes, ..settings },
    ] {
        let least = (2 << 20) / without.chunk_bytes;
        assert_eq!(operations(without), least, "{without:?}");
    }
}
