//! What a layer of the storage stack does with what is written to it.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::usage::Usage;
use super::{DeviceNumber, Tree};

/// One layer that the target's bytes go through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// The kernel's name of the device that is the layer.
    pub device: String,
    /// `dm linear`, `md raid1`, `bcache`, `loop`.
    pub kind: String,
    pub effect: Effect,
    /// What weakens a claim on bytes below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limitations: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// What is written replaces what was there.
    PassesThrough,
    /// Old data stays where the write does not reach.
    KeepsCopies {
        /// The device that keeps them.
        on: String,
        /// How to end that.
        drain: String,
    },
    /// No layer that efface knows.
    Unknown,
}

impl Layer {
    /// The layers below a device as they were at that time or later; where they cannot be looked at, one that
    /// is not known.
    pub fn since(tree: &Tree, number: DeviceNumber, since: Instant) -> Vec<Layer> {
        let usage = tree.block(number).and_then(|_| Usage::since(tree, since));
        usage.map(|usage| usage.layers(Place::Device(number))).unwrap_or_else(|error| {
            let kind = format!("what lies below it could not be looked at again: {error}");
            vec![Layer::unknown(number.to_string(), kind)]
        })
    }

    pub fn passing(device: impl Into<String>, kind: impl Into<String>) -> Layer {
        let (device, kind) = (device.into(), kind.into());
        Layer { device, kind, effect: Effect::PassesThrough, limitations: Vec::new() }
    }

    pub fn unknown(device: impl Into<String>, kind: impl Into<String>) -> Layer {
        Layer { effect: Effect::Unknown, ..Layer::passing(device, kind) }
    }

    pub fn with(mut self, limitation: impl Into<String>) -> Layer {
        self.limitations.push(limitation.into());
        self
    }

    pub fn keeping(self, on: impl Into<String>, drain: impl Into<String>) -> Layer {
        Layer { effect: Effect::KeepsCopies { on: on.into(), drain: drain.into() }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTree, SDA};
    use super::*;

    #[test]
    fn layers_that_cannot_be_looked_at_again_are_not_known() {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        let since = |number| Layer::since(&fake.tree, number, Instant::now());
        let is_unknown = |layers: Vec<Layer>| layers.len() == 1 && layers[0].effect == Effect::Unknown;
        assert_eq!(since(disk), []);
        assert!(is_unknown(since("8:16".parse().unwrap())), "a device that is gone");
        fake.write("proc/self/mountinfo", "cut off");
        assert!(is_unknown(since(disk)));
    }
}
