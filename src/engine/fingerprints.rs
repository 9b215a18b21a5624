//! Fingerprints of the blocks that a survey reads: whether a block holds later what it held then.
//!
//! The hash is NH of UMAC (RFC 4418; Black et al., CRYPTO '99) in words of 64 bits: two different blocks
//! have the same one with a probability of 2^-64 at most over the keys, whatever they hold, and the
//! same block always has. So an error is only ever a false alarm. It costs a multiplication for 16 bytes: a
//! survey of a small device reads all of it. Neither key nor hash leaves the process, and both are
//! discarded with the set, so that no report can reveal what the blocks held.

use std::collections::BTreeMap;

use zeroize::Zeroize;

use crate::error::Result;
use crate::pattern::{Pattern, Seed};

/// What one multiplication takes.
type Words = [u8; 16];

pub struct FingerprintSet {
    block: usize,
    /// As long as a block.
    key: Vec<[u64; 2]>,
    /// By the offset of the first, those of adjacent blocks.
    runs: BTreeMap<u64, Vec<u128>>,
}

impl Drop for FingerprintSet {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl FingerprintSet {
    /// Of blocks of this size, under a fresh key.
    pub fn new(block: u64) -> Result<FingerprintSet> {
        let mut bytes = vec![0; block.next_multiple_of(size_of::<Words>() as u64) as usize];
        Pattern::Random { seed: Seed::from_kernel()? }.fill(0, &mut bytes);
        let key = bytes.as_chunks().0.iter().map(words).collect();
        bytes.zeroize();
        Ok(FingerprintSet { block: block as usize, key, runs: BTreeMap::new() })
    }

    /// Keeps what was read from the start of a block on.
    pub fn keep(&mut self, at: u64, bytes: &[u8]) {
        let hashes = bytes.chunks(self.block).map(|block| self.hash(block)).collect();
        self.runs.insert(at, hashes);
    }

    /// Whether this block was kept, and is the same.
    pub fn holds(&self, at: u64, block: &[u8]) -> bool {
        let Some((start, hashes)) = self.runs.range(..=at).next_back() else { return false };
        hashes.get((at - start) as usize / self.block).is_some_and(|hash| *hash == self.hash(block))
    }

    fn hash(&self, block: &[u8]) -> u128 {
        let (whole, rest) = block.as_chunks::<{ size_of::<Words>() }>();
        let mut last = [0; size_of::<Words>()];
        last[..rest.len()].copy_from_slice(rest);
        let all = whole.iter().chain(std::iter::once(&last).filter(|_| !rest.is_empty()));
        all.zip(&self.key).fold(0, |sum: u128, (bytes, key)| {
            let [first, second] = words(bytes);
            let product = u128::from(first.wrapping_add(key[0])) * u128::from(second.wrapping_add(key[1]));
            sum.wrapping_add(product)
        })
    }
}

fn words(bytes: &Words) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_by_every_one_of_its_bytes_and_by_its_place() {
        for (block, len) in [(512, 3 * 512), (4096, 2 * 4096 + 100)] {
            let mut set = FingerprintSet::new(block).unwrap();
            let bytes: Vec<u8> = (0..len).map(|number: u64| (number % 251) as u8).collect();
            set.keep(8192, &bytes);
            for (number, kept) in (0..).zip(bytes.chunks(block as usize)) {
                let at = 8192 + number * block;
                assert!(set.holds(at, kept));
                assert!(!set.holds(at + 8 * block, kept) && !set.holds(at % 8192, kept), "another place");
                for byte in 0..kept.len() {
                    let mut other = kept.to_vec();
                    other[byte] ^= 0x80;
                    assert!(!set.holds(at, &other), "byte {byte} of {}", kept.len());
                }
            }
        }
    }

    #[test]
    fn every_set_has_its_own_key() {
        let hash = || FingerprintSet::new(512).unwrap().hash(&[0; 512]);
        assert_ne!(hash(), hash());
    }
}
