//! The answers: facts as the tools print them, and as efface decodes them.

use std::time::Duration;

use efface::internals::io::passthrough::scsi::commands::EraseCommand;
use efface::internals::io::passthrough::scsi::condition::Condition;
use efface::internals::io::passthrough::scsi::pages::{Inquiry, Media, ReadAfterErase};
use efface::internals::io::passthrough::scsi::probe::{UnitFacts, probe};
use efface::internals::io::passthrough::sim::scsi::{ScsiSim, Setup};
use efface::internals::io::passthrough::{
    CommandTimeout, Data, Outcome, PassThrough, ReadOnly, Request, ScsiCommand,
};

use super::{Sg3Utils, setup};

fn facts(sim: &ScsiSim) -> UnitFacts {
    probe(&mut ReadOnly::new(sim.path(0)))
}

/// What follows a word in its line.
fn after<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find_map(|line| Some(line.split_once(word)?.1));
    line.unwrap_or_else(|| panic!("{word} in {text}")).trim()
}

#[test]
fn sg3_utils_and_efface_read_the_same_of_a_drive() {
    let Some(tools) = Sg3Utils::find() else { return };
    let sim = ScsiSim::new(Setup { units: 2, protection: 0b0011, ..setup() });
    let facts = facts(&sim);
    let print = |tool, arguments: &[&str]| tools.printed(&mut sim.path(0), tool, arguments);
    let inquiry = print("sg_inq", &[]);
    let Inquiry { vendor, product, revision } = facts.inquiry.unwrap();
    assert_eq!(after(&inquiry, "Vendor identification:"), vendor);
    assert_eq!(after(&inquiry, "Product identification:"), product);
    assert_eq!(after(&inquiry, "Product revision level:"), revision);
    let serial = print("sg_vpd", &["--page=0x80"]);
    assert_eq!(after(&serial, "Unit serial number:"), facts.serial.unwrap());
    let names = facts.names.unwrap();
    let printed = print("sg_vpd", &["--page=0x83", "--quiet"]).to_lowercase();
    let [unit, device] = [names.logical_unit, names.target_device].map(Option::unwrap);
    assert!(printed.contains(&unit.replace("naa.", "0x")), "{unit}: {printed}");
    assert!(printed.contains(&device), "{device}: {printed}");

    let capacity = facts.capacity.unwrap();
    let printed = print("sg_readcap", &["--16"]);
    assert!(
        after(&printed, "Number of logical blocks=").starts_with(&capacity.blocks.to_string()),
        "{printed}"
    );
    assert!(
        after(&printed, "Logical block length=").starts_with(&capacity.block_bytes.to_string()),
        "{printed}"
    );
    assert!(printed.contains("prot_en=1, p_type=1"), "{printed}");
    assert_eq!(capacity.protection, Some(2));
    let units = print("sg_luns", &["--decode"]);
    assert_eq!(
        units.matches("Peripheral device addressing: lun=").count(),
        facts.units.unwrap().len(),
        "{units}"
    );
}

#[test]
fn sg3_utils_and_efface_read_the_same_of_the_media() {
    let Some(tools) = Sg3Utils::find() else { return };
    for (rotation, block, crypto) in [(0, 0, 0), (1, 1, 3), (7200, 2, 1), (15000, 3, 2)] {
        let sim = ScsiSim::new(Setup { rotation, needs_write: (block, crypto), ..setup() });
        let Media { rotation_rpm, after_block_erase, after_crypto_erase } = facts(&sim).media.unwrap();
        let printed = tools.printed(&mut sim.path(0), "sg_vpd", &["--page=0xb1"]);
        let rate = match rotation_rpm {
            None => "Medium rotation rate is not reported".to_string(),
            Some(0) => "Non-rotating medium".to_string(),
            Some(rpm) => format!("Nominal rotation rate: {rpm} rpm"),
        };
        assert!(printed.contains(&rate), "{rate}: {printed}");
        let number = |read: Option<ReadAfterErase>| match read {
            None => "0",
            Some(ReadAfterErase::Completes) => "1",
            Some(ReadAfterErase::Fails) => "2",
            Some(ReadAfterErase::NeedsWrite) => "3",
        };
        assert_eq!(after(&printed, "WABEREQ="), number(after_block_erase));
        assert_eq!(after(&printed, "WACEREQ="), number(after_crypto_erase));
    }
}

#[test]
fn sg3_utils_and_efface_read_the_same_support_of_commands() {
    let Some(tools) = Sg3Utils::find() else { return };
    let sim = ScsiSim::new(Setup { sanitize_actions: vec![2], ..setup() });
    let facts = facts(&sim);
    let commands = [
        (EraseCommand::Overwrite, "--opcode=0x48,1", false),
        (EraseCommand::BlockErase, "--opcode=0x48,2", true),
        (EraseCommand::CryptoErase, "--opcode=0x48,3", false),
        (EraseCommand::FormatUnit, "--opcode=0x04", true),
    ];
    for (command, opcode, supported) in commands {
        let printed = tools.printed(&mut sim.path(0), "sg_opcodes", &[opcode]);
        assert_eq!(!printed.contains("NOT supported"), supported, "{printed}");
        assert_eq!(facts.supports(command), Ok(supported), "{command:?}");
    }
}

/// SANITIZE or FORMAT UNIT, and a quarter of its time.
fn erase(sim: &ScsiSim, sanitizes: bool) {
    let (cdb, data) = match sanitizes {
        true => (vec![0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0], Data::None),
        false => (vec![0x04, 0x18, 0, 0, 0, 0], Data::Out(vec![0, 2, 0, 0])),
    };
    let timeout = CommandTimeout::new(Duration::from_secs(60));
    let reply = sim.path(0).send(&Request::Scsi(ScsiCommand { cdb, data, timeout }));
    assert_eq!(reply.outcome, Outcome::Status(0));
    sim.clock().advance(Duration::from_secs(25));
}

/// In both formats of sense data: what runs, how far it is, and what failed.
#[test]
fn sg3_utils_and_efface_read_the_same_state() {
    let Some(tools) = Sg3Utils::find() else { return };
    for (erase_fails, sanitizes) in [(false, true), (true, true), (true, false)] {
        for format in ["--maxlen=252", "--desc"] {
            let sim = ScsiSim::new(Setup { erase_fails, descriptor_sense: format == "--desc", ..setup() });
            erase(&sim, sanitizes);
            let condition = || Condition::ask(&mut ReadOnly::new(sim.path(0))).unwrap();
            let printed = |more: &[&str]| {
                let arguments = [&[format], more].concat();
                tools.printed(&mut sim.path(0), "sg_requests", &arguments)
            };
            let (progress, percent) = (Some(0x4000), printed(&["--progress"]));
            assert!(percent.contains("25"), "{percent}");
            let (running, words) = match sanitizes {
                true => (Condition::Sanitizing { progress }, "sanitize in progress"),
                false => (Condition::Formatting { progress }, "format in progress"),
            };
            let text = printed(&[]);
            assert!(condition() == running && text.contains(words), "{text}");
            sim.clock().advance(Duration::from_secs(75));
            let text = printed(&[]);
            let words = match condition() {
                Condition::Ready => "No Sense",
                Condition::SanitizeFailed => "Sanitize command failed",
                Condition::FormatFailed => "Format command failed",
                other => panic!("{other:?}"),
            };
            assert!(text.contains(words), "{words}: {text}");
            assert_eq!(condition() == Condition::Ready, !erase_fails);
            assert_eq!(condition() == Condition::FormatFailed, erase_fails && !sanitizes);
        }
    }
}
