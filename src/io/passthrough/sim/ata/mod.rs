//! A simulated ATA drive behind SAT: a state machine over the bytes of ATA PASS-THROUGH (16).
//!
//! It reads commands and writes answers at offsets of its own and shares no code with [`crate::io::passthrough::ata`],
//! so that a field in a wrong place shows. Time passes on a clock that its owner moves, and its power can be cycled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::clock::{Clock, SimClock};
use crate::io::passthrough::{CommandTimeout, Data, Outcome, PassThrough, Reply, Request, ScsiCommand};

mod commands;
mod hidden;
mod identify;
mod sanitize;
mod security;
mod sense;
#[cfg(test)]
mod tests;

pub use sense::SenseLayout;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// What a drive is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All of its media, in whole sectors: what is hidden too.
    pub content: Vec<u8>,
    /// The sectors that the overlay (DCO) leaves, where the drive has one.
    pub overlay: Option<u64>,
    /// The sectors that the host protected area leaves, where the drive has the feature set.
    pub protected: Option<u64>,
    /// The same of the accessible max address configuration.
    pub accessible: Option<u64>,
    /// Word 59.
    pub sanitize: u16,
    /// Word 89, and with an enhanced erase word 90; without them the drive has no security.
    pub erase_words: Option<(u16, Option<u16>)>,
    /// Word 217.
    pub rotation: u16,
    /// Restricted sanitize operations are taken while the drive is locked.
    pub sanitizes_locked: bool,
    /// The machine's firmware freezes security, sanitizing and the overlay after each power-on.
    pub firmware_freezes: bool,
    /// How long a sanitize operation, or a security erase, takes.
    pub erase_time: Duration,
    /// Sanitize operations fail at their end.
    pub sanitize_fails: bool,
    /// How its registers come back.
    pub layout: SenseLayout,
}

impl Setup {
    /// A drive of flash that can do everything, and hides nothing.
    pub fn of(content: Vec<u8>) -> Setup {
        Setup {
            content,
            overlay: None,
            protected: None,
            accessible: None,
            sanitize: 0xf000,
            erase_words: Some((30, Some(1))),
            rotation: 1,
            sanitizes_locked: false,
            firmware_freezes: false,
            erase_time: Duration::from_secs(100),
            sanitize_fails: false,
            layout: SenseLayout::Descriptor,
        }
    }
}

/// A drive; its clones are the same one.
#[derive(Clone)]
pub struct AtaSim {
    drive: Arc<Mutex<Drive>>,
    clock: Arc<SimClock>,
}

struct Drive {
    setup: Setup,
    media: Vec<u8>,
    sanitize: sanitize::Machine,
    security: security::Machine,
    hidden: hidden::Machine,
    requests: Vec<Request>,
}

impl AtaSim {
    /// A drive that was powered on, on a clock of its own.
    pub fn new(setup: Setup) -> AtaSim {
        let mut drive = Drive {
            media: setup.content.clone(),
            sanitize: sanitize::Machine::default(),
            security: security::Machine::default(),
            hidden: hidden::Machine::new(&setup),
            setup,
            requests: Vec::new(),
        };
        drive.powered_on();
        AtaSim { drive: Arc::new(Mutex::new(drive)), clock: Arc::new(SimClock::default()) }
    }

    /// Its clock; advance it, and the drive works.
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.clock
    }

    /// Every command that arrived, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.now().requests.clone()
    }

    /// What the media hold, hidden or not.
    pub fn physical(&self) -> Vec<u8> {
        self.now().media.clone()
    }

    /// Its power goes, and comes back.
    pub fn cycle_power(&self) {
        self.now().powered_on();
    }

    /// The drive, as far as it has come by now.
    fn now(&self) -> MutexGuard<'_, Drive> {
        let mut drive = self.drive.lock().unwrap_or_else(PoisonError::into_inner);
        drive.sanitize_until(self.clock.now());
        drive
    }
}

impl Drive {
    fn powered_on(&mut self) {
        let frozen = self.setup.firmware_freezes;
        self.sanitize.powered_on(frozen);
        self.security.powered_on(frozen);
        self.hidden.powered_on(frozen);
    }
}

impl PassThrough for AtaSim {
    fn send(&mut self, request: &Request) -> Reply {
        let mut drive = self.now();
        drive.requests.push(request.clone());
        let Request::Scsi(command) = request else { return Reply::of(Outcome::Errno(libc::ENOTTY)) };
        let Some(taskfile) = commands::Taskfile::of(command) else {
            return sense::refused_on_the_way(drive.setup.layout);
        };
        let layout = drive.setup.layout;
        match drive.execute(&taskfile, &self.clock) {
            Some(ended) => sense::reply(layout, &taskfile, ended),
            None => Reply::of(Outcome::TimedOut),
        }
    }
}

/// An ATA command as another program sends it: FEATURE, COUNT, LBA, COMMAND, and the block that goes to the drive.
pub fn order(feature: u16, count: u16, lba: u64, command: u8, block: Option<[u8; 512]>) -> Request {
    let (protocol, flags) = if block.is_some() { (5, 0x06) } else { (3, 0x20) };
    let mut cdb = vec![0; 16];
    (cdb[0], cdb[1], cdb[2], cdb[13], cdb[14]) = (0x85, protocol << 1, flags, 0x40, command);
    if command == 0xb4 || command == 0x37 || command == 0x27 || command == 0x78 {
        cdb[1] |= 1;
    }
    (cdb[3], cdb[4]) = ((feature >> 8) as u8, feature as u8);
    (cdb[5], cdb[6]) = ((count >> 8) as u8, count as u8);
    for (at, shift) in [(8, 0), (10, 8), (12, 16), (7, 24), (9, 32), (11, 40)] {
        cdb[at] = (lba >> shift) as u8;
    }
    let data = block.map_or(Data::None, |block| Data::Out(block.to_vec()));
    let timeout = CommandTimeout::new(Duration::from_secs(3600));
    Request::Scsi(ScsiCommand { cdb, data, timeout })
}
