//! SCSI commands by SG_IO (scsi/sg.h), which the block devices of SCSI and ATA disks take themselves.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::buffer;
use crate::io::passthrough::{Data, Outcome, Reply, ScsiCommand};

/// `struct sg_io_hdr` on machines of 64 bits, as bytes.
type Header = [u8; 88];

mod ioctl {
    // The number is from before the scheme that says size and direction.
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, super::Header);
}

/// Where its fields are.
const DIRECTION: usize = 4;
const CDB_LENGTH: usize = 8;
const SENSE_LENGTH_MAX: usize = 9;
const DATA_LENGTH: usize = 12;
const DATA: usize = 16;
const CDB: usize = 24;
const SENSE: usize = 32;
const TIMEOUT_MS: usize = 40;
const STATUS: usize = 64;
const SENSE_LENGTH: usize = 67;
const HOST_STATUS: usize = 68;
const LEFT_BYTES: usize = 72;

const DIRECTION_NONE: i32 = -1;
const DIRECTION_OUT: i32 = -2;
const DIRECTION_IN: i32 = -3;

/// The most that the kernel keeps (SCSI_SENSE_BUFFERSIZE).
const SENSE_BYTES: usize = 96;

pub(super) fn send(device: BorrowedFd, command: &ScsiCommand) -> Reply {
    let (mut data, mut sense) = (buffer(&command.data), [0; SENSE_BYTES]);
    let mut header = encode(command, &mut data, &mut sense);
    // SAFETY: the call reads and writes the 88 bytes of the header, reads the bytes of the CDB, and reads or writes
    // `data` and `sense`, as many bytes as the header says: their lengths. All of them outlive it.
    if let Err(errno) = unsafe { ioctl::sg_io(device.as_raw_fd(), &mut header) } {
        return Reply::of(Outcome::Errno(errno as i32));
    }
    decode(&header, data, &sense, &command.data)
}

fn encode(command: &ScsiCommand, data: &mut [u8], sense: &mut [u8; SENSE_BYTES]) -> Header {
    let mut header = [0; size_of::<Header>()];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    let direction = match command.data {
        Data::None => DIRECTION_NONE,
        Data::In(_) => DIRECTION_IN,
        Data::Out(_) => DIRECTION_OUT,
    };
    put(0, &i32::from(b'S').to_ne_bytes());
    put(DIRECTION, &direction.to_ne_bytes());
    put(CDB_LENGTH, &[command.cdb.len() as u8]);
    put(SENSE_LENGTH_MAX, &[SENSE_BYTES as u8]);
    put(DATA_LENGTH, &(data.len() as u32).to_ne_bytes());
    put(DATA, &(data.as_mut_ptr() as u64).to_ne_bytes());
    put(CDB, &(command.cdb.as_ptr() as u64).to_ne_bytes());
    put(SENSE, &(sense.as_mut_ptr() as u64).to_ne_bytes());
    put(TIMEOUT_MS, &command.timeout.as_ms().to_ne_bytes());
    header
}

/// A host status other than 0 says that no status came from the drive (scsi_status.h, DID_*): whether it took the
/// command is not known.
fn decode(header: &Header, mut data: Vec<u8>, sense: &[u8; SENSE_BYTES], asked: &Data) -> Reply {
    let host_status = u16::from_ne_bytes([header[HOST_STATUS], header[HOST_STATUS + 1]]);
    let outcome = match host_status {
        0 => Outcome::Status(header[STATUS].into()),
        _ => Outcome::TimedOut,
    };
    let left = i32::from_ne_bytes(header[LEFT_BYTES..LEFT_BYTES + 4].try_into().expect("4 bytes"));
    let received = match asked {
        Data::In(bytes) if host_status == 0 => bytes.saturating_sub(left.max(0) as usize),
        _ => 0,
    };
    data.truncate(received);
    let sense = &sense[..usize::from(header[SENSE_LENGTH]).min(SENSE_BYTES)];
    Reply { data, sense: sense.to_vec(), ..Reply::of(outcome) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::io::passthrough::CommandTimeout;

    fn inquiry() -> ScsiCommand {
        let timeout = CommandTimeout::new(Duration::from_secs(20));
        ScsiCommand { cdb: vec![0x12, 0, 0, 0, 96, 0], data: Data::In(96), timeout }
    }

    /// scsi/sg.h, field by field.
    #[test]
    fn the_header_is_that_of_the_kernel() {
        let (command, mut data, mut sense) = (inquiry(), vec![0; 96], [0; SENSE_BYTES]);
        let header = encode(&command, &mut data, &mut sense);
        let word = |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let pointer = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap());
        assert_eq!((word(0), word(4)), (i32::from(b'S'), -3), "interface_id, dxfer_direction");
        assert_eq!(
            (header[8], header[9], header[10..12].to_vec()),
            (6, 96, vec![0, 0]),
            "lengths, iovec_count"
        );
        assert_eq!((word(12), pointer(16)), (96, data.as_ptr() as u64), "dxfer_len, dxferp");
        assert_eq!(pointer(24), command.cdb.as_ptr() as u64, "cmdp");
        assert_eq!(pointer(32), sense.as_ptr() as u64, "sbp");
        assert_eq!((word(40), word(44)), (20_000, 0), "timeout, flags");
        assert!(header[48..].iter().all(|byte| *byte == 0));
        let direction = |data: Data| {
            let header = encode(&ScsiCommand { data, ..inquiry() }, &mut [], &mut [0; SENSE_BYTES]);
            i32::from_ne_bytes(header[4..8].try_into().unwrap())
        };
        assert_eq!([direction(Data::None), direction(Data::Out(vec![0; 512]))], [-1, -2]);
    }

    #[test]
    fn only_a_status_of_the_drive_is_one() {
        let reply = |status: u8, host_status: u8, left: i32, sense_length: u8| {
            let mut header = [0; 88];
            (header[64], header[67], header[68]) = (status, sense_length, host_status);
            header[72..76].copy_from_slice(&left.to_ne_bytes());
            decode(&header, vec![7; 96], &[9; SENSE_BYTES], &Data::In(96))
        };
        let good = reply(0, 0, 60, 0);
        assert_eq!((good.outcome, good.data.len(), good.sense.len()), (Outcome::Status(0), 36, 0));
        let check = reply(2, 0, 0, 22);
        assert_eq!((check.outcome, check.data.len(), check.sense), (Outcome::Status(2), 96, vec![9; 22]));
        // DID_TIME_OUT, DID_NO_CONNECT.
        for host_status in [3, 1] {
            let lost = reply(0, host_status, 0, 0);
            assert_eq!((lost.outcome, lost.data.len()), (Outcome::TimedOut, 0));
        }
        assert_eq!(reply(0, 0, -1, 255).sense.len(), SENSE_BYTES);
    }

    #[test]
    fn what_is_no_scsi_device_is_not_sent_anything() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(send(null.as_fd(), &inquiry()).outcome, Outcome::Errno(libc::ENOTTY));
    }
}
