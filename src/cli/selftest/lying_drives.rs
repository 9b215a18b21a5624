//! Simulated NVMe drives that lie about an erase, and which check detects it.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::engine::event::Emitter;
use crate::engine::purge::conclusion::DriveStatus;
use crate::engine::purge::job::{OpenNamespace, PurgeContext, run as purge};
use crate::engine::purge::known::IoContext;
use crate::engine::purge::report::PurgeReport;
use crate::engine::{Settings, Stop};
use crate::error::{Error, Result};
use crate::io::passthrough::sim::nvme::{Lie, NvmeSim, Setup};
use crate::pattern::Seed;
use crate::plan::PurgePolicy;
use crate::range::Extent;
use crate::verdict::Verdict;

const SIZE: u64 = 4 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// A drive, and what its purge has to come to.
struct DriveCase {
    what: &'static str,
    lie: Option<Lie>,
    /// Its status said before that this very command is done.
    done_before: bool,
    verdict: Verdict,
    why: &'static str,
}

fn drive_cases() -> [DriveCase; 11] {
    use Verdict::{Erased, Failed, Surviving};
    let case = |what, lie, verdict, why| DriveCase { what, lie, done_before: false, verdict, why };
    let lying = |what, lie, verdict, why| case(what, Some(lie), verdict, why);
    [
        case("none: an honest drive", None, Erased, "status and read-back agree"),
        lying("does nothing", Lie::DoesNothing, Surviving, "known blocks are still there"),
        DriveCase {
            done_before: true,
            ..lying("was done before", Lie::IgnoresCommand, Surviving, "its status never changed")
        },
        lying("works later", Lie::DoneAtOnce, Surviving, "known blocks are still there"),
        lying(
            "keeps a region",
            Lie::KeepsRegion(Extent::at(SIZE / 2, SIZE / 64)),
            Surviving,
            "known blocks are still there",
        ),
        lying("gives stale reads", Lie::StaleReads(HOUR), Surviving, "as long as the reads are stale"),
        lying("names another command", Lie::WrongCommand, Failed, "its status is about that one"),
        lying("is stuck", Lie::Stuck, Failed, "reported after an hour, given up when asked"),
        lying("shows no progress", Lie::NoProgress, Erased, "no lie about its end"),
        lying("falls back in progress", Lie::FallsBack, Erased, "no lie about its end"),
        lying("only deallocates", Lie::DeallocatesOnly, Erased, "no read reaches what is not mapped"),
    ]
}

/// Purges each drive, prints the table, and fails on an unexpected result.
pub fn run() -> Result<Verdict> {
    println!("  {:22} {:12} {:14} {:14} why", "drive", "its status", "known blocks", "the verdict");
    let mut wrong = None;
    for case in drive_cases() {
        let report = purged(&case);
        let (status, known) = words(&report);
        println!("  {:22} {status:12} {known:14} {:14} {}", case.what, report.verdict.word(), case.why);
        if report.verdict != case.verdict || report.check().is_err() {
            wrong.get_or_insert(case.what);
        }
    }
    println!();
    match wrong {
        None => Ok(Verdict::Wiped),
        Some(what) => Err(Error::failed(format!("a purge gave an unexpected result ({what})"))
            .with_remedy("do not use this build; please report it")),
    }
}

/// What the drive's status and the blocks that were read come to, each alone.
fn words(report: &PurgeReport) -> (&'static str, &'static str) {
    let Some(rung) = report.rungs.last() else { return ("nothing sent", "not read") };
    let status = match rung.evidence.status() {
        DriveStatus::Done(_) => "done",
        DriveStatus::Running(_) => "running",
        DriveStatus::Failed => "failed",
        DriveStatus::NotStarted(_) => "refused",
        DriveStatus::Unproven(_) => "not proven",
    };
    let known = match &rung.settled {
        Some(settled) if settled.canaries.alive > 0 => "survive",
        Some(_) => "gone",
        None => "not read",
    };
    (status, known)
}

fn purged(case: &DriveCase) -> PurgeReport {
    const DONE: u16 = 1;
    const BLOCK_ERASE: u32 = 2;
    let content = (0..SIZE).map(|at| b"old data "[at as usize % 9]).collect();
    let last = case.done_before.then_some((DONE, BLOCK_ERASE));
    let sim = NvmeSim::new(Setup { lie: case.lie, last, ..Setup::of(content) });
    let (to, _events) = channel();
    let (emitter, stop, settings) = (Emitter::new(0, to), Stop::default(), Settings::default());
    let namespace = OpenNamespace { nsid: 1, disk: Box::new(sim.disk(1)) };
    let context = PurgeContext {
        io: IoContext { settings: &settings, stop: &stop, emitter: &emitter },
        clock: &**sim.clock(),
        draw: &mut Seed::from_kernel,
        keep: &mut |_| Ok(()),
        give_up_after: Some(2 * HOUR),
    };
    purge(&mut sim.path(0), &mut [namespace], PurgePolicy::default(), context)
}
