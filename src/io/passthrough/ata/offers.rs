//! What a SATA drive offers of the ladder, and what prevents the rest.

use super::Unknown;
use super::identify::Identify;
use super::probe::DriveFacts;
use super::sanitize::Phase;
use super::security::{EraseTime, Security, SecurityState};
use crate::plan::{Offer, Rung, WhyNot};

/// A drive of rotating media that erases itself in so little time has changed its keys.
const QUICK_MINUTES: u32 = 4;

/// Every rung for a SATA drive, the best first.
pub fn offers(facts: &DriveFacts) -> Vec<(Rung, Offer)> {
    let rungs = Rung::sata(is_enhanced_before_overwrite(facts));
    rungs.into_iter().map(|rung| (rung, offer(facts, rung).unwrap_or_else(Offer::Not))).collect()
}

/// On flash it reaches what an overwrite does not; on rotating media it is one, unless it is quick.
fn is_enhanced_before_overwrite(facts: &DriveFacts) -> bool {
    let Ok(identify) = &facts.identify else { return false };
    let time = identify.security.ok().flatten().and_then(|security| security.enhanced_erase);
    identify.rotates == Some(false)
        || matches!(time, Some(EraseTime::About(minutes)) if minutes <= QUICK_MINUTES)
}

fn offer(facts: &DriveFacts, rung: Rung) -> Result<Offer, WhyNot> {
    let identify = facts.identify.as_ref().map_err(|why| not_known("IDENTIFY DEVICE", *why))?;
    match rung {
        Rung::SanitizeBlock | Rung::SanitizeCrypto | Rung::SanitizeOverwrite => {
            sanitize(facts, identify, rung)?;
        }
        Rung::EnhancedSecurityErase | Rung::SecurityErase => security_erase(facts, identify, rung)?,
        Rung::HostOverwrite => {}
        Rung::FormatCrypto | Rung::FormatUserData | Rung::FormatUnit => return Err(WhyNot::NotOffered),
    }
    Ok(Offer::Offered)
}

fn not_known(what: &str, why: Unknown) -> WhyNot {
    WhyNot::NotKnown(format!("{what}: {why}"))
}

fn sanitize(facts: &DriveFacts, identify: &Identify, rung: Rung) -> Result<(), WhyNot> {
    let offered = identify.sanitize.map_err(|why| not_known("word 59 of IDENTIFY DEVICE", why))?;
    let supported = match rung {
        Rung::SanitizeBlock => offered.block_erase,
        Rung::SanitizeCrypto => offered.crypto_scramble,
        _ => offered.overwrite,
    };
    if !supported {
        return Err(WhyNot::NotOffered);
    }
    let status = facts.sanitize.map_err(|why| not_known("sanitize status", why))?;
    match status.phase {
        Phase::Running => return Err(WhyNot::SanitizeRunning),
        // A failure is left by another operation.
        Phase::None | Phase::Completed | Phase::Failed => {}
    }
    if status.frozen {
        return Err(WhyNot::SanitizeFrozen);
    }
    identify.security.map_err(|why| not_known("security state", why))?;
    if identify.is_locked() && facts.sanitizes_locked != Ok(true) {
        return Err(WhyNot::Locked);
    }
    Ok(())
}

fn security_erase(facts: &DriveFacts, identify: &Identify, rung: Rung) -> Result<(), WhyNot> {
    let security = identify.security.map_err(|why| not_known("security state", why))?;
    let security: Security = security.ok_or(WhyNot::NotOffered)?;
    if rung == Rung::EnhancedSecurityErase && security.enhanced_erase.is_none() {
        return Err(WhyNot::NotOffered);
    }
    match facts.sanitize.map(|status| status.phase) {
        Ok(Phase::Running) => return Err(WhyNot::SanitizeRunning),
        Ok(Phase::Failed) => return Err(WhyNot::SanitizeFailed),
        _ => {}
    }
    if security.attempts_expired {
        return Err(WhyNot::AttemptsExpired);
    }
    match security.state {
        SecurityState::Disabled => Ok(()),
        SecurityState::DisabledFrozen | SecurityState::UnlockedFrozen => Err(WhyNot::Frozen),
        SecurityState::Locked => Err(WhyNot::Locked),
        SecurityState::Unlocked => Err(WhyNot::HasPassword),
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::probe;
    use super::*;
    use crate::io::passthrough::ReadOnly;
    use crate::io::passthrough::ata::sanitize::SanitizeStatus;
    use crate::io::passthrough::sim::ata::{AtaSim, Setup};

    const SANITIZES: [Rung; 3] = [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::SanitizeOverwrite];
    const ERASES: [Rung; 2] = [Rung::EnhancedSecurityErase, Rung::SecurityErase];

    fn facts(setup: Setup) -> DriveFacts {
        probe(&mut ReadOnly::new(AtaSim::new(setup)))
    }

    fn setup() -> Setup {
        Setup::of(vec![0; 8192])
    }

    fn of(facts: &DriveFacts, rung: Rung) -> Offer {
        offers(facts).into_iter().find(|(offered, _)| *offered == rung).unwrap().1
    }

    fn all(facts: &DriveFacts, rungs: &[Rung], offer: Offer) {
        for rung in rungs {
            assert_eq!(of(facts, *rung), offer, "{rung}");
        }
    }

    /// Bits 12 to 15 of word 59, and security with and without its enhanced mode.
    #[test]
    fn every_set_of_capabilities_offers_what_it_has() {
        for bits in 0..16_u16 {
            for erase_words in [None, Some((30, None)), Some((30, Some(2)))] {
                let facts = facts(Setup { sanitize: bits << 12, erase_words, ..setup() });
                let bit = |number: u16| bits & 1 << number != 0;
                let sanitizes = |number: u16| bit(0) && bit(number);
                let enhanced = erase_words.is_some_and(|(_, enhanced)| enhanced.is_some());
                let has = [
                    (Rung::SanitizeBlock, sanitizes(3)),
                    (Rung::SanitizeCrypto, sanitizes(1)),
                    (Rung::SanitizeOverwrite, sanitizes(2)),
                    (Rung::EnhancedSecurityErase, enhanced),
                    (Rung::SecurityErase, erase_words.is_some()),
                    (Rung::HostOverwrite, true),
                ];
                for (rung, has) in has {
                    let expected = if has { Offer::Offered } else { Offer::Not(WhyNot::NotOffered) };
                    assert_eq!(of(&facts, rung), expected, "{rung} of {bits:04b}, {erase_words:?}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let not = |why: &str| Offer::Not(WhyNot::NotKnown(why.into()));
        let known = facts(setup());
        let silent = DriveFacts { identify: Err(Unknown::Ones), ..known.clone() };
        all(&silent, &SANITIZES, not("IDENTIFY DEVICE: the answer is all ones"));
        all(&silent, &ERASES, not("IDENTIFY DEVICE: the answer is all ones"));
        let lost = DriveFacts { sanitize: Err(Unknown::Lost("bits 15:8 of COUNT")), ..known.clone() };
        let why = "sanitize status: the answer came without its upper bytes: bits 15:8 of COUNT";
        all(&lost, &SANITIZES, not(why));
        all(&lost, &ERASES, Offer::Offered);
        let with = |change: fn(&mut Identify)| {
            let mut facts = known.clone();
            change(facts.identify.as_mut().unwrap());
            facts
        };
        let word_59 = with(|identify| identify.sanitize = Err(Unknown::Ones));
        all(&word_59, &SANITIZES, not("word 59 of IDENTIFY DEVICE: the answer is all ones"));
        let word_128 = with(|identify| identify.security = Err(Unknown::Ones));
        all(&word_128, &SANITIZES, not("security state: the answer is all ones"));
        all(&word_128, &ERASES, not("security state: the answer is all ones"));
    }

    #[test]
    fn what_runs_failed_is_frozen_or_locked_decides_what_is_accepted() {
        let known = facts(setup());
        let status = |phase, frozen| {
            let sanitize = Ok(SanitizeStatus { phase, progress: None, frozen });
            DriveFacts { sanitize, ..known.clone() }
        };
        let running = status(Phase::Running, false);
        all(&running, &SANITIZES, Offer::Not(WhyNot::SanitizeRunning));
        all(&running, &ERASES, Offer::Not(WhyNot::SanitizeRunning));
        let failed = status(Phase::Failed, false);
        all(&failed, &SANITIZES, Offer::Offered);
        all(&failed, &ERASES, Offer::Not(WhyNot::SanitizeFailed));
        let frozen = status(Phase::Completed, true);
        all(&frozen, &SANITIZES, Offer::Not(WhyNot::SanitizeFrozen));
        all(&frozen, &ERASES, Offer::Offered);

        let secured = |state, attempts_expired| {
            let mut facts = known.clone();
            let identify = facts.identify.as_mut().unwrap();
            let security = identify.security.unwrap().unwrap();
            identify.security = Ok(Some(Security { state, attempts_expired, ..security }));
            facts
        };
        let expected = [
            (SecurityState::Disabled, Offer::Offered),
            (SecurityState::DisabledFrozen, Offer::Not(WhyNot::Frozen)),
            (SecurityState::Unlocked, Offer::Not(WhyNot::HasPassword)),
            (SecurityState::UnlockedFrozen, Offer::Not(WhyNot::Frozen)),
            (SecurityState::Locked, Offer::Not(WhyNot::Locked)),
        ];
        for (state, offer) in expected {
            let facts = secured(state, false);
            all(&facts, &ERASES, offer);
            let sanitizes =
                if state == SecurityState::Locked { Offer::Not(WhyNot::Locked) } else { Offer::Offered };
            all(&facts, &SANITIZES, sanitizes);
            all(&secured(state, true), &ERASES, Offer::Not(WhyNot::AttemptsExpired));
        }
        let overrides = DriveFacts { sanitizes_locked: Ok(true), ..secured(SecurityState::Locked, false) };
        all(&overrides, &SANITIZES, Offer::Offered);
    }

    #[test]
    fn the_enhanced_erase_has_its_place_by_what_it_does() {
        let place = |rotation, enhanced| {
            let setup = Setup { rotation, erase_words: Some((30, Some(enhanced))), ..setup() };
            let offers = offers(&facts(setup));
            offers.iter().position(|(rung, _)| *rung == Rung::EnhancedSecurityErase).unwrap()
        };
        assert_eq!([place(1, 0), place(1, 255)], [2, 2], "on flash");
        assert_eq!([place(7200, 2), place(7200, 1)], [2, 2], "it changes keys");
        assert_eq!([place(7200, 3), place(7200, 255), place(7200, 0), place(0, 100)], [3; 4]);
    }
}
