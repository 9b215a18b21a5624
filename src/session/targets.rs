//! The devices of a session: found by what the user wrote, none of them twice, and a record of each
//! that is not taken.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::device::guard::{self, Claim};
use crate::device::{Tree, select};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::record::{Assignment, Record};

/// One device that is to be wiped: claimed, or not to be had, with the record of that.
pub type Claimed = (PathBuf, std::result::Result<(Claim, Plan), Box<Record>>);

/// The paths of the targets, none of them twice.
///
/// # Errors
/// A usage error where a target names no device, or two of them name one disk.
pub fn paths(tree: &Tree, targets: &[OsString]) -> Result<Vec<PathBuf>> {
    let paths = targets.iter().map(|target| select(tree, target)).collect::<Result<Vec<_>>>()?;
    guard::distinct(tree, &paths)?;
    Ok(paths)
}

/// Makes the records of devices that are not taken, at the time that they are not.
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
