//! The main job: devices or a plan file, claimed, confirmed, wiped and recorded.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::plan_file::PlanFile;
use super::targets::{Claimed, Refusals, paths};
use super::{Observer, Order, Outcome, Question, RunContext, SessionJob, run, slots};
use crate::device::Tree;
use crate::device::guard::{self, Claim, Request};
use crate::device::identity::Expected;
use crate::engine::Settings;
use crate::engine::fleet::Parallel;
use crate::error::{Error, Kind, Result};
use crate::journal::{JournalStore, Journals};
use crate::parallel;
use crate::plan::Method;
use crate::record::Assignment;
use crate::record::details::Details;
use crate::record::evidence::Evidence;
use crate::verdict::Verdict;

/// The targets and the order, or a plan file.
#[non_exhaustive]
pub enum Targets {
    /// Devices, and what to do to each.
    Devices {
        /// By path, `serial:…` or `wwn:…`.
        devices: Vec<OsString>,
        /// The same for all of them.
        order: Order,
        /// The identity that each must have.
        expected: Expected,
    },
    /// An approved plan, executed exactly.
    Plan(PlanFile),
}

impl Targets {
    /// The number of devices.
    pub fn count(&self) -> usize {
        match self {
            Targets::Devices { devices, .. } => devices.len(),
            Targets::Plan(plan) => plan.devices(),
        }
    }

    fn order(&self) -> &Order {
        match self {
            Targets::Devices { order, .. } => order,
            Targets::Plan(plan) => plan.order(),
        }
    }

    /// While the process that holds a device waits in the queue itself, the wait begins again.
    fn claim_within(
        &self,
        wait: Duration,
        method: &Method,
        refusals: &Refusals,
        journals: Option<&JournalStore>,
    ) -> Result<Vec<Claimed>> {
        let queued = |(_, claim): &Claimed| {
            let busy = claim.as_ref().err().filter(|record| record.verdict == Verdict::Busy);
            let identity = busy.and_then(|record| record.identity.as_ref());
            identity.zip(journals).is_some_and(|(identity, journals)| journals.is_waiting(identity))
        };
        loop {
            let claimed = self.claim(method, Instant::now() + wait, refusals)?;
            if wait.is_zero() || !claimed.iter().any(queued) {
                return Ok(claimed);
            }
        }
    }

    fn claim(&self, method: &Method, deadline: Instant, refusals: &Refusals) -> Result<Vec<Claimed>> {
        match self {
            Targets::Devices { devices, order, expected } => {
                claim(devices, order, method, expected, deadline, refusals)
            }
            Targets::Plan(plan) => plan.claim(method, deadline, refusals),
        }
    }
}

/// A wipe session and its settings.
#[non_exhaustive]
pub struct Wipe {
    /// What is wiped, and how.
    pub targets: Targets,
    /// The same for all devices; checked against each before anything is written.
    pub settings: Settings,
    /// How long to wait for a busy device; the time for which its holder waits in the queue does not count.
    pub wait: Duration,
    /// Where journals are kept.
    pub journals: Option<JournalStore>,
    /// Resumes an interrupted wipe of the same disk.
    pub resume: bool,
    /// How many devices at once.
    pub parallel: Parallel,
    /// How many processes of this host at once; `None` takes no place in the queue.
    pub slots: Option<Slots>,
    /// What only people know, for the records.
    pub details: Details,
    /// Where the records are kept; with [`Evidence::default`] they are only returned.
    pub evidence: Evidence,
}

/// A place in the queue of all processes of this host.
#[derive(Clone, Copy)]
pub struct Slots {
    /// How many may work at once.
    pub count: u16,
    /// Whether to wait; otherwise every device is reported busy.
    pub wait: bool,
}

impl Wipe {
    /// A wipe of these devices with default settings, without journals or evidence.
    pub fn new(devices: impl IntoIterator<Item = impl Into<OsString>>, order: Order) -> Wipe {
        let devices = devices.into_iter().map(Into::into).collect();
        Wipe {
            targets: Targets::Devices { devices, order, expected: Expected::default() },
            settings: Settings::default(),
            wait: Duration::ZERO,
            journals: None,
            resume: false,
            parallel: Parallel::default(),
            slots: None,
            details: Details::default(),
            evidence: Evidence::default(),
        }
    }

    /// Wipes all devices. A refused, busy or failing device does not stop the others; its record says so.
    ///
    /// # Errors
    /// An invalid order; nothing was written then.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Outcome> {
        let Wipe { targets, settings, wait, journals, resume, parallel, slots, details, evidence } = self;
        let tree = Tree::real();
        targets.order().check()?;
        let method = targets.order().method()?;
        let assignment = Assignment { method: method.name.clone(), details };
        let (image, started) = (targets.order().image, Timestamp::now());
        let refusals = Refusals { tree: &tree, assignment: &assignment, image, started };
        let claimed = targets.claim_within(wait, &method, &refusals, journals.as_ref())?;
        let devices: Vec<PathBuf> = claimed.iter().map(|(path, _)| path.clone()).collect();
        for (claim, _) in claimed.iter().filter_map(|(_, claim)| claim.as_ref().ok()) {
            settings.check(&claim.geometry())?;
        }

        let journals = journals.map(Journals::new);
        let confirmed = claimed.into_iter().map(|claimed| confirm(claimed, observer, &refusals)).collect();
        let begun = parallel::map(confirmed, |(path, confirmed)| {
            let job = confirmed.and_then(|(claim, plan)| {
                let outline = plan.outline(&method);
                let job = SessionJob::wipe(path.clone(), claim, plan, &settings);
                let journaled = match &journals {
                    Some(journals) => job.journaled(journals, outline, resume),
                    None => Ok(job),
                };
                journaled.map_err(|error| refusals.record(&path, error))
            });
            (path, job)
        });
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        for (path, job) in begun {
            match job {
                Ok(job) => jobs.push(job),
                Err(record) => refused.push((path, *record)),
            }
        }
        let stop = observer.begin();
        let _ticket = match slots.map(|slots| slots::take(slots, &stop, observer)) {
            Some(Err(error)) if error.kind == Kind::Busy => {
                let busy =
                    || Error::busy(error.what()).with_remedy("try again later, or leave --no-wait out");
                refused.extend(jobs.drain(..).map(|job| job.refused(&assignment, started, busy())));
                None
            }
            taken => taken.transpose()?.flatten(),
        };
        let shared =
            RunContext { assignment: &assignment, parallel, settings: &settings, stop: &stop, evidence };
        let outcome = run(jobs, refused, &devices, shared, observer);
        journals.iter().for_each(Journals::prune);
        Ok(outcome)
    }
}

/// Claims every device. An invalid order is an error for all; a refusal concerns one device.
fn claim(
    devices: &[OsString],
    order: &Order,
    method: &Method,
    expected: &Expected,
    deadline: Instant,
    refusals: &Refusals,
) -> Result<Vec<Claimed>> {
    let paths = paths(refusals.tree, devices)?;
    let request = |path| Request { path, image: order.image, deadline, force: &order.force };
    let requests: Vec<Request> = paths.iter().map(|path| request(path)).collect();
    let claim = |(path, claim): (&PathBuf, Result<Claim>)| {
        let claim = claim.and_then(|claim| {
            expected.check(claim.identity())?;
            let plan = order.plan(method, claim.identity(), &claim.geometry(), || claim.keys(None))?;
            Ok((claim, plan))
        });
        match claim {
            Err(error) if error.kind == Kind::Usage => Err(error.on(path)),
            claim => {
                let claim = claim.map_err(|error| refusals.record(path, error));
                Ok((path.clone(), claim))
            }
        }
    };
    paths.iter().zip(guard::claim_all(refusals.tree, &requests)).map(claim).collect()
}

/// Asks about a claimed device; what was refused already stays so.
fn confirm((path, claim): Claimed, observer: &mut dyn Observer, refusals: &Refusals) -> Claimed {
    let confirmed = claim.and_then(|(claim, plan)| {
        let question = Question { identity: claim.identity(), findings: claim.findings(), plan: &plan };
        let answer = observer.confirm(&question);
        answer.map(|()| (claim, plan)).map_err(|error| refusals.record(&path, error))
    });
    (path, confirmed)
}
