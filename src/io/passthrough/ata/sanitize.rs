//! The sanitize status (SANITIZE STATUS EXT), and what a drive offers of the feature set (word 59 of IDENTIFY DEVICE).

use serde::Serialize;

use super::Unknown;
use super::registers::Registers;
use crate::io::passthrough::Reply;

/// What the drive offers (word 59).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SanitizeCapabilities {
    /// BLOCK ERASE EXT.
    pub block_erase: bool,
    /// CRYPTO SCRAMBLE EXT.
    pub crypto_scramble: bool,
    /// OVERWRITE EXT.
    pub overwrite: bool,
}

impl SanitizeCapabilities {
    /// Of a word that is there; none of 0000h, which drives have that do not know the word.
    ///
    /// # Errors
    /// All ones.
    pub fn decode(word_59: u16) -> Result<SanitizeCapabilities, Unknown> {
        if word_59 == 0xffff {
            return Err(Unknown::Ones);
        }
        let supported = |bit: u16| word_59 & 1 << 12 != 0 && word_59 & 1 << bit != 0;
        Ok(SanitizeCapabilities {
            block_erase: supported(15),
            crypto_scramble: supported(13),
            overwrite: supported(14),
        })
    }

    /// Whether there is nothing to ask about.
    pub fn is_none(&self) -> bool {
        !(self.block_erase || self.crypto_scramble || self.overwrite)
    }
}

/// What the drive says of sanitizing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SanitizeStatus {
    /// Of the most recent operation.
    pub phase: Phase,
    /// How much is done, of 65536; `None` for FFFFh.
    pub progress: Option<u16>,
    /// No sanitize command is taken until the power is cycled (SD1).
    pub frozen: bool,
}

/// The most recent operation. COUNT 15 is kept over power cycles: it says nothing of when that was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// None is reported.
    None,
    /// It goes on (SD2).
    Running,
    /// It ended without error.
    Completed,
    /// It failed (SD3).
    Failed,
}

impl SanitizeStatus {
    /// From the reply to SANITIZE STATUS EXT.
    ///
    /// # Errors
    /// No registers, or not all that are needed, or an abort for another reason than a failure.
    pub fn of(reply: &Reply) -> Result<SanitizeStatus, Unknown> {
        SanitizeStatus::decode(&Registers::of(reply)?)
    }

    fn decode(registers: &Registers) -> Result<SanitizeStatus, Unknown> {
        const LAST_FAILED: u16 = 1;
        const NO_PROGRESS: u16 = 0xffff;
        if let Err(refused) = registers.succeeded() {
            // The reason of an abort is in bits 7:0.
            return match registers.lba_low() & 0xff {
                LAST_FAILED => Ok(SanitizeStatus { phase: Phase::Failed, progress: None, frozen: false }),
                _ => Err(refused),
            };
        }
        let (count, progress) = (registers.count()?, registers.lba_low());
        if (count, progress) == (0, 0) {
            return Err(Unknown::Zeroes);
        }
        let bit = |bit: u16| count & 1 << bit != 0;
        let phase = match (bit(15), bit(14)) {
            (false, false) => Phase::None,
            (false, true) => Phase::Running,
            (true, false) => Phase::Completed,
            (true, true) => return Err(Unknown::Invalid("a sanitize operation that runs and has ended")),
        };
        Ok(SanitizeStatus {
            phase,
            progress: Some(progress).filter(|it| *it != NO_PROGRESS),
            frozen: bit(13),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::Outcome;

    /// STATUS, ERROR, COUNT, and bits 15:0 of LBA.
    type Fields = (u8, u8, u16, u16);

    const LAYOUTS: [&str; 5] = ["descriptor", "fixed 6.1", "fixed 6.12", "absent", "zero"];
    const OK: Fields = (0x50, 0, 0x8000, 0xffff);
    const ABORT: Fields = (0x51, 0x04, 0x8000, 0x0002);
    const RUNNING: Fields = (0x50, 0, 0x4000, 0x1234);
    const FAILED: Fields = (0x51, 0x04, 0, 0x0001);

    /// As the kernels write them.
    fn reply(layout: &str, (status, error, count, lba): Fields) -> Reply {
        let failed = status & 1 != 0;
        let key = if failed { 0x0b } else { 0x01 };
        let ([high, low], [mid, first]) = (count.to_be_bytes(), lba.to_be_bytes());
        let flags = 0x80 | if high == 0 { 0 } else { 0x40 };
        let mut sense = vec![0; 32];
        let mut put = |at: usize, bytes: &[u8]| sense[at..at + bytes.len()].copy_from_slice(bytes);
        match layout {
            "descriptor" => {
                put(
                    0,
                    &[0x72, key, 0, if failed { 0 } else { 0x1d }, 0, 0, 0, 14, 9, 12, 1, error, high, low],
                );
                put(14, &[0, first, 0, mid, 0, 0, 0x40, status]);
            }
            "fixed 6.1" => {
                put(0, &[0x70, 0, key, 0, 0, 0, 0, 10, error, status, 0x40, low]);
                put(16, &[flags, first, mid, 0]);
            }
            "fixed 6.12" => {
                put(0, &[0xf0, 0, key, error, status, 0x40, low, 10, flags, first, mid, 0]);
            }
            "absent" => sense.clear(),
            _ => {}
        }
        // Without sense data there is nothing that would have made the kernel report a check condition.
        let outcome = if layout == "absent" { 0 } else { 2 };
        Reply { sense, ..Reply::of(Outcome::Status(outcome)) }
    }

    #[test]
    fn in_no_layout_an_abort_is_a_success_or_a_lost_bit_a_fact() {
        let known = |phase, progress| Ok(SanitizeStatus { phase, progress, frozen: false });
        let lost = Err(Unknown::Lost("bits 15:8 of COUNT"));
        let refused = Err(Unknown::Refused { status: 0x51, error: 0x04 });
        for layout in LAYOUTS {
            let found = [OK, ABORT, RUNNING, FAILED].map(|fields| SanitizeStatus::of(&reply(layout, fields)));
            let expected = match layout {
                "descriptor" => [
                    known(Phase::Completed, None),
                    refused,
                    known(Phase::Running, Some(0x1234)),
                    known(Phase::Failed, None),
                ],
                "fixed 6.1" | "fixed 6.12" => [lost, refused, lost, known(Phase::Failed, None)],
                "absent" => [Err(Unknown::Absent); 4],
                _ => [Err(Unknown::Zeroes); 4],
            };
            assert_eq!(found, expected, "{layout}");
        }
    }

    #[test]
    fn bits_are_states_where_they_agree() {
        let of = |count, lba| SanitizeStatus::of(&reply("descriptor", (0x50, 0, count, lba)));
        let none = SanitizeStatus { phase: Phase::None, progress: None, frozen: false };
        assert_eq!(of(0, 0xffff), Ok(none));
        assert_eq!(of(0x2000, 0xffff), Ok(SanitizeStatus { frozen: true, ..none }));
        assert_eq!(of(0x1000, 0xffff), Ok(none));
        assert!(matches!(of(0xc000, 0xffff), Err(Unknown::Invalid(_))));
        assert_eq!(of(0, 0), Err(Unknown::Zeroes));
        for reason in [0, 2, 3, 4] {
            let aborted = SanitizeStatus::of(&reply("descriptor", (0x51, 0x04, 0, reason)));
            assert_eq!(aborted, Err(Unknown::Refused { status: 0x51, error: 0x04 }), "{reason}");
        }
    }

    #[test]
    fn word_59_counts_where_the_feature_set_is_there() {
        let all = SanitizeCapabilities { block_erase: true, crypto_scramble: true, overwrite: true };
        assert_eq!(SanitizeCapabilities::decode(0xf000), Ok(all));
        assert!(SanitizeCapabilities::decode(0xe000).unwrap().is_none(), "bit 12 is not set");
        assert!(SanitizeCapabilities::decode(0).unwrap().is_none());
        assert_eq!(SanitizeCapabilities::decode(0xffff), Err(Unknown::Ones));
        let only = |word: u16| {
            let found = SanitizeCapabilities::decode(0x1000 | word).unwrap();
            (found.block_erase, found.crypto_scramble, found.overwrite)
        };
        assert_eq!(only(1 << 15), (true, false, false));
        assert_eq!(only(1 << 13), (false, true, false));
        assert_eq!(only(1 << 14), (false, false, true));
    }
}
