//! NVMe: commands to bytes, and answers to facts.
//!
//! All functions here are pure and total. The layouts are those of the NVM Express Base Specification, as
//! libnvme (`src/nvme/types.h`) and Linux (`include/linux/nvme.h`) have them. What is not known is a value of
//! its own: an answer that is absent, short, all 00 or all FF is [`Unknown`] and never a default.

use std::fmt;

pub mod commands;
pub mod identify;
pub mod logs;
pub mod offers;
pub mod probe;
pub mod reservations;
pub mod status;

use status::Status;

use super::{NvmeCommand, Outcome, Queue, Reply};

const GET_LOG_PAGE: u8 = 0x02;
const IDENTIFY: u8 = 0x06;
const GET_FEATURES: u8 = 0x0a;
const RESERVATION_REPORT: u8 = 0x0e;
/// Format NVM.
pub const FORMAT: u8 = 0x80;
/// Sanitize.
pub const SANITIZE: u8 = 0x84;

/// All namespaces; of a log, the controller or subsystem.
pub const ALL_NAMESPACES: u32 = u32::MAX;

const LOG_EFFECTS: u8 = 0x05;
const LOG_SANITIZE: u8 = 0x81;
/// Logs that a read does not change.
const LOGS_ONLY_READ: [u8; 2] = [LOG_EFFECTS, LOG_SANITIZE];

/// An allow-list: Identify, Get Log Page of a log that is only read, Get Features, and Reservation Report.
pub(super) fn only_reads(command: &NvmeCommand) -> bool {
    let log = || LOGS_ONLY_READ.contains(&(command.dwords[0] as u8));
    match (command.queue, command.opcode) {
        (Queue::Admin, GET_LOG_PAGE) => log(),
        (Queue::Admin, IDENTIFY | GET_FEATURES) => true,
        (Queue::Io, RESERVATION_REPORT) => true,
        _ => false,
    }
}

/// The bytes of every answer to Identify.
const IDENTIFY_BYTES: usize = 4096;

/// Why nothing is known from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// There was no data.
    Absent,
    /// Fewer bytes than the structure has.
    Short,
    /// All bytes are 00, as of a command that answered nothing.
    Zeroes,
    /// All bytes are FF, as of a device that is gone.
    Ones,
    /// A value that the specification does not have; this says which.
    Invalid(&'static str),
    /// The drive refused the command.
    Refused(Status),
    /// The kernel did, with this errno.
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
            Unknown::Refused(status) => write!(f, "the drive refused the command: {status}"),
            Unknown::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Unknown::TimedOut => f.write_str("the drive did not answer in time"),
        }
    }
}

/// The facts in a reply: those of its data, where the command succeeded.
pub fn decoded<T>(reply: &Reply, decode: impl FnOnce(&[u8]) -> Result<T, Unknown>) -> Result<T, Unknown> {
    succeeded(reply).and_then(|()| decode(&reply.data))
}

fn succeeded(reply: &Reply) -> Result<(), Unknown> {
    match reply.outcome {
        Outcome::Status(0) => Ok(()),
        Outcome::Status(status) => Err(Unknown::Refused(Status(status))),
        Outcome::Errno(errno) => Err(Unknown::Errno(errno)),
        Outcome::TimedOut => Err(Unknown::TimedOut),
    }
}

/// The structure at the start of an answer, if there is anything in it.
fn page<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Unknown> {
    let page: &[u8; N] = match bytes.first_chunk() {
        Some(page) => page,
        None if bytes.is_empty() => return Err(Unknown::Absent),
        None => return Err(Unknown::Short),
    };
    let all = |value| page.iter().all(|byte| *byte == value);
    match page[0] {
        0x00 if all(0x00) => Err(Unknown::Zeroes),
        0xff if all(0xff) => Err(Unknown::Ones),
        _ => Ok(page),
    }
}

/// The little-endian number at this place of a structure that is larger.
fn le16(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn le32(page: &[u8], at: usize) -> u32 {
    u32::from(le16(page, at)) | u32::from(le16(page, at + 2)) << 16
}

fn le64(page: &[u8], at: usize) -> u64 {
    u64::from(le32(page, at)) | u64::from(le32(page, at + 4)) << 32
}
