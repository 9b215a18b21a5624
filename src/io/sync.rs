//! The synchronous backend: one I/O at a time, where io_uring is not available.

use std::io;
use std::time::Instant;

use super::{Buf, Disk, Done, Geometry, IoPath, Op, Target};

pub(crate) struct SyncDisk {
    target: Target,
    io_path: IoPath,
    done: Option<Done>,
}

impl SyncDisk {
    /// `reason` is why there is no ring.
    pub(crate) fn new(target: Target, reason: String) -> SyncDisk {
        let io_path = IoPath::new("sync", target.is_direct(), vec![reason]);
        SyncDisk { target, io_path, done: None }
    }
}

impl Target {
    /// Carries one operation out, waiting for it.
    pub(super) fn perform(&self, op: &mut Op) -> io::Result<u64> {
        self.check(op.at(), op.bytes())?;
        match op {
            Op::Write { at, buf } => self.write(*at, buf),
            Op::Read { at, buf } => self.read(*at, buf),
            Op::Zero { at, len } => self.zero(*at, *len).map(|()| *len),
            Op::Discard { at, len } => self.discard(*at, *len).map(|()| *len),
        }
    }
}

impl Disk for SyncDisk {
    fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        let align = self.target.geometry().memory_align as usize;
        Ok((0..count).map(|_| Buf::new(len, align)).collect())
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if self.done.is_some() {
            return Err(op);
        }
        let result = self.target.perform(&mut op);
        self.done = Some(Done { op, result });
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Done>, _until: Option<Instant>) -> io::Result<()> {
        out.extend(self.done.take());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        assert!(self.done.is_none(), "a flush covers only what has completed");
        self.target.flush()
    }

    fn unchanged(&self, _since: Instant) -> io::Result<()> {
        self.target.unchanged()
    }
}
