//! Encoders: what is asked, as a command descriptor block.

use std::time::Duration;

use super::{
    FORMAT_UNIT, INQUIRY, MAINTENANCE_IN, READ_CAPACITY, REPORT_LUNS, REPORT_SUPPORTED_OPERATION_CODES,
    REQUEST_SENSE, SANITIZE, SERVICE_ACTION_IN, TEST_UNIT_READY,
};
use crate::io::passthrough::{CommandTimeout, Data, Request, ScsiCommand};

/// As long as the kernel waits for a command by default.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The lengths that are asked for; a drive answers with what it has.
const INQUIRY_BYTES: u8 = 36;
const PAGE_BYTES: u8 = 252;
const SENSE_BYTES: u8 = 252;
const CAPACITY_BYTES: u8 = 32;
const LIST_BYTES: u32 = 8192;

/// A command that only reads: there is no variant for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// INQUIRY: standard data.
    Identity,
    /// INQUIRY: a page of vital product data.
    Page(Page),
    /// READ CAPACITY (16).
    Capacity,
    /// REQUEST SENSE, in the fixed format.
    Sense,
    /// TEST UNIT READY.
    Ready,
    /// REPORT SUPPORTED OPERATION CODES, of a single command.
    Support(EraseCommand),
    /// REPORT LUNS of the target port.
    Luns,
}

/// A page of vital product data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// 00h: the codes of all pages that there are.
    Supported = 0x00,
    /// 80h.
    SerialNumber = 0x80,
    /// 83h.
    DeviceIdentification = 0x83,
    /// B1h.
    BlockDeviceCharacteristics = 0xb1,
}

/// A command that erases, or the service action of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EraseCommand {
    /// SANITIZE, OVERWRITE.
    Overwrite,
    /// SANITIZE, BLOCK ERASE.
    BlockErase,
    /// SANITIZE, CRYPTOGRAPHIC ERASE.
    CryptoErase,
    /// FORMAT UNIT.
    FormatUnit,
}

impl EraseCommand {
    /// All of them.
    pub const ALL: [EraseCommand; 4] = [
        EraseCommand::Overwrite,
        EraseCommand::BlockErase,
        EraseCommand::CryptoErase,
        EraseCommand::FormatUnit,
    ];

    /// Its operation code and service action.
    pub(super) fn codes(self) -> (u8, Option<u8>) {
        match self {
            EraseCommand::Overwrite => (SANITIZE, Some(0x01)),
            EraseCommand::BlockErase => (SANITIZE, Some(0x02)),
            EraseCommand::CryptoErase => (SANITIZE, Some(0x03)),
            EraseCommand::FormatUnit => (FORMAT_UNIT, None),
        }
    }
}

impl Query {
    /// The command.
    pub fn request(self) -> Request {
        let (cdb, bytes) = match self {
            Query::Identity => (vec![INQUIRY, 0, 0, 0, INQUIRY_BYTES, 0], INQUIRY_BYTES.into()),
            Query::Page(page) => (vec![INQUIRY, 1, page as u8, 0, PAGE_BYTES, 0], PAGE_BYTES.into()),
            Query::Capacity => {
                let mut cdb = vec![0; 16];
                (cdb[0], cdb[1], cdb[13]) = (SERVICE_ACTION_IN, READ_CAPACITY, CAPACITY_BYTES);
                (cdb, CAPACITY_BYTES.into())
            }
            Query::Sense => (vec![REQUEST_SENSE, 0, 0, 0, SENSE_BYTES, 0], SENSE_BYTES.into()),
            Query::Ready => (vec![TEST_UNIT_READY, 0, 0, 0, 0, 0], 0),
            Query::Support(command) => {
                let (opcode, action) = command.codes();
                // By operation code alone, or with a service action too.
                let (options, action) = action.map_or((1, 0), |action| (2, action));
                let codes = [REPORT_SUPPORTED_OPERATION_CODES, options, opcode, 0, action];
                ([&[MAINTENANCE_IN], &codes[..], &LIST_BYTES.to_be_bytes(), &[0, 0]].concat(), LIST_BYTES)
            }
            Query::Luns => {
                ([&[REPORT_LUNS, 0, 0, 0, 0, 0][..], &LIST_BYTES.to_be_bytes(), &[0, 0]].concat(), LIST_BYTES)
            }
        };
        let data = if bytes == 0 { Data::None } else { Data::In(bytes as usize) };
        Request::Scsi(ScsiCommand { cdb, data, timeout: CommandTimeout::new(QUERY_TIMEOUT) })
    }
}

impl From<Query> for Request {
    fn from(query: Query) -> Request {
        query.request()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes, and how many come in.
    fn sent(query: Query) -> (String, usize) {
        let request = query.request();
        assert!(request.only_reads(), "{query:?}");
        let Request::Scsi(ScsiCommand { cdb, data, .. }) = request else { panic!() };
        let bytes = match data {
            Data::None => 0,
            Data::In(bytes) => bytes,
            Data::Out(_) => panic!("data to the drive"),
        };
        (hex::encode(cdb), bytes)
    }

    /// What sg3_utils 1.46 sent, seen in the place of its SG_IO.
    #[test]
    fn the_queries_are_those_of_sg3_utils() {
        let cases = [
            (Query::Identity, "120000002400", 36),
            (Query::Page(Page::Supported), "12010000fc00", 252),
            (Query::Page(Page::SerialNumber), "12018000fc00", 252),
            (Query::Page(Page::DeviceIdentification), "12018300fc00", 252),
            (Query::Page(Page::BlockDeviceCharacteristics), "1201b100fc00", 252),
            (Query::Capacity, "9e100000000000000000000000200000", 32),
            (Query::Sense, "03000000fc00", 252),
            (Query::Ready, "000000000000", 0),
            (Query::Support(EraseCommand::Overwrite), "a30c02480001000020000000", 8192),
            (Query::Support(EraseCommand::BlockErase), "a30c02480002000020000000", 8192),
            (Query::Support(EraseCommand::CryptoErase), "a30c02480003000020000000", 8192),
            (Query::Support(EraseCommand::FormatUnit), "a30c01040000000020000000", 8192),
            (Query::Luns, "a00000000000000020000000", 8192),
        ];
        for (query, cdb, bytes) in cases {
            assert_eq!(sent(query), (cdb.to_string(), bytes), "{query:?}");
        }
    }
}
