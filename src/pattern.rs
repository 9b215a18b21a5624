//! Patterns: pure functions of the absolute byte offset.
//!
//! So resume, retry, reordering and the check of any single block need no state, and a random
//! pattern identifies a block's offset: it detects misdirected writes and aliased addresses,
//! which a constant cannot.

pub mod chacha;

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// Longer constants have no use in any known scheme (gutmann's are three bytes long).
const BYTES_MAX: usize = 16;

/// 256 bits from the kernel, written in hex. Whoever has it can recompute the pattern.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Seed(
    #[serde(with = "hex::serde")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))]
    pub [u8; 32],
);

impl Seed {
    /// A fresh seed from getrandom(2).
    ///
    /// # Errors
    /// The kernel gives no random bytes; of kind [`Kind::Failed`](crate::Kind::Failed).
    pub fn from_kernel() -> Result<Seed> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Error::failed("no random seed from the kernel").because(error.into()))?;
        Ok(Seed(seed))
    }

    /// The generator that this seed starts, at its beginning.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({self})")
    }
}

/// What a pass writes, and what a check expects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pattern {
    /// These bytes again and again from offset 0 of the device: byte `o` is `bytes[o % len]`.
    Constant {
        /// One period, 1 to 16 bytes; a document has it as 2 to 32 hex digits.
        #[serde(serialize_with = "hex::serde::serialize", deserialize_with = "constant_bytes")]
        #[schemars(with = "String", regex(pattern = "^([0-9a-f]{2}){1,16}$"))]
        bytes: Vec<u8>,
    },
    /// The ChaCha8 stream of the seed (64-bit block counter, stream 0), byte `o` at offset `o`.
    Random {
        /// The key of the stream.
        seed: Seed,
    },
    /// The same stream, but zeroes below an offset: what destroying a key leaves, without a header.
    Headless {
        /// The key of the stream.
        seed: Seed,
        /// The first byte that is not zeroed, absolute on the device.
        zero_to: u64,
    },
}

fn constant_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    let bytes: Vec<u8> = hex::serde::deserialize(deserializer)?;
    if (1..=BYTES_MAX).contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(serde::de::Error::custom("a constant has 1 to 16 bytes"))
}

impl Pattern {
    /// The constant of one zero byte.
    pub fn zero() -> Pattern {
        Pattern::constant(&[0])
    }

    /// # Panics
    /// Where there is no byte or there are more than 16.
    pub fn constant(bytes: &[u8]) -> Pattern {
        assert!((1..=BYTES_MAX).contains(&bytes.len()), "a constant has 1 to 16 bytes");
        Pattern::Constant { bytes: bytes.to_vec() }
    }

    /// Writes the pattern's bytes for the offsets from `at` on.
    pub fn fill(&self, at: u64, out: &mut [u8]) {
        match self {
            Pattern::Constant { bytes } => fill_constant(bytes, at, out),
            Pattern::Random { seed } => chacha::fill(seed, at, out),
            Pattern::Headless { seed, zero_to } => {
                let zeroes = zero_to.saturating_sub(at).min(out.len() as u64) as usize;
                let (header, rest) = out.split_at_mut(zeroes);
                header.fill(0);
                chacha::fill(seed, at + zeroes as u64, rest);
            }
        }
    }

    /// After how many bytes it repeats; `None` if it does not.
    pub fn period(&self) -> Option<u64> {
        match self {
            Pattern::Constant { bytes } => Some(bytes.len() as u64),
            Pattern::Random { .. } | Pattern::Headless { .. } => None,
        }
    }
}

fn fill_constant(bytes: &[u8], at: u64, out: &mut [u8]) {
    let period = bytes.len();
    let phase = (at % period as u64) as usize;
    for (index, byte) in out.iter_mut().take(period).enumerate() {
        *byte = bytes[(phase + index) % period];
    }
    let mut filled = period;
    while filled < out.len() {
        // `filled` is a multiple of the period, so a copy from the front goes on seamlessly.
        let more = filled.min(out.len() - filled);
        out.copy_within(..more, filled);
        filled += more;
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Constant { bytes } => write!(f, "0x{}", hex::encode(bytes)),
            Pattern::Random { .. } => f.write_str("random"),
            Pattern::Headless { .. } => f.write_str("zeroes and random"),
        }
    }
}

/// Reads `0x…` as a constant.
pub fn parse_constant(text: &str) -> Result<Vec<u8>> {
    let wrong = || {
        Error::usage(format!("'{text}' is not a byte pattern"))
            .with_remedy(format!("write 0x and 1 to {BYTES_MAX} bytes in hex, as in 0x00 or 0x55aa"))
    };
    let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
    let bytes = hex::decode(digits).map_err(|_| wrong())?;
    if (1..=BYTES_MAX).contains(&bytes.len()) { Ok(bytes) } else { Err(wrong()) }
}

/// `zero`, `0x…`, or `random:SEED` with the seed of an earlier report.
impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern> {
        if text == "zero" {
            return Ok(Pattern::zero());
        }
        let Some(digits) = text.strip_prefix("random:") else {
            return Ok(Pattern::Constant { bytes: parse_constant(text)? });
        };
        let mut seed = [0; 32];
        hex::decode_to_slice(digits, &mut seed).map_err(|_| {
            Error::usage(format!("'{digits}' is not a seed"))
                .with_remedy("a seed is 64 hex digits, as the report gives it")
        })?;
        Ok(Pattern::Random { seed: Seed(seed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..=BYTES_MAX).prop_map(|bytes| Pattern::Constant { bytes }),
            any::<[u8; 32]>().prop_map(|seed| Pattern::Random { seed: Seed(seed) }),
        ]
    }

    proptest! {
        #[test]
        fn any_part_is_the_same_as_the_whole(
            pattern in patterns(), base in 0u64..1 << 60, from in 0usize..3000, len in 0usize..9000,
        ) {
            let mut whole = vec![0; from + len];
            pattern.fill(base, &mut whole);
            let mut part = vec![0; len];
            pattern.fill(base + from as u64, &mut part);
            prop_assert_eq!(&whole[from..], &part[..]);
        }

        #[test]
        fn a_period_later_are_equal_bytes(
            bytes in prop::collection::vec(any::<u8>(), 1..=BYTES_MAX), at in 0u64..100, periods in 0u64..9,
        ) {
            let pattern = Pattern::constant(&bytes);
            let later = at + periods * pattern.period().unwrap();
            let (mut left, mut right) = (vec![0; 100], vec![0; 100]);
            pattern.fill(at, &mut left);
            pattern.fill(later, &mut right);
            prop_assert_eq!(left, right);
        }
    }

    #[test]
    fn a_constant_repeats_from_the_devices_first_byte() {
        let mut out = [0; 7];
        Pattern::constant(&[0x92, 0x49, 0x24]).fill(4, &mut out);
        assert_eq!(out, [0x49, 0x24, 0x92, 0x49, 0x24, 0x92, 0x49]);
    }

    #[test]
    fn the_random_stream_is_chacha8_as_published() {
        // First keystream block of ChaCha8 for the all-zero key and nonce (draft-strombergson, TC1).
        let mut out = [0; 16];
        Pattern::Random { seed: Seed([0; 32]) }.fill(0, &mut out);
        assert_eq!(hex::encode(out), "3e00ef2f895f40d67f5bb8e81f09a5a1");
    }

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for text in ["0x00", "0x55aa", "0x924924"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        assert_eq!("zero".parse::<Pattern>().unwrap(), Pattern::zero());
        let seed = Seed([7; 32]);
        assert_eq!(format!("random:{seed}").parse::<Pattern>().unwrap(), Pattern::Random { seed });
        for wrong in ["", "0x", "0x0", "0xzz", "55", "random:12", "0x0011223344556677889900112233445566"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
