//! The media of a simulated namespace: what they hold, and what of it is mapped.

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{BLOCK_FORMATS, NamespaceSetup};
use crate::range::Extent;

/// What is mapped together.
const UNIT: u64 = 512;

pub(super) struct Media {
    nsid: u32,
    /// FLBAS and DPS.
    pub(super) flbas: u8,
    pub(super) dps: u8,
    pub(super) write_protected: bool,
    bytes: Vec<u8>,
    /// A unit that is not mapped reads as zeroes.
    mapped: Vec<bool>,
    /// Until then reads give these.
    stale: Option<(Instant, Vec<u8>)>,
    /// How often it was given new keys.
    keys: u64,
}

impl Media {
    pub(super) fn new(setup: &NamespaceSetup) -> Media {
        let &NamespaceSetup { nsid, ref content, flbas, dps, write_protected, .. } = setup;
        let mapped = vec![true; content.len().div_ceil(UNIT as usize)];
        Media { nsid, flbas, dps, write_protected, bytes: content.clone(), mapped, stale: None, keys: 0 }
    }

    pub(super) fn nsid(&self) -> u32 {
        self.nsid
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn block_bytes(&self) -> u64 {
        let index = usize::from(self.flbas & 0xf | (self.flbas >> 5 & 3) << 4);
        1 << BLOCK_FORMATS[index].1
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn physical(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn read(&self, at: u64, out: &mut [u8], now: Instant) {
        if let Some((until, stale)) = &self.stale
            && now < *until
        {
            return out.copy_from_slice(&stale[at as usize..][..out.len()]);
        }
        for (unit, out) in Extent::at(at, out.len() as u64).chunks(UNIT).zip(out.chunks_mut(UNIT as usize)) {
            if self.mapped[(unit.start / UNIT) as usize] {
                out.copy_from_slice(&self.bytes[unit.start as usize..][..out.len()]);
            } else {
                out.fill(0);
            }
        }
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
        self.map(Extent::at(at, bytes.len() as u64), true);
    }

    pub(super) fn map(&mut self, extent: Extent, mapped: bool) {
        for unit in extent.chunks(UNIT) {
            self.mapped[(unit.start / UNIT) as usize] = mapped;
        }
    }

    pub(super) fn unmap_all(&mut self) {
        self.mapped.fill(false);
    }

    /// Every byte that is not to be kept.
    pub(super) fn fill(&mut self, keep: Option<Extent>, bytes: impl Fn(&mut [u8])) {
        let kept = keep.map(|keep| keep.intersect(Extent::new(0, self.size())));
        let before = kept.map(|kept| self.bytes[kept.start as usize..kept.end as usize].to_vec());
        bytes(&mut self.bytes);
        self.mapped.fill(true);
        if let (Some(kept), Some(before)) = (kept, before) {
            self.write(kept.start, &before);
        }
    }

    /// New keys: what is read is random.
    pub(super) fn scramble(&mut self, keep: Option<Extent>) {
        self.keys += 1;
        let seed = u64::from(self.nsid) << 32 | self.keys;
        self.fill(keep, |bytes| ChaCha8Rng::seed_from_u64(seed).fill_bytes(bytes));
    }

    /// From here on until then, reads give what they give now.
    pub(super) fn remember(&mut self, now: Instant, until: Instant) {
        let mut seen = vec![0; self.bytes.len()];
        self.read(0, &mut seen, now);
        self.stale = Some((until, seen));
    }
}
