//! How much is read back.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::range::{Extent, align_down};

/// How much is read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    None,
    Standard,
    High,
    Full,
    /// The sample of NIST SP 800-88 Rev. 1 (withdrawn in 2025): a tenth of the media.
    NistR1,
    /// As many probes as this claim takes: at this confidence at most this share differs.
    Claim {
        confidence_ppm: u64,
        unwiped_ppb: u64,
    },
}

/// What a check reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sample {
    Full,
    Stratified {
        strata: u64,
        per_stratum: u64,
        block_bytes: u64,
        /// In parts per million: 990,000 is 99 %.
        confidence_ppm: u64,
    },
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sample::Full => f.write_str("all of it"),
            Sample::Stratified { strata, per_stratum, .. } => write!(f, "{} probes", strata * per_stratum),
        }
    }
}

/// Below this many blocks a stratum says little more than reading it all.
const STRATUM_BLOCKS_MIN: u64 = 8;
const PROBE_BYTES_MIN: u64 = 4096;
/// More single blocks than this take a disk longer than reading all of it in order.
pub const PROBES_MAX: u64 = 1 << 22;

impl Sample {
    /// What the policy reads of this area; nothing where it is none.
    pub fn choose(policy: Policy, area: Extent, physical_block: u64) -> Option<Sample> {
        let (strata, confidence_ppm) = match policy {
            Policy::None => return None,
            Policy::Full => return Some(Sample::Full),
            Policy::NistR1 => return Some(Sample::nist_r1(area, physical_block)),
            Policy::Standard => (2_304, 990_000),
            Policy::High => (34_560, 999_000),
            Policy::Claim { confidence_ppm, unwiped_ppb } => {
                (probes_for(confidence_ppm, unwiped_ppb).div_ceil(PER_STRATUM), confidence_ppm)
            }
        };
        let block_bytes = physical_block.max(PROBE_BYTES_MIN);
        let too_many = strata.saturating_mul(PER_STRATUM) > PROBES_MAX;
        if too_many || area.len() / block_bytes / STRATUM_BLOCKS_MIN < strata {
            return Some(Sample::Full);
        }
        Some(Sample::Stratified { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm })
    }

    /// 1,000 subsections with two places in each, which together are a tenth of the media (4.7).
    fn nist_r1(area: Extent, physical_block: u64) -> Sample {
        const SUBSECTIONS: u64 = 1_000;
        const PLACES: u64 = 20;
        let block_bytes = align_down(area.len() / SUBSECTIONS / PLACES, physical_block.max(PROBE_BYTES_MIN));
        if block_bytes == 0 {
            return Sample::Full;
        }
        let (strata, confidence_ppm) = (SUBSECTIONS, 990_000);
        Sample::Stratified { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm }
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
        assert_eq!(Sample::choose(Policy::Standard, blocks(2_304 * 8 - 1), 512), Some(Sample::Full));
        let sampled = Sample::choose(Policy::Standard, blocks(2_304 * 8), 512);
        assert!(matches!(sampled, Some(Sample::Stratified { block_bytes: 4096, .. })));
    }

    #[test]
    fn a_claim_takes_as_many_probes_as_it_needs() {
        for (confidence_ppm, unwiped_ppb, probes) in
            [(990_000, 1_000_000, 4_603), (999_000, 100_000, 69_075), (950_000, 10_000_000, 299)]
        {
            assert_eq!(probes_for(confidence_ppm, unwiped_ppb), probes);
            let policy = Policy::Claim { confidence_ppm, unwiped_ppb };
            let Some(Sample::Stratified { strata, per_stratum, confidence_ppm: told, .. }) =
                Sample::choose(policy, Extent::new(0, 1 << 40), 512)
            else {
                panic!("a sample")
            };
            assert!(strata * per_stratum >= probes && told == confidence_ppm);
        }
        let everything = Policy::Claim { confidence_ppm: 999_999, unwiped_ppb: 1 };
        assert_eq!(Sample::choose(everything, Extent::new(0, 1 << 40), 512), Some(Sample::Full));
    }

    #[test]
    fn the_withdrawn_sample_reads_a_tenth() {
        let area = Extent::new(0, 1 << 40);
        let Some(Sample::Stratified { strata, per_stratum, block_bytes, .. }) =
            Sample::choose(Policy::NistR1, area, 512)
        else {
            panic!("a sample")
        };
        assert_eq!((strata, per_stratum), (1_000, 2));
        let share = (strata * per_stratum * block_bytes) as f64 / area.len() as f64;
        assert!((0.0999..=0.1).contains(&share), "{share}");
        assert_eq!(Sample::choose(Policy::NistR1, Extent::new(0, 60 << 20), 4096), Some(Sample::Full));
    }
}
