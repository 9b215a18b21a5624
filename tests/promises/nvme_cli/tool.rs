//! The real `nvme` (2.3 where this was written), its commands reaching a simulated drive.

use std::process::Output;
use std::time::Duration;

use efface::internals::io::passthrough::{
    CommandTimeout, Data, NvmeCommand, Outcome, PassThrough, Queue, Reply, Request,
};
use serde_json::Value;

use crate::preloaded::{Answer, Call, Tool, address, number};

/// It is a character device, which is all that the tool checks, and knows no ioctl that could do anything.
const DEVICE: &str = "/dev/null";
/// The namespace that the tool takes this device for.
const NSID: u32 = 1;
/// What the kernel takes a timeout of 0 for (`admin_timeout` of nvme_core).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

// linux/nvme_ioctl.h
const ID: u32 = 0x4e40;
const RESCAN: u32 = 0x4e46;
const ADMIN: u32 = 0xc048_4e41;
const ADMIN64: u32 = 0xc050_4e47;
const IO: u32 = 0xc048_4e43;
const IO64: u32 = 0xc050_4e48;

pub struct Nvme(Tool);

/// One run of the tool.
pub struct Run {
    /// The commands that it sent, in order.
    pub requests: Vec<Request>,
    pub output: Output,
}

impl Nvme {
    /// `None` where the test is skipped.
    pub fn new() -> Option<Nvme> {
        Tool::find("nvme", "nvme-cli").map(Nvme)
    }

    /// Runs it to its end: a subcommand and its options, on a device that is this drive.
    pub fn run(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> Run {
        let mut requests = Vec::new();
        let arguments = [&[arguments[0], DEVICE], &arguments[1..]].concat();
        let output = self.0.run(&arguments, |call| answer(call, drive, &mut requests));
        Run { requests, output }
    }

    /// What it prints of the drive's answer, as JSON.
    pub fn json(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> Value {
        let text = self.printed(drive, &[arguments, &["--output-format=json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it prints of the drive's answer, bits explained.
    pub fn explained(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> String {
        self.printed(drive, &[arguments, &["--human-readable"]].concat())
    }

    /// What it prints where it succeeds.
    pub fn printed(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> String {
        let Run { requests, output } = self.run(drive, arguments);
        assert!(output.status.success() && !requests.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What the kernel answers, of this drive.
fn answer(call: &Call, drive: &mut dyn PassThrough, requests: &mut Vec<Request>) -> Answer {
    let queue = match call.number {
        ID | RESCAN => {
            let value = if call.number == ID { NSID as i32 } else { 0 };
            return Answer { value, structure: call.structure.clone(), writes: Vec::new() };
        }
        ADMIN | ADMIN64 => Queue::Admin,
        IO | IO64 => Queue::Io,
        number => panic!("the library passed on {number:#x}"),
    };
    let request = request(queue, &call.structure);
    let reply = drive.send(&request);
    requests.push(request);
    answer_of(&reply, call)
}

/// The result is at the end of both forms of the structure.
fn answer_of(reply: &Reply, call: &Call) -> Answer {
    let mut structure = call.structure.clone();
    let result = if matches!(call.number, ADMIN64 | IO64) { 72..80 } else { 68..72 };
    let bytes = result.len();
    structure[result].copy_from_slice(&reply.result.to_ne_bytes()[..bytes]);
    let data = &reply.data[..reply.data.len().min(number(&structure, 36) as usize)];
    let writes = vec![(address(&structure, 24), data.to_vec())];
    Answer { value: returned(reply.outcome), structure, writes }
}

/// As ioctl(2) returns it, an errno negative.
fn returned(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Status(status) => status.into(),
        Outcome::Errno(errno) => -errno,
        Outcome::TimedOut => -libc::EINTR,
    }
}

/// From `struct nvme_passthru_cmd`, or its form with a result of 64 bits: they differ after the timeout alone.
fn request(queue: Queue, command: &[u8]) -> Request {
    let word = |at: usize| number(command, at);
    let unused = [&command[1..4], &command[8..24], &command[32..36]].concat();
    assert!(unused.iter().all(|byte| *byte == 0), "flags, dword 2, dword 3, metadata: {command:02x?}");
    let data = match word(36) {
        0 => Data::None,
        bytes => {
            assert_eq!(command[0] & 0b11, 0b10, "an opcode says which way its data goes: {command:02x?}");
            Data::In(bytes as usize)
        }
    };
    let timeout = match word(64) {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(ms.into()),
    };
    Request::Nvme(NvmeCommand {
        queue,
        opcode: command[0],
        nsid: word(4),
        dwords: [40, 44, 48, 52, 56, 60].map(word),
        data,
        timeout: CommandTimeout::new(timeout),
    })
}
