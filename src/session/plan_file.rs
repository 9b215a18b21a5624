//! Plan files: approved plans, executed only if disk and work are unchanged.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Order;
use super::outline::{Estimate, Outline};
use super::targets::{Claimed, Refusals, paths};
use crate::device::Findings;
use crate::device::capabilities::{Capabilities, Prober};
use crate::device::guard::{self, Claim, Examined, Request};
use crate::device::identity::{Expected, Identity, difference};
use crate::device::{Tree, select};
use crate::engine::estimate::{read_rate, seconds};
use crate::error::{Error, Kind, Result};
use crate::plan::{Method, Plan};
use crate::printable::{excerpt, is_printable};
use crate::record::{Assignment, Record, Subject};

/// The file's version: another one may mean something else.
const VERSION: u32 = 2;
/// Of thousands of devices.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is approved and carried out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    efface_plan: u32,
    made: Timestamp,
    efface: String,
    order: Order,
    devices: Vec<Planned>,
    /// Asked for, and not to be had.
    refused: Vec<Refused>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    device: PathBuf,
    /// What has to be the same when it is carried out.
    must_hold: BTreeMap<String, String>,
    /// For people: everything that was known.
    outline: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    device: PathBuf,
    error: String,
    exit_code: u8,
}

/// What would be done to several devices.
pub struct Plans {
    order: Order,
    outlines: Vec<(BTreeMap<String, String>, Outline)>,
    /// The records of devices that would not be taken.
    pub refused: Vec<Record>,
}

impl Plans {
    /// Looks at the devices, and writes nothing.
    ///
    /// # Errors
    /// Only what is wrong with the order itself.
    pub fn new(tree: &Tree, devices: &[OsString], order: Order, expected: &Expected) -> Result<Plans> {
        order.check()?;
        let method = order.method()?;
        let assignment = Assignment { method: method.name.clone(), ..Assignment::default() };
        let (image, started) = (order.image, Timestamp::now());
        let refusals = Refusals { tree, assignment: &assignment, image, started };
        let (mut outlines, mut refused) = (Vec::new(), Vec::new());
        let (paths, deadline) = (paths(tree, devices)?, Instant::now());
        let request = |path| Request { path, image, deadline, force: &order.force };
        let requests: Vec<Request> = paths.iter().map(|path| request(path)).collect();
        for (path, target) in paths.iter().zip(guard::inspect_all(tree, &requests)) {
            let outline = target
                .and_then(|target| outline(target, &order, &method, expected))
                .map_err(|error| error.on(path));
            match outline {
                Ok(outline) => outlines.push(outline),
                Err(error) if error.kind == Kind::Usage => return Err(error),
                Err(error) => refused.push(*refusals.record(path, error)),
            }
        }
        add_capabilities(tree, &mut outlines);
        Ok(Plans { order, outlines, refused })
    }

    /// Of the devices that would be taken, in the order that they were asked for.
    pub fn outlines(&self) -> impl Iterator<Item = &Outline> {
        self.outlines.iter().map(|(_, outline)| outline)
    }

    /// As a file for [`super::Targets::Plan`].
    ///
    /// # Errors
    /// A usage error where the path of a device is not UTF-8.
    pub fn into_json(self) -> Result<String> {
        let file = self.into_file()?;
        Ok(serde_json::to_string_pretty(&file).map_err(|error| json_error(&error))? + "\n")
    }

    fn into_file(self) -> Result<PlanFile> {
        let planned = |(must_hold, outline): (_, Outline)| {
            let device = outline.device.clone();
            if device.to_str().is_none() {
                return Err(Error::usage("a plan's file holds only names in UTF-8")
                    .with_remedy("name it by serial:…, by wwn:… or by a link with a name in UTF-8")
                    .on(&device));
            }
            let outline = serde_json::to_value(outline).map_err(|error| json_error(&error))?;
            Ok(Planned { device, must_hold, outline })
        };
        let refused = |record: Record| Refused {
            device: record.device.into(),
            error: record.error.unwrap_or_default(),
            exit_code: record.verdict.exit_code(),
        };
        Ok(PlanFile {
            efface_plan: VERSION,
            made: Timestamp::now(),
            efface: env!("CARGO_PKG_VERSION").into(),
            order: self.order,
            devices: self.outlines.into_iter().map(planned).collect::<Result<_>>()?,
            refused: self.refused.into_iter().map(refused).collect(),
        })
    }
}

fn json_error(error: &serde_json::Error) -> Error {
    Error::failed(format!("the plan cannot be written as JSON: {error}"))
}

fn outline(
    target: Examined,
    order: &Order,
    method: &Method,
    expected: &Expected,
) -> Result<(BTreeMap<String, String>, Outline)> {
    let (identity, findings) = (target.identity().clone(), target.findings().clone());
    expected.check(&identity)?;
    let plan = order.plan(method, &identity, &target.geometry(), || target.keys())?;
    let must_hold = must_hold(&identity, &findings, method, &plan);
    let mut disk = target.open(1 << 4)?;
    let direct = disk.io_path().direct;
    let rate = read_rate(&mut *disk, plan.area)?;
    let estimate =
        rate.map(|bytes_per_second| Estimate { bytes_per_second, seconds: seconds(&plan, bytes_per_second) });
    let subject = Subject { device: identity.path.clone(), identity, findings, counter: None };
    Ok((must_hold, Outline::new(subject, method, &plan, direct, estimate)))
}

/// What the drives that can be asked offer themselves.
fn add_capabilities(tree: &Tree, outlines: &mut [(BTreeMap<String, String>, Outline)]) {
    let disks: Vec<&Identity> = outlines.iter().map(|(_, outline)| &outline.identity).collect();
    let capabilities = Prober::real().capabilities(tree, &disks);
    for ((_, outline), capabilities) in outlines.iter_mut().zip(capabilities) {
        let asked = !matches!(capabilities, Capabilities::NotAsked { .. });
        outline.capabilities = asked.then_some(capabilities);
    }
}

/// The disk, and what is done to it, by name and value.
fn must_hold(
    identity: &Identity,
    findings: &Findings,
    method: &Method,
    plan: &Plan,
) -> BTreeMap<String, String> {
    let forced: Vec<String> =
        findings.forced.iter().filter_map(|refusal| refusal.force).map(|kind| kind.to_string()).collect();
    let work = [
        ("area", plan.area.to_string()),
        ("steps", plan.outline(method).join("; ")),
        ("forced", forced.join(", ")),
    ];
    let all = identity.marks().into_iter().chain(work);
    all.map(|(name, value)| (name.to_string(), value)).collect()
}

impl PlanFile {
    /// Reads a file that [`Plans::into_json`] made.
    ///
    /// # Errors
    /// A usage error where it cannot be read, is of another version, contains a refused device or none, or an
    /// order that cannot be given; where its owner or mode lets others change it.
    pub fn read(path: &Path) -> Result<PlanFile> {
        let unreadable = |error| {
            Error::usage("the plan cannot be read")
                .because(error)
                .with_remedy("give the file that efface plan --json wrote")
        };
        let text = read_own(path).map_err(|error| unreadable(error).on(path))?;
        let wrong = |what: String| {
            Error::usage(what)
                .with_remedy(
                    "create it again: efface plan --json (that of a purge is for efface purge --plan)",
                )
                .on(path)
        };
        let file: PlanFile = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("this is no plan: {}", excerpt(&error.to_string()))))?;
        if file.efface_plan != VERSION {
            return Err(wrong(format!("it is a plan of version {}, not {VERSION}", file.efface_plan)));
        }
        if let Some(Refused { device, error, .. }) = file.refused.first() {
            let (device, error) = (excerpt(&device.to_string_lossy()), excerpt(error));
            return Err(wrong(format!("its {device} was refused: {error}")));
        }
        if file.devices.is_empty() {
            return Err(wrong("it has no device".into()));
        }
        let order = file.order.check();
        order.map_err(|why| {
            wrong(format!("its order is not one that can be given: {}", excerpt(why.what())))
        })?;
        if let Some(Planned { device, .. }) = file.devices.iter().find(|planned| !planned.is_printable()) {
            let device = excerpt(&device.to_string_lossy());
            return Err(wrong(format!("of its {device} it says what would steer a terminal")));
        }
        Ok(file)
    }

    /// The order that was approved.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// How many.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Claims each planned disk, wherever it is now, and refuses what is not as it was planned.
    pub(super) fn claim(
        &self,
        method: &Method,
        deadline: Instant,
        refusals: &Refusals,
    ) -> Result<Vec<Claimed>> {
        let tree = refusals.tree;
        let paths: Vec<PathBuf> = self.devices.iter().map(|planned| planned.find(tree)).collect();
        guard::distinct(tree, &paths)?;
        let request = |path| Request { path, image: refusals.image, deadline, force: &self.order.force };
        let requests: Vec<Request> = paths.iter().map(|path| request(path)).collect();
        let claims = guard::claim_all(tree, &requests);
        let claim = |((planned, path), claim): ((&Planned, &PathBuf), Result<Claim>)| {
            let claim = claim.and_then(|claim| self.as_planned(claim, method, planned, path));
            // A plan says everything: what does not fit it is no mistake of the command line.
            let claim = claim.map_err(|mut error| {
                error.kind = if error.kind == Kind::Usage { Kind::Refused } else { error.kind };
                refusals.record(path, error)
            });
            (path.clone(), claim)
        };
        Ok(self.devices.iter().zip(&paths).zip(claims).map(claim).collect())
    }

    fn as_planned(
        &self,
        claim: Claim,
        method: &Method,
        planned: &Planned,
        path: &Path,
    ) -> Result<(Claim, Plan)> {
        let plan = self.order.plan(method, claim.identity(), &claim.geometry(), || claim.keys(None))?;
        let now = must_hold(claim.identity(), claim.findings(), method, &plan);
        match difference(&planned.must_hold, &now, ["planned", "found"]) {
            None => Ok((claim, plan)),
            Some(difference) => Err(Error::refused(format!("it is not what was planned: {difference}"))
                .with_remedy("see which disk is which (efface list), and plan again")
                .on(path)),
        }
    }
}

/// Who may write to the file decides what is wiped: that must be this user, or root.
pub(super) fn read_own(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let trusted = [0, nix::unistd::geteuid().as_raw()];
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if !trusted.contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "others can write to it: its owner is user {}, its mode {:o}",
            metadata.uid(),
            metadata.mode() & 0o7777
        )));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too large for a plan"));
    }
    let mut text = String::new();
    File::take(file, FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Planned {
    /// What of it a message may repeat steers no terminal.
    fn is_printable(&self) -> bool {
        let device = self.device.to_string_lossy();
        let marks = self.must_hold.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        marks.chain([&*device]).all(is_printable)
    }

    /// By its own name where it has one; disks change places between a plan and its wipe.
    fn find(&self, tree: &Tree) -> PathBuf {
        let whole = !self.must_hold.contains_key("partition_start");
        let named = ["wwn", "serial"]
            .iter()
            .filter(|_| whole)
            .find_map(|kind| select(tree, format!("{kind}:{}", self.must_hold.get(*kind)?)).ok());
        named.filter(|path| !same_node(path, &self.device)).unwrap_or_else(|| self.device.clone())
    }
}

fn same_node(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}
