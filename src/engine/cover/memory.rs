//! The memory of a step's I/Os: one buffer for all writes of a constant, else one for each I/O in flight.

use std::io;

use super::filling::fill_by_two;
use crate::io::{Buf, Disk};
use crate::pattern::Pattern;
use crate::plan::Step;

/// No disk asks for less alignment in memory, and no pattern has a period that divides it unevenly or is longer
/// than 16: so among its multiples there is one of each phase that a block can begin with.
const STRIDE_MIN: u64 = 512;

pub(super) enum StepMemory {
    /// A constant, longer than a transfer: each write has the part of it that begins with its phase.
    Shared {
        constant: Buf,
        period: u64,
        stride: u64,
    },
    Each(Vec<Buf>),
}

impl StepMemory {
    /// For a step with I/Os of at most `transfer` bytes, at most `depth` of them in flight.
    pub fn new(disk: &mut dyn Disk, step: &Step, transfer: u64, depth: usize) -> io::Result<StepMemory> {
        let geometry = disk.geometry();
        let constant = step.written().and_then(|pattern| Some((pattern, pattern.period()?)));
        match constant.filter(|_| geometry.logical_block.is_multiple_of(STRIDE_MIN)) {
            Some((pattern, period)) => {
                let stride = geometry.memory_align.max(STRIDE_MIN);
                let len = transfer + (period - 1) * stride;
                let mut constant = disk.buffers(1, len as usize)?.remove(0);
                pattern.fill(0, &mut constant);
                Ok(StepMemory::Shared { constant, period, stride })
            }
            None => {
                let count = if step.transfers() { depth } else { 0 };
                Ok(StepMemory::Each(disk.buffers(count, transfer as usize)?))
            }
        }
    }

    /// The pattern's bytes for the offsets from `at` on, where they are made by two threads or one.
    pub fn buffer_to_write(&mut self, pattern: &Pattern, at: u64, len: usize, by_two: bool) -> Buf {
        match self {
            StepMemory::Shared { constant, period, stride } => {
                let starts = (0..*period).map(|number| number * *stride);
                let from = starts.into_iter().find(|from| from % *period == at % *period);
                constant.share(from.expect("a start of each phase") as usize, len)
            }
            StepMemory::Each(_) => {
                let mut buf = self.buffer_to_read(len);
                let fill = if by_two { fill_by_two } else { Pattern::fill };
                fill(pattern, at, &mut buf);
                buf
            }
        }
    }

    pub fn buffer_to_read(&mut self, len: usize) -> Buf {
        let StepMemory::Each(idle) = self else { unreachable!("a step that writes reads nothing") };
        let mut buf = idle.pop().expect("as many buffers as pieces in flight");
        buf.set_len(len);
        buf
    }

    /// Takes back the buffer of an I/O that has ended.
    pub fn give_back(&mut self, buf: Option<Buf>) {
        if let StepMemory::Each(idle) = self {
            idle.extend(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};

    /// The steps' own buffers, from a disk that asks for more alignment than its blocks have bytes.
    fn memory(pattern: &Pattern) -> StepMemory {
        let mut disk = SimDisk::new(vec![0; 1 << 20], 512, 4096, 1, Faults::default());
        StepMemory::new(&mut disk, &Step::write(pattern.clone()), 8192, 4).unwrap()
    }

    #[test]
    fn all_writes_of_a_constant_have_the_pattern_of_their_offset_from_one_buffer() {
        for period in 1..=16u8 {
            let pattern = Pattern::constant(&(1..=period).collect::<Vec<_>>());
            let mut memory = memory(&pattern);
            for at in (0..64).map(|block| block * 512) {
                let (buf, mut expected) = (memory.buffer_to_write(&pattern, at, 8192, false), vec![0; 8192]);
                pattern.fill(at, &mut expected);
                assert_eq!(buf[..], expected, "{period} bytes at {at}");
                assert!((buf.as_ptr() as usize).is_multiple_of(512));
                let StepMemory::Shared { constant, .. } = &memory else { panic!("one buffer") };
                assert!(constant.as_ptr_range().contains(&buf.as_ptr()));
            }
        }
    }

    #[test]
    fn random_writes_have_a_buffer_each() {
        let mut memory = memory(&Pattern::Random { seed: crate::pattern::Seed([1; 32]) });
        let StepMemory::Each(idle) = &mut memory else { panic!("one for each") };
        assert_eq!(idle.len(), 4);
    }
}
