//! Classification of mismatches: what blocks hold instead of the expected pattern.
//!
//! A difference alone says that the claim is off; what is there instead says why: data of before (a
//! write that was lost, or never made), what an earlier pass wrote (the later write was lost), or what
//! belongs elsewhere (a misdirected write, or two addresses for one block).

use std::collections::{HashMap, HashSet};
use std::fmt;

use rangemap::RangeMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Stop;
use super::fingerprints::FingerprintSet;
use crate::pattern::Pattern;
use crate::plan::Step;
use crate::range::{Extent, align_down};

/// How many runs a report lists; beyond that only their bytes are counted.
const RUNS_MAX: usize = 4096;
/// How many unknown blocks are searched for at other offsets.
const STRAYS_MAX: usize = 65_536;
/// The stream of a random pattern is searched in pieces of this size.
const SWEEP_BYTES: usize = 1 << 20;
/// Into how many parts the area is cut, in each of which aliases are looked for once.
const ALIAS_SEARCHES_MAX: u64 = 65_536;

/// What is there instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Holds {
    /// What it held before the first pass. Known of the blocks that were read then; a run counts
    /// as this where one of its blocks is known.
    OldData,
    /// Zeroes, which the last pass did not write there.
    Zeroes,
    /// What the plan's step with this number (from 0) wrote at this very place.
    Step {
        /// From 0.
        step: usize,
    },
    /// What this step wrote, or expects, at another offset: the run begins with the bytes of `offset`.
    Elsewhere {
        /// From 0.
        step: usize,
        /// Absolute on the device.
        offset: u64,
    },
    /// None of these, as far as it was searched for.
    Unknown,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::OldData => f.write_str("old data"),
            Holds::Zeroes => f.write_str("zeroes"),
            Holds::Step { step } => write!(f, "what step {} wrote", step + 1),
            Holds::Elsewhere { step, offset } => {
                write!(f, "what belongs at offset {offset}, by step {}", step + 1)
            }
            Holds::Unknown => f.write_str("unknown"),
        }
    }
}

/// A run of blocks that all hold the same kind of thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Survivor {
    /// Absolute on the device, in whole blocks.
    pub at: Extent,
    /// The same for all of its blocks.
    pub holds: Holds,
}

/// All that was found to differ.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Survivors {
    /// Of all, listed or not.
    pub bytes: u64,
    /// In ascending order, 4096 at most.
    pub runs: Vec<Survivor>,
    /// More was found than is listed.
    pub more: bool,
}

impl Survivors {
    /// Whether all that was read was as expected.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes of each kind that is listed, the most first.
    pub fn kinds(&self) -> Vec<(&'static str, u64)> {
        let mut kinds: Vec<(&str, u64)> = Vec::new();
        for run in &self.runs {
            let kind = match run.holds {
                Holds::OldData => "old data",
                Holds::Zeroes => "zeroes",
                Holds::Step { .. } => "another pass's pattern",
                Holds::Elsewhere { .. } => "the pattern of another offset",
                Holds::Unknown => "unknown data",
            };
            match kinds.iter_mut().find(|(each, _)| *each == kind) {
                Some((_, bytes)) => *bytes += run.at.len(),
                None => kinds.push((kind, run.at.len())),
            }
        }
        kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        kinds
    }
}

/// Of a run: the number of the step, and how far its bytes were carried (wrapping), so that
/// neighbours that were carried together are one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BlockOrigin {
    OldData,
    Zeroes,
    Step(usize),
    Elsewhere { step: usize, carried: u64 },
    Unknown,
}

/// How a disk may take two addresses for one block, so that the earlier one holds what was written to
/// the later one. Periods are powers of two, as address lines are: disks with a false capacity wrap so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Alias {
    /// Addresses wrap around after each period: of the aliased addresses the last was written last.
    Wrap { period: u64 },
    /// The address bit of this value is ignored.
    IgnoredBit { bit: u64 },
}

impl Alias {
    /// Which offset was written last of those that are one with `at`; `None` where that is `at` itself.
    fn source(self, at: Extent, area: Extent) -> Option<u64> {
        let space = area.end.saturating_sub(at.end);
        let carried = match self {
            Alias::Wrap { period } => align_down(space, period),
            Alias::IgnoredBit { bit } if bit <= space => bit,
            Alias::IgnoredBit { .. } => 0,
        };
        (carried > 0).then_some(at.start + carried)
    }

    /// All that two blocks of the area can be one by.
    fn plausible(area: Extent, block_bytes: u64) -> impl Iterator<Item = Alias> {
        let period = move |power: &u32| (block_bytes..area.len()).contains(&(1 << *power));
        let periods = (0..u64::BITS).filter(period).map(|power| 1 << power);
        periods.flat_map(|period| [Alias::Wrap { period }, Alias::IgnoredBit { bit: period }])
    }
}

/// A block that nothing explained yet.
struct Stray {
    at: Extent,
    digest: [u8; 32],
}

/// Collects the blocks that differ, in any order.
pub struct MismatchClassifier<'a> {
    area: Extent,
    block_bytes: u64,
    expect: &'a Pattern,
    /// The patterns that were written, by their step.
    written: Vec<(usize, &'a Pattern)>,
    fingerprint_set: Option<&'a FingerprintSet>,
    bytes: u64,
    runs: RangeMap<u64, BlockOrigin>,
    more: bool,
    /// Aliases that a block proved, and the parts of the area where all plausible ones were tried.
    aliases: Vec<Alias>,
    searched: HashSet<u64>,
    /// Unknown blocks by how they begin.
    strays: HashMap<[u8; 16], Vec<Stray>>,
    strays_count: usize,
}

impl<'a> MismatchClassifier<'a> {
    /// About a check of `area` in blocks of `block_bytes`.
    pub fn new(
        expect: &'a Pattern,
        steps: &'a [Step],
        fingerprint_set: Option<&'a FingerprintSet>,
        area: Extent,
        block_bytes: u64,
    ) -> MismatchClassifier<'a> {
        let pattern = |(number, step): (usize, &'a Step)| Some((number, step.written()?));
        let mut written: Vec<(usize, &Pattern)> = steps.iter().enumerate().filter_map(pattern).collect();
        // A plan that only reads expects what an earlier job wrote.
        if !written.iter().any(|(_, pattern)| *pattern == expect) {
            let reads = steps.iter().position(|step| step.expected() == Some(expect));
            written.extend(reads.map(|step| (step, expect)));
        }
        MismatchClassifier {
            area,
            block_bytes,
            expect,
            written,
            fingerprint_set,
            bytes: 0,
            runs: RangeMap::new(),
            more: false,
            aliases: Vec::new(),
            searched: HashSet::new(),
            strays: HashMap::new(),
            strays_count: 0,
        }
    }

    /// Takes a block that is not what it should be.
    pub fn classify_block(&mut self, at: Extent, block: &[u8]) {
        self.bytes += at.len();
        let mut found = self.classify(at, block);
        if found == BlockOrigin::Unknown {
            found = self.aliased(at, block).unwrap_or(BlockOrigin::Unknown);
        }
        if found == BlockOrigin::Unknown
            && self.strays_count < STRAYS_MAX
            && let Some(head) = block.first_chunk::<16>()
        {
            self.strays_count += 1;
            let stray = Stray { at, digest: Sha256::digest(block).into() };
            self.strays.entry(*head).or_default().push(stray);
        }
        // Twice what is listed: runs that lie apart now may become one.
        if self.runs.len() < 2 * RUNS_MAX {
            self.runs.insert(at.start..at.end, found);
        } else {
            self.more = true;
        }
    }

    fn classify(&self, at: Extent, block: &[u8]) -> BlockOrigin {
        if block.iter().all(|byte| *byte == 0) {
            return BlockOrigin::Zeroes;
        }
        if self.fingerprint_set.is_some_and(|fingerprint_set| fingerprint_set.holds(at.start, block)) {
            return BlockOrigin::OldData;
        }
        let mut expected = vec![0; block.len()];
        let mut is = |pattern: &Pattern| {
            pattern.fill(at.start, &mut expected);
            expected == block
        };
        let earlier = self.written.iter().rev().filter(|(_, pattern)| *pattern != self.expect);
        earlier
            .into_iter()
            .find_map(|(step, pattern)| is(pattern).then_some(*step))
            .map_or(BlockOrigin::Unknown, BlockOrigin::Step)
    }

    /// Compares a block with what an alias would have put there: with those that were proved before, and,
    /// once in each part of the area, with all plausible ones. Only a pattern without a period shows them.
    fn aliased(&mut self, at: Extent, block: &[u8]) -> Option<BlockOrigin> {
        let expect = self.expect;
        let step =
            self.written.iter().find(|(_, pattern)| *pattern == expect && pattern.period().is_none())?.0;
        let area = self.area;
        let mut written = vec![0; block.len()];
        let mut is_at = |source: u64, len: usize| {
            expect.fill(source, &mut written[..len]);
            written[..len] == block[..len]
        };
        // The first bytes nearly always differ.
        let mut holds = |source: u64| is_at(source, block.len().min(16)) && is_at(source, block.len());
        let mut fits = |alias: &Alias| alias.source(at, area).filter(|source| holds(*source));
        let mut source = self.aliases.iter().find_map(&mut fits);
        let part = (at.start - area.start) / area.len().div_ceil(ALIAS_SEARCHES_MAX);
        if source.is_none() && self.searched.insert(part) {
            let proved = |alias: Alias| Some((alias, fits(&alias)?));
            if let Some((alias, proof)) = Alias::plausible(area, self.block_bytes).find_map(proved) {
                self.aliases.push(alias);
                source = Some(proof);
            }
        }
        source.map(|source| BlockOrigin::Elsewhere { step, carried: at.start.wrapping_sub(source) })
    }

    /// What all of it comes to. Unknown blocks are looked for in the random streams over the area:
    /// the bytes of every block that should be there begin unlike all others.
    pub fn end(mut self, stop: &Stop) -> Survivors {
        let random: Vec<(usize, &Pattern)> =
            self.written.iter().filter(|(_, pattern)| pattern.period().is_none()).copied().collect();
        for (step, pattern) in random {
            self.sweep(step, pattern, stop);
        }
        self.spread_old_data();
        let runs = self.runs.iter().map(|(range, found)| Survivor {
            at: Extent::new(range.start, range.end),
            holds: match *found {
                BlockOrigin::OldData => Holds::OldData,
                BlockOrigin::Zeroes => Holds::Zeroes,
                BlockOrigin::Step(step) => Holds::Step { step },
                BlockOrigin::Elsewhere { step, carried } => {
                    Holds::Elsewhere { step, offset: range.start.wrapping_sub(carried) }
                }
                BlockOrigin::Unknown => Holds::Unknown,
            },
        });
        let more = self.more || self.runs.len() > RUNS_MAX;
        Survivors { bytes: self.bytes, runs: runs.take(RUNS_MAX).collect(), more }
    }

    fn sweep(&mut self, step: usize, pattern: &Pattern, stop: &Stop) {
        let mut buffer = vec![0; SWEEP_BYTES];
        for piece in self.area.chunks(SWEEP_BYTES as u64) {
            if self.strays.is_empty() || stop.verdict().is_some() {
                return;
            }
            let bytes = &mut buffer[..piece.len() as usize];
            pattern.fill(piece.start, bytes);
            for (number, block) in bytes.chunks(self.block_bytes as usize).enumerate() {
                let Some(strays) = block.first_chunk().and_then(|head| self.strays.remove(head)) else {
                    continue;
                };
                let offset = piece.start + number as u64 * self.block_bytes;
                let digest = Sha256::digest(block);
                for Stray { at, .. } in strays.into_iter().filter(|stray| stray.digest == *digest) {
                    let carried = at.start.wrapping_sub(offset);
                    if self.runs.contains_key(&at.start) {
                        self.runs.insert(at.start..at.end, BlockOrigin::Elsewhere { step, carried });
                    }
                }
            }
        }
    }

    /// An unknown run that touches a block of old data is old data.
    fn spread_old_data(&mut self) {
        let known: Vec<u64> = self
            .runs
            .iter()
            .filter(|(_, found)| **found == BlockOrigin::OldData)
            .flat_map(|(range, _)| [range.start.wrapping_sub(1), range.end])
            .collect();
        for offset in known {
            if let Some((range, BlockOrigin::Unknown)) = self.runs.get_key_value(&offset) {
                let range = range.clone();
                self.runs.insert(range, BlockOrigin::OldData);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Seed;

    const AREA: Extent = Extent { start: 0, end: 1 << 20 };
    const BLOCK: u64 = 512;

    fn block(pattern: &Pattern, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        pattern.fill(at, &mut bytes);
        bytes
    }

    fn classify_block(classifier: &mut MismatchClassifier, at: u64, bytes: &[u8]) {
        classifier.classify_block(Extent::at(at, BLOCK), bytes);
    }

    #[test]
    fn each_kind_of_survivor_is_distinguished() {
        let random = Pattern::Random { seed: Seed([1; 32]) };
        let steps = [
            Step::write(Pattern::constant(&[0x55, 0xaa])),
            Step::write(Pattern::Random { seed: Seed([2; 32]) }),
            Step::write(random.clone()),
        ];
        let mut fingerprint_set = FingerprintSet::new(BLOCK).unwrap();
        fingerprint_set.keep(4096, &[b'S'; 512]);
        let mut classifier = MismatchClassifier::new(&random, &steps, Some(&fingerprint_set), AREA, BLOCK);
        // In no order, as reads come back.
        classify_block(&mut classifier, 4096 + 512, &[b'?'; 512]);
        classify_block(&mut classifier, 4096, &[b'S'; 512]);
        classify_block(&mut classifier, 0, &[0; 512]);
        classify_block(&mut classifier, 8192, &block(&Pattern::constant(&[0x55, 0xaa]), 8192));
        classify_block(&mut classifier, 16384 + 512, &block(&random, 512));
        classify_block(&mut classifier, 16384, &block(&random, 0));
        classify_block(&mut classifier, 32768, &block(&Pattern::Random { seed: Seed([2; 32]) }, 65536));
        classify_block(&mut classifier, 40960, &[b'?'; 512]);
        let found = classifier.end(&Stop::default());
        assert_eq!((found.bytes, found.more), (8 * 512, false));
        let runs: Vec<(u64, u64, Holds)> =
            found.runs.iter().map(|run| (run.at.start, run.at.len() / BLOCK, run.holds)).collect();
        assert_eq!(
            runs,
            [
                (0, 1, Holds::Zeroes),
                (4096, 2, Holds::OldData),
                (8192, 1, Holds::Step { step: 0 }),
                (16384, 2, Holds::Elsewhere { step: 2, offset: 0 }),
                (32768, 1, Holds::Elsewhere { step: 1, offset: 65536 }),
                (40960, 1, Holds::Unknown),
            ]
        );
    }

    #[test]
    fn beyond_what_is_listed_bytes_are_still_counted() {
        let expect = Pattern::zero();
        let mut classifier = MismatchClassifier::new(&expect, &[], None, AREA, BLOCK);
        let count = 3 * RUNS_MAX as u64;
        for number in 0..count {
            classify_block(&mut classifier, number * 1024, &[b'?'; 512]);
        }
        let found = classifier.end(&Stop::default());
        assert_eq!((found.bytes, found.runs.len(), found.more), (count * 512, RUNS_MAX, true));
    }

    /// What an aliased disk holds after one pass: the later of two writes to one block.
    fn aliased(area: Extent, fold: impl Fn(u64) -> u64) -> Vec<Survivor> {
        let random = Pattern::Random { seed: Seed([1; 32]) };
        let steps = [Step::write(random.clone())];
        let written: HashMap<u64, u64> = area.chunks(BLOCK).map(|at| (fold(at.start), at.start)).collect();
        let mut classifier = MismatchClassifier::new(&random, &steps, None, area, BLOCK);
        for at in area.chunks(BLOCK) {
            let source = written[&fold(at.start)];
            if source != at.start {
                classify_block(&mut classifier, at.start, &block(&random, source));
            }
        }
        classifier.end(&Stop::default()).runs
    }

    fn elsewhere(start: u64, end: u64, offset: u64) -> Survivor {
        Survivor { at: Extent::new(start, end), holds: Holds::Elsewhere { step: 0, offset } }
    }

    /// More of them than strays are kept.
    #[test]
    fn all_that_an_alias_carried_is_known() {
        const MIB: u64 = 1 << 20;
        let wrapped: Vec<Survivor> =
            (0..6).map(|each| elsewhere(each * 16 * MIB, (each + 1) * 16 * MIB, 96 * MIB)).collect();
        assert_eq!(aliased(Extent::new(0, 112 * MIB), |at| at % (16 * MIB)), wrapped);
        // Of a partition, whose disk wraps at other places than its own multiples.
        let (start, end) = (5 * MIB + 512, 53 * MIB + 512);
        assert_eq!(
            aliased(Extent::new(start, end), |at| at % (16 * MIB)),
            [
                elsewhere(start, start + 16 * MIB, end - 16 * MIB),
                elsewhere(start + 16 * MIB, end - 16 * MIB, end - 16 * MIB)
            ]
        );
        let ignored: Vec<Survivor> = (0..4)
            .map(|each| elsewhere(each * 32 * MIB, (each * 32 + 16) * MIB, (each * 32 + 16) * MIB))
            .collect();
        assert_eq!(aliased(Extent::new(0, 128 * MIB), |at| at & !(16 * MIB)), ignored);
    }

    #[test]
    fn a_block_that_only_begins_as_another_is_unknown() {
        let random = Pattern::Random { seed: Seed([1; 32]) };
        let steps = [Step::write(random.clone())];
        let mut classifier = MismatchClassifier::new(&random, &steps, None, AREA, BLOCK);
        // By an alias of 64 KiB, and by no alias at all.
        for (at, source) in [(0, 65536), (512, 4 * 512)] {
            let mut torn = block(&random, source);
            torn[256..].fill(b'?');
            classify_block(&mut classifier, at, &torn);
        }
        let unknown = Survivor { at: Extent::new(0, 1024), holds: Holds::Unknown };
        assert_eq!(classifier.end(&Stop::default()).runs, [unknown]);
    }
}
