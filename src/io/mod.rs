//! Block I/O with owned buffers: `submit` takes an operation with its buffer, its completion returns both.
//!
//! An operation that was accepted comes back exactly once, in any order, with its buffer; so the
//! memory can neither be freed nor changed while the device uses it.

use crate::directory::Lock;
use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod buffer;
pub mod clock;
pub mod passthrough;
pub mod sim;
mod sync;
mod sys;
mod uring;

pub use buffer::Buf;
pub use clock::{Clock, SystemClock};
pub(crate) use sys::{Access, Backing, DmLine, DmTarget, Target, dm_targets, loop_backing, size_of};
pub use sys::{PriorityClass, inherited, set_io_priority};

/// What a device can be asked for, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Geometry {
    /// In bytes; need not be a multiple of a block.
    pub size: u64,
    /// Offsets and lengths are multiples of it (but where the size is none, its last bytes).
    pub logical_block: u64,
    /// A multiple of the logical block: what the media writes at once.
    pub physical_block: u64,
    /// The alignment of buffers in memory.
    pub memory_align: u64,
}

impl From<&Geometry> for crate::plan::Device {
    fn from(geometry: &Geometry) -> crate::plan::Device {
        let &Geometry { size, logical_block, physical_block, .. } = geometry;
        crate::plan::Device { size, logical_block, physical_block }
    }
}

/// How bytes get to the device, for the report: it decides what a read-back can prove.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IoPath {
    /// `io_uring`, `sync` (pread and pwrite) or `simulated`, or the name of another [`Disk`].
    pub backend: Cow<'static, str>,
    /// What is read comes from the storage: no page cache lies in between, of the device itself or below it.
    pub direct: bool,
    /// The device itself is open with O_DIRECT; records of version 2 have no word for what lies below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o_direct: Option<bool>,
    /// What this kernel or user could not have, rung by rung, each with its reason.
    pub fallbacks: Vec<String>,
}

impl IoPath {
    /// `direct` is both [`IoPath::direct`] and [`IoPath::o_direct`].
    pub fn new(backend: &'static str, direct: bool, fallbacks: Vec<String>) -> IoPath {
        IoPath { backend: backend.into(), direct, o_direct: Some(direct), fallbacks }
    }

    /// With O_DIRECT only whole logical blocks are transferred.
    pub fn takes_whole_blocks(&self) -> bool {
        self.o_direct.unwrap_or(self.direct)
    }
}

/// One request to a device. `at` and lengths are absolute bytes, multiples of [`Geometry::logical_block`].
/// Not `non_exhaustive`: a disk has to know all of them.
#[derive(Debug)]
pub enum Op {
    /// Writes the buffer's bytes.
    Write {
        /// The first byte.
        at: u64,
        /// As long as its `len`; given back by the completion.
        buf: Buf,
    },
    /// Fills the buffer.
    Read {
        /// The first byte.
        at: u64,
        /// As long as its `len`; given back by the completion.
        buf: Buf,
    },
    /// Makes the range read as zeroes; the device may do it without writing.
    Zero {
        /// The first byte.
        at: u64,
        /// In bytes.
        len: u64,
    },
    /// Hints to the device that the range is not needed: what reads back is not defined.
    Discard {
        /// The first byte.
        at: u64,
        /// In bytes.
        len: u64,
    },
}

impl Op {
    /// The first byte that it is about.
    pub fn at(&self) -> u64 {
        match self {
            Op::Write { at, .. } | Op::Read { at, .. } | Op::Zero { at, .. } | Op::Discard { at, .. } => *at,
        }
    }

    /// How many bytes it is about.
    pub fn bytes(&self) -> u64 {
        match self {
            Op::Write { buf, .. } | Op::Read { buf, .. } => buf.len() as u64,
            Op::Zero { len, .. } | Op::Discard { len, .. } => *len,
        }
    }

    /// The buffer of a read or write; `None` for the commands, which have none.
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Op::Write { buf, .. } | Op::Read { buf, .. } => Some(buf),
            Op::Zero { .. } | Op::Discard { .. } => None,
        }
    }

    /// The word for it in events and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Write { .. } => "write",
            Op::Read { .. } => "read",
            Op::Zero { .. } => "write-zeroes",
            Op::Discard { .. } => "discard",
        }
    }
}

/// A finished operation: how many bytes of it were done (fewer than asked is no error), or why not.
#[derive(Debug)]
pub struct Done {
    /// The very operation that was submitted, with its buffer.
    pub op: Op,
    /// Bytes from the start of the operation; the error is that of the kernel.
    pub result: io::Result<u64>,
}

/// Cumulative I/O counters of a device, over all its users.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoStats {
    /// It lies below the disk: what we send to the disk may show here in another shape, and later.
    pub below: bool,
    /// Reads.
    pub reads: Traffic,
    /// Writes and discards.
    pub writes: Traffic,
    /// Flushes, without bytes.
    pub flushes: Traffic,
}

/// The I/O of a device that goes one way, of all its users, since the device appeared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Of I/Os that ended.
    pub bytes: u64,
    /// I/Os that ended.
    pub ended: u64,
    /// How long these took, all times added up.
    pub ended_in: Duration,
    /// I/Os that were submitted and have not ended.
    pub in_flight: u64,
}

/// What answers for a disk's errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Medium {
    /// A drive, by itself or a partition of it.
    #[default]
    Drive,
    /// The devices below a mapping: device-mapper, md.
    Mapping,
    /// A file, by itself or behind a loop device.
    File,
}

/// A disk, real or simulated.
pub trait Disk {
    /// Constant as long as the disk is open.
    fn geometry(&self) -> Geometry;

    /// How bytes get to it; part of the report.
    fn io_path(&self) -> &IoPath;

    /// `count` buffers of `len` bytes that suit this disk, zeroed, in place of those given before.
    /// Only when idle. A disk may prepare them (io_uring registers them with the kernel).
    ///
    /// # Errors
    /// The memory cannot be had, or not be registered.
    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>>;

    /// Starts an operation. A full queue hands it back: reap, then try again.
    ///
    /// # Errors
    /// The operation itself, unchanged, where the queue is full.
    fn submit(&mut self, op: Op) -> Result<(), Op>;

    /// The clock on which `reap` waits: a simulated disk has one of its own.
    fn clock(&self) -> &dyn Clock {
        &SystemClock
    }

    /// Waits for at least one completion and adds all that are there to `out`; adds none when
    /// nothing is in flight, or when the time has come (a deadline, the pace, a signal).
    ///
    /// # Errors
    /// The queue itself is broken: what failed of a single operation is in its [`Done`].
    fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()>;

    /// Makes durable what was completed before. Only when idle; an error fails the whole epoch,
    /// since the kernel reports a lost write once and forgets it.
    ///
    /// # Errors
    /// That of the kernel (fsync(2)).
    fn flush(&mut self) -> io::Result<()>;

    /// Writes back and drops what the page caches of others hold of this disk's bytes, so that nothing of
    /// it is written later, and a read comes from the storage. Asked before the first pass and each check.
    ///
    /// # Errors
    /// Some cache could not be written back or dropped: what is read may not come from the storage.
    fn drop_caches(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether it is still the disk that was opened, and as large; and, by a look at the machine that began no
    /// earlier than `since`, has the same layers below and no new user. Asked before each pass and at the end.
    ///
    /// # Errors
    /// It is another disk, has another size, or has a new user; the message says which.
    fn unchanged(&self, since: Instant) -> io::Result<()>;

    /// What stands behind it, for the advice in messages about its errors.
    fn medium(&self) -> Medium {
        Medium::Drive
    }

    /// The I/O counters of this disk and of those below it, always in the same order; empty where no counter
    /// counts it.
    fn io_stats(&self) -> Vec<IoStats> {
        Vec::new()
    }

    /// One of all efface jobs that back off and share a device with this one, or one below, has the turn;
    /// `None` where it is another job. Beside one another they would back off from each other's I/O.
    fn take_turn(&self) -> Option<Turn> {
        Some(Turn::default())
    }
}

/// The turn of a job that yields, until it is dropped.
#[derive(Debug, Default)]
pub struct Turn {
    pub(crate) _locks: Vec<Lock>,
}

/// The best backend that this kernel and user allow, over an opened target.
///
/// Call it on the thread that will use the disk: the ring accepts no other.
pub(crate) fn open_disk(target: Target, depth: usize) -> io::Result<Box<dyn Disk>> {
    match uring::UringDisk::open(target, depth)? {
        Ok(ring) => Ok(Box::new(ring)),
        Err((target, reason)) => Ok(Box::new(sync::SyncDisk::new(target, reason))),
    }
}

#[cfg(test)]
mod contract;
