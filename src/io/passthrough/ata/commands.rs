//! Encoders: what is asked, as ATA PASS-THROUGH (16).

use std::time::Duration;

use super::{
    ACCESSIBLE_MAX_ADDRESS_CONFIGURATION, DEVICE_CONFIGURATION, DEVICE_CONFIGURATION_IDENTIFY,
    GET_NATIVE_MAX_ADDRESS, IDENTIFY_DEVICE, LOG_DIRECTORY, LOG_IDENTIFY, NON_DATA, PASS_THROUGH_16,
    PIO_DATA_IN, READ_LOG_EXT, READ_NATIVE_MAX_ADDRESS_EXT, SANITIZE_DEVICE, SANITIZE_STATUS,
};
use crate::io::passthrough::{CommandTimeout, Data, Request, ScsiCommand};

/// As long as the kernel waits where nothing else is asked of it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The unit in which data are counted.
const BLOCK: usize = 512;
/// Page 06h (security) of the IDENTIFY DEVICE data log.
const PAGE_SECURITY: u8 = 0x06;

/// A command that only reads: there is no variant for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// IDENTIFY DEVICE.
    Identify,
    /// SANITIZE STATUS EXT, without the bit that clears a failure.
    SanitizeStatus,
    /// READ NATIVE MAX ADDRESS EXT: what a host protected area hides.
    NativeMax,
    /// GET NATIVE MAX ADDRESS EXT: what its successor hides.
    AccessibleNativeMax,
    /// DEVICE CONFIGURATION IDENTIFY: what the device configuration overlay hides.
    DeviceConfiguration,
    /// READ LOG EXT of log 00h: which logs there are.
    LogDirectory,
    /// READ LOG EXT of log 30h, page 06h.
    SecurityPage,
}

impl Query {
    #[cfg(test)]
    pub(super) const ALL: [Query; 7] = [
        Query::Identify,
        Query::SanitizeStatus,
        Query::NativeMax,
        Query::AccessibleNativeMax,
        Query::DeviceConfiguration,
        Query::LogDirectory,
        Query::SecurityPage,
    ];

    /// The command.
    pub fn request(self) -> Request {
        let log = |log: u8, page: u8| block(true, 0, u64::from(page) << 8 | u64::from(log), READ_LOG_EXT);
        let command = match self {
            Query::Identify => block(false, 0, 0, IDENTIFY_DEVICE),
            Query::SanitizeStatus => non_data(SANITIZE_STATUS, SANITIZE_DEVICE),
            Query::NativeMax => non_data(0, READ_NATIVE_MAX_ADDRESS_EXT),
            Query::AccessibleNativeMax => {
                non_data(GET_NATIVE_MAX_ADDRESS, ACCESSIBLE_MAX_ADDRESS_CONFIGURATION)
            }
            Query::DeviceConfiguration => {
                block(false, DEVICE_CONFIGURATION_IDENTIFY, 0, DEVICE_CONFIGURATION)
            }
            Query::LogDirectory => log(LOG_DIRECTORY, 0),
            Query::SecurityPage => log(LOG_IDENTIFY, PAGE_SECURITY),
        };
        command.request()
    }
}

impl From<Query> for Request {
    fn from(query: Query) -> Request {
        query.request()
    }
}

/// An ATA command, by its registers.
struct Command {
    protocol: u8,
    /// Its registers have 48 bits of LBA, and 16 of feature and count.
    extended: bool,
    feature: u16,
    count: u16,
    lba: u64,
    command: u8,
}

/// Without data: its answer is in the registers.
fn non_data(feature: u16, command: u8) -> Command {
    Command { protocol: NON_DATA, extended: true, feature, count: 0, lba: 0, command }
}

/// With one block of data.
fn block(extended: bool, feature: u16, lba: u64, command: u8) -> Command {
    Command { protocol: PIO_DATA_IN, extended, feature, count: 1, lba, command }
}

impl Command {
    fn request(&self) -> Request {
        /// The bit that is obsolete and was always 1; bit 4, the second drive of a cable, is libata's.
        const DEVICE: u8 = 0x40;
        // Byte 2: CK_COND (the registers are wanted); or the length is in COUNT, in blocks, from the drive.
        let (flags, data) = match self.protocol {
            NON_DATA => (0x20, Data::None),
            _ => (0x0e, Data::In(usize::from(self.count) * BLOCK)),
        };
        let (feature, count, lba) =
            (self.feature.to_be_bytes(), self.count.to_be_bytes(), self.lba.to_le_bytes());
        let how = self.protocol << 1 | u8::from(self.extended);
        let mut cdb = vec![PASS_THROUGH_16, how, flags];
        cdb.extend([feature, count].as_flattened());
        cdb.extend([lba[3], lba[0], lba[4], lba[1], lba[5], lba[2], DEVICE, self.command, 0]);
        Request::Scsi(ScsiCommand { cdb, data, timeout: CommandTimeout::new(QUERY_TIMEOUT) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first five as hdparm 9.65 sends them; the last three by ACS.
    #[test]
    fn every_query_is_these_bytes() {
        let expected = [
            (Query::Identify, "85 08 0e 00 00 00 01 00 00 00 00 00 00 40 ec 00"),
            (Query::SanitizeStatus, "85 07 20 00 00 00 00 00 00 00 00 00 00 40 b4 00"),
            (Query::NativeMax, "85 07 20 00 00 00 00 00 00 00 00 00 00 40 27 00"),
            (Query::DeviceConfiguration, "85 08 0e 00 c2 00 01 00 00 00 00 00 00 40 b1 00"),
            (Query::AccessibleNativeMax, "85 07 20 00 00 00 00 00 00 00 00 00 00 40 78 00"),
            (Query::LogDirectory, "85 09 0e 00 00 00 01 00 00 00 00 00 00 40 2f 00"),
            (Query::SecurityPage, "85 09 0e 00 00 00 01 00 30 00 06 00 00 40 2f 00"),
        ];
        for (query, bytes) in expected {
            let Request::Scsi(command) = query.request() else { panic!() };
            assert_eq!(command.cdb, hex::decode(bytes.replace(' ', "")).unwrap(), "{query:?}");
            let reads = command.cdb[2] == 0x0e;
            assert_eq!(command.data, if reads { Data::In(512) } else { Data::None });
            assert_eq!(command.timeout.as_ms(), 60_000);
        }
        assert_eq!(expected.len(), Query::ALL.len());
    }
}
