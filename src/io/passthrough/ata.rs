//! ATA through SAT: commands to bytes, and answers to facts.
//!
//! An ATA command travels in a SCSI one, ATA PASS-THROUGH (16), and its registers come back in sense data (SCSI /
//! ATA Translation, SAT). All functions here are pure and total. The layouts are those of ATA Command Set (ACS) and
//! SAT, as libata (`drivers/ata/libata-scsi.c`) and hdparm have them. What is not known is a value of its own: an
//! answer that is absent, short, all 00 or all FF, or has lost the bytes in question, is [`Unknown`] and never a
//! default.

use std::fmt;

pub mod commands;
pub mod hidden;
pub mod identify;
pub mod offers;
pub mod probe;
pub mod registers;
pub mod sanitize;
pub mod security;

use super::Reply;
use registers::Registers;

/// ATA PASS-THROUGH (16) of SAT.
const PASS_THROUGH_16: u8 = 0x85;
/// Its protocols, in bits 4:1 of byte 1.
const NON_DATA: u8 = 3;
const PIO_DATA_IN: u8 = 4;

const READ_NATIVE_MAX_ADDRESS_EXT: u8 = 0x27;
const READ_LOG_EXT: u8 = 0x2f;
const ACCESSIBLE_MAX_ADDRESS_CONFIGURATION: u8 = 0x78;
const DEVICE_CONFIGURATION: u8 = 0xb1;
const SANITIZE_DEVICE: u8 = 0xb4;
const IDENTIFY_DEVICE: u8 = 0xec;

/// Of ACCESSIBLE MAX ADDRESS CONFIGURATION.
const GET_NATIVE_MAX_ADDRESS: u16 = 0x0000;
/// Of DEVICE CONFIGURATION.
const DEVICE_CONFIGURATION_IDENTIFY: u16 = 0x00c2;
/// Of SANITIZE DEVICE.
const SANITIZE_STATUS: u16 = 0x0000;

/// Which logs there are.
const LOG_DIRECTORY: u8 = 0x00;
/// IDENTIFY DEVICE data log.
const LOG_IDENTIFY: u8 = 0x30;

/// An allow-list of ATA PASS-THROUGH (16), by command, feature, protocol and, where a bit of it would change
/// something, count.
pub(super) fn only_reads(cdb: &[u8]) -> bool {
    let &[PASS_THROUGH_16, how, _, feature_high, feature, count_high, count, _, lba_low, .., command, 0] =
        cdb
    else {
        return false;
    };
    let (protocol, feature) = (how >> 1 & 0xf, u16::from_be_bytes([feature_high, feature]));
    let count = u16::from_be_bytes([count_high, count]);
    cdb.len() == 16
        && match (command, feature, protocol) {
            (IDENTIFY_DEVICE, 0, PIO_DATA_IN) => true,
            (READ_NATIVE_MAX_ADDRESS_EXT, 0, NON_DATA) => true,
            (DEVICE_CONFIGURATION, DEVICE_CONFIGURATION_IDENTIFY, PIO_DATA_IN) => true,
            (ACCESSIBLE_MAX_ADDRESS_CONFIGURATION, GET_NATIVE_MAX_ADDRESS, NON_DATA) => true,
            // Bit 0 of the count clears a failure.
            (SANITIZE_DEVICE, SANITIZE_STATUS, NON_DATA) => count == 0,
            (READ_LOG_EXT, 0, PIO_DATA_IN) => [LOG_DIRECTORY, LOG_IDENTIFY].contains(&lba_low),
            _ => false,
        }
}

/// Why nothing is known from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// There were no data, or no registers.
    Absent,
    /// Fewer bytes than the structure has.
    Short,
    /// All of it is 00, as from a bridge that answers nothing.
    Zeroes,
    /// All of it is FF.
    Ones,
    /// A field has a value that does not exist, or contradicts another.
    Invalid(&'static str),
    /// The way here has no place for these registers.
    Lost(&'static str),
    /// The drive aborted or failed the command.
    Refused {
        /// The STATUS register.
        status: u8,
        /// The ERROR register.
        error: u8,
    },
    /// What is between drive and kernel refused it: sense key, and additional code and qualifier.
    Sense(u8, u8, u8),
    /// A SCSI status without sense data.
    Status(u16),
    /// The error of the system call.
    Errno(i32),
    /// There was no answer in time.
    TimedOut,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Absent => f.write_str("the answer is empty"),
            Unknown::Short => f.write_str("the answer is cut off"),
            Unknown::Zeroes => f.write_str("the answer is all zeroes"),
            Unknown::Ones => f.write_str("the answer is all ones"),
            Unknown::Invalid(what) => write!(f, "the answer is not valid: {what}"),
            Unknown::Lost(what) => write!(f, "the answer came without its upper bytes: {what}"),
            Unknown::Refused { status, error } => {
                write!(f, "the drive refused the command (status {status:02X}h, error {error:02X}h)")
            }
            Unknown::Sense(key, code, qualifier) => {
                write!(
                    f,
                    "the drive's controller refused the command (sense {key:X}/{code:02X}/{qualifier:02X})"
                )
            }
            Unknown::Status(status) => write!(f, "the command ended with the SCSI status {status:02X}h"),
            Unknown::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Unknown::TimedOut => f.write_str("the drive did not answer in time"),
        }
    }
}

/// The facts in the data of a reply, where the command succeeded.
///
/// # Errors
/// It did not, or its data are no facts.
pub fn decoded<T>(reply: &Reply, decode: impl FnOnce(&[u8]) -> Result<T, Unknown>) -> Result<T, Unknown> {
    match Registers::of(reply) {
        // A successful command that transfers data has no reason to return registers.
        Err(Unknown::Absent) => decode(&reply.data),
        registers => registers?.succeeded().and_then(|_| decode(&reply.data)),
    }
}

/// The 512 bytes at the start of an answer, if there is anything in them.
fn page(bytes: &[u8]) -> Result<&[u8; 512], Unknown> {
    let page: &[u8; 512] = match bytes.first_chunk() {
        Some(page) => page,
        None if bytes.is_empty() => return Err(Unknown::Absent),
        None => return Err(Unknown::Short),
    };
    match page[0] {
        0x00 if page.iter().all(|byte| *byte == 0x00) => Err(Unknown::Zeroes),
        0xff if page.iter().all(|byte| *byte == 0xff) => Err(Unknown::Ones),
        _ => Ok(page),
    }
}

/// A page whose bytes add up to 0.
fn is_summed_up(page: &[u8; 512]) -> bool {
    page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

fn le64(page: &[u8; 512], at: usize) -> u64 {
    u64::from_le_bytes(*page[at..].first_chunk().expect("a place within the page"))
}

#[cfg(test)]
mod tests {
    use super::commands::Query;
    use super::*;
    use crate::io::passthrough::{Data, Request, ScsiCommand};

    /// ATA PASS-THROUGH (16) of these, each byte of them.
    fn cdb(protocol: u8, [feature, count, lba]: [u8; 3], command: u8) -> [u8; 16] {
        [0x85, protocol << 1 | 1, 0x20, 0, feature, 0, count, 0, lba, 0, 0, 0, 0, 0x40, command, 0]
    }

    #[test]
    fn what_counts_as_reading() {
        for query in Query::ALL {
            assert!(query.request().only_reads(), "{query:?}");
            let Request::Scsi(command) = query.request() else { panic!() };
            let writes = Request::Scsi(ScsiCommand { data: Data::Out(vec![0; 512]), ..command });
            assert!(!writes.only_reads());
        }
        let mut allowed = Vec::new();
        for (protocol, feature, command) in (0..16).flat_map(|protocol| {
            (0..=255).flat_map(move |feature| (0..=255).map(move |command| (protocol, feature, command)))
        }) {
            if only_reads(&cdb(protocol, [feature, 0, 0], command)) {
                allowed.push((protocol, feature, command));
            }
        }
        let expected =
            [(3, 0, 0x27), (3, 0, 0x78), (3, 0, 0xb4), (4, 0, 0x2f), (4, 0, 0xec), (4, 0xc2, 0xb1)];
        assert_eq!(allowed, expected);
        let clears_the_failure = cdb(3, [0, 1, 0], 0xb4);
        assert!(!only_reads(&clears_the_failure));
        let logs = (0..=255).filter(|log| only_reads(&cdb(4, [0, 1, *log], 0x2f)));
        assert_eq!(logs.collect::<Vec<u8>>(), [0x00, 0x30]);
        let mut other = cdb(3, [0; 3], 0xb4);
        assert!(!only_reads(&other[..15]));
        for (at, value) in [(0, 0xa1), (3, 1), (5, 1), (15, 4)] {
            let before = std::mem::replace(&mut other[at], value);
            assert!(!only_reads(&other), "byte {at}");
            other[at] = before;
        }
    }
}
