//! SANITIZE and FORMAT UNIT of a simulated SCSI drive.

use std::time::Instant;

use super::{Drive, SenseData};

/// What the drive does, for all of its logical units.
pub(super) enum Machine {
    Idle,
    Runs {
        what: Erase,
        /// AUSE is 0.
        restricted: bool,
        begun: Instant,
        ends: Instant,
    },
    /// A sanitize leads out of it, of a restricted one only a restricted one.
    SanitizeFailed {
        restricted: bool,
    },
    FormatFailed,
}

pub(super) enum Erase {
    Block,
    Crypto,
    Overwrite(Vec<u8>),
    Format,
}

const EXIT_FAILURE: u8 = 0x1f;

impl Machine {
    pub(super) fn runs(&self) -> bool {
        matches!(self, Machine::Runs { .. })
    }

    /// Why a command that needs the medium is not carried out.
    pub(super) fn prevents(&self, now: Instant) -> Result<(), SenseData> {
        match self {
            Machine::Idle => Ok(()),
            Machine::SanitizeFailed { .. } => Err(SenseData::of([3, 0x31, 0x03])),
            Machine::FormatFailed => Err(SenseData::of([3, 0x31, 0x01])),
            Machine::Runs { what, begun, ends, .. } => {
                let whole = (*ends - *begun).as_nanos().max(1);
                let done = ((now - *begun).as_nanos() * 0x1_0000 / whole) as u16;
                let qualifier = if matches!(what, Erase::Format) { 0x04 } else { 0x1b };
                Err(SenseData { codes: [2, 0x04, qualifier], progress: Some(done) })
            }
        }
    }
}

impl Drive {
    /// SANITIZE, which ends when its operation has begun.
    pub(super) fn sanitize(&mut self, cdb: &[u8], list: &[u8], now: Instant) -> Result<(), SenseData> {
        let (immediate, restricted) = (cdb[1] & 0x80 != 0, cdb[1] & 0x20 == 0);
        let action = cdb[1] & 0x1f;
        let announced = usize::from(u16::from_be_bytes([cdb[7], cdb[8]]));
        let offered = action == EXIT_FAILURE || self.setup.sanitize_actions.contains(&action);
        if !immediate || !offered || announced != list.len() || (action != 0x01 && !list.is_empty()) {
            return Err(SenseData::INVALID_FIELD);
        }
        let what = match action {
            0x01 => Some(Erase::Overwrite(pattern(list)?)),
            0x02 => Some(Erase::Block),
            0x03 => Some(Erase::Crypto),
            _ => None,
        };
        match (&self.erase, &what) {
            (Machine::Runs { .. }, _) => return self.erase.prevents(now),
            (Machine::SanitizeFailed { restricted: true }, Some(_)) if !restricted => {
                return Err(SenseData::INVALID_FIELD);
            }
            (Machine::SanitizeFailed { restricted: true }, None) => return Err(SenseData::INVALID_FIELD),
            _ => {}
        }
        self.erase = match what {
            Some(what) => Machine::Runs { what, restricted, begun: now, ends: now + self.setup.erase_time },
            // Without an erase: what was there before is there.
            None => Machine::Idle,
        };
        Ok(())
    }

    /// FORMAT UNIT with a list of 4 bytes that has IMMED.
    pub(super) fn format(&mut self, cdb: &[u8], list: &[u8], now: Instant) -> Result<(), SenseData> {
        match self.erase {
            Machine::Idle | Machine::FormatFailed => {}
            Machine::Runs { .. } | Machine::SanitizeFailed { .. } => return self.erase.prevents(now),
        }
        if cdb[1] & 0x10 == 0 {
            return Err(SenseData::INVALID_FIELD);
        }
        if list.len() != 4 || list[1] & 0x02 == 0 {
            return Err(SenseData::INVALID_PARAMETER);
        }
        let ends = now + self.setup.erase_time;
        self.erase = Machine::Runs { what: Erase::Format, restricted: false, begun: now, ends };
        Ok(())
    }

    /// What has ended by this time.
    pub(super) fn erase_until(&mut self, now: Instant) {
        let Machine::Runs { what, restricted, ends, .. } = &self.erase else { return };
        if now < *ends {
            return;
        }
        let (after_block, after_crypto) = self.setup.needs_write;
        self.erase = match what {
            Erase::Format if self.setup.erase_fails => Machine::FormatFailed,
            _ if self.setup.erase_fails => Machine::SanitizeFailed { restricted: *restricted },
            what => {
                match what {
                    Erase::Block => self.media.zero(after_block),
                    Erase::Crypto => self.media.scramble(after_crypto),
                    Erase::Overwrite(pattern) => self.media.overwrite(pattern),
                    Erase::Format => self.media.zero(0),
                }
                Machine::Idle
            }
        };
    }
}

/// What the list of an overwrite leaves: with an even number of passes and INVERT, the first one is inverted.
fn pattern(list: &[u8]) -> Result<Vec<u8>, SenseData> {
    let [control, _, high, low, pattern @ ..] = list else { return Err(SenseData::INVALID_PARAMETER) };
    let announced = usize::from(u16::from_be_bytes([*high, *low]));
    if control & 0x1f == 0 || pattern.is_empty() || pattern.len() != announced {
        return Err(SenseData::INVALID_PARAMETER);
    }
    Ok(pattern.to_vec())
}
