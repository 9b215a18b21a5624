//! Byte ranges, sets of ranges, and alignment. All offsets are absolute, in bytes.

use std::fmt;

use rangemap::RangeSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A half-open range of bytes, `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Bounds")]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last one: equal to `start` in an empty extent.
    pub end: u64,
}

/// A serialized extent: `start` is not above `end`.
#[derive(Deserialize, JsonSchema)]
struct Bounds {
    start: u64,
    end: u64,
}

impl TryFrom<Bounds> for Extent {
    type Error = String;

    fn try_from(Bounds { start, end }: Bounds) -> Result<Extent, String> {
        if start > end {
            return Err(format!("an extent ends before it starts: {start}..{end}"));
        }
        Ok(Extent { start, end })
    }
}

impl Extent {
    /// `start..end`.
    ///
    /// # Panics
    /// Where `end` is below `start`.
    pub fn new(start: u64, end: u64) -> Extent {
        assert!(start <= end, "an extent ends before it starts: {start}..{end}");
        Extent { start, end }
    }

    /// `len` bytes from `start`.
    ///
    /// # Panics
    /// Where the end does not fit into 64 bits.
    pub fn at(start: u64, len: u64) -> Extent {
        Extent::new(start, start + len)
    }

    /// The number of bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it has no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part that both hold; empty where they do not meet.
    pub fn intersect(self, other: Extent) -> Extent {
        let start = self.start.max(other.start);
        Extent { start, end: self.end.min(other.end).max(start) }
    }

    /// The smallest extent of whole blocks that holds this one.
    pub fn widen(self, block: u64) -> Extent {
        Extent::new(align_down(self.start, block), align_up(self.end, block))
    }

    /// Cuts at an offset inside the extent.
    ///
    /// # Panics
    /// Where `at` lies before the start or behind the end.
    pub fn split(self, at: u64) -> (Extent, Extent) {
        (Extent::new(self.start, at), Extent::new(at, self.end))
    }

    /// Pieces that end at absolute multiples of `block`: the first and the last may be short.
    pub fn chunks(self, block: u64) -> impl Iterator<Item = Extent> {
        let mut start = self.start;
        std::iter::from_fn(move || {
            (start < self.end).then(|| {
                let piece = Extent::new(start, (align_down(start, block) + block).min(self.end));
                start = piece.end;
                piece
            })
        })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A set of bytes, kept as sorted extents that neither overlap nor touch.
#[derive(Clone, Default, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(from = "Vec<Extent>")]
#[schemars(with = "Vec<Extent>")]
pub struct ExtentSet(RangeSet<u64>);

impl ExtentSet {
    /// Without a byte.
    pub fn new() -> ExtentSet {
        ExtentSet::default()
    }

    /// Adds the bytes of an extent; what is in the set already stays, and neighbours become one extent.
    pub fn insert(&mut self, extent: Extent) {
        if !extent.is_empty() {
            self.0.insert(extent.start..extent.end);
        }
    }

    /// Takes the bytes of an extent out; an extent that reaches beyond it is cut.
    pub fn remove(&mut self, extent: Extent) {
        if !extent.is_empty() {
            self.0.remove(extent.start..extent.end);
        }
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of extents.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        self.iter().map(Extent::len).sum()
    }

    /// Whether the byte at this offset is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        self.0.contains(&offset)
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.0.iter().map(|range| Extent::new(range.start, range.end))
    }

    /// The bytes that both hold.
    pub fn intersect(self, other: &ExtentSet) -> ExtentSet {
        let outside = self.clone().without(other);
        self.without(&outside)
    }

    /// What is left of `self` without the bytes of `other`.
    pub fn without(mut self, other: &ExtentSet) -> ExtentSet {
        other.iter().for_each(|extent| self.remove(extent));
        self
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> ExtentSet {
        let mut set = ExtentSet::new();
        extents.into_iter().for_each(|extent| set.insert(extent));
        set
    }
}

impl From<Vec<Extent>> for ExtentSet {
    fn from(extents: Vec<Extent>) -> ExtentSet {
        ExtentSet::from_iter(extents)
    }
}

impl From<Extent> for ExtentSet {
    fn from(extent: Extent) -> ExtentSet {
        ExtentSet::from_iter([extent])
    }
}

impl Serialize for ExtentSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The largest multiple of `block` that is not above `offset`.
pub fn align_down(offset: u64, block: u64) -> u64 {
    offset - offset % block
}

/// The smallest multiple of `block` that is not below `offset`.
pub fn align_up(offset: u64, block: u64) -> u64 {
    offset.next_multiple_of(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        prop::collection::vec((0u64..200, 0u64..40).prop_map(|(at, len)| Extent::at(at, len)), 0..20)
    }

    proptest! {
        #[test]
        fn chunks_cover_an_extent_once_and_end_on_block_boundaries(
            start in 0u64..10_000, len in 0u64..10_000, block in 1u64..600,
        ) {
            let whole = Extent::at(start, len);
            let mut next = start;
            for chunk in whole.chunks(block) {
                prop_assert_eq!(chunk.start, next);
                prop_assert!(!chunk.is_empty() && chunk.len() <= block);
                prop_assert!(chunk.end % block == 0 || chunk.end == whole.end);
                next = chunk.end;
            }
            prop_assert_eq!(next, whole.end);
        }

        #[test]
        fn a_set_holds_exactly_what_was_put_in_and_not_taken_out(put in extents(), take in extents()) {
            let set = ExtentSet::from_iter(put.clone()).without(&ExtentSet::from_iter(take.clone()));
            let within = |list: &[Extent], byte| list.iter().any(|e| (e.start..e.end).contains(&byte));
            for byte in 0..300 {
                prop_assert_eq!(set.contains(byte), within(&put, byte) && !within(&take, byte));
            }
            let listed: Vec<Extent> = set.iter().collect();
            prop_assert!(listed.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(set.bytes(), (0..300).filter(|&byte| set.contains(byte)).count() as u64);
        }

        #[test]
        fn intersection_is_what_both_hold(a in 0u64..100, b in 0u64..50, c in 0u64..100, d in 0u64..50) {
            let (left, right) = (Extent::at(a, b), Extent::at(c, d));
            let both = left.intersect(right);
            for byte in 0..200 {
                let inside = |e: Extent| (e.start..e.end).contains(&byte);
                prop_assert_eq!(inside(both), inside(left) && inside(right));
            }
        }

        #[test]
        fn widening_aligns_both_ends_outwards(at in 0u64..10_000, len in 1u64..10_000, shift in 0u32..13) {
            let (narrow, block) = (Extent::at(at, len), 1u64 << shift);
            let wide = narrow.widen(block);
            prop_assert!(wide.start % block == 0 && wide.end % block == 0);
            prop_assert!(narrow.start - wide.start < block && wide.end - narrow.end < block);
        }
    }
}
