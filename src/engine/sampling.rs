//! Samples: the blocks that a check reads, and the bound that they prove.
//!
//! The blocks of an area are split into equal strata, and distinct blocks are drawn uniformly in
//! each. With `n` probes that all hold what they should, at confidence `1 - α` at most a share of
//! `1 - α^(1/n)` of the blocks differs: the bound for independent draws, which stratification
//! keeps. (The hypergeometric bound is a little smaller and does not hold here: two strata of two
//! blocks with one bad block each are missed by one probe a stratum in 1/4 of all draws, where it
//! says 1/6.) The blocks that equal strata leave over at the end are all read.

use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::io::Geometry;
use crate::pattern::Seed;
use crate::plan::Sample;
use crate::range::{Extent, ExtentSet, align_down, align_up};

const MIB: u64 = 1 << 20;

/// LBAs that a GPT takes: the protective MBR, the header and 32 sectors of entries.
const GPT_BLOCKS: u64 = 34;

/// Where a LUKS header can lie: the first one, and the second one of LUKS2 by its size.
const LUKS_HEADERS: [u64; 10] =
    [0, 0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// What a sample proves in which every block was good: with this confidence, at most this share of the
/// blocks differs. Rounded up to integers, since a certificate holds no floats (docs/sampling.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Bound {
    /// In parts per million: 990,000 is 99 %.
    pub confidence_ppm: u64,
    /// The share of all blocks that differs at most.
    pub differ_per_billion: u64,
}

impl Bound {
    /// The bound of `probes` independent probes that all were good.
    pub fn of(probes: u64, confidence_ppm: u64) -> Bound {
        let alpha = 1.0 - confidence_ppm as f64 / 1e6;
        let share = -(alpha.ln() / probes as f64).exp_m1();
        Bound { confidence_ppm, differ_per_billion: (share * 1e9).ceil() as u64 }
    }
}

/// What to read.
pub struct Probes {
    /// How many of the blocks were drawn: the `n` of the bound. `None` if all is read.
    pub drawn: Option<u64>,
    pub extents: ExtentSet,
}

/// The reads of a check: drawn from the seed, and those that are always made.
///
/// `edges` are offsets where our own work began or ended a transfer: the blocks on both sides are
/// read. `retried` is read in whole.
pub fn probes(
    sample: Option<&Sample>,
    area: Extent,
    geometry: &Geometry,
    seed: &Seed,
    edges: &[u64],
    retried: &ExtentSet,
) -> Probes {
    let mut extents = draw(sample, area, seed);
    let Some(sample @ &Sample { strata, block_bytes, .. }) = sample else {
        return Probes { drawn: None, extents };
    };
    let left_over = area.len() / block_bytes % strata * block_bytes + area.len() % block_bytes;
    let always = fixed(area, geometry, edges, block_bytes)
        .chain(retried.iter().map(|extent| extent.intersect(area)))
        .chain([Extent::new(area.end - left_over, area.end)]);
    always.for_each(|extent| extents.insert(extent));
    Probes { drawn: Some(sample.probes()), extents }
}

/// The blocks that are drawn from the seed; without a sample, everything.
pub fn draw(sample: Option<&Sample>, area: Extent, seed: &Seed) -> ExtentSet {
    let Some(&Sample { strata, per_stratum, block_bytes, .. }) = sample else {
        return area.into();
    };
    let stratum_blocks = area.len() / block_bytes / strata;
    let block = |number: u64| Extent::at(area.start + number * block_bytes, block_bytes);
    drawn(strata, per_stratum, stratum_blocks, seed).map(block).collect()
}

/// The numbers of the blocks that are drawn, in ascending order.
fn drawn(
    strata: u64,
    per_stratum: u64,
    stratum_blocks: u64,
    seed: &Seed,
) -> impl Iterator<Item = u64> + use<> {
    let mut rng = seed.rng();
    (0..strata).flat_map(move |stratum| {
        let numbers = distinct(&mut rng, per_stratum, stratum_blocks).into_iter();
        numbers.map(move |number| stratum * stratum_blocks + number)
    })
}

/// `count` distinct numbers below `below`, every set of them equally likely, in ascending order.
fn distinct(rng: &mut impl Rng, count: u64, below: u64) -> Vec<u64> {
    assert!(count <= below, "{count} probes in a stratum of {below} blocks");
    let mut taken: Vec<u64> = Vec::with_capacity(count as usize);
    for already in 0..count {
        // A number among those that are left; each smaller one that was taken moves it up.
        let mut number = uniform(rng, below - already);
        for smaller in &taken {
            number += u64::from(number >= *smaller);
        }
        let place = taken.partition_point(|each| *each < number);
        taken.insert(place, number);
    }
    taken
}

/// A number below `below` without bias: draws from the uneven rest of 2^64 are thrown away.
fn uniform(rng: &mut impl Rng, below: u64) -> u64 {
    let even = u64::MAX - u64::MAX % below;
    loop {
        let draw = rng.next_u64();
        if draw < even {
            return draw % below;
        }
    }
}

/// The places where metadata lives and where wipers go wrong, as far as they lie in the area.
fn fixed(area: Extent, geometry: &Geometry, edges: &[u64], block_bytes: u64) -> impl Iterator<Item = Extent> {
    let block = geometry.logical_block;
    let end = geometry.size;
    let gpt = GPT_BLOCKS * block;
    let around = move |at: u64| Extent::new(at.saturating_sub(block_bytes), at.saturating_add(block_bytes));
    let places = [
        Extent::at(area.start, block_bytes),
        Extent::new(area.end.saturating_sub(MIB), area.end),
        Extent::new(0, gpt),
        Extent::new(end.saturating_sub(gpt), end),
    ];
    let headers = LUKS_HEADERS.iter().map(move |at| Extent::at(*at, block_bytes));
    places
        .into_iter()
        .chain(headers)
        .chain(edges.iter().copied().map(around))
        .map(move |extent| whole_blocks(extent.intersect(area), area, block))
}

/// Widened to logical blocks, but never out of the area (whose end may be an odd tail).
fn whole_blocks(extent: Extent, area: Extent, block: u64) -> Extent {
    if extent.is_empty() {
        return extent;
    }
    Extent::new(align_down(extent.start, block), align_up(extent.end, block)).intersect(area)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Policy;

    const GEOMETRY: Geometry =
        Geometry { size: 104 * MIB + 512 * 7, logical_block: 512, physical_block: 512, memory_align: 512 };

    fn standard(area: Extent) -> Sample {
        Policy::Standard.sample(area, GEOMETRY.physical_block).unwrap()
    }

    #[test]
    fn the_bounds_are_those_of_the_table() {
        for (probes, confidence, percent) in [
            (2_002, 990_000, 0.230),
            (4_608, 990_000, 0.0999),
            (13_824, 999_000, 0.050),
            (69_120, 999_000, 0.0100),
        ] {
            let bound = Bound::of(probes, confidence).differ_per_billion as f64 / 1e7;
            assert!((bound - percent).abs() < percent / 100.0, "{probes}: {bound} is not {percent}");
        }
    }

    #[test]
    fn every_stratum_has_its_distinct_probes_and_the_rest_is_read() {
        let area = Extent::new(512 * 9, GEOMETRY.size);
        let sample = standard(area);
        let Sample { strata, per_stratum, block_bytes, .. } = sample;
        let stratum_bytes = area.len() / block_bytes / strata * block_bytes;
        let mut drawn = ExtentSet::new();
        for round in 0..20 {
            let probes = probes(Some(&sample), area, &GEOMETRY, &Seed([round; 32]), &[], &ExtentSet::new());
            assert_eq!(probes.drawn, Some(4_608));
            for stratum in 0..strata {
                let start = area.start + stratum * stratum_bytes;
                let stratum = Extent::at(start, stratum_bytes);
                let read: u64 = probes.extents.iter().map(|extent| extent.intersect(stratum).len()).sum();
                assert!(read >= per_stratum * block_bytes, "two distinct blocks in {stratum}");
            }
            let left_over = Extent::new(area.start + strata * stratum_bytes, area.end);
            assert!(probes.extents.iter().any(|extent| extent.intersect(left_over) == left_over));
            probes.extents.iter().for_each(|extent| drawn.insert(extent));
        }
        assert!(drawn.bytes() > area.len() * 9 / 10, "other seeds, other blocks");
    }

    #[test]
    fn draws_are_uniform_over_the_stratum() {
        let mut rng = Seed([3; 32]).rng();
        let mut hits = [0u32; 10];
        for _ in 0..50_000 {
            let pair = distinct(&mut rng, 2, 10);
            assert!(pair[0] < pair[1] && pair[1] < 10);
            pair.iter().for_each(|number| hits[*number as usize] += 1);
        }
        // 10,000 expected each, standard deviation under 90.
        assert!(hits.iter().all(|hits| hits.abs_diff(10_000) < 500), "{hits:?}");
        assert_eq!(distinct(&mut rng, 5, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_fixed_places_are_always_read() {
        let area = Extent::new(0, GEOMETRY.size);
        let retried = ExtentSet::from(Extent::at(50 * MIB + 512, 512));
        let read =
            probes(Some(&standard(area)), area, &GEOMETRY, &Seed([1; 32]), &[3 * MIB], &retried).extents;
        let end = GEOMETRY.size;
        let places =
            [0, 33 * 512, 0x4000, 0x40_0000, 3 * MIB - 1, 3 * MIB, 50 * MIB + 512, end - MIB, end - 1];
        for place in places {
            assert!(read.contains(place), "{place}");
        }
    }

    #[test]
    fn nothing_outside_the_area_is_read() {
        let area = Extent::new(8 * MIB, 90 * MIB);
        let edges = [0, 8 * MIB, 90 * MIB];
        let read =
            probes(Some(&standard(area)), area, &GEOMETRY, &Seed([1; 32]), &edges, &ExtentSet::new()).extents;
        assert!(read.iter().all(|extent| extent.intersect(area) == extent));
    }

    /// Where the blocks lie that were not wiped.
    #[derive(Clone, Copy, Debug)]
    enum Planted {
        Scattered,
        Run,
        End,
        OneInAStratum,
    }

    struct Case {
        strata: u64,
        per_stratum: u64,
        stratum_blocks: u64,
        planted: Planted,
        confidence_ppm: u64,
    }

    impl Case {
        /// The smallest number of bad blocks that the bound calls impossible.
        fn bad_blocks(&self) -> u64 {
            let probes = self.strata * self.per_stratum;
            let bound = Bound::of(probes, self.confidence_ppm).differ_per_billion as f64 / 1e9;
            (bound * (self.strata * self.stratum_blocks) as f64).floor() as u64 + 1
        }

        fn plant(&self, bad: u64, rng: &mut impl Rng) -> Vec<bool> {
            let blocks = self.strata * self.stratum_blocks;
            let mut is_bad = vec![false; blocks as usize];
            let places: Vec<u64> = match self.planted {
                Planted::Scattered => distinct(rng, bad, blocks),
                Planted::Run => {
                    let start = uniform(rng, blocks - bad + 1);
                    (start..start + bad).collect()
                }
                Planted::End => (blocks - bad..blocks).collect(),
                // Spread as evenly as can be: the worst case for strata.
                Planted::OneInAStratum => (0..bad)
                    .map(|number| {
                        let (stratum, within) = (number % self.strata, number / self.strata);
                        stratum * self.stratum_blocks + within
                    })
                    .collect(),
            };
            places.into_iter().for_each(|place| is_bad[place as usize] = true);
            is_bad
        }

        /// How many of the trials saw none of the bad blocks.
        fn missed(&self, bad: u64, trials: u64) -> u64 {
            let mut rng = Seed([42; 32]).rng();
            let mut is_bad = self.plant(bad, &mut rng);
            let mut missed = 0;
            for trial in 0..trials {
                // New places now and then: what is drawn is new each time.
                if trial % 100 == 0 {
                    is_bad = self.plant(bad, &mut rng);
                }
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&trial.to_le_bytes());
                let mut draws = drawn(self.strata, self.per_stratum, self.stratum_blocks, &Seed(seed));
                missed += u64::from(!draws.any(|number| is_bad[number as usize]));
            }
            missed
        }
    }

    /// P(X >= hits) of a binomial: what a one-sided test rejects when it is tiny.
    fn at_least(hits: u64, trials: u64, chance: f64) -> f64 {
        if hits as f64 <= trials as f64 * chance {
            // Below the mean there is nothing to reject (and the terms are too small for floats).
            return 1.0;
        }
        let log_factorial = |n: u64| (1..=n).map(|k| (k as f64).ln()).sum::<f64>();
        let first = log_factorial(trials) - log_factorial(hits) - log_factorial(trials - hits)
            + hits as f64 * chance.ln()
            + (trials - hits) as f64 * (-chance).ln_1p();
        let (mut term, mut sum) = (first.exp(), 0.0);
        for k in hits..=trials {
            sum += term;
            term *= (trials - k) as f64 / (k + 1) as f64 * chance / (1.0 - chance);
            if term < sum * 1e-12 {
                break;
            }
        }
        sum
    }

    /// The misses of every case, as the table of docs/sampling.md.
    fn monte_carlo(trials: u64) -> Vec<String> {
        let shapes: [(u64, u64, u64, u64); 5] = [
            (2, 1, 2, 500_000),
            (64, 2, 16, 900_000),
            (64, 2, 512, 990_000),
            (256, 2, 64, 990_000),
            (32, 1, 1024, 999_000),
        ];
        let kinds = [Planted::Scattered, Planted::Run, Planted::End, Planted::OneInAStratum];
        let mut rows = Vec::new();
        for (strata, per_stratum, stratum_blocks, confidence_ppm) in shapes {
            for planted in kinds {
                let case = Case { strata, per_stratum, stratum_blocks, planted, confidence_ppm };
                let bad = case.bad_blocks();
                if bad > strata * stratum_blocks {
                    continue;
                }
                let missed = case.missed(bad, trials);
                let stated = 1.0 - confidence_ppm as f64 / 1e6;
                let p = at_least(missed, trials, stated);
                assert!(
                    p > 1e-6,
                    "{planted:?} {strata} x {per_stratum} of {stratum_blocks}: {missed}, p = {p}"
                );
                rows.push(format!(
                    "| {strata} × {per_stratum} of {stratum_blocks} | {planted:?} | {bad} | {:.2} % | {:.3} % |",
                    stated * 100.0,
                    missed as f64 * 100.0 / trials as f64
                ));
            }
        }
        rows
    }

    #[test]
    fn misses_are_no_more_frequent_than_stated() {
        let rows = monte_carlo(100_000);
        assert!(rows.len() >= 16, "{}", rows.join("\n"));
        println!("{}", rows.join("\n"));
    }

    /// The hypergeometric bound is what stratified draws do not keep; the test can see it.
    #[test]
    fn the_trials_reject_a_smaller_bound() {
        let case = Case {
            strata: 2,
            per_stratum: 1,
            stratum_blocks: 2,
            planted: Planted::OneInAStratum,
            confidence_ppm: 0,
        };
        let missed = case.missed(2, 100_000);
        // One bad block in each of two strata is missed in a quarter of all draws, not in a sixth.
        assert!(at_least(missed, 100_000, 1.0 / 6.0) < 1e-6, "{missed}");
        assert!(at_least(missed, 100_000, 1.0 / 4.0) > 1e-6, "{missed}");
    }

    #[test]
    fn a_run_of_two_strata_is_always_found_and_a_single_block_at_its_rate() {
        let case =
            Case { strata: 64, per_stratum: 2, stratum_blocks: 16, planted: Planted::Run, confidence_ppm: 0 };
        assert_eq!(case.missed(2 * 16 - 1, 100_000), 0);
        let single = Case { planted: Planted::Scattered, ..case };
        let missed = single.missed(1, 100_000);
        assert!(missed.abs_diff(87_500) < 600, "2 of 16 blocks are drawn: {missed}");
    }
}
