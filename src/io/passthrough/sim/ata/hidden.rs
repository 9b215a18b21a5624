//! What a simulated drive hides: its overlay (DCO), its host protected area (HPA), and the successor of both (AMA).

use super::commands::{Ended, Taskfile};
use super::{Drive, SECTOR, Setup};

pub(super) struct Machine {
    /// Without any of these.
    all: u64,
    /// With the overlay.
    native: u64,
    /// What the drive shows after a power-on, and shows now.
    kept: u64,
    visible: u64,
    /// One change that is kept is possible in a power cycle.
    changed: bool,
    overlay_frozen: bool,
    accessible_frozen: bool,
    /// The command before this one was READ NATIVE MAX ADDRESS EXT.
    native_read: bool,
}

impl Machine {
    pub(super) fn new(setup: &Setup) -> Machine {
        let all = setup.content.len() as u64 / SECTOR;
        let native = setup.overlay.unwrap_or(all);
        let kept = setup.protected.or(setup.accessible).unwrap_or(native);
        Machine {
            all,
            native,
            kept,
            visible: kept,
            changed: false,
            overlay_frozen: false,
            accessible_frozen: false,
            native_read: false,
        }
    }

    pub(super) fn powered_on(&mut self, frozen: bool) {
        (self.visible, self.changed, self.native_read) = (self.kept, false, false);
        (self.overlay_frozen, self.accessible_frozen) = (frozen, false);
    }

    pub(super) fn take_native_read(&mut self) -> bool {
        std::mem::take(&mut self.native_read)
    }

    pub(super) fn visible(&self) -> u64 {
        self.visible
    }

    /// Shows this address and those before it, from now on or until the next power-on.
    fn set_last(&mut self, last: u64, keeps: bool) -> bool {
        let possible = last < self.native && !(keeps && self.changed);
        if possible {
            self.visible = last + 1;
            if keeps {
                (self.kept, self.changed) = (self.visible, true);
            }
        }
        possible
    }
}

impl Drive {
    /// READ NATIVE MAX ADDRESS EXT.
    pub(super) fn read_native_max(&mut self) -> Ended {
        if self.setup.protected.is_none() {
            return Ended::aborted();
        }
        self.hidden.native_read = true;
        Ended { lba: self.hidden.native - 1, ..Ended::done() }
    }

    /// SET MAX ADDRESS EXT.
    pub(super) fn set_max(&mut self, native_read: bool, taskfile: &Taskfile) -> Ended {
        Ended::done_if(native_read && self.hidden.set_last(taskfile.lba, taskfile.count & 1 != 0))
    }

    /// ACCESSIBLE MAX ADDRESS CONFIGURATION.
    pub(super) fn accessible_max(&mut self, taskfile: &Taskfile) -> Ended {
        let machine = &mut self.hidden;
        match taskfile.feature {
            _ if self.setup.accessible.is_none() => Ended::aborted(),
            0x0000 => Ended { lba: machine.native - 1, ..Ended::done() },
            0x0001 => Ended::done_if(!machine.accessible_frozen && machine.set_last(taskfile.lba, true)),
            0x0002 => {
                machine.accessible_frozen = true;
                Ended::done()
            }
            _ => Ended::aborted(),
        }
    }

    /// DEVICE CONFIGURATION: RESTORE, FREEZE LOCK and IDENTIFY.
    pub(super) fn overlay(&mut self, feature: u16) -> Ended {
        let machine = &mut self.hidden;
        if self.setup.overlay.is_none() || machine.overlay_frozen {
            return Ended::aborted();
        }
        match feature {
            0x00c0 if machine.kept == machine.native && machine.visible == machine.native => {
                (machine.native, machine.kept, machine.visible) = (machine.all, machine.all, machine.all);
                Ended::done()
            }
            0x00c1 => {
                machine.overlay_frozen = true;
                Ended::done()
            }
            0x00c2 => {
                let mut page = [0; 512];
                page[..2].copy_from_slice(&[2, 0]);
                page[6..14].copy_from_slice(&(machine.all - 1).to_le_bytes());
                page[510] = 0xa5;
                page[511] = page.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
                Ended::data(page)
            }
            _ => Ended::aborted(),
        }
    }
}
