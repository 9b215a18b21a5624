//! The disk of a simulated namespace.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{NvmeSim, Subsystem};
use crate::io::clock::{Clock, SimClock};
use crate::io::sim::is_misuse;
use crate::io::{Buf, Disk, Done, Geometry, IoPath, Op};
use crate::range::Extent;

const MEMORY_ALIGN: u64 = 512;
const DEPTH: usize = 8;

/// A namespace as a disk: what a drive refuses while it erases itself is EIO, as Linux has it. Several disks
/// can be open over one namespace, as over several paths.
pub struct NamespaceDisk {
    sim: NvmeSim,
    nsid: u32,
    geometry: Geometry,
    io_path: IoPath,
    clock: Arc<SimClock>,
    in_flight: Vec<Op>,
}

impl NamespaceDisk {
    pub(super) fn new(sim: &NvmeSim, nsid: u32) -> NamespaceDisk {
        let mut subsystem = sim.now();
        let media = subsystem.media(nsid).expect("a namespace that exists");
        let block = media.block_bytes();
        let geometry = Geometry {
            size: media.size(),
            logical_block: block,
            physical_block: block.max(4096),
            memory_align: MEMORY_ALIGN,
        };
        let backend = Cow::Borrowed("simulated");
        let io_path = IoPath { backend, direct: true, o_direct: Some(true), fallbacks: Vec::new() };
        drop(subsystem);
        NamespaceDisk {
            sim: sim.clone(),
            nsid,
            geometry,
            io_path,
            clock: sim.clock().clone(),
            in_flight: Vec::new(),
        }
    }
}

impl Subsystem {
    fn io(&mut self, nsid: u32, op: &mut Op, now: Instant) -> io::Result<u64> {
        let writes = !matches!(op, Op::Read { .. });
        let formats = self.format.as_ref().is_some_and(|format| format.reaches(nsid));
        let allowed = self.sanitize.allows_io(writes) && !formats && !self.setup.locked;
        let eio = || io::Error::from_raw_os_error(libc::EIO);
        let media = self.media(nsid).ok_or_else(eio)?;
        if !allowed || (writes && media.write_protected) {
            return Err(eio());
        }
        let len = op.bytes();
        match op {
            Op::Read { at, buf } => media.read(*at, buf, now),
            Op::Write { at, buf } => media.write(*at, buf),
            Op::Zero { at, len } => media.write(*at, &vec![0; *len as usize]),
            Op::Discard { at, len } => media.map(Extent::at(*at, *len), false),
        }
        if matches!(op, Op::Write { .. } | Op::Zero { .. }) {
            self.sanitize.written();
        }
        Ok(len)
    }
}

impl Disk for NamespaceDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        Ok((0..count).map(|_| Buf::new(len, MEMORY_ALIGN as usize)).collect())
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        if self.in_flight.len() == DEPTH {
            return Err(op);
        }
        self.in_flight.push(op);
        Ok(())
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn reap(&mut self, out: &mut Vec<Done>, _until: Option<Instant>) -> io::Result<()> {
        let mut subsystem = self.sim.now();
        let now = self.clock.now();
        for mut op in self.in_flight.drain(..) {
            let result = if is_misuse(&self.geometry, &op) {
                Err(io::Error::from_raw_os_error(libc::EINVAL))
            } else {
                subsystem.io(self.nsid, &mut op, now)
            };
            out.push(Done { op, result });
        }
        Ok(())
    }

    /// Refused as a write is: there is no cache that could be lost.
    fn flush(&mut self) -> io::Result<()> {
        if self.sim.now().sanitize.allows_io(true) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }

    fn unchanged(&self, _since: Instant) -> io::Result<()> {
        Ok(())
    }
}
