//! What a SCSI drive offers of the ladder, and what prevents the rest.

use super::commands::EraseCommand;
use super::condition::Condition;
use super::probe::UnitFacts;
use crate::plan::{Offer, Rung, WhyNot};

/// Every rung for a SCSI drive, the best first.
pub fn offers(facts: &UnitFacts) -> Vec<(Rung, Offer)> {
    let rungs = [
        (Rung::SanitizeBlock, EraseCommand::BlockErase),
        (Rung::SanitizeCrypto, EraseCommand::CryptoErase),
        (Rung::SanitizeOverwrite, EraseCommand::Overwrite),
        (Rung::FormatUnit, EraseCommand::FormatUnit),
    ];
    rungs.map(|(rung, command)| (rung, offer(facts, command).unwrap_or_else(Offer::Not))).to_vec()
}

fn offer(facts: &UnitFacts, command: EraseCommand) -> Result<Offer, WhyNot> {
    let supported = facts.supports(command);
    if supported == Ok(false) {
        return Err(WhyNot::NotOffered);
    }
    // While something runs, a drive may answer nothing else.
    let offer = match (facts.condition, command) {
        (Ok(Condition::Sanitizing { .. }), _) => return Err(WhyNot::SanitizeRunning),
        (Ok(Condition::Formatting { .. }), _) => return Err(WhyNot::FormatRunning),
        (Ok(Condition::SanitizeFailed), EraseCommand::FormatUnit) => return Err(WhyNot::SanitizeFailed),
        // It is not said whether the one that failed was restricted; a restricted one leads out of both.
        (Ok(Condition::SanitizeFailed), _) => Offer::OnlyRestricted,
        (Ok(Condition::Ready | Condition::FormatFailed), _) => Offer::Offered,
        (Err(why), _) => return Err(WhyNot::NotKnown(format!("its state: {why}"))),
    };
    match supported {
        Ok(_) => Ok(offer),
        Err(why) => Err(WhyNot::NotKnown(format!("supported commands: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unknown;
    use super::super::probe::probe;
    use super::*;
    use crate::io::passthrough::ReadOnly;
    use crate::io::passthrough::sim::scsi::{ScsiSim, Setup};

    const RUNGS: [Rung; 4] =
        [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::SanitizeOverwrite, Rung::FormatUnit];

    fn facts(setup: Setup) -> UnitFacts {
        probe(&mut ReadOnly::new(ScsiSim::new(setup).path(0)))
    }

    fn setup() -> Setup {
        Setup::of(vec![0; 8192])
    }

    fn all(offer: &Offer) -> Vec<(Rung, Offer)> {
        RUNGS.map(|rung| (rung, offer.clone())).to_vec()
    }

    #[test]
    fn every_set_of_commands_offers_what_it_has() {
        for bits in 0..16_u8 {
            let has = |bit: u8| bits & 1 << bit != 0;
            let actions = (1..=3).filter(|action| has(action - 1)).collect();
            let found = offers(&facts(Setup { sanitize_actions: actions, formats: has(3), ..setup() }));
            let offer = |has: bool| if has { Offer::Offered } else { Offer::Not(WhyNot::NotOffered) };
            let expected = [has(1), has(2), has(0), has(3)].map(offer);
            assert_eq!(found, RUNGS.into_iter().zip(expected).collect::<Vec<_>>(), "{bits:04b}");
        }
    }

    #[test]
    fn what_runs_or_has_failed_prevents_rungs() {
        let of = |condition| offers(&UnitFacts { condition: Ok(condition), ..facts(setup()) });
        let progress = None;
        let running = Offer::Not(WhyNot::SanitizeRunning);
        assert_eq!(of(Condition::Sanitizing { progress }), all(&running));
        assert_eq!(of(Condition::Formatting { progress }), all(&Offer::Not(WhyNot::FormatRunning)));
        assert_eq!(of(Condition::FormatFailed), all(&Offer::Offered));
        let mut failed = all(&Offer::OnlyRestricted);
        failed[3].1 = Offer::Not(WhyNot::SanitizeFailed);
        assert_eq!(of(Condition::SanitizeFailed), failed);
        // While it runs, the drive does not say what it supports.
        let condition = Ok(Condition::Sanitizing { progress });
        let supported = [Err(Unknown::TimedOut), Ok(false), Ok(true), Err(Unknown::TimedOut)];
        let found = offers(&UnitFacts { condition, supported, ..facts(setup()) });
        let mut expected = all(&running);
        expected[0].1 = Offer::Not(WhyNot::NotOffered);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_known_is_not_offered() {
        let mute = facts(Setup { reports_commands: false, ..setup() });
        let why = "supported commands: the drive answered: Invalid command operation code (5/20/00)";
        assert_eq!(offers(&mute), all(&Offer::Not(WhyNot::NotKnown(why.into()))));
        let lost = UnitFacts { condition: Err(Unknown::TimedOut), ..facts(setup()) };
        let why = "its state: the drive did not answer in time";
        assert_eq!(offers(&lost), all(&Offer::Not(WhyNot::NotKnown(why.into()))));
    }
}
