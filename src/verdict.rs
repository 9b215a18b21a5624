//! Verdicts: how a job ended, and its exit code.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Kind;

/// How a job, or the whole command, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// All passes reached every block of the area and were flushed, and all that was read back matched.
    Wiped,
    /// Nothing was to be written, and what was read is what was expected.
    Verified,
    /// The drive erased itself, as its status and the blocks that were read afterwards show.
    Erased,
    /// Nothing was to be done but to look: `list`, `plan`.
    Shown,
    /// The job did not reach its end, for a reason that none of the others names; see [`crate::Record::error`].
    Failed,
    /// The request itself is not valid; nothing was written.
    Usage,
    /// A refusal applies that was not overridden (docs/refusals.md); nothing was written.
    Refused,
    /// The device lacks an operation that the plan needs; nothing was written.
    Unsupported,
    /// Done but for blocks that could not be written or read, or copies in a layer below: these are listed.
    Residue,
    /// The verification read blocks that do not hold what the last pass wrote: these are listed.
    Surviving,
    /// Another process holds the target, or the slots were taken, until the deadline; nothing was written.
    Busy,
    /// By SIGINT.
    Interrupted,
    /// By SIGTERM.
    Terminated,
}

/// Most severe first: what a command over several devices exits with. Only all of them wiped is 0.
const BY_SEVERITY: [Verdict; 13] = [
    Verdict::Surviving,
    Verdict::Failed,
    Verdict::Residue,
    Verdict::Interrupted,
    Verdict::Terminated,
    Verdict::Busy,
    Verdict::Unsupported,
    Verdict::Refused,
    Verdict::Usage,
    Verdict::Shown,
    Verdict::Verified,
    Verdict::Erased,
    Verdict::Wiped,
];

impl Verdict {
    /// The process's exit code. A signal ends the process itself, so that its parent sees it, and
    /// these are the codes that a shell then shows.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Wiped | Verdict::Verified | Verdict::Erased | Verdict::Shown => 0,
            Verdict::Failed => 1,
            Verdict::Usage => 2,
            Verdict::Refused => 3,
            Verdict::Unsupported => 4,
            Verdict::Residue => 5,
            Verdict::Surviving => 6,
            Verdict::Busy => 7,
            Verdict::Interrupted => 130,
            Verdict::Terminated => 143,
        }
    }

    /// In a word or two, for people.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Wiped => "wiped",
            Verdict::Verified => "verified",
            Verdict::Erased => "erased",
            Verdict::Shown => "shown",
            Verdict::Failed => "FAILED",
            Verdict::Usage => "not started",
            Verdict::Refused => "REFUSED",
            Verdict::Unsupported => "not supported",
            Verdict::Residue => "RESIDUE",
            Verdict::Surviving => "DATA SURVIVES",
            Verdict::Busy => "busy",
            Verdict::Interrupted | Verdict::Terminated => "interrupted",
        }
    }

    /// The verdict over several jobs; nothing done is not a success.
    pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
        let severity = |verdict: &Verdict| BY_SEVERITY.iter().position(|each| each == verdict);
        verdicts.into_iter().min_by_key(severity).unwrap_or(Verdict::Failed)
    }
}

impl From<Kind> for Verdict {
    fn from(kind: Kind) -> Verdict {
        match kind {
            Kind::Usage => Verdict::Usage,
            Kind::Refused => Verdict::Refused,
            Kind::Unsupported => Verdict::Unsupported,
            Kind::Busy => Verdict::Busy,
            Kind::Failed => Verdict::Failed,
        }
    }
}

/// The table as `--help` and the man page show it; the README is held to it by a test.
pub const EXIT_CODES: &str = "\
Exit codes:
  0        wiped, flushed and verified as requested (purge: the drive erased itself, and what it
           says of that was checked; verify: the expected data was found; plan: every device
           would be accepted)
  1        failed
  2        wrong command line: nothing written
  3        refused: nothing written
  4        not supported by this device: nothing written
  5        wiped with residue: the ranges are listed (purge: known blocks could not be read)
  6        the verification found surviving data: it is listed
  7        busy: nothing written, try again
  130/143  interrupted by SIGINT/SIGTERM: drained and flushed first (a drive that erases itself
           goes on)
  Several devices: the most severe of 6, 1, 5, signal, 7, 4, 3, 2, 0.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_is_the_documented_order() {
        let codes: Vec<u8> = BY_SEVERITY.iter().map(|verdict| verdict.exit_code()).collect();
        assert_eq!(codes, [6, 1, 5, 130, 143, 7, 4, 3, 2, 0, 0, 0, 0]);
        for (index, worse) in BY_SEVERITY.iter().enumerate() {
            for better in &BY_SEVERITY[index..] {
                assert_eq!(Verdict::worst([*better, *worse]), *worse);
            }
        }
        assert_eq!(Verdict::worst([]), Verdict::Failed);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for verdict in BY_SEVERITY {
            assert!(EXIT_CODES.contains(&verdict.exit_code().to_string()), "{verdict:?}");
        }
    }
}
