//! The targets of a session: resolved from what the user wrote, each once, with a record of each refusal.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::device::guard::{self, Claim};
use crate::device::{Tree, select};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::record::{Assignment, Record};

/// One target: claimed with its plan, or the record of its refusal.
pub type Claimed = (PathBuf, std::result::Result<(Claim, Plan), Box<Record>>);

/// The paths of the targets.
///
/// # Errors
/// A usage error where a target names no device, or two of them name one disk.
pub fn paths(tree: &Tree, targets: &[OsString]) -> Result<Vec<PathBuf>> {
    let paths = targets.iter().map(|target| select(tree, target)).collect::<Result<Vec<_>>>()?;
    guard::distinct(tree, &paths)?;
    Ok(paths)
}

/// Makes the records of refused devices.
pub struct Refusals<'a> {
    pub tree: &'a Tree,
    pub assignment: &'a Assignment,
    pub image: bool,
    pub started: Timestamp,
}

impl Refusals<'_> {
    pub fn record(&self, device: &Path, error: Error) -> Box<Record> {
        let known = (guard::describe(self.tree, device, self.image), None);
        Box::new(Record::of_error(self.assignment, device, known, self.started, error))
    }
}
