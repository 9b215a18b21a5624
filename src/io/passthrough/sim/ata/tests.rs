//! The simulated drive answers its queries as the decoders read them, and takes commands as drives do.

use super::*;
use crate::io::passthrough::ReadOnly;
use crate::io::passthrough::ata::Unknown;
use crate::io::passthrough::ata::hidden::{HiddenArea, HiddenBy};
use crate::io::passthrough::ata::probe::{DriveFacts, probe};
use crate::io::passthrough::ata::sanitize::{Phase, SanitizeStatus};
use crate::io::passthrough::ata::security::{Security, SecurityState};

const CRYPTO: (u16, u64) = (0x11, 0x4372_7970);
const BLOCK: (u16, u64) = (0x12, 0x426b_4572);
const FREEZE: (u16, u64) = (0x20, 0x4672_4c6b);
const ANTIFREEZE: (u16, u64) = (0x40, 0x416e_7469);
const FAILURE_MODE: u16 = 1 << 4;
const HALF: Duration = Duration::from_secs(50);
const LAYOUTS: [SenseLayout; 3] = [SenseLayout::Descriptor, SenseLayout::Fixed6_1, SenseLayout::Fixed6_12];
/// 128 sectors that are not all alike.
fn content() -> Vec<u8> {
    (0..128 * SECTOR).map(|at| (at / SECTOR) as u8 | 0x80).collect()
}

fn setup() -> Setup {
    Setup::of(content())
}

fn facts(sim: &AtaSim) -> DriveFacts {
    probe(&mut ReadOnly::new(sim.clone()))
}

fn status(sim: &AtaSim) -> SanitizeStatus {
    facts(sim).sanitize.unwrap()
}

fn security(sim: &AtaSim) -> Security {
    facts(sim).identify.unwrap().security.unwrap().unwrap()
}

fn state(sim: &AtaSim) -> SecurityState {
    security(sim).state
}

/// Whether the drive took the command: by STATUS in a descriptor, the status of SCSI where none was asked for.
fn took(reply: &Reply) -> bool {
    assert_ne!(reply.outcome, Outcome::TimedOut);
    reply.sense.get(21).is_none_or(|status| status & 1 == 0)
}

fn sanitize(sim: &AtaSim, (feature, lba): (u16, u64), count: u16) -> bool {
    took(&sim.clone().send(&order(feature, count, lba, 0xb4, None)))
}

fn password(first: [u8; 2], text: &str) -> [u8; 512] {
    let mut block = [0; 512];
    block[..2].copy_from_slice(&first);
    block[2..2 + text.len()].copy_from_slice(text.as_bytes());
    block
}

fn send(sim: &AtaSim, command: u8, block: Option<[u8; 512]>) -> bool {
    took(&sim.clone().send(&order(0, u16::from(block.is_some()), 0, command, block)))
}

fn with_password(sim: &AtaSim, command: u8, text: &str) -> bool {
    send(sim, command, Some(password([0, 0], text)))
}

fn erase(sim: &AtaSim, mode: u8, text: &str) -> bool {
    send(sim, 0xf3, None) && send(sim, 0xf4, Some(password([mode, 0], text)))
}

#[test]
fn an_operation_runs_for_its_time_and_through_a_loss_of_power() {
    for layout in LAYOUTS {
        let sim = AtaSim::new(Setup { layout, ..setup() });
        let idle = SanitizeStatus { phase: Phase::None, progress: None, frozen: false };
        assert_eq!(status(&sim), idle);
        assert!(sanitize(&sim, BLOCK, 0));
        sim.clock().advance(HALF);
        let half = SanitizeStatus { phase: Phase::Running, progress: Some(0x8000), frozen: false };
        assert_eq!(status(&sim), half, "{layout:?}");
        assert!(facts(&sim).identify.is_ok());
        sim.cycle_power();
        assert_eq!((status(&sim), sim.physical()), (half, content()));
        sim.clock().advance(HALF);
        assert_eq!(status(&sim), SanitizeStatus { phase: Phase::Completed, ..idle });
        assert_eq!(sim.physical(), vec![0; content().len()]);
        sim.cycle_power();
        assert_eq!(status(&sim).phase, Phase::Completed, "it is kept");
    }
}

#[test]
fn each_method_leaves_what_it_writes() {
    let after = |action, count| {
        let sim = AtaSim::new(setup());
        assert!(sanitize(&sim, action, count));
        assert!(!sanitize(&sim, action, count), "one runs");
        sim.clock().advance(2 * HALF);
        assert_eq!(status(&sim).phase, Phase::Completed);
        sim.physical()
    };
    let pattern = (0x14, 0x4f57_1234_5678);
    assert_eq!(after(pattern, 1)[..4], 0x1234_5678_u32.to_le_bytes());
    assert_eq!(after(pattern, 0x82)[..4], (!0x1234_5678_u32).to_le_bytes(), "two passes, inverted");
    assert_eq!(after(pattern, 0x80)[..4], (!0x1234_5678_u32).to_le_bytes(), "sixteen passes");
    assert_eq!(after(pattern, 0xc2)[..4], 0x1234_5678_u32.to_le_bytes(), "a definitive ending pattern");
    let scrambled = after(CRYPTO, 0);
    assert!(scrambled != content() && scrambled.iter().any(|byte| *byte != scrambled[0]));
}

#[test]
fn what_a_drive_does_not_know_begins_nothing() {
    let sim = AtaSim::new(Setup { sanitize: 0x9000, ..setup() });
    for (feature, lba, count) in [(0x11, 0x4372_7970, 0), (0x12, 0x426b_4573, 0), (0x13, 0, 0)] {
        assert!(!sanitize(&sim, (feature, lba), count));
    }
    assert_eq!(status(&sim).phase, Phase::None);
    let none = AtaSim::new(Setup { sanitize: 0, ..setup() });
    assert!(!sanitize(&none, BLOCK, 0) && !sanitize(&none, (0, 0), 0));
    assert_eq!(facts(&none).sanitize, Err(Unknown::Absent), "it is not asked");
}

#[test]
fn a_frozen_drive_sanitizes_after_a_loss_of_power_alone() {
    let sim = AtaSim::new(Setup { sanitize: 0xf400, ..setup() });
    assert!(sanitize(&sim, FREEZE, 0));
    assert!(status(&sim).frozen);
    assert!(!sanitize(&sim, BLOCK, 0) && !sanitize(&sim, ANTIFREEZE, 0));
    sim.cycle_power();
    assert!(!status(&sim).frozen);
    assert!(sanitize(&sim, ANTIFREEZE, 0));
    assert!(!sanitize(&sim, FREEZE, 0), "the lock is locked out");
    assert!(sanitize(&sim, BLOCK, 0));
}

#[test]
fn a_failure_is_left_as_its_mode_says() {
    for (mode, cleared) in [(0, false), (FAILURE_MODE, true)] {
        let sim = AtaSim::new(Setup { sanitize_fails: true, ..setup() });
        assert!(sanitize(&sim, BLOCK, mode));
        sim.clock().advance(2 * HALF);
        assert_eq!(status(&sim).phase, Phase::Failed);
        sim.cycle_power();
        assert_eq!(status(&sim).phase, Phase::Failed, "it is kept");
        assert_eq!(sanitize(&sim, (0, 0), 1), cleared);
        assert_eq!(status(&sim).phase, if cleared { Phase::None } else { Phase::Failed });
        assert!(sanitize(&sim, CRYPTO, mode), "another operation leads out of it");
    }
}

#[test]
fn a_password_locks_the_drive_at_the_next_power_on() {
    let sim = AtaSim::new(setup());
    assert_eq!(state(&sim), SecurityState::Disabled);
    assert!(with_password(&sim, 0xf1, "abc"));
    assert_eq!(state(&sim), SecurityState::Unlocked);
    sim.cycle_power();
    assert_eq!(state(&sim), SecurityState::Locked);
    assert!(!with_password(&sim, 0xf6, "abc"), "it is locked");
    assert!(!sanitize(&sim, BLOCK, 0), "and does not sanitize");
    assert!(with_password(&sim, 0xf2, "abc"));
    assert_eq!(state(&sim), SecurityState::Unlocked);
    assert!(send(&sim, 0xf5, None));
    assert_eq!(state(&sim), SecurityState::UnlockedFrozen);
    assert!(!with_password(&sim, 0xf6, "abc"), "it is frozen");
    sim.cycle_power();
    assert!(with_password(&sim, 0xf2, "abc") && with_password(&sim, 0xf6, "abc"));
    assert_eq!(state(&sim), SecurityState::Disabled);
}

#[test]
fn five_wrong_passwords_are_the_last() {
    let sim = AtaSim::new(setup());
    assert!(with_password(&sim, 0xf1, "abc"));
    sim.cycle_power();
    for _ in 0..4 {
        assert!(!with_password(&sim, 0xf2, "wrong"));
    }
    assert!(!security(&sim).attempts_expired);
    assert!(!with_password(&sim, 0xf2, "wrong"));
    assert!(security(&sim).attempts_expired);
    assert!(!with_password(&sim, 0xf2, "abc") && !erase(&sim, 0, "abc"), "nor is the right one");
    sim.cycle_power();
    assert!(!security(&sim).attempts_expired && with_password(&sim, 0xf2, "abc"));
}

#[test]
fn a_security_erase_needs_its_preparation_and_ends_without_a_password() {
    let sim = AtaSim::new(setup());
    assert!(with_password(&sim, 0xf1, "abc"));
    assert!(!with_password(&sim, 0xf4, "abc"), "not prepared");
    assert!(send(&sim, 0xf3, None));
    facts(&sim);
    assert!(!with_password(&sim, 0xf4, "abc"), "another command came between");
    assert!(!erase(&sim, 0, "wrong"));
    sim.cycle_power();
    let began = sim.clock().now();
    assert!(erase(&sim, 2, "abc"), "a locked drive takes it");
    assert_eq!(sim.clock().now() - began, 2 * HALF);
    assert_eq!((state(&sim), sim.physical()), (SecurityState::Disabled, vec![0x55; content().len()]));
    let normal = AtaSim::new(Setup { erase_words: Some((30, None)), ..setup() });
    assert!(with_password(&normal, 0xf1, "abc"));
    assert!(!erase(&normal, 2, "abc"), "it has no enhanced mode");
    assert!(erase(&normal, 0, "abc"));
    assert_eq!(normal.physical(), vec![0; content().len()]);
}

/// The kernel resets a drive that does not answer in time.
#[test]
fn an_erase_that_is_cut_off_leaves_the_drive_locked() {
    let sim = AtaSim::new(Setup { erase_time: Duration::from_secs(2 * 3600), ..setup() });
    assert!(with_password(&sim, 0xf1, "abc") && send(&sim, 0xf3, None));
    let reply = sim.clone().send(&order(0, 1, 0, 0xf4, Some(password([0, 0], "abc"))));
    assert_eq!(reply.outcome, Outcome::TimedOut);
    assert_eq!((state(&sim), sim.physical()), (SecurityState::Locked, content()));
}

#[test]
fn the_master_password_of_a_drive_of_maximum_security_erases_and_no_more() {
    for (maximum, unlocks) in [(0, true), (1, false)] {
        let sim = AtaSim::new(setup());
        assert!(send(&sim, 0xf1, Some(password([1, 0], "master"))));
        assert_eq!((state(&sim), security(&sim).master_identifier), (SecurityState::Disabled, 0));
        assert!(send(&sim, 0xf1, Some(password([0, maximum], "abc"))));
        assert_eq!(security(&sim).master_maximum, maximum == 1);
        sim.cycle_power();
        assert_eq!(send(&sim, 0xf2, Some(password([1, 0], "master"))), unlocks);
        assert!(erase(&sim, 1, "master"));
        assert_eq!(state(&sim), SecurityState::Disabled);
    }
}

#[test]
fn a_firmware_that_freezes_a_drive_does_so_at_each_power_on() {
    let sim = AtaSim::new(Setup { firmware_freezes: true, ..setup() });
    assert_eq!((state(&sim), status(&sim).frozen), (SecurityState::DisabledFrozen, true));
    assert!(!with_password(&sim, 0xf1, "abc") && !sanitize(&sim, BLOCK, 0));
    sim.cycle_power();
    assert_eq!((state(&sim), status(&sim).frozen), (SecurityState::DisabledFrozen, true));
}

#[test]
fn a_locked_drive_says_whether_it_sanitizes() {
    for sanitizes_locked in [false, true] {
        let sim = AtaSim::new(Setup { sanitizes_locked, ..setup() });
        assert_eq!(facts(&sim).sanitizes_locked, Err(Unknown::Absent), "it is not locked");
        with_password(&sim, 0xf1, "abc");
        sim.cycle_power();
        assert_eq!(facts(&sim).sanitizes_locked, Ok(sanitizes_locked));
        assert!(!sanitize(&sim, BLOCK, FAILURE_MODE), "restricted operations alone");
        assert_eq!(sanitize(&sim, BLOCK, 0), sanitizes_locked);
    }
}

fn area(by: HiddenBy, native: u64, visible: u64) -> Result<HiddenArea, (HiddenBy, Unknown)> {
    Ok(HiddenArea { by, native_bytes: native * SECTOR, visible_bytes: visible * SECTOR })
}

/// Both areas, each with data of its own: they go one after the other, with a loss of power between.
#[test]
fn hidden_areas_are_found_and_given_back_in_their_order() {
    for layout in LAYOUTS {
        let hiding = Setup { overlay: Some(100), protected: Some(60), layout, ..setup() };
        let sim = AtaSim::new(hiding);
        let both = [area(HiddenBy::Hpa, 100, 60), area(HiddenBy::Dco, 128, 100)];
        assert_eq!(facts(&sim).hidden, both, "{layout:?}");
        let set_max = |last: u64, keeps: u16| {
            sim.clone().send(&order(0, 0, 0, 0x27, None));
            sim.clone().send(&order(0, keeps, last, 0x37, None));
        };
        let restore = || sim.clone().send(&order(0xc0, 0, 0, 0xb1, None));
        restore();
        assert_eq!(facts(&sim).hidden, both, "not while the other one is there");
        sim.clone().send(&order(0, 1, 99, 0x37, None));
        assert_eq!(facts(&sim).hidden, both, "not without reading the native one before");
        set_max(99, 0);
        assert_eq!(facts(&sim).hidden, [area(HiddenBy::Dco, 128, 100)]);
        sim.cycle_power();
        assert_eq!(facts(&sim).hidden, both, "it was not kept");
        set_max(99, 1);
        set_max(59, 1);
        assert_eq!(facts(&sim).hidden, [area(HiddenBy::Dco, 128, 100)], "one change that is kept, each time");
        sim.cycle_power();
        restore();
        assert_eq!(facts(&sim).hidden, []);
        assert_eq!(facts(&sim).identify.unwrap().sectors, 128);
        assert_eq!(sim.physical(), content());
    }
}

#[test]
fn the_normal_erase_reaches_what_is_visible_alone() {
    let after = |mode| {
        let sim = AtaSim::new(Setup { protected: Some(60), ..setup() });
        assert!(with_password(&sim, 0xf1, "abc") && erase(&sim, mode, "abc"));
        sim.physical()[60 * SECTOR as usize..].to_vec()
    };
    assert_eq!(after(0), content()[60 * SECTOR as usize..]);
    assert_ne!(after(2), content()[60 * SECTOR as usize..]);
}

#[test]
fn an_accessible_maximum_is_found_and_frozen() {
    let sim = AtaSim::new(Setup { accessible: Some(60), ..setup() });
    assert_eq!(facts(&sim).hidden, [area(HiddenBy::Ama, 128, 60)]);
    let set = || took(&sim.clone().send(&order(1, 0, 127, 0x78, None)));
    assert!(took(&sim.clone().send(&order(2, 0, 0, 0x78, None))) && !set());
    sim.cycle_power();
    assert!(set());
    assert_eq!(facts(&sim).hidden, []);
}

#[test]
fn an_overlay_that_the_firmware_froze_is_not_known() {
    for layout in LAYOUTS {
        let sim = AtaSim::new(Setup { overlay: Some(100), firmware_freezes: true, layout, ..setup() });
        let refused = Unknown::Refused { status: 0x51, error: 0x04 };
        assert_eq!(facts(&sim).hidden, [Err((HiddenBy::Dco, refused))], "{layout:?}");
    }
    let sim = AtaSim::new(Setup { overlay: Some(100), ..setup() });
    sim.clone().send(&order(0xc1, 0, 0, 0xb1, None));
    assert!(facts(&sim).hidden[0].is_err());
}

#[test]
fn a_way_without_registers_shows_no_status() {
    for (layout, why) in [(SenseLayout::Absent, Unknown::Absent), (SenseLayout::Zero, Unknown::Zeroes)] {
        let sim = AtaSim::new(Setup { layout, protected: Some(60), ..setup() });
        let facts = facts(&sim);
        assert!(facts.identify.is_ok());
        assert_eq!((facts.sanitize, facts.hidden), (Err(why), vec![Err((HiddenBy::Hpa, why))]));
    }
}

#[test]
fn other_commands_are_refused_on_the_way() {
    let timeout = CommandTimeout::new(HALF);
    let inquiry = Request::Scsi(ScsiCommand { cdb: vec![0x12, 0, 0, 0, 96, 0], data: Data::In(96), timeout });
    for layout in LAYOUTS {
        let mut sim = AtaSim::new(Setup { layout, ..setup() });
        let refused = crate::io::passthrough::ata::registers::Registers::of(&sim.send(&inquiry));
        assert_eq!(refused, Err(Unknown::Sense(5, 0x20, 0)));
        assert_eq!(sim.requests(), std::slice::from_ref(&inquiry));
    }
}
