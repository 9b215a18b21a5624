//! Plans of purges: outlines that were approved, and are carried out only if drive and work are unchanged.

use std::path::Path;

use super::super::plan_file::read_own;
use super::PurgeOutline;
use crate::device::identity::difference;
use crate::error::{Error, Result};
use crate::printable::{excerpt, is_printable};

const REMEDY: &str =
    "create it again: efface purge --dry-run --json (that of a wipe is for efface wipe --plan)";

/// Reads the outlines that `efface purge --dry-run --json` printed, one on each line.
///
/// # Errors
/// A usage error where the file cannot be read, where its owner or mode lets others change it, and where it
/// holds no outline, or outlines of different orders.
pub fn read_plan(path: &Path) -> Result<Vec<PurgeOutline>> {
    let text = read_own(path).map_err(|error| {
        Error::usage("the plan cannot be read").because(error).with_remedy(REMEDY).on(path)
    })?;
    let wrong = |what: String| Error::usage(what).with_remedy(REMEDY).on(path);
    let parse = |line: &str| {
        serde_json::from_str::<PurgeOutline>(line)
            .map_err(|error| wrong(format!("this is no plan of a purge: {}", excerpt(&error.to_string()))))
    };
    let planned = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    let Some((first, rest)) = planned.split_first() else { return Err(wrong("it has no drive".into())) };
    if rest.iter().any(|other| other.order != first.order) {
        return Err(wrong("its drives are of different orders".into()));
    }
    if let Some(PurgeOutline { device, .. }) = planned.iter().find(|planned| !shows_safely(planned)) {
        let device = excerpt(&device.to_string_lossy());
        return Err(wrong(format!("of its {device} it says what would steer a terminal")));
    }
    Ok(planned)
}

/// What of it a message may repeat steers no terminal.
fn shows_safely(planned: &PurgeOutline) -> bool {
    let marks = planned.identity.marks();
    is_printable(&planned.device.to_string_lossy()) && marks.values().all(|mark| is_printable(mark))
}

/// Refuses what is not as it was planned; without plans there is nothing to compare.
pub(super) fn require_as_planned(planned: &[PurgeOutline], outline: &PurgeOutline) -> Result<()> {
    if planned.is_empty() {
        return Ok(());
    }
    let refused = |what: String| Error::refused(what).with_remedy(REMEDY);
    let own = planned.iter().find(|planned| planned.device == outline.device);
    let planned = own.ok_or_else(|| refused("it is not in the plan".into()))?;
    let words = ["the plan says", "it is"];
    if let Some(difference) = difference(&planned.identity.marks(), &outline.identity.marks(), words) {
        return Err(refused(format!("it is not the drive that was planned: {difference}")));
    }
    let parts = [
        ("the commands", planned.attempts == outline.attempts),
        ("what they reach", planned.reach == outline.reach),
        ("the drive's namespaces or controllers", planned.scope == outline.scope),
    ];
    match parts.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(refused(format!("it is not as it was planned: {what} changed"))),
        None => Ok(()),
    }
}
