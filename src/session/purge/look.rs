//! What a purge would do, seen by queries alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::targets::paths;
use crate::device::guard::{self, Request};
use crate::device::identity::{Expected, Identity};
use crate::device::purge_scope::{PurgeScope, Reach, require_local_nvme, require_unreserved};
use crate::device::{DeviceNumber, Force, Tree};
use crate::error::{Error, Result};
use crate::io::passthrough::nvme::logs::Phase;
use crate::io::passthrough::nvme::offers::offers;
use crate::io::passthrough::nvme::probe::{SubsystemFacts, probe};
use crate::journal::PurgeWork;
use crate::parallel;
use crate::plan::{Attempt, Ladder, PurgePolicy, Rung, WhyNot};

/// Which drives, and what is asked for.
#[non_exhaustive]
pub struct PurgeTargets {
    /// By path, `serial:…` or `wwn:…`: one namespace of each drive.
    pub devices: Vec<OsString>,
    /// What is asked for.
    pub order: PurgeOrder,
    /// The identity that each device must have.
    pub expected: Expected,
    /// How long to wait for a busy device.
    pub wait: Duration,
}

/// What is asked for, the same for all drives of a command.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeOrder {
    /// Which rungs.
    pub policy: PurgePolicy,
    /// Everything that the commands reach may be erased.
    pub all_namespaces: bool,
    /// The refusals that are overridden.
    pub force: Vec<Force>,
}

/// What a purge would do to a drive, as far as it can be seen without a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PurgeOutline {
    /// As the user gave it.
    pub device: PathBuf,
    /// What it is.
    pub identity: Identity,
    /// What is asked for.
    pub order: PurgeOrder,
    /// What is tried, in this order; the next only where the drive does not have the one before.
    pub attempts: Vec<Attempt>,
    /// Why not the other rungs.
    pub others: Vec<(Rung, WhyNot)>,
    /// All that is in the subsystem.
    pub scope: PurgeScope,
    /// How far the commands reach.
    pub reach: Reach,
    /// What could not be seen of what the commands reach.
    pub limitations: Vec<String>,
    /// It goes on with a purge that ended early, and sends no command.
    pub resumes: bool,
    /// The drive sanitizes, or a sanitize failed: it gives no reads.
    pub gives_no_reads: bool,
}

/// What a drive says of itself, and sysfs of it.
pub(super) struct Seen {
    pub identity: Identity,
    pub facts: SubsystemFacts,
    pub scope: PurgeScope,
}

impl PurgeTargets {
    /// What would be done to each device, by queries alone; and why that would be refused.
    ///
    /// # Errors
    /// As [`Purge::run`](super::Purge::run).
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
        outline.scope.permit(outline.reach, self.order.all_namespaces)?;
        let nodes = nodes(tree, outline);
        let force = self.force(outline);
        let requests: Vec<Request> = nodes.iter().map(|(_, node)| self.request(node, &force)).collect();
        guard::inspect_all(tree, &requests).into_iter().try_for_each(|inspected| inspected.map(drop))?;
        nodes.iter().try_for_each(|(nsid, node)| {
            require_unreserved(&mut guard::examine(tree, node, false)?.queries()?, *nsid, &force)
        })
    }

    /// A drive gives no reads while it sanitizes, and after a sanitize that failed: what is on it cannot be looked
    /// at, and will not be read again.
    pub(super) fn force(&self, outline: &PurgeOutline) -> Vec<Force> {
        let unprobed = outline.gives_no_reads.then_some(Force::Unprobed);
        self.order.force.iter().copied().chain(unprobed).collect()
    }

    pub(super) fn request<'a>(&self, path: &'a Path, force: &'a [Force]) -> Request<'a> {
        Request { path, image: false, deadline: Instant::now() + self.wait, force }
    }

    /// Queries alone, and only to a drive that may be asked.
    pub(super) fn look(&self, tree: &Tree, device: &Path) -> Result<Seen> {
        let examined = guard::examine(tree, device, false)?;
        let identity = examined.identity().clone();
        require_local_nvme(tree, number(&identity)?)?;
        self.expected.check(&identity)?;
        let facts = probe(&mut examined.queries()?);
        let scope = PurgeScope::of(tree, number(&identity)?, &facts)?;
        Ok(Seen { identity, facts, scope })
    }

    pub(super) fn outline(
        &self,
        device: &Path,
        Seen { identity, facts, scope }: Seen,
    ) -> Result<PurgeOutline> {
        let ladder = Ladder::new(&offers(&facts), &self.order.policy);
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
            order: self.order.clone(),
            resumes: false,
        })
    }
}

impl PurgeOutline {
    /// Of a purge that another process began.
    pub(super) fn of_earlier(
        device: &Path,
        order: &PurgeOrder,
        work: &PurgeWork,
        seen: Seen,
    ) -> PurgeOutline {
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
            order: PurgeOrder { policy: work.policy, ..order.clone() },
            resumes: true,
            gives_no_reads: gives_no_reads(&facts),
        }
    }
}

pub(super) fn gives_no_reads(facts: &SubsystemFacts) -> bool {
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

pub(super) fn number(identity: &Identity) -> Result<DeviceNumber> {
    identity.number.ok_or_else(|| {
        Error::unsupported("it is no block device, and no drive erases it")
            .with_remedy("efface wipe overwrites it")
    })
}

/// One block device of each reached namespace that has one, that of the named one first.
pub(super) fn nodes(tree: &Tree, outline: &PurgeOutline) -> Vec<(u32, PathBuf)> {
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
