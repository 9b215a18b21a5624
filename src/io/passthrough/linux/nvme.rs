//! NVMe commands on the block device of a namespace (linux/nvme_ioctl.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::buffer;
use crate::io::passthrough::{Data, NvmeCommand, Outcome, Queue, Reply};

/// `struct nvme_passthru_cmd64`, as bytes.
type Command64 = [u8; 80];
/// `struct nvme_passthru_cmd`: as above up to the timeout, then a result of 32 bits.
type Command32 = [u8; 72];

mod ioctl {
    nix::ioctl_readwrite!(nvme_admin64_cmd, b'N', 0x47, super::Command64);
    nix::ioctl_readwrite!(nvme_admin_cmd, b'N', 0x41, super::Command32);
    nix::ioctl_readwrite!(nvme_io64_cmd, b'N', 0x48, super::Command64);
    nix::ioctl_readwrite!(nvme_io_cmd, b'N', 0x43, super::Command32);
}

/// Where the fields of both structures are.
const OPCODE: usize = 0;
const NSID: usize = 4;
const ADDRESS: usize = 24;
const DATA_LENGTH: usize = 36;
const DWORD_10: usize = 40;
const TIMEOUT_MS: usize = 64;
const RESULT_32: usize = 68;
const RESULT_64: usize = 72;

pub(super) fn send(device: BorrowedFd, command: &NvmeCommand) -> Reply {
    let mut data = buffer(&command.data);
    let (answer, result) = submit(device, command, &mut data);
    let outcome = outcome(answer);
    let received = outcome == Outcome::Status(0) && matches!(command.data, Data::In(_));
    Reply { result, data: if received { data } else { Vec::new() }, ..Reply::of(outcome) }
}

/// By the call with a result of 64 bits, and where the kernel does not know it (before 5.4) by the older one.
fn submit(device: BorrowedFd, command: &NvmeCommand, data: &mut [u8]) -> (nix::Result<i32>, u64) {
    let descriptor = device.as_raw_fd();
    let mut command64 = encode(command, data);
    // SAFETY: the calls read and write the 80 bytes of the command, and of `data`, which outlives them, as
    // many as the command says: its length.
    let answer = unsafe {
        match command.queue {
            Queue::Admin => ioctl::nvme_admin64_cmd(descriptor, &mut command64),
            Queue::Io => ioctl::nvme_io64_cmd(descriptor, &mut command64),
        }
    };
    if answer != Err(Errno::ENOTTY) {
        return (answer, u64::from_ne_bytes(bytes_at(&command64, RESULT_64)));
    }
    let mut command32: Command32 = bytes_at(&encode(command, data), 0);
    // SAFETY: as above, with 72 bytes.
    let answer = unsafe {
        match command.queue {
            Queue::Admin => ioctl::nvme_admin_cmd(descriptor, &mut command32),
            Queue::Io => ioctl::nvme_io_cmd(descriptor, &mut command32),
        }
    };
    (answer, u32::from_ne_bytes(bytes_at(&command32, RESULT_32)).into())
}

/// The command as the kernel takes it; its first 72 bytes are those of the older structure.
fn encode(command: &NvmeCommand, data: &mut [u8]) -> Command64 {
    let mut bytes = [0; size_of::<Command64>()];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(OPCODE, &[command.opcode]);
    put(NSID, &command.nsid.to_ne_bytes());
    if !data.is_empty() {
        put(ADDRESS, &(data.as_mut_ptr() as u64).to_ne_bytes());
        put(DATA_LENGTH, &(data.len() as u32).to_ne_bytes());
    }
    for (number, dword) in command.dwords.iter().enumerate() {
        put(DWORD_10 + 4 * number, &dword.to_ne_bytes());
    }
    put(TIMEOUT_MS, &command.timeout.as_ms().to_ne_bytes());
    bytes
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a field of the structure")
}

/// The driver gives a positive status, and EINTR for a command that it cancelled by a reset: its wait cannot be
/// interrupted by a signal (`nvme_execute_rq`).
fn outcome(answer: nix::Result<i32>) -> Outcome {
    match answer {
        Ok(status) => Outcome::Status(status as u16),
        Err(Errno::EINTR | Errno::ETIMEDOUT | Errno::ETIME) => Outcome::TimedOut,
        Err(errno) => Outcome::Errno(errno as i32),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;
    use std::time::Duration;

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use std::os::fd::AsFd;

    use super::*;
    use crate::io::passthrough::CommandTimeout;

    fn command(queue: Queue, data: Data) -> NvmeCommand {
        let dwords = [0x10, 0x11, 0x12, 0x13, 0x14, 0x8000_0015];
        let timeout = CommandTimeout::new(Duration::from_secs(120));
        NvmeCommand { queue, opcode: 0x84, nsid: 0xfffffffe, dwords, data, timeout }
    }

    /// linux/nvme_ioctl.h, field by field.
    #[test]
    fn the_structure_is_that_of_the_kernel() {
        let mut data = vec![0; 4096];
        let bytes = encode(&command(Queue::Admin, Data::In(4096)), &mut data);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((bytes[0], bytes[1], word(4)), (0x84, 0, 0xffff_fffe), "opcode, flags, nsid");
        assert!(bytes[8..24].iter().all(|byte| *byte == 0), "cdw2, cdw3, metadata");
        assert_eq!(bytes[24..32], (data.as_ptr() as u64).to_ne_bytes(), "addr");
        assert_eq!((word(32), word(36)), (0, 4096), "metadata_len, data_len");
        assert_eq!([40, 44, 48, 52, 56, 60].map(word), [0x10, 0x11, 0x12, 0x13, 0x14, 0x8000_0015]);
        assert_eq!(word(64), 120_000, "timeout_ms");
        assert!(bytes[68..].iter().all(|byte| *byte == 0), "result");
        assert!(
            encode(&command(Queue::Admin, Data::None), &mut [])[24..40].iter().all(|byte| *byte == 0),
            "no data"
        );
    }

    /// Where ioctls with these numbers give these errors.
    fn answers(queue: Queue, errors: &[(u64, i32)]) -> Reply {
        let refuse = |number: u64, errno: i32| {
            let condition =
                SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number).unwrap();
            let rules = vec![SeccompRule::new(vec![condition]).unwrap()];
            let rules = [(libc::SYS_ioctl, rules)].into_iter().collect();
            let errno = SeccompAction::Errno(errno as u32);
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch);
            seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
        };
        let send = || {
            errors.iter().for_each(|(number, errno)| refuse(*number, *errno));
            let null = File::open("/dev/null").unwrap();
            send(null.as_fd(), &command(queue, Data::In(512)))
        };
        thread::scope(|scope| scope.spawn(send).join().unwrap())
    }

    #[test]
    fn the_older_call_is_used_where_the_kernel_lacks_the_newer_one() {
        const ADMIN: [u64; 2] = [0xc050_4e47, 0xc048_4e41];
        const IO: [u64; 2] = [0xc050_4e48, 0xc048_4e43];
        for (queue, [newer, older], others) in [(Queue::Admin, ADMIN, IO), (Queue::Io, IO, ADMIN)] {
            let error = |errors: &[(u64, i32)]| answers(queue, errors).outcome;
            assert_eq!(error(&[]), Outcome::Errno(libc::ENOTTY), "no NVMe device");
            assert_eq!(error(&[(newer, libc::EACCES)]), Outcome::Errno(libc::EACCES), "not sent twice");
            assert_eq!(error(&[(older, libc::EPERM)]), Outcome::Errno(libc::EPERM));
            assert_eq!(error(&[(newer, libc::EINTR), (older, libc::EPERM)]), Outcome::TimedOut);
            assert_eq!(error(&others.map(|other| (other, libc::EPERM))), Outcome::Errno(libc::ENOTTY));
        }
    }

    #[test]
    fn a_status_is_kept_whole_and_a_failed_command_has_no_data() {
        assert_eq!(outcome(Ok(0)), Outcome::Status(0));
        assert_eq!(outcome(Ok(0x4286)), Outcome::Status(0x4286));
        assert_eq!(outcome(Err(Errno::EINTR)), Outcome::TimedOut);
        assert_eq!(outcome(Err(Errno::EWOULDBLOCK)), Outcome::Errno(libc::EWOULDBLOCK));
        assert!(answers(Queue::Admin, &[]).data.is_empty());
    }
}
