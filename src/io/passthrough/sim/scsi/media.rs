//! The medium of a simulated SCSI drive, and how its logical units read and write it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{BLOCK, Drive, SenseData};

pub(super) struct Media {
    bytes: Vec<u8>,
    /// Of each block: the qualifier of the error 3/11 that a read gives, until it is written.
    unwritten: Vec<Option<u8>>,
}

impl Media {
    pub(super) fn new(bytes: Vec<u8>) -> Media {
        let unwritten = vec![None; bytes.len() / BLOCK];
        Media { bytes, unwritten }
    }

    pub(super) fn physical(&self) -> &[u8] {
        &self.bytes
    }

    /// Erased blocks, that are to be written first where this says so.
    pub(super) fn zero(&mut self, needs_write: u8) {
        self.bytes.fill(0);
        self.needs_write(needs_write);
    }

    /// New keys: what is read is random.
    pub(super) fn scramble(&mut self, needs_write: u8) {
        ChaCha8Rng::seed_from_u64(48).fill_bytes(&mut self.bytes);
        self.needs_write(needs_write);
    }

    pub(super) fn overwrite(&mut self, pattern: &[u8]) {
        for (byte, value) in self.bytes.iter_mut().zip(pattern.iter().cycle()) {
            *byte = *value;
        }
        self.needs_write(0);
    }

    /// As WABEREQ and WACEREQ have it.
    fn needs_write(&mut self, how: u8) {
        self.unwritten.fill(match how {
            2 => Some(0x00),
            3 => Some(0x15),
            _ => None,
        });
    }
}

impl Drive {
    pub(super) fn unit_blocks(&self) -> usize {
        self.media.unwritten.len() / usize::from(self.setup.units)
    }

    /// The blocks that a command of 16 bytes names, of the whole medium.
    fn blocks(&self, unit: u8, cdb: &[u8]) -> Result<std::ops::Range<usize>, SenseData> {
        const OUT_OF_RANGE: SenseData = SenseData::of([5, 0x21, 0x00]);
        let first = u64::from_be_bytes(cdb[2..10].try_into().expect("8 bytes")) as usize;
        let count = u32::from_be_bytes(cdb[10..14].try_into().expect("4 bytes")) as usize;
        let from = usize::from(unit) * self.unit_blocks();
        match first + count <= self.unit_blocks() {
            true => Ok(from + first..from + first + count),
            false => Err(OUT_OF_RANGE),
        }
    }

    pub(super) fn read(&self, unit: u8, cdb: &[u8]) -> Result<Vec<u8>, SenseData> {
        let blocks = self.blocks(unit, cdb)?;
        match self.media.unwritten[blocks.clone()].iter().flatten().next() {
            Some(qualifier) => Err(SenseData::of([3, 0x11, *qualifier])),
            None => Ok(self.media.bytes[blocks.start * BLOCK..blocks.end * BLOCK].to_vec()),
        }
    }

    pub(super) fn write(&mut self, unit: u8, cdb: &[u8], data: &[u8]) -> Result<Vec<u8>, SenseData> {
        let blocks = self.blocks(unit, cdb)?;
        self.media.bytes[blocks.start * BLOCK..blocks.end * BLOCK].copy_from_slice(data);
        self.media.unwritten[blocks].fill(None);
        Ok(Vec::new())
    }
}
