//! Which lies of a disk does a full read-back catch, and which can none catch?

use std::sync::mpsc::channel;

use crate::engine::event::Emitter;
use crate::engine::{Settings, Stop, job};
use crate::error::{Error, Result};
use crate::io::sim::{AliasFault, Faults, SimDisk};
use crate::pattern::Seed;
use crate::plan::{Device, Method, Plan, Policy};
use crate::verdict::Verdict;

const DISK: Device = Device { size: 4 << 20, logical_block: 512, physical_block: 4096 };

/// A lie, and what is true of it: found out with a pass of zeroes, and with a random one.
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
        case("none: an honest disk", good(), (false, false), "wiped, and said so"),
        case("drops writes", Faults { lose: 50, ..good() }, (true, true), "old data reads back"),
        case("tears writes", Faults { tear: 50, ..good() }, (true, true), "their ends read back old"),
        case(
            "misdirects writes",
            Faults { misdirect: 50, ..good() },
            (true, true),
            "a hole where it should be",
        ),
        case(
            "gives stale reads",
            Faults { stale: 50, ..good() },
            (true, true),
            "it shows what it said is gone",
        ),
        case(
            "aliases addresses",
            Faults { alias: Some(AliasFault::StuckBit { bit: 1 << 20 }), ..good() },
            (false, true),
            "zeroes look alike everywhere",
        ),
        case(
            "fakes its capacity",
            Faults { alias: Some(AliasFault::Wrap { capacity: 3 << 20 }), ..good() },
            (false, true),
            "zeroes look alike everywhere",
        ),
        case(
            "lies about its flush",
            Faults { lying_flush: true, ..good() },
            (false, false),
            "no reading can: only a power cut tells",
        ),
    ]
}

/// Wipes each liar with each method, prints the table, and fails where it is not as it must be.
pub fn run() -> Result<Verdict> {
    println!("  {:22} {:10} {:10} why", "the disk's lie", "zero", "random");
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
        Some(what) => Err(Error::failed(format!("the verification does not do what it should ({what})"))
            .way_out("do not use this build; please report it")),
    }
}

fn word(case: &FaultCase, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Surviving => "caught",
        Verdict::Wiped if case.what.starts_with("none") => "wiped",
        Verdict::Wiped => "not seen",
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
