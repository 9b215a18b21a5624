//! The commands, byte for byte.

use std::time::Duration;

use efface::internals::io::passthrough::scsi::commands::{EraseCommand, Page, Query};
use efface::internals::io::passthrough::scsi::condition::Condition;
use efface::internals::io::passthrough::sim::scsi::{ScsiSim, Setup};
use efface::internals::io::passthrough::{Data, Outcome, PassThrough, ReadOnly, Reply, Request, ScsiCommand};

use super::{Sg3Utils, setup};
use crate::preloaded::ScsiRun;

fn ours(query: Query) -> ScsiCommand {
    let Request::Scsi(command) = query.request() else { panic!() };
    command
}

/// The CDB, and the data that goes with it.
fn hex(command: &ScsiCommand) -> String {
    match &command.data {
        Data::Out(data) => format!("{} + {}", hex::encode(&command.cdb), hex::encode(data)),
        Data::None | Data::In(_) => hex::encode(&command.cdb),
    }
}

#[test]
fn sg3_utils_and_efface_ask_the_same() {
    let Some(tools) = Sg3Utils::find() else { return };
    let cases: [(Query, &str, &[&str]); 13] = [
        (Query::Identity, "sg_inq", &["--len=36"]),
        (Query::Page(Page::Supported), "sg_vpd", &["--page=0x00"]),
        (Query::Page(Page::SerialNumber), "sg_vpd", &["--page=0x80"]),
        (Query::Page(Page::DeviceIdentification), "sg_vpd", &["--page=0x83"]),
        (Query::Page(Page::BlockDeviceCharacteristics), "sg_vpd", &["--page=0xb1"]),
        (Query::Capacity, "sg_readcap", &["--16"]),
        (Query::Ready, "sg_turs", &[]),
        (Query::Support(EraseCommand::Overwrite), "sg_opcodes", &["--opcode=0x48,1"]),
        (Query::Support(EraseCommand::BlockErase), "sg_opcodes", &["--opcode=0x48,2"]),
        (Query::Support(EraseCommand::CryptoErase), "sg_opcodes", &["--opcode=0x48,3"]),
        (Query::Support(EraseCommand::FormatUnit), "sg_opcodes", &["--opcode=0x04"]),
        (Query::Luns, "sg_luns", &[]),
        (Query::Sense, "sg_requests", &[]),
    ];
    for (query, tool, arguments) in cases {
        let sim = ScsiSim::new(setup());
        let run = tools.run(&mut sim.path(0), tool, arguments);
        assert!(run.output.status.success(), "{tool} {arguments:?}: {:?}", run.output);
        // Some ask for the name of the drive, or for a list of pages, first.
        let last = run.commands.last().unwrap();
        let mut ours = ours(query);
        if query == Query::Sense {
            // It has memory for more than it asks for.
            ours.data = Data::In(256);
        }
        assert_eq!(*last, ours, "{tool} {arguments:?}");
    }
}

/// A drive that works for a minute whenever it is asked how far it is, and has the mode page that `sg_format` asks for
/// first.
struct Minutes<'a>(&'a ScsiSim);

impl PassThrough for Minutes<'_> {
    fn send(&mut self, request: &Request) -> Reply {
        let Request::Scsi(ScsiCommand { cdb, .. }) = request else { panic!() };
        match cdb[0] {
            MODE_SENSE => {
                // A header, 16 blocks of 512 bytes, and page 01h.
                let header = [0, 26, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 2, 0, 1, 10];
                let data = [&header[..], &[0; 10]].concat();
                return Reply { data, ..Reply::of(Outcome::Status(0)) };
            }
            0x00 | 0x03 => self.0.clock().advance(Duration::from_secs(60)),
            _ => {}
        }
        self.0.path(0).send(request)
    }
}

/// MODE SENSE (10).
const MODE_SENSE: u8 = 0x5a;

/// What of a run does not only read; none asks which other logical units the drive has.
fn erasing(run: &ScsiRun) -> Vec<String> {
    const REPORT_LUNS: u8 = 0xa0;
    assert!(run.commands.iter().all(|command| command.cdb[0] != REPORT_LUNS), "{:?}", run.commands);
    let sent = run.commands.iter().map(|command| Request::Scsi(command.clone()));
    let reads =
        |(request, command): &(Request, &ScsiCommand)| request.only_reads() || command.cdb[0] == MODE_SENSE;
    let erases = sent.zip(&run.commands).filter(|it| !reads(it));
    erases.map(|(_, command)| hex(command)).collect()
}

/// SANITIZE as `sg_sanitize` sends it: what efface is to send one day.
#[test]
fn sg_sanitize_sends_these_commands() {
    let Some(tools) = Sg3Utils::find() else { return };
    let cases: [(&[&str], &str); 7] = [
        (&["--block"], "48820000000000000000"),
        (&["--crypto"], "48830000000000000000"),
        (&["--crypto", "--ause"], "48a30000000000000000"),
        (&["--overwrite", "--zero", "--ipl=4"], "48810000000000000800 + 0100000400000000"),
        (
            &["--overwrite", "--zero", "--ipl=4", "--count=2", "--invert"],
            "48810000000000000800 + 8200000400000000",
        ),
        (&["--block", "--ause"], "48a20000000000000000"),
        (&["--fail"], "489f0000000000000000"),
    ];
    for (arguments, expected) in cases {
        let sim = ScsiSim::new(setup());
        let run = tools.run(&mut Minutes(&sim), "sg_sanitize", &[arguments, &["--quick"]].concat());
        assert!(run.output.status.success(), "{arguments:?}: {:?}", run.output);
        assert_eq!(erasing(&run), [expected], "{arguments:?}");
        let erased = sim.physical() != setup().content;
        assert_eq!(erased, arguments[0] != "--fail", "{arguments:?}");
    }
}

/// The same failing drive: what each tool exits with.
#[test]
fn sg3_utils_exit_with_success_where_an_erase_failed() {
    let Some(tools) = Sg3Utils::find() else { return };
    for descriptor_sense in [false, true] {
        let failing = || ScsiSim::new(Setup { erase_fails: true, descriptor_sense, ..setup() });
        let condition = |sim: &ScsiSim| Condition::ask(&mut ReadOnly::new(sim.path(0)));
        let exit = |sim: &ScsiSim, name: &str, arguments: &[&str]| {
            let output = tools.run(&mut Minutes(sim), name, arguments).output;
            (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
        };
        let sim = failing();
        let (code, text) = exit(&sim, "sg_sanitize", &["--block", "--quick"]);
        assert_eq!(condition(&sim), Ok(Condition::SanitizeFailed));
        assert_eq!((code, text.to_lowercase().contains("fail")), (Some(0), false), "{text}");
        for (name, expected) in [("sg_requests", 0), ("sg_turs", 3)] {
            let (code, text) = exit(&sim, name, &[]);
            assert!(code == Some(expected) && text.contains("Sanitize command failed"), "{code:?}: {text}");
        }

        let sim = failing();
        let (code, text) = exit(&sim, "sg_format", &["--format", "--quick"]);
        assert_eq!(condition(&sim), Ok(Condition::FormatFailed));
        assert!(code == Some(0) && text.contains("FORMAT UNIT Complete"), "{code:?}: {text}");
    }
}

/// FORMAT UNIT as `sg_format` sends it.
#[test]
fn sg_format_sends_this_command() {
    let Some(tools) = Sg3Utils::find() else { return };
    let sim = ScsiSim::new(setup());
    let run = tools.run(&mut Minutes(&sim), "sg_format", &["--format", "--quick"]);
    assert!(run.output.status.success(), "{:?}", run.output);
    assert_eq!(erasing(&run), ["041800000000 + 00020000"]);
    assert_eq!(sim.physical(), vec![0; 8192]);
}
