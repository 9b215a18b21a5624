//! Findings: what was on a target and around it before anything was written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Signature;
use super::layer::Layer;
use super::refusal::Refusal;

/// What was found of a target before anything was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Findings {
    /// File systems, volume members, crypto headers and partition tables, used or not.
    pub signatures: Vec<Signature>,
    /// Refusals that the user had overridden.
    pub forced: Vec<Refusal>,
    /// The layers that its bytes go through, from the target down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// Where a user could be that was not seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// Why a read-back can come from a cache below the target, and not from the storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indirect: Vec<String>,
}
