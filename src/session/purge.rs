//! A purge: drives that are looked at, claimed with all that their commands reach, confirmed, and erased by
//! themselves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::targets::{Refusals, paths};
use super::{Observer, Order, Outcome, Report, RunContext, SessionJob, Work, run};
use crate::device::guard::{self, Claim, Request};
use crate::device::identity::{Expected, Identity};
use crate::device::purge_scope::{PurgeScope, Reach, require_local_nvme};
use crate::device::{Findings, Force, Tree};
use crate::engine::Settings;
use crate::engine::fleet::{FleetJob, OpenedJob, Parallel, WorkerContext};
use crate::engine::job::JobProcess;
use crate::engine::purge::job::{self, OpenNamespace, PurgeCheckpoint, PurgeContext};
use crate::engine::purge::known::IoContext;
use crate::engine::purge::report::PurgeReport;
use crate::error::{Error, Kind, Result};
use crate::io::SystemClock;
use crate::io::passthrough::ReadOnly;
use crate::io::passthrough::linux::BlockDescriptor;
use crate::io::passthrough::nvme::logs::Phase;
use crate::io::passthrough::nvme::offers::offers;
use crate::io::passthrough::nvme::probe::{SubsystemFacts, probe};
use crate::journal::{JournalStore, LockedDrive, PurgeWork, SavePurge};
use crate::parallel;
use crate::pattern::Seed;
use crate::plan::{Attempt, Choice, Grade, Ladder, PURGE, PurgePolicy, Rung, WhyNot};
use crate::printable::printable_path;
use crate::range::Extent;
use crate::record::details::Details;
use crate::record::evidence::Evidence;
use crate::record::purge::PurgeRecord;
use crate::record::{Assignment, Record, Subject};
use crate::verdict::Verdict;

/// A purge session and its settings.
#[non_exhaustive]
pub struct Purge {
    /// By path, `serial:…` or `wwn:…`: one namespace of each drive.
    pub devices: Vec<OsString>,
    /// Which rungs.
    pub policy: PurgePolicy,
    /// Everything that the commands reach may be erased.
    pub all_namespaces: bool,
    /// The identity that each device must have.
    pub expected: Expected,
    /// The refusals that are overridden.
    pub force: Vec<Force>,
    /// Of the reads and writes before and after.
    pub settings: Settings,
    /// How long to wait for a busy device.
    pub wait: Duration,
    /// Whether to wait for another process that purges the same drive, and take its result.
    pub wait_for_purge: bool,
    /// Goes on with a purge that ended early.
    pub resume: bool,
    /// A drive is given up after this time without an end.
    pub give_up_after: Option<Duration>,
    /// How many drives at once.
    pub parallel: Parallel,
    /// Where journals are kept.
    pub journals: JournalStore,
    /// What only people know, for the records.
    pub details: Details,
    /// Where the records are kept.
    pub evidence: Evidence,
}

/// What a purge would do to a drive, as far as it can be seen without a claim.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PurgeOutline {
    /// As the user gave it.
    pub device: PathBuf,
    /// What it is.
    pub identity: Identity,
    /// What is tried, in this order; the next only where the drive does not have the one before.
    pub attempts: Vec<Attempt>,
    /// Why not the other rungs.
    pub others: Vec<(Rung, WhyNot)>,
    /// All that is in the subsystem.
    pub scope: PurgeScope,
    /// How far the commands reach.
    pub reach: Reach,
    /// A sanitize that fails leaves a drive that takes nothing but another restricted sanitize.
    pub restricted: bool,
    /// What could not be seen of what the commands reach.
    pub limitations: Vec<String>,
    /// It goes on with a purge that ended early, and sends no command.
    pub resumes: bool,
    /// The drive sanitizes, or a sanitize failed: it gives no reads.
    pub gives_no_reads: bool,
}

/// A claimed drive and what would be done to it, to be confirmed.
#[non_exhaustive]
pub struct PurgeQuestion<'a> {
    /// All that is claimed, the named device first, and what would be lost.
    pub claimed: Vec<(&'a Identity, &'a Findings)>,
    /// What would be done.
    pub outline: &'a PurgeOutline,
}

/// What is to be done to a drive.
enum Course {
    /// Commands are sent.
    Erase,
    /// They were sent by another process.
    Resume(Box<PurgeCheckpoint>),
    /// The drive has nothing that will do, and the named namespace is overwritten.
    Overwrite,
    /// Another process has purged it meanwhile.
    Taken(Box<(PurgeReport, JobProcess)>),
}

/// What a drive says of itself, and sysfs of it.
struct Seen {
    identity: Identity,
    facts: SubsystemFacts,
    scope: PurgeScope,
}

/// A drive that was looked at, and is locked.
struct Looked {
    outline: PurgeOutline,
    course: Course,
    lock: Option<LockedDrive>,
    policy: PurgePolicy,
}

/// A drive that is claimed: the named namespace first.
struct ClaimedDrive {
    claims: Vec<(u32, Claim)>,
    looked: Looked,
}

impl Purge {
    /// Purges all drives. One that is refused, busy or failing does not stop the others; its record says so.
    ///
    /// # Errors
    /// A target names no device, or two of them lie on one drive; nothing was written then.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Outcome> {
        let tree = Tree::real();
        let devices = paths(&tree, &self.devices)?;
        let assignment = Assignment { method: PURGE.into(), details: self.details.clone() };
        let started = Timestamp::now();
        let refusals = Refusals { tree: &tree, assignment: &assignment, image: false, started };
        let seen = parallel::map(devices.clone(), |device| {
            let seen = self.look(&tree, &device);
            (device, seen)
        });
        refuse_same_drive(&seen)?;
        let (mut jobs, mut records) = (Vec::new(), Vec::new());
        for (device, seen) in seen {
            let looked = seen.and_then(|seen| self.lock(&tree, &device, seen, observer));
            let job = looked.and_then(|looked| match looked.course {
                Course::Taken(taken) => {
                    let record = self.taken(&tree, &device, looked.outline, *taken, &refusals)?;
                    records.push((device.clone(), record));
                    Ok(None)
                }
                _ => self.prepare(&tree, &device, looked, observer).map(Some),
            });
            match job {
                Ok(job) => jobs.extend(job),
                Err(error) if error.kind == Kind::Usage => return Err(error.on(&device)),
                Err(error) => records.push((device.clone(), *refusals.record(&device, error))),
            }
        }
        let stop = observer.begin();
        let Purge { settings, parallel, evidence, .. } = self;
        let shared =
            RunContext { assignment: &assignment, parallel, settings: &settings, stop: &stop, evidence };
        Ok(run(jobs, records, &devices, shared, observer))
    }

    /// What would be done to each device, by queries alone; and why that would be refused.
    ///
    /// # Errors
    /// As [`Purge::run`].
    pub fn preview(&self) -> Result<Vec<(Option<PurgeOutline>, Result<()>)>> {
        let tree = Tree::real();
        let devices = paths(&tree, &self.devices)?;
        let preview = |device: PathBuf| {
            let seen = self.look(&tree, &device);
            let outline = seen.and_then(|seen| self.outline(&device, seen));
            let (outline, refusal) = match outline {
                Ok(outline) => {
                    let refusal = self.inspect(&tree, &outline);
                    (Some(outline), refusal)
                }
                Err(error) => (None, Err(error)),
            };
            (outline, refusal.map_err(|error| error.on(&device)))
        };
        Ok(parallel::map(devices, preview))
    }

    /// All that is checked before a claim, without one.
    fn inspect(&self, tree: &Tree, outline: &PurgeOutline) -> Result<()> {
        outline.scope.permit(outline.reach, self.all_namespaces)?;
        let nodes = nodes(tree, outline);
        let force = self.force(outline);
        let requests: Vec<Request> = nodes.iter().map(|(_, node)| self.request(node, &force)).collect();
        guard::inspect_all(tree, &requests).into_iter().try_for_each(|inspected| inspected.map(drop))
    }

    /// A drive gives no reads while it sanitizes, and after a sanitize that failed: what is on it cannot be looked
    /// at, and will not be read again.
    fn force(&self, outline: &PurgeOutline) -> Vec<Force> {
        let unprobed = outline.gives_no_reads.then_some(Force::Unprobed);
        self.force.iter().copied().chain(unprobed).collect()
    }

    fn request<'a>(&self, path: &'a Path, force: &'a [Force]) -> Request<'a> {
        Request { path, image: false, deadline: Instant::now() + self.wait, force }
    }

    /// Queries alone, and only to a drive that may be asked.
    fn look(&self, tree: &Tree, device: &Path) -> Result<Seen> {
        let examined = guard::examine(tree, device, false)?;
        let identity = examined.identity().clone();
        require_local_nvme(tree, number(&identity)?)?;
        self.expected.check(&identity)?;
        let facts = probe(&mut examined.queries()?);
        let scope = PurgeScope::of(tree, number(&identity)?, &facts)?;
        Ok(Seen { identity, facts, scope })
    }

    fn outline(&self, device: &Path, Seen { identity, facts, scope }: Seen) -> Result<PurgeOutline> {
        let ladder = Ladder::new(&offers(&facts), &self.policy);
        ladder.first()?;
        let reach = reach(&ladder.attempts, &facts)?;
        Ok(PurgeOutline {
            gives_no_reads: gives_no_reads(&facts),
            device: device.into(),
            identity,
            limitations: scope.limitations(reach),
            attempts: ladder.attempts,
            others: ladder.others,
            scope,
            reach,
            restricted: !self.policy.unrestricted_exit,
            resumes: false,
        })
    }

    /// Waits for another process that purges the same drive, and decides what is to be done.
    fn lock(&self, tree: &Tree, device: &Path, seen: Seen, observer: &mut dyn Observer) -> Result<Looked> {
        let (key, policy) = (&seen.scope.key, self.policy);
        let lock = LockedDrive::lock(&self.journals, key, self.wait_for_purge, || observer.awaits(device))?;
        // What was seen before the wait can be another by now.
        let seen = if lock.waited() { self.look(tree, device)? } else { seen };
        if let Some((work, report, process)) = lock.awaited()
            && self.accepts(work, report, &seen.scope)
        {
            let course = Course::Taken(Box::new((report.clone(), process.clone())));
            let outline = PurgeOutline::of_earlier(device, work, seen);
            return Ok(Looked { outline, course, lock: Some(lock), policy });
        }
        if let Some((work, checkpoint)) = lock.unended() {
            let runs = seen.facts.sanitize.is_ok_and(|log| {
                log.phase() == Phase::Running && checkpoint.report.evidence.command() == Some(log.command)
            });
            if self.resume || runs {
                let (outline, policy) = (PurgeOutline::of_earlier(device, work, seen), work.policy);
                outline.scope.permit(outline.reach, self.all_namespaces)?;
                let course = Course::Resume(Box::new(checkpoint.clone()));
                return Ok(Looked { outline, course, lock: Some(lock), policy });
            }
            tracing::warn!(
                "{}: an earlier purge of it ended early; this one starts over (--resume goes on)",
                printable_path(device)
            );
        } else if self.resume {
            return Err(nothing_to_resume(lock.ended()));
        }
        let outline = self.outline(device, seen)?;
        outline.scope.permit(outline.reach, self.all_namespaces)?;
        let overwrites = outline.attempts.first() == Some(&Attempt::Single(Rung::HostOverwrite));
        let course = if overwrites { Course::Overwrite } else { Course::Erase };
        // The journal of a wipe is that of its device.
        let lock = (!overwrites).then_some(lock);
        Ok(Looked { outline, course, lock, policy })
    }

    /// Whether what another process did is what was asked for here, of this device.
    fn accepts(&self, work: &PurgeWork, report: &PurgeReport, scope: &PurgeScope) -> bool {
        let named = |scope: &PurgeScope| {
            let named = scope.namespaces.iter().find(|namespace| namespace.named);
            named.map(|namespace| namespace.nsid)
        };
        let covered = work.reach == Reach::Subsystem || named(&work.scope) == named(scope);
        let rungs = || report.rungs.iter().map(|rung| rung.rung);
        let enough = self.policy.or_clear || rungs().all(|rung| rung.grade() == Grade::Purge);
        let chosen = match self.policy.choice {
            Choice::Best | Choice::Fast => true,
            Choice::Both => Attempt::CryptoThenBlock.rungs().iter().all(|rung| rungs().any(|it| it == *rung)),
            Choice::By(asked) => rungs().any(|rung| rung == asked),
        };
        covered && enough && chosen
    }

    /// The record of a device whose drive another process purged.
    fn taken(
        &self,
        tree: &Tree,
        device: &Path,
        outline: PurgeOutline,
        (report, process): (PurgeReport, JobProcess),
        refusals: &Refusals,
    ) -> Result<Record> {
        let examined = guard::examine(tree, device, false)?;
        let (identity, findings) = (examined.identity().clone(), examined.findings().clone());
        let subject = Subject { device: device.into(), identity, findings, counter: None };
        let PurgeOutline { scope, reach, .. } = outline;
        let purge = PurgeRecord { scope, reach, report, taken_from: Some(process) };
        Ok(Record::of_purge(refusals.assignment, subject, refusals.started, purge))
    }

    /// Claims all that is reached, has it confirmed, and opens the journal.
    fn prepare(
        &self,
        tree: &Tree,
        device: &Path,
        looked: Looked,
        observer: &mut dyn Observer,
    ) -> Result<SessionJob> {
        let ClaimedDrive { claims, looked } = self.claim(tree, looked)?;
        let claimed = claims.iter().map(|(_, claim)| (claim.identity(), claim.findings())).collect();
        let named = &claims[0].1;
        let question = PurgeQuestion { claimed, outline: &looked.outline };
        observer.confirm_purge(&question)?;
        let Looked { outline: PurgeOutline { scope, reach, .. }, course, lock, policy } = looked;
        let checkpoint = match course {
            Course::Overwrite | Course::Taken(_) => return self.overwrite(device, claims),
            Course::Erase => None,
            Course::Resume(checkpoint) => Some(*checkpoint),
        };
        let lock = lock.expect("a drive that is purged is locked");
        let work = PurgeWork { scope, reach, policy, checkpoint, report: None };
        let journal = lock.begin(device, work.clone())?;
        let (identity, findings) = (named.identity().clone(), named.findings().clone());
        let subject = Subject { device: device.into(), identity, findings, counter: None };
        let bus = named.bus();
        let purge = PurgeJob {
            scope: work.scope,
            reach,
            policy,
            earlier: work.checkpoint,
            keep: journal.purge_writer(),
            claims,
            depth: self.settings.depth_max(),
            give_up_after: self.give_up_after,
        };
        Ok(SessionJob { subject, work: Work::Purge(Box::new(purge)), bus, journal: Some(journal) })
    }

    /// The named namespace, and every other that is reached and has a block device here.
    fn claim(&self, tree: &Tree, looked: Looked) -> Result<ClaimedDrive> {
        let (nodes, force) = (nodes(tree, &looked.outline), self.force(&looked.outline));
        let requests: Vec<Request> = nodes.iter().map(|(_, node)| self.request(node, &force)).collect();
        let claims = guard::claim_all(tree, &requests).into_iter().collect::<Result<Vec<_>>>()?;
        let claims: Vec<(u32, Claim)> = nodes.iter().map(|(nsid, _)| *nsid).zip(claims).collect();
        let (_, named) = &claims[0];
        self.expected.check(named.identity())?;
        self.settings.check(&named.geometry())?;
        // What was seen may have changed until it was claimed.
        let facts = probe(&mut ReadOnly::new(named.pass_through()?));
        let scope = PurgeScope::of(tree, number(named.identity())?, &facts)?;
        if scope != looked.outline.scope {
            return Err(Error::refused(
                "its namespaces or controllers changed while they were being claimed",
            )
            .with_remedy("try again when the drive is left alone"));
        }
        Ok(ClaimedDrive { claims, looked })
    }

    fn overwrite(&self, device: &Path, mut claims: Vec<(u32, Claim)>) -> Result<SessionJob> {
        let (_, claim) = claims.swap_remove(0);
        let order = Order::default();
        let plan = order.plan(&order.method()?, claim.identity(), &claim.geometry(), || claim.keys(None))?;
        Ok(SessionJob::wipe(device.into(), claim, plan, &self.settings))
    }
}

impl PurgeOutline {
    /// Of a purge that another process began.
    fn of_earlier(device: &Path, work: &PurgeWork, seen: Seen) -> PurgeOutline {
        let Seen { identity, facts, scope } = seen;
        let rungs = work.checkpoint.iter().map(|checkpoint| Attempt::Single(checkpoint.report.rung));
        PurgeOutline {
            device: device.into(),
            identity,
            attempts: rungs.collect(),
            others: Vec::new(),
            limitations: scope.limitations(work.reach),
            scope,
            reach: work.reach,
            restricted: !work.policy.unrestricted_exit,
            resumes: true,
            gives_no_reads: gives_no_reads(&facts),
        }
    }
}

fn gives_no_reads(facts: &SubsystemFacts) -> bool {
    let phase = facts.sanitize.map(|log| log.phase());
    matches!(phase, Ok(Phase::Running | Phase::Failed))
}

/// Of all that is tried the farthest.
fn reach(attempts: &[Attempt], facts: &SubsystemFacts) -> Result<Reach> {
    let controller = facts.controller.as_ref().map_err(|why| {
        Error::refused(format!("the drive cannot be identified: {why}"))
            .with_remedy("efface wipe overwrites it")
    })?;
    let rungs = attempts.iter().flat_map(|attempt| attempt.rungs().to_vec());
    Ok(rungs.map(|rung| Reach::of(rung, controller)).max().unwrap_or(Reach::Subsystem))
}

fn number(identity: &Identity) -> Result<crate::device::DeviceNumber> {
    identity.number.ok_or_else(|| {
        Error::unsupported("it is no block device, and no drive erases it")
            .with_remedy("efface wipe overwrites it")
    })
}

/// A command that is to resume sends nothing where there is nothing to resume.
fn nothing_to_resume(ended: Option<Verdict>) -> Error {
    let ended = ended.map_or(String::new(), |verdict| format!(" (the last one ended: {})", verdict.word()));
    Error::refused(format!("there is no purge of its drive to resume{ended}"))
        .with_remedy("leave --resume out to purge it, or name the folder with its journal: --state-dir")
}

/// One block device of each reached namespace that has one, that of the named one first.
fn nodes(tree: &Tree, outline: &PurgeOutline) -> Vec<(u32, PathBuf)> {
    let mut nodes = Vec::new();
    for namespace in outline.scope.reached(outline.reach) {
        match namespace.nodes.first() {
            Some(_) if namespace.named => nodes.insert(0, (namespace.nsid, outline.device.clone())),
            Some(node) => nodes.push((namespace.nsid, tree.dev.join(&node.name))),
            None => {}
        }
    }
    nodes
}

/// Two devices of one drive are one purge.
fn refuse_same_drive(seen: &[(PathBuf, Result<Seen>)]) -> Result<()> {
    let mut drives = BTreeMap::new();
    for (device, seen) in seen.iter().filter_map(|(device, seen)| Some((device, seen.as_ref().ok()?))) {
        if let Some(other) = drives.insert(&seen.scope.key, device) {
            return Err(Error::usage(format!("it is on the same drive as {}", Path::display(other)))
                .with_remedy("name one of the two; --all-namespaces covers both")
                .on(device));
        }
    }
    Ok(())
}

/// A purge that is about to run.
pub(super) struct PurgeJob {
    pub scope: PurgeScope,
    pub reach: Reach,
    policy: PurgePolicy,
    earlier: Option<PurgeCheckpoint>,
    keep: SavePurge,
    claims: Vec<(u32, Claim)>,
    depth: usize,
    give_up_after: Option<Duration>,
}

impl PurgeJob {
    pub fn on_bus(self, bus: Option<String>) -> FleetJob<Report> {
        let bytes = self.claims.iter().map(|(_, claim)| claim.geometry().size).sum();
        let open = move || Ok(Box::new(self.open()?) as Box<dyn OpenedJob<Report>>);
        FleetJob { open: Box::new(open), area: Extent::new(0, bytes), bus }
    }

    fn open(self) -> Result<OpenedPurge> {
        let PurgeJob { policy, earlier, keep, claims, depth, give_up_after, .. } = self;
        let drive = claims[0].1.pass_through()?;
        let open = |(nsid, claim): (u32, Claim)| Ok(OpenNamespace { nsid, disk: claim.open(depth)? });
        let mut namespaces = claims.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        namespaces.sort_by_key(|namespace| namespace.nsid);
        Ok(OpenedPurge { drive, namespaces, policy, earlier, keep, give_up_after })
    }
}

struct OpenedPurge {
    drive: BlockDescriptor,
    namespaces: Vec<OpenNamespace>,
    policy: PurgePolicy,
    earlier: Option<PurgeCheckpoint>,
    keep: SavePurge,
    give_up_after: Option<Duration>,
}

impl OpenedJob<Report> for OpenedPurge {
    fn run(&mut self, context: WorkerContext) -> Report {
        let WorkerContext { settings, stop, emitter } = context;
        let OpenedPurge { drive, namespaces, policy, earlier, keep, give_up_after } = self;
        let context = PurgeContext {
            io: IoContext { settings, stop, emitter },
            clock: &SystemClock,
            draw: &mut Seed::from_kernel,
            keep: &mut **keep,
            give_up_after: *give_up_after,
        };
        let report = match earlier.take() {
            None => job::run(drive, namespaces, *policy, context),
            Some(earlier) => job::resume(drive, namespaces, *policy, earlier, context),
        };
        Report::Purge(Box::new(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::purge_scope::{ScopedNamespace, ScopedNode, SubsystemKey};
    use crate::io::passthrough::nvme::commands::{Exit, Sanitize, SanitizeMethod};
    use crate::io::passthrough::sim::{NvmeSim, Setup};
    use crate::io::passthrough::{PassThrough, ReadOnly};

    const BLOCK_ERASE: Sanitize =
        Sanitize::Start { method: SanitizeMethod::BlockErase, exit: Exit::Restricted, keep_allocated: false };

    fn facts(sim: &NvmeSim) -> SubsystemFacts {
        probe(&mut ReadOnly::new(sim.path(0)))
    }

    fn setup() -> Setup {
        Setup::of(vec![1; 8192])
    }

    fn scope(named: u32) -> PurgeScope {
        let namespace = |nsid: u32| {
            let number = format!("259:{nsid}").parse().unwrap();
            let node = ScopedNode { name: format!("nvme0n{nsid}"), number, size_bytes: 8192 };
            // The third has no block device here.
            let nodes = (nsid < 3).then_some(node).into_iter().collect();
            ScopedNamespace {
                nsid,
                named: nsid == named,
                size_bytes: Some(8192),
                nodes,
                shared: None,
                attached: None,
            }
        };
        PurgeScope {
            key: SubsystemKey { nqn: None, model: "A drive".into(), serial: "Z1".into() },
            namespaces: (1..=3).map(namespace).collect(),
            controllers: Vec::new(),
            other_namespaces: false,
            other_controllers: false,
        }
    }

    fn identity() -> Identity {
        serde_json::from_value(serde_json::json!({
            "path": "/dev/it", "node": "/dev/nvme0n2", "kind": "disk", "size_bytes": 8192, "number": "259:2"
        }))
        .unwrap()
    }

    fn purge(policy: PurgePolicy) -> (tempfile::TempDir, Purge) {
        let folder = tempfile::tempdir().unwrap();
        let purge = Purge {
            devices: Vec::new(),
            policy,
            all_namespaces: false,
            expected: Expected::default(),
            force: vec![Force::Unseen],
            settings: Settings::default(),
            wait: Duration::ZERO,
            wait_for_purge: false,
            resume: false,
            give_up_after: None,
            parallel: Parallel::default(),
            journals: JournalStore::open(folder.path()).unwrap(),
            details: Details::default(),
            evidence: Evidence::default(),
        };
        (folder, purge)
    }

    fn outline(setup: Setup, policy: PurgePolicy) -> PurgeOutline {
        let seen = Seen { identity: identity(), facts: facts(&NvmeSim::new(setup)), scope: scope(2) };
        purge(policy).1.outline(Path::new("/dev/it"), seen).unwrap()
    }

    #[test]
    fn all_that_any_command_of_the_ladder_reaches_is_claimed_the_named_device_first() {
        let names = |outline: &PurgeOutline| {
            let nodes = nodes(&Tree::real(), outline);
            nodes.into_iter().map(|(nsid, node)| format!("{nsid} {}", node.display())).collect::<Vec<_>>()
        };
        let all = outline(setup(), PurgePolicy::default());
        assert_eq!(all.reach, Reach::Subsystem);
        assert_eq!(names(&all), ["2 /dev/it", "1 /dev/nvme0n1"]);
        // FNA: a format of one namespace reaches that one alone, or all.
        let format = PurgePolicy { choice: Choice::By(Rung::FormatCrypto), ..PurgePolicy::default() };
        let one = outline(Setup { fna: 0b100, ..setup() }, format);
        assert_eq!((one.reach, names(&one)), (Reach::Namespace, vec!["2 /dev/it".to_string()]));
        assert_eq!(outline(Setup { fna: 0b101, ..setup() }, format).reach, Reach::Subsystem);
        assert_eq!(outline(Setup { fna: 0b110, ..setup() }, format).reach, Reach::Subsystem);
    }

    #[test]
    fn only_a_drive_that_sanitizes_or_failed_to_is_claimed_without_a_look_at_its_content() {
        let force = |sim: &NvmeSim| {
            let (_folder, purge) = purge(PurgePolicy::default());
            let facts = facts(sim);
            let outline =
                PurgeOutline { gives_no_reads: gives_no_reads(&facts), ..outline(setup(), purge.policy) };
            purge.force(&outline)
        };
        let sim = NvmeSim::new(setup());
        assert_eq!(force(&sim), [Force::Unseen]);
        sim.path(0).send(&BLOCK_ERASE.request());
        assert_eq!(force(&sim), [Force::Unseen, Force::Unprobed]);
        sim.clock().advance(Duration::from_secs(24 * 3600));
        assert_eq!(force(&sim), [Force::Unseen], "it is done");
        let failing = NvmeSim::new(Setup { sanitize_fails: true, ..setup() });
        failing.path(0).send(&BLOCK_ERASE.request());
        failing.clock().advance(Duration::from_secs(24 * 3600));
        assert_eq!(force(&failing), [Force::Unseen, Force::Unprobed]);
    }

    #[test]
    fn the_result_of_another_process_is_taken_where_it_is_what_was_asked_for() {
        let report = |rungs: &[Rung]| -> PurgeReport {
            let rung = |rung: &Rung| {
                serde_json::json!({
                    "rung": rung, "commands": [], "milliseconds": 0, "namespaces": [], "settled": null,
                    "evidence": {"kind": "format", "answers": [], "left_percent": null, "resumed": false},
                    "conclusion": {"kind": "failed"}
                })
            };
            let rungs: Vec<_> = rungs.iter().map(rung).collect();
            let policy = PurgePolicy::default();
            serde_json::from_value(serde_json::json!({
                "verdict": "erased", "policy": policy, "others": [], "rungs": rungs, "error": null
            }))
            .unwrap()
        };
        let work = |reach| PurgeWork {
            scope: scope(1),
            reach,
            policy: PurgePolicy::default(),
            checkpoint: None,
            report: None,
        };
        let accepts = |policy: PurgePolicy, reach, named, rungs: &[Rung]| {
            purge(policy).1.accepts(&work(reach), &report(rungs), &scope(named))
        };
        let best = PurgePolicy::default();
        let by = |rung| PurgePolicy { choice: Choice::By(rung), ..best };
        let block = &[Rung::SanitizeBlock][..];
        assert!(accepts(best, Reach::Subsystem, 2, block));
        assert!(!accepts(best, Reach::Namespace, 2, &[Rung::FormatCrypto]), "the other namespace");
        assert!(accepts(best, Reach::Namespace, 1, &[Rung::FormatCrypto]));
        assert!(!accepts(best, Reach::Subsystem, 2, &[Rung::FormatUserData]), "it is Clear");
        assert!(accepts(
            PurgePolicy { or_clear: true, ..best },
            Reach::Subsystem,
            2,
            &[Rung::FormatUserData]
        ));
        assert!(accepts(by(Rung::SanitizeBlock), Reach::Subsystem, 2, block));
        assert!(!accepts(by(Rung::SanitizeCrypto), Reach::Subsystem, 2, block));
        let both = PurgePolicy { choice: Choice::Both, ..best };
        assert!(!accepts(both, Reach::Subsystem, 2, block));
        assert!(accepts(both, Reach::Subsystem, 2, &[Rung::SanitizeCrypto, Rung::SanitizeBlock]));
    }

    #[test]
    fn two_devices_of_one_drive_are_an_error_of_the_command() {
        let seen = |serial: &str| {
            let mut scope = scope(1);
            scope.key.serial = serial.into();
            Ok(Seen { identity: identity(), facts: facts(&NvmeSim::new(setup())), scope })
        };
        let (one, other) = (PathBuf::from("/dev/nvme0n1"), PathBuf::from("/dev/nvme0n2"));
        assert!(refuse_same_drive(&[(one.clone(), seen("Z1")), (other.clone(), seen("Z2"))]).is_ok());
        let error = refuse_same_drive(&[(one, seen("Z1")), (other, seen("Z1"))]).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(
            error.to_string().contains("/dev/nvme0n2: it is on the same drive as /dev/nvme0n1"),
            "{error}"
        );
    }
}
