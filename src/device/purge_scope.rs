//! The scope of a purge: what the erase commands of a drive reach beyond the device that was named.
//!
//! The drive says what exists, and sysfs what of it this machine has. The name of a node proves nothing:
//! `nvme0n1` can be a path through the controller `nvme1`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeviceNumber, Tree};
use crate::error::{Error, Result};
use crate::io::passthrough::nvme::Unknown;
use crate::io::passthrough::nvme::identify::Controller;
use crate::io::passthrough::nvme::probe::{Listing, NamespaceFacts, SubsystemFacts};
use crate::plan::Rung;
use crate::units::bytes;

mod reservations;
mod subsystem;

pub(crate) use reservations::require_unreserved;

use subsystem::{Shown, Subsystem, contradiction};

/// How far a command reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The named namespace alone.
    Namespace,
    /// Everything in the subsystem.
    Subsystem,
}

impl Reach {
    /// A Sanitize always reaches everything, a Format where FNA bit 0 or 1 says so, or FNA is not valid.
    pub(crate) fn of(rung: Rung, controller: &Controller) -> Reach {
        match rung {
            Rung::SanitizeBlock
            | Rung::SanitizeCrypto
            | Rung::SanitizeOverwrite
            | Rung::EnhancedSecurityErase
            | Rung::SecurityErase
            | Rung::FormatUnit => Reach::Subsystem,
            Rung::FormatCrypto | Rung::FormatUserData => match controller.format_attributes {
                Some(attributes) if !attributes.reaches_all() => Reach::Namespace,
                _ => Reach::Subsystem,
            },
            Rung::HostOverwrite => Reach::Namespace,
        }
    }
}

/// What a subsystem is known by: equal for all of its namespaces and controllers, whatever this machine calls
/// them. Two purges of one key are one purge.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SubsystemKey {
    /// SUBNQN; `None` on drives from before it was defined.
    pub nqn: Option<String>,
    /// MN.
    pub model: String,
    /// SN, never empty.
    pub serial: String,
}

impl SubsystemKey {
    fn of(controller: &Controller) -> Result<SubsystemKey> {
        if controller.serial.is_empty() {
            return Err(Error::refused("the drive has no serial number to distinguish it from others by")
                .with_remedy("efface wipe overwrites it"));
        }
        let Controller { subsystem, model, serial, .. } = controller.clone();
        Ok(SubsystemKey { nqn: subsystem, model, serial })
    }
}

/// Everything in a subsystem, as far as the drive and this machine show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PurgeScope {
    /// Which subsystem it is.
    pub key: SubsystemKey,
    /// Every namespace, in the order of their numbers. Private namespaces of different controllers can have the
    /// same number.
    pub namespaces: Vec<ScopedNamespace>,
    /// Every controller, in the order of their numbers.
    pub controllers: Vec<ScopedController>,
    /// Namespaces may exist that were not listed: the drive lists only those attached to the controller that
    /// answered, and not every number is among them.
    pub other_namespaces: bool,
    /// Controllers may exist that were not listed: the drive has no list of them, and can have several.
    pub other_controllers: bool,
}

/// A namespace in a subsystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScopedNamespace {
    /// From 1.
    pub nsid: u32,
    /// It is the named device.
    pub named: bool,
    /// Of its data: of its node, or where that has no size, as the drive says; `None` where neither is known.
    pub size_bytes: Option<u64>,
    /// The block devices of this machine that lead to it: its multipath head, or its visible paths. Empty where it
    /// is attached to no controller of this machine, or has no block device for another reason.
    pub nodes: Vec<ScopedNode>,
    /// NMIC bit 0: it may be attached to several controllers; `None` where this is not known.
    pub shared: Option<bool>,
    /// The controllers that it is attached to; `None` where this is not known.
    pub attached: Option<Vec<u16>>,
}

/// A block device of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScopedNode {
    /// As under /dev.
    pub name: String,
    /// Its number.
    pub number: DeviceNumber,
    /// 0 for a block format that the kernel does not support: there is data all the same.
    pub size_bytes: u64,
}

/// A controller of a subsystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScopedController {
    /// CNTLID.
    pub id: u16,
    /// `nvme0`; `None` where the drive lists it and this machine does not have it.
    pub name: Option<String>,
}

/// Whether queries may be sent to the drive behind a device.
///
/// # Errors
/// As [`PurgeScope::of`]: it is not a whole NVMe namespace, or its drive is not on PCIe.
pub fn require_local_nvme(tree: &Tree, named: DeviceNumber) -> Result<()> {
    subsystem(tree, named).map(drop)
}

fn subsystem(tree: &Tree, named: DeviceNumber) -> Result<Subsystem> {
    let block = tree.block(named).map_err(|error| {
        Error::refused(format!("sysfs does not show the device {named}"))
            .because(error)
            .with_remedy("see which there are: efface list")
    })?;
    let subsystem = Subsystem::of(tree, &block)?;
    subsystem.require_pcie()?;
    Ok(subsystem)
}

impl PurgeScope {
    /// What the commands of the drive behind a device can reach. `facts` were read through that device.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`](crate::Kind::Unsupported) where it is not a whole NVMe namespace. Of kind
    /// [`Kind::Refused`](crate::Kind::Refused), which nothing overrides, where a controller of the drive is not on
    /// PCIe, where sysfs and the drive contradict each other, and where something cannot be read.
    pub(crate) fn of(tree: &Tree, named: DeviceNumber, facts: &SubsystemFacts) -> Result<PurgeScope> {
        let subsystem = subsystem(tree, named)?;
        let answered =
            facts.controller.as_ref().map_err(|why| not_read("the drive cannot be identified", *why))?;
        let key = SubsystemKey::of(answered)?;
        subsystem.require_only(tree, answered)?;
        let shown = subsystem.shown(tree)?;
        require_answer_of(answered.id, named, &shown, &subsystem)?;
        let namespaces = namespaces(named, &shown, facts, answered.id)?;
        Ok(PurgeScope {
            key,
            namespaces,
            controllers: controllers(&subsystem, facts, answered)?,
            other_namespaces: !lists_all_namespaces(facts, answered),
            other_controllers: answered.shares_subsystem && facts.controllers.is_err(),
        })
    }

    /// The namespaces that a command erases.
    pub fn reached(&self, reach: Reach) -> impl Iterator<Item = &ScopedNamespace> {
        self.namespaces.iter().filter(move |namespace| reach == Reach::Subsystem || namespace.named)
    }

    /// Whether a command may be sent.
    ///
    /// # Errors
    /// Of kind [`Kind::Refused`](crate::Kind::Refused) where it reaches, or may reach, anything beyond the named
    /// device, with all of that, until `all_namespaces` says that it may.
    pub fn permit(&self, reach: Reach, all_namespaces: bool) -> Result<()> {
        let beyond = self.beyond(reach);
        if beyond.is_empty() || all_namespaces {
            return Ok(());
        }
        Err(Error::refused(beyond.join("; ")).with_remedy("if all of it may be erased: --all-namespaces"))
    }

    /// What could not be seen of what a command reaches, in sentences for the record.
    pub fn limitations(&self, reach: Reach) -> Vec<String> {
        let mut sentences = Vec::new();
        let without_node = self.reached(reach).filter(|namespace| namespace.nodes.is_empty());
        let without_node: Vec<u32> = without_node.map(|namespace| namespace.nsid).collect();
        if !without_node.is_empty() {
            let numbered = numbered("namespace", &without_node);
            sentences
                .push(format!("This machine has no block device of {numbered}: nothing of it was read."));
        }
        let others = self.other_hosts(reach);
        if !others.is_empty() {
            let numbered = numbered("controller", &others);
            sentences.push(format!("This machine does not have {numbered} of the drive: another host may."));
        }
        if reach == Reach::Subsystem && self.other_namespaces {
            sentences.push("The drive does not list all of its namespaces: it may have others.".into());
        }
        if self.may_have_other_hosts(reach) {
            sentences.push("The drive does not list its controllers: another host may have one.".into());
        }
        sentences
    }

    /// What a command reaches, or may reach, beyond the named device, in clauses.
    fn beyond(&self, reach: Reach) -> Vec<String> {
        /// More of them are listed by their numbers alone.
        const DESCRIBED_MAX: usize = 16;
        let mut clauses = Vec::new();
        let others: Vec<_> = self.reached(reach).filter(|namespace| !namespace.named).collect();
        if others.len() > DESCRIBED_MAX {
            let numbers: Vec<u32> = others.iter().map(|namespace| namespace.nsid).collect();
            clauses.push(format!("the command also erases {}", numbered("namespace", &numbers)));
        } else if !others.is_empty() {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            clauses.push(format!("the command also erases {}", others.join(", ")));
        }
        let others = self.other_hosts(reach);
        if !others.is_empty() {
            let numbered = numbered("controller", &others);
            clauses.push(format!(
                "another host may use the drive by {numbered}, which this machine does not have"
            ));
        }
        if reach == Reach::Subsystem && self.other_namespaces {
            clauses.push(
                "the drive does not list all of its namespaces, and the command also erases the others"
                    .into(),
            );
        }
        if self.may_have_other_hosts(reach) {
            clauses
                .push("the drive does not list its controllers, and another host may use it by one".into());
        }
        clauses
    }

    /// The controllers that this machine does not have, and by which what a command reaches may be in use.
    fn other_hosts(&self, reach: Reach) -> Vec<u32> {
        let others = self.controllers.iter().filter(|controller| controller.name.is_none());
        let uses = |id: u16| {
            let by = |namespace: &ScopedNamespace| match &namespace.attached {
                Some(attached) => attached.contains(&id),
                None => namespace.shared != Some(false),
            };
            reach == Reach::Subsystem || self.reached(reach).any(by)
        };
        others.filter(|controller| uses(controller.id)).map(|controller| controller.id.into()).collect()
    }

    fn may_have_other_hosts(&self, reach: Reach) -> bool {
        let shared = || self.reached(reach).any(|namespace| namespace.shared != Some(false));
        self.other_controllers && (reach == Reach::Subsystem || shared())
    }
}

/// `namespace 2 (nvme0n2, 1.00 TiB)`.
impl fmt::Display for ScopedNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |node: &ScopedNode| match node.size_bytes {
            0 => format!("{} without a size here", node.name),
            _ => node.name.clone(),
        };
        let nodes: Vec<String> = self.nodes.iter().map(node).collect();
        let attached = || match &self.attached {
            Some(ids) => {
                let ids: Vec<u32> = ids.iter().map(|id| (*id).into()).collect();
                format!("not here, attached to {}", numbered("controller", &ids))
            }
            None => "not here".into(),
        };
        let place = if nodes.is_empty() { attached() } else { nodes.join(" and ") };
        let size = self.size_bytes.map_or("of unknown size".into(), bytes);
        write!(f, "namespace {} ({place}, {size})", self.nsid)
    }
}

/// `controllers 1 to 31, 40`, of numbers that ascend.
fn numbered(what: &str, numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let run = |run: &[u32]| match run {
        [first, _, .., last] => format!("{first} to {last}"),
        run => run.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    };
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}", runs.map(run).collect::<Vec<_>>().join(", "))
}

fn not_read(what: &str, why: Unknown) -> Error {
    Error::refused(format!("{what}: {why}")).with_remedy("see what the kernel says of the drive: dmesg")
}

/// What answered is the controller that the device leads to: of a head any, of a path its own.
fn require_answer_of(id: u16, named: DeviceNumber, shown: &[Shown], subsystem: &Subsystem) -> Result<()> {
    let is_named = |one: &&Shown| one.node.as_ref().is_some_and(|node| node.number == named);
    let Some(device) = shown.iter().find(is_named) else {
        return Err(contradiction(format!("the device {named} is no longer in sysfs")));
    };
    let leads_to = |own: u16| device.controller.is_none_or(|path| path == own);
    if !subsystem.controllers.iter().any(|controller| controller.id == id && leads_to(id)) {
        return Err(contradiction(format!(
            "controller {id} of the drive answers, and in sysfs {} does not lead to it",
            device.name
        )));
    }
    Ok(())
}

/// Whether no namespace can exist that is not listed: all that are allocated were, or every number (NN).
fn lists_all_namespaces(facts: &SubsystemFacts, controller: &Controller) -> bool {
    let every_number = || {
        let listed = facts.namespaces.as_deref().unwrap_or_default();
        let count = controller.namespaces_max;
        u32::try_from(listed.len()) == Ok(count) && listed.last().is_some_and(|last| last.nsid == count)
    };
    facts.listing == Listing::Allocated || every_number()
}

/// What the drive lists and what sysfs shows, together.
fn namespaces(
    named: DeviceNumber,
    shown: &[Shown],
    facts: &SubsystemFacts,
    answered: u16,
) -> Result<Vec<ScopedNamespace>> {
    let listed = facts.namespaces.as_deref();
    let listed = listed.map_err(|why| not_read("the namespaces of the drive cannot be listed", *why))?;
    let fact = |nsid| listed.iter().find(|fact| fact.nsid == nsid);
    for one in shown.iter().filter(|one| fact(one.nsid).is_none()) {
        if facts.listing == Listing::Allocated || is_of(one, shown, answered) {
            let (name, nsid) = (&one.name, one.nsid);
            return Err(contradiction(format!(
                "{name} is in sysfs as namespace {nsid}, which the drive does not list"
            )));
        }
    }
    let mut groups: Vec<Vec<&Shown>> = Vec::new();
    for one in shown.iter().filter(|one| one.node.is_some()) {
        let shared = fact(one.nsid).and_then(shared) == Some(true);
        match groups.iter_mut().find(|group| shared && group[0].is_path_beside(one)) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let is_shown = |fact: &&NamespaceFacts| groups.iter().any(|group| group[0].nsid == fact.nsid);
    let not_shown = listed.iter().filter(|fact| !is_shown(fact)).map(|fact| (fact.nsid, &[][..]));
    let all = groups.iter().map(|group| (group[0].nsid, &group[..])).chain(not_shown);
    let mut all: Vec<_> = all.map(|(nsid, group)| namespace(nsid, group, fact(nsid), named)).collect();
    all.sort_by_key(|namespace| namespace.nsid);
    Ok(all)
}

/// Whether it is a path through this controller, or a head without any path: those with paths are as these.
fn is_of(one: &Shown, shown: &[Shown], controller: u16) -> bool {
    let is_path =
        |other: &Shown| other.controller.is_some() && (other.nsid, &other.wwid) == (one.nsid, &one.wwid);
    one.controller.map_or_else(|| !shown.iter().any(is_path), |own| own == controller)
}

fn shared(fact: &NamespaceFacts) -> Option<bool> {
    let namespace = fact.namespace.as_ref().ok().map(|namespace| namespace.shared);
    namespace.or_else(|| fact.independent.as_ref().ok().map(|namespace| namespace.shared))
}

fn namespace(
    nsid: u32,
    group: &[&Shown],
    fact: Option<&NamespaceFacts>,
    named: DeviceNumber,
) -> ScopedNamespace {
    let nodes: Vec<ScopedNode> = group.iter().filter_map(|one| one.node.clone()).collect();
    let size = nodes.iter().map(|node| node.size_bytes).max().filter(|size| *size > 0);
    ScopedNamespace {
        nsid,
        named: nodes.iter().any(|node| node.number == named),
        size_bytes: size.or_else(|| fact?.namespace.as_ref().ok()?.size_bytes()),
        nodes,
        shared: fact.and_then(shared),
        attached: fact.and_then(|fact| fact.controllers.clone().ok()),
    }
}

/// Those of this machine, and those that only the drive lists.
fn controllers(
    subsystem: &Subsystem,
    facts: &SubsystemFacts,
    answered: &Controller,
) -> Result<Vec<ScopedController>> {
    let here = subsystem.controllers.iter();
    let here = here.map(|own| ScopedController { id: own.id, name: Some(own.name.clone()) });
    let mut all: Vec<ScopedController> = here.collect();
    let listed = match &facts.controllers {
        Ok(listed) => listed,
        Err(why) if answered.shares_subsystem && answered.manages_namespaces => {
            return Err(not_read("the controllers of the drive cannot be listed", *why));
        }
        // It has no list, or no other controller.
        Err(_) => return Ok(all),
    };
    if let Some(own) = subsystem.controllers.iter().find(|own| !listed.contains(&own.id)) {
        let (name, id) = (&own.name, own.id);
        return Err(contradiction(format!(
            "{name} is in sysfs as controller {id}, which the drive does not list"
        )));
    }
    let here = |id: u16| subsystem.controllers.iter().any(|own| own.id == id);
    all.extend(listed.iter().filter(|id| !here(**id)).map(|id| ScopedController { id: *id, name: None }));
    all.sort_by_key(|controller| controller.id);
    Ok(all)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unread_tests;
