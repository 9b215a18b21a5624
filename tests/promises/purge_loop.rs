//! The loop of a purge over simulated drives: what is sent, what it is taken for, and what the report proves.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use efface::internals::engine::event::{Emitter, Event};
use efface::internals::engine::purge::conclusion::{Canaries, Conclusion, Proof, Unproven};
use efface::internals::engine::purge::job::{OpenNamespace, PurgeCheckpoint, PurgeContext, resume, run};
use efface::internals::engine::purge::known::IoContext;
use efface::internals::engine::purge::report::PurgeReport;
use efface::internals::engine::{Settings, Stop};
use efface::internals::io::passthrough::nvme::status::{Answer, Status};
use efface::internals::io::passthrough::sim::nvme::{
    Lie, NamespaceDisk, NamespaceSetup, NvmeSim, Setup, SimPath,
};
use efface::internals::io::passthrough::{NvmeCommand, Outcome, PassThrough, Reply, Request};
use efface::internals::io::{Buf, Clock, Disk, Done, Geometry, IoPath, Op};
use efface::internals::pattern::Seed;
use efface::internals::plan::{Choice, PurgePolicy, Rung, WhyNot};
use efface::internals::range::Extent;
use efface::internals::verdict::Verdict;

mod resume;

const SIZE: u64 = 4 << 20;
const SANITIZE: u8 = 0x84;
const FORMAT: u8 = 0x80;
const HOUR: Duration = Duration::from_secs(3600);

/// Two namespaces of text, in blocks of 512 and of 4096 bytes.
fn setup() -> Setup {
    let content: Vec<u8> = (0..SIZE).map(|at| b"of a tenant "[at as usize % 12]).collect();
    let mut setup = Setup::of(content);
    let second = NamespaceSetup { nsid: 2, flbas: 1, ..setup.namespaces[0].clone() };
    setup.namespaces.push(second);
    setup.controllers[0].attached = vec![1, 2];
    setup
}

struct Run {
    report: PurgeReport,
    events: Receiver<(usize, Event)>,
    sim: NvmeSim,
}

impl Run {
    /// What was sent beside queries: opcode, namespace, dword 10.
    fn sent(&self) -> Vec<(u8, u32, u32)> {
        let sent = self.sim.requests().into_iter().filter(|request| !request.only_reads());
        sent.map(|request| match request {
            Request::Nvme(it) => (it.opcode, it.nsid, it.dwords[0]),
            Request::Scsi(_) => panic!(),
        })
        .collect()
    }

    fn conclusions(&self) -> Vec<(Rung, Conclusion)> {
        self.report.rungs.iter().map(|rung| (rung.rung, rung.conclusion.clone())).collect()
    }

    fn canaries(&self) -> Canaries {
        self.report.rungs.last().unwrap().settled.as_ref().unwrap().canaries
    }
}

/// Whatever goes between a program and a drive.
type Between<'a> = &'a mut dyn FnMut(&mut SimPath, &Request) -> Reply;

struct Path<'a>(SimPath, Between<'a>);

impl PassThrough for Path<'_> {
    fn send(&mut self, request: &Request) -> Reply {
        (self.1)(&mut self.0, request)
    }
}

fn run_between(setup: Setup, policy: PurgePolicy, stop: &Stop, between: Between) -> Run {
    let open = |sim: &NvmeSim, nsid| Box::new(sim.disk(nsid)) as Box<dyn Disk>;
    run_on(setup, policy, stop, between, &open)
}

fn run_on(
    setup: Setup,
    policy: PurgePolicy,
    stop: &Stop,
    between: Between,
    open: &dyn Fn(&NvmeSim, u32) -> Box<dyn Disk>,
) -> Run {
    let sim = NvmeSim::new(setup);
    let (to, events) = channel();
    let emitter = Emitter::new(0, to);
    let open = |nsid| OpenNamespace { nsid, disk: open(&sim, nsid) };
    let context = PurgeContext {
        io: IoContext { settings: &Settings::default(), stop, emitter: &emitter },
        clock: &**sim.clock(),
        draw: &mut Seed::from_kernel,
        keep: &mut |_| Ok(()),
        give_up_after: Some(24 * HOUR),
    };
    let report = run(&mut Path(sim.path(0), between), &mut [open(1), open(2)], policy, context);
    assert_eq!(report.check(), Ok(()), "{report:#?}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<PurgeReport>(&json).unwrap(), report);
    Run { report, events, sim }
}

fn purge(setup: Setup, policy: PurgePolicy) -> Run {
    run_between(setup, policy, &Stop::default(), &mut |path, request| path.send(request))
}

fn lying(lie: Lie) -> Run {
    purge(Setup { lie: Some(lie), ..setup() }, PurgePolicy::default())
}

fn by(rung: Rung) -> PurgePolicy {
    PurgePolicy { choice: Choice::By(rung), or_clear: true, ..PurgePolicy::default() }
}

#[test]
fn each_rung_of_an_honest_drive_is_sent_once_and_proven() {
    let rungs = [
        (Rung::SanitizeBlock, vec![(SANITIZE, 0, 0x02)], Proof::SeenRunning),
        (Rung::SanitizeCrypto, vec![(SANITIZE, 0, 0x04)], Proof::SeenRunning),
        (Rung::SanitizeOverwrite, vec![(SANITIZE, 0, 0x13)], Proof::SeenRunning),
        (Rung::FormatCrypto, vec![(FORMAT, 1, 0x400), (FORMAT, 2, 0x401)], Proof::Completion),
        (Rung::FormatUserData, vec![(FORMAT, 1, 0x200), (FORMAT, 2, 0x201)], Proof::Completion),
    ];
    for (rung, sent, proof) in rungs {
        let run = purge(setup(), by(rung));
        assert_eq!(run.report.verdict, Verdict::Erased, "{rung}: {:?}", run.report);
        assert_eq!(run.sent(), sent, "{rung}");
        assert_eq!(run.conclusions(), [(rung, Conclusion::Done { proof, unread: 0 })]);
        let Canaries { gone, alive, unread } = run.canaries();
        let blocks = SIZE / 512 + SIZE / 4096;
        assert_eq!((alive, unread), (0, 0), "{rung}");
        assert_eq!(gone, blocks, "of so small a drive all is surveyed");
        let [first, second] = &run.report.rungs[0].namespaces[..] else { panic!("two namespaces") };
        assert_eq!((first.canary_blocks, second.canary_blocks), (64 * 8, 64));
        let classes = first.after;
        assert_eq!(classes.random + classes.zeroes, SIZE / 512, "{classes:?}");
        assert_eq!(classes.random > 0, rung.is_crypto(), "{classes:?}");
        assert_eq!(first.tidied, rung.is_crypto().then_some(true));
        let took = run.report.rungs[0].milliseconds;
        assert!(took >= 100_000, "{rung} takes 100 s, by command or behind it: {took} ms");
    }
}

#[test]
fn after_a_change_of_keys_no_partition_table_is_left_to_be_seen() {
    let run = purge(setup(), by(Rung::SanitizeCrypto));
    let media = run.sim.physical(1);
    let mib = 1 << 20;
    assert!(media[..mib].iter().chain(&media[media.len() - mib..]).all(|byte| *byte == 0));
    assert!(media[mib..media.len() - mib].iter().any(|byte| *byte != 0));
}

/// Which verdict each lie comes to.
#[test]
fn a_lie_is_no_success() {
    let surviving = [
        Lie::DoesNothing,
        Lie::IgnoresCommand,
        Lie::DoneAtOnce,
        Lie::KeepsRegion(Extent::at(SIZE / 2, 4096)),
        Lie::StaleReads(HOUR),
    ];
    for lie in surviving {
        let run = lying(lie);
        assert_eq!(run.report.verdict, Verdict::Surviving, "{lie:?}");
        assert!(run.canaries().alive > 0, "{lie:?}");
        assert_eq!(run.sent().len(), 1, "{lie:?}: no quiet second-best");
    }
    let run = lying(Lie::WrongCommand);
    let unproven = Conclusion::Unproven(Unproven::OtherCommand(4));
    assert_eq!((run.report.verdict, &run.conclusions()[0].1), (Verdict::Failed, &unproven));
    for lie in [Lie::NoProgress, Lie::FallsBack] {
        assert_eq!(lying(lie).report.verdict, Verdict::Erased, "{lie:?} is odd, and no lie about its end");
    }
}

#[test]
fn the_same_command_done_before_is_no_proof() {
    let before = Setup { last: Some((1, 2)), lie: Some(Lie::IgnoresCommand), ..setup() };
    let run = purge(before, PurgePolicy::default());
    assert_eq!(run.report.verdict, Verdict::Surviving);
    // Of a drive of zeroes the canaries alone are known.
    let mut zeroes = Setup { last: Some((1 | 1 << 8, 2)), lie: Some(Lie::IgnoresCommand), ..setup() };
    zeroes.namespaces.iter_mut().for_each(|namespace| namespace.content.fill(0));
    let run = purge(zeroes, PurgePolicy::default());
    assert_eq!((run.report.verdict, run.canaries().alive), (Verdict::Surviving, 64 * 8 + 64));
}

#[test]
fn an_operation_without_progress_is_reported_and_given_up_only_when_asked() {
    let run = lying(Lie::Stuck);
    assert!(run.report.error.as_ref().unwrap().contains("goes on alone"), "{:?}", run.report.error);
    assert_eq!(run.report.verdict, Verdict::Failed);
    assert_eq!(run.conclusions()[0].1, Conclusion::Running(Some(655)));
    let late = run.events.try_iter().filter(|(_, event)| {
        matches!(event, Event::Late { operation: "erase", seconds, .. } if *seconds >= HOUR.as_secs())
    });
    assert_eq!(late.count(), 1);
}

#[test]
fn a_rung_that_began_and_failed_ends_the_job() {
    let run = purge(Setup { sanitize_fails: true, ..setup() }, PurgePolicy::default());
    assert_eq!((run.report.verdict, run.sent()), (Verdict::Failed, vec![(SANITIZE, 0, 2)]));
    assert_eq!(run.conclusions(), [(Rung::SanitizeBlock, Conclusion::Failed)]);
    // It refuses every read, and not all of them are tried.
    let unusable = run.events.try_iter().filter(|(_, event)| matches!(event, Event::Unusable { .. })).count();
    assert!(unusable < 200 && run.canaries().gone == 0 && run.canaries().unread > 100, "{unusable}");
    // The same before the command, of a drive that is locked.
    let run = purge(Setup { locked: true, ..setup() }, PurgePolicy::default());
    assert_eq!(run.report.verdict, Verdict::Failed);
    let unusable = run.events.try_iter().filter(|(_, event)| matches!(event, Event::Unusable { .. })).count();
    assert!(unusable < 100, "{unusable}");
    // A reason that is not the command's: the others would be no better.
    let run = purge(Setup { memory_region: true, ..setup() }, PurgePolicy::default());
    assert_eq!((run.report.verdict, run.sent()), (Verdict::Failed, vec![(SANITIZE, 0, 2)]));
}

/// A drive that says it has a command, and does not take it.
fn refusing(dword: u32, policy: PurgePolicy) -> Run {
    run_between(setup(), policy, &Stop::default(), &mut |path, request| match request {
        Request::Nvme(NvmeCommand { opcode: SANITIZE, dwords, .. }) if dwords[0] == dword => {
            Reply::of(Outcome::Status(0x4002))
        }
        _ => path.send(request),
    })
}

#[test]
fn a_command_that_the_drive_does_not_have_is_followed_by_the_next_rung() {
    let run = refusing(2, PurgePolicy::default());
    let refused = Conclusion::NotStarted(Answer::Refused(Status(0x4002)));
    let done = Conclusion::Done { proof: Proof::SeenRunning, unread: 0 };
    assert_eq!(run.conclusions(), [(Rung::SanitizeBlock, refused), (Rung::SanitizeCrypto, done)]);
    assert_eq!((run.report.verdict, run.sent()), (Verdict::Erased, vec![(SANITIZE, 0, 4)]));
    let alone = refusing(2, by(Rung::SanitizeBlock));
    assert_eq!((alone.report.verdict, alone.sent()), (Verdict::Failed, vec![]));
}

#[test]
fn of_two_rungs_together_both_are_needed() {
    let both = PurgePolicy { choice: Choice::Both, ..PurgePolicy::default() };
    let run = purge(setup(), both);
    assert_eq!(run.sent(), [(SANITIZE, 0, 4), (SANITIZE, 0, 2)]);
    assert_eq!((run.report.verdict, run.report.rungs.len()), (Verdict::Erased, 2));
    let half = refusing(2, both);
    assert_eq!((half.report.verdict, half.report.rungs.len()), (Verdict::Failed, 2));
    assert_eq!(half.sent(), [(SANITIZE, 0, 4)]);
}

#[test]
fn a_drive_that_offers_nothing_is_left_as_it_is() {
    let before = Setup { sanicap: 0, fna: 0, ..setup() };
    let content = NvmeSim::new(before.clone()).physical(1);
    let run = purge(before, PurgePolicy::default());
    assert_eq!((run.report.verdict, run.sent()), (Verdict::Unsupported, vec![]));
    assert_eq!(run.sim.physical(1), content, "no canary is written before it is known what can be done");
    assert!(run.report.others.contains(&(Rung::FormatUserData, WhyNot::OnlyClear)));
    assert!(run.report.error.unwrap().contains("--or-clear allows format-user-data"));
}

#[test]
fn only_the_option_allows_an_unrestricted_exit() {
    let policy = PurgePolicy { unrestricted_exit: true, ..PurgePolicy::default() };
    assert_eq!(purge(setup(), policy).sent(), [(SANITIZE, 0, 0x0a)]);
}

#[test]
fn a_signal_leaves_the_drive_to_itself_and_says_so() {
    let signal = Arc::new(AtomicUsize::new(0));
    let stop = Stop::new(signal.clone());
    let run = run_between(setup(), PurgePolicy::default(), &stop, &mut |path, request| {
        if matches!(request, Request::Nvme(NvmeCommand { opcode: SANITIZE, .. })) {
            signal.store(2, Ordering::Relaxed);
        }
        path.send(request)
    });
    assert_eq!(run.report.verdict, Verdict::Interrupted);
    assert!(matches!(run.conclusions()[..], [(Rung::SanitizeBlock, Conclusion::Running(_))]));
    assert_eq!(run.sent().len(), 1, "nothing can end it");
    // One that comes before the command: nothing was sent.
    signal.store(15, Ordering::Relaxed);
    let early = run_between(setup(), PurgePolicy::default(), &stop, &mut |path, request| path.send(request));
    assert_eq!(
        (early.report.verdict, early.sent(), early.report.rungs),
        (Verdict::Terminated, vec![], vec![])
    );
}

#[test]
fn without_an_answer_the_status_decides() {
    for (taken, verdict) in [(true, Verdict::Erased), (false, Verdict::Surviving)] {
        let mut first = true;
        let run = run_between(setup(), PurgePolicy::default(), &Stop::default(), &mut |path, request| {
            let sent = matches!(request, Request::Nvme(NvmeCommand { opcode: SANITIZE, .. }));
            if sent && std::mem::take(&mut first) {
                if taken {
                    path.send(request);
                }
                return Reply::of(Outcome::TimedOut);
            }
            path.send(request)
        });
        assert_eq!(run.report.verdict, verdict, "taken: {taken}");
        assert!(run.sent().len() <= 1, "it is not sent twice");
    }
}

/// Each change of a number in a report makes it contradict itself.
#[test]
fn a_report_that_was_changed_contradicts_itself() {
    let genuine = purge(setup(), PurgePolicy::default()).report;
    let changes: [fn(&mut PurgeReport); 8] = [
        |report| report.verdict = Verdict::Wiped,
        |report| report.rungs.clear(),
        |report| report.rungs[0].settled = None,
        |report| report.rungs[0].settled.as_mut().unwrap().canaries.alive = 1,
        |report| report.rungs[0].namespaces[1].canaries.gone -= 1,
        |report| report.rungs[0].namespaces[0].surveyed_blocks += 1,
        |report| report.rungs[0].commands[0].dword_10 = 4,
        |report| report.rungs.push(report.rungs[0].clone()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = genuine.clone();
        change(&mut changed);
        assert!(changed.check().is_err(), "change {number}");
    }
    for hidden in [Verdict::Erased, Verdict::Failed, Verdict::Interrupted] {
        let mut survives = lying(Lie::DoesNothing).report;
        (survives.verdict, survives.error) = (hidden, Some("no answer".into()));
        assert!(survives.check().is_err(), "{hidden:?}");
    }
    let mut ended_early = genuine;
    (ended_early.verdict, ended_early.error) = (Verdict::Failed, Some("no answer".into()));
    assert_eq!(ended_early.check(), Ok(()), "an error after the conclusion lowers the verdict");
    ended_early.error = None;
    assert!(ended_early.check().is_err());
}

fn with_context(
    sim: &NvmeSim,
    keep: &mut dyn FnMut(&PurgeCheckpoint) -> efface::Result<()>,
    work: impl FnOnce(&mut [OpenNamespace], PurgeContext) -> PurgeReport,
) -> PurgeReport {
    let (to, _events) = channel();
    let (emitter, stop, settings) = (Emitter::new(0, to), Stop::default(), Settings::default());
    let context = PurgeContext {
        io: IoContext { settings: &settings, stop: &stop, emitter: &emitter },
        clock: &**sim.clock(),
        draw: &mut Seed::from_kernel,
        keep,
        give_up_after: Some(24 * HOUR),
    };
    let open = |nsid| OpenNamespace { nsid, disk: Box::new(sim.disk(nsid)) as Box<dyn Disk> };
    work(&mut [open(1), open(2)], context)
}

/// A namespace whose writes are lost, or whose page cache cannot be emptied.
struct BadDisk {
    disk: NamespaceDisk,
    drops_writes: bool,
    keeps_caches: bool,
}

impl Disk for BadDisk {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn io_path(&self) -> &IoPath {
        self.disk.io_path()
    }
    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        self.disk.buffers(count, len)
    }
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let op = match op {
            Op::Write { at, buf } if self.drops_writes => Op::Read { at, buf },
            op => op,
        };
        self.disk.submit(op)
    }
    fn clock(&self) -> &dyn Clock {
        self.disk.clock()
    }
    fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
        self.disk.reap(out, until)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
    fn drop_caches(&mut self) -> io::Result<()> {
        if self.keeps_caches { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
    fn unchanged(&self, since: Instant) -> io::Result<()> {
        self.disk.unchanged(since)
    }
}

#[test]
fn only_what_was_read_from_the_media_is_known() {
    let purge = |drops_writes, keeps_caches| {
        let open = move |sim: &NvmeSim, nsid| {
            Box::new(BadDisk { disk: sim.disk(nsid), drops_writes, keeps_caches }) as Box<dyn Disk>
        };
        let send: Between = &mut |path, request| path.send(request);
        run_on(setup(), PurgePolicy::default(), &Stop::default(), send, &open).report
    };
    let canaries = |report: &PurgeReport| report.rungs[0].namespaces[0].canary_blocks;
    assert_eq!(canaries(&purge(false, false)), 64 * 8);
    let lost = purge(true, false);
    assert_eq!((canaries(&lost), lost.verdict), (0, Verdict::Erased), "the survey remains");
    let cached = purge(false, true);
    assert_eq!((canaries(&cached), cached.verdict), (0, Verdict::Failed));
    assert_eq!(cached.rungs[0].conclusion, Conclusion::Unproven(Unproven::NoCanary));
}

/// What is known of one namespace says nothing of the other.
#[test]
fn every_namespace_is_known_for_itself() {
    let open = |sim: &NvmeSim, nsid| {
        Box::new(BadDisk { disk: sim.disk(nsid), drops_writes: false, keeps_caches: nsid == 2 })
            as Box<dyn Disk>
    };
    let send: Between = &mut |path, request| path.send(request);
    let report = run_on(setup(), PurgePolicy::default(), &Stop::default(), send, &open).report;
    let rung = &report.rungs[0];
    assert!(rung.namespaces[0].canaries.gone > 0);
    assert_eq!(rung.settled.as_ref().unwrap().unknown, [2]);
    assert_eq!(rung.conclusion, Conclusion::Unproven(Unproven::NoCanary));
    assert_eq!(report.verdict, Verdict::Failed);
    let mut hidden = report.clone();
    hidden.rungs[0].settled.as_mut().unwrap().unknown.clear();
    hidden.rungs[0].conclusion = Conclusion::Done { proof: Proof::SeenRunning, unread: 0 };
    hidden.verdict = Verdict::Erased;
    assert!(hidden.check().unwrap_err().contains("hides a namespace"));
}

fn is_status_query(request: &Request) -> bool {
    matches!(request, Request::Nvme(NvmeCommand { opcode: 0x02, dwords, .. }) if dwords[0] & 0xff == 0x81)
}

/// Purges through a path that changes the answers to status queries, by their number.
fn with_status(change: impl Fn(usize, Reply) -> Reply) -> Run {
    let mut queries = 0;
    run_between(setup(), PurgePolicy::default(), &Stop::default(), &mut |path, request| {
        let reply = path.send(request);
        if !is_status_query(request) {
            return reply;
        }
        queries += 1;
        change(queries, reply)
    })
}

/// The first query is the probe's, the second is that before the command.
#[test]
fn a_status_that_is_late_or_missing_for_a_while_is_waited_for() {
    let missing = with_status(|number, reply| match number {
        5..12 => Reply::of(Outcome::TimedOut),
        _ => reply,
    });
    assert_eq!(missing.report.verdict, Verdict::Erased, "{:?}", missing.report);
    let never = |mut reply: Reply| {
        reply.data[..8].copy_from_slice(&[0xff, 0xff, 0, 0, 0, 0, 0, 0]);
        reply.data[36] = 0;
        reply
    };
    let late = with_status(|number, reply| if (3..6).contains(&number) { never(reply) } else { reply });
    assert_eq!(late.report.verdict, Verdict::Erased, "{:?}", late.report);
    let gone = with_status(|number, reply| if number > 4 { Reply::of(Outcome::TimedOut) } else { reply });
    assert_eq!(gone.conclusions()[0].1, Conclusion::Unproven(Unproven::NoStatus));
}

#[test]
fn a_signal_between_the_canaries_and_the_command_sends_nothing() {
    let signal = Arc::new(AtomicUsize::new(0));
    let mut queries = 0;
    let run =
        run_between(setup(), PurgePolicy::default(), &Stop::new(signal.clone()), &mut |path, request| {
            queries += usize::from(is_status_query(request));
            if queries == 2 {
                signal.store(2, Ordering::Relaxed);
            }
            path.send(request)
        });
    assert_eq!((run.report.verdict, run.sent()), (Verdict::Interrupted, vec![]));
}

#[test]
fn a_drive_that_comes_back_as_another_is_no_success() {
    let mut sent = false;
    let run = run_between(setup(), PurgePolicy::default(), &Stop::default(), &mut |path, request| {
        let Request::Nvme(NvmeCommand { opcode, dwords, .. }) = request else { panic!() };
        let mut reply = path.send(request);
        sent |= *opcode == SANITIZE;
        if sent && (*opcode, dwords[0]) == (0x06, 0x01) {
            reply.data[4..24].copy_from_slice(b"1234                ");
        }
        reply
    });
    assert!(matches!(run.conclusions()[..], [(_, Conclusion::Changed(_))]), "{:?}", run.report);
    assert_eq!(run.report.verdict, Verdict::Failed);
}

#[test]
fn a_format_reaches_the_named_namespace_alone() {
    let sim = NvmeSim::new(setup());
    let sibling = sim.physical(2);
    let report = with_context(&sim, &mut |_| Ok(()), |namespaces, context| {
        run(&mut sim.path(0), &mut namespaces[..1], by(Rung::FormatCrypto), context)
    });
    assert_eq!(report.verdict, Verdict::Erased);
    let commands: Vec<(u8, u32)> = report.rungs[0].commands.iter().map(|it| (it.opcode, it.nsid)).collect();
    assert_eq!(commands, [(FORMAT, 1)]);
    assert!(sim.physical(2) == sibling, "the sibling is as it was");
}
