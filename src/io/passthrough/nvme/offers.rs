//! What an NVMe drive offers of the ladder, and what prevents the rest.

use super::Unknown;
use super::identify::Controller;
use super::logs::Phase;
use super::probe::{NamespaceFacts, SubsystemFacts};
use crate::plan::{Offer, Rung, WhyNot};

/// Every rung for an NVMe drive, the best first.
pub fn offers(facts: &SubsystemFacts) -> Vec<(Rung, Offer)> {
    Rung::NVME.into_iter().map(|rung| (rung, offer(facts, rung).unwrap_or_else(Offer::Not))).collect()
}

fn offer(facts: &SubsystemFacts, rung: Rung) -> Result<Offer, WhyNot> {
    let result = match rung {
        Rung::SanitizeBlock | Rung::SanitizeCrypto | Rung::SanitizeOverwrite => sanitize(facts, rung),
        Rung::FormatCrypto | Rung::FormatUserData => format(facts, rung),
        Rung::HostOverwrite => Ok(Offer::Offered),
        Rung::EnhancedSecurityErase | Rung::SecurityErase | Rung::FormatUnit => Err(WhyNot::NotOffered),
    };
    // What the drive does not have at all is no question of its state.
    let offered = result?;
    obstacle(facts).map_or(Ok(offered), Err)
}

fn not_known(what: &str, why: Unknown) -> WhyNot {
    WhyNot::NotKnown(format!("{what}: {why}"))
}

fn controller(facts: &SubsystemFacts) -> Result<&Controller, WhyNot> {
    facts.controller.as_ref().map_err(|why| not_known("Identify Controller", *why))
}

fn namespaces(facts: &SubsystemFacts) -> Result<&[NamespaceFacts], WhyNot> {
    facts.namespaces.as_deref().map_err(|why| not_known("list of namespaces", *why))
}

/// What prevents every rung now.
fn obstacle(facts: &SubsystemFacts) -> Option<WhyNot> {
    if facts.sanitize.is_ok_and(|log| log.phase() == Phase::Running) {
        return Some(WhyNot::SanitizeRunning);
    }
    let namespaces = facts.namespaces.as_deref().unwrap_or_default();
    if namespaces.iter().any(|namespace| namespace.format_left_percent() > Some(0)) {
        return Some(WhyNot::FormatRunning);
    }
    let protected = namespaces.iter().filter(|namespace| namespace.is_write_protected());
    let protected: Vec<u32> = protected.map(|namespace| namespace.nsid).collect();
    (!protected.is_empty()).then_some(WhyNot::WriteProtected(protected))
}

fn sanitize(facts: &SubsystemFacts, rung: Rung) -> Result<Offer, WhyNot> {
    let capabilities = controller(facts)?.sanitize.ok_or(WhyNot::NotKnown("SANICAP is not valid".into()))?;
    let supported = match rung {
        Rung::SanitizeBlock => capabilities.block_erase,
        Rung::SanitizeCrypto => capabilities.crypto_erase,
        _ => capabilities.overwrite,
    };
    if !supported || facts.effects.is_ok_and(|effects| !effects.sanitize) {
        return Err(WhyNot::NotOffered);
    }
    namespaces(facts)?;
    match facts.sanitize {
        Ok(log) if log.failed_restricted() => Ok(Offer::OnlyRestricted),
        // Some drives answer zeroes before their first operation; it is then seen to run.
        Ok(_) | Err(Unknown::Zeroes) => Ok(Offer::Offered),
        Err(why) => Err(not_known("sanitize status", why)),
    }
}

fn format(facts: &SubsystemFacts, rung: Rung) -> Result<Offer, WhyNot> {
    let controller = controller(facts)?;
    if !controller.format || facts.effects.is_ok_and(|effects| !effects.format) {
        return Err(WhyNot::NotOffered);
    }
    let attributes = controller.format_attributes.ok_or(WhyNot::NotKnown("FNA is not valid".into()))?;
    if rung == Rung::FormatCrypto && !attributes.crypto_erase {
        return Err(WhyNot::NotOffered);
    }
    let mut formats = Vec::new();
    for NamespaceFacts { nsid, namespace, .. } in namespaces(facts)? {
        let of = format!("block format of namespace {nsid}");
        let namespace = namespace.map_err(|why| not_known(&of, why))?;
        formats.push(namespace.format.ok_or(WhyNot::NotKnown(format!("{of}: it is not valid")))?);
    }
    if attributes.formats_all && formats.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(WhyNot::FormatsDiffer);
    }
    match facts.sanitize {
        Ok(log) if log.phase() == Phase::Failed => Err(WhyNot::SanitizeFailed),
        _ => Ok(Offer::Offered),
    }
}

#[cfg(test)]
mod tests {
    use super::super::logs::{Effects, SanitizeLog};
    use super::super::probe::probe;
    use super::super::status::Status;
    use super::*;
    use crate::io::passthrough::ReadOnly;
    use crate::io::passthrough::sim::nvme::{NamespaceSetup, NvmeSim, Setup};

    fn setup() -> Setup {
        let mut setup = Setup::of(vec![0; 8192]);
        let namespace = setup.namespaces[0].clone();
        setup.namespaces.extend((2..=3).map(|nsid| NamespaceSetup { nsid, ..namespace.clone() }));
        setup
    }

    fn facts(setup: Setup) -> SubsystemFacts {
        probe(&mut ReadOnly::new(NvmeSim::new(setup).path(0)))
    }

    fn of(facts: &SubsystemFacts, rung: Rung) -> Offer {
        let all = offers(facts);
        all.into_iter().find(|(offered, _)| *offered == rung).unwrap().1
    }

    fn not(why: &str) -> Offer {
        Offer::Not(WhyNot::NotKnown(why.into()))
    }

    const DRIVES: [Rung; 5] = [
        Rung::SanitizeBlock,
        Rung::SanitizeCrypto,
        Rung::SanitizeOverwrite,
        Rung::FormatCrypto,
        Rung::FormatUserData,
    ];

    /// SANICAP 2:0, Format in OACS, new keys in FNA, and the log of supported commands.
    #[test]
    fn every_set_of_capabilities_offers_what_it_has() {
        for bits in 0..128_u32 {
            let bit = |number: u32| bits & 1 << number != 0;
            let mut facts = facts(Setup {
                sanicap: bits & 0b111,
                oacs: 0b1000 | u16::from(bit(3)) << 1,
                fna: u8::from(bit(4)) << 2,
                ..setup()
            });
            facts.effects = Ok(Effects { sanitize: !bit(5), format: !bit(6) });
            let has = [
                bit(1) && !bit(5),
                bit(0) && !bit(5),
                bit(2) && !bit(5),
                bit(3) && bit(4) && !bit(6),
                bit(3) && !bit(6),
            ];
            for (rung, has) in DRIVES.into_iter().zip(has) {
                let expected = if has { Offer::Offered } else { Offer::Not(WhyNot::NotOffered) };
                assert_eq!(of(&facts, rung), expected, "{rung} of {bits:07b}");
            }
            assert_eq!(of(&facts, Rung::HostOverwrite), Offer::Offered);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let mut facts = facts(setup());
        facts.effects = Err(Unknown::TimedOut);
        assert!(DRIVES.iter().all(|rung| of(&facts, *rung) == Offer::Offered), "it only takes away");

        let known = facts.clone();
        facts.sanitize = Err(Unknown::Refused(Status(0x4109)));
        let refused = not("sanitize status: the drive refused the command: Invalid Log Page (109h)");
        assert_eq!(of(&facts, Rung::SanitizeBlock), refused);
        assert_eq!(of(&facts, Rung::FormatCrypto), Offer::Offered);
        facts.sanitize = Err(Unknown::Ones);
        assert_eq!(of(&facts, Rung::SanitizeBlock), not("sanitize status: the answer is all ones"));
        facts.sanitize = Err(Unknown::Zeroes);
        assert_eq!(of(&facts, Rung::SanitizeBlock), Offer::Offered, "before the first operation");

        facts = known.clone();
        facts.namespaces.as_mut().unwrap()[1].namespace = Err(Unknown::Short);
        assert_eq!(of(&facts, Rung::FormatCrypto), not("block format of namespace 2: the answer is cut off"));
        facts.namespaces = Err(Unknown::Zeroes);
        let listed = not("list of namespaces: the answer is all zeroes");
        assert!(DRIVES.iter().all(|rung| of(&facts, *rung) == listed));

        facts = known.clone();
        let controller = facts.controller.as_mut().unwrap();
        (controller.sanitize, controller.format_attributes) = (None, None);
        assert_eq!(of(&facts, Rung::SanitizeCrypto), not("SANICAP is not valid"));
        assert_eq!(of(&facts, Rung::FormatUserData), not("FNA is not valid"));
        facts.controller = Err(Unknown::Ones);
        assert!(
            DRIVES.iter().all(|rung| of(&facts, *rung) == not("Identify Controller: the answer is all ones"))
        );
        assert_eq!(of(&facts, Rung::HostOverwrite), Offer::Offered);
    }

    #[test]
    fn what_runs_or_failed_before_decides_what_is_accepted() {
        let log = |status: u8, command: u8, state: u8| {
            let mut page = [0; 512];
            (page[0], page[1], page[2], page[4], page[36]) = (0xff, 0xff, status, command, state);
            SanitizeLog::decode(&page).unwrap()
        };
        let with = |log| SubsystemFacts { sanitize: Ok(log), ..facts(setup()) };
        let offers =
            |log, rungs: &[Rung]| -> Vec<Offer> { rungs.iter().map(|it| of(&with(log), *it)).collect() };
        let (sanitize, format) = DRIVES.split_at(3);
        for (status, state) in [(2, 0), (1, 1), (1, 5), (1, 6)] {
            let running = log(status, 2, state);
            assert!(
                super::offers(&with(running))
                    .iter()
                    .all(|(_, it)| *it == Offer::Not(WhyNot::SanitizeRunning))
            );
        }
        let restricted = log(3, 2, 2);
        assert_eq!(offers(restricted, sanitize), vec![Offer::OnlyRestricted; 3]);
        let unrestricted = log(3, 2, 4);
        assert_eq!(offers(unrestricted, sanitize), vec![Offer::Offered; 3]);
        for failed in [restricted, unrestricted] {
            assert_eq!(offers(failed, format), vec![Offer::Not(WhyNot::SanitizeFailed); 2]);
        }
    }

    #[test]
    fn write_protection_a_running_format_and_differing_formats_prevent_rungs() {
        let mut protected = setup();
        (protected.namespaces[0].write_protected, protected.namespaces[2].write_protected) = (true, true);
        let why = Offer::Not(WhyNot::WriteProtected(vec![1, 3]));
        assert!(offers(&facts(protected)).iter().all(|(_, offer)| *offer == why));

        let mut formatting = facts(setup());
        let namespace = &mut formatting.namespaces.as_mut().unwrap()[2].namespace;
        namespace.as_mut().unwrap().format_left_percent = Some(1);
        let why = Offer::Not(WhyNot::FormatRunning);
        assert!(offers(&formatting).iter().all(|(_, offer)| *offer == why));

        for (fna, expected) in
            [(0b0100, Offer::Offered), (0b0101, Offer::Not(WhyNot::FormatsDiffer)), (0b0110, Offer::Offered)]
        {
            let mut differing = setup();
            differing.namespaces[1].flbas = 1;
            assert_eq!(of(&facts(Setup { fna, ..differing }), Rung::FormatCrypto), expected, "FNA {fna:04b}");
        }
    }
}
