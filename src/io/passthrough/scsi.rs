//! SCSI: commands to bytes, and answers to facts.
//!
//! All functions here are pure and total. The layouts are those of the SCSI Primary Commands (SPC-4) and SCSI
//! Block Commands (SBC-3), as sg3_utils (`src/sg_vpd.c`, `src/sg_requests.c` and others) and Linux
//! (`include/scsi/scsi_proto.h`) have them. An answer that is absent, short, all 00 or all FF is [`Unknown`] and
//! never a default.

use std::fmt;

pub mod answers;
pub mod commands;
pub mod condition;
pub mod offers;
pub mod pages;
pub mod probe;
pub mod sense;

use sense::Sense;

use super::{Outcome, Reply};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const FORMAT_UNIT: u8 = 0x04;
const INQUIRY: u8 = 0x12;
const SANITIZE: u8 = 0x48;
/// SERVICE ACTION IN (16).
const SERVICE_ACTION_IN: u8 = 0x9e;
const READ_CAPACITY: u8 = 0x10;
const REPORT_LUNS: u8 = 0xa0;
const MAINTENANCE_IN: u8 = 0xa3;
const REPORT_SUPPORTED_OPERATION_CODES: u8 = 0x0c;

/// An allow-list, of whole commands with the control byte 0: Test Unit Ready, Request Sense, Inquiry, Read
/// Capacity (16), Report LUNs, Report Supported Operation Codes, and what of ATA only reads.
pub(super) fn only_reads(cdb: &[u8]) -> bool {
    match *cdb {
        [TEST_UNIT_READY, 0, 0, 0, 0, 0] => true,
        [REQUEST_SENSE, 0 | 1, 0, 0, _, 0] => true,
        [INQUIRY, 0 | 1, _, _, _, 0] => true,
        [SERVICE_ACTION_IN, READ_CAPACITY, .., 0] => cdb.len() == 16,
        [REPORT_LUNS, .., 0] => cdb.len() == 12,
        [MAINTENANCE_IN, REPORT_SUPPORTED_OPERATION_CODES, .., 0] => cdb.len() == 12,
        _ => super::ata::only_reads(cdb),
    }
}

// Status bytes.
const GOOD: u16 = 0x00;
const CHECK_CONDITION: u16 = 0x02;

/// Why nothing is known from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// There was no data.
    Absent,
    /// Fewer bytes than the structure has, or says that it has.
    Short,
    /// All bytes are 00, as of a command that answered nothing.
    Zeroes,
    /// All bytes are FF, as of a device that is gone.
    Ones,
    /// A value that the standard does not have, or the answer to another question; this says which.
    Invalid(&'static str),
    /// The drive did not carry the command out, for this reason.
    Refused(Sense),
    /// The drive ended the command with this status, and without a reason that can be read.
    Status(u16),
    /// The kernel did not send the command, with this errno.
    Errno(i32),
    /// No answer came in time.
    TimedOut,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Absent => f.write_str("the answer has no data"),
            Unknown::Short => f.write_str("the answer is cut off"),
            Unknown::Zeroes => f.write_str("the answer is all zeroes"),
            Unknown::Ones => f.write_str("the answer is all ones"),
            Unknown::Invalid(what) => write!(f, "the answer is not valid: {what}"),
            Unknown::Refused(sense) => write!(f, "the drive answered: {sense}"),
            Unknown::Status(status) => write!(f, "the drive answered with status {status:02X}h"),
            Unknown::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Unknown::TimedOut => f.write_str("the drive did not answer in time"),
        }
    }
}

/// The facts in a reply: those of its data, where the command succeeded.
///
/// # Errors
/// It did not, or its data says nothing.
pub fn decoded<T>(reply: &Reply, decode: impl FnOnce(&[u8]) -> Result<T, Unknown>) -> Result<T, Unknown> {
    succeeded(reply).and_then(|()| decode(&reply.data))
}

fn succeeded(reply: &Reply) -> Result<(), Unknown> {
    match reply.outcome {
        Outcome::Status(GOOD) => Ok(()),
        Outcome::Status(CHECK_CONDITION) => {
            Err(Sense::decode(&reply.sense).map_or(Unknown::Status(CHECK_CONDITION), Unknown::Refused))
        }
        Outcome::Status(status) => Err(Unknown::Status(status)),
        Outcome::Errno(errno) => Err(Unknown::Errno(errno)),
        Outcome::TimedOut => Err(Unknown::TimedOut),
    }
}

/// The bytes at the start of an answer, if there is anything in it.
fn head<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Unknown> {
    let all = |value| bytes.iter().all(|byte| *byte == value);
    match bytes.first() {
        None => Err(Unknown::Absent),
        Some(0x00) if all(0x00) => Err(Unknown::Zeroes),
        Some(0xff) if all(0xff) => Err(Unknown::Ones),
        Some(_) => bytes.first_chunk().ok_or(Unknown::Short),
    }
}

/// The big-endian number at this place of a structure that is larger.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every opcode and service action, in every length.
    #[test]
    fn only_these_commands_count_as_reading() {
        let mut found = Vec::new();
        for (opcode, second) in (0..=u8::MAX).flat_map(|opcode| (0..=u8::MAX).map(move |it| (opcode, it))) {
            for length in 0..=32 {
                let mut cdb = vec![0; length];
                cdb.iter_mut().zip([opcode, second]).for_each(|(byte, value)| *byte = value);
                if only_reads(&cdb) {
                    found.push((opcode, second, length));
                }
            }
        }
        let expected = [
            (0x00, 0x00, 6),
            (0x03, 0x00, 6),
            (0x03, 0x01, 6),
            (0x12, 0x00, 6),
            (0x12, 0x01, 6),
            (0x9e, 0x10, 16),
        ];
        let (report_luns, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.0 == 0xa0);
        assert_eq!(rest, [&expected[..], &[(0xa3, 0x0c, 12)]].concat());
        assert!(report_luns.len() == 256 && report_luns.iter().all(|it| it.2 == 12), "byte 1 is reserved");
    }

    #[test]
    fn a_command_with_a_control_byte_is_none_of_them() {
        for length in [6, 10, 12, 16] {
            for opcode in 0..=u8::MAX {
                let mut cdb = vec![0; length];
                (cdb[0], cdb[1], cdb[length - 1]) = (opcode, if length == 16 { 0x10 } else { 0x0c }, 0x04);
                assert!(!only_reads(&cdb), "{cdb:02x?}");
            }
        }
    }

    #[test]
    fn a_command_that_failed_has_no_facts() {
        let reply =
            |outcome, sense: &[u8]| Reply { data: vec![1; 64], sense: sense.to_vec(), ..Reply::of(outcome) };
        let refused = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0];
        let why = |outcome, sense: &[u8]| decoded(&reply(outcome, sense), |_| Ok(())).err();
        assert_eq!(why(Outcome::Status(0), &[]), None);
        let text = why(Outcome::Status(2), &refused).unwrap().to_string();
        assert_eq!(text, "the drive answered: Invalid command operation code (5/20/00)");
        assert_eq!(why(Outcome::Status(2), &[]), Some(Unknown::Status(2)));
        assert_eq!(why(Outcome::Status(2), &[0; 18]), Some(Unknown::Status(2)));
        assert_eq!(why(Outcome::Status(0x18), &[]), Some(Unknown::Status(0x18)));
        assert_eq!(why(Outcome::Errno(libc::EPERM), &[]), Some(Unknown::Errno(libc::EPERM)));
        assert_eq!(why(Outcome::TimedOut, &refused), Some(Unknown::TimedOut));
    }
}
