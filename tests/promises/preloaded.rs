//! Real tools with a preloaded library in the place of their ioctls: their commands reach a simulated drive.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use efface::internals::io::passthrough::{
    CommandTimeout, Data, Outcome, PassThrough, Reply, Request, ScsiCommand,
};
use tempfile::NamedTempFile;

use crate::loops::skipped;

const HANGS_AFTER: Duration = Duration::from_secs(60);

/// scsi/sg.h
const SG_IO: u32 = 0x2285;

/// The compiled library, in a folder that Cargo has for such files.
static SHIM: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promises/preloaded/shim.rs");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let made = NamedTempFile::new_in(&folder).unwrap().into_temp_path();
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=cdylib", source, "-o"]).arg(&made);
    let output = command.output().map_err(|error| format!("rustc does not start: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shim = folder.join("preloaded_shim.so");
    made.persist(&shim).unwrap();
    Ok(shim)
});

/// A tool.
pub struct Tool {
    program: PathBuf,
    shim: PathBuf,
}

/// An ioctl of a tool.
pub struct Call {
    pub number: u32,
    /// What its argument points to.
    pub structure: Vec<u8>,
    /// Of SG_IO the CDB, and the data that goes to the drive.
    scsi: Vec<u8>,
}

/// What it is answered with.
pub struct Answer {
    /// As ioctl(2) returns it, an errno negative.
    pub value: i32,
    /// As long as it was.
    pub structure: Vec<u8>,
    /// Bytes, and the addresses of the structure where they go.
    pub writes: Vec<(u64, Vec<u8>)>,
}

impl Tool {
    /// `None` where the test is skipped.
    pub fn find(name: &str, package: &str) -> Option<Tool> {
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(program) = env::split_paths(&path).map(|it| it.join(name)).find(|it| it.is_file()) else {
            return skipped(&format!("there is no {name} (Debian package {package})"));
        };
        match &*SHIM {
            Ok(shim) => Some(Tool { program, shim: shim.clone() }),
            Err(why) => skipped(why),
        }
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str], mut answer: impl FnMut(&Call) -> Answer) -> Output {
        let (mut test, tool) = UnixStream::pair().unwrap();
        test.set_read_timeout(Some(HANGS_AFTER)).unwrap();
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("LD_PRELOAD", &self.shim);
        command.stdin(OwnedFd::from(tool)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // It has the tool's end of the socket, which is to be closed when the tool ends.
        drop(command);
        while let Some(call) = receive(&mut test) {
            send(&mut test, &answer(&call));
        }
        child.wait_with_output().unwrap()
    }
}

/// The next ioctl; `None` when the tool has ended.
fn receive(tool: &mut UnixStream) -> Option<Call> {
    let mut number = [0; 4];
    match tool.read_exact(&mut number) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        read => read.unwrap(),
    }
    let mut bytes = || {
        let mut length = [0; 4];
        tool.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_ne_bytes(length) as usize];
        tool.read_exact(&mut bytes).unwrap();
        bytes
    };
    Some(Call { number: u32::from_ne_bytes(number), structure: bytes(), scsi: bytes() })
}

fn send(tool: &mut UnixStream, answer: &Answer) {
    let counted = |bytes: &[u8]| [&(bytes.len() as u32).to_ne_bytes(), bytes].concat();
    let mut sent = [&answer.value.to_ne_bytes()[..], &counted(&answer.structure)].concat();
    sent.extend((answer.writes.len() as u32).to_ne_bytes());
    for (address, bytes) in &answer.writes {
        sent.extend([&address.to_ne_bytes()[..], &counted(bytes)].concat());
    }
    tool.write_all(&sent).unwrap();
}

/// A number of the structure of an ioctl, or an address.
pub fn number(structure: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(structure[at..at + 4].try_into().unwrap())
}

pub fn address(structure: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(structure[at..at + 8].try_into().unwrap())
}

impl Call {
    /// The command of an SG_IO (`struct sg_io_hdr`), as the drive gets it.
    pub fn scsi(&self) -> ScsiCommand {
        let header = &self.structure;
        assert_eq!((self.number, header[0]), (SG_IO, b'S'), "another ioctl, or interface_id");
        let (cdb, sent) = self.scsi.split_at(header[8].into());
        let data = match number(header, 4) as i32 {
            -1 => Data::None,
            -2 => Data::Out(sent.to_vec()),
            -3 => Data::In(number(header, 12) as usize),
            direction => panic!("dxfer_direction {direction}"),
        };
        let timeout = CommandTimeout::new(Duration::from_millis(number(header, 40).into()));
        ScsiCommand { cdb: cdb.to_vec(), data, timeout }
    }

    /// Its answer: what this drive replies.
    pub fn scsi_answer(&self, reply: &Reply) -> Answer {
        const DRIVER_SENSE: u16 = 8;
        let Outcome::Status(status) = reply.outcome else { panic!("{reply:?}") };
        let mut structure = self.structure.clone();
        let sense = &reply.sense[..reply.sense.len().min(structure[9].into())];
        let data = &reply.data[..reply.data.len().min(number(&structure, 12) as usize)];
        // status, masked_status, sb_len_wr, driver_status.
        (structure[64], structure[65], structure[67]) =
            (status as u8, status as u8 >> 1 & 0x1f, sense.len() as u8);
        let driver = if sense.is_empty() { 0 } else { DRIVER_SENSE };
        structure[70..72].copy_from_slice(&driver.to_ne_bytes());
        // resid
        let left = number(&structure, 12) - data.len() as u32;
        structure[72..76].copy_from_slice(&left.to_ne_bytes());
        let writes = [(16, data), (32, sense)];
        let writes = writes.map(|(at, bytes)| (address(&structure, at), bytes.to_vec())).to_vec();
        Answer { value: 0, structure, writes }
    }
}

/// One run of a tool that sends SCSI commands.
pub struct ScsiRun {
    /// The commands that it sent, in order.
    pub commands: Vec<ScsiCommand>,
    pub output: Output,
}

impl Tool {
    /// Runs it to its end on a device that is this drive: a file that knows no command at all.
    pub fn run_scsi(&self, drive: &mut dyn PassThrough, arguments: &[&str]) -> ScsiRun {
        let device = NamedTempFile::new().unwrap();
        let path = device.path().to_str().unwrap();
        let mut commands = Vec::new();
        let output = self.run(&[arguments, &[path]].concat(), |call| {
            let command = call.scsi();
            let reply = drive.send(&Request::Scsi(command.clone()));
            commands.push(command);
            call.scsi_answer(&reply)
        });
        ScsiRun { commands, output }
    }
}
