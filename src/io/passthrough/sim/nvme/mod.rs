//! A simulated NVMe subsystem: a state machine over bytes, with the same media behind simulated disks.
//!
//! It reads commands and writes answers at offsets of its own and shares no code with [`crate::io::passthrough::nvme`], so that
//! a field in a wrong place shows. Time passes on a clock that its owner moves. It can lie about what it did,
//! and what its media holds can be asked for whatever its answers say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::clock::{Clock, SimClock};
use crate::io::passthrough::{Data, NvmeCommand, Outcome, PassThrough, Queue, Reply, Request};
use crate::range::Extent;

mod admin;
mod disk;
mod media;
mod sanitize;
#[cfg(test)]
mod tests;

pub use disk::NamespaceDisk;

/// What a drive is made of, and in which state it is found.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All that exist, in the order of their numbers.
    pub namespaces: Vec<NamespaceSetup>,
    /// All of the subsystem.
    pub controllers: Vec<ControllerSetup>,
    /// VER.
    pub version: u32,
    /// SANICAP.
    pub sanicap: u32,
    /// OACS.
    pub oacs: u16,
    /// ONCS.
    pub oncs: u16,
    /// FNA.
    pub fna: u8,
    /// How long a sanitize operation takes.
    pub sanitize_time: Duration,
    /// How long a format takes; its command ends with it.
    pub format_time: Duration,
    /// Sanitize operations fail at their end.
    pub sanitize_fails: bool,
    /// The persistent memory region is enabled.
    pub memory_region: bool,
    /// A security function prevents erasing.
    pub locked: bool,
    /// NODRM: where nothing can be kept allocated, a command that asks for it is carried out otherwise.
    pub keep_allocated_ignored: bool,
    /// SSTAT and SCDW10 of an operation before this time.
    pub last: Option<(u16, u32)>,
    /// What it does wrong.
    pub lie: Option<Lie>,
}

/// One namespace.
#[derive(Clone, Debug)]
pub struct NamespaceSetup {
    /// From 1.
    pub nsid: u32,
    /// What its media holds, in whole blocks.
    pub content: Vec<u8>,
    /// FLBAS: its block format is one of [`BLOCK_FORMATS`].
    pub flbas: u8,
    /// DPS.
    pub dps: u8,
    /// It cannot be written.
    pub write_protected: bool,
    /// RTYPE and REGCTL: how hosts have reserved it.
    pub reserved: (u8, u16),
}

/// One controller.
#[derive(Clone, Debug)]
pub struct ControllerSetup {
    /// CNTLID.
    pub id: u16,
    /// The namespaces attached to it.
    pub attached: Vec<u32>,
}

/// The table of block formats of every namespace: bytes of metadata, and the logarithm of those of data.
pub const BLOCK_FORMATS: [(u16, u8); 20] = [
    (0, 9),
    (0, 12),
    (8, 9),
    (8, 12),
    (64, 12),
    (16, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 9),
    (0, 12),
    (8, 12),
    (64, 12),
    (128, 12),
];

/// What a drive does, and does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// It runs for its time, does nothing, and says done.
    DoesNothing,
    /// It accepts the command, and nothing changes at all: neither media nor status. It always says that
    /// nothing was written since the last operation.
    IgnoresCommand,
    /// It says done at once, and works later.
    DoneAtOnce,
    /// It takes its mapping back: blocks read as zeroes, and are all there.
    DeallocatesOnly,
    /// These bytes of each namespace stay.
    KeepsRegion(Extent),
    /// After the operation, reads give what was there before for so long.
    StaleReads(Duration),
    /// Its status names another command.
    WrongCommand,
    /// Its progress is FFFFh while it runs.
    NoProgress,
    /// It never gets beyond a hundredth.
    Stuck,
    /// Half way, its progress begins again.
    FallsBack,
}

impl Setup {
    /// A drive that can do everything: one namespace with this content in blocks of 512 bytes, one controller.
    pub fn of(content: Vec<u8>) -> Setup {
        let (write_protected, reserved) = (false, (0, 0));
        let namespace = NamespaceSetup { nsid: 1, content, flbas: 0, dps: 0, write_protected, reserved };
        Setup {
            namespaces: vec![namespace],
            controllers: vec![ControllerSetup { id: 0, attached: vec![1] }],
            version: 0x0002_0100,
            sanicap: 0x4000_000f,
            oacs: 0b1010,
            oncs: 1 << 5,
            fna: 0b0100,
            sanitize_time: Duration::from_secs(100),
            format_time: Duration::from_secs(100),
            sanitize_fails: false,
            memory_region: false,
            locked: false,
            keep_allocated_ignored: false,
            last: None,
            lie: None,
        }
    }
}

/// A subsystem; its clones are the same one.
#[derive(Clone)]
pub struct NvmeSim {
    subsystem: Arc<Mutex<Subsystem>>,
    clock: Arc<SimClock>,
}

struct Subsystem {
    setup: Setup,
    media: Vec<media::Media>,
    sanitize: sanitize::Machine,
    format: Option<admin::FormatRun>,
    requests: Vec<Request>,
    /// The next command that does not only read is not answered; it is taken, or not.
    next_lost: Option<bool>,
}

impl NvmeSim {
    /// A drive on a clock of its own.
    pub fn new(setup: Setup) -> NvmeSim {
        let clock = Arc::new(SimClock::default());
        let subsystem = Subsystem {
            media: setup.namespaces.iter().map(media::Media::new).collect(),
            sanitize: sanitize::Machine::new(&setup, clock.now()),
            setup,
            format: None,
            requests: Vec::new(),
            next_lost: None,
        };
        NvmeSim { subsystem: Arc::new(Mutex::new(subsystem)), clock }
    }

    /// Its clock; advance it, and the drive works.
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.clock
    }

    /// A way to it through this controller.
    pub fn path(&self, controller: u16) -> SimPath {
        SimPath { sim: self.clone(), controller }
    }

    /// The disk of a namespace, as it is formatted now.
    ///
    /// # Panics
    /// Where it does not exist.
    pub fn disk(&self, nsid: u32) -> NamespaceDisk {
        NamespaceDisk::new(self, nsid)
    }

    /// Every command that arrived, in order.
    #[cfg(any(test, feature = "internals"))]
    pub fn requests(&self) -> Vec<Request> {
        self.now().requests.clone()
    }

    /// What the media of a namespace hold, whatever reads give.
    ///
    /// # Panics
    /// Where it does not exist.
    #[cfg(any(test, feature = "internals"))]
    pub fn physical(&self, nsid: u32) -> Vec<u8> {
        self.now().media(nsid).expect("a namespace that exists").physical().to_vec()
    }

    /// The next command that does not only read has no answer; `taken` says whether the drive gets it.
    #[cfg(any(test, feature = "internals"))]
    pub fn lose_next_reply(&self, taken: bool) {
        self.now().next_lost = Some(taken);
    }

    /// The subsystem, as far as it has come by now.
    fn now(&self) -> MutexGuard<'_, Subsystem> {
        let mut subsystem = self.subsystem.lock().unwrap_or_else(PoisonError::into_inner);
        subsystem.work_until(self.clock.now());
        subsystem
    }
}

impl Subsystem {
    fn media(&mut self, nsid: u32) -> Option<&mut media::Media> {
        self.media.iter_mut().find(|media| media.nsid() == nsid)
    }
}

/// A way to a simulated subsystem.
pub struct SimPath {
    sim: NvmeSim,
    controller: u16,
}

impl PassThrough for SimPath {
    fn send(&mut self, request: &Request) -> Reply {
        let mut subsystem = self.sim.now();
        subsystem.requests.push(request.clone());
        let lost = if request.only_reads() { None } else { subsystem.next_lost.take() };
        if lost == Some(false) {
            return Reply::of(Outcome::TimedOut);
        }
        // As of a device of another kind.
        let Request::Nvme(command) = request else { return Reply::of(Outcome::Errno(libc::ENOTTY)) };
        let answer = match command.queue {
            Queue::Admin => subsystem.admin(self.controller, command, &self.sim.clock),
            Queue::Io => Some(subsystem.reservation_report(command)),
        };
        match (lost, answer) {
            (Some(_), _) | (_, None) => Reply::of(Outcome::TimedOut),
            (None, Some(answer)) => answer.reply(command),
        }
    }
}

/// A completion, and what the drive sends with it.
struct Answer {
    status: u16,
    result: u32,
    data: Vec<u8>,
}

impl Answer {
    fn status(status: u16) -> Answer {
        Answer { status, result: 0, data: Vec::new() }
    }

    fn data(data: Vec<u8>) -> Answer {
        Answer { status: 0, result: 0, data }
    }

    /// As a host gets it: the bytes that it has memory for, and none of a command that failed.
    fn reply(mut self, command: &NvmeCommand) -> Reply {
        let bytes = match command.data {
            Data::In(bytes) if self.status == 0 => bytes,
            _ => 0,
        };
        self.data.resize(bytes, 0);
        let (result, data) = (self.result.into(), self.data);
        Reply { result, data, ..Reply::of(Outcome::Status(self.status)) }
    }
}
