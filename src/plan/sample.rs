//! Verification policies and samples.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::range::{Extent, align_down};

/// How much is read back; its documentation is the help of `--verify` and `--policy`. An area too small
/// for the probes is read in whole. The arithmetic is in docs/sampling.md.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Policy {
    /// Read nothing back
    None,
    /// 4,608 probes: 99 % confidence that at most 0.1 % of the blocks differ
    Standard,
    /// 69,120 probes: 99.9 % confidence that at most 0.01 % differ
    High,
    /// Read everything
    Full,
    /// A tenth of the device at 2,000 positions, as in NIST SP 800-88 Rev. 1 (withdrawn)
    NistR1,
    /// As many probes as it takes to prove a bound (`--confidence`, `--max-unwiped`).
    #[cfg_attr(feature = "cli", value(skip))]
    Claim {
        /// The confidence in parts per million, above 0 and below 1,000,000: 990,000 is 99 %.
        confidence_ppm: u64,
        /// The share of blocks that may differ at most, in parts per billion, above 0 and below 10⁹.
        unwiped_ppb: u64,
    },
}

/// What to do when a sample finds a block that does not hold what it should; its documentation is the
/// help of `--on-mismatch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum OnMismatch {
    /// Read everything and map the surviving data
    #[default]
    Map,
    /// Stop with the verdict
    Stop,
}

/// Distinct blocks that are drawn in each of equal strata.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The number of equal parts of the area; blocks that are left over at its end are all read besides.
    pub strata: u64,
    /// How many different blocks are drawn in each part.
    pub per_stratum: u64,
    /// The size of a block that is drawn: a multiple of the physical block, and at least 4 KiB.
    pub block_bytes: u64,
    /// In parts per million: 990,000 is 99 %.
    pub confidence_ppm: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} probes", self.probes())
    }
}

/// With fewer blocks per stratum, everything is read.
const STRATUM_BLOCKS_MIN: u64 = 8;
const PROBE_BYTES_MIN: u64 = 4096;
/// More probes take longer than reading everything in order.
pub const PROBES_MAX: u64 = 1 << 22;

impl Policy {
    /// Whether nothing is read back; before the first pass nothing is read then either.
    pub fn reads_nothing(self) -> bool {
        self == Policy::None
    }

    /// The sample of this policy in an area; `None` to read everything or nothing. `physical_block` is in bytes.
    pub fn sample(self, area: Extent, physical_block: u64) -> Option<Sample> {
        let (strata, confidence_ppm) = match self {
            Policy::None | Policy::Full => return None,
            Policy::NistR1 => return Sample::nist_r1(area, physical_block),
            Policy::Standard => (2_304, 990_000),
            Policy::High => (34_560, 999_000),
            Policy::Claim { confidence_ppm, unwiped_ppb } => {
                (probes_for(confidence_ppm, unwiped_ppb).div_ceil(PER_STRATUM), confidence_ppm)
            }
        };
        let block_bytes = physical_block.max(PROBE_BYTES_MIN);
        let too_many = strata.saturating_mul(PER_STRATUM) > PROBES_MAX;
        if too_many || area.len() / block_bytes / STRATUM_BLOCKS_MIN < strata {
            return None;
        }
        Some(Sample { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm })
    }
}

impl Sample {
    /// The number of blocks that are drawn.
    pub fn probes(&self) -> u64 {
        self.strata.saturating_mul(self.per_stratum)
    }

    /// The bytes of all blocks that are drawn.
    pub fn bytes(&self) -> u64 {
        self.probes().saturating_mul(self.block_bytes)
    }

    /// 1,000 subsections with two places in each, which together are a tenth of the media (4.7).
    fn nist_r1(area: Extent, physical_block: u64) -> Option<Sample> {
        const SUBSECTIONS: u64 = 1_000;
        const PLACES: u64 = 20;
        let block_bytes = align_down(area.len() / SUBSECTIONS / PLACES, physical_block.max(PROBE_BYTES_MIN));
        if block_bytes == 0 {
            return None;
        }
        let (strata, confidence_ppm) = (SUBSECTIONS, 990_000);
        Some(Sample { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm })
    }
}

/// Two in each stratum: so that no stratum hangs on one.
const PER_STRATUM: u64 = 2;

/// The number of good probes that a claim takes: the n of `unwiped = 1 - (1 - confidence)^(1/n)`.
fn probes_for(confidence_ppm: u64, unwiped_ppb: u64) -> u64 {
    let (alpha, share) = (1.0 - confidence_ppm as f64 / 1e6, unwiped_ppb as f64 / 1e9);
    (alpha.ln() / (-share).ln_1p()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_area_is_read_in_full() {
        let blocks = |count: u64| Extent::new(0, count * 4096);
        assert_eq!(Policy::Standard.sample(blocks(2_304 * 8 - 1), 512), None);
        let sampled = Policy::Standard.sample(blocks(2_304 * 8), 512);
        assert_eq!(sampled.unwrap().block_bytes, 4096);
    }

    #[test]
    fn a_claim_takes_as_many_probes_as_it_needs() {
        for (confidence_ppm, unwiped_ppb, probes) in
            [(990_000, 1_000_000, 4_603), (999_000, 100_000, 69_075), (950_000, 10_000_000, 299)]
        {
            assert_eq!(probes_for(confidence_ppm, unwiped_ppb), probes);
            let policy = Policy::Claim { confidence_ppm, unwiped_ppb };
            let sample = policy.sample(Extent::new(0, 1 << 40), 512).unwrap();
            assert!(sample.probes() >= probes && sample.confidence_ppm == confidence_ppm);
        }
        let everything = Policy::Claim { confidence_ppm: 999_999, unwiped_ppb: 1 };
        assert_eq!(everything.sample(Extent::new(0, 1 << 40), 512), None);
    }

    #[test]
    fn the_withdrawn_sample_reads_a_tenth() {
        let area = Extent::new(0, 1 << 40);
        let sample = Policy::NistR1.sample(area, 512).unwrap();
        assert_eq!((sample.strata, sample.per_stratum), (1_000, 2));
        let share = sample.bytes() as f64 / area.len() as f64;
        assert!((0.0999..=0.1).contains(&share), "{share}");
        assert_eq!(Policy::NistR1.sample(Extent::new(0, 60 << 20), 4096), None);
    }
}
