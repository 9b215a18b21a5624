//! The commands of a simulated drive, taken apart and handed on.

use std::time::Duration;

use super::Drive;
use crate::io::clock::{Clock, SimClock};
use crate::io::passthrough::{Data, ScsiCommand};

/// A command by its registers.
pub(super) struct Taskfile {
    protocol: u8,
    pub(super) extended: bool,
    /// CK_COND.
    pub(super) wants_registers: bool,
    pub(super) feature: u16,
    pub(super) count: u16,
    pub(super) lba: u64,
    command: u8,
    pub(super) data: Data,
    pub(super) timeout: Duration,
}

impl Taskfile {
    /// `None` for other SCSI commands than ATA PASS-THROUGH (16).
    pub(super) fn of(command: &ScsiCommand) -> Option<Taskfile> {
        let &[0x85, how, flags, f1, f0, c1, c0, l3, l0, l4, l1, l5, l2, _device, number, _control] =
            &command.cdb[..]
        else {
            return None;
        };
        Some(Taskfile {
            protocol: how >> 1 & 0xf,
            extended: how & 1 == 1,
            wants_registers: flags & 0x20 != 0,
            feature: u16::from_be_bytes([f1, f0]),
            count: u16::from_be_bytes([c1, c0]),
            lba: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]),
            command: number,
            data: command.data.clone(),
            timeout: Duration::from_millis(command.timeout.as_ms().into()),
        })
    }

    /// The block that came with it.
    pub(super) fn block(&self) -> Option<&[u8; 512]> {
        match &self.data {
            Data::Out(bytes) => bytes.first_chunk(),
            _ => None,
        }
    }
}

/// The registers after a command, and what the drive sends with it.
pub(super) struct Ended {
    pub(super) status: u8,
    pub(super) error: u8,
    pub(super) count: u16,
    pub(super) lba: u64,
    pub(super) data: Vec<u8>,
}

impl Ended {
    pub(super) fn done() -> Ended {
        Ended { status: 0x50, error: 0, count: 0, lba: 0, data: Vec::new() }
    }

    pub(super) fn data(page: [u8; 512]) -> Ended {
        Ended { data: page.to_vec(), ..Ended::done() }
    }

    pub(super) fn aborted() -> Ended {
        Ended { status: 0x51, error: 0x04, ..Ended::done() }
    }

    pub(super) fn done_if(done: bool) -> Ended {
        if done { Ended::done() } else { Ended::aborted() }
    }
}

impl Drive {
    /// `None` where the host gave up waiting.
    pub(super) fn execute(&mut self, taskfile: &Taskfile, clock: &SimClock) -> Option<Ended> {
        const NON_DATA: u8 = 3;
        const DATA_IN: u8 = 4;
        const DATA_OUT: u8 = 5;
        let (prepared, native_read) = (self.security.take_prepared(), self.hidden.take_native_read());
        let command = (taskfile.command, taskfile.protocol);
        let allowed_in_sanitize = matches!(command, (0xec, DATA_IN) | (0xb4, NON_DATA) | (0xf2, DATA_OUT))
            || (command == (0x2f, DATA_IN) && [0x10, 0x30, 0xe0].contains(&(taskfile.lba as u8)));
        if self.sanitize.is_processing() && !allowed_in_sanitize {
            return Some(Ended::aborted());
        }
        Some(match command {
            (0xec, DATA_IN) => Ended::data(self.identify()),
            (0x2f, DATA_IN) => self.log(taskfile),
            (0xb4, NON_DATA) => self.sanitize_device(taskfile, clock.now()),
            (0xf4, DATA_OUT) => return self.security_erase(prepared, taskfile, clock),
            (0xf1..=0xf6, _) => self.security_command(taskfile.command, taskfile),
            (0x27 | 0x37 | 0x78 | 0xb1, _) if self.security.is_locked() => Ended::aborted(),
            (0x27, NON_DATA) => self.read_native_max(),
            (0x37, NON_DATA) => self.set_max(native_read, taskfile),
            (0x78, NON_DATA) => self.accessible_max(taskfile),
            (0xb1, DATA_IN | NON_DATA) => self.overlay(taskfile.feature),
            _ => Ended::aborted(),
        })
    }

    /// READ LOG EXT: the directory, and page 06h of log 30h.
    fn log(&self, taskfile: &Taskfile) -> Ended {
        let mut page = [0; 512];
        match taskfile.lba {
            0x00 => {
                page[0] = 1;
                page[2 * 0x30] = 9;
            }
            0x0630 => {
                page[..3].copy_from_slice(&[1, 0, 6]);
                page[48] = u8::from(self.setup.sanitizes_locked) << 7;
                page[55] = 0x80;
            }
            _ => return Ended::aborted(),
        }
        Ended::data(page)
    }
}
