//! The ChaCha8 stream of a seed at any offset, at the speed of memory.
//!
//! Blocks are computed side by side, one in each lane of a vector: sixteen with AVX-512, eight with AVX2.
//! rand_chacha does the rest: other processors, incomplete groups at both ends, and the reference in the tests.
//! All follow D. J. Bernstein's ChaCha with 8 rounds, a 64-bit block counter and nonce 0.

use rand_chacha::rand_core::Rng;

use super::Seed;

/// Sixteen blocks of 64 bytes.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
const GROUP_BYTES: usize = 1024;

/// Writes the stream's bytes from an offset on.
pub type Fill = fn(&Seed, u64, &mut [u8]);

/// The ways to compute the stream that this processor has, the fastest first.
pub fn ways() -> impl Iterator<Item = (&'static str, Fill)> {
    #[cfg(target_arch = "x86_64")]
    let wide =
        [("AVX-512", avx512::is_there(), avx512::fill as Fill), ("AVX2", avx2::is_there(), avx2::fill)];
    #[cfg(not(target_arch = "x86_64"))]
    let wide = [];
    let there = wide.into_iter().filter(|(_, is_there, _)| *is_there).map(|(name, _, fill)| (name, fill));
    there.chain([("rand_chacha", one_by_one as Fill)])
}

/// Writes the stream's bytes from offset `at` on.
pub(super) fn fill(seed: &Seed, at: u64, out: &mut [u8]) {
    let (_, fill) = ways().next().expect("the last way is always there");
    fill(seed, at, out);
}

/// Whole groups by `groups`, which is given the number of the first one; the rest one by one.
#[cfg(target_arch = "x86_64")]
fn in_groups(seed: &Seed, at: u64, out: &mut [u8], groups: impl FnOnce(u64, &mut [[u8; GROUP_BYTES]])) {
    let head = (at.next_multiple_of(GROUP_BYTES as u64) - at).min(out.len() as u64) as usize;
    let (head, rest) = out.split_at_mut(head);
    let from = at + head.len() as u64;
    let (whole, tail) = rest.as_chunks_mut();
    let end = from + (whole.len() * GROUP_BYTES) as u64;
    one_by_one(seed, at, head);
    groups(from / GROUP_BYTES as u64, whole);
    one_by_one(seed, end, tail);
}

/// The same by rand_chacha.
fn one_by_one(seed: &Seed, at: u64, out: &mut [u8]) {
    if out.is_empty() {
        return;
    }
    let mut rng = seed.rng();
    rng.set_word_pos(u128::from(at / 4));
    let skip = (at % 4) as usize;
    if skip == 0 {
        rng.fill_bytes(out);
        return;
    }
    let word = rng.next_u32().to_le_bytes();
    let (head, rest) = out.split_at_mut(out.len().min(4 - skip));
    head.copy_from_slice(&word[skip..skip + head.len()]);
    rng.fill_bytes(rest);
}

#[cfg(target_arch = "x86_64")]
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Eight rounds are four times a round down the columns and one along the diagonals.
#[cfg(target_arch = "x86_64")]
const DOUBLE_ROUNDS: usize = 4;
/// The words that each quarter of a double round mixes.
#[cfg(target_arch = "x86_64")]
const QUARTERS: [[usize; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{CONSTANTS, DOUBLE_ROUNDS, GROUP_BYTES, QUARTERS, Seed};

    /// ChaCha's state: sixteen words, each for sixteen blocks.
    type State = [__m512i; 16];

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    pub(super) fn fill(seed: &Seed, at: u64, out: &mut [u8]) {
        assert!(is_there(), "a processor with AVX-512");
        // SAFETY: the processor has AVX-512F, as asked above.
        super::in_groups(seed, at, out, |first, whole| unsafe { groups(seed, first, whole) });
    }

    /// Fills whole groups, the first of which has this number in the stream.
    #[target_feature(enable = "avx512f")]
    fn groups(seed: &Seed, first: u64, out: &mut [[u8; GROUP_BYTES]]) {
        let mut start = [_mm512_setzero_si512(); 16];
        for (word, constant) in start.iter_mut().zip(CONSTANTS) {
            *word = _mm512_set1_epi32(constant as i32);
        }
        for (word, key) in start[4..12].iter_mut().zip(seed.0.as_chunks().0) {
            *word = _mm512_set1_epi32(i32::from_le_bytes(*key));
        }
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (group, number) in out.iter_mut().zip(first..) {
            // A group begins at a multiple of sixteen blocks: the lanes never carry into the high word.
            let counter = number * 16;
            start[12] = _mm512_add_epi32(_mm512_set1_epi32(counter as i32), lanes);
            start[13] = _mm512_set1_epi32((counter >> 32) as i32);
            write(blocks(&start), group);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn blocks(start: &State) -> State {
        let mut state = *start;
        for _ in 0..DOUBLE_ROUNDS {
            for words in QUARTERS {
                quarter(&mut state, words);
            }
        }
        for (word, first) in state.iter_mut().zip(start) {
            *word = _mm512_add_epi32(*word, *first);
        }
        state
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quarter(state: &mut State, [a, b, c, d]: [usize; 4]) {
        state[a] = _mm512_add_epi32(state[a], state[b]);
        state[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(state[d], state[a]));
        state[c] = _mm512_add_epi32(state[c], state[d]);
        state[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(state[b], state[c]));
        state[a] = _mm512_add_epi32(state[a], state[b]);
        state[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(state[d], state[a]));
        state[c] = _mm512_add_epi32(state[c], state[d]);
        state[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(state[b], state[c]));
    }

    /// Turns sixteen words of sixteen blocks into sixteen blocks of sixteen words, and writes them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn write(state: State, out: &mut [u8; GROUP_BYTES]) {
        // quads[w][b]: in lane l (128 bits) the words 4w to 4w + 3 of block 4l + b.
        let quads = [0, 4, 8, 12].map(|w| turn([state[w], state[w + 1], state[w + 2], state[w + 3]]));
        let (blocks, _) = out.as_chunks_mut::<64>();
        for b in 0..4 {
            let [w0, w1, w2, w3] = [quads[0][b], quads[1][b], quads[2][b], quads[3][b]];
            let (even_front, odd_front) = (even_lanes(w0, w1), odd_lanes(w0, w1));
            let (even_back, odd_back) = (even_lanes(w2, w3), odd_lanes(w2, w3));
            let lanes = [
                even_lanes(even_front, even_back),
                even_lanes(odd_front, odd_back),
                odd_lanes(even_front, even_back),
                odd_lanes(odd_front, odd_back),
            ];
            for (l, block) in lanes.into_iter().enumerate() {
                // SAFETY: a block is 64 bytes long, as is a vector; this store needs no alignment.
                unsafe { _mm512_storeu_si512(blocks[4 * l + b].as_mut_ptr().cast(), block) };
            }
        }
    }

    /// Transposes four vectors of words within each of their 128-bit lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn turn([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    }

    /// The lanes 0 and 2 of both.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn even_lanes(a: __m512i, b: __m512i) -> __m512i {
        _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
    }

    /// The lanes 1 and 3 of both.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn odd_lanes(a: __m512i, b: __m512i) -> __m512i {
        _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{CONSTANTS, DOUBLE_ROUNDS, GROUP_BYTES, QUARTERS, Seed};

    /// ChaCha's state: sixteen words, each for eight blocks.
    type State = [__m256i; 16];
    const HALF_BYTES: usize = GROUP_BYTES / 2;

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx2")
    }

    pub(super) fn fill(seed: &Seed, at: u64, out: &mut [u8]) {
        assert!(is_there(), "a processor with AVX2");
        // SAFETY: the processor has AVX2, as asked above.
        super::in_groups(seed, at, out, |first, whole| unsafe { groups(seed, first, whole) });
    }

    /// Fills whole groups, the first of which has this number in the stream.
    #[target_feature(enable = "avx2")]
    fn groups(seed: &Seed, first: u64, out: &mut [[u8; GROUP_BYTES]]) {
        let mut start = [_mm256_setzero_si256(); 16];
        for (word, constant) in start.iter_mut().zip(CONSTANTS) {
            *word = _mm256_set1_epi32(constant as i32);
        }
        for (word, key) in start[4..12].iter_mut().zip(seed.0.as_chunks().0) {
            *word = _mm256_set1_epi32(i32::from_le_bytes(*key));
        }
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let (halves, _) = out.as_flattened_mut().as_chunks_mut::<HALF_BYTES>();
        for (half, number) in halves.iter_mut().zip(first * 2..) {
            // A half begins at a multiple of eight blocks: the lanes never carry into the high word.
            let counter = number * 8;
            start[12] = _mm256_add_epi32(_mm256_set1_epi32(counter as i32), lanes);
            start[13] = _mm256_set1_epi32((counter >> 32) as i32);
            write(blocks(&start), half);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn blocks(start: &State) -> State {
        let mut state = *start;
        for _ in 0..DOUBLE_ROUNDS {
            for words in QUARTERS {
                quarter(&mut state, words);
            }
        }
        for (word, first) in state.iter_mut().zip(start) {
            *word = _mm256_add_epi32(*word, *first);
        }
        state
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn quarter(state: &mut State, [a, b, c, d]: [usize; 4]) {
        // By whole bytes one shuffle rotates; by other widths it takes two shifts.
        let by_16 = in_both_lanes([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]);
        let by_8 = in_both_lanes([3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14]);
        state[a] = _mm256_add_epi32(state[a], state[b]);
        state[d] = _mm256_shuffle_epi8(_mm256_xor_si256(state[d], state[a]), by_16);
        state[c] = _mm256_add_epi32(state[c], state[d]);
        state[b] = rotate::<12, 20>(_mm256_xor_si256(state[b], state[c]));
        state[a] = _mm256_add_epi32(state[a], state[b]);
        state[d] = _mm256_shuffle_epi8(_mm256_xor_si256(state[d], state[a]), by_8);
        state[c] = _mm256_add_epi32(state[c], state[d]);
        state[b] = rotate::<7, 25>(_mm256_xor_si256(state[b], state[c]));
    }

    /// The same bytes in both lanes of 128 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_both_lanes(bytes: [i8; 16]) -> __m256i {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        _mm256_broadcastsi128_si256(_mm_setr_epi8(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(word: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(word), _mm256_srli_epi32::<RIGHT>(word))
    }

    /// Turns sixteen words of eight blocks into eight blocks of sixteen words, and writes them.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn write(state: State, out: &mut [u8; HALF_BYTES]) {
        // quads[w][b]: in lane l (128 bits) the words 4w to 4w + 3 of block 4l + b.
        let quads = [0, 4, 8, 12].map(|w| turn([state[w], state[w + 1], state[w + 2], state[w + 3]]));
        let (halves, _) = out.as_chunks_mut::<32>();
        for b in 0..4 {
            for (part, w) in [(0, 0), (1, 2)] {
                let (front, back) = (quads[w][b], quads[w + 1][b]);
                let lanes = [
                    _mm256_permute2x128_si256::<0x20>(front, back),
                    _mm256_permute2x128_si256::<0x31>(front, back),
                ];
                for (l, half) in lanes.into_iter().enumerate() {
                    let to = &mut halves[2 * (4 * l + b) + part];
                    // SAFETY: it is 32 bytes long, as is a vector; this store needs no alignment.
                    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), half) };
                }
            }
        }
    }

    /// Transposes four vectors of words within each of their 128-bit lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn turn([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab_low, cd_low),
            _mm256_unpackhi_epi64(ab_low, cd_low),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Offsets about the places where the counter's low word is full, too.
        #[test]
        fn every_way_gives_the_same_bytes(
            seed: [u8; 32], base in prop_oneof![Just(0u64), Just((64u64 << 32) - 4096), Just(u64::MAX / 2)],
            from in 0u64..4096, len in 0usize..9000,
        ) {
            let mut reference = vec![0; len];
            one_by_one(&Seed(seed), base + from, &mut reference);
            for (name, fill) in ways() {
                let mut out = vec![0; len];
                fill(&Seed(seed), base + from, &mut out);
                prop_assert_eq!(&out, &reference, "{}", name);
            }
        }
    }
}
