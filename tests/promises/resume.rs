//! A wipe that ends early, at any operation of the disk or of the journal, goes on to the very same end,
//! and never claims what the disk does not hold.

use std::sync::atomic::Ordering;

use crate::jobs::{LOGICAL, PHYSICAL, SECRET, image, patterns, plan, run_on, settings};
use efface::engine::Stop;
use efface::engine::job::{JobReport, Progress, Resume};
use efface::io::sim::{Faults, SimDisk};
use efface::pattern::Seed;
use efface::plan::{Method, Plan, Policy};
use efface::range::{Extent, ExtentSet};
use efface::verdict::Verdict;
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

/// What a run leaves: the disk, and the last entry of the journal as its file holds it.
struct Left {
    disk: SimDisk,
    journal: Option<String>,
    /// That this run wrote.
    entries: usize,
    report: JobReport,
}

fn resumed(journal: &Option<String>, believed: bool) -> Option<Resume> {
    let text = journal.as_ref()?;
    Some(Resume { progress: serde_json::from_str(text).unwrap(), believed })
}

fn work(content: Vec<u8>, plan: &Plan, faults: Faults, cut: Cut, seed: u64, resume: Option<Resume>) -> Left {
    let power_cut_at = if let Cut::Disk(operation) = cut { Some(operation) } else { None };
    let mut disk = SimDisk::new(content, LOGICAL, PHYSICAL, seed, Faults { power_cut_at, ..faults });
    let switch = disk.switch();
    let mut journal = resume.as_ref().map(|resume| serde_json::to_string(&resume.progress).unwrap());
    let (mut entries, mut kept) = (0, 0);
    let mut keep = |progress: &Progress| {
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
fn judge(left: &Left, plan: &Plan, told: &str) {
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
    assert!(!claims || hidden.is_empty(), "{told}: {:?}, but {hidden:?}", left.report.verdict);
}

/// The whole job once, then once more for each place where it can end early.
fn sweep(method: &Method, faults: &Faults, seed: u64) -> usize {
    let plan = plan(method, Policy::Full, SIZE as u64);
    let content = || vec![SECRET; SIZE];
    let whole = work(content(), &plan, faults.clone(), Cut::Never, seed, None);
    let cuts: Vec<Cut> =
        (0..whole.disk.operations()).map(Cut::Disk).chain((0..whole.entries).map(Cut::Journal)).collect();
    for cut in &cuts {
        let told = format!("{}, seed {seed}, {cut:?}", method.name);
        let left = work(content(), &plan, faults.clone(), *cut, seed, None);
        judge(&left, &plan, &told);
        let claims = matches!(left.report.verdict, Verdict::Wiped | Verdict::Residue);
        assert!(!claims || matches!(cut, Cut::Journal(_)), "{told}");
        let image = left.disk.durable().to_vec();
        let resume = resumed(&left.journal, false);
        let end = work(image, &plan, faults.clone(), Cut::Never, seed + 1, resume);
        assert!(matches!(end.report.verdict, Verdict::Wiped | Verdict::Residue), "{told}: {:?}", end.report);
        judge(&end, &plan, &told);
    }
    cuts.len()
}

#[test]
fn whatever_a_power_cut_leaves_is_wiped_to_the_end() {
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
fn seeded_ends_and_resumes() {
    let methods = ["zero", "shred", "random", "nnsa"].map(|name| Method::named(name).unwrap());
    let (mut went_on, mut differed, mut believed_once) = (0, 0, 0);
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
        for end in 0..1 + rng.next_u64() % 3 {
            let cut = match rng.next_u64() % 3 {
                0 => Cut::Journal((rng.next_u64() % 12) as usize),
                _ => Cut::Disk(rng.next_u64() % 120),
            };
            let left = work(content, &plan, faults.clone(), cut, seed * 4 + end, resume);
            judge(&left, &plan, &format!("seed {seed}, {cut:?}"));
            let quiet = left.report.verdict == Verdict::Failed && rng.next_u64() & 1 == 0;
            content = left.disk.durable().to_vec();
            if !quiet {
                let at = (rng.next_u64() % (SIZE as u64 / LOGICAL - 8) * LOGICAL) as usize;
                content[at..at + 4 * LOGICAL as usize].fill(b'X');
            }
            // After a power cut only a test may believe it: an honest flush has kept its word. A run
            // that wrote no entry leaves the marks of the one before, which do not hold any more.
            let believed = quiet && left.entries > 0 && rng.next_u64() & 1 == 0;
            believed_once += u64::from(believed);
            resume = resumed(&left.journal, believed);
        }
        went_on += u64::from(resume.is_some());
        let end = work(content, &plan, faults, Cut::Never, seed * 4 + 3, resume);
        let told = format!("seed {seed}: {:?}", end.report);
        assert!(matches!(end.report.verdict, Verdict::Wiped | Verdict::Residue), "{told}");
        judge(&end, &plan, &told);
        differed += u64::from(end.report.resumed.iter().any(|each| each.differing_bytes > 0));
    }
    let (went_on, differed) = (went_on * 10 / seeds(), differed * 10 / seeds());
    assert!(went_on >= 5 && differed >= 1 && believed_once > 0, "one-sided: {went_on}, {differed}");
}

/// The journal of a zero wipe that was asked to stop after its second epoch.
fn stopped_early(faults: Faults) -> (Vec<u8>, Plan, Progress) {
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let left = work(vec![SECRET; SIZE], &plan, faults, Cut::Journal(7), 1, None);
    let progress: Progress = serde_json::from_str(&left.journal.unwrap()).unwrap();
    assert_eq!(progress.running.as_ref().unwrap().upto, 65536);
    assert_eq!(progress.epoch, Some(Extent::new(32768, 65536)));
    (left.disk.durable().to_vec(), plan, progress)
}

#[test]
fn what_is_believed_is_read_from_the_last_epoch_on_and_the_rest_in_full() {
    let (content, plan, progress) = stopped_early(Faults::default());
    for (believed, reread) in [(true, 32768), (false, 65536)] {
        let resume = Some(Resume { progress: progress.clone(), believed });
        let end = work(content.clone(), &plan, Faults::default(), Cut::Never, 2, resume);
        assert_eq!(end.report.verdict, Verdict::Wiped);
        let [resumption] = end.report.resumed[..] else { panic!("{:?}", end.report.resumed) };
        assert_eq!((resumption.reread_bytes, resumption.differing_bytes), (reread, 0));
        assert!(!resumption.lost_flushed);
        let written = &end.report.steps[1];
        assert_eq!(written.bytes, SIZE as u64, "the report is of the whole step");
    }
}

#[test]
fn a_disk_that_lost_what_it_had_flushed_is_read_from_the_start_and_it_is_said() {
    let (_, plan, progress) = stopped_early(Faults::default());
    let resume = Some(Resume { progress, believed: true });
    // Nothing of it has stayed.
    let end = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Never, 2, resume);
    let [resumption] = end.report.resumed[..] else { panic!("{:?}", end.report.resumed) };
    assert!(resumption.lost_flushed && resumption.differing_bytes == 65536, "{resumption:?}");
    assert_eq!(end.report.verdict, Verdict::Wiped);
    judge(&end, &plan, "all of it is there in the end");
}

#[test]
fn a_full_check_goes_on_only_where_it_is_believed() {
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    // Of the survey and of the pass four epochs and the end, of the check two epochs.
    let left = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Journal(12), 1, None);
    let progress: Progress = serde_json::from_str(&left.journal.unwrap()).unwrap();
    let running = progress.running.as_ref().unwrap();
    assert!(running.report.act.expects().is_some() && running.upto > 0, "{running:?}");
    let content = left.disk.durable().to_vec();
    for believed in [true, false] {
        let resume = Some(Resume { progress: progress.clone(), believed });
        let end = work(content.clone(), &plan, Faults::default(), Cut::Never, 2, resume);
        assert_eq!(end.report.verdict, Verdict::Wiped);
        assert_eq!(end.report.verification.as_ref().unwrap().bytes_read, SIZE as u64);
        let expected = if believed { 0 } else { SIZE as u64 };
        assert_eq!(end.report.resumed[0].reread_bytes, expected);
    }
}

/// The test can see: where a wrong journal is believed, what is below its last epoch is not read.
#[test]
fn the_sweep_would_see_a_journal_that_is_ahead_of_the_disk() {
    let (_, plan, mut progress) = stopped_early(Faults::default());
    progress.running.as_mut().unwrap().upto = SIZE as u64;
    let resume = Some(Resume { progress, believed: false });
    let plan = Plan { steps: plan.steps[..2].to_vec(), ..plan };
    let end = work(vec![SECRET; SIZE], &plan, Faults::default(), Cut::Never, 2, resume);
    assert_eq!(end.report.resumed[0].differing_bytes, SIZE as u64, "it is not believed, but read");
    judge(&end, &plan, "a journal that is ahead costs time only");
}
