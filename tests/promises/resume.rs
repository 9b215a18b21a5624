//! A wipe that ends early, at any operation of the disk or of the journal, is resumed to the same result,
//! and never claims what the disk does not hold.

use std::sync::atomic::Ordering;

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, image, patterns, plan, run_on, settings};
use efface::internals::engine::Stop;
use efface::internals::engine::job::{Checkpoint, JobProcess, JobReport, Resume};
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::pattern::Seed;
use efface::internals::plan::{Method, Plan, Policy, Step};
use efface::internals::range::{Extent, ExtentSet};
use efface::internals::verdict::Verdict;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

const SIZE: usize = 96 * 1024 + 512;

/// `scripts/soak` asks for more.
fn seeds() -> u64 {
    std::env::var("EFFACE_RESUME_SEEDS").map_or(10_000, |seeds| seeds.parse().expect("a number"))
}

fn rng(seed: u64) -> ChaCha8Rng {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    Seed(key).rng()
}

/// Where the power goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Disk(u64),
    /// When this entry of the journal was to be written: it is not there afterwards.
    Journal(usize),
    Never,
}

/// The result of a run: the disk, and the last entry of the journal as its file holds it.
struct Left {
    disk: SimDisk,
    journal: Option<String>,
    /// That this run wrote.
    entries: usize,
    report: JobReport,
}

fn resumed(journal: &Option<String>, trusted: bool) -> Option<Resume> {
    let text = journal.as_ref()?;
    Some(resume(serde_json::from_str(text).unwrap(), trusted))
}

fn resume(progress: Checkpoint, trusted: bool) -> Resume {
    let [earlier, now] = [1, 2].map(|pid| JobProcess { pid, boot_id: "test".into() });
    Resume { progress, trusted, earlier, now }
}

fn work(content: Vec<u8>, plan: &Plan, faults: Faults, cut: Cut, seed: u64, resume: Option<Resume>) -> Left {
    let power_cut_at = if let Cut::Disk(operation) = cut { Some(operation) } else { None };
    let mut disk = SimDisk::new(content, LOGICAL, PHYSICAL, seed, Faults { power_cut_at, ..faults });
    let switch = disk.switch();
    let mut journal = resume.as_ref().map(|resume| serde_json::to_string(&resume.progress).unwrap());
    let (mut entries, mut kept) = (0, 0);
    let mut keep = |progress: &Checkpoint| {
        if cut == Cut::Journal(entries) {
            switch.store(false, Ordering::Relaxed);
        }
        if switch.load(Ordering::Relaxed) {
            journal = Some(serde_json::to_string(progress).unwrap());
            kept += 1;
        }
        entries += 1;
    };
    let (report, _) = run_on(&mut disk, plan.clone(), resume, &settings(), &Stop::default(), &mut keep);
    report.check().unwrap_or_else(|why| panic!("seed {seed}, {cut:?}: {why}: {report:?}"));
    Left { disk, journal, entries: kept, report }
}

/// Wiped is wiped: but for residue every durable byte is the last pattern's.
fn judge(left: &Left, plan: &Plan, case: &str) {
    let wanted = image(patterns(plan).last().unwrap(), SIZE);
    let wrong: ExtentSet = Extent::new(0, SIZE as u64)
        .chunks(LOGICAL)
        .filter(|block| {
            let range = block.start as usize..block.end as usize;
            left.disk.durable()[range.clone()] != wanted[range]
        })
        .collect();
    let hidden = wrong.clone().without(&left.report.residue);
    let claims = matches!(left.report.verdict, Verdict::Wiped | Verdict::Residue);
    assert!(!claims || hidden.is_empty(), "{case}: {:?}, but {hidden:?}", left.report.verdict);
}

/// The whole job once, then once more for each place where it can end early.
fn sweep(method: &Method, faults: &Faults, seed: u64) -> usize {
    let plan = plan(method, Policy::Full, SIZE as u64);
    let content = || vec![SECRET; SIZE];
    let whole = work(content(), &plan, faults.clone(), Cut::Never, seed, None);
    let cuts: Vec<Cut> =
        (0..whole.disk.operations()).map(Cut::Disk).chain((0..whole.entries).map(Cut::Journal)).collect();
    for cut in &cuts {
        let case = format!("{}, seed {seed}, {cut:?}", method.name);
        let left = work(content(), &plan, faults.clone(), *cut, seed, None);
        judge(&left, &plan, &case);
        let claims = matches!(left.report.verdict, Verdict::Wiped | Verdict::Residue);
        assert!(!claims || matches!(cut, Cut::Journal(_)), "{case}");
        let image = left.disk.durable().to_vec();
        let resume = resumed(&left.journal, false);
        let end = work(image, &plan, faults.clone(), Cut::Never, seed + 1, resume);
        assert!(matches!(end.report.verdict, Verdict::Wiped | Verdict::Residue), "{case}: {:?}", end.report);
        judge(&end, &plan, &case);
        // Whatever had not been flushed: this disk went through every pass.
        assert!(
            end.report.resumed.iter().all(|each| each.fewer_passes_bytes == 0),
            "{case}: {:?}",
            end.report
        );
    }
    cuts.len()
}

#[test]
fn a_wipe_resumed_after_any_power_cut_completes() {
    let mut cuts = 0;
    for (seed, name) in ["zero", "shred", "nnsa", "discard"].iter().enumerate() {
        cuts += sweep(&Method::named(name).unwrap(), &Faults::default(), seed as u64);
    }
    let offloaded = Method::named("random").unwrap().then_zero().offload_zeroes().unwrap();
    cuts += sweep(&offloaded, &Faults::default(), 10);
    let bad_writes = ExtentSet::from(Extent::at(40 * LOGICAL, 3 * LOGICAL));
    let faults = Faults { transient: 30, short: 100, bad_writes, ..Faults::default() };
    cuts += sweep(&Method::named("shred").unwrap(), &faults, 20);
    assert!(cuts > 250, "only {cuts} cuts: the sweep has become empty");
}

/// Ends up to three times, by a power cut or a kill, on sick disks; in between others may have
/// written. What was wiped in the end was wiped.
#[test]
fn seeded_interruptions_and_resumes_keep_the_claim() {
    let methods = ["zero", "shred", "random", "nnsa"].map(|name| Method::named(name).unwrap());
    let (mut went_on, mut differed, mut trusted_once, mut fewer_seen) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut rng = rng(seed);
        let plan = plan(&methods[seed as usize % methods.len()], Policy::Full, SIZE as u64);
        let some =
            |rng: &mut ChaCha8Rng, most: u64| if rng.next_u64() & 3 == 0 { rng.next_u64() % most } else { 0 };
        let bad = some(&mut rng, 180) * LOGICAL;
        let bad_writes = if bad > 0 { ExtentSet::from(Extent::at(bad, LOGICAL)) } else { ExtentSet::new() };
        let (transient, short) = (some(&mut rng, 200), some(&mut rng, 200));
        let faults = Faults { transient, short, bad_writes, ..Faults::default() };
        let (mut content, mut resume) = (vec![SECRET; SIZE], None);
        let mut foreign = false;
        for end in 0..1 + rng.next_u64() % 3 {
            let cut = match rng.next_u64() % 3 {
                0 => Cut::Journal((rng.next_u64() % 12) as usize),
                _ => Cut::Disk(rng.next_u64() % 120),
            };
            let earlier = resume.as_ref().map_or(0, |resume: &Resume| resume.progress.resumed.len());
            let left = work(content, &plan, faults.clone(), cut, seed * 4 + end, resume);
            judge(&left, &plan, &format!("seed {seed}, {cut:?}"));
            fewer_seen += judge_passes(&left.report, earlier, foreign, &plan);
            let quiet = left.report.verdict == Verdict::Failed && rng.next_u64() & 1 == 0;
            content = left.disk.durable().to_vec();
            foreign = !quiet;
            if foreign {
                let at = (rng.next_u64() % (SIZE as u64 / LOGICAL - 8) * LOGICAL) as usize;
                content[at..at + 4 * LOGICAL as usize].fill(b'X');
            }
            // After a power cut only a test may trust it: an honest flush has kept the data. A run
            // that wrote no entry keeps the marks of the one before, which are not valid any more.
            let trusted = quiet && left.entries > 0 && rng.next_u64() & 1 == 0;
            trusted_once += u64::from(trusted);
            resume = resumed(&left.journal, trusted);
        }
        went_on += u64::from(resume.is_some());
        let earlier = resume.as_ref().map_or(0, |resume| resume.progress.resumed.len());
        let end = work(content, &plan, faults, Cut::Never, seed * 4 + 3, resume);
        let case = format!("seed {seed}: {:?}", end.report);
        assert!(matches!(end.report.verdict, Verdict::Wiped | Verdict::Residue), "{case}");
        judge(&end, &plan, &case);
        fewer_seen += judge_passes(&end.report, earlier, foreign, &plan);
        differed += u64::from(end.report.resumed.iter().any(|each| each.differing_bytes > 0));
    }
    let (went_on, differed) = (went_on * 10 / seeds(), differed * 10 / seeds());
    assert!(went_on >= 5 && differed >= 1 && trusted_once > 0, "one-sided: {went_on}, {differed}");
    assert!(fewer_seen > 0, "no foreign write was ever met in a later pass");
}

/// What others wrote in between went through fewer passes, and is counted: four blocks of theirs, of
/// which one may be residue. Says whether there was such a case.
fn judge_passes(report: &JobReport, earlier: usize, foreign: bool, plan: &Plan) -> u64 {
    let [last] = &report.resumed[earlier.min(report.resumed.len())..] else { return 0 };
    let later_pass = plan.steps[..last.step].iter().any(Step::writes);
    let met = foreign && later_pass;
    assert!(!met || last.fewer_passes_bytes >= 3 * LOGICAL, "{last:?}");
    u64::from(met)
}

/// How far the running step had come.
fn upto(progress: &Checkpoint) -> u64 {
    progress.running.as_ref().unwrap().covered.bytes
}

/// The journal of a zero wipe that was asked to stop after its second epoch.
fn stopped_early(faults: Faults) -> (Vec<u8>, Plan, Checkpoint) {
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let left = work(vec![SECRET; SIZE], &plan, faults, Cut::Journal(7), 1, None);
    let progress: Checkpoint = serde_json::from_str(&left.journal.unwrap()).unwrap();
    assert_eq!(upto(&progress), 65536);
    assert_eq!(progress.epoch, Some(Extent::new(32768, 65536)));
    (left.disk.durable().to_vec(), plan, progress)
}

#[test]
fn a_trusted_disk_is_reread_from_the_last_epoch_and_others_in_full() {
    let (content, plan, progress) = stopped_early(Faults::default());
    for (trusted, reread) in [(true, 32768), (false, 65536)] {
        let resume = Some(resume(progress.clone(), trusted));
        let end = work(content.clone(), &plan, Faults::default(), Cut::Never, 2, resume);
        assert_eq!(end.report.verdict, Verdict::Wiped);
        let [resumption] = &end.report.resumed[..] else { panic!("{:?}", end.report.resumed) };
        assert_eq!((resumption.reread_bytes, resumption.differing_bytes), (reread, 0));
        assert!(!resumption.lost_flushed);
        let written = &end.report.steps[1];
        assert_eq!(written.bytes, SIZE as u64, "the report is of the whole step");
    }
}

#[test]
fn a_disk_that_lost_flushed_data_is_reread_from_the_start_and_recorded() {
    let (_, plan, progress) = stopped_early(Faults::default());
    let resume = Some(resume(progress, true));
    // Nothing of it has stayed.
    let end = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Never, 2, resume);
    let [resumption] = &end.report.resumed[..] else { panic!("{:?}", end.report.resumed) };
    assert!(resumption.lost_flushed && resumption.differing_bytes == 65536, "{resumption:?}");
    assert_eq!(end.report.verdict, Verdict::Wiped);
    judge(&end, &plan, "all of it is there in the end");
}

/// Where an interrupted full check had come to the end of its second epoch.
fn stopped_in_the_check(method: &str) -> (Vec<u8>, Plan, Checkpoint) {
    let plan = plan(&Method::named(method).unwrap(), Policy::Full, SIZE as u64);
    // Of the survey and of each pass four epochs and the end, of the check two epochs.
    let passes = plan.steps.iter().filter(|step| step.writes()).count();
    let left = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Journal(7 + 5 * passes), 1, None);
    let progress: Checkpoint = serde_json::from_str(&left.journal.unwrap()).unwrap();
    let running = progress.running.as_ref().unwrap();
    assert!(running.step.expected().is_some() && upto(&progress) > 0, "{running:?}");
    (left.disk.durable().to_vec(), plan, progress)
}

#[test]
fn a_full_check_restarts_even_on_a_trusted_disk() {
    let (content, plan, progress) = stopped_in_the_check("zero");
    for trusted in [true, false] {
        let end = work(
            content.clone(),
            &plan,
            Faults::default(),
            Cut::Never,
            2,
            Some(resume(progress.clone(), trusted)),
        );
        assert_eq!(end.report.verdict, Verdict::Wiped);
        assert_eq!(end.report.steps[2].bytes, SIZE as u64);
        assert_eq!(end.report.verification.as_ref().unwrap().bytes_read, SIZE as u64);
        let reread = if trusted { progress.epoch.unwrap().len() } else { SIZE as u64 };
        assert_eq!(end.report.resumed[0].reread_bytes, reread);
    }
}

/// Past the disk's own counter: whether it is trusted or not, old data below the mark is found.
#[test]
fn old_data_below_the_watermark_of_an_interrupted_check_is_found_or_overwritten() {
    let (mut content, plan, progress) = stopped_in_the_check("zero");
    content[4 * LOGICAL as usize..8 * LOGICAL as usize].fill(SECRET);
    for (trusted, verdict) in [(true, Verdict::Surviving), (false, Verdict::Wiped)] {
        let end = work(
            content.clone(),
            &plan,
            Faults::default(),
            Cut::Never,
            2,
            Some(resume(progress.clone(), trusted)),
        );
        assert_eq!(end.report.verdict, verdict, "trusted: {trusted}");
        judge(&end, &plan, "old data is never claimed to be gone");
    }
}

#[test]
fn another_disk_with_the_same_identity_is_not_claimed_to_have_had_every_pass() {
    let plan = plan(&Method::named("shred").unwrap(), Policy::Full, SIZE as u64);
    // Of the survey and of two passes four epochs and the end, of the third two epochs.
    let left = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Journal(17), 1, None);
    let progress: Checkpoint = serde_json::from_str(&left.journal.unwrap()).unwrap();
    assert_eq!((progress.steps.len(), upto(&progress)), (3, 65536));
    let own = left.disk.durable().to_vec();
    let mut changed = own.clone();
    for at in [8, 150] {
        changed[at * LOGICAL as usize..(at + 2) * LOGICAL as usize].fill(b'X');
    }
    for (content, fewer, words) in [
        (own, 0, "overwritten and flushed 3 times: "),
        (changed, 4 * LOGICAL, "3 times, but 2.00 KiB of it is only known to have had the passes since"),
        (vec![b'X'; SIZE], SIZE as u64, "3 times, but 96.50 KiB of it"),
    ] {
        let end =
            work(content, &plan, Faults::default(), Cut::Never, 2, Some(resume(progress.clone(), false)));
        assert_eq!(end.report.verdict, Verdict::Wiped);
        judge(&end, &plan, words);
        let [resumption] = &end.report.resumed[..] else { panic!("{:?}", end.report.resumed) };
        assert_eq!(resumption.fewer_passes_bytes, fewer, "{resumption:?}");
        let claim = efface::internals::record::claim::claim(&end.report, &[]);
        assert!(claim.contains(words), "{claim}");
    }
}

/// A journal of a zero wipe without a check that is ahead of a disk of this content: all of it would
/// be written, the last epoch from byte 65536 on.
fn ahead(content: Vec<u8>, trusted: bool) -> (Left, Plan) {
    let (_, mut plan, mut progress) = stopped_early(Faults::default());
    let running = progress.running.as_mut().unwrap();
    running.covered = ExtentSet::from(Extent::new(0, SIZE as u64)).into();
    running.bytes = SIZE as u64;
    progress.epoch = Some(Extent::new(65536, SIZE as u64));
    plan.steps.truncate(2);
    let resume = Some(resume(progress, trusted));
    (work(content, &plan, Faults::default(), Cut::Never, 2, resume), plan)
}

#[test]
fn a_journal_that_is_ahead_of_the_disk_is_not_trusted_and_costs_time_only() {
    let (end, plan) = ahead(vec![SECRET; SIZE], false);
    assert_eq!(end.report.resumed[0].differing_bytes, SIZE as u64);
    judge(&end, &plan, "read, and written again");
}

/// Where such a journal is trusted, what lies below its last epoch is not read: the sweeps' judge sees
/// what was left there.
#[test]
#[should_panic(expected = "Wiped, but")]
fn the_sweep_would_see_a_journal_that_is_ahead_of_the_disk() {
    let mut content = vec![0; SIZE];
    content[..32768].fill(SECRET);
    let (end, plan) = ahead(content, true);
    judge(&end, &plan, "trusted");
}
