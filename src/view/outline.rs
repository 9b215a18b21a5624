//! The outline of a planned wipe or purge as text.

use std::fmt::Write;

use super::capabilities::capability_lines;
use super::purge::outline_rows;
use super::text::row;
use crate::device::Signature;
use crate::printable::printable_path;
use crate::session::outline::{Estimate, Outline};
use crate::session::purge::PurgeOutline;
use crate::units::{bytes, rate};

pub fn render(outline: &Outline) -> String {
    let mut text = String::new();
    writeln!(text, "{}: would be wiped", console::style(printable_path(&outline.device)).bold()).ok();
    row(&mut text, "device", outline.identity.describe());
    let found: Vec<String> = outline.findings.signatures.iter().map(Signature::describe).collect();
    row(&mut text, "holds", if found.is_empty() { "nothing that is known".into() } else { found.join(", ") });
    for forced in &outline.findings.forced {
        row(&mut text, "forced", &forced.what);
    }
    let part = if outline.partial { "a part" } else { "the whole device" };
    row(&mut text, "area", format!("{part}: bytes {} ({})", outline.area, bytes(outline.area.len())));
    for (number, step) in outline.steps.iter().enumerate() {
        row(&mut text, &format!("step {}", number + 1), step);
    }
    row(&mut text, "time", outline.estimate.map_or("not measured".into(), describe));
    row(&mut text, "can claim", outline.category.describe());
    for warning in &outline.warnings {
        row(&mut text, "warning", warning);
    }
    for line in outline.capabilities.iter().flat_map(capability_lines) {
        row(&mut text, "purge", line);
    }
    text
}

/// What a purge would do to one drive.
pub fn render_purge(outline: &PurgeOutline) -> String {
    let mut text = String::new();
    writeln!(text, "{}: would be purged", console::style(printable_path(&outline.device)).bold()).ok();
    row(&mut text, "device", outline.identity.describe());
    for (label, line) in outline_rows(outline) {
        row(&mut text, label, line);
    }
    text
}

fn describe(estimate: Estimate) -> String {
    let time = indicatif::HumanDuration(std::time::Duration::from_secs(estimate.seconds.max(1)));
    let speed = rate(estimate.bytes_per_second, 1000);
    format!("about {time}, at the {speed} of a short read: writes may be slower")
}
