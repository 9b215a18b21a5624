//! What a drive offers for erasing, as lines of text.

use crate::device::capabilities::{Capabilities, DriveOffers, OfferedRung};
use crate::io::passthrough::nvme::logs::{Phase, SanitizeLog};
use crate::plan::{Offer, WhyNot};
use crate::units::share;

/// One line per rung, and what else the drive says of erasing; one line where it is not known.
pub fn capability_lines(capabilities: &Capabilities) -> Vec<String> {
    match capabilities {
        Capabilities::Answered(drive) => drive_lines(drive),
        Capabilities::NotKnown { why } => vec![format!("not known: {why}")],
        Capabilities::NotAsked { why } => vec![why.to_string()],
    }
}

fn drive_lines(drive: &DriveOffers) -> Vec<String> {
    let rungs = drive.rungs.iter().map(rung_line);
    let outside = match drive.protected_partitions {
        0 => None,
        1 => Some("1 partition that needs authentication (RPMB) is reached by none of these".into()),
        count => {
            Some(format!("{count} partitions that need authentication (RPMB) are reached by none of these"))
        }
    };
    rungs.chain(drive.sanitize.as_ref().and_then(state)).chain(outside).collect()
}

fn rung_line(OfferedRung { rung, grade, offer }: &OfferedRung) -> String {
    let answer = match offer {
        Offer::Offered if rung.overwrites() => "offered, and takes hours".into(),
        Offer::Offered => "offered".into(),
        Offer::OnlyRestricted => format!("offered, but {}", WhyNot::OnlyRestricted),
        Offer::Not(why @ WhyNot::NotKnown(_)) => why.to_string(),
        Offer::Not(why) => format!("no: {why}"),
    };
    format!("{:<18}  {grade}  {answer}", rung.to_string())
}

/// Of the most recent sanitize operation, where that matters now.
fn state(log: &SanitizeLog) -> Option<String> {
    const WHOLE: u64 = 1 << 16;
    match log.phase() {
        Phase::Never | Phase::Done => None,
        Phase::Running => Some(match log.progress {
            Some(part) => format!("a sanitize operation runs: {} done", share(part.into(), WHOLE)),
            None => "a sanitize operation runs, and the drive does not say how far it is".into(),
        }),
        Phase::Failed => Some("the last sanitize operation failed".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::capabilities::NotAsked;
    use crate::io::passthrough::nvme::commands::{Exit, Sanitize, SanitizeMethod};
    use crate::io::passthrough::nvme::probe::probe;
    use crate::io::passthrough::sim::{Lie, NvmeSim, Setup};
    use crate::io::passthrough::{PassThrough, ReadOnly};

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
            text(&Capabilities::NotAsked { why: NotAsked::Sata }),
            "SATA: not supported yet; use efface wipe"
        );
    }
}
