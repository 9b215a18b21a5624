//! Encoders: what is asked or ordered, as an admin command.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identify::BlockFormat;
use super::{
    ALL_NAMESPACES, FORMAT, GET_FEATURES, GET_LOG_PAGE, IDENTIFY, IDENTIFY_BYTES, LOG_EFFECTS, LOG_SANITIZE,
    RESERVATION_REPORT, SANITIZE,
};
use crate::io::passthrough::{CommandTimeout, Data, NvmeCommand, Queue, Request};

/// As long as the kernel waits for admin commands of its own.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A sanitize command ends when its operation has begun.
const SANITIZE_TIMEOUT: Duration = Duration::from_secs(120);
const FORMAT_TIMEOUT_MIN: Duration = Duration::from_secs(600);
/// A format that writes all of its media does so at this rate at least.
const FORMAT_BYTES_PER_SECOND: u64 = 100_000_000;

/// A command that only reads: there is no variant for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// Identify CNS 01h.
    Controller,
    /// Identify CNS 00h: a namespace that is attached to this controller.
    Namespace(u32),
    /// Identify CNS 11h: any namespace that exists.
    AllocatedNamespace(u32),
    /// Identify CNS 02h: the namespaces attached to this controller, from above this one.
    ActiveNamespaces(u32),
    /// Identify CNS 10h: the namespaces that exist in the subsystem, from above this one.
    AllocatedNamespaces(u32),
    /// Identify CNS 03h.
    NamespaceNames(u32),
    /// Identify CNS 08h: what namespaces of all command sets have in common.
    IndependentNamespace(u32),
    /// Identify CNS 12h: the controllers that a namespace is attached to, from this one on.
    AttachedControllers(u32, u16),
    /// Identify CNS 13h: the controllers of the subsystem, from this one on.
    Controllers(u16),
    /// Log page 05h.
    Effects,
    /// Log page 81h.
    SanitizeStatus,
    /// Feature 84h of a namespace, its current value.
    WriteProtection(u32),
    /// Reservation Report of a namespace; only its own block node takes it.
    Reservations(u32, HostIds),
}

/// How long the host identifiers of a controller are; the report in the other form is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostIds {
    /// 64 bits.
    Short,
    /// 128 bits (EDS).
    Long,
}

impl Query {
    /// The command.
    pub fn request(self) -> Request {
        let identify = |cns: u32, nsid: u32| (IDENTIFY, nsid, cns, IDENTIFY_BYTES);
        let from = |controller: u16| u32::from(controller) << 16;
        let log = |page: u8, bytes: usize| {
            (GET_LOG_PAGE, ALL_NAMESPACES, last_dword(bytes) << 16 | u32::from(page), bytes)
        };
        let (opcode, nsid, dword, bytes) = match self {
            Query::Controller => identify(0x01, 0),
            Query::Namespace(nsid) => identify(0x00, nsid),
            Query::AllocatedNamespace(nsid) => identify(0x11, nsid),
            Query::ActiveNamespaces(after) => identify(0x02, after),
            Query::AllocatedNamespaces(after) => identify(0x10, after),
            Query::NamespaceNames(nsid) => identify(0x03, nsid),
            Query::IndependentNamespace(nsid) => identify(0x08, nsid),
            Query::AttachedControllers(nsid, controller) => identify(0x12 | from(controller), nsid),
            Query::Controllers(controller) => identify(0x13 | from(controller), 0),
            Query::Effects => log(LOG_EFFECTS, 4096),
            Query::SanitizeStatus => log(LOG_SANITIZE, 512),
            Query::WriteProtection(nsid) => (GET_FEATURES, nsid, 0x84, 0),
            Query::Reservations(nsid, ids) => return reservation_report(nsid, ids),
        };
        let data = if bytes == 0 { Data::None } else { Data::In(bytes) };
        admin(opcode, nsid, [dword, 0], data, QUERY_TIMEOUT)
    }
}

/// How the length of an answer is asked for: in dwords, counted from 0.
fn last_dword(bytes: usize) -> u32 {
    bytes as u32 / 4 - 1
}

impl From<Query> for Request {
    fn from(query: Query) -> Request {
        query.request()
    }
}

fn admin(opcode: u8, nsid: u32, [dword_10, dword_11]: [u32; 2], data: Data, timeout: Duration) -> Request {
    let dwords = [dword_10, dword_11, 0, 0, 0, 0];
    let (queue, timeout) = (Queue::Admin, CommandTimeout::new(timeout));
    Request::Nvme(NvmeCommand { queue, opcode, nsid, dwords, data, timeout })
}

fn reservation_report(nsid: u32, ids: HostIds) -> Request {
    const BYTES: usize = 4096;
    let dwords = [last_dword(BYTES), u32::from(ids == HostIds::Long), 0, 0, 0, 0];
    let (queue, timeout) = (Queue::Io, CommandTimeout::new(QUERY_TIMEOUT));
    Request::Nvme(NvmeCommand {
        queue,
        opcode: RESERVATION_REPORT,
        nsid,
        dwords,
        data: Data::In(BYTES),
        timeout,
    })
}

/// What Sanitize is ordered to do, over the whole subsystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sanitize {
    /// Begins an operation.
    Start {
        /// By which means.
        method: SanitizeMethod,
        /// What leads out of a failure.
        exit: Exit,
        /// The media is to hold afterwards what the method leaves (NDAS).
        keep_allocated: bool,
    },
    /// Leaves an unrestricted failure without erasing: the media may hold data.
    ExitFailure,
    /// Ends a media verification, which another host began.
    ExitMediaVerification,
}

/// The means of a sanitize operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SanitizeMethod {
    /// The erase command of the media.
    BlockErase,
    /// New keys.
    CryptoErase,
    /// Writing.
    Overwrite {
        /// How often.
        passes: OverwritePasses,
        /// Each pass writes the complement of the one before.
        invert: bool,
        /// 32 bits over and over.
        pattern: u32,
    },
}

/// From 1 to 15: the field has four bits, and 0 means 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8")]
pub struct OverwritePasses(u8);

impl OverwritePasses {
    /// One pass.
    pub const ONE: OverwritePasses = OverwritePasses(1);
}

impl TryFrom<u8> for OverwritePasses {
    type Error = String;

    fn try_from(passes: u8) -> Result<OverwritePasses, String> {
        if (1..=15).contains(&passes) {
            Ok(OverwritePasses(passes))
        } else {
            Err(format!("{passes} passes: from 1 to 15 are possible"))
        }
    }
}

/// What leads out of a failed operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Another restricted operation alone: a drive whose erase failed cannot be read.
    #[default]
    Restricted,
    /// The action "exit failure mode" too (AUSE).
    Unrestricted,
}

impl Sanitize {
    /// Dword 10, by which the drive's status names the command.
    pub fn dword_10(self) -> u32 {
        let start = |action: u32, exit: Exit, keep_allocated: bool| {
            action | u32::from(exit == Exit::Unrestricted) << 3 | u32::from(keep_allocated) << 9
        };
        match self {
            Sanitize::ExitFailure => 1,
            Sanitize::ExitMediaVerification => 5,
            Sanitize::Start { method, exit, keep_allocated } => match method {
                SanitizeMethod::BlockErase => start(2, exit, keep_allocated),
                SanitizeMethod::CryptoErase => start(4, exit, keep_allocated),
                SanitizeMethod::Overwrite { passes, invert, .. } => {
                    let overwrite = u32::from(passes.0) << 4 | u32::from(invert) << 8;
                    start(3, exit, keep_allocated) | overwrite
                }
            },
        }
    }

    /// The command. Of namespaces it names none: drives refuse another value than 0.
    pub fn request(self) -> Request {
        let pattern = match self {
            Sanitize::Start { method: SanitizeMethod::Overwrite { pattern, .. }, .. } => pattern,
            _ => 0,
        };
        admin(SANITIZE, 0, [self.dword_10(), pattern], Data::None, SANITIZE_TIMEOUT)
    }
}

/// How Format NVM erases. "No secure erase" (0) is not among these.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecureErase {
    /// SES 1: what the media holds afterwards is indeterminate.
    UserData,
    /// SES 2: new keys.
    Crypto,
}

/// Format NVM of one namespace, which keeps its block format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Which one.
    pub nsid: u32,
    /// The one that it has.
    pub keep: BlockFormat,
    /// How it erases.
    pub erase: SecureErase,
}

impl Format {
    /// The command. The kernel resets the controller when a timeout is over, so it is ample: ten minutes, twice
    /// the drive's estimate, or the time of a slow drive for `bytes`, whichever is the most.
    pub fn request(self, bytes: u64, estimate: Option<Duration>) -> Request {
        let BlockFormat { index, extended, protection, protection_first, .. } = self.keep;
        let erase = match self.erase {
            SecureErase::UserData => 1,
            SecureErase::Crypto => 2,
        };
        let dword_10 = u32::from(index & 0xf)
            | u32::from(extended) << 4
            | u32::from(protection & 0b111) << 5
            | u32::from(protection_first) << 8
            | erase << 9
            | u32::from(index >> 4 & 0b11) << 12;
        let writing = Duration::from_secs(bytes / FORMAT_BYTES_PER_SECOND);
        let timeout = estimate.unwrap_or_default().saturating_mul(2).max(writing).max(FORMAT_TIMEOUT_MIN);
        admin(FORMAT, self.nsid, [dword_10, 0], Data::None, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opcode, namespace, dwords 10 and 11, bytes that come in.
    fn sent(request: Request) -> (u8, u32, u32, u32, usize) {
        let Request::Nvme(NvmeCommand { opcode, nsid, dwords, data, .. }) = request else { panic!() };
        assert_eq!(dwords[2..], [0; 4]);
        let bytes = match data {
            Data::None => 0,
            Data::In(bytes) => bytes,
            Data::Out(_) => panic!("data to the drive"),
        };
        (opcode, nsid, dwords[0], dwords[1], bytes)
    }

    fn start(method: SanitizeMethod, exit: Exit, keep_allocated: bool) -> (u8, u32, u32, u32, usize) {
        sent(Sanitize::Start { method, exit, keep_allocated }.request())
    }

    fn overwrite(invert: bool, pattern: u32) -> SanitizeMethod {
        SanitizeMethod::Overwrite { passes: OverwritePasses::ONE, invert, pattern }
    }

    fn format(index: u8, extended: bool, protection: u8, protection_first: bool, erase: SecureErase) -> u32 {
        let keep = BlockFormat {
            index,
            extended,
            protection,
            protection_first,
            block_bytes: 512,
            metadata_bytes: 8,
        };
        let (opcode, nsid, dword_10, ..) = sent(Format { nsid: 1, keep, erase }.request(0, None));
        assert_eq!((opcode, nsid), (0x80, 1));
        dword_10
    }

    /// What nvme-cli 2.3 sent, seen by a preloaded library in the place of its ioctls.
    #[test]
    fn the_commands_are_those_of_nvme_cli() {
        use Exit::*;
        use SanitizeMethod::*;
        assert_eq!(start(BlockErase, Restricted, false), (0x84, 0, 0x0000_0002, 0, 0));
        assert_eq!(start(CryptoErase, Unrestricted, false), (0x84, 0, 0x0000_000c, 0, 0));
        let inverted = start(overwrite(true, 0x1234_5678), Restricted, false);
        assert_eq!(inverted, (0x84, 0, 0x0000_0113, 0x1234_5678, 0));
        assert_eq!(sent(Sanitize::ExitFailure.request()), (0x84, 0, 0x0000_0001, 0, 0));
        assert_eq!(sent(Query::SanitizeStatus.request()), (0x02, 0xffff_ffff, 0x007f_0081, 0, 512));
        assert_eq!(format(0, false, 0, false, SecureErase::UserData), 0x0000_0200);
        assert_eq!(format(0, false, 0, false, SecureErase::Crypto), 0x0000_0400);
    }

    /// By the fields of the specification.
    #[test]
    fn dword_10_has_every_field_in_its_place() {
        use Exit::*;
        use SanitizeMethod::*;
        assert_eq!(start(BlockErase, Unrestricted, false).2, 0x0a);
        assert_eq!(start(BlockErase, Restricted, true).2, 0x202);
        assert_eq!(start(overwrite(false, 0), Restricted, false).2, 0x13);
        assert_eq!(start(overwrite(false, 0), Unrestricted, false).2, 0x1b);
        assert_eq!(sent(Sanitize::ExitMediaVerification.request()).2, 5);
        assert_eq!(format(3, true, 2, true, SecureErase::UserData), 0x353);
        assert_eq!(format(1, true, 1, false, SecureErase::UserData), 0x231);
        assert_eq!(format(0x2d, false, 3, false, SecureErase::Crypto), 0x246d);
    }

    #[test]
    fn queries_are_those_of_the_specification() {
        let identify = |query: Query| {
            let (opcode, nsid, cns, second, bytes) = sent(query.request());
            assert_eq!((opcode, second, bytes), (0x06, 0, 4096), "{query:?}");
            (nsid, cns)
        };
        assert_eq!(identify(Query::Controller), (0, 0x01));
        assert_eq!(identify(Query::Namespace(7)), (7, 0x00));
        assert_eq!(identify(Query::ActiveNamespaces(7)), (7, 0x02));
        assert_eq!(identify(Query::NamespaceNames(7)), (7, 0x03));
        assert_eq!(identify(Query::IndependentNamespace(7)), (7, 0x08));
        assert_eq!(identify(Query::AllocatedNamespaces(0)), (0, 0x10));
        assert_eq!(identify(Query::AllocatedNamespace(7)), (7, 0x11));
        assert_eq!(identify(Query::AttachedControllers(7, 0x102)), (7, 0x0102_0012));
        assert_eq!(identify(Query::Controllers(0x102)), (0, 0x0102_0013));
        assert_eq!(sent(Query::Effects.request()), (0x02, 0xffff_ffff, 0x03ff_0005, 0, 4096));
        assert_eq!(sent(Query::WriteProtection(7).request()), (0x0a, 7, 0x84, 0, 0));
        let report = |ids| sent(Query::Reservations(7, ids).request());
        assert_eq!(report(HostIds::Short), (0x0e, 7, 0x3ff, 0, 4096));
        assert_eq!(report(HostIds::Long), (0x0e, 7, 0x3ff, 1, 4096));
    }

    #[test]
    fn an_overwrite_has_1_to_15_passes() {
        assert!([0, 16, 255].into_iter().all(|passes| OverwritePasses::try_from(passes).is_err()));
        for passes in 1..=15 {
            let passes = OverwritePasses::try_from(passes).unwrap();
            let method = SanitizeMethod::Overwrite { passes, invert: false, pattern: 0 };
            assert_ne!(start(method, Exit::Restricted, false).2 >> 4 & 0xf, 0);
        }
        assert!(serde_json::from_str::<OverwritePasses>("0").is_err());
    }

    #[test]
    fn a_format_has_time_for_the_slowest_drive() {
        let keep = BlockFormat {
            index: 0,
            extended: false,
            protection: 0,
            protection_first: false,
            block_bytes: 512,
            metadata_bytes: 0,
        };
        let seconds = |bytes, estimate: Option<u64>| {
            let format = Format { nsid: 1, keep, erase: SecureErase::UserData };
            format.request(bytes, estimate.map(Duration::from_secs)).timeout().as_secs()
        };
        assert_eq!(seconds(0, None), 600);
        assert_eq!(seconds(0, Some(900)), 1800);
        assert_eq!(seconds(4_000_000_000_000, Some(900)), 40_000);
        assert_eq!(seconds(u64::MAX, Some(u64::MAX)), i32::MAX as u64 / 1000);
    }
}
