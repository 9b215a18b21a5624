//! A simulated SCSI drive: a state machine over the bytes of its commands, with one or several logical units over
//! one medium.
//!
//! It reads commands and writes answers at offsets of its own and shares no code with
//! [`crate::io::passthrough::scsi`], so that a field in a wrong place shows. Time passes on a clock that its owner
//! moves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::clock::{Clock, SimClock};
use crate::io::passthrough::{Data, Outcome, PassThrough, Reply, Request, ScsiCommand};

mod answers;
mod erase;
mod media;
#[cfg(test)]
mod tests;

/// Bytes of a logical block.
pub const BLOCK: usize = 512;

/// What a drive is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All of its medium, in whole blocks: each logical unit has an equal part of it.
    pub content: Vec<u8>,
    /// How many logical units; whatever erases, erases all of them.
    pub units: u8,
    /// The pages of vital product data.
    pub pages: Vec<u8>,
    /// MEDIUM ROTATION RATE.
    pub rotation: u16,
    /// WABEREQ and WACEREQ: from 2 on, a read fails until the block is written.
    pub needs_write: (u8, u8),
    /// Byte 12 of READ CAPACITY (16): the type of protection information.
    pub protection: u8,
    /// The service actions of SANITIZE that erase.
    pub sanitize_actions: Vec<u8>,
    /// It has FORMAT UNIT.
    pub formats: bool,
    /// It has REPORT SUPPORTED OPERATION CODES.
    pub reports_commands: bool,
    /// D_SENSE: the sense data of a failed command has the descriptor format.
    pub descriptor_sense: bool,
    /// How long a sanitize operation or a format takes.
    pub erase_time: Duration,
    /// Both fail at their end.
    pub erase_fails: bool,
}

impl Setup {
    /// A drive of flash that can do everything, with one logical unit.
    pub fn of(content: Vec<u8>) -> Setup {
        Setup {
            content,
            units: 1,
            pages: vec![0x00, 0x80, 0x83, 0xb1],
            rotation: 1,
            needs_write: (1, 1),
            protection: 0,
            sanitize_actions: vec![1, 2, 3],
            formats: true,
            reports_commands: true,
            descriptor_sense: false,
            erase_time: Duration::from_secs(100),
            erase_fails: false,
        }
    }
}

/// A drive; its clones are the same one.
#[derive(Clone)]
pub struct ScsiSim {
    drive: Arc<Mutex<Drive>>,
    clock: Arc<SimClock>,
}

struct Drive {
    setup: Setup,
    media: media::Media,
    erase: erase::Machine,
    /// Of each logical unit: a reset is still to be reported.
    was_reset: Vec<bool>,
    requests: Vec<Request>,
}

impl ScsiSim {
    /// A drive on a clock of its own.
    pub fn new(setup: Setup) -> ScsiSim {
        let drive = Drive {
            media: media::Media::new(setup.content.clone()),
            erase: erase::Machine::Idle,
            was_reset: vec![false; setup.units.into()],
            requests: Vec::new(),
            setup,
        };
        ScsiSim { drive: Arc::new(Mutex::new(drive)), clock: Arc::new(SimClock::default()) }
    }

    /// Its clock; advance it, and the drive works.
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.clock
    }

    /// A way to one of its logical units.
    pub fn path(&self, unit: u8) -> UnitPath {
        UnitPath { sim: self.clone(), unit }
    }

    /// Every command that arrived, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.now().requests.clone()
    }

    /// What the medium holds, whatever reads give.
    pub fn physical(&self) -> Vec<u8> {
        self.now().media.physical().to_vec()
    }

    /// Each logical unit reports a reset, once.
    pub fn reset(&self) {
        self.now().was_reset.fill(true);
    }

    /// The drive, as far as it has come by now.
    fn now(&self) -> MutexGuard<'_, Drive> {
        let mut drive = self.drive.lock().unwrap_or_else(PoisonError::into_inner);
        drive.erase_until(self.clock.now());
        drive
    }
}

/// A way to a logical unit of a simulated drive.
pub struct UnitPath {
    sim: ScsiSim,
    unit: u8,
}

impl PassThrough for UnitPath {
    fn send(&mut self, request: &Request) -> Reply {
        let mut drive = self.sim.now();
        drive.requests.push(request.clone());
        // As of a device of another kind.
        let Request::Scsi(command) = request else { return Reply::of(Outcome::Errno(libc::ENOTTY)) };
        let descriptors = drive.setup.descriptor_sense;
        match drive.execute(self.unit, command, &self.sim.clock) {
            Ok(mut data) => {
                let bytes = if let Data::In(bytes) = command.data { bytes } else { 0 };
                data.truncate(bytes);
                Reply { data, ..Reply::of(Outcome::Status(0x00)) }
            }
            Err(sense) => Reply { sense: sense.bytes(descriptors), ..Reply::of(Outcome::Status(0x02)) },
        }
    }
}

/// Sense key, additional sense code and qualifier, and a progress of 65536.
#[derive(Clone, Copy)]
struct SenseData {
    codes: [u8; 3],
    progress: Option<u16>,
}

impl SenseData {
    const NOTHING: SenseData = SenseData::of([0, 0, 0]);
    const NO_SUCH_COMMAND: SenseData = SenseData::of([5, 0x20, 0x00]);
    const INVALID_FIELD: SenseData = SenseData::of([5, 0x24, 0x00]);
    const INVALID_PARAMETER: SenseData = SenseData::of([5, 0x26, 0x00]);
    const RESET: SenseData = SenseData::of([6, 0x29, 0x00]);

    const fn of(codes: [u8; 3]) -> SenseData {
        SenseData { codes, progress: None }
    }

    fn bytes(self, descriptors: bool) -> Vec<u8> {
        let [key, code, qualifier] = self.codes;
        let progress = self.progress.unwrap_or_default().to_be_bytes();
        let valid = if self.progress.is_some() { 0x80 } else { 0x00 };
        if !descriptors {
            let mut bytes = vec![0; 18];
            (bytes[0], bytes[2], bytes[7]) = (0x70, key, 10);
            bytes[12..14].copy_from_slice(&[code, qualifier]);
            bytes[15..].copy_from_slice(&[valid, progress[0], progress[1]]);
            return bytes;
        }
        let mut bytes = vec![0x72, key, code, qualifier, 0, 0, 0, 0];
        if self.progress.is_some() {
            bytes[7] = 8;
            bytes.extend([0x02, 0x06, 0, 0, valid, progress[0], progress[1], 0]);
        }
        bytes
    }
}

impl Drive {
    fn execute(&mut self, unit: u8, command: &ScsiCommand, clock: &SimClock) -> Result<Vec<u8>, SenseData> {
        let cdb = &command.cdb[..];
        let (opcode, action) = (cdb[0], cdb[1] & 0x1f);
        let reset = &mut self.was_reset[usize::from(unit)];
        // Whatever happens, these are answered.
        match opcode {
            0x12 => return self.inquiry(unit, cdb),
            0xa0 => return Ok(self.luns()),
            0x03 => {
                let sense = match std::mem::take(reset) {
                    true => SenseData::RESET,
                    false => self.erase.prevents(clock.now()).err().unwrap_or(SenseData::NOTHING),
                };
                return Ok(sense.bytes(cdb[1] & 1 != 0));
            }
            _ => {}
        }
        if std::mem::take(reset) {
            return Err(SenseData::RESET);
        }
        let data = match &command.data {
            Data::Out(data) => &data[..],
            Data::None | Data::In(_) => &[],
        };
        match (opcode, action) {
            (0x48, _) if !self.setup.sanitize_actions.is_empty() => {
                self.sanitize(cdb, data, clock.now()).map(|()| Vec::new())
            }
            (0xa3, 0x0c) if self.setup.reports_commands && !self.erase.runs() => self.support(cdb),
            (0x04, _) if self.setup.formats => self.format(cdb, data, clock.now()).map(|()| Vec::new()),
            (0x00, _) => self.erase.prevents(clock.now()).map(|()| Vec::new()),
            (0x9e, 0x10) => self.erase.prevents(clock.now()).map(|()| self.capacity()),
            (0x88, _) => self.erase.prevents(clock.now()).and_then(|()| self.read(unit, cdb)),
            (0x8a, _) => self.erase.prevents(clock.now()).and_then(|()| self.write(unit, cdb, data)),
            _ => self.erase.prevents(clock.now()).and(Err(SenseData::NO_SUCH_COMMAND)),
        }
    }
}
