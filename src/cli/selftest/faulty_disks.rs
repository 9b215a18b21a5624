//! Simulated disk faults, and which of them a full read-back detects.

use std::sync::mpsc::channel;

use crate::engine::event::Emitter;
use crate::engine::{Settings, Stop, job};
use crate::error::{Error, Result};
use crate::io::sim::{AliasFault, Faults, SimDisk};
use crate::pattern::Seed;
use crate::plan::{Device, Method, Plan, Policy};
use crate::verdict::Verdict;

const DISK: Device = Device { size: 4 << 20, logical_block: 512, physical_block: 4096 };

/// A disk fault, and whether the read-back of a zero pass and of a random pass detects it.
struct FaultCase {
    what: &'static str,
    faults: Faults,
    zero_finds_it: bool,
    random_finds_it: bool,
    why: &'static str,
}

fn fault_cases() -> [FaultCase; 8] {
    let good = Faults::default;
    let case = |what, faults, (zero_finds_it, random_finds_it), why| FaultCase {
        what,
        faults,
        zero_finds_it,
        random_finds_it,
        why,
    };
    [
        case("none: an honest disk", good(), (false, false), "wiped, and reported so"),
        case("drops writes", Faults { lose: 50, ..good() }, (true, true), "old data reads back"),
        case(
            "tears writes",
            Faults { tear: 50, ..good() },
            (true, true),
            "the end of a write reads back old",
        ),
        case(
            "misdirects writes",
            Faults { misdirect: 50, ..good() },
            (true, true),
            "the intended block keeps old data",
        ),
        case(
            "gives stale reads",
            Faults { stale: 50, ..good() },
            (true, true),
            "overwritten data reads back",
        ),
        case(
            "aliases addresses",
            Faults { alias: Some(AliasFault::StuckBit { bit: 1 << 20 }), ..good() },
            (false, true),
            "all blocks of zeroes are alike",
        ),
        case(
            "fakes its capacity",
            Faults { alias: Some(AliasFault::Wrap { capacity: 3 << 20 }), ..good() },
            (false, true),
            "all blocks of zeroes are alike",
        ),
        case(
            "lies about its flush",
            Faults { lying_flush: true, ..good() },
            (false, false),
            "only a power cut reveals it",
        ),
    ]
}

/// Wipes each faulty disk with both methods, prints the table, and fails on an unexpected result.
pub fn run() -> Result<Verdict> {
    println!("  {:22} {:10} {:10} why", "disk fault", "zero", "random");
    let mut wrong = None;
    for case in fault_cases() {
        let (zero, random) = (wipe(&case, "zero")?, wipe(&case, "random")?);
        println!("  {:22} {:10} {:10} {}", case.what, word(&case, zero), word(&case, random), case.why);
        let expected = |finds| if finds { Verdict::Surviving } else { Verdict::Wiped };
        if (zero, random) != (expected(case.zero_finds_it), expected(case.random_finds_it)) {
            wrong.get_or_insert(case.what);
        }
    }
    println!();
    match wrong {
        None => Ok(Verdict::Wiped),
        Some(what) => Err(Error::failed(format!("the verification gave an unexpected result ({what})"))
            .with_remedy("do not use this build; please report it")),
    }
}

fn word(case: &FaultCase, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Surviving => "detected",
        Verdict::Wiped if case.what.starts_with("none") => "wiped",
        Verdict::Wiped => "undetected",
        _ => "FAILED",
    }
}

fn wipe(case: &FaultCase, method: &str) -> Result<Verdict> {
    let content = vec![0xd5; DISK.size as usize];
    let mut disk = SimDisk::new(content, DISK.logical_block, DISK.physical_block, 1, case.faults.clone());
    let mut draw = || Ok(Seed([1; 32]));
    let plan = Plan::new(&Method::named(method)?, Policy::Full, DISK.area(None, None)?, &DISK, &mut draw)?;
    let settings = Settings { chunk_bytes: 32 << 10, ..Settings::default() };
    let (to, _events) = channel();
    let (emitter, stop) = (Emitter::new(0, to), Stop::default());
    let (draw, keep) = (&mut draw, &mut |_: &job::Checkpoint| {});
    let context = job::JobContext { settings: &settings, stop: &stop, emitter: &emitter, draw, keep };
    Ok(job::run(&mut disk, plan, None, context).verdict)
}
