//! What a drive says of itself, asked by queries alone; each may fail, and what failed is unknown.

use super::commands::Query;
use super::hidden::{HiddenArea, HiddenBy, configurable_sectors, hidden_area, native_sectors};
use super::identify::Identify;
use super::sanitize::SanitizeStatus;
use super::{LOG_IDENTIFY, Unknown, decoded, le64, page};
use crate::io::passthrough::{PassThrough, ReadOnly};

/// A drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveFacts {
    /// Which one, and which feature sets it has.
    pub identify: Result<Identify, Unknown>,
    /// Its sanitize status; absent where it offers no sanitize operation.
    pub sanitize: Result<SanitizeStatus, Unknown>,
    /// Whether a restricted sanitize is taken while a password locks it; absent where it is not locked.
    pub sanitizes_locked: Result<bool, Unknown>,
    /// What it hides, or by which of its feature sets it is not known. Without such a feature set there is none.
    pub hidden: Vec<Result<HiddenArea, (HiddenBy, Unknown)>>,
}

const INNER_NOT_KNOWN: &str = "where it begins is not known";

/// Asks for everything that erasing needs. What a drive does not announce is not asked for, since it would count as
/// an error in the drive's log.
pub fn probe<P: PassThrough>(drive: &mut ReadOnly<P>) -> DriveFacts {
    let mut facts = DriveFacts {
        identify: decoded(&drive.ask(Query::Identify), Identify::decode),
        sanitize: Err(Unknown::Absent),
        sanitizes_locked: Err(Unknown::Absent),
        hidden: Vec::new(),
    };
    let Ok(identify) = &facts.identify else { return facts };
    if !identify.sanitize.is_ok_and(|offered| offered.is_none()) {
        facts.sanitize = SanitizeStatus::of(&drive.ask(Query::SanitizeStatus));
        if identify.is_locked() && identify.logs {
            facts.sanitizes_locked = sanitizes_locked(drive);
        }
    }
    facts.hidden = hidden(drive, identify);
    facts
}

/// From page 06h of the IDENTIFY DEVICE data log, where the drive has that log.
fn sanitizes_locked<P: PassThrough>(drive: &mut ReadOnly<P>) -> Result<bool, Unknown> {
    const SECURITY: usize = 48;
    const VALID: u64 = 1 << 63;
    const RESTRICTED_SANITIZE_OVERRIDES: u64 = 1 << 7;
    let pages_at = 2 * usize::from(LOG_IDENTIFY);
    let has_log = |bytes: &[u8]| page(bytes).map(|page| page[pages_at..pages_at + 2] != [0, 0]);
    if !decoded(&drive.ask(Query::LogDirectory), has_log)? {
        return Ok(false);
    }
    decoded(&drive.ask(Query::SecurityPage), |bytes| {
        let capabilities = le64(page(bytes)?, SECURITY);
        Ok(capabilities & VALID != 0 && capabilities & RESTRICTED_SANITIZE_OVERRIDES != 0)
    })
}

fn hidden<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    identify: &Identify,
) -> Vec<Result<HiddenArea, (HiddenBy, Unknown)>> {
    let mut found = Vec::new();
    let mut inner = Ok(identify.sectors);
    let mut ask = |by, query: Query| {
        let reply = drive.ask(query);
        let native = match by {
            HiddenBy::Dco => decoded(&reply, configurable_sectors),
            HiddenBy::Hpa | HiddenBy::Ama => native_sectors(&reply),
        };
        let area = native.and_then(|native| hidden_area(by, native, inner?, identify.sector_bytes));
        inner = match area {
            Ok(_) => native,
            Err(_) => Err(Unknown::Invalid(INNER_NOT_KNOWN)),
        };
        found.extend(area.map_err(|why| (by, why)).transpose());
    };
    if identify.accessible_max {
        ask(HiddenBy::Ama, Query::AccessibleNativeMax);
    }
    if identify.protected_area && identify.addresses_48 {
        ask(HiddenBy::Hpa, Query::NativeMax);
    }
    if identify.configuration_overlay {
        ask(HiddenBy::Dco, Query::DeviceConfiguration);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::script::Script;
    use crate::io::passthrough::sim::ata::{AtaSim, SenseLayout, Setup, order};
    use crate::io::passthrough::{Outcome, Reply};

    /// What a drive answers to these queries, in this order and no others.
    fn script(sim: &AtaSim, queries: &[Query]) -> ReadOnly<Script> {
        let mut path = sim.clone();
        let exchange = |query: &Query| (query.request(), path.send(&query.request()));
        ReadOnly::new(Script::new(queries.iter().map(exchange).collect::<Vec<_>>()))
    }

    fn asked(setup: Setup, queries: &[Query]) -> DriveFacts {
        probe(&mut script(&AtaSim::new(setup), queries))
    }

    fn setup() -> Setup {
        Setup::of(vec![0; 8192])
    }

    #[test]
    fn what_a_drive_does_not_announce_is_not_asked_for() {
        let bare = Setup { sanitize: 0, erase_words: None, ..setup() };
        let facts = asked(bare.clone(), &[Query::Identify]);
        assert_eq!((facts.sanitize, facts.hidden), (Err(Unknown::Absent), vec![]));
        assert_eq!(facts.identify.unwrap().security, Ok(None));
        asked(Setup { sanitize: 0xf000, ..bare.clone() }, &[Query::Identify, Query::SanitizeStatus]);
        asked(Setup { sanitize: 0xe000, ..bare.clone() }, &[Query::Identify]);
        asked(Setup { protected: Some(16), ..bare.clone() }, &[Query::Identify, Query::NativeMax]);
        asked(Setup { accessible: Some(16), ..bare.clone() }, &[Query::Identify, Query::AccessibleNativeMax]);
        asked(Setup { overlay: Some(16), ..bare }, &[Query::Identify, Query::DeviceConfiguration]);
    }

    #[test]
    fn a_locked_drive_is_asked_whether_it_sanitizes() {
        let sim = AtaSim::new(setup());
        sim.clone().send(&order(0, 1, 0, 0xf1, Some([0; 512])));
        let unlocked = [Query::Identify, Query::SanitizeStatus];
        probe(&mut script(&sim, &unlocked));
        sim.cycle_power();
        let locked = [&unlocked[..], &[Query::LogDirectory, Query::SecurityPage]].concat();
        assert_eq!(probe(&mut script(&sim, &locked)).sanitizes_locked, Ok(false));
    }

    #[test]
    fn a_drive_that_answers_nothing_is_asked_nothing_more() {
        let ones = Reply { data: vec![0xff; 512], ..Reply::of(Outcome::Status(0)) };
        let replies = [
            (ones, Unknown::Ones),
            (Reply::of(Outcome::Status(0)), Unknown::Absent),
            (Reply::of(Outcome::TimedOut), Unknown::TimedOut),
            (Reply::of(Outcome::Errno(libc::ENOTTY)), Unknown::Errno(libc::ENOTTY)),
        ];
        for (reply, unknown) in replies {
            let facts = probe(&mut ReadOnly::new(Script::new([(Query::Identify.request(), reply)])));
            assert_eq!((facts.identify, facts.hidden.len()), (Err(unknown), 0));
        }
    }

    /// The areas are one inside the other: of a native size that is not known the outer one has nothing to begin at.
    #[test]
    fn an_area_is_measured_from_what_is_known_to_be_before_it() {
        let hiding = Setup { protected: Some(8), overlay: Some(12), ..setup() };
        let facts = asked(
            hiding.clone(),
            &[Query::Identify, Query::SanitizeStatus, Query::NativeMax, Query::DeviceConfiguration],
        );
        let bytes = |area: &Result<HiddenArea, (HiddenBy, Unknown)>| {
            area.map(|area| (area.by, area.native_bytes / 512, area.visible_bytes / 512))
        };
        let areas: Vec<_> = facts.hidden.iter().map(bytes).collect();
        assert_eq!(areas, [Ok((HiddenBy::Hpa, 12, 8)), Ok((HiddenBy::Dco, 16, 12))]);
        let lost = probe(&mut ReadOnly::new(AtaSim::new(Setup { layout: SenseLayout::Zero, ..hiding })));
        let unknown = |by| Err((by, Unknown::Zeroes));
        assert_eq!(lost.hidden[0], unknown(HiddenBy::Hpa));
        assert_eq!(lost.hidden[1], Err((HiddenBy::Dco, Unknown::Invalid(INNER_NOT_KNOWN))));
    }
}
