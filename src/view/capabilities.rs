//! What a drive offers for erasing, as lines of text.

use crate::device::capabilities::{Capabilities, DriveOffers, OfferedRung, SasOffers, SataOffers};
use crate::io::passthrough::ata;
use crate::io::passthrough::ata::hidden::{HiddenArea, HiddenBy};
use crate::io::passthrough::ata::security::EraseTime;
use crate::io::passthrough::nvme::logs::{Phase, SanitizeLog};
use crate::io::passthrough::scsi::condition::Condition;
use crate::io::passthrough::scsi::pages::ReadAfterErase;
use crate::plan::{Offer, Rung, WhyNot};
use crate::units::{bytes, share};

/// One line per rung, and what else the drive says of erasing; one line where it is not known.
pub fn capability_lines(capabilities: &Capabilities) -> Vec<String> {
    match capabilities {
        Capabilities::Answered(drive) => drive_lines(drive),
        Capabilities::AnsweredSata(drive) => sata_lines(drive),
        Capabilities::AnsweredSas(drive) => sas_lines(drive),
        Capabilities::NotKnown { why } => vec![format!("not known: {why}")],
        Capabilities::NotAsked { why } => vec![why.to_string()],
    }
}

fn drive_lines(drive: &DriveOffers) -> Vec<String> {
    let width = width(&drive.rungs);
    let rungs = drive.rungs.iter().map(|offered| rung_line(offered, width));
    let outside = match drive.protected_partitions {
        0 => None,
        1 => Some("1 partition that needs authentication (RPMB) is reached by none of these".into()),
        count => {
            Some(format!("{count} partitions that need authentication (RPMB) are reached by none of these"))
        }
    };
    rungs.chain(drive.sanitize.as_ref().and_then(state)).chain(outside).collect()
}

const NOT_SENT: &str = "efface purge does not send these yet; use efface wipe";

fn sata_lines(drive: &SataOffers) -> Vec<String> {
    let width = width(&drive.rungs);
    let time = |rung: Rung| match (rung, drive.security) {
        (Rung::SecurityErase, Some(security)) => erase_time(security.erase),
        (Rung::EnhancedSecurityErase, Some(security)) => security.enhanced_erase.and_then(erase_time),
        _ => None,
    };
    let rung = |offered: &OfferedRung| match time(offered.rung) {
        Some(time) if offered.offer == Offer::Offered => format!("{}, {time}", rung_line(offered, width)),
        _ => rung_line(offered, width),
    };
    let states = [drive.sanitize.and_then(sata_state), Some(NOT_SENT.into())];
    let hidden = drive.hidden.iter().map(hidden_line);
    let not_known = drive
        .hidden_not_known
        .iter()
        .map(|(by, why)| format!("whether an area is hidden by {} is not known: {why}", hider(*by)));
    drive.rungs.iter().map(rung).chain(hidden).chain(not_known).chain(states.into_iter().flatten()).collect()
}

fn sas_lines(drive: &SasOffers) -> Vec<String> {
    let width = width(&drive.rungs);
    let rungs = drive.rungs.iter().map(|offered| rung_line(offered, width));
    let media = drive.media;
    let states = [
        drive.condition.and_then(sas_state),
        media.and_then(|media| read_line("a block erase", media.after_block_erase?)),
        media.and_then(|media| read_line("a crypto erase", media.after_crypto_erase?)),
        units_line(drive.units.as_deref()),
        Some(NOT_SENT.into()),
    ];
    rungs.chain(states.into_iter().flatten()).collect()
}

/// What the logical unit does, or has failed to do, where that matters now.
fn sas_state(condition: Condition) -> Option<String> {
    match condition {
        Condition::Ready => None,
        Condition::Sanitizing { progress } => Some(running("sanitize operation", progress)),
        Condition::Formatting { progress } => Some(running("format", progress)),
        Condition::SanitizeFailed => Some(FAILED.into()),
        Condition::FormatFailed => Some("the last format failed, and has to be begun again".into()),
    }
}

fn read_line(after: &str, read: ReadAfterErase) -> Option<String> {
    match read {
        ReadAfterErase::Completes => None,
        ReadAfterErase::Fails | ReadAfterErase::NeedsWrite => {
            Some(format!("after {after} a block can be read only when it has been written"))
        }
    }
}

/// The logical units, where they are not this one alone.
fn units_line(units: Option<&[u16]>) -> Option<String> {
    match units {
        None => Some("which logical units the drive has is not known".into()),
        Some([_]) => None,
        Some(units) => {
            let units: Vec<String> = units.iter().map(u16::to_string).collect();
            let units = units.join(", ");
            Some(format!("logical units {units} are of one drive: what is sent to one may erase all"))
        }
    }
}

/// By the drive's own estimate.
fn erase_time(time: EraseTime) -> Option<String> {
    match time {
        EraseTime::NotReported => None,
        EraseTime::About(minutes) => Some(format!("about {minutes} min")),
        EraseTime::MoreThan(minutes) => Some(format!("more than {minutes} min")),
    }
}

fn hider(by: HiddenBy) -> &'static str {
    match by {
        HiddenBy::Hpa => "HPA",
        HiddenBy::Ama => "AMA",
        HiddenBy::Dco => "DCO",
    }
}

fn hidden_line(area: &HiddenArea) -> String {
    let &HiddenArea { by, native_bytes, visible_bytes } = area;
    let [native, visible, hidden] = [native_bytes, visible_bytes, native_bytes - visible_bytes].map(bytes);
    format!("native size {native}, visible {visible}: {hidden} hidden by {}", hider(by))
}

/// Of the most recent sanitize operation, where that matters now.
fn sata_state(status: ata::sanitize::SanitizeStatus) -> Option<String> {
    match status.phase {
        ata::sanitize::Phase::None | ata::sanitize::Phase::Completed => None,
        ata::sanitize::Phase::Running => Some(running("sanitize operation", status.progress)),
        ata::sanitize::Phase::Failed => Some(FAILED.into()),
    }
}

const FAILED: &str = "the last sanitize operation failed";

fn running(what: &str, progress: Option<u16>) -> String {
    const WHOLE: u64 = 1 << 16;
    match progress {
        Some(part) => format!("a {what} runs: {} done", share(part.into(), WHOLE)),
        None => format!("a {what} runs, and the drive does not say how far it is"),
    }
}

/// Of the longest name.
fn width(rungs: &[OfferedRung]) -> usize {
    rungs.iter().map(|offered| offered.rung.name().len()).max().unwrap_or(0)
}

fn rung_line(OfferedRung { rung, grade, offer }: &OfferedRung, width: usize) -> String {
    let answer = match offer {
        Offer::Offered if rung.overwrites() => "offered, and takes hours".into(),
        Offer::Offered => "offered".into(),
        Offer::OnlyRestricted => format!("offered, but {}", WhyNot::OnlyRestricted),
        Offer::Not(why @ WhyNot::NotKnown(_)) => why.to_string(),
        Offer::Not(why) => format!("no: {why}"),
    };
    format!("{:<width$}  {grade}  {answer}", rung.name())
}

/// Of the most recent sanitize operation, where that matters now.
fn state(log: &SanitizeLog) -> Option<String> {
    match log.phase() {
        Phase::Never | Phase::Done => None,
        Phase::Running => Some(running("sanitize operation", log.progress)),
        Phase::Failed => Some(FAILED.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::capabilities::NotAsked;
    use crate::io::passthrough::nvme::commands::{Exit, Sanitize, SanitizeMethod};
    use crate::io::passthrough::nvme::probe::probe;
    use crate::io::passthrough::scsi;
    use crate::io::passthrough::sim::ata::{self as ata_sim, AtaSim, SenseLayout, order};
    use crate::io::passthrough::sim::nvme::{Lie, NvmeSim, Setup};
    use crate::io::passthrough::sim::scsi::{self as scsi_sim, ScsiSim};
    use crate::io::passthrough::{CommandTimeout, Data, PassThrough, ReadOnly, Request, ScsiCommand};

    fn setup() -> Setup {
        Setup::of(vec![0; 8192])
    }

    fn of(sim: &NvmeSim) -> Capabilities {
        Capabilities::of(&probe(&mut ReadOnly::new(sim.path(0))))
    }

    fn text(capabilities: &Capabilities) -> String {
        capability_lines(capabilities).join("\n")
    }

    #[test]
    fn every_rung_has_a_line_with_its_worth_and_why_not() {
        let drive = NvmeSim::new(Setup { sanicap: 0b111, ..setup() });
        assert_eq!(
            text(&of(&drive)),
            "sanitize-block      Purge  offered\n\
             sanitize-crypto     Purge  offered\n\
             sanitize-overwrite  Purge  offered, and takes hours\n\
             format-crypto       Purge  offered\n\
             format-user-data    Clear  offered"
        );
        let small = NvmeSim::new(Setup { sanicap: 0, fna: 0, ..setup() });
        assert_eq!(
            text(&of(&small)),
            "sanitize-block      Purge  no: the drive does not offer it\n\
             sanitize-crypto     Purge  no: the drive does not offer it\n\
             sanitize-overwrite  Purge  no: the drive does not offer it\n\
             format-crypto       Purge  no: the drive does not offer it\n\
             format-user-data    Clear  offered"
        );
        let failed = text(&of(&NvmeSim::new(Setup { last: Some((3, 0x02)), ..setup() })));
        let (first, rest) = failed.split_once('\n').unwrap();
        assert_eq!(
            first,
            "sanitize-block      Purge  offered, but a restricted sanitize operation failed, and only another \
             restricted one is accepted"
        );
        assert!(
            rest.ends_with(
                "\nformat-user-data    Clear  no: a sanitize operation failed, and only another is accepted\n\
                 the last sanitize operation failed"
            ),
            "{rest}"
        );
    }

    #[test]
    fn an_operation_that_runs_is_shown_as_far_as_the_drive_says() {
        let last_line = |lie: Option<Lie>| {
            let sim = NvmeSim::new(Setup { lie, ..setup() });
            let start = Sanitize::Start {
                method: SanitizeMethod::CryptoErase,
                exit: Exit::Restricted,
                keep_allocated: false,
            };
            sim.path(0).send(&start.request());
            sim.clock().advance(Duration::from_secs(50));
            capability_lines(&of(&sim)).pop().unwrap()
        };
        assert_eq!(last_line(None), "a sanitize operation runs: 50 % done");
        let unknown = "a sanitize operation runs, and the drive does not say how far it is";
        assert_eq!(last_line(Some(Lie::NoProgress)), unknown);
    }

    #[test]
    fn what_no_rung_reaches_is_named_where_the_drive_has_it() {
        let outside = |protected_partitions: u8| {
            let Capabilities::Answered(drive) = of(&NvmeSim::new(setup())) else { panic!("it answers") };
            let drive = DriveOffers { protected_partitions, ..drive };
            capability_lines(&Capabilities::Answered(drive)).split_off(5)
        };
        assert!(outside(0).is_empty());
        assert_eq!(outside(1), ["1 partition that needs authentication (RPMB) is reached by none of these"]);
        assert_eq!(outside(4), ["4 partitions that need authentication (RPMB) are reached by none of these"]);
    }

    #[test]
    fn a_disk_without_an_answer_has_one_line() {
        let why = "Permission denied (os error 13)".to_string();
        assert_eq!(text(&Capabilities::NotKnown { why }), "not known: Permission denied (os error 13)");
        assert_eq!(
            text(&Capabilities::NotAsked { why: NotAsked::SataOnSas }),
            "SATA on a SAS controller: not supported yet; use efface wipe"
        );
    }

    fn of_sata(sim: &AtaSim) -> Capabilities {
        Capabilities::of_sata(&ata::probe::probe(&mut ReadOnly::new(sim.clone())))
    }

    #[test]
    fn a_sata_drive_has_its_ladder_and_what_it_hides() {
        let half = ata_sim::Setup { protected: Some(64), ..ata_sim::Setup::of(vec![0; 128 * 512]) };
        assert_eq!(
            text(&of_sata(&AtaSim::new(half.clone()))),
            "sanitize-block           Purge  offered\n\
             sanitize-crypto          Purge  offered\n\
             enhanced-security-erase  Purge  offered, about 2 min\n\
             sanitize-overwrite       Purge  offered, and takes hours\n\
             security-erase           Clear  offered, about 60 min\n\
             native size 64.00 KiB, visible 32.00 KiB: 32.00 KiB hidden by HPA\n\
             efface purge does not send these yet; use efface wipe"
        );
        let bridge = ata_sim::Setup { layout: SenseLayout::Zero, sanitize: 0, ..half };
        let text = text(&of_sata(&AtaSim::new(bridge)));
        let unknown = "\nwhether an area is hidden by HPA is not known: the answer is all zeroes\n";
        assert!(text.contains(unknown), "{text}");
        assert!(!text.contains("native size"), "{text}");
    }

    #[test]
    fn what_keeps_a_sata_drive_from_it_says_what_to_do() {
        let lines = |sim: &AtaSim| capability_lines(&of_sata(sim));
        let setup = || ata_sim::Setup::of(vec![0; 8192]);
        let frozen = lines(&AtaSim::new(ata_sim::Setup { firmware_freezes: true, ..setup() }));
        let sanitize =
            "no: sanitizing is frozen until the drive's power is cycled: unplug it, and plug it in again";
        assert!(frozen[0].ends_with(sanitize), "{frozen:?}");
        let erase = "no: the machine's firmware has frozen it until the drive's power is cycled: plug it in when the \
                     machine runs, or suspend the machine";
        assert!(frozen[2].ends_with(erase) && frozen[4].ends_with(erase), "{frozen:?}");

        let drive = AtaSim::new(setup());
        let mut password = [0; 512];
        password[2] = b'a';
        let give = |command| drive.clone().send(&order(0, 1, 0, command, Some(password)));
        give(0xf1);
        let removes = "no: the drive has a password: remove it (hdparm --security-disable)";
        assert!(lines(&drive)[0].ends_with("offered") && lines(&drive)[2].ends_with(removes));
        drive.cycle_power();
        let unlock = "no: a password locks the drive: unlock it (hdparm --security-unlock)";
        assert!(lines(&drive)[..5].iter().all(|line| line.ends_with(unlock)), "{:?}", lines(&drive));
        password[2] = b'b';
        for _ in 0..5 {
            drive.clone().send(&order(0, 1, 0, 0xf2, Some(password)));
        }
        let expired =
            "no: too many wrong passwords were given: none is accepted until the drive's power is cycled";
        assert!(lines(&drive)[2].ends_with(expired), "{:?}", lines(&drive));
    }

    #[test]
    fn a_sanitize_of_a_sata_drive_is_shown_while_it_runs_and_where_it_failed() {
        let setup = ata_sim::Setup { sanitize_fails: true, ..ata_sim::Setup::of(vec![0; 8192]) };
        let sim = AtaSim::new(setup);
        sim.clone().send(&order(0x12, 0, 0x426b_4572, 0xb4, None));
        sim.clock().advance(Duration::from_secs(25));
        let lines = capability_lines(&of_sata(&sim));
        assert!(lines[..5].iter().all(|line| line.ends_with("no: a sanitize operation runs")), "{lines:?}");
        assert_eq!(lines[5], "a sanitize operation runs: 25 % done");
        sim.clock().advance(Duration::from_secs(75));
        let lines = capability_lines(&of_sata(&sim));
        assert!(lines[0].ends_with("offered"), "another one leads out of it: {lines:?}");
        assert!(
            lines[2].ends_with("no: a sanitize operation failed, and only another is accepted"),
            "{lines:?}"
        );
        assert_eq!(lines[5], "the last sanitize operation failed");
    }

    fn of_sas(sim: &ScsiSim) -> Vec<String> {
        capability_lines(&Capabilities::of_sas(&scsi::probe::probe(&mut ReadOnly::new(sim.path(0)))))
    }

    fn sas_setup() -> scsi_sim::Setup {
        scsi_sim::Setup::of(vec![0; 8192])
    }

    /// SANITIZE, and a quarter of its time.
    fn sanitize(sim: &ScsiSim) {
        let timeout = CommandTimeout::new(Duration::from_secs(60));
        let cdb = vec![0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
        sim.path(0).send(&Request::Scsi(ScsiCommand { cdb, data: Data::None, timeout }));
        sim.clock().advance(Duration::from_secs(25));
    }

    #[test]
    fn a_sas_drive_has_its_ladder_and_what_its_erases_reach_and_leave() {
        assert_eq!(
            of_sas(&ScsiSim::new(sas_setup())).join("\n"),
            "sanitize-block      Purge  offered\n\
             sanitize-crypto     Purge  offered\n\
             sanitize-overwrite  Purge  offered, and takes hours\n\
             format-unit         Clear  offered\n\
             efface purge does not send these yet; use efface wipe"
        );
        let dual = scsi_sim::Setup { units: 2, needs_write: (3, 2), ..sas_setup() };
        let written = |after| format!("after {after} a block can be read only when it has been written");
        let units = "logical units 0, 1 are of one drive: what is sent to one may erase all".to_string();
        assert_eq!(
            of_sas(&ScsiSim::new(dual))[4..7],
            [written("a block erase"), written("a crypto erase"), units]
        );
    }

    #[test]
    fn a_sanitize_of_a_sas_drive_is_shown_while_it_runs_and_where_it_failed() {
        let sim = ScsiSim::new(scsi_sim::Setup { erase_fails: true, ..sas_setup() });
        sanitize(&sim);
        let lines = of_sas(&sim);
        assert_eq!(lines[0], "sanitize-block      Purge  no: a sanitize operation runs");
        assert_eq!(lines[4], "a sanitize operation runs: 25 % done");
        sim.clock().advance(Duration::from_secs(75));
        let lines = of_sas(&sim);
        let format =
            "format-unit         Clear  no: a sanitize operation failed, and only another is accepted";
        assert_eq!((&lines[3][..], &lines[4][..]), (format, "the last sanitize operation failed"));
    }
}
