//! Whether a drive is the same and whole after a purge.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::io::passthrough::nvme::identify::{BlockFormat, Controller, Namespace, NamespaceNames};
use crate::io::passthrough::nvme::probe::{NamespaceFacts, SubsystemFacts};

/// Something that is not as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The controller, or its list of namespaces, cannot be read.
    Unread,
    /// Another drive answers, or the same under another name.
    Drive {
        /// Model and serial number.
        before: String,
        /// The same.
        after: String,
    },
    /// A namespace is gone, or cannot be read.
    Gone {
        /// Its number.
        nsid: u32,
    },
    /// A namespace is there that was not.
    New {
        /// Its number.
        nsid: u32,
    },
    /// A namespace has another size, block format, metadata, protection information or identifier.
    Shape {
        /// Its number.
        nsid: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Unread => f.write_str("the drive cannot be identified"),
            Change::Drive { before, after } => write!(f, "it was {before} and is {after}"),
            Change::Gone { nsid } => write!(f, "namespace {nsid} is gone"),
            Change::New { nsid } => write!(f, "namespace {nsid} is new"),
            Change::Shape { nsid } => write!(f, "namespace {nsid} has another size, format or identifier"),
        }
    }
}

/// What a purge must leave as it was. `None` is what could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DriveShape {
    /// Model and serial number of the subsystem: two paths lead to two controllers of one.
    pub name: Option<String>,
    /// All that are known.
    pub namespaces: Option<Vec<NamespaceShape>>,
}

/// One namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceShape {
    /// From 1.
    pub nsid: u32,
    /// Its size, format and identifiers.
    pub shape: Option<Shape>,
}

/// What a namespace is, but for what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Shape {
    /// In logical blocks.
    pub blocks: u64,
    /// How many of them can be allocated.
    pub capacity_blocks: u64,
    /// Block size, metadata and protection information.
    pub format: Option<BlockFormat>,
    /// Of Identify Namespace.
    pub nguid: Option<[u8; 16]>,
    /// The same.
    pub eui64: Option<[u8; 8]>,
    /// Of the list of identifiers.
    pub names: Option<NamespaceNames>,
}

impl DriveShape {
    /// By what a drive says of itself.
    pub fn of(facts: &SubsystemFacts) -> DriveShape {
        let namespace = |facts: &NamespaceFacts| NamespaceShape { nsid: facts.nsid, shape: Shape::of(facts) };
        let name = |controller: &Controller| format!("{} {}", controller.model, controller.serial);
        DriveShape {
            name: facts.controller.as_ref().ok().map(name),
            namespaces: facts.namespaces.as_ref().ok().map(|all| all.iter().map(namespace).collect()),
        }
    }

    /// What is another `now`. What could not be read before can be anything now.
    pub fn changes(&self, now: &DriveShape) -> Vec<Change> {
        let (Some(name), Some(namespaces)) = (&now.name, &now.namespaces) else {
            return vec![Change::Unread];
        };
        let mut changes = Vec::new();
        if let Some(before) = self.name.as_ref().filter(|before| *before != name) {
            changes.push(Change::Drive { before: before.clone(), after: name.clone() });
        }
        let Some(earlier) = &self.namespaces else { return changes };
        for NamespaceShape { nsid, shape } in earlier {
            let now = namespaces.iter().find(|namespace| namespace.nsid == *nsid).map(|now| now.shape);
            match (shape, now) {
                (_, None) | (Some(_), Some(None)) => changes.push(Change::Gone { nsid: *nsid }),
                (None, Some(_)) => {}
                (Some(before), Some(Some(now))) if *before == now => {}
                (Some(_), Some(Some(_))) => changes.push(Change::Shape { nsid: *nsid }),
            }
        }
        let is_new = |nsid: u32| earlier.iter().all(|namespace| namespace.nsid != nsid);
        let new = namespaces.iter().filter(|namespace| is_new(namespace.nsid));
        changes.extend(new.map(|namespace| Change::New { nsid: namespace.nsid }));
        changes
    }
}

impl Shape {
    fn of(facts: &NamespaceFacts) -> Option<Shape> {
        let Namespace { blocks, capacity_blocks, format, nguid, eui64, .. } = facts.namespace.ok()?;
        Some(Shape { blocks, capacity_blocks, format, nguid, eui64, names: facts.names.ok() })
    }
}
