//! The comparison of what was read with a pattern, in parts that stay in the processor's cache.

use crate::pattern::Pattern;
use crate::range::Extent;

/// Half of a small first-level cache: the part that was read needs the other half.
const PART_BYTES: u64 = 16 << 10;

pub struct Comparison {
    expect: Pattern,
    block: u64,
    part: u64,
    /// Of a constant, filled once from its first byte on; of another pattern, the part at hand.
    expected: Vec<u8>,
}

impl Comparison {
    /// With this pattern, in blocks of `block` bytes.
    pub fn new(expect: &Pattern, block: u64) -> Comparison {
        let part = PART_BYTES.max(block);
        let mut expected = vec![0; (part + expect.period().unwrap_or(0)) as usize];
        expect.fill(0, &mut expected);
        Comparison { expect: expect.clone(), block, part, expected }
    }

    /// Shows `found` the blocks of `extent` that do not hold the pattern.
    pub fn differing(&mut self, extent: Extent, bytes: &[u8], found: &mut dyn FnMut(Extent, &[u8])) {
        let block = self.block;
        let within = |at: Extent, of: Extent| (at.start - of.start) as usize..(at.end - of.start) as usize;
        for part in extent.chunks(self.part) {
            let (is, should) = (&bytes[within(part, extent)], self.expected(part));
            if is != should {
                let differs = |each: &Extent| is[within(*each, part)] != should[within(*each, part)];
                part.chunks(block).filter(differs).for_each(|each| found(each, &is[within(each, part)]));
            }
        }
    }

    /// How many bytes are in blocks that hold the pattern.
    pub fn equal_bytes(&mut self, extent: Extent, bytes: &[u8]) -> u64 {
        let mut equal = extent.len();
        self.differing(extent, bytes, &mut |block, _| equal -= block.len());
        equal
    }

    fn expected(&mut self, at: Extent) -> &[u8] {
        let len = at.len() as usize;
        match self.expect.period() {
            Some(period) => &self.expected[(at.start % period) as usize..][..len],
            None => {
                self.expect.fill(at.start, &mut self.expected[..len]);
                &self.expected[..len]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Seed;

    #[test]
    fn every_block_that_differs_is_found_wherever_a_part_ends() {
        let patterns = [
            Pattern::zero(),
            Pattern::constant(&[0x92, 0x49, 0x24]),
            Pattern::Random { seed: Seed([1; 32]) },
            Pattern::Headless { seed: Seed([2; 32]), zero_to: 20_000 },
        ];
        for (pattern, block) in patterns.iter().flat_map(|pattern| [(pattern, 512), (pattern, 32 << 10)]) {
            let extent = Extent::new(3 * block, 3 * block + 6 * PART_BYTES.max(block) + 100);
            let mut bytes = vec![0; extent.len() as usize];
            pattern.fill(extent.start, &mut bytes);
            let mut comparison = Comparison::new(pattern, block);
            comparison.differing(extent, &bytes, &mut |at, _| panic!("{at} holds {pattern}"));
            for at in [extent.start, 4 * PART_BYTES.max(block) - 1, 4 * PART_BYTES.max(block), extent.end - 1]
            {
                let mut other = bytes.clone();
                other[(at - extent.start) as usize] ^= 1;
                let mut found = Vec::new();
                comparison.differing(extent, &other, &mut |at, is| found.push((at, is.to_vec())));
                let start = at / block * block;
                let is = Extent::new(start, (start + block).min(extent.end));
                let range = (is.start - extent.start) as usize..(is.end - extent.start) as usize;
                assert_eq!(comparison.equal_bytes(extent, &other), extent.len() - is.len());
                assert_eq!(found, [(is, other[range].to_vec())], "{pattern}, {at}");
            }
        }
    }
}
