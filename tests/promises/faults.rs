//! Faults: on thousands of seeded faulty disks the verdict is never better than the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, image, patterns, plan, run, run_on, settings};
use efface::internals::device::identity::Identity;
use efface::internals::engine::event::Event;
use efface::internals::engine::job::{Checkpoint, JobReport};
use efface::internals::engine::{Settings, Stop, Yield};
use efface::internals::io::clock::SimClock;
use efface::internals::io::sim::{AliasFault, Faults, SimDisk};
use efface::internals::io::{Clock, Medium};
use efface::internals::pattern::Seed;
use efface::internals::plan::{Method, Plan, Policy};
use efface::internals::range::{Extent, ExtentSet};
use efface::internals::record::Record;
use efface::internals::record::{Assignment, Subject};
use efface::internals::verdict::Verdict;
use efface::internals::view::text::render;
use jiff::Timestamp;
use rand_chacha::rand_core::Rng;

const SIZE: usize = 96 * 1024 + 512;

/// `scripts/soak` asks for more.
fn seeds() -> u64 {
    std::env::var("EFFACE_SEEDS").map_or(4_000, |seeds| seeds.parse().expect("EFFACE_SEEDS is a number"))
}

fn extents(rng: &mut impl Rng, count: u64) -> ExtentSet {
    let blocks = SIZE as u64 / LOGICAL;
    (0..count)
        .map(|_| {
            let start = rng.next_u64() % blocks;
            Extent::new(start * LOGICAL, (start + 1 + rng.next_u64() % 9).min(blocks) * LOGICAL)
        })
        .collect()
}

/// A disk with some of the faults, chosen by the seed.
fn faults(seed: u64) -> Faults {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Seed(key).rng();
    let mut some = |chance: u64| if rng.next_u64().is_multiple_of(4) { rng.next_u64() % chance } else { 0 };
    let (lose, tear, misdirect, stale) = (some(60), some(60), some(60), some(60));
    let (transient, short) = (some(300), some(300));
    let (bad_writes, bad_reads) = (some(4), some(3));
    let alias = match some(8) {
        1 => Some(AliasFault::Wrap { capacity: 64 * 1024 }),
        2 => Some(AliasFault::StuckBit { bit: 16 * 1024 }),
        _ => None,
    };
    let flush_fails_at = (some(4) == 1).then_some(1);
    let vanish_at = (some(8) == 1).then_some((40, libc::ENXIO));
    Faults {
        lose,
        tear,
        misdirect,
        stale,
        transient,
        short,
        alias,
        flush_fails_at,
        vanish_at,
        bad_writes: extents(&mut rng, bad_writes),
        bad_reads: extents(&mut rng, bad_reads),
        ..Faults::default()
    }
}

fn honest(faults: &Faults) -> bool {
    faults.lose == 0
        && faults.tear == 0
        && faults.misdirect == 0
        && faults.stale == 0
        && faults.alias.is_none()
}

/// What the report may say of this disk.
fn judge(disk: &SimDisk, faults: &Faults, plan: &Plan, report: &JobReport, context: &str) {
    let wanted = image(patterns(plan).last().unwrap(), SIZE);
    let wrong: ExtentSet = Extent::new(0, SIZE as u64)
        .chunks(LOGICAL)
        .filter(|block| {
            let range = block.start as usize..block.end as usize;
            disk.durable()[range.clone()] != wanted[range]
        })
        .collect();
    match report.verdict {
        // On an aliased disk the bytes of one address are those of another: what reads well is well.
        Verdict::Wiped | Verdict::Residue if faults.alias.is_some() => {}
        Verdict::Wiped => assert!(wrong.is_empty(), "{context}: wiped, but {wrong:?}"),
        Verdict::Residue => {
            let listed: ExtentSet = report.residue.iter().chain(report.unreadable.iter()).collect();
            assert!(wrong.clone().without(&listed).is_empty(), "{context}: residue hides {wrong:?}");
        }
        Verdict::Surviving => assert!(!honest(faults), "{context}: an honest disk accused"),
        Verdict::Failed => assert!(
            faults.flush_fails_at.is_some() || faults.vanish_at.is_some(),
            "{context}: failed without a reason: {:?}",
            report.error
        ),
        other => panic!("{context}: {other:?}"),
    }
    if faults.bad_writes.bytes() > 0 && faults.vanish_at.is_none() {
        assert_ne!(report.verdict, Verdict::Wiped, "{context}: residue never is success");
    }
}

#[test]
fn no_verdict_is_better_than_its_disk() {
    let methods = ["zero", "shred", "random", "nnsa"].map(|name| Method::named(name).unwrap());
    let mut verdicts = std::collections::HashMap::new();
    for seed in 0..seeds() {
        let faults = faults(seed);
        let plan = plan(&methods[seed as usize % methods.len()], Policy::Full, SIZE as u64);
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, seed, faults.clone());
        let (report, _) = run(&mut disk, plan.clone(), &settings());
        judge(&disk, &faults, &plan, &report, &format!("seed {seed}"));
        *verdicts.entry(report.verdict.exit_code()).or_insert(0) += 1;
    }
    assert!(verdicts.len() >= 4 && verdicts.values().all(|count| *count > 50), "one-sided: {verdicts:?}");
}

#[test]
fn residue_is_exactly_the_bad_blocks() {
    for (seed, name) in [(1, "zero"), (2, "shred"), (3, "discard")] {
        let bad_writes = extents(&mut Seed([seed as u8; 32]).rng(), 5);
        let faults = Faults { bad_writes: bad_writes.clone(), short: 20, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, seed, faults);
        let plan = plan(&Method::named(name).unwrap(), Policy::Full, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &settings());
        assert_eq!(report.verdict, Verdict::Residue, "{name}: {:?}", report.error);
        assert_eq!(report.residue, bad_writes, "{name}");
        assert!(report.surviving.is_empty(), "what is known as residue is no surprise");
    }
}

#[test]
fn unreadable_blocks_are_listed_apart_from_residue() {
    let bad_reads = ExtentSet::from(Extent::at(8 * LOGICAL, 3 * LOGICAL));
    let faults = Faults { bad_reads: bad_reads.clone(), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!((report.verdict, report.unreadable), (Verdict::Residue, bad_reads));
    assert!(report.residue.is_empty());
}

#[test]
fn readable_and_unreadable_residue_are_listed_apart() {
    let (silent, readable) = (Extent::at(8 * LOGICAL, 3 * LOGICAL), Extent::at(40 * LOGICAL, LOGICAL));
    let bad_writes: ExtentSet = [silent, readable].into_iter().collect();
    let faults = Faults { bad_writes: bad_writes.clone(), bad_reads: silent.into(), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("shred").unwrap(), Policy::Full, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!((report.verdict, &report.residue), (Verdict::Residue, &bad_writes));
    assert_eq!(report.residue_unreadable, silent.into());
    assert!(report.check().is_ok(), "{:?}", report.check());
}

/// After the last pass every block that could not be written is tried once more.
#[test]
fn a_block_that_heals_is_no_residue_of_the_last_pass() {
    let bad = Extent::at(16 * LOGICAL, 5 * LOGICAL);
    let faults = Faults { bad_writes: bad.into(), heals: true, ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let settings = Settings { epoch_bytes: 1 << 30, ..settings() };
    let (report, _) = run(&mut disk, plan, &settings);
    assert_eq!((report.verdict, report.residue.len()), (Verdict::Wiped, 0), "{:?}", report.error);
    let pass = &report.steps[1];
    assert!(pass.flushed && ExtentSet::from(bad).without(&pass.retried).is_empty(), "{:?}", pass.retried);
    assert!(disk.durable().iter().all(|byte| *byte == 0));
    assert!(report.check().is_ok(), "{:?}", report.check());
}

/// Beside a neighbour pieces are cut smaller on the way: every block is visited all the same, once.
#[test]
fn a_job_that_yields_does_the_same_in_smaller_pieces() {
    let size = (1 << 20) - 3 * LOGICAL as usize;
    let bad = Extent::at(130 * LOGICAL, 5 * LOGICAL);
    let jobs = [false, true].map(|neighbour| {
        let faults = Faults { neighbour, bad_writes: bad.into(), short: 100, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; size], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("random").unwrap(), Policy::Full, size as u64);
        let settings = Settings {
            chunk_bytes: 1 << 18,
            epoch_bytes: 300 << 10,
            yields: Some(Yield::default()),
            ..settings()
        };
        let (report, _) = run(&mut disk, plan, &settings);
        assert!(report.check().is_ok(), "{:?}", report.check());
        let pass = report.steps.iter().find(|report| report.step.writes()).unwrap();
        assert!(pass.flushed && pass.bytes == size as u64 - bad.len());
        (report.verdict, report.residue.clone(), disk.durable().to_vec(), disk.operations())
    });
    let [(verdict, residue, bytes, few), yielding] = jobs;
    assert_eq!((verdict, &residue), (Verdict::Residue, &bad.into()));
    assert!((verdict, residue, bytes) == (yielding.0, yielding.1, yielding.2));
    assert!(yielding.3 > few + 16, "{} operations after {few}", yielding.3);
}

/// What ends a job, in the words of what it means (docs/errors.md).
#[test]
fn an_error_that_ends_a_job_says_what_it_means() {
    for (errno, words) in [
        (libc::ENODEV, "the device is gone"),
        (libc::ENXIO, "the device is gone"),
        (libc::ENOSPC, "found no space"),
        (libc::EROFS, "does not allow a write"),
        (libc::EPERM, "does not allow a write"),
        (libc::EINVAL, "of this shape"),
        (libc::EFBIG, "ulimit -f"),
        (libc::ENOMEM, "write failed"),
    ] {
        let faults = Faults { vanish_at: Some((7, errno)), ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &settings());
        let error = report.error.unwrap_or_default();
        assert!(report.verdict == Verdict::Failed && error.contains(words), "{errno}: {error}");
    }
    // A virtio disk that vanishes gives the same error as a full one.
    let faults = Faults { vanish_at: Some((7, libc::ENOSPC)), changed_at: Some(7), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
    let error = run(&mut disk, plan, &settings()).0.error.unwrap();
    assert!(error.contains("gone, or smaller"), "{error}");
}

/// These downgrade a job, block by block, and do not end it.
#[test]
fn a_medium_error_is_residue_whatever_its_number() {
    for errno in [libc::EIO, libc::ENODATA, libc::EILSEQ, libc::EREMOTEIO, libc::ETIMEDOUT] {
        let faults = Faults {
            bad_writes: Extent::at(8 * LOGICAL, LOGICAL).into(),
            media_errno: Some(errno),
            ..Faults::default()
        };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &settings());
        assert_eq!((report.verdict, report.residue.bytes()), (Verdict::Residue, LOGICAL), "{errno}");
    }
}

/// What only interrupts an I/O is no error of the disk.
#[test]
fn an_interrupted_io_is_tried_again_as_it_was() {
    for errno in [libc::EINTR, libc::EAGAIN] {
        let faults = Faults { transient: 300, media_errno: Some(errno), ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &settings());
        assert_eq!((report.verdict, report.residue.bytes()), (Verdict::Wiped, 0), "{errno}");
        assert!(disk.live().iter().all(|byte| *byte == 0), "{errno}");
    }
}

#[test]
fn a_block_that_only_the_first_pass_could_not_write_stays_residue() {
    // The disk is gone in the middle of the second pass: what the first one knew is not forgotten.
    let bad_writes = ExtentSet::from(Extent::at(0, LOGICAL));
    let faults =
        Faults { bad_writes: bad_writes.clone(), vanish_at: Some((60, libc::ENODEV)), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("shred").unwrap(), Policy::Full, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!((report.verdict, report.residue), (Verdict::Failed, bad_writes));
}

#[test]
fn a_disk_that_fails_everywhere_is_given_up_after_max_errors() {
    let faults = Faults { transient: 1000, ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &Settings { errors_max: 50, ..settings() });
    assert_eq!(report.verdict, Verdict::Failed);
    assert!(report.error.unwrap().contains("given up after 50 failed I/Os"));
    assert!(disk.operations() < 80, "{} operations", disk.operations());
}

#[test]
fn a_failed_flush_fails_the_pass() {
    for number in 0..4 {
        let faults = Faults { flush_fails_at: Some(number), ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &settings());
        assert_eq!(report.verdict, Verdict::Failed, "flush {number}");
        assert!(!report.steps[0].flushed && report.error.unwrap().contains("the flush failed"));
    }
}

#[test]
fn a_discard_that_does_nothing_is_found() {
    let faults = Faults { idle_discard: true, ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("discard").unwrap(), Policy::Standard, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!(report.verdict, Verdict::Surviving);
    assert_eq!(report.surviving.bytes, SIZE as u64);
}

#[test]
fn a_device_without_discard_is_refused_and_not_written() {
    let faults = Faults { no_discard: true, ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("discard").unwrap(), Policy::Standard, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!(report.verdict, Verdict::Unsupported);
    assert!(report.error.unwrap().contains("does not support discard"));
    assert!(disk.live().iter().all(|byte| *byte == SECRET));
}

#[test]
fn a_partial_wipe_leaves_all_other_bytes() {
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, Faults::default());
    let mut plan = plan(&Method::named("shred").unwrap(), Policy::Full, SIZE as u64);
    plan.area = Extent::new(5 * LOGICAL, 99 * LOGICAL);
    let (report, _) = run(&mut disk, plan.clone(), &settings());
    assert_eq!(report.verdict, Verdict::Wiped);
    let wanted = image(patterns(&plan).last().unwrap(), SIZE);
    for (offset, byte) in disk.durable().iter().enumerate() {
        let inside = (plan.area.start..plan.area.end).contains(&(offset as u64));
        assert_eq!(*byte, if inside { wanted[offset] } else { SECRET }, "offset {offset}");
    }
}

/// Swapped or resized between two passes, or under the last one: no success, and nothing after it.
#[test]
fn a_replaced_disk_is_no_success() {
    let plan = plan(&Method::named("shred").unwrap(), Policy::Full, SIZE as u64);
    let whole = {
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, Faults::default());
        assert_eq!(run(&mut disk, plan.clone(), &settings()).0.verdict, Verdict::Wiped);
        disk.operations()
    };
    for at in 0..=whole {
        let faults = Faults { changed_at: Some(at), ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let (report, _) = run(&mut disk, plan.clone(), &settings());
        assert_eq!(report.verdict, Verdict::Failed, "changed at operation {at} of {whole}");
        if at == 0 {
            assert!(disk.live().iter().all(|byte| *byte == SECRET), "another disk is not written to");
        }
    }
}

/// How many operations a wipe of a disk with one bad stretch takes, and how many errors it meets.
fn cost(bad: Extent) -> (u64, u64) {
    let faults = Faults { bad_writes: bad.into(), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; 4 << 20], PHYSICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, 4 << 20);
    let settings = Settings { chunk_bytes: 16 * PHYSICAL, depth: 1, ..Settings::default() };
    let (report, _) = run(&mut disk, plan, &settings);
    assert_eq!((report.verdict, &report.residue), (Verdict::Residue, &bad.into()));
    (disk.operations(), report.steps[0].errors)
}

/// Bad blocks lie together, and each failure costs a drive's full error recovery time: after one it goes on in small
/// pieces, which grow again.
#[test]
fn a_bad_range_is_not_bisected_in_every_pass() {
    let (operations, errors) = cost(Extent::at(1 << 20, PHYSICAL));
    assert_eq!(errors, 4 + 3 + 3, "16 blocks are halved four times; three tries, and three in the end");
    assert!(operations < 64 + 40, "{operations}: 64 pieces, and some small ones until they have grown again");
    // The same tries of each block, and only the first piece had to be cut down to them.
    let (_, errors) = cost(Extent::at(1 << 20, 512 * PHYSICAL));
    assert_eq!(errors, 2 * (512 * 3 + 15));
}

#[test]
fn an_unanswered_io_is_reported_late_and_then_given_up() {
    let faults = Faults { hangs_at: Some(7), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
    let (report, events) = run(&mut disk, plan, &settings());
    assert_eq!(report.verdict, Verdict::Failed);
    let error = report.error.unwrap();
    assert!(error.contains("a write has not been answered for 1800 s at bytes 49152..57344"), "{error}");
    let late = events.iter().filter_map(|event| match event {
        Event::Late { at, seconds, .. } => Some((at.start, *seconds)),
        _ => None,
    });
    assert_eq!(late.collect::<Vec<_>>(), [(49152, 60)], "reported once, when its time was over");
    assert!(!report.steps[0].flushed);
}

/// Nothing more is asked of a disk that does not answer: a survey that it hangs in is not followed by
/// the first pass.
#[test]
fn a_survey_that_is_never_answered_ends_the_job_before_anything_is_written() {
    let faults = Faults { hangs_at: Some(3), ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::Standard, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &settings());
    assert_eq!(report.verdict, Verdict::Failed);
    let error = report.error.unwrap();
    assert!(error.contains("a read has not been answered for 1800 s"), "{error}");
    assert_eq!(report.steps.len(), 1, "the survey alone");
    assert!(disk.live().iter().all(|byte| *byte == SECRET));
}

/// As it is kept of a device that was named so.
fn record_of(job: JobReport) -> Record {
    let identity: Identity = serde_json::from_value(serde_json::json!({
        "path": "/dev/sda", "node": "/dev/sda", "kind": "disk", "number": "8:0",
        "size_bytes": SIZE, "logical_block": LOGICAL
    }))
    .unwrap();
    let findings = serde_json::from_value(serde_json::json!({ "signatures": [], "forced": [] })).unwrap();
    let subject = Subject { device: "/dev/sda".into(), identity, findings, counter: None };
    Record::of_job(&Assignment::default(), subject, Timestamp::now(), job, None, Instant::now())
}

/// True exactly where the last flush succeeded, with nothing written after it.
#[test]
fn an_interrupted_step_is_flushed_where_its_last_flush_succeeded() {
    for (flush_fails_at, flushed) in [(None, true), (Some(2), false)] {
        let faults = Faults { flush_fails_at, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        let signal = Arc::new(AtomicUsize::new(0));
        let stop = Stop::new(signal.clone());
        let mut checkpoints = 0;
        // Asked for behind the second flush: the third is that of the end.
        let mut keep = |_: &Checkpoint| {
            checkpoints += 1;
            signal.store(if checkpoints == 2 { 2 } else { 0 }, Ordering::Relaxed);
        };
        let (report, _) = run_on(&mut disk, plan, None, &settings(), &stop, &mut keep);
        let step = &report.steps[0];
        assert!(step.bytes > 0 && step.bytes < SIZE as u64, "{}", step.bytes);
        assert_eq!((step.flushed, report.verdict == Verdict::Interrupted), (flushed, flushed));
        let text = render(&record_of(report.clone())).split_whitespace().collect::<Vec<&str>>().join(" ");
        assert!(text.contains("overwrite 0x00") && text.contains("NOT FLUSHED") != flushed, "{text}");
    }
}

/// What fails below a mapping or a file is no drive to be replaced.
#[test]
fn the_advice_names_what_lies_below_a_device_that_is_no_drive() {
    for (medium, words) in [
        (Medium::Drive, "replace it, or destroy it"),
        (Medium::Mapping, "a snapshot or pool that ran full"),
        (Medium::File, "what lies below this file"),
    ] {
        let faults = Faults { transient: 1000, medium, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
        let (report, _) = run(&mut disk, plan, &Settings { errors_max: 50, ..settings() });
        let error = report.error.unwrap();
        assert!(error.contains(words), "{error}");
        assert_eq!(error.contains("replace it"), medium == Medium::Drive, "{error}");
    }
}

/// Blocks that could not be written stay residue if their last write never completes.
#[test]
fn a_last_write_that_hangs_keeps_its_blocks_in_the_residue() {
    let bad = ExtentSet::from(Extent::at(4096, LOGICAL));
    let wipe = |hangs_at| {
        let faults = Faults { bad_writes: bad.clone(), hangs_at, ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        let report = run(&mut disk, plan, &settings()).0;
        (report, disk.operations())
    };
    let (whole, operations) = wipe(None);
    assert_eq!((whole.verdict, &whole.residue), (Verdict::Residue, &bad));
    // Three tries, a flush, which does not hang here, and a read.
    let ends = (operations - 5..operations).map(|operation| {
        let (report, _) = wipe(Some(operation));
        assert_eq!(report.residue, bad, "operation {operation}");
        report.verdict
    });
    assert_eq!(ends.filter(|verdict| *verdict == Verdict::Failed).count(), 4);
}

/// A clock on which a signal comes at some moment.
struct SignalAt {
    clock: SimClock,
    at: Instant,
    signal: Arc<AtomicUsize>,
}

impl Clock for SignalAt {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sleep_until(&self, until: Instant) {
        self.clock.sleep_until(until);
        if self.now() >= self.at {
            self.signal.store(2, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_signal_does_not_wait_for_a_hanging_disk() {
    // Five seconds after the start a signal comes.
    for (io_timeout, seconds) in [(60, 10), (7, 7), (2, 5)] {
        let (clock, signal) = (SimClock::default(), Arc::new(AtomicUsize::new(0)));
        let clock = SignalAt { at: clock.now() + Duration::from_secs(5), clock, signal: signal.clone() };
        let faults = Faults { hangs_at: Some(7), ..Faults::default() };
        let mut disk =
            SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults).on_clock(Arc::new(clock));
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        let settings = Settings { io_timeout: Duration::from_secs(io_timeout), ..settings() };
        let stop = Stop::new(signal);
        let (report, _) = run_on(&mut disk, plan, None, &settings, &stop, &mut |_| {});
        assert_eq!(report.verdict, Verdict::Failed);
        let error = report.error.unwrap();
        assert!(error.contains(&format!("has not been answered for {seconds} s")), "{error}");
    }
}

#[test]
fn a_device_that_only_fails_is_given_up_after_a_time() {
    let (bad_writes, operation_time) = (Extent::new(0, SIZE as u64).into(), Duration::from_secs(30));
    let faults = Faults { bad_writes, operation_time, ..Faults::default() };
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &Settings { depth: 1, ..settings() });
    assert_eq!((report.verdict, report.steps[0].errors), (Verdict::Failed, 60));
    assert!(report.error.unwrap().contains("for 1800 s every I/O has failed"));
}

#[test]
fn a_device_that_is_too_slow_is_given_up() {
    let run = |rate_min| {
        let faults = Faults { operation_time: Duration::from_secs(30), ..Faults::default() };
        let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, faults);
        let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
        run(&mut disk, plan, &Settings { depth: 1, rate_min, ..settings() }).0
    };
    // Two I/Os of 8 KiB a minute.
    let slow = run(Some(274));
    assert_eq!(slow.verdict, Verdict::Failed);
    let error = slow.error.unwrap();
    assert!(error.contains("273 bytes a second over 60 s, where 274 is the least"), "{error}");
    assert_eq!(run(Some(273)).verdict, Verdict::Wiped);
}

#[test]
fn the_rate_limit_is_kept() {
    let mut disk = SimDisk::new(vec![SECRET; SIZE], LOGICAL, PHYSICAL, 1, Faults::default());
    let plan = plan(&Method::named("zero").unwrap(), Policy::None, SIZE as u64);
    let (report, _) = run(&mut disk, plan, &Settings { rate: Some(8192), ..settings() });
    // The last of 13 I/Os begins when the twelve before it have had their second.
    assert_eq!((report.verdict, report.steps[0].milliseconds), (Verdict::Wiped, 12_000));
}
