//! The outline of a planned wipe, for the person who approves it.

use std::path::PathBuf;

use serde::Serialize;

use crate::device::Findings;
use crate::device::identity::Identity;
use crate::plan::{Method, Plan};
use crate::range::Extent;
use crate::record::Subject;
use crate::record::claim::{Category, limitations};

#[derive(Debug, Serialize)]
pub struct Outline {
    pub device: PathBuf,
    pub identity: Identity,
    pub findings: Findings,
    pub method: String,
    pub area: Extent,
    pub partial: bool,
    pub steps: Vec<String>,
    pub estimate: Option<Estimate>,
    /// What it will be able to claim of the media.
    pub category: Category,
    pub warnings: Vec<String>,
}

/// From a short read at the start of the area.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Estimate {
    pub bytes_per_second: u64,
    pub seconds: u64,
}

impl Outline {
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
        }
    }
}
