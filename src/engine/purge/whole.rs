//! Whether a drive is the same and whole after a purge.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// What has changed. What could not be read before can be anything now.
pub fn changes(before: &SubsystemFacts, after: &SubsystemFacts) -> Vec<Change> {
    let (Ok(controller), Ok(namespaces)) = (&after.controller, &after.namespaces) else {
        return vec![Change::Unread];
    };
    let mut changes = Vec::new();
    if let Ok(earlier) = &before.controller {
        // Two paths lead to two controllers of one subsystem: its serial number is theirs.
        let name = |model: &str, serial: &str| format!("{model} {serial}");
        if (&earlier.model, &earlier.serial) != (&controller.model, &controller.serial) {
            changes.push(Change::Drive {
                before: name(&earlier.model, &earlier.serial),
                after: name(&controller.model, &controller.serial),
            });
        }
    }
    let earlier = before.namespaces.as_deref().unwrap_or_default();
    let find = |all: &[NamespaceFacts], nsid| all.iter().find(|namespace| namespace.nsid == nsid).cloned();
    for namespace in earlier {
        match find(namespaces, namespace.nsid) {
            Some(now) if now.namespace.is_ok() || namespace.namespace.is_err() => {
                if !same_shape(namespace, &now) {
                    changes.push(Change::Shape { nsid: namespace.nsid });
                }
            }
            _ => changes.push(Change::Gone { nsid: namespace.nsid }),
        }
    }
    if before.namespaces.is_ok() {
        let new = namespaces.iter().filter(|namespace| find(earlier, namespace.nsid).is_none());
        changes.extend(new.map(|namespace| Change::New { nsid: namespace.nsid }));
    }
    changes
}

fn same_shape(before: &NamespaceFacts, after: &NamespaceFacts) -> bool {
    let shape = |facts: &NamespaceFacts| {
        let namespace = facts.namespace.ok()?;
        let names = facts.names.ok();
        Some((
            (namespace.blocks, namespace.capacity_blocks, namespace.format),
            (namespace.nguid, namespace.eui64),
            names,
        ))
    };
    shape(before).is_none_or(|shape_before| Some(shape_before) == shape(after))
}
