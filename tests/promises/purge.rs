//! A purge is claimed only with proof: the parts of one, over simulated drives that are honest or lie.

use std::time::Duration;

use efface::internals::engine::purge::conclusion::{
    Canaries, Conclusion, DriveStatus, FormatEvidence, Proof, SanitizeEvidence, Settled, Unproven, conclude,
};
use efface::internals::engine::purge::orders::{Order, order};
use efface::internals::engine::purge::whole::{Change, DriveShape};
use efface::internals::io::passthrough::nvme::Unknown;
use efface::internals::io::passthrough::nvme::commands::Exit;
use efface::internals::io::passthrough::nvme::offers::offers;
use efface::internals::io::passthrough::nvme::probe::{SubsystemFacts, probe, sanitize_log};
use efface::internals::io::passthrough::nvme::status::Answer;
use efface::internals::io::passthrough::sim::nvme::{Lie, NamespaceSetup, NvmeSim, Setup};
use efface::internals::io::passthrough::{PassThrough, ReadOnly};
use efface::internals::io::{Disk, Op};
use efface::internals::plan::{Attempt, Ladder, PurgePolicy, Rung};
use efface::internals::range::Extent;

fn changes(before: &SubsystemFacts, after: &SubsystemFacts) -> Vec<Change> {
    DriveShape::of(before).changes(&DriveShape::of(after))
}

const SIZE: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const CANARIES: u64 = 64;
/// Once in this time the status is asked for.
const POLL: Duration = Duration::from_secs(10);
/// Twenty times as long as an operation takes.
const POLLS_MAX: usize = 200;

fn setup() -> Setup {
    let content: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8 | 1).collect();
    let mut setup = Setup::of(content);
    let second = NamespaceSetup { nsid: 2, ..setup.namespaces[0].clone() };
    setup.namespaces.push(second);
    setup.controllers[0].attached = vec![1, 2];
    setup
}

/// What a drive is sent and answers, from the probe to the read-back: no journal, no bars, no claim.
struct Purge {
    sim: NvmeSim,
    before: SubsystemFacts,
    /// What the first canary of each namespace holds, and the others alike.
    offset: u64,
}

fn canary(nsid: u32, number: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    block
        .iter_mut()
        .zip(0..)
        .for_each(|(byte, at): (&mut u8, u64)| *byte = (nsid as u64 * 31 + number * 7 + at) as u8);
    block
}

impl Purge {
    /// Probes, and writes canaries from this offset on, a fixed way apart.
    fn new(setup: Setup, offset: u64) -> Purge {
        let sim = NvmeSim::new(setup);
        let before = probe(&mut ReadOnly::new(sim.path(0)));
        let purge = Purge { sim, before, offset };
        for nsid in [1, 2] {
            let mut disk = purge.sim.disk(nsid);
            for number in 0..CANARIES {
                let mut buf = disk.buffers(1, BLOCK as usize).unwrap().remove(0);
                buf.copy_from_slice(&canary(nsid, number));
                disk.submit(Op::Write { at: purge.place(number), buf }).unwrap();
                let mut done = Vec::new();
                disk.reap(&mut done, None).unwrap();
                done.remove(0).result.unwrap();
            }
            disk.flush().unwrap();
        }
        assert_eq!(purge.canaries(), Canaries { gone: 0, alive: 2 * CANARIES, unread: 0 });
        purge
    }

    fn place(&self, number: u64) -> u64 {
        (self.offset + number * (SIZE / CANARIES)) / BLOCK * BLOCK
    }

    fn canaries(&self) -> Canaries {
        let mut found = Canaries::default();
        for (nsid, number) in
            [1, 2].into_iter().flat_map(|nsid| (0..CANARIES).map(move |number| (nsid, number)))
        {
            let mut disk = self.sim.disk(nsid);
            let buf = disk.buffers(1, BLOCK as usize).unwrap().remove(0);
            disk.submit(Op::Read { at: self.place(number), buf }).unwrap();
            let mut done = Vec::new();
            disk.reap(&mut done, None).unwrap();
            let done = done.remove(0);
            match done.result {
                Err(_) => found.unread += 1,
                Ok(_) if done.op.into_buf().unwrap()[..] == canary(nsid, number) => found.alive += 1,
                Ok(_) => found.gone += 1,
            }
        }
        found
    }

    fn now(&self) -> SubsystemFacts {
        probe(&mut ReadOnly::new(self.sim.path(0)))
    }

    fn settled(&self) -> Settled {
        Settled {
            canaries: self.canaries(),
            unknown: Vec::new(),
            changes: changes(&self.before, &self.now()),
        }
    }

    fn order(&self, rung: Rung) -> Order {
        order(rung, &self.before, &[1, 2], Exit::Restricted).unwrap()
    }

    /// Every status from the command to the end, and the evidence.
    fn sanitize(&self, rung: Rung) -> (Vec<DriveStatus>, SanitizeEvidence) {
        let Order::Sanitize(sanitize) = self.order(rung) else { panic!("{rung} is no sanitize") };
        let mut path = self.sim.path(0);
        let before = sanitize_log(&mut ReadOnly::new(&mut path)).ok();
        let answer = Answer::of(&path.send(&sanitize.request()));
        let mut evidence = SanitizeEvidence::new(sanitize.dword_10(), before, answer);
        let mut seen = Vec::new();
        for _ in 0..POLLS_MAX {
            evidence.add(sanitize_log(&mut ReadOnly::new(&mut path)));
            seen.push(evidence.status());
            if !matches!(evidence.status(), DriveStatus::Running(_)) {
                break;
            }
            self.sim.clock().advance(POLL);
        }
        (seen, evidence)
    }

    /// Of a sanitize, what the drive's status comes to, and all of it with what was read back.
    fn conclude(&self, rung: Rung) -> (DriveStatus, Conclusion) {
        let (_, evidence) = self.sanitize(rung);
        (evidence.status(), conclude(evidence.status(), Some(&self.settled())))
    }

    fn format(&self, rung: Rung) -> (DriveStatus, Conclusion) {
        let Order::Format(requests) = self.order(rung) else { panic!("{rung} is no format") };
        let mut path = self.sim.path(0);
        let answers = requests.iter().map(|request| Answer::of(&path.send(request))).collect();
        let mut evidence = FormatEvidence::new(answers);
        for _ in 0..POLLS_MAX {
            evidence.add(self.now().namespaces.as_deref().unwrap_or_default());
            if !matches!(evidence.status(), DriveStatus::Running(_)) {
                break;
            }
            self.sim.clock().advance(POLL);
        }
        (evidence.status(), conclude(evidence.status(), Some(&self.settled())))
    }
}

fn lying(lie: Lie) -> Purge {
    Purge::new(Setup { lie: Some(lie), ..setup() }, 0)
}

const DONE: Conclusion = Conclusion::Done { proof: Proof::SeenRunning, unread: 0 };
const ALIVE: Conclusion = Conclusion::Surviving(2 * CANARIES);

#[test]
fn an_honest_drive_is_purged_by_every_rung_that_it_offers() {
    for rung in [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::SanitizeOverwrite] {
        assert_eq!(Purge::new(setup(), 0).conclude(rung).1, DONE, "{rung}");
    }
    let completed = Conclusion::Done { proof: Proof::Completion, unread: 0 };
    for rung in [Rung::FormatCrypto, Rung::FormatUserData] {
        assert_eq!(Purge::new(setup(), 0).format(rung).1, completed, "{rung}");
    }
    // An operation that ends before it can be seen.
    let quick = Setup { sanitize_time: Duration::ZERO, ..setup() };
    let erased = Conclusion::Done { proof: Proof::GlobalDataErased, unread: 0 };
    assert_eq!(Purge::new(quick.clone(), 0).conclude(Rung::SanitizeBlock).1, erased);
    // The same one once more: the status names the command already.
    let again = Setup { last: Some((1 | 1 << 8, 2)), ..quick };
    assert_eq!(Purge::new(again, 0).conclude(Rung::SanitizeBlock).1, erased);
}

/// Beside the conclusion, what the drive's own status alone comes to: which check finds which lie.
#[test]
fn each_lie_is_found_by_the_status_or_by_the_canaries() {
    let conclude = |lie| lying(lie).conclude(Rung::SanitizeBlock);
    let by_status = |status: DriveStatus| matches!(status, DriveStatus::Done(_));

    // The canaries alone.
    for lie in [Lie::DoesNothing, Lie::DoneAtOnce, Lie::StaleReads(Duration::from_secs(60))] {
        let (status, conclusion) = conclude(lie);
        assert_eq!((by_status(status), conclusion), (true, ALIVE), "{lie:?}");
    }
    let (status, conclusion) = conclude(Lie::KeepsRegion(Extent::at(SIZE / 2, SIZE / 64)));
    assert_eq!((by_status(status), conclusion), (true, Conclusion::Surviving(2)));

    // The status alone: all canaries are gone.
    let (status, conclusion) = conclude(Lie::WrongCommand);
    assert_eq!(status, DriveStatus::Unproven(Unproven::OtherCommand(4)));
    assert_eq!(conclusion, Conclusion::Unproven(Unproven::OtherCommand(4)));

    // Both.
    let (status, conclusion) = conclude(Lie::IgnoresCommand);
    assert_eq!((status, conclusion), (DriveStatus::Unproven(Unproven::NeverStarted), ALIVE));
    let done_before = Setup { last: Some((1, 2)), lie: Some(Lie::IgnoresCommand), ..setup() };
    let (status, conclusion) = Purge::new(done_before, 0).conclude(Rung::SanitizeBlock);
    assert_eq!((status, conclusion), (DriveStatus::Unproven(Unproven::NoChange), ALIVE));

    // It never ends, and that is said.
    let (status, conclusion) = conclude(Lie::Stuck);
    assert_eq!(status, DriveStatus::Running(Some(655)));
    assert!(!matches!(conclusion, Conclusion::Done { .. }));
}

/// A status that is odd while it runs, and honest at its end.
#[test]
fn odd_progress_is_shown_as_it_is_and_proves_nothing() {
    let purge = lying(Lie::NoProgress);
    let (seen, evidence) = purge.sanitize(Rung::SanitizeBlock);
    assert_eq!(seen[..10], vec![DriveStatus::Running(None); 10], "FFFFh is not the end");
    assert_eq!(evidence.status(), DriveStatus::Done(Proof::SeenRunning));
    let purge = lying(Lie::FallsBack);
    let (seen, evidence) = purge.sanitize(Rung::SanitizeBlock);
    let progress = |status: &DriveStatus| match status {
        DriveStatus::Running(progress) => *progress,
        _ => None,
    };
    let progress: Vec<u16> = seen.iter().filter_map(progress).collect();
    assert!(!progress.is_sorted() && progress.len() == 10, "{progress:?}");
    assert_eq!(conclude(evidence.status(), Some(&purge.settled())), DONE);
}

/// Nothing that software can read shows these: the record names them as limits.
#[test]
fn what_no_check_can_find_is_known() {
    let purge = lying(Lie::DeallocatesOnly);
    assert_eq!(purge.conclude(Rung::SanitizeBlock).1, DONE);
    assert!(purge.sim.physical(1).starts_with(&canary(1, 0)), "it is all there");
    // A region without a canary; the survey and a full read-back look at more than canaries.
    let purge = lying(Lie::KeepsRegion(Extent::at(BLOCK, BLOCK)));
    assert_eq!(purge.conclude(Rung::SanitizeBlock).1, DONE);
    // Reads that are stale no longer.
    let purge = lying(Lie::StaleReads(Duration::from_secs(60)));
    let (_, evidence) = purge.sanitize(Rung::SanitizeBlock);
    purge.sim.clock().advance(Duration::from_secs(60));
    assert_eq!(conclude(evidence.status(), Some(&purge.settled())), DONE);
}

#[test]
fn a_failure_and_a_refusal_are_what_they_are() {
    let failing = Purge::new(Setup { sanitize_fails: true, ..setup() }, 0);
    let (status, conclusion) = failing.conclude(Rung::SanitizeBlock);
    assert_eq!((status, conclusion), (DriveStatus::Failed, Conclusion::Failed));
    assert_eq!(failing.canaries(), Canaries { gone: 0, alive: 0, unread: 2 * CANARIES });

    let refusing = Purge::new(Setup { memory_region: true, ..setup() }, 0);
    let (status, _) = refusing.conclude(Rung::SanitizeBlock);
    let DriveStatus::NotStarted(Answer::Refused(status)) = status else { panic!("{status:?}") };
    let words = "Sanitize Prohibited While Persistent Memory Region is Enabled (123h)";
    assert_eq!(status.to_string(), words);
}

#[test]
fn without_an_answer_the_drive_is_asked_what_became_of_the_command() {
    let taken = Purge::new(setup(), 0);
    taken.sim.lose_next_reply(true);
    assert_eq!(taken.conclude(Rung::SanitizeBlock).1, DONE);
    let lost = Purge::new(setup(), 0);
    lost.sim.lose_next_reply(false);
    let (status, conclusion) = lost.conclude(Rung::SanitizeBlock);
    assert_eq!((status, conclusion), (DriveStatus::Unproven(Unproven::NeverStarted), ALIVE));
    // No status names a format.
    let formatted = Purge::new(setup(), 0);
    formatted.sim.lose_next_reply(true);
    let (status, conclusion) = formatted.format(Rung::FormatCrypto);
    let unproven = Unproven::NoAnswer;
    assert_eq!((status, conclusion), (DriveStatus::Unproven(unproven), Conclusion::Unproven(unproven)));
}

#[test]
fn a_drive_that_comes_back_in_another_shape_is_no_success() {
    let purge = Purge::new(setup(), 0);
    let (_, evidence) = purge.sanitize(Rung::SanitizeBlock);
    let changed = |change: fn(&mut SubsystemFacts), expected: &[Change]| {
        let mut after = purge.now();
        change(&mut after);
        let settled = Settled {
            canaries: purge.canaries(),
            unknown: Vec::new(),
            changes: changes(&purge.before, &after),
        };
        assert_eq!(settled.changes, expected);
        let conclusion = conclude(evidence.status(), Some(&settled));
        let same = expected.is_empty();
        assert_eq!(conclusion, if same { DONE } else { Conclusion::Changed(expected.to_vec()) });
    };
    changed(|_| {}, &[]);
    changed(|after| after.controller.as_mut().unwrap().id = 5, &[]);
    let name = |serial: &str| format!("Simulated NVMe drive {serial}");
    let drive = Change::Drive { before: name("SIM-SERIAL-000000001"), after: name("1234") };
    changed(|after| after.controller.as_mut().unwrap().serial = "1234".into(), &[drive]);
    let shapes: [fn(&mut SubsystemFacts); 4] = [
        |after| after.namespaces.as_mut().unwrap()[1].namespace.as_mut().unwrap().blocks = 1 << 21,
        |after| after.namespaces.as_mut().unwrap()[1].namespace.as_mut().unwrap().capacity_blocks -= 1,
        |after| after.namespaces.as_mut().unwrap()[1].namespace.as_mut().unwrap().format = None,
        |after| after.namespaces.as_mut().unwrap()[1].namespace.as_mut().unwrap().nguid = None,
    ];
    shapes.into_iter().for_each(|shape| changed(shape, &[Change::Shape { nsid: 2 }]));
    changed(|after| drop(after.namespaces.as_mut().unwrap().remove(0)), &[Change::Gone { nsid: 1 }]);
    changed(
        |after| after.namespaces.as_mut().unwrap()[0].nsid = 9,
        &[Change::Gone { nsid: 1 }, Change::New { nsid: 9 }],
    );
    let gone = [Change::Gone { nsid: 1 }];
    changed(|after| after.namespaces.as_mut().unwrap()[0].namespace = Err(Unknown::Zeroes), &gone);
    changed(|after| after.namespaces = Err(Unknown::Zeroes), &[Change::Unread]);
    changed(|after| after.controller = Err(Unknown::Ones), &[Change::Unread]);
}

/// FNA from 0 to 3, block formats up to an index above 15: after a format each namespace is what it was.
#[test]
fn a_format_keeps_block_size_metadata_and_protection_of_each_namespace() {
    // FLBAS and DPS: 512; 4096 with 8 bytes, extended, type 2 in the first of them; format 18.
    let formats = [(0, 0), (0b1_0011, 0b1010), (0b010_0010, 0b0011)];
    for (fna, first, second) in (0..4).flat_map(|fna| {
        formats.into_iter().flat_map(move |one| formats.into_iter().map(move |two| (fna, one, two)))
    }) {
        let mut setup = Setup { fna: 0b0100 | fna, ..setup() };
        for (namespace, (flbas, dps)) in setup.namespaces.iter_mut().zip([first, second]) {
            (namespace.flbas, namespace.dps) = (flbas, dps);
        }
        let purge = Purge::new(setup, 0);
        let ladder =
            Ladder::new(&offers(&purge.before), &PurgePolicy { or_clear: true, ..PurgePolicy::default() });
        let offered = ladder.attempts.contains(&Attempt::Single(Rung::FormatUserData));
        assert_eq!(offered, fna & 1 == 0 || first == second, "FNA {fna}, {first:?}, {second:?}");
        if offered {
            let completed = Conclusion::Done { proof: Proof::Completion, unread: 0 };
            assert_eq!(purge.format(Rung::FormatUserData).1, completed, "FNA {fna}");
            assert_eq!(purge.now().namespaces, purge.before.namespaces);
        }
    }
}

#[test]
fn a_probe_in_every_state_sends_queries_alone_and_changes_nothing() {
    let states = [None, Some((1, 2)), Some((3, 2)), Some((3, 0xa))];
    let drives = states.into_iter().flat_map(|last| {
        [true, false].into_iter().flat_map(move |locked| (0..8).map(move |sanicap| (last, locked, sanicap)))
    });
    for (last, locked, sanicap) in drives {
        let mut setup = Setup { last, locked, sanicap, ..setup() };
        setup.namespaces[1].write_protected = locked;
        let sim = NvmeSim::new(setup);
        let facts = probe(&mut ReadOnly::new(sim.path(0)));
        Ladder::new(&offers(&facts), &PurgePolicy::default());
        let requests = sim.requests();
        assert!(requests.len() > 5 && requests.iter().all(|request| request.only_reads()), "{requests:?}");
        assert_eq!(sim.physical(1), sim.physical(2));
    }
    // While an operation runs, too.
    let running = Purge::new(setup(), 0);
    let Order::Sanitize(sanitize) = running.order(Rung::SanitizeBlock) else { panic!() };
    running.sim.path(0).send(&sanitize.request());
    let sent = running.sim.requests().len();
    let facts = running.now();
    assert!(running.sim.requests()[sent..].iter().all(|request| request.only_reads()));
    let attempts = Ladder::new(&offers(&facts), &PurgePolicy::default()).attempts;
    assert_eq!(attempts, [], "nothing is begun beside it");
}
