//! The real `nvme` (2.3 where this was written), with a preloaded library in the place of its ioctls: its
//! commands reach a simulated drive.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use efface::internals::io::passthrough::{
    CommandTimeout, Data, NvmeCommand, Outcome, PassThrough, Queue, Reply, Request,
};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::loops::skipped;

/// It is a character device, which is all that the tool checks, and knows no ioctl that could do anything.
const DEVICE: &str = "/dev/null";
/// The namespace that the tool takes this device for.
const NSID: u32 = 1;
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// What the kernel takes a timeout of 0 for (`admin_timeout` of nvme_core).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

// linux/nvme_ioctl.h
const ID: u32 = 0x4e40;
const RESCAN: u32 = 0x4e46;
const ADMIN: u32 = 0xc048_4e41;
const ADMIN64: u32 = 0xc050_4e47;
const IO: u32 = 0xc048_4e43;
const IO64: u32 = 0xc050_4e48;

/// The compiled library, in a folder that Cargo has for such files.
static SHIM: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promises/nvme_cli/shim.rs");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let made = NamedTempFile::new_in(&folder).unwrap().into_temp_path();
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=cdylib", source, "-o"]).arg(&made);
    let output = command.output().map_err(|error| format!("rustc does not start: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shim = folder.join("nvme_cli_shim.so");
    made.persist(&shim).unwrap();
    Ok(shim)
});

pub struct Nvme {
    program: PathBuf,
    shim: PathBuf,
}

/// One run of the tool.
pub struct Run {
    /// The commands that it sent, in order.
    pub requests: Vec<Request>,
    pub output: Output,
}

impl Nvme {
    /// `None` where the test is skipped.
    pub fn new() -> Option<Nvme> {
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(program) = env::split_paths(&path).map(|it| it.join("nvme")).find(|it| it.is_file()) else {
            return skipped("there is no nvme (Debian package nvme-cli)");
        };
        match &*SHIM {
            Ok(shim) => Some(Nvme { program, shim: shim.clone() }),
            Err(why) => skipped(why),
        }
    }

    /// Runs it to its end: a subcommand and its options, on a device that is this drive.
    pub fn run(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> Run {
        let (mut test, tool) = UnixStream::pair().unwrap();
        test.set_read_timeout(Some(HANGS_AFTER)).unwrap();
        let mut command = Command::new(&self.program);
        command.arg(arguments[0]).arg(DEVICE).args(&arguments[1..]);
        command.env_clear().env("LD_PRELOAD", &self.shim);
        command.stdin(OwnedFd::from(tool)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // It has the tool's end of the socket, which is to be closed when the tool ends.
        drop(command);
        let requests = serve(&mut test, drive);
        Run { requests, output: child.wait_with_output().unwrap() }
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

/// Answers the tool's ioctls until it ends.
fn serve(tool: &mut UnixStream, drive: &mut dyn PassThrough) -> Vec<Request> {
    let mut requests = Vec::new();
    loop {
        let mut number = [0; 4];
        match tool.read_exact(&mut number) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return requests,
            read => read.unwrap(),
        }
        let mut command = [0; 80];
        tool.read_exact(&mut command).unwrap();
        let (value, reply) = match u32::from_ne_bytes(number) {
            ID => (NSID as i32, Reply::of(Outcome::Status(0))),
            RESCAN => (0, Reply::of(Outcome::Status(0))),
            number @ (ADMIN | ADMIN64 | IO | IO64) => {
                let queue = if matches!(number, ADMIN | ADMIN64) { Queue::Admin } else { Queue::Io };
                let request = request(queue, &command);
                let reply = drive.send(&request);
                requests.push(request);
                (returned(reply.outcome), reply)
            }
            number => panic!("the library passed on {number:#x}"),
        };
        let length = reply.data.len() as u32;
        let answer = [&value.to_ne_bytes()[..], &length.to_ne_bytes(), &reply.result.to_ne_bytes()];
        tool.write_all(&[&answer.concat()[..], &reply.data].concat()).unwrap();
    }
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
fn request(queue: Queue, command: &[u8; 80]) -> Request {
    let word = |at: usize| u32::from_ne_bytes(command[at..at + 4].try_into().unwrap());
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
