//! A simulated disk that can lie, fail and lose power, from a seed.
//!
//! Two images: `live` is what a read sees, `durable` what is left when the power goes. Between
//! them lies the drive's cache: a written block becomes durable at a flush, or at some moment
//! before, or never. The faults are held apart from the bytes, so that a test can ask what the
//! disk holds whatever it answers. Every accepted operation and every flush is counted, and is a
//! point at which the power can go.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::clock::{Clock, SimClock};
use super::{Buf, Disk, Done, Geometry, IoPath, IoStats, Medium, Op, Traffic};
use crate::range::{Extent, ExtentSet};

const MEMORY_ALIGN: u64 = 512;

/// How many operations in a thousand a fault strikes.
type PerMille = u64;

/// What is wrong with the disk. The default is a good one (with a cache, like all of them).
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The power goes at this operation: it and what follows fail.
    pub power_cut_at: Option<u64>,
    /// The device is gone from this operation on, with this errno.
    pub vanish_at: Option<(u64, i32)>,
    /// How long each operation takes.
    pub operation_time: Duration,
    /// This operation is never answered.
    pub hangs_at: Option<u64>,
    /// Another medium is behind it from this operation on.
    pub changed_at: Option<u64>,
    /// Writes that answer well and change nothing.
    pub lose: PerMille,
    /// Writes that answer well and reach only their first blocks.
    pub tear: PerMille,
    /// Writes that answer well and land elsewhere.
    pub misdirect: PerMille,
    /// Reads that give what stood there before the last write.
    pub stale: PerMille,
    /// How the disk folds its addresses.
    pub alias: Option<AliasFault>,
    /// Flushes that answer well and make nothing durable.
    pub lying_flush: bool,
    /// The flush with this number (from 0) fails.
    pub flush_fails_at: Option<u64>,
    /// Blocks that cannot be written: EIO.
    pub bad_writes: ExtentSet,
    /// Blocks that cannot be read: EIO.
    pub bad_reads: ExtentSet,
    /// What a bad block answers, where it is not EIO.
    pub media_errno: Option<i32>,
    /// Bad writes succeed after the first flush: the drive has found other sectors.
    pub heals: bool,
    /// Operations that fail once with EIO.
    pub transient: PerMille,
    /// Transfers that end early: at any byte, at none too.
    pub short: PerMille,
    /// Discards that answer well and change nothing, as a drive may.
    pub idle_discard: bool,
    /// The disk knows no discard.
    pub no_discard: bool,
    /// The I/O counters always show a foreign read in flight.
    pub neighbour: bool,
    /// What it says that it lies on.
    pub medium: Medium,
}

/// Two addresses, one block.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AliasFault {
    /// A fake capacity: from here on the addresses wrap around.
    Wrap {
        /// The bytes that there really are.
        capacity: u64,
    },
    /// An address line that is stuck at 0.
    StuckBit {
        /// The value of that line, in bytes: a power of two, and a multiple of the logical block.
        bit: u64,
    },
}

impl AliasFault {
    fn fold(self, at: u64) -> u64 {
        match self {
            AliasFault::Wrap { capacity } => at % capacity,
            AliasFault::StuckBit { bit } => at & !bit,
        }
    }
}

/// A disk in memory with chosen faults, for tests of programs that use this crate. It keeps three copies of
/// its content.
pub struct SimDisk {
    geometry: Geometry,
    io_path: IoPath,
    faults: Faults,
    rng: ChaCha8Rng,
    depth: usize,
    in_flight: Vec<Op>,
    hung: Vec<Op>,
    /// Handed-back results of operations that never reached the media.
    failed: Vec<Done>,
    operations: u64,
    flushes: u64,
    powered: bool,
    /// Turned off from outside, as when the whole machine loses its power.
    switch: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Each block as it stood before its last write.
    previous: Vec<u8>,
    /// Blocks whose live bytes may not be durable.
    dirty: BTreeSet<u64>,
}

impl SimDisk {
    /// A disk that holds `content`; its behaviour follows from `seed`.
    pub fn new(
        content: Vec<u8>,
        logical_block: u64,
        physical_block: u64,
        seed: u64,
        faults: Faults,
    ) -> SimDisk {
        SimDisk {
            geometry: Geometry {
                size: content.len() as u64,
                logical_block,
                physical_block,
                memory_align: MEMORY_ALIGN,
            },
            io_path: IoPath::new("simulated", true, Vec::new()),
            faults,
            rng: ChaCha8Rng::seed_from_u64(seed),
            depth: 8,
            in_flight: Vec::new(),
            hung: Vec::new(),
            failed: Vec::new(),
            operations: 0,
            flushes: 0,
            powered: true,
            switch: Arc::new(AtomicBool::new(true)),
            clock: Arc::new(SimClock::default()),
            durable: content.clone(),
            previous: content.clone(),
            live: content,
            dirty: BTreeSet::new(),
        }
    }

    /// The same disk on another clock than its own.
    pub fn on_clock(self, clock: Arc<dyn Clock>) -> SimDisk {
        SimDisk { clock, ..self }
    }

    /// Whoever stores `false` in it cuts the power.
    pub fn switch(&self) -> Arc<AtomicBool> {
        self.switch.clone()
    }

    /// What a read would see, were the disk honest.
    pub fn live(&self) -> &[u8] {
        &self.live
    }

    /// What is left when the power goes now, at worst.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// How many operations, flushes included, there were so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.hung.is_empty()
    }

    fn occurs(&mut self, chance: PerMille) -> bool {
        chance > 0 && self.rng.next_u64() % 1000 < chance
    }

    /// Counts an operation; the error is that of a disk without power or presence.
    fn count(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        let off = self.faults.power_cut_at == Some(number) || !self.switch.load(Ordering::Relaxed);
        if self.powered && off {
            self.cut_power();
        }
        if !self.powered {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        match self.faults.vanish_at {
            Some((from, errno)) if number >= from => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Each cached block survives or not; each block of a write in flight was written or not.
    fn cut_power(&mut self) {
        self.powered = false;
        for op in std::mem::take(&mut self.in_flight) {
            if let Op::Write { at, buf } = &op {
                for extent in Extent::at(*at, buf.len() as u64).chunks(self.geometry.logical_block) {
                    if self.rng.next_u64() & 1 == 0 {
                        let from = (extent.start - at) as usize;
                        self.store(extent.start, &buf[from..from + extent.len() as usize]);
                    }
                }
            }
            self.failed.push(Done { op, result: Err(io::Error::from_raw_os_error(libc::ENODEV)) });
        }
        for block in std::mem::take(&mut self.dirty) {
            if self.rng.next_u64() & 1 == 0 {
                self.make_durable(block);
            }
        }
    }

    fn block_range(&self, block: u64) -> std::ops::Range<usize> {
        let start = block as usize;
        start..(start + self.geometry.logical_block as usize).min(self.live.len())
    }

    fn make_durable(&mut self, block: u64) {
        let range = self.block_range(block);
        self.durable[range.clone()].copy_from_slice(&self.live[range]);
    }

    /// Puts bytes into the cache, block by block, through the folded addresses.
    fn store(&mut self, at: u64, bytes: &[u8]) {
        for extent in Extent::at(at, bytes.len() as u64).chunks(self.geometry.logical_block) {
            let from = (extent.start - at) as usize;
            let target = self.faults.alias.map_or(extent.start, |alias| alias.fold(extent.start));
            let range = target as usize..(target + extent.len()) as usize;
            self.previous[range.clone()].copy_from_slice(&self.live[range.clone()]);
            self.live[range].copy_from_slice(&bytes[from..from + extent.len() as usize]);
            self.dirty.insert(target - target % self.geometry.logical_block);
        }
        // A cache may write back at any time before a flush.
        if self.rng.next_u64().is_multiple_of(4)
            && let Some(block) = self.dirty.pop_first()
        {
            self.make_durable(block);
        }
    }

    fn load(&mut self, at: u64, out: &mut [u8]) {
        let stale = self.occurs(self.faults.stale);
        for extent in Extent::at(at, out.len() as u64).chunks(self.geometry.logical_block) {
            let source = self.faults.alias.map_or(extent.start, |alias| alias.fold(extent.start)) as usize;
            let image = if stale { &self.previous } else { &self.live };
            let from = (extent.start - at) as usize;
            let len = extent.len() as usize;
            out[from..from + len].copy_from_slice(&image[source..source + len]);
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let blocks = (bytes.len() as u64).div_ceil(self.geometry.logical_block);
        if bytes.is_empty() || self.occurs(self.faults.lose) {
            return;
        }
        if self.occurs(self.faults.tear) {
            let kept = (self.rng.next_u64() % blocks * self.geometry.logical_block) as usize;
            return self.store(at, &bytes[..kept]);
        }
        if self.occurs(self.faults.misdirect) {
            let blocks = (self.geometry.size - bytes.len() as u64) / self.geometry.logical_block;
            let elsewhere = self.rng.next_u64() % (blocks + 1) * self.geometry.logical_block;
            return self.store(elsewhere, bytes);
        }
        self.store(at, bytes);
    }

    /// Carries an operation out, as far as the faults let it.
    fn perform(&mut self, op: &mut Op) -> io::Result<u64> {
        let asked = Extent::at(op.at(), op.bytes());
        let bad = match op {
            Op::Read { .. } => self.faults.bad_reads.clone(),
            _ if self.faults.heals && self.flushes > 0 => ExtentSet::new(),
            _ => self.faults.bad_writes.clone(),
        };
        if bad.iter().any(|extent| !extent.intersect(asked).is_empty()) || self.occurs(self.faults.transient)
        {
            return Err(io::Error::from_raw_os_error(self.faults.media_errno.unwrap_or(libc::EIO)));
        }
        if self.faults.no_discard && matches!(op, Op::Discard { .. }) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let short = self.occurs(self.faults.short);
        let len = if short { self.rng.next_u64() % asked.len() } else { asked.len() };
        match op {
            Op::Write { at, buf } => self.write(*at, &buf[..len as usize]),
            Op::Read { at, buf } => self.load(*at, &mut buf[..len as usize]),
            Op::Discard { .. } if self.faults.idle_discard => {}
            Op::Zero { at, .. } | Op::Discard { at, .. } => self.write(*at, &vec![0; len as usize]),
        }
        Ok(len)
    }
}

/// What a real device refuses, whatever its health.
pub(super) fn is_misuse(geometry: &Geometry, op: &Op) -> bool {
    let (at, bytes) = (op.at(), op.bytes());
    let block = geometry.logical_block;
    bytes == 0
        || at.saturating_add(bytes) > geometry.size
        || !at.is_multiple_of(block)
        || !bytes.is_multiple_of(block)
}

impl Disk for SimDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        assert!(self.is_idle(), "buffers are asked for when the disk is idle");
        Ok((0..count).map(|_| Buf::new(len, MEMORY_ALIGN as usize)).collect())
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        if self.in_flight.len() + self.hung.len() + self.failed.len() == self.depth {
            return Err(op);
        }
        if is_misuse(&self.geometry, &op) {
            self.failed.push(Done { op, result: Err(io::Error::from_raw_os_error(libc::EINVAL)) });
            return Ok(());
        }
        let number = self.operations;
        match self.count() {
            Ok(()) if self.faults.hangs_at == Some(number) => self.hung.push(op),
            Ok(()) => self.in_flight.push(op),
            Err(error) => self.failed.push(Done { op, result: Err(error) }),
        }
        Ok(())
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
        out.append(&mut self.failed);
        if self.in_flight.is_empty() {
            if out.is_empty() && !self.hung.is_empty() {
                let until = until.expect("a wait without a deadline would never end");
                self.clock.sleep_until(until);
            }
            return Ok(());
        }
        // Some of what is in flight is done, in any order.
        let finished = 1 + self.rng.next_u64() as usize % self.in_flight.len();
        for _ in 0..finished {
            let index = self.rng.next_u64() as usize % self.in_flight.len();
            let mut op = self.in_flight.swap_remove(index);
            self.clock.sleep_until(self.clock.now() + self.faults.operation_time);
            let result = self.perform(&mut op);
            out.push(Done { op, result });
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        assert!(self.is_idle(), "a flush covers only what has completed");
        self.count()?;
        let number = self.flushes;
        self.flushes += 1;
        if self.faults.flush_fails_at == Some(number) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !self.faults.lying_flush {
            for block in std::mem::take(&mut self.dirty) {
                self.make_durable(block);
            }
        }
        Ok(())
    }

    fn unchanged(&self, _since: Instant) -> io::Result<()> {
        match self.faults.changed_at {
            Some(at) if self.operations >= at => Err(io::Error::other("another medium is behind it")),
            _ => Ok(()),
        }
    }

    fn medium(&self) -> Medium {
        self.faults.medium
    }

    fn io_stats(&self) -> Vec<IoStats> {
        let reads = Traffic { in_flight: self.faults.neighbour.into(), ..Traffic::default() };
        vec![IoStats { reads, ..IoStats::default() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 512;

    fn disk(faults: Faults) -> SimDisk {
        SimDisk::new(vec![b'x'; 64 * BLOCK as usize], BLOCK, 4096, 1, faults)
    }

    fn write(disk: &mut SimDisk, at: u64, byte: u8, len: u64) -> io::Result<u64> {
        let mut buf = disk.buffers(1, len as usize).unwrap().remove(0);
        buf.fill(byte);
        disk.submit(Op::Write { at, buf }).unwrap();
        let mut out = Vec::new();
        disk.reap(&mut out, None).unwrap();
        out.remove(0).result
    }

    #[test]
    fn a_write_is_seen_at_once_and_durable_after_a_flush() {
        let mut disk = disk(Faults::default());
        write(&mut disk, 4096, 0, 8 * BLOCK).unwrap();
        assert!(disk.live()[4096..8192].iter().all(|&byte| byte == 0));
        assert!(disk.durable()[4096..8192].contains(&b'x'), "the cache has not been flushed");
        disk.flush().unwrap();
        assert_eq!(disk.live(), disk.durable());
    }

    #[test]
    fn a_power_cut_keeps_what_was_flushed_and_some_of_the_rest() {
        let mut disk = disk(Faults { power_cut_at: Some(3), ..Faults::default() });
        write(&mut disk, 0, 0, 16 * BLOCK).unwrap();
        disk.flush().unwrap();
        write(&mut disk, 32 * BLOCK, 0, 32 * BLOCK).unwrap();
        assert_eq!(disk.flush().unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(disk.durable()[..16 * BLOCK as usize].iter().all(|&byte| byte == 0));
        let rest = &disk.durable()[32 * BLOCK as usize..];
        assert!(rest.contains(&0) && rest.contains(&b'x'), "torn between the blocks");
    }

    #[test]
    fn every_lie_answers_well() {
        let lies = [
            Faults { lose: 1000, ..Faults::default() },
            Faults { tear: 1000, ..Faults::default() },
            Faults { alias: Some(AliasFault::Wrap { capacity: 32 * BLOCK }), ..Faults::default() },
            Faults { alias: Some(AliasFault::StuckBit { bit: 16 * BLOCK }), ..Faults::default() },
        ];
        for faults in lies {
            let mut disk = disk(faults.clone());
            write(&mut disk, 48 * BLOCK, 0, 16 * BLOCK).unwrap();
            disk.flush().unwrap();
            assert!(disk.live()[48 * BLOCK as usize..].contains(&b'x'), "{faults:?}");
        }
    }

    #[test]
    fn bad_blocks_fail_and_the_device_can_be_gone() {
        let bad_writes = ExtentSet::from(Extent::at(8 * BLOCK, BLOCK));
        let mut disk = disk(Faults { bad_writes, vanish_at: Some((2, libc::ENOSPC)), ..Faults::default() });
        assert_eq!(write(&mut disk, 0, 0, 16 * BLOCK).unwrap_err().raw_os_error(), Some(libc::EIO));
        write(&mut disk, 0, 0, 8 * BLOCK).unwrap();
        assert_eq!(write(&mut disk, 0, 0, BLOCK).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    }
}
