//! The outline of a planned wipe, for the person who approves it.

use std::path::PathBuf;

use serde::Serialize;

use crate::device::Findings;
use crate::device::capabilities::Capabilities;
use crate::device::identity::Identity;
use crate::plan::{Method, Plan};
use crate::range::Extent;
use crate::record::Subject;
use crate::record::claim::{Category, limitations};

/// What a wipe would do to one device, and what it could claim.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Outline {
    /// As the user gave it.
    pub device: PathBuf,
    /// As it was when it was examined.
    pub identity: Identity,
    /// What would be lost, and which refusals are overridden.
    pub findings: Findings,
    /// As [`Plan::method`].
    pub method: String,
    /// As [`Plan::area`].
    pub area: Extent,
    /// As [`Plan::partial`].
    pub partial: bool,
    /// For people, in order, without seeds: the same order gives the same lines.
    pub steps: Vec<String>,
    /// `None` where too little could be read to measure it.
    pub estimate: Option<Estimate>,
    /// What it will be able to claim of the media.
    pub category: Category,
    /// The limitations that its record would have, as sentences.
    pub warnings: Vec<String>,
    /// What the drive itself offers in the place of a wipe; `None` where it has not been asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
}

/// From a short read at the start of the area.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// Read in order.
    pub bytes_per_second: u64,
    /// For all steps together, at that rate.
    pub seconds: u64,
}

impl Outline {
    /// `direct` is [`IoPath::direct`](crate::IoPath::direct) of the examined device.
    pub fn new(
        subject: Subject,
        method: &Method,
        plan: &Plan,
        direct: bool,
        estimate: Option<Estimate>,
    ) -> Outline {
        let Subject { device, identity, findings, .. } = subject;
        Outline {
            method: plan.method.clone(),
            area: plan.area,
            partial: plan.partial,
            steps: plan.outline(method),
            category: Category::of(plan, &identity),
            warnings: limitations(plan, &identity, &findings, direct),
            device,
            identity,
            findings,
            estimate,
            capabilities: None,
        }
    }
}
