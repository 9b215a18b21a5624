//! A purge: drives that are looked at, claimed with all that their commands reach, confirmed, and erased by
//! themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::targets::{Refusals, paths};
use super::{Observer, Order, Outcome, Report, RunContext, SessionJob, Work, run};
use crate::device::guard::{self, Claim, Request};
use crate::device::identity::Identity;
use crate::device::purge_scope::{PurgeScope, Reach, require_unreserved};
use crate::device::{Findings, Tree};
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
use crate::io::passthrough::nvme::probe::probe;
use crate::journal::{JournalStore, LockedDrive, PurgeWork, SavePurge};
use crate::parallel;
use crate::pattern::Seed;
use crate::plan::{Attempt, Choice, Grade, PURGE, PurgePolicy, Rung};
use crate::printable::printable_path;
use crate::range::Extent;
use crate::record::details::Details;
use crate::record::evidence::Evidence;
use crate::record::purge::PurgeRecord;
use crate::record::{Assignment, Record, Subject};
use crate::verdict::Verdict;

mod look;
mod plan;

pub use look::{PurgeOrder, PurgeOutline, PurgeTargets};
use look::{Seen, nodes, number};
pub use plan::read_plan;

/// A purge session and its settings.
#[non_exhaustive]
pub struct Purge {
    /// Which drives, and what is asked for.
    pub targets: PurgeTargets,
    /// What was approved of each device: what is another now is refused. Empty where nothing was planned.
    pub planned: Vec<PurgeOutline>,
    /// Of the reads and writes before and after.
    pub settings: Settings,
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
        let devices = paths(&tree, &self.targets.devices)?;
        let assignment = Assignment { method: PURGE.into(), details: self.details.clone() };
        let started = Timestamp::now();
        let refusals = Refusals { tree: &tree, assignment: &assignment, image: false, started };
        let mut seen = parallel::map(devices.clone(), |device| {
            let seen = self.targets.look(&tree, &device);
            (device, seen)
        });
        refuse_same_drive(&seen)?;
        sort_for_locks(&mut seen);
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

    /// Waits for another process that purges the same drive, and decides what is to be done.
    fn lock(&self, tree: &Tree, device: &Path, seen: Seen, observer: &mut dyn Observer) -> Result<Looked> {
        let (key, policy) = (&seen.scope.key, self.targets.order.policy);
        let lock = LockedDrive::lock(&self.journals, key, self.wait_for_purge, || observer.awaits(device))?;
        // What was seen before the wait can be another by now.
        let seen = if lock.waited() { self.targets.look(tree, device)? } else { seen };
        if let Some((work, report, process)) = lock.awaited()
            && self.accepts(work, report, &seen.scope)
        {
            let course = Course::Taken(Box::new((report.clone(), process.clone())));
            let outline = PurgeOutline::of_earlier(device, &self.targets.order, work, seen);
            return Ok(Looked { outline, course, lock: Some(lock), policy });
        }
        if let Some((work, checkpoint)) = lock.unended() {
            let runs = seen.facts.sanitize.is_ok_and(|log| {
                log.phase() == Phase::Running && checkpoint.report.evidence.command() == Some(log.command)
            });
            if self.resume || runs {
                let (outline, policy) =
                    (PurgeOutline::of_earlier(device, &self.targets.order, work, seen), work.policy);
                outline.scope.permit(outline.reach, self.targets.order.all_namespaces)?;
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
        let outline = self.targets.outline(device, seen)?;
        outline.scope.permit(outline.reach, self.targets.order.all_namespaces)?;
        plan::require_as_planned(&self.planned, &outline)?;
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
        let enough = self.targets.order.policy.or_clear || rungs().all(|rung| rung.grade() == Grade::Purge);
        let chosen = match self.targets.order.policy.choice {
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
        let (nodes, force) = (nodes(tree, &looked.outline), self.targets.force(&looked.outline));
        let requests: Vec<Request> =
            nodes.iter().map(|(_, node)| self.targets.request(node, &force)).collect();
        let claims = guard::claim_all(tree, &requests).into_iter().collect::<Result<Vec<_>>>()?;
        let claims: Vec<(u32, Claim)> = nodes.iter().map(|(nsid, _)| *nsid).zip(claims).collect();
        let (_, named) = &claims[0];
        self.targets.expected.check(named.identity())?;
        self.settings.check(&named.geometry())?;
        for (nsid, claim) in &claims {
            require_unreserved(&mut ReadOnly::new(claim.pass_through()?), *nsid, &force)?;
        }
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

/// A command that is to resume sends nothing where there is nothing to resume.
fn nothing_to_resume(ended: Option<Verdict>) -> Error {
    let ended = ended.map_or(String::new(), |verdict| format!(" (the last one ended: {})", verdict.word()));
    Error::refused(format!("there is no purge of its drive to resume{ended}"))
        .with_remedy("leave --resume out to purge it, or name the folder with its journal: --state-dir")
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

/// In one order for all processes: two that each wait for a drive of the other would wait for ever.
fn sort_for_locks(seen: &mut [(PathBuf, Result<Seen>)]) {
    seen.sort_by_cached_key(|(_, seen)| seen.as_ref().ok().map(|seen| seen.scope.key.clone()));
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
mod tests;
