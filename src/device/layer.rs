//! Layers of the storage stack: what each does with a write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One layer that the target's bytes go through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Layer {
    /// The kernel's name of the device that is the layer.
    pub device: String,
    /// `dm linear`, `md raid1`, `bcache`, `loop`.
    pub kind: String,
    /// What happens here to a write.
    pub effect: Effect,
    /// What weakens a claim on bytes below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limitations: Vec<String>,
}

/// What a layer does with a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    /// A layer that passes writes through, without limitations.
    pub fn passing(device: impl Into<String>, kind: impl Into<String>) -> Layer {
        let (device, kind) = (device.into(), kind.into());
        Layer { device, kind, effect: Effect::PassesThrough, limitations: Vec::new() }
    }

    /// A layer whose kind efface does not know.
    pub fn unknown(device: impl Into<String>, kind: impl Into<String>) -> Layer {
        Layer { effect: Effect::Unknown, ..Layer::passing(device, kind) }
    }

    /// Adds a limitation: a clause that a record repeats as a sentence.
    pub fn with(mut self, limitation: impl Into<String>) -> Layer {
        self.limitations.push(limitation.into());
        self
    }

    /// The same as one that keeps copies on this device; `drain` is how to end that.
    pub fn keeping(self, on: impl Into<String>, drain: impl Into<String>) -> Layer {
        Layer { effect: Effect::KeepsCopies { on: on.into(), drain: drain.into() }, ..self }
    }
}
