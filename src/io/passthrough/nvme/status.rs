//! Status codes of completions, in words and by what follows from them.

use std::fmt;
use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Unknown;
use crate::io::passthrough::{Outcome, Reply};

/// The status of a completion as the kernel gives it: code 7:0, type 10:8, retry delay 12:11, more 13, do not
/// retry 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status(pub u16);

/// What follows from a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The drive has no such command, or not in this form: another rung may do.
    NotSupported,
    /// A sanitize operation runs.
    SanitizeRunning,
    /// An earlier sanitize operation failed: only a sanitize leads out of that.
    SanitizeFailed,
    /// A format runs.
    FormatRunning,
    /// Asked again later, it may be accepted.
    NotReady,
    /// A namespace is write protected.
    WriteProtected,
    /// A security function (TCG Opal), a lockdown or the firmware of the machine prevents it.
    Locked,
    /// Another host holds a reservation.
    Reserved,
    /// The controller has to be reset first.
    NeedsReset,
    /// The persistent memory region is enabled.
    MemoryRegion,
    /// An error of the transport or an abort, made by the kernel too: the drive may have taken the command.
    Lost,
    /// Any other.
    Other,
}

/// Status type and code, the specification's words for it, and what it means here.
const CODES: [(u16, &str, Meaning); 32] = [
    (0x001, "Invalid Command Opcode", Meaning::NotSupported),
    (0x002, "Invalid Field in Command", Meaning::NotSupported),
    (0x004, "Data Transfer Error", Meaning::Other),
    (0x005, "Commands Aborted due to Power Loss Notification", Meaning::Lost),
    (0x006, "Internal Error", Meaning::Other),
    (0x007, "Command Abort Requested", Meaning::Lost),
    (0x008, "Command Aborted due to SQ Deletion", Meaning::Lost),
    (0x00b, "Invalid Namespace or Format", Meaning::NotSupported),
    (0x00c, "Command Sequence Error", Meaning::NeedsReset),
    (0x015, "Operation Denied", Meaning::Locked),
    (0x01c, "Sanitize Failed", Meaning::SanitizeFailed),
    (0x01d, "Sanitize In Progress", Meaning::SanitizeRunning),
    (0x020, "Namespace is Write Protected", Meaning::WriteProtected),
    (0x021, "Command Interrupted", Meaning::NotReady),
    (0x023, "Command Prohibited by Command and Feature Lockdown", Meaning::Locked),
    (0x024, "Admin Command Media Not Ready", Meaning::NotReady),
    (0x082, "Namespace Not Ready", Meaning::NotReady),
    (0x083, "Reservation Conflict", Meaning::Reserved),
    (0x084, "Format In Progress", Meaning::FormatRunning),
    (0x109, "Invalid Log Page", Meaning::NotSupported),
    (0x10a, "Invalid Format", Meaning::NotSupported),
    (0x10b, "Firmware Activation Requires Conventional Reset", Meaning::NeedsReset),
    (0x110, "Firmware Activation Requires NVM Subsystem Reset", Meaning::NeedsReset),
    (0x111, "Firmware Activation Requires Controller Level Reset", Meaning::NeedsReset),
    (0x113, "Firmware Activation Prohibited", Meaning::NeedsReset),
    (0x11d, "Device Self-test In Progress", Meaning::NotReady),
    (0x123, "Sanitize Prohibited While Persistent Memory Region is Enabled", Meaning::MemoryRegion),
    (0x13c, "Maximum Namespace Sanitize Operations In Progress", Meaning::NotReady),
    (0x286, "Access Denied", Meaning::Locked),
    (0x370, "Host Pathing Error", Meaning::Lost),
    (0x371, "Command Aborted By Host", Meaning::Lost),
    (0x360, "Controller Pathing Error", Meaning::Lost),
];

impl Status {
    /// Type and code, without the bits about retrying.
    pub fn code(self) -> u16 {
        self.0 & 0x7ff
    }

    /// What follows from it; success is not among these.
    pub fn meaning(self) -> Meaning {
        const PATH_RELATED: u16 = 3;
        match CODES.iter().find(|(code, ..)| *code == self.code()) {
            Some((.., meaning)) => *meaning,
            None if self.code() >> 8 == PATH_RELATED => Meaning::Lost,
            None => Meaning::Other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.code() {
            0 => "Successful Completion",
            code => {
                CODES.iter().find(|(known, ..)| *known == code).map_or("NVMe status", |(_, words, _)| words)
            }
        };
        write!(f, "{words} ({:03X}h)", self.code())
    }
}

/// How a drive answered a command that starts an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// With success: a sanitize operation has begun, a format has ended.
    Accepted,
    /// With this status: what was asked for was not begun.
    Refused(Status),
    /// The kernel did not send it, with this errno.
    NotSent(i32),
    /// There is no answer, or none by the drive: it may have taken the command, and may go on with it.
    Lost,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Accepted => f.write_str("the drive accepted it"),
            Answer::Refused(status) => write!(f, "the drive refused it: {status}"),
            Answer::NotSent(errno) => {
                write!(f, "the kernel did not send it: {}", io::Error::from_raw_os_error(*errno))
            }
            Answer::Lost => f.write_str("there was no answer"),
        }
    }
}

/// Errors that the kernel gives before it sends anything (`nvme_user_cmd`, `nvme_ns_head_ioctl`).
const BEFORE_SENDING: [i32; 10] = [
    libc::EPERM,
    libc::EACCES,
    libc::EBADF,
    libc::EINVAL,
    libc::EFAULT,
    libc::ENOTTY,
    libc::ENOSYS,
    libc::ENOMEM,
    libc::EOPNOTSUPP,
    libc::EWOULDBLOCK,
];

impl Answer {
    /// Of what came back.
    pub fn of(reply: &Reply) -> Answer {
        match reply.outcome {
            Outcome::Status(0) => Answer::Accepted,
            Outcome::Status(status) if Status(status).meaning() == Meaning::Lost => Answer::Lost,
            Outcome::Status(status) => Answer::Refused(Status(status)),
            Outcome::Errno(errno) if BEFORE_SENDING.contains(&errno) => Answer::NotSent(errno),
            Outcome::Errno(_) | Outcome::TimedOut => Answer::Lost,
        }
    }
}

/// The state of Namespace Write Protection (feature 84h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteProtection {
    /// The namespace can be written.
    None,
    /// Until it is taken back.
    Protected,
    /// Until the next power cycle.
    UntilPowerCycle,
    /// For ever.
    Permanent,
}

impl WriteProtection {
    /// From dword 0 of the completion of Get Features.
    ///
    /// # Errors
    /// A value that the feature does not have.
    pub fn decode(result: u64) -> Result<WriteProtection, Unknown> {
        match result as u32 {
            0 => Ok(WriteProtection::None),
            1 => Ok(WriteProtection::Protected),
            2 => Ok(WriteProtection::UntilPowerCycle),
            3 => Ok(WriteProtection::Permanent),
            u32::MAX => Err(Unknown::Ones),
            _ => Err(Unknown::Invalid("the write protection state")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_about_retrying_are_no_part_of_the_code() {
        for bits in [0, 1 << 14, 1 << 13, 3 << 11, 0b1111 << 11] {
            let status = Status(0x01d | bits);
            assert_eq!((status.code(), status.meaning()), (0x01d, Meaning::SanitizeRunning));
            assert_eq!(status.to_string(), "Sanitize In Progress (01Dh)");
        }
        assert_eq!(Status(0x4286).to_string(), "Access Denied (286h)");
        assert_eq!(Status(0x1ff).to_string(), "NVMe status (1FFh)");
        assert_eq!(Status(0x37f).meaning(), Meaning::Lost);
    }

    #[test]
    fn every_code_is_listed_once() {
        let mut codes: Vec<u16> = CODES.iter().map(|(code, ..)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
        assert!(!codes.contains(&0));
    }

    /// Whatever comes back, only status 0 is acceptance, and only what was surely not taken is a refusal.
    #[test]
    fn only_status_0_is_acceptance() {
        let answer = |outcome| Answer::of(&Reply::of(outcome));
        for status in 0..=u16::MAX {
            let accepted = answer(Outcome::Status(status)) == Answer::Accepted;
            assert_eq!(accepted, status == 0, "{status:04x}");
        }
        assert_eq!(answer(Outcome::Status(0x4001)), Answer::Refused(Status(0x4001)));
        assert_eq!(answer(Outcome::Status(0x371)), Answer::Lost);
        assert_eq!(answer(Outcome::TimedOut), Answer::Lost);
        assert_eq!(answer(Outcome::Errno(libc::EACCES)), Answer::NotSent(libc::EACCES));
        for errno in [libc::EIO, libc::ENODEV, libc::ENXIO, libc::EINTR, 9999] {
            assert_eq!(answer(Outcome::Errno(errno)), Answer::Lost, "{errno}");
        }
    }

    #[test]
    fn a_write_protection_state_that_does_not_exist_is_unknown() {
        assert_eq!(WriteProtection::decode(3), Ok(WriteProtection::Permanent));
        assert!([4, 0x80, 0xffff_ffff].into_iter().all(|result| WriteProtection::decode(result).is_err()));
    }
}
