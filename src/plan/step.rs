//! Steps: an operation over a scope.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sample;
use crate::pattern::{Pattern, Seed};
use crate::range::ExtentSet;

/// One step of a plan. Only the combinations that the constructors make exist; a document with
/// another one is not read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Form")]
pub struct Step {
    operation: Operation,
    scope: Scope,
}

/// What is done to every block of a scope, once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Sends a pattern to the device, block by block.
    Write {
        /// What each block holds afterwards, where nothing fails.
        pattern: Pattern,
    },
    /// The command of that name (`BLKZEROOUT`): the device need not write its media.
    WriteZeroes,
    /// The command of that name (`BLKDISCARD`): it guarantees nothing.
    Discard,
    /// Reads, to find what is not zero.
    FindNonZero,
    /// Reads what is there before the first pass, and keeps hashes of it: a block that is found later
    /// is known again. After the passes it compares with them.
    Fingerprint,
    /// Reads, and compares with a pattern.
    Compare {
        /// What each block has to hold.
        pattern: Pattern,
    },
}

/// Where it is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// The plan's whole area.
    Area,
    /// A part of the area.
    Ranges {
        /// Absolute on the device, and within the area.
        ranges: ExtentSet,
    },
    /// What `FindNonZero` found: a block of a thin volume that was never written costs its pool
    /// nothing then.
    NonZero,
    /// Blocks that are drawn, and those that a check always reads (docs/sampling.md).
    Sample {
        /// The blocks follow from it and from a seed that is drawn when the step begins.
        sample: Sample,
    },
    /// The very blocks of an earlier check.
    Recorded {
        /// What the earlier job recorded of it.
        check: Box<EarlierCheck>,
    },
}

/// What an earlier check read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct EarlierCheck {
    /// `None` where it read all.
    pub sample: Option<Sample>,
    /// That its sample was drawn with.
    pub seed: Seed,
    /// The bytes of one transfer of that job.
    pub chunk_bytes: u64,
    /// What its last pass wrote only after failures: always read.
    pub retried: ExtentSet,
    /// What its last pass could not write: never read.
    pub residue: ExtentSet,
}

/// A step as it is written, before its combination was looked at.
#[derive(Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Form {
    operation: Operation,
    scope: Scope,
}

impl TryFrom<Form> for Step {
    type Error = String;

    fn try_from(Form { operation, scope }: Form) -> Result<Step, String> {
        let possible = match (&operation, &scope) {
            (Operation::Write { .. }, Scope::Area | Scope::Ranges { .. } | Scope::NonZero) => true,
            (Operation::WriteZeroes | Operation::Discard | Operation::FindNonZero, Scope::Area) => true,
            (Operation::Fingerprint, Scope::Area | Scope::Sample { .. }) => true,
            (Operation::Compare { .. }, Scope::Area | Scope::Sample { .. } | Scope::Recorded { .. }) => true,
            (Operation::Write { .. }, Scope::Sample { .. } | Scope::Recorded { .. })
            | (
                Operation::WriteZeroes | Operation::Discard | Operation::FindNonZero,
                Scope::Ranges { .. } | Scope::NonZero | Scope::Sample { .. } | Scope::Recorded { .. },
            )
            | (Operation::Fingerprint, Scope::Ranges { .. } | Scope::NonZero | Scope::Recorded { .. })
            | (Operation::Compare { .. }, Scope::Ranges { .. } | Scope::NonZero) => false,
        };
        let step = Step { operation, scope };
        if possible { Ok(step) } else { Err(format!("no plan has this step: {step}")) }
    }
}

impl Step {
    /// Writes the pattern over all of the area.
    pub fn write(pattern: Pattern) -> Step {
        Step { operation: Operation::Write { pattern }, scope: Scope::Area }
    }

    /// Writes the pattern over these ranges of the area.
    pub fn write_ranges(pattern: Pattern, ranges: ExtentSet) -> Step {
        Step { operation: Operation::Write { pattern }, scope: Scope::Ranges { ranges } }
    }

    /// Writes the pattern where an earlier [`Step::find_nonzero`] of the same plan found something.
    pub fn write_nonzero(pattern: Pattern) -> Step {
        Step { operation: Operation::Write { pattern }, scope: Scope::NonZero }
    }

    /// The write-zeroes command over all of the area.
    pub fn write_zeroes() -> Step {
        Step { operation: Operation::WriteZeroes, scope: Scope::Area }
    }

    /// The discard command over all of the area.
    pub fn discard() -> Step {
        Step { operation: Operation::Discard, scope: Scope::Area }
    }

    /// Reads all of the area for what is not zero.
    pub fn find_nonzero() -> Step {
        Step { operation: Operation::FindNonZero, scope: Scope::Area }
    }

    /// Without a sample all of the area is read.
    pub fn fingerprint(sample: Option<Sample>) -> Step {
        Step { operation: Operation::Fingerprint, scope: Scope::read(sample) }
    }

    /// Without a sample all of the area is read.
    pub fn compare(pattern: Pattern, sample: Option<Sample>) -> Step {
        Step { operation: Operation::Compare { pattern }, scope: Scope::read(sample) }
    }

    /// Reads the very blocks that an earlier check read.
    pub fn compare_again(pattern: Pattern, check: EarlierCheck) -> Step {
        let scope = Scope::Recorded { check: Box::new(check) };
        Step { operation: Operation::Compare { pattern }, scope }
    }

    /// What it does.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Where it does it.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether it changes what the device holds.
    pub fn writes(&self) -> bool {
        match self.operation {
            Operation::Write { .. } | Operation::WriteZeroes | Operation::Discard => true,
            Operation::FindNonZero | Operation::Fingerprint | Operation::Compare { .. } => false,
        }
    }

    /// Whether it moves data, other than a command that names only a range.
    pub fn transfers(&self) -> bool {
        match self.operation {
            Operation::WriteZeroes | Operation::Discard => false,
            Operation::Write { .. }
            | Operation::FindNonZero
            | Operation::Fingerprint
            | Operation::Compare { .. } => true,
        }
    }

    fn pattern(&self) -> Option<&Pattern> {
        match &self.operation {
            Operation::Write { pattern } | Operation::Compare { pattern } => Some(pattern),
            Operation::WriteZeroes | Operation::Discard | Operation::FindNonZero | Operation::Fingerprint => {
                None
            }
        }
    }

    /// The pattern that it sends to the device.
    pub fn written(&self) -> Option<&Pattern> {
        self.pattern().filter(|_| self.writes())
    }

    /// The pattern that it compares with.
    pub fn expected(&self) -> Option<&Pattern> {
        self.pattern().filter(|_| !self.writes())
    }

    /// Whether it is the write-zeroes command.
    pub fn writes_zeroes(&self) -> bool {
        self.operation == Operation::WriteZeroes
    }

    /// Whether it is the discard command.
    pub fn discards(&self) -> bool {
        self.operation == Operation::Discard
    }

    /// Whether it is the search for what is not zero.
    pub fn finds_nonzero(&self) -> bool {
        self.operation == Operation::FindNonZero
    }

    /// Whether it is a survey, which keeps a keyed hash of each block.
    pub fn fingerprints(&self) -> bool {
        self.operation == Operation::Fingerprint
    }

    /// Whether its scope is the whole area.
    pub fn covers_area(&self) -> bool {
        self.scope == Scope::Area
    }

    /// Whether its scope is what an earlier search found.
    pub fn covers_nonzero(&self) -> bool {
        self.scope == Scope::NonZero
    }

    /// The sample that it reads, its own or that of an earlier check.
    pub fn sample(&self) -> Option<&Sample> {
        match &self.scope {
            Scope::Sample { sample } => Some(sample),
            Scope::Recorded { check } => check.sample.as_ref(),
            Scope::Area | Scope::Ranges { .. } | Scope::NonZero => None,
        }
    }

    /// The earlier check whose blocks it reads again.
    pub fn earlier_check(&self) -> Option<&EarlierCheck> {
        match &self.scope {
            Scope::Recorded { check } => Some(check),
            Scope::Area | Scope::Ranges { .. } | Scope::NonZero | Scope::Sample { .. } => None,
        }
    }

    /// What every block of the area holds afterwards, where that is certain.
    pub fn leaves(&self) -> Option<Pattern> {
        let zeroes = self.writes_zeroes().then(Pattern::zero);
        self.written().cloned().or(zeroes).filter(|_| self.covers_area())
    }

    /// The most bytes that the step visits in an area of `area_bytes`.
    pub fn bytes_max(&self, area_bytes: u64) -> u64 {
        match &self.scope {
            Scope::Area | Scope::NonZero => area_bytes,
            Scope::Ranges { ranges } => ranges.bytes(),
            Scope::Sample { sample } => sample.bytes(),
            Scope::Recorded { check } => check.sample.map_or(area_bytes, |sample| sample.bytes()),
        }
    }
}

impl Scope {
    fn read(sample: Option<Sample>) -> Scope {
        sample.map_or(Scope::Area, |sample| Scope::Sample { sample })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, again) = (&self.scope, self.earlier_check().is_some());
        match &self.operation {
            Operation::Write { pattern } if self.covers_area() => write!(f, "overwrite {pattern}"),
            Operation::Write { pattern } => write!(f, "overwrite {pattern} {scope}"),
            Operation::WriteZeroes => f.write_str("write-zeroes"),
            Operation::Discard => f.write_str("discard"),
            Operation::FindNonZero => f.write_str("find what is not zero"),
            Operation::Fingerprint => write!(f, "survey, {scope}"),
            Operation::Compare { pattern } if again => write!(f, "replay {pattern}, {scope}"),
            Operation::Compare { pattern } => write!(f, "verify {pattern}, {scope}"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Area => f.write_str(ALL),
            Scope::Ranges { ranges } => write!(f, "in {} bytes", ranges.bytes()),
            Scope::NonZero => f.write_str("where it was not zero"),
            Scope::Sample { sample } => write!(f, "{sample}"),
            Scope::Recorded { check } => match &check.sample {
                Some(sample) => write!(f, "{sample}"),
                None => f.write_str(ALL),
            },
        }
    }
}

const ALL: &str = "all of it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::Extent;

    #[test]
    fn a_step_is_read_back_as_it_was_written() {
        let sample = Sample { strata: 2_304, per_stratum: 2, block_bytes: 4096, confidence_ppm: 990_000 };
        let check = EarlierCheck {
            sample: Some(sample),
            seed: Seed([1; 32]),
            chunk_bytes: 1 << 20,
            retried: ExtentSet::new(),
            residue: Extent::new(512, 1024).into(),
        };
        let random = Pattern::Random { seed: Seed([2; 32]) };
        for step in [
            Step::write(random.clone()),
            Step::write_ranges(random.clone(), Extent::new(0, 4096).into()),
            Step::write_nonzero(Pattern::zero()),
            Step::write_zeroes(),
            Step::discard(),
            Step::find_nonzero(),
            Step::fingerprint(None),
            Step::compare(random.clone(), Some(sample)),
            Step::compare_again(random, check),
        ] {
            let json = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&json).unwrap(), step, "{json}");
        }
    }

    #[test]
    fn a_step_that_no_plan_has_is_not_read() {
        let zero = Pattern::zero();
        let with = |step: Step, scope: Scope| Step { scope, ..step };
        for wrong in [
            with(Step::discard(), Scope::NonZero),
            with(Step::write_zeroes(), Scope::Ranges { ranges: ExtentSet::new() }),
            with(Step::compare(zero.clone(), None), Scope::NonZero),
            with(Step::fingerprint(None), Scope::NonZero),
        ] {
            let json = serde_json::to_string(&wrong).unwrap();
            let error = serde_json::from_str::<Step>(&json).unwrap_err().to_string();
            assert!(error.contains("no plan has this step"), "{error}");
        }
    }
}
