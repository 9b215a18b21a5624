//! Samples of the data behind a header: whether it looks encrypted.
//!
//! Encrypted data is random bytes, sector by sector, and so a block that is far from random is not
//! encrypted. How far: n random bytes have a relative entropy D to the uniform distribution (in nats)
//! of at least d / n with a probability of at most e^-d (e d / 255)^255, for d > 255 (R. Agrawal,
//! "Finite-Sample Concentration of the Multinomial in Relative Entropy", 2020, theorem I.2). See
//! docs/keys.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::range::Extent;

pub const BLOCK_BYTES: u64 = 4096;
/// The least that is encrypted by itself.
const SECTOR_BYTES: usize = 512;
/// How far (n D) a block of random bytes never is from random: with a probability below 10^-47.
const PLAIN_NATS: f64 = 568.0;
/// Drawn, one in each of as many equal parts.
const DRAWN: u64 = 256;
/// Always looked at: where file systems and partition tables begin, and where they keep copies.
const AT_EITHER_END: u64 = 16;

/// How the blocks look that were drawn from the data before its keys are destroyed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DataSample {
    /// How many were looked at, of 4 KiB each.
    pub blocks: u64,
    /// Of these: those that random bytes could be, as encrypted and compressed data is.
    pub random: u64,
    /// Each sector of these holds one byte over and over, as where nothing was written.
    pub uniform: u64,
    /// Of these: those that the device gave an error for.
    pub unreadable: u64,
}

impl DataSample {
    /// Whether every block that was looked at may be encrypted, or cannot be read.
    pub fn holds(&self) -> bool {
        let known = self.random.checked_add(self.uniform).and_then(|sum| sum.checked_add(self.unreadable));
        known == Some(self.blocks)
    }
}

/// How one block looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockClass {
    Random,
    Uniform,
    Plain,
}

impl BlockClass {
    /// Sectors that hold one byte over and over say nothing, whatever stands beside them.
    pub fn of(block: &[u8]) -> BlockClass {
        let mut counts = [0_u32; 256];
        let mut bytes = 0_u32;
        for sector in block.chunks(SECTOR_BYTES).filter(|sector| !is_uniform(sector)) {
            sector.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            bytes += sector.len() as u32;
        }
        if bytes == 0 {
            return BlockClass::Uniform;
        }
        let log = |count: f64| if count > 0.0 { count * count.ln() } else { 0.0 };
        let sum: f64 = counts.iter().map(|count| log(f64::from(*count))).sum();
        let bytes = f64::from(bytes);
        if sum - bytes * (bytes / 256.0).ln() >= PLAIN_NATS { BlockClass::Plain } else { BlockClass::Random }
    }
}

pub fn is_uniform(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == bytes[0])
}

/// Which blocks of the data are looked at; `draw` gives a random number. All of them where they are few.
pub fn places(data: Extent, draw: &mut dyn FnMut() -> u64) -> Vec<Extent> {
    let blocks = data.len() / BLOCK_BYTES;
    let at = |block: u64| Extent::at(data.start + block * BLOCK_BYTES, BLOCK_BYTES);
    if blocks <= DRAWN + 2 * AT_EITHER_END {
        return (0..blocks).map(at).collect();
    }
    let (first, last) = (AT_EITHER_END, blocks - AT_EITHER_END);
    let edge = |part: u64| first + (u128::from(last - first) * u128::from(part) / u128::from(DRAWN)) as u64;
    let drawn = (0..DRAWN).map(|part| edge(part) + draw() % (edge(part + 1) - edge(part)));
    (0..first).chain(drawn).chain(last..blocks).map(at).collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::Rng;

    use super::*;
    use crate::pattern::Seed;

    fn random(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Seed([seed; 32]).rng().fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn the_threshold_is_one_that_random_bytes_do_not_reach() {
        let bound = -PLAIN_NATS + 255.0 * (std::f64::consts::E * PLAIN_NATS / 255.0).ln();
        assert!(bound < -47.0 * std::f64::consts::LN_10, "{bound}");
        for (number, block) in random(1, 64 << 20).chunks(BLOCK_BYTES as usize).enumerate() {
            assert_eq!(BlockClass::of(block), BlockClass::Random, "block {number}");
            // As a file system leaves it that writes in sectors, on a disk that was new.
            let mut half = block.to_vec();
            half[512 * (number % 7) + 512..].fill(0);
            assert_eq!(BlockClass::of(&half), BlockClass::Random, "sectors of block {number}");
        }
    }

    #[test]
    fn text_code_tables_and_patterns_are_plain() {
        let text = b"Dear Sir or Madam, the contract that we agreed on is ready. ".repeat(69);
        let base64: Vec<u8> = random(2, 4096).iter().map(|byte| b'0' + byte % 64).collect();
        let code = std::fs::read("/proc/self/exe").unwrap();
        let code = &code[(code.len() / 4) & !4095..][..4096];
        let mut one_entry = vec![0; 4096];
        one_entry[1024..1040].copy_from_slice(b"lost+found\0\0\x02\x01\x0c\0");
        let pattern = [0x55, 0xaa].repeat(2048);
        let mut sector_of_text = vec![0xff; 4096];
        sector_of_text[512..1024].copy_from_slice(&text[..512]);
        for (name, block) in [
            ("text", &text[..4096]),
            ("base64", &base64),
            ("code", code),
            ("one entry", &one_entry),
            ("a pattern", &pattern),
            ("a sector of text", &sector_of_text),
        ] {
            assert_eq!(BlockClass::of(block), BlockClass::Plain, "{name}");
        }
        assert_eq!(BlockClass::of(&[0; 4096]), BlockClass::Uniform);
        assert_eq!(BlockClass::of(&[[0; 512], [0xff; 512]].concat()), BlockClass::Uniform);
    }

    #[test]
    fn both_ends_and_each_part_are_sampled() {
        let data = Extent::new(1 << 20, (1 << 20) + (1 << 40) + 777);
        let mut rng = Seed([3; 32]).rng();
        let places = places(data, &mut || rng.next_u64());
        assert_eq!(places.len() as u64, DRAWN + 2 * AT_EITHER_END);
        assert!(places.is_sorted_by(|one, next| one.end <= next.start));
        assert_eq!((places[0].start, places[15].end), (data.start, data.start + (64 << 10)));
        assert_eq!(places.last().unwrap().end, data.start + (1 << 40));
        let gap = places.windows(2).map(|pair| pair[1].start - pair[0].end).max().unwrap();
        assert!(gap <= 2 * ((1 << 40) / DRAWN), "{gap}");
        for blocks in [0, 1, 287, 288, 289, 290] {
            let few = super::places(Extent::new(0, blocks * BLOCK_BYTES + 100), &mut || rng.next_u64());
            assert_eq!(few.len() as u64, blocks.min(288), "{blocks}");
            assert!(few.is_sorted_by(|one, next| one.end <= next.start));
        }
    }
}
