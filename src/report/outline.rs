//! What would be done to a device, before anything is: for the person who approves it.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::claim::{Category, limitations};
use super::record::Subject;
use super::text::{bytes, rate, row};
use crate::device::Signature;
use crate::device::guard::Findings;
use crate::device::identity::Identity;
use crate::plan::{Method, Plan};
use crate::printable::printable_path;
use crate::range::Extent;

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

    pub fn render(&self) -> String {
        let mut text = String::new();
        writeln!(text, "{}: would be wiped", console::style(printable_path(&self.device)).bold()).ok();
        row(&mut text, "device", self.identity.describe());
        let found: Vec<String> = self.findings.signatures.iter().map(Signature::describe).collect();
        row(
            &mut text,
            "holds",
            if found.is_empty() { "nothing that is known".into() } else { found.join(", ") },
        );
        for forced in &self.findings.forced {
            row(&mut text, "forced", &forced.what);
        }
        let part = if self.partial { "a part" } else { "the whole device" };
        row(&mut text, "area", format!("{part}: bytes {} ({})", self.area, bytes(self.area.len())));
        for (number, step) in self.steps.iter().enumerate() {
            row(&mut text, &format!("step {}", number + 1), step);
        }
        row(&mut text, "time", self.estimate.map_or("not measured".into(), Estimate::describe));
        row(&mut text, "can claim", self.category.describe());
        for warning in &self.warnings {
            row(&mut text, "warning", warning);
        }
        text
    }
}

impl Estimate {
    fn describe(self) -> String {
        let time = indicatif::HumanDuration(std::time::Duration::from_secs(self.seconds.max(1)));
        let speed = rate(self.bytes_per_second, 1000);
        format!("about {time}, at the {speed} of a short read: writes may be slower")
    }
}
