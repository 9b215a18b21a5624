//! Pass-through: a drive's own commands as bytes, on a block descriptor that is already open.
//!
//! The block node of a namespace takes commands itself (Linux `drivers/nvme/host/ioctl.c`), so the drive that a
//! command reaches is the one that was claimed. [`PassThrough`] carries bytes and decodes nothing:
//! what is sent is made, and what is answered is read, by the pure functions of [`nvme`], [`scsi`]
//! and [`ata`].

use std::time::Duration;

pub mod ata;
pub mod linux;
pub mod nvme;
#[cfg(any(test, feature = "internals"))]
pub mod script;
pub mod scsi;
pub mod sim;

/// A way to one drive. A call returns when the drive has answered, or when the command's timeout is over.
pub trait PassThrough {
    /// Sends one command. Never fails as a call: what went wrong is part of the reply.
    fn send(&mut self, request: &Request) -> Reply;
}

impl<P: PassThrough + ?Sized> PassThrough for &mut P {
    fn send(&mut self, request: &Request) -> Reply {
        (**self).send(request)
    }
}

/// One command as a drive sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// An NVMe command (NVM Express Base Specification).
    Nvme(NvmeCommand),
    /// A SCSI command (SPC), in which ATA commands travel too (SAT, ATA PASS-THROUGH).
    Scsi(ScsiCommand),
}

/// The fields of an NVMe command that a host chooses; all others are 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NvmeCommand {
    /// Which set its opcode is of.
    pub queue: Queue,
    /// Bits 7:0 of dword 0.
    pub opcode: u8,
    /// The namespace, 0 for none and FFFFFFFFh for all.
    pub nsid: u32,
    /// Dwords 10 to 15.
    pub dwords: [u32; 6],
    /// What is transferred with it.
    pub data: Data,
    /// How long the kernel waits for the completion.
    pub timeout: CommandTimeout,
}

/// Where a command is queued; the same opcode means another command in the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// The controller's ("Admin Command Set").
    Admin,
    /// One of those for the namespace of the block node ("I/O Command Set").
    Io,
}

/// A SCSI command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScsiCommand {
    /// The command descriptor block: 6 to 16 bytes.
    pub cdb: Vec<u8>,
    /// What is transferred with it.
    pub data: Data,
    /// How long the kernel waits for its status.
    pub timeout: CommandTimeout,
}

/// The data of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// The command transfers none.
    None,
    /// Bytes from the drive: their number.
    In(usize),
    /// These bytes to the drive.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "no NVMe command here sends data")
    )]
    Out(Vec<u8>),
}

impl Request {
    /// Whether a drive that gets it holds, and is set to, the same afterwards. Allow-lists, of commands without
    /// data to the drive.
    pub fn only_reads(&self) -> bool {
        let (only_reads, data) = match self {
            Request::Nvme(command) => (nvme::only_reads(command), &command.data),
            Request::Scsi(command) => (scsi::only_reads(&command.cdb), &command.data),
        };
        only_reads && !matches!(data, Data::Out(_))
    }

    /// How long the kernel waits for its end.
    pub fn timeout(&self) -> Duration {
        let timeout = match self {
            Request::Nvme(command) => command.timeout,
            Request::Scsi(command) => command.timeout,
        };
        Duration::from_millis(timeout.as_ms().into())
    }
}

/// How long the kernel waits for one command: from 1 ms to 24 days, never 0, which the kernel takes for its
/// default of 60 s. After that time it resets controller or bus, and what became of the command is not known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CommandTimeout(u32);

impl CommandTimeout {
    /// More milliseconds are no number of jiffies (`msecs_to_jiffies` of the kernel).
    const MAX_MS: u32 = i32::MAX as u32;

    /// The nearest possible one.
    pub const fn new(time: Duration) -> CommandTimeout {
        let ms = time.as_millis();
        CommandTimeout(match ms {
            0 => 1,
            _ if ms > Self::MAX_MS as u128 => Self::MAX_MS,
            _ => ms as u32,
        })
    }

    /// In milliseconds, never 0.
    pub fn as_ms(self) -> u32 {
        self.0
    }
}

/// What came back, undecoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Whether the drive answered, and what.
    pub outcome: Outcome,
    /// Dwords 0 and 1 of the completion; 0 where there was none.
    pub result: u64,
    /// What the drive sent; empty unless the command succeeded.
    pub data: Vec<u8>,
    /// Sense data of a SCSI command, which also comes with success; else empty.
    pub sense: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The drive's status, 0 for success. Of NVMe: bits 15:1 of the last word of the completion; of SCSI: the
    /// status byte.
    Status(u16),
    /// The error of the system call; there was no completion.
    Errno(i32),
    /// The kernel gave up waiting, or reset the controller meanwhile: the drive may have taken the command.
    TimedOut,
}

impl Reply {
    /// A reply without data.
    pub fn of(outcome: Outcome) -> Reply {
        Reply { outcome, result: 0, data: Vec::new(), sense: Vec::new() }
    }
}

/// A way to a drive on which nothing but queries can be sent: listing and planning change no drive.
pub struct ReadOnly<P>(P);

impl<P: PassThrough> ReadOnly<P> {
    /// From here on this way is for queries alone.
    pub fn new(path: P) -> ReadOnly<P> {
        ReadOnly(path)
    }

    /// Sends a query.
    ///
    /// # Panics
    /// Where a query encodes a command that is not on the allow-list of [`Request::only_reads`].
    pub fn ask(&mut self, query: impl Into<Request>) -> Reply {
        let request = query.into();
        assert!(request.only_reads(), "a query that changes the drive: {request:?}");
        self.0.send(&request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_0_and_never_wraps() {
        let ms = |time| CommandTimeout::new(time).as_ms();
        assert_eq!(ms(Duration::ZERO), 1);
        assert_eq!(ms(Duration::from_nanos(1)), 1);
        assert_eq!(ms(Duration::from_secs(120)), 120_000);
        assert_eq!(ms(Duration::from_millis(1 << 31)), i32::MAX as u32);
        assert_eq!(ms(Duration::from_millis(1 << 32)), i32::MAX as u32);
        assert_eq!(ms(Duration::MAX), i32::MAX as u32);
    }

    #[test]
    fn what_counts_as_reading() {
        let command = |queue, opcode, log, data| {
            let timeout = CommandTimeout::new(Duration::from_secs(1));
            let dwords = [log, 0, 0, 0, 0, 0];
            Request::Nvme(NvmeCommand { queue, opcode, nsid: 0, dwords, data, timeout })
        };
        let reading = |queue, log: u32, data: fn() -> Data| -> Vec<u8> {
            (0..=u8::MAX).filter(|opcode| command(queue, *opcode, log, data()).only_reads()).collect()
        };
        assert_eq!(reading(Queue::Admin, 0x81, || Data::In(512)), [0x02, 0x06, 0x0a]);
        assert_eq!(reading(Queue::Io, 0x81, || Data::In(512)), [0x0e]);
        for queue in [Queue::Admin, Queue::Io] {
            assert!(reading(queue, 0x81, || Data::Out(vec![0; 512])).is_empty());
        }
        // Telemetry is created, and a persistent event log's context is established, by reading them.
        let reads = |log: &u32| command(Queue::Admin, 0x02, *log, Data::In(512)).only_reads();
        assert_eq!((0..=0xff).filter(reads).collect::<Vec<u32>>(), [0x05, 0x81]);
    }
}
