//! The loop of a purge: survey and canaries, command, status, read-back, conclusion.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::conclusion::{
    Canaries, Conclusion, DriveStatus, FormatEvidence, SanitizeEvidence, Settled, Unproven, conclude,
};
use super::known::{BlockClasses, CanarySet, ERASE, IoContext, KnownBlocks, STEPS};
use super::orders::{Order, order};
use super::report::{
    Evidence, NamespaceReport, PurgeReport, RungReport, SentCommand, not_offered, unknown_namespaces, verdict,
};
use super::whole::{Change, DriveShape};
use crate::engine::cover::Halt;
use crate::engine::event::Event;
use crate::error::{Error, Result};
use crate::io::passthrough::nvme::commands::Exit;
use crate::io::passthrough::nvme::logs::Phase;
use crate::io::passthrough::nvme::offers::offers;
use crate::io::passthrough::nvme::probe::{SubsystemFacts, probe, sanitize_log};
use crate::io::passthrough::nvme::status::Answer;
use crate::io::passthrough::{PassThrough, ReadOnly, Request};
use crate::io::{Clock, Disk};
use crate::pattern::Seed;
use crate::plan::{Attempt, Ladder, PurgePolicy, Rung, WhyNot};
use crate::range::{Extent, ExtentSet};
use crate::verdict::Verdict;

/// How long a status that names no operation of ours may take to do so.
const GRACE: Duration = Duration::from_secs(10);
/// How long a status may be missing, as while a controller is reset.
const NO_STATUS_MAX: Duration = Duration::from_secs(600);
/// How long the namespaces of a drive may take to come back.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// An operation without progress for so long, or for twice its estimate, is reported.
const STUCK: Duration = Duration::from_secs(3600);
/// How soon a signal is seen.
const TICK: Duration = Duration::from_millis(250);

/// A namespace that the erase reaches, claimed and open.
pub struct OpenNamespace {
    /// From 1.
    pub nsid: u32,
    /// Its blocks.
    pub disk: Box<dyn Disk>,
}

/// What a purge needs besides its drive.
pub struct PurgeContext<'a> {
    pub io: IoContext<'a>,
    pub clock: &'a dyn Clock,
    /// Gives the seeds of survey and canaries.
    pub draw: &'a mut dyn FnMut() -> Result<Seed>,
    /// Keeps what another process needs, and has it durable when it returns. Where that fails no command is sent.
    pub keep: &'a mut dyn FnMut(&PurgeCheckpoint) -> Result<()>,
    /// The drive is given up after this time without an end; `None` for never.
    pub give_up_after: Option<Duration>,
}

/// What another process needs to go on with a purge: kept before a command is sent, when it was answered, and
/// before anything is written again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PurgeCheckpoint {
    /// The drive before the command.
    pub shape: DriveShape,
    /// The rung so far. A command that was not answered yet counts as one whose answer is lost.
    pub report: RungReport,
    /// Of all namespaces.
    pub canaries: Vec<CanarySet>,
}

/// Purges a drive by the first rung that it takes; [`Rung::HostOverwrite`] is left to the caller. Never fails as
/// a call: an error is part of the report.
pub fn run(
    drive: &mut dyn PassThrough,
    namespaces: &mut [OpenNamespace],
    policy: PurgePolicy,
    context: PurgeContext,
) -> PurgeReport {
    let before = probe(&mut ReadOnly::new(&mut *drive));
    let ladder = Ladder::new(&offers(&before), &policy);
    let shape = DriveShape::of(&before);
    let mut purge = PurgeRun { drive, namespaces, policy, context, shape, rungs: Vec::new() };
    let ended = match ladder.first() {
        Ok(_) => purge.try_attempts(&ladder.attempts, &before),
        Err(error) => Err(Halt::Failed(error)),
    };
    purge.end(ended, ladder.others)
}

/// Goes on with a purge whose process has ended: looks at the drive and sends no command.
pub fn resume(
    drive: &mut dyn PassThrough,
    namespaces: &mut [OpenNamespace],
    policy: PurgePolicy,
    earlier: PurgeCheckpoint,
    context: PurgeContext,
) -> PurgeReport {
    let PurgeCheckpoint { shape, report, canaries } = earlier;
    let mut purge = PurgeRun { drive, namespaces, policy, context, shape, rungs: Vec::new() };
    let ended = purge.go_on(report, &canaries);
    purge.end(ended, Vec::new())
}

struct PurgeRun<'d, 'a> {
    drive: &'d mut dyn PassThrough,
    namespaces: &'d mut [OpenNamespace],
    policy: PurgePolicy,
    context: PurgeContext<'a>,
    /// The drive before the first command.
    shape: DriveShape,
    rungs: Vec<RungReport>,
}

type Ended<T> = std::result::Result<T, Halt>;

impl PurgeRun<'_, '_> {
    fn end(self, ended: Ended<()>, others: Vec<(Rung, WhyNot)>) -> PurgeReport {
        let PurgeRun { policy, rungs, .. } = self;
        let concluded = rungs.last().map(|last| verdict(&last.conclusion));
        let (verdict, error) = match ended {
            Err(Halt::Asked(verdict)) => (verdict, None),
            Err(Halt::Failed(error) | Halt::Abandoned(error)) => {
                let refused = if rungs.is_empty() { error.kind.into() } else { Verdict::Failed };
                (refused, Some(error.to_string()))
            }
            // Given up, or it does not say any more how far it is.
            Ok(()) if rungs.last().is_some_and(|last| matches!(last.conclusion, Conclusion::Running(_))) => {
                let what = "the drive has not ended after the time that was given to it, and goes on alone";
                let error =
                    Error::failed(what).with_remedy("see what came of it later: efface purge --resume");
                (Verdict::Failed, Some(error.to_string()))
            }
            // Without a rung, the host is to overwrite it, and nothing was sent.
            Ok(()) => (concluded.unwrap_or(Verdict::Unsupported), None),
        };
        PurgeReport { verdict, policy, others, rungs, error }
    }

    /// The next attempt follows only where the drive does not have the command of this one.
    fn try_attempts(&mut self, attempts: &[Attempt], before: &SubsystemFacts) -> Ended<()> {
        let named: Vec<u32> = self.namespaces.iter().map(|namespace| namespace.nsid).collect();
        for attempt in attempts {
            for rung in attempt.rungs() {
                let Some(order) = order(*rung, before, &named, self.exit()) else { return Ok(()) };
                match self.erase(*rung, order)? {
                    conclusion if verdict(&conclusion) == Verdict::Erased => {}
                    conclusion if not_offered(&conclusion) => break,
                    _ => return Ok(()),
                }
            }
            if self.rungs.last().is_some_and(|last| !not_offered(&last.conclusion)) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        if self.policy.unrestricted_exit { Exit::Unrestricted } else { Exit::Restricted }
    }

    /// One rung, from the survey to its conclusion.
    fn erase(&mut self, rung: Rung, order: Order) -> Ended<Conclusion> {
        let known = self.prepare()?;
        let (requests, evidence) = match order {
            Order::Sanitize(sanitize) => {
                let before = sanitize_log(&mut ReadOnly::new(&mut *self.drive)).ok();
                let evidence = SanitizeEvidence::new(sanitize.dword_10(), before, Answer::Lost);
                (vec![sanitize.request()], Evidence::Sanitize(evidence))
            }
            Order::Format(requests) => {
                let evidence = FormatEvidence::new(vec![Answer::Lost; requests.len()]);
                (requests, Evidence::Format(evidence))
            }
        };
        if let Some(verdict) = self.context.io.stop.verdict() {
            return Err(Halt::Asked(verdict));
        }
        self.begin(rung, &requests, evidence, &known);
        if let Err(error) = self.keep(&known) {
            self.rungs.pop();
            return Err(Halt::Failed(error));
        }
        let begun = self.context.clock.now();
        for (number, request) in requests.iter().enumerate() {
            let answer = self.send(request);
            match &mut self.report().evidence {
                Evidence::Sanitize(evidence) => evidence.answer = answer,
                Evidence::Format(evidence) => evidence.answers[number] = answer,
            }
            self.keep_or_warn(&known);
        }
        self.report().milliseconds = (self.context.clock.now() - begun).as_millis() as u64;
        self.conclude(&known)
    }

    fn begin(&mut self, rung: Rung, requests: &[Request], evidence: Evidence, known: &[KnownBlocks]) {
        self.rungs.push(RungReport {
            rung,
            commands: requests.iter().map(SentCommand::of).collect(),
            conclusion: conclude(evidence.status(), None),
            evidence,
            milliseconds: 0,
            namespaces: self.known(known),
            settled: None,
        });
        let estimate = self
            .report()
            .estimate()
            .map_or(String::new(), |time| format!(" ({} s by the drive's estimate)", time.as_secs()));
        let step_name = format!("{rung}{estimate}");
        let started = Event::StepStarted { step: ERASE, steps: STEPS, step_name, bytes: self.bytes() };
        self.context.io.emitter.emit(started);
    }

    /// That of the rung at work.
    fn report(&mut self) -> &mut RungReport {
        self.rungs.last_mut().expect("it was begun")
    }

    fn keep(&mut self, known: &[KnownBlocks]) -> Result<()> {
        let PurgeRun { namespaces, rungs, shape, context, .. } = self;
        let canaries = namespaces.iter().zip(known).map(|(each, known)| known.canaries(each.nsid));
        let report = rungs.last().expect("it was begun").clone();
        let checkpoint = PurgeCheckpoint { shape: shape.clone(), report, canaries: canaries.collect() };
        (context.keep)(&checkpoint)
    }

    /// Once a command was sent, a checkpoint that is lost stops nothing.
    fn keep_or_warn(&mut self, known: &[KnownBlocks]) {
        self.keep(known).unwrap_or_else(|error| tracing::warn!("{error}"));
    }

    /// Of an earlier process the canaries alone can be known again.
    fn go_on(&mut self, mut report: RungReport, canaries: &[CanarySet]) -> Ended<()> {
        if let Evidence::Sanitize(evidence) = &report.evidence
            && let Ok(log) = sanitize_log(&mut ReadOnly::new(&mut *self.drive))
            && log.phase() == Phase::Running
            && log.command != evidence.command
        {
            let what =
                format!("another sanitize operation runs in the drive (dword 10 is {:#x})", log.command);
            return Err(Halt::Failed(Error::busy(what).with_remedy("try again when that has ended")));
        }
        let is_open = |nsid: u32| self.namespaces.iter().any(|each| each.nsid == nsid);
        if let Some(lost) = canaries.iter().find(|canaries| !is_open(canaries.nsid)) {
            let what = format!("namespace {}, of which canaries are known, has no block device", lost.nsid);
            return Err(Halt::Failed(Error::refused(what).with_remedy("try again when it is back")));
        }
        let known = |each: &OpenNamespace| {
            let own = canaries.iter().find(|canaries| canaries.nsid == each.nsid);
            let nothing = CanarySet { nsid: each.nsid, seed: Seed([0; 32]), places: ExtentSet::new() };
            KnownBlocks::of_earlier(&*each.disk, own.unwrap_or(&nothing)).map_err(Halt::Failed)
        };
        let known: Vec<KnownBlocks> = self.namespaces.iter().map(known).collect::<Ended<_>>()?;
        match &mut report.evidence {
            Evidence::Sanitize(evidence) => evidence.resumed = true,
            Evidence::Format(evidence) => evidence.resumed = true,
        }
        (report.namespaces, report.settled) = (self.known(&known), None);
        self.rungs.push(report);
        self.conclude(&known).map(|_| ())
    }

    /// What came of the commands.
    fn conclude(&mut self, known: &[KnownBlocks]) -> Ended<Conclusion> {
        let asked = self.poll();
        let report = self.report();
        let status = report.evidence.status();
        report.conclusion = conclude(status, None);
        let conclusion = match (status, asked) {
            (DriveStatus::Running(_), Some(verdict)) => return Err(Halt::Asked(verdict)),
            (DriveStatus::NotStarted(_) | DriveStatus::Running(_), _) => conclude(status, None),
            _ => self.settle(known)?,
        };
        self.keep_or_warn(known);
        if self.report().rung.is_crypto() && matches!(conclusion, Conclusion::Done { .. }) {
            self.tidy(known)?;
        }
        Ok(conclusion)
    }

    /// Asks for the status until it is the last, or a signal asks for an end.
    fn poll(&mut self) -> Option<Verdict> {
        let begun = self.context.clock.now();
        let mut polls = Polls::new(begun, self.report().estimate());
        let mut asked = None;
        loop {
            let PurgeRun { drive, rungs, .. } = self;
            let report = rungs.last_mut().expect("it was begun");
            match &mut report.evidence {
                Evidence::Sanitize(evidence) => evidence.add(sanitize_log(&mut ReadOnly::new(&mut **drive))),
                // It ends with its commands; one without an answer may go on.
                Evidence::Format(evidence) => {
                    let facts = probe(&mut ReadOnly::new(&mut **drive));
                    evidence.add(facts.namespaces.as_deref().unwrap_or_default());
                }
            }
            let status = report.evidence.status();
            if !self.waits(&mut polls, status, &mut asked) {
                let took = self.context.clock.now() - begun;
                self.report().milliseconds += took.as_millis() as u64;
                return asked;
            }
        }
    }

    fn prepare(&mut self) -> Ended<Vec<KnownBlocks>> {
        let PurgeRun { namespaces, context: PurgeContext { io, draw, .. }, .. } = self;
        namespaces.iter_mut().map(|each| KnownBlocks::prepare(&mut *each.disk, io, *draw)).collect()
    }

    fn known(&self, known: &[KnownBlocks]) -> Vec<NamespaceReport> {
        let report = |(namespace, known): (&OpenNamespace, &KnownBlocks)| {
            let (surveyed_blocks, canary_blocks) = known.blocks();
            NamespaceReport {
                nsid: namespace.nsid,
                size_bytes: namespace.disk.geometry().size,
                surveyed_blocks,
                canary_blocks,
                canaries: Canaries::default(),
                after: BlockClasses::default(),
                tidied: None,
            }
        };
        self.namespaces.iter().zip(known).map(report).collect()
    }

    /// Of all namespaces.
    fn bytes(&self) -> u64 {
        self.namespaces.iter().map(|namespace| namespace.disk.geometry().size).sum()
    }

    /// What the watchdog sees while a command is with the drive.
    fn send(&mut self, request: &Request) -> Answer {
        let all = Extent::new(0, self.bytes());
        let timeout = request.timeout();
        let calls = &self.context.io.emitter.calls;
        Answer::of(&calls.within_timeout("erase command", all, timeout, || self.drive.send(request)))
    }

    /// Waits for the next poll; `false` where this status is the last.
    fn waits(&mut self, polls: &mut Polls, status: DriveStatus, asked: &mut Option<Verdict>) -> bool {
        let all = Extent::new(0, self.bytes());
        let PurgeContext { clock, io: IoContext { stop, emitter, .. }, give_up_after, .. } = self.context;
        let now = clock.now();
        let unchanged = polls.unchanged_for(status, now);
        let goes_on = match status {
            DriveStatus::Running(progress) => {
                let done = (u128::from(all.len()) * u128::from(progress.unwrap_or(0))) >> 16;
                emitter.emit(Event::Progress { step: ERASE, bytes: done as u64 });
                true
            }
            DriveStatus::Unproven(Unproven::NeverStarted | Unproven::NoAnswer) => unchanged < GRACE,
            DriveStatus::Unproven(Unproven::NoStatus) => unchanged < NO_STATUS_MAX,
            _ => false,
        };
        if !goes_on || give_up_after.is_some_and(|limit| now - polls.begun >= limit) {
            return false;
        }
        if polls.is_newly_stuck(unchanged) {
            emitter.emit(Event::Late { at: all, operation: "erase", seconds: unchanged.as_secs() });
        }
        let next = now + polls.interval(now);
        while clock.now() < next {
            *asked = stop.verdict();
            if asked.is_some() {
                return false;
            }
            clock.sleep_until(next.min(clock.now() + TICK));
        }
        true
    }

    /// Waits until the drive shows its namespaces again, looks what is left, and concludes.
    fn settle(&mut self, known: &[KnownBlocks]) -> Ended<Conclusion> {
        let changes = self.changes_left();
        let PurgeRun { namespaces, context, rungs, .. } = self;
        let report = rungs.last_mut().expect("that of this rung");
        let failed = report.evidence.status() == DriveStatus::Failed;
        let mut canaries = Canaries::default();
        for ((namespace, known), report) in namespaces.iter_mut().zip(known).zip(&mut report.namespaces) {
            (report.canaries, report.after) = known.read_back(&mut *namespace.disk, &context.io, failed)?;
            canaries.gone += report.canaries.gone;
            canaries.alive += report.canaries.alive;
            canaries.unread += report.canaries.unread;
        }
        let unknown = unknown_namespaces(&report.namespaces);
        let settled = Settled { canaries, unknown, changes };
        report.conclusion = conclude(report.evidence.status(), Some(&settled));
        report.settled = Some(settled);
        Ok(report.conclusion.clone())
    }

    /// What is not as it was, after the time that a drive may take to come back.
    fn changes_left(&mut self) -> Vec<Change> {
        let PurgeContext { clock, io: IoContext { stop, .. }, .. } = self.context;
        let deadline = clock.now() + SETTLE_MAX;
        loop {
            let now = probe(&mut ReadOnly::new(&mut *self.drive));
            let changes = self.shape.changes(&DriveShape::of(&now));
            if changes.is_empty() || clock.now() >= deadline || stop.verdict().is_some() {
                return changes;
            }
            clock.sleep_until(clock.now() + Duration::from_secs(1));
        }
    }

    fn tidy(&mut self, known: &[KnownBlocks]) -> Ended<()> {
        let PurgeRun { namespaces, context, rungs, .. } = self;
        let report = rungs.last_mut().expect("that of this rung");
        for ((namespace, known), report) in namespaces.iter_mut().zip(known).zip(&mut report.namespaces) {
            report.tidied = Some(known.tidy(&mut *namespace.disk, &context.io)?);
        }
        Ok(())
    }
}

impl RungReport {
    /// The drive's own estimate.
    fn estimate(&self) -> Option<Duration> {
        let Evidence::Sanitize(evidence) = &self.evidence else { return None };
        let estimates = evidence.before?.estimates;
        let seconds = match self.rung {
            Rung::SanitizeBlock => estimates.block_erase_seconds,
            Rung::SanitizeCrypto => estimates.crypto_erase_seconds,
            _ => estimates.overwrite_seconds,
        };
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// When the drive is asked, and what it said last.
struct Polls {
    begun: Instant,
    estimate: Option<Duration>,
    status: Option<DriveStatus>,
    changed: Instant,
    reported: bool,
}

impl Polls {
    fn new(begun: Instant, estimate: Option<Duration>) -> Polls {
        Polls { begun, estimate, status: None, changed: begun, reported: false }
    }

    /// Each second at first, then each 30 s.
    fn interval(&self, now: Instant) -> Duration {
        Duration::from_secs(match (now - self.begun).as_secs() {
            0..10 => 1,
            10..60 => 5,
            _ => 30,
        })
    }

    /// How long this has been the status.
    fn unchanged_for(&mut self, status: DriveStatus, now: Instant) -> Duration {
        if self.status.replace(status) != Some(status) {
            (self.changed, self.reported) = (now, false);
        }
        now - self.changed
    }

    /// Once, where that is too long.
    fn is_newly_stuck(&mut self, unchanged: Duration) -> bool {
        let stuck = unchanged >= STUCK.max(2 * self.estimate.unwrap_or_default());
        stuck && !std::mem::replace(&mut self.reported, stuck)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::event::Emitter;
    use crate::engine::watchdog::CallMonitor;
    use crate::engine::{Settings, Stop};
    use crate::io::passthrough::Reply;
    use crate::io::passthrough::sim::nvme::{NvmeSim, Setup, SimPath};
    use crate::plan::Choice;

    /// Keeps the time that the watchdog allows for the command that erases.
    struct Watched(SimPath, CallMonitor, Option<Duration>);

    impl PassThrough for Watched {
        fn send(&mut self, request: &Request) -> Reply {
            if !request.only_reads() {
                self.2 = self.1.current().map(|call| call.timeout);
            }
            self.0.send(request)
        }
    }

    #[test]
    fn a_format_is_waited_for_as_long_as_the_kernel_waits_for_it() {
        let sim = NvmeSim::new(Setup::of((0..1 << 20).map(|at| b"old data "[at % 9]).collect()));
        let (to, _events) = channel();
        let (emitter, stop, settings) = (Emitter::new(0, to), Stop::default(), Settings::default());
        let context = PurgeContext {
            io: IoContext { settings: &settings, stop: &stop, emitter: &emitter },
            clock: &**sim.clock(),
            draw: &mut Seed::from_kernel,
            keep: &mut |_| Ok(()),
            give_up_after: None,
        };
        let mut namespace = [OpenNamespace { nsid: 1, disk: Box::new(sim.disk(1)) }];
        let mut drive = Watched(sim.path(0), emitter.calls.clone(), None);
        let policy = PurgePolicy { choice: Choice::By(Rung::FormatCrypto), ..PurgePolicy::default() };
        let report = run(&mut drive, &mut namespace, policy, context);
        assert_eq!(report.verdict, Verdict::Erased);
        let named = [1];
        let order =
            order(Rung::FormatCrypto, &probe(&mut ReadOnly::new(sim.path(0))), &named, Exit::Restricted);
        let Some(Order::Format(requests)) = order else { panic!("a format") };
        assert_eq!(drive.2, Some(requests[0].timeout()));
        assert!(drive.2 > Some(Duration::ZERO));
    }
}
