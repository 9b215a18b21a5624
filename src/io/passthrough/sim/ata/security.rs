//! The security state machine of a simulated drive (ACS, states SEC1 to SEC6).

use super::commands::{Ended, Taskfile};
use super::{Drive, SECTOR};
use crate::io::clock::SimClock;

type Password = [u8; 32];

const ATTEMPTS: u8 = 5;

pub(super) struct Machine {
    user: Option<Password>,
    master: Password,
    master_identifier: u16,
    /// The master password may erase, and nothing else.
    maximum: bool,
    locked: bool,
    frozen: bool,
    attempts: u8,
    prepared: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            user: None,
            master: *b"the maker's master password     ",
            master_identifier: 0xfffe,
            maximum: false,
            locked: false,
            frozen: false,
            attempts: ATTEMPTS,
            prepared: false,
        }
    }
}

impl Machine {
    pub(super) fn powered_on(&mut self, frozen: bool) {
        self.locked = self.user.is_some();
        // A firmware cannot freeze what is locked.
        self.frozen = frozen && !self.locked;
        (self.attempts, self.prepared) = (ATTEMPTS, false);
    }

    pub(super) fn take_prepared(&mut self) -> bool {
        std::mem::take(&mut self.prepared)
    }

    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.user.is_some()
    }

    pub(super) fn master_identifier(&self) -> u16 {
        self.master_identifier
    }

    /// Word 128 without what the drive has always.
    pub(super) fn status(&self) -> u16 {
        let bit = |bit: u16, is: bool| u16::from(is) << bit;
        bit(1, self.is_enabled())
            | bit(2, self.locked)
            | bit(3, self.frozen)
            | bit(4, self.attempts == 0)
            | bit(8, self.is_enabled() && self.maximum)
    }

    /// Whether the password of a block is right; a wrong one counts.
    fn accepts(&mut self, block: &[u8; 512], master_suffices: bool) -> bool {
        let right = match block[0] & 1 {
            0 => self.user.is_some_and(|user| block[2..34] == user),
            _ => master_suffices && block[2..34] == self.master,
        };
        if self.attempts == 0 {
            return false;
        }
        self.attempts = if right { ATTEMPTS } else { self.attempts - 1 };
        right
    }

    fn set_password(&mut self, block: &[u8; 512]) {
        let password = *block[2..].first_chunk().expect("a block of 512 bytes");
        if block[0] & 1 == 1 {
            self.master = password;
            self.master_identifier = u16::from_le_bytes([block[34], block[35]]);
        } else {
            (self.user, self.maximum) = (Some(password), block[1] & 1 == 1);
        }
    }

    fn take(&mut self, command: u8, block: Option<&[u8; 512]>) -> bool {
        let high = !self.maximum;
        match (command, block) {
            (0xf5, None) if !self.locked => self.frozen = true,
            _ if self.frozen => return false,
            (0xf3, None) => self.prepared = true,
            (0xf1, Some(block)) if !self.locked => self.set_password(block),
            (0xf2, Some(block)) if self.user.is_some() && self.accepts(block, high) => self.locked = false,
            (0xf6, Some(block)) if !self.locked && self.accepts(block, high) => self.user = None,
            _ => return false,
        }
        true
    }
}

impl Drive {
    pub(super) fn security_command(&mut self, command: u8, taskfile: &Taskfile) -> Ended {
        Ended::done_if(self.setup.erase_words.is_some() && self.security.take(command, taskfile.block()))
    }

    /// SECURITY ERASE UNIT, which ends with the erase; `None` where the host gave up waiting, and reset the drive.
    pub(super) fn security_erase(
        &mut self,
        prepared: bool,
        taskfile: &Taskfile,
        clock: &SimClock,
    ) -> Option<Ended> {
        const ENHANCED: u8 = 1 << 1;
        let (Some((_, enhanced_word)), Some(block)) = (self.setup.erase_words, taskfile.block()) else {
            return Some(Ended::aborted());
        };
        let enhanced = block[0] & ENHANCED != 0;
        if !prepared
            || self.security.frozen
            || (enhanced && enhanced_word.is_none())
            || !self.security.accepts(block, true)
        {
            return Some(Ended::aborted());
        }
        clock.advance(taskfile.timeout.min(self.setup.erase_time));
        if taskfile.timeout < self.setup.erase_time {
            self.security.locked = self.security.user.is_some();
            return None;
        }
        // The enhanced mode reaches what is hidden, with a pattern of the maker.
        let end = if enhanced { self.media.len() } else { (self.hidden.visible() * SECTOR) as usize };
        self.media[..end].fill(if enhanced { 0x55 } else { 0 });
        (self.security.user, self.security.locked) = (None, false);
        Some(Ended::done())
    }
}
