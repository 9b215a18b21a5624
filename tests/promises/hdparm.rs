//! The real `hdparm` (9.65 where this was written) asks a drive what efface asks, and reads from its answers what
//! efface reads. Of drives that refuse, it says what docs/purge.md has of it.

use std::time::Duration;

use efface::internals::io::passthrough::ata::Unknown;
use efface::internals::io::passthrough::ata::commands::Query;
use efface::internals::io::passthrough::ata::hidden::{HiddenArea, HiddenBy};
use efface::internals::io::passthrough::ata::probe::{DriveFacts, probe};
use efface::internals::io::passthrough::ata::sanitize::{Phase, SanitizeStatus};
use efface::internals::io::passthrough::ata::security::{EraseTime, Security, SecurityState};
use efface::internals::io::passthrough::sim::ata::{AtaSim, SECTOR, SenseLayout, Setup, order};
use efface::internals::io::passthrough::{PassThrough, ReadOnly, Request, ScsiCommand};

use crate::preloaded::{ScsiRun, Tool};

const STATUS: &[&str] = &["--sanitize-status"];
const HALF: Duration = Duration::from_secs(50);

fn hdparm() -> Option<Tool> {
    Tool::find("hdparm", "hdparm")
}

fn setup() -> Setup {
    Setup { protected: Some(60), overlay: Some(100), ..Setup::of(vec![7; 128 * SECTOR as usize]) }
}

fn facts(sim: &AtaSim) -> DriveFacts {
    probe(&mut ReadOnly::new(sim.clone()))
}

fn run(hdparm: &Tool, sim: &AtaSim, arguments: &[&str]) -> ScsiRun {
    hdparm.run_scsi(&mut sim.clone(), arguments)
}

/// What it prints where it succeeds.
fn printed(hdparm: &Tool, sim: &AtaSim, arguments: &[&str]) -> String {
    let run = run(hdparm, sim, arguments);
    assert!(run.output.status.success() && !run.commands.is_empty(), "{arguments:?}: {:?}", run.output);
    String::from_utf8(run.output.stdout).unwrap()
}

/// What stands behind a name, on its line.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim()
}

#[test]
fn hdparm_and_efface_ask_the_same() {
    let Some(hdparm) = hdparm() else { return };
    let sim = AtaSim::new(setup());
    let identify = Query::Identify;
    let expected: [(&str, &[Query]); 4] = [
        ("-I", &[identify]),
        ("--sanitize-status", &[identify, Query::SanitizeStatus]),
        ("-N", &[identify, Query::NativeMax]),
        ("--dco-identify", &[Query::DeviceConfiguration]),
    ];
    for (argument, queries) in expected {
        let theirs = run(&hdparm, &sim, &[argument]).commands;
        let ours = queries.iter().zip(&theirs).map(|(query, theirs)| {
            let Request::Scsi(ours) = query.request() else { panic!() };
            // How long to wait is up to each.
            ScsiCommand { timeout: theirs.timeout, ..ours }
        });
        assert_eq!((theirs.len(), ours.collect()), (queries.len(), theirs), "{argument}");
    }
}

/// In the words of the tool: "not" before what is not.
fn security(text: &str) -> Security {
    let section = text.split("Security:").nth(1).unwrap_or_else(|| panic!("{text}"));
    let is = |word: &str| {
        let line = section.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{text}"));
        !line.trim_start().starts_with("not")
    };
    let minutes = |before: &str| {
        let at = section.find(before).unwrap_or_else(|| panic!("{before} in {text}"));
        let number = section[..at].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
        EraseTime::About(number.parse().unwrap())
    };
    let state = match (is("enabled"), is("locked"), is("frozen")) {
        (false, _, false) => SecurityState::Disabled,
        (false, _, true) => SecurityState::DisabledFrozen,
        (true, true, _) => SecurityState::Locked,
        (true, false, false) => SecurityState::Unlocked,
        (true, false, true) => SecurityState::UnlockedFrozen,
    };
    Security {
        state,
        attempts_expired: is("expired"),
        master_maximum: section.contains("Security level maximum"),
        master_identifier: field(section, "Master password revision code =").parse().unwrap(),
        erase: minutes("min for SECURITY"),
        enhanced_erase: is("supported: enhanced").then(|| minutes("min for ENHANCED")),
    }
}

#[test]
fn hdparm_and_efface_read_the_same_of_a_drive() {
    let Some(hdparm) = hdparm() else { return };
    let with_password = |level: u8| {
        let sim = AtaSim::new(setup());
        let mut block = [0; 512];
        (block[1], block[2]) = (level, b'a');
        sim.clone().send(&order(0, 1, 0, 0xf1, Some(block)));
        sim
    };
    let [unlocked, locked, maximum] = [0, 0, 1].map(with_password);
    locked.cycle_power();
    let frozen = AtaSim::new(Setup { firmware_freezes: true, sanitize: 0xd000, rotation: 7200, ..setup() });
    let unlocked_frozen = with_password(0);
    unlocked_frozen.clone().send(&order(0, 0, 0, 0xf5, None));
    let expired = with_password(0);
    for _ in 0..5 {
        expired.clone().send(&order(0, 1, 0, 0xf6, Some([0; 512])));
    }
    for sim in [AtaSim::new(setup()), unlocked, locked, maximum, frozen, unlocked_frozen, expired] {
        let text = printed(&hdparm, &sim, &["-I"]);
        let ours = facts(&sim).identify.unwrap();
        assert_eq!(field(&text, "Model Number:"), ours.model);
        assert_eq!(field(&text, "Serial Number:"), ours.serial);
        assert_eq!(field(&text, "Firmware Revision:"), ours.firmware);
        assert_eq!(field(&text, "LBA48  user addressable sectors:"), ours.sectors.to_string());
        assert_eq!(field(&text, "Logical/Physical Sector size:"), format!("{} bytes", ours.sector_bytes));
        let wwn = ours.wwn.map(|wwn| format!("{wwn:016x}"));
        assert_eq!(Some(field(&text, "Logical Unit WWN Device Identifier:").into()), wwn);
        let rotates = field(&text, "Nominal Media Rotation Rate:") != "Solid State Device";
        assert_eq!(Some(rotates), ours.rotates);
        let offered = ours.sanitize.unwrap();
        let has = |feature: &str| text.contains(feature);
        let theirs = ["BLOCK_ERASE_EXT", "CRYPTO_SCRAMBLE_EXT", "OVERWRITE_EXT"].map(has);
        assert_eq!(theirs, [offered.block_erase, offered.crypto_scramble, offered.overwrite], "{text}");
        assert_eq!(has("Host Protected Area"), ours.protected_area);
        assert_eq!(has("Device Configuration Overlay"), ours.configuration_overlay);
        assert_eq!(has("General Purpose Logging"), ours.logs);
        assert_eq!(security(&text), ours.security.unwrap().unwrap(), "{text}");
    }
}

#[test]
fn hdparm_and_efface_read_the_same_status() {
    let Some(hdparm) = hdparm() else { return };
    let text = |sim: &AtaSim| printed(&hdparm, sim, &["--sanitize-status"]);
    let theirs = |sim: &AtaSim| {
        let text = text(sim);
        let state = field(&text, "State:");
        let without_error = text.contains("Last Sanitize Operation Completed Without Error");
        let progress = text.lines().find_map(|line| line.trim().strip_prefix("Progress: 0x"));
        SanitizeStatus {
            phase: match &state[..3] {
                "SD2" => Phase::Running,
                _ if without_error => Phase::Completed,
                _ => Phase::None,
            },
            progress: progress.map(|number| u16::from_str_radix(&number[..4], 16).unwrap()),
            frozen: state.starts_with("SD1"),
        }
    };
    let same = |sim: &AtaSim| assert_eq!(Ok(theirs(sim)), facts(sim).sanitize, "{}", text(sim));
    let sim = AtaSim::new(setup());
    same(&sim);
    sim.clone().send(&order(0x12, 0, 0x426b_4572, 0xb4, None));
    sim.clock().advance(HALF);
    same(&sim);
    assert_eq!(theirs(&sim).progress, Some(0x8000));
    sim.clock().advance(HALF);
    same(&sim);
    assert_eq!(theirs(&sim).phase, Phase::Completed);
    same(&AtaSim::new(Setup { firmware_freezes: true, ..setup() }));
}

#[test]
fn hdparm_and_efface_see_the_same_hidden_areas() {
    let Some(hdparm) = hdparm() else { return };
    for (protected, overlay) in [(60, 100), (100, 100), (128, 128), (60, 128)] {
        let sim = AtaSim::new(Setup { protected: Some(protected), overlay: Some(overlay), ..setup() });
        let text = printed(&hdparm, &sim, &["-N"]);
        let (numbers, state) = field(&text, "max sectors   =").split_once(',').unwrap();
        let (visible, native) = numbers.split_once('/').unwrap();
        let [visible, native]: [u64; 2] = [visible, native].map(|number| number.parse().unwrap());
        assert_eq!(state.contains("enabled"), visible != native);
        let real = field(&printed(&hdparm, &sim, &["--dco-identify"]), "Real max sectors:").parse().unwrap();
        let area = |by, native: u64, visible: u64| {
            let area = HiddenArea { by, native_bytes: native * SECTOR, visible_bytes: visible * SECTOR };
            (native > visible).then_some(Ok(area))
        };
        let theirs = [area(HiddenBy::Hpa, native, visible), area(HiddenBy::Dco, real, native)];
        assert_eq!(theirs.into_iter().flatten().collect::<Vec<_>>(), facts(&sim).hidden);
    }
}

/// A drive that refuses, what hdparm is asked of it, its exit code, and a part of what it then says.
type Case = (AtaSim, &'static [&'static str], i32, &'static str);

fn cases(layout: SenseLayout) -> [Case; 5] {
    const CRYPTO: &[&str] = &["--yes-i-know-what-i-am-doing", "--sanitize-crypto-scramble"];
    const SET: &[&str] = &["--user-master", "u", "--security-set-pass", "p"];
    const ERASE: &[&str] = &["--user-master", "u", "--security-erase", "p"];
    let frozen = || AtaSim::new(Setup { layout, firmware_freezes: true, ..setup() });
    let failed = AtaSim::new(Setup { layout, sanitize_fails: true, ..setup() });
    failed.clone().send(&order(0x12, 0, 0x426b_4572, 0xb4, None));
    failed.clock().advance(2 * HALF);
    let drives = [failed, frozen(), frozen(), frozen(), frozen()];
    let asked = [STATUS, CRYPTO, SET, ERASE, &["--dco-identify"]];
    let answers = if layout == SenseLayout::Descriptor {
        [
            (5, "Drive in SD3 Sanitize Operation Failed state"),
            (5, "Device in FROZEN state"),
            (5, "SECURITY_SET_PASS: Input/output error"),
            (5, "ERASE_PREPARE: Input/output error"),
            (0, "HDIO_DRIVE_CMD(dco_identify) failed"),
        ]
    } else {
        [
            (0, "SD0 Sanitize Idle"),
            (0, "Operation started in background"),
            (0, "Issuing SECURITY_SET_PASS command"),
            (0, "Issuing SECURITY_ERASE command"),
            (0, "Real max sectors: 1"),
        ]
    };
    std::array::from_fn(|case| (drives[case].clone(), asked[case], answers[case].0, answers[case].1))
}

/// The table of docs/purge.md: on the same drives efface knows of the failure, or that it does not know.
#[test]
fn where_hdparm_reports_success_of_a_refused_command_efface_does_not() {
    let Some(hdparm) = hdparm() else { return };
    let layouts =
        [SenseLayout::Descriptor, SenseLayout::Fixed6_1, SenseLayout::Fixed6_12, SenseLayout::Absent];
    for layout in layouts {
        for (sim, arguments, code, says) in cases(layout) {
            let before = sim.physical();
            let efface = facts(&sim);
            let output = run(&hdparm, &sim, arguments).output;
            let text = [&output.stdout[..], &output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert_eq!(output.status.code(), Some(code), "{layout:?} {arguments:?}: {text}");
            assert!(text.contains(says), "{layout:?} {arguments:?}: {text}");
            assert_eq!(sim.physical(), before, "nothing was erased");
            match layout {
                SenseLayout::Absent => assert_eq!(efface.sanitize, Err(Unknown::Absent)),
                _ if arguments == STATUS => assert_eq!(efface.sanitize.unwrap().phase, Phase::Failed),
                _ => {
                    let refused = Unknown::Refused { status: 0x51, error: 0x04 };
                    assert!(efface.sanitize.unwrap().frozen);
                    assert_eq!(efface.hidden[1], Err((HiddenBy::Dco, refused)));
                }
            }
            let security = efface.identify.unwrap().security.unwrap().unwrap().state;
            let frozen = arguments != STATUS;
            assert_eq!(security == SecurityState::DisabledFrozen, frozen);
        }
    }
}
