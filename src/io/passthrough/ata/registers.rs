//! The registers of an ATA command, as they come back in sense data.
//!
//! Three layouts: the descriptor 09h of SAT; the fixed format of Linux before 6.7, which has them where SCSI has
//! other fields; and the fixed format of SAT, as Linux has it since (`ata_gen_passthru_sense` of `libata-scsi.c`,
//! read in 6.1 and 6.12). Fixed formats have no place for the upper bytes of COUNT and LBA.

use super::Unknown;
use crate::io::passthrough::{Outcome, Reply};

/// Sense keys of a command that was carried out.
const NO_SENSE: u8 = 0;
const RECOVERED: u8 = 1;

/// The registers after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// STATUS.
    pub status: u8,
    /// ERROR.
    pub error: u8,
    /// Bits 7:0 of COUNT, and where they are known bits 15:8.
    count: (u8, Option<u8>),
    /// Bits 23:0 of LBA, and where they are known bits 47:24.
    lba: (u32, Option<u32>),
}

impl Registers {
    /// Those of a reply, of a command that succeeded or not.
    ///
    /// # Errors
    /// It has none: [`Unknown::Absent`] where the command was carried out.
    pub fn of(reply: &Reply) -> Result<Registers, Unknown> {
        const GOOD: u16 = 0;
        const CHECK_CONDITION: u16 = 2;
        match reply.outcome {
            Outcome::Status(GOOD) if reply.sense.is_empty() => Err(Unknown::Absent),
            Outcome::Status(GOOD | CHECK_CONDITION) => Registers::decode(&reply.sense),
            Outcome::Status(status) => Err(Unknown::Status(status)),
            Outcome::Errno(errno) => Err(Unknown::Errno(errno)),
            Outcome::TimedOut => Err(Unknown::TimedOut),
        }
    }

    /// From sense data about the command that they came with.
    ///
    /// # Errors
    /// No registers, or such as no drive has.
    pub fn decode(sense: &[u8]) -> Result<Registers, Unknown> {
        const FIXED: u8 = 0x70;
        /// The field INFORMATION is valid, in which SAT has the registers.
        const FIXED_VALID: u8 = 0xf0;
        const DESCRIPTORS: u8 = 0x72;
        let code =
            sense.first().copied().ok_or(Unknown::Invalid("a command that failed without sense data"))?;
        let (key, additional) = match code {
            DESCRIPTORS => (bytes::<1>(sense, 1)?[0], bytes::<2>(sense, 2)?),
            FIXED | FIXED_VALID => (bytes::<1>(sense, 2)?[0], bytes::<2>(sense, 12)?),
            0x00 if sense.iter().all(|byte| *byte == 0x00) => return Err(Unknown::Zeroes),
            0xff if sense.iter().all(|byte| *byte == 0xff) => return Err(Unknown::Ones),
            _ => return Err(Unknown::Invalid("sense data of another command, or in a format of its own")),
        };
        let key = key & 0xf;
        let carried_out = [NO_SENSE, RECOVERED].contains(&key);
        let found = match code {
            DESCRIPTORS => of_descriptors(sense),
            FIXED_VALID => of_fixed_format(sense),
            _ => of_linux_6_1(sense),
        };
        let found = found.and_then(|registers| registers.checked(carried_out));
        match found {
            Err(Unknown::Absent | Unknown::Zeroes) if !carried_out => {
                Err(Unknown::Sense(key, additional[0], additional[1]))
            }
            found => found,
        }
    }

    fn checked(self, carried_out: bool) -> Result<Registers, Unknown> {
        const BUSY: u8 = 0x80;
        const READY: u8 = 0x40;
        const DATA_REQUEST: u8 = 0x08;
        const AFTER_RESET: u8 = 0x01;
        match self.status {
            0x00 => Err(Unknown::Zeroes),
            0xff => Err(Unknown::Ones),
            status if status & (BUSY | READY | DATA_REQUEST) != READY => {
                Err(Unknown::Invalid("STATUS is not that of a command that has ended"))
            }
            _ if self.has_failed() => Ok(self),
            _ if !carried_out => {
                Err(Unknown::Invalid("the registers say success, and the sense key does not"))
            }
            _ if self.error == AFTER_RESET => Err(Unknown::Invalid("the drive was reset during the command")),
            _ => Ok(self),
        }
    }

    /// Whether the drive aborted or failed the command.
    pub fn has_failed(&self) -> bool {
        const ERROR: u8 = 0x01;
        const DEVICE_FAULT: u8 = 0x20;
        self.status & (ERROR | DEVICE_FAULT) != 0
    }

    /// These registers, of a command that succeeded.
    ///
    /// # Errors
    /// The drive refused it.
    pub fn succeeded(&self) -> Result<&Registers, Unknown> {
        if self.has_failed() {
            return Err(Unknown::Refused { status: self.status, error: self.error });
        }
        Ok(self)
    }

    /// COUNT.
    ///
    /// # Errors
    /// The layout has lost bits 15:8.
    pub fn count(&self) -> Result<u16, Unknown> {
        let (low, high) = self.count;
        high.map(|high| u16::from_be_bytes([high, low])).ok_or(Unknown::Lost("bits 15:8 of COUNT"))
    }

    /// LBA.
    ///
    /// # Errors
    /// The layout has lost bits 47:24.
    pub fn lba(&self) -> Result<u64, Unknown> {
        let (low, high) = self.lba;
        high.map(|high| u64::from(high) << 24 | u64::from(low)).ok_or(Unknown::Lost("bits 47:24 of LBA"))
    }

    /// Bits 15:0 of LBA, which no layout loses.
    pub fn lba_low(&self) -> u16 {
        self.lba.0 as u16
    }
}

fn bytes<const N: usize>(sense: &[u8], at: usize) -> Result<[u8; N], Unknown> {
    sense.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Unknown::Short)
}

/// The three bytes of an LBA, the lowest first.
fn lba([low, mid, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, mid, high, 0])
}

/// The ATA Status Return descriptor, among others.
fn of_descriptors(sense: &[u8]) -> Result<Registers, Unknown> {
    const ATA_STATUS_RETURN: u8 = 0x09;
    const LENGTH: u8 = 0x0c;
    let mut rest = sense.get(8..).ok_or(Unknown::Short)?;
    let listed = usize::from(sense[7]);
    if rest.len() < listed {
        return Err(Unknown::Short);
    }
    rest = &rest[..listed];
    while let [kind, length, ..] = *rest {
        let end = 2 + usize::from(length);
        match (kind, rest.get(..end)) {
            (_, None) => return Err(Unknown::Short),
            (ATA_STATUS_RETURN, Some(descriptor)) if length == LENGTH => {
                let at = |index: usize| descriptor[index];
                // Without EXTEND the upper bytes are not those of the command.
                let extended = at(2) & 1 != 0;
                let upper = lba([at(6), at(8), at(10)]);
                return Ok(Registers {
                    error: at(3),
                    status: at(13),
                    count: (at(5), extended.then_some(at(4))),
                    lba: (lba([at(7), at(9), at(11)]), extended.then_some(upper)),
                });
            }
            _ => rest = &rest[end..],
        }
    }
    Err(Unknown::Absent)
}

/// What of the upper bytes can be known from the flags of a fixed format: that they are 0.
fn zero_unless(flags: u8, not_zero: u8) -> bool {
    const EXTEND: u8 = 0x80;
    flags & (EXTEND | not_zero) == EXTEND
}

fn fixed([error, status, _device, count]: [u8; 4], [flags, low, mid, high]: [u8; 4]) -> Registers {
    const COUNT_NOT_ZERO: u8 = 0x40;
    const LBA_NOT_ZERO: u8 = 0x20;
    Registers {
        error,
        status,
        count: (count, zero_unless(flags, COUNT_NOT_ZERO).then_some(0)),
        lba: (lba([low, mid, high]), zero_unless(flags, LBA_NOT_ZERO).then_some(0)),
    }
}

/// INFORMATION and COMMAND-SPECIFIC INFORMATION.
fn of_fixed_format(sense: &[u8]) -> Result<Registers, Unknown> {
    Ok(fixed(bytes(sense, 3)?, bytes(sense, 8)?))
}

/// Where INFORMATION is empty: a way here that has its registers there, and does not call them valid, is another one.
fn of_linux_6_1(sense: &[u8]) -> Result<Registers, Unknown> {
    if bytes::<4>(sense, 3)? != [0; 4] {
        return Err(Unknown::Invalid("registers in a place that is not called valid"));
    }
    Ok(fixed(bytes(sense, 8)?, bytes(sense, 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    fn refused(status: u8, error: u8) -> Result<Registers, Unknown> {
        Err(Unknown::Refused { status, error })
    }

    fn decode(sense: &[u8]) -> Result<Registers, Unknown> {
        Registers::decode(sense).and_then(|registers| registers.succeeded().copied())
    }

    /// What people have seen: of a DCO that is not there, by a kernel before 6.7, and of a host protected area.
    #[test]
    fn aborts_that_were_seen_are_aborts() {
        let fixed = hex("70 00 05 00 00 00 00 0a 04 53 40 01 21 04 00 00 00 00 00 00");
        assert_eq!(decode(&fixed), refused(0x53, 0x04));
        let descriptor = hex("72 0b 00 00 00 00 00 0e 09 0c 01 04 00 00 00 00 00 00 00 00 40 51");
        assert_eq!(decode(&descriptor), refused(0x51, 0x04));
    }

    #[test]
    fn each_layout_has_its_registers_and_loses_what_it_has_no_place_for() {
        let descriptor = hex("72 01 00 1d 00 00 00 0e 09 0c 01 00 80 0b 04 01 05 02 06 03 40 50");
        let found = decode(&descriptor).unwrap();
        assert_eq!((found.count(), found.lba()), (Ok(0x800b), Ok(0x0605_0403_0201)));
        let lost = (Err(Unknown::Lost("bits 15:8 of COUNT")), Err(Unknown::Lost("bits 47:24 of LBA")));
        let fixed_6_1 = "70 00 01 00 00 00 00 0a 00 50 40 0b 00 1d 00 00 e0 01 02 03";
        let fixed_6_12 = "f0 00 01 00 50 40 0b 0a e0 01 02 03 00 1d 00 00 00 00";
        for fixed in [fixed_6_1, fixed_6_12].map(hex) {
            let found = decode(&fixed).unwrap();
            assert_eq!((found.count(), found.lba()), lost);
            assert_eq!((found.count.0, found.lba.0, found.lba_low()), (0x0b, 0x03_0201, 0x0201));
        }
        // EXTEND, and nothing in the upper bytes; without it they are not those of the command.
        for (flags, known) in [("80", true), ("c0", false), ("00", false)] {
            let fixed = decode(&hex(&fixed_6_12.replacen("e0", flags, 1))).unwrap();
            assert_eq!(fixed.count(), if known { Ok(0x000b) } else { lost.0 }, "{flags}");
        }
        for (flags, known) in [("80", true), ("a0", false), ("00", false)] {
            let fixed = decode(&hex(&fixed_6_1.replacen("e0", flags, 1))).unwrap();
            assert_eq!(fixed.lba(), if known { Ok(0x03_0201) } else { lost.1 }, "{flags}");
        }
        let mut old_command = descriptor;
        old_command[10] = 0;
        let found = decode(&old_command).unwrap();
        assert_eq!((found.count(), found.lba()), lost);
    }

    #[test]
    fn what_is_not_the_answer_of_a_drive_is_not_known() {
        let unknown = |text: &str| Registers::decode(&hex(text)).unwrap_err();
        // Refused on the way, in both formats; a command that was carried out, and says no more.
        assert_eq!(
            unknown("70 00 05 00 00 00 00 0a 00 00 00 00 20 00 00 00 00 00 00 00"),
            Unknown::Sense(5, 0x20, 0)
        );
        assert_eq!(unknown("72 05 20 00 00 00 00 00"), Unknown::Sense(5, 0x20, 0));
        assert_eq!(unknown("72 01 00 1d 00 00 00 00"), Unknown::Absent);
        assert_eq!(
            unknown("72 01 00 1d 00 00 00 0e 09 0c 01 00 00 00 00 00 00 00 00 00 00 00"),
            Unknown::Zeroes
        );
        assert_eq!(unknown("70 00 00 00 00 00 00 0a 00 00 00 00 00 00 00 00 00 00 00 00"), Unknown::Zeroes);
        assert_eq!(unknown(&"00".repeat(32)), Unknown::Zeroes);
        assert_eq!(unknown(&"ff".repeat(32)), Unknown::Ones);
        assert_eq!(unknown("72 01 00 1d 00 00 00 0e 09 0c 01"), Unknown::Short);
        assert_eq!(unknown("70 00 05 00 00 00 00 0a 04 51 40 00 00 00"), Unknown::Short);
        assert!(matches!(unknown(""), Unknown::Invalid(_)));
        // A deferred error is of another command.
        assert!(matches!(unknown("73 0b 00 00 00 00 00 00"), Unknown::Invalid(_)));
        // Success in the registers and a sense key that says otherwise; a reset meanwhile; BSY; DRQ.
        let registers = |key: &str, error: &str, status: &str| {
            unknown(&format!(
                "72 {key} 00 00 00 00 00 0e 09 0c 01 {error} 00 00 00 00 00 00 00 00 40 {status}"
            ))
        };
        for (key, error, status) in
            [("0b", "00", "50"), ("01", "01", "50"), ("01", "00", "d0"), ("01", "00", "58")]
        {
            assert!(matches!(registers(key, error, status), Unknown::Invalid(_)), "{key} {error} {status}");
        }
        // Neither layout of a fixed format.
        assert!(matches!(
            unknown("70 00 0b 04 51 40 00 0a e0 01 02 03 00 00 00 00 00 00 00 00"),
            Unknown::Invalid(_)
        ));
    }

    #[test]
    fn a_descriptor_is_found_behind_others() {
        let sense = hex(
            "72 0b 00 00 00 00 00 1a 00 0a 80 00 00 00 00 00 00 00 00 00 09 0c 01 04 00 00 00 00 00 00 00 00 40 51",
        );
        assert_eq!(decode(&sense), refused(0x51, 0x04));
        assert_eq!(Registers::decode(&sense[..33]), Err(Unknown::Short));
    }

    #[test]
    fn a_reply_without_registers_says_what_it_has() {
        let of = |outcome| Registers::of(&Reply::of(outcome)).unwrap_err();
        assert_eq!(of(Outcome::Status(0)), Unknown::Absent);
        assert!(matches!(of(Outcome::Status(2)), Unknown::Invalid(_)));
        assert_eq!(of(Outcome::Status(8)), Unknown::Status(8));
        assert_eq!(of(Outcome::Errno(libc::ENOTTY)), Unknown::Errno(libc::ENOTTY));
        assert_eq!(of(Outcome::TimedOut), Unknown::TimedOut);
    }
}
