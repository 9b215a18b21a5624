//! The ladder of a purge: which of a drive's own erase commands are tried, in which order, and why not the
//! others.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What is recorded as the method of a purge.
pub const PURGE: &str = "purge";

/// One way to erase all of a drive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rung {
    /// NVMe, ATA or SCSI Sanitize, block erase.
    SanitizeBlock,
    /// NVMe or SCSI Sanitize, crypto erase; ATA Sanitize, crypto scramble.
    SanitizeCrypto,
    /// NVMe, ATA or SCSI Sanitize, overwrite.
    SanitizeOverwrite,
    /// NVMe Format, secure erase setting 2.
    FormatCrypto,
    /// NVMe Format, secure erase setting 1: what the drive then does is up to it.
    FormatUserData,
    /// By efface, as `efface wipe` does: spare blocks stay.
    HostOverwrite,
    /// ATA SECURITY ERASE UNIT, enhanced: a pattern of the maker, on reallocated sectors too.
    EnhancedSecurityErase,
    /// ATA SECURITY ERASE UNIT, normal: all that can be addressed.
    SecurityErase,
    /// SCSI FORMAT UNIT: what the drive then does is up to it.
    FormatUnit,
}

/// What a rung is worth (NIST SP 800-88), the better last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// All that software can address.
    Clear,
    /// Spare blocks and caches too, as the drive reports it.
    Purge,
}

impl Rung {
    /// Of an NVMe drive, the best first.
    pub const NVME: [Rung; 6] = [
        Rung::SanitizeBlock,
        Rung::SanitizeCrypto,
        Rung::SanitizeOverwrite,
        Rung::FormatCrypto,
        Rung::FormatUserData,
        Rung::HostOverwrite,
    ];

    /// Of a SATA drive, the best first.
    pub fn sata(enhanced_before_overwrite: bool) -> [Rung; 6] {
        let [third, fourth] = match enhanced_before_overwrite {
            true => [Rung::EnhancedSecurityErase, Rung::SanitizeOverwrite],
            false => [Rung::SanitizeOverwrite, Rung::EnhancedSecurityErase],
        };
        let [best, next] = [Rung::SanitizeBlock, Rung::SanitizeCrypto];
        [best, next, third, fourth, Rung::SecurityErase, Rung::HostOverwrite]
    }

    /// As in options and records.
    pub fn name(self) -> &'static str {
        match self {
            Rung::SanitizeBlock => "sanitize-block",
            Rung::SanitizeCrypto => "sanitize-crypto",
            Rung::SanitizeOverwrite => "sanitize-overwrite",
            Rung::FormatCrypto => "format-crypto",
            Rung::FormatUserData => "format-user-data",
            Rung::EnhancedSecurityErase => "enhanced-security-erase",
            Rung::SecurityErase => "security-erase",
            Rung::FormatUnit => "format-unit",
            Rung::HostOverwrite => "host-overwrite",
        }
    }

    /// What it is worth.
    pub fn grade(self) -> Grade {
        match self {
            Rung::FormatUserData | Rung::SecurityErase | Rung::FormatUnit | Rung::HostOverwrite => {
                Grade::Clear
            }
            Rung::SanitizeBlock
            | Rung::SanitizeCrypto
            | Rung::SanitizeOverwrite
            | Rung::FormatCrypto
            | Rung::EnhancedSecurityErase => Grade::Purge,
        }
    }

    /// Whether it writes all of the media, which takes hours.
    pub fn overwrites(self) -> bool {
        matches!(self, Rung::SanitizeOverwrite | Rung::HostOverwrite)
    }

    /// Whether it changes keys and nothing else.
    pub fn is_crypto(self) -> bool {
        matches!(self, Rung::SanitizeCrypto | Rung::FormatCrypto)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grade::Clear => "Clear",
            Grade::Purge => "Purge",
        })
    }
}

/// What the user asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PurgePolicy {
    /// Which rungs, in which order.
    pub choice: Choice,
    /// Rungs of the grade Clear will do (`--or-clear`); else only Purge does (`--at-least purge`).
    pub or_clear: bool,
    /// Hours of overwriting will do (`--or-overwrite`): by the drive, and in the last place by efface.
    pub or_overwrite: bool,
    /// A sanitize that fails may be left without erasing (`--unrestricted-exit`).
    pub unrestricted_exit: bool,
}

/// Which rungs, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "rung", rename_all = "snake_case")]
pub enum Choice {
    /// The best first.
    #[default]
    Best,
    /// Those that change keys first (`--fast`).
    Fast,
    /// New keys, and then the media (`--both`).
    Both,
    /// This one alone (`--by`).
    By(Rung),
}

/// Whether a drive has a rung, and takes it now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", content = "why", rename_all = "snake_case")]
pub enum Offer {
    /// Yes.
    Offered,
    /// Only as a restricted operation: an earlier one failed that was restricted.
    OnlyRestricted,
    /// No.
    Not(WhyNot),
}

/// Why a rung is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhyNot {
    /// The drive does not have it.
    NotOffered,
    /// It is not known whether the drive has it; this says what could not be read.
    NotKnown(String),
    /// A sanitize operation runs.
    SanitizeRunning,
    /// A format runs.
    FormatRunning,
    /// An earlier sanitize failed: the drive takes only another.
    SanitizeFailed,
    /// An earlier restricted sanitize failed: the drive takes only another restricted one.
    OnlyRestricted,
    /// No sanitize command is taken until the power is cycled.
    SanitizeFrozen,
    /// No security command is taken until the power is cycled: the machine's firmware sent SECURITY FREEZE LOCK.
    Frozen,
    /// A password locks the drive.
    Locked,
    /// The drive has a password, which erasing it needs.
    HasPassword,
    /// After too many wrong passwords none is accepted until the power is cycled.
    AttemptsExpired,
    /// These namespaces are write protected.
    WriteProtected(Vec<u32>),
    /// One format would be set for all namespaces, and theirs differ.
    FormatsDiffer,
    /// Another one was asked for.
    NotChosen,
    /// It was asked for together with this one, which is not possible.
    OnlyTogether(Rung),
    /// It takes hours, and was not asked for.
    TakesHours,
    /// It is worth less than what was asked for.
    OnlyClear,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::NotOffered => f.write_str("the drive does not offer it"),
            WhyNot::NotKnown(what) => write!(f, "not known: {what}"),
            WhyNot::SanitizeRunning => f.write_str("a sanitize operation runs"),
            WhyNot::FormatRunning => f.write_str("a format runs"),
            WhyNot::SanitizeFailed => {
                f.write_str("a sanitize operation failed, and only another is accepted")
            }
            WhyNot::OnlyRestricted => f.write_str(
                "a restricted sanitize operation failed, and only another restricted one is accepted",
            ),
            WhyNot::SanitizeFrozen => f.write_str(
                "sanitizing is frozen until the drive's power is cycled: unplug it, and plug it in again",
            ),
            WhyNot::Frozen => f.write_str(
                "the machine's firmware has frozen it until the drive's power is cycled: plug it in when the \
                 machine runs, or suspend the machine",
            ),
            WhyNot::Locked => f.write_str("a password locks the drive: unlock it (hdparm --security-unlock)"),
            WhyNot::HasPassword => {
                f.write_str("the drive has a password: remove it (hdparm --security-disable)")
            }
            WhyNot::AttemptsExpired => f.write_str(
                "too many wrong passwords were given: none is accepted until the drive's power is cycled",
            ),
            WhyNot::WriteProtected(namespaces) => {
                let namespaces: Vec<String> = namespaces.iter().map(u32::to_string).collect();
                write!(f, "write protected: namespace {}", namespaces.join(", "))
            }
            WhyNot::FormatsDiffer => {
                f.write_str("the drive formats all namespaces alike, and their block formats differ")
            }
            WhyNot::NotChosen => f.write_str("another one was asked for"),
            WhyNot::OnlyTogether(other) => write!(f, "it was asked for together with {other}"),
            WhyNot::TakesHours => f.write_str("it takes hours, and was not asked for"),
            WhyNot::OnlyClear => f.write_str("it is Clear and not Purge"),
        }
    }
}

/// What is tried as a whole: the next one only if the drive refused this one before it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// One rung.
    Single(Rung),
    /// [`Rung::SanitizeCrypto`], and after it [`Rung::SanitizeBlock`].
    CryptoThenBlock,
}

impl Attempt {
    /// In their order.
    pub fn rungs(&self) -> &[Rung] {
        match self {
            Attempt::Single(rung) => std::slice::from_ref(rung),
            Attempt::CryptoThenBlock => &[Rung::SanitizeCrypto, Rung::SanitizeBlock],
        }
    }
}

/// Every rung of a drive: those that are tried, and the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ladder {
    /// The best first.
    pub attempts: Vec<Attempt>,
    /// Why not, in the order of the drive's kind.
    pub others: Vec<(Rung, WhyNot)>,
}

impl Ladder {
    /// `offers` are all rungs for this kind of drive, the best first.
    pub fn new(offers: &[(Rung, Offer)], policy: &PurgePolicy) -> Ladder {
        let mut allowed = Vec::new();
        let mut others = Vec::new();
        for (rung, offer) in offers {
            match refusal(*rung, offer, policy) {
                Some(why) => others.push((*rung, why)),
                None => allowed.push(*rung),
            }
        }
        match policy.choice {
            Choice::Best | Choice::By(_) => {}
            Choice::Fast => allowed.sort_by_key(|rung| !rung.is_crypto()),
            Choice::Both if allowed.len() == Attempt::CryptoThenBlock.rungs().len() => {
                return Ladder { attempts: vec![Attempt::CryptoThenBlock], others };
            }
            Choice::Both => {
                let alone = |rung: Rung| {
                    let other = if rung.is_crypto() { Rung::SanitizeBlock } else { Rung::SanitizeCrypto };
                    (rung, WhyNot::OnlyTogether(other))
                };
                others.extend(allowed.drain(..).map(alone));
                others.sort_by_key(|(rung, _)| offers.iter().position(|(offered, _)| offered == rung));
            }
        }
        Ladder { attempts: allowed.into_iter().map(Attempt::Single).collect(), others }
    }

    /// What is tried first.
    ///
    /// # Errors
    /// Where nothing is left, with the reason for each rung: of kind [`Kind::Busy`] where something runs on the
    /// drive, [`Kind::Refused`] where it is write protected, else [`Kind::Unsupported`].
    pub fn first(&self) -> Result<Attempt> {
        self.attempts.first().copied().ok_or_else(|| {
            let why: Vec<String> = match &self.others[..] {
                [(_, why), rest @ ..] if rest.iter().all(|(_, other)| other == why) => vec![why.to_string()],
                others => others.iter().map(|(rung, why)| format!("{rung}: {why}")).collect(),
            };
            let what = format!("no way to purge it is possible ({})", why.join("; "));
            match self.obstacle() {
                Some(Kind::Busy) => Error::busy(what).with_remedy("try again when that has ended"),
                Some(_) => Error::refused(what).with_remedy("make the namespaces writable (feature 84h)"),
                None => Error::unsupported(what).with_remedy(self.remedy()),
            }
        })
    }

    /// What prevents every rung alike.
    fn obstacle(&self) -> Option<Kind> {
        self.others.iter().find_map(|(_, why)| match why {
            WhyNot::SanitizeRunning | WhyNot::FormatRunning => Some(Kind::Busy),
            WhyNot::WriteProtected(_) => Some(Kind::Refused),
            _ => None,
        })
    }

    fn remedy(&self) -> String {
        let options = |why: &WhyNot, option: &str| {
            let rungs = self.others.iter().filter(|(_, other)| other == why);
            let rungs: Vec<String> = rungs.map(|(rung, _)| rung.to_string()).collect();
            (!rungs.is_empty()).then(|| format!("{option} allows {}", rungs.join(" and ")))
        };
        let options = [
            options(&WhyNot::OnlyClear, "--or-clear"),
            options(&WhyNot::TakesHours, "--or-overwrite"),
            options(&WhyNot::OnlyRestricted, "leaving --unrestricted-exit out"),
        ];
        let options: Vec<String> = options.into_iter().flatten().collect();
        if options.is_empty() { "see efface list --capabilities".into() } else { options.join(", ") }
    }
}

fn refusal(rung: Rung, offer: &Offer, policy: &PurgePolicy) -> Option<WhyNot> {
    let chosen = match policy.choice {
        Choice::Best | Choice::Fast => true,
        Choice::Both => Attempt::CryptoThenBlock.rungs().contains(&rung),
        Choice::By(asked) => rung == asked,
    };
    let pinned = policy.choice == Choice::By(rung);
    // Overwriting by efface is Clear and takes hours; its option names it.
    let hours_allowed = policy.or_overwrite || (pinned && rung.grade() == Grade::Purge);
    let clear_allowed = policy.or_clear || rung.overwrites();
    match offer {
        Offer::Not(why) => Some(why.clone()),
        Offer::Offered | Offer::OnlyRestricted if !chosen => Some(WhyNot::NotChosen),
        Offer::OnlyRestricted if policy.unrestricted_exit => Some(WhyNot::OnlyRestricted),
        _ if rung.overwrites() && !hours_allowed => Some(WhyNot::TakesHours),
        _ if rung.grade() == Grade::Clear && !clear_allowed => Some(WhyNot::OnlyClear),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNGS: [Rung; 6] = [
        Rung::SanitizeBlock,
        Rung::SanitizeCrypto,
        Rung::SanitizeOverwrite,
        Rung::FormatCrypto,
        Rung::FormatUserData,
        Rung::HostOverwrite,
    ];

    fn offers(of: impl Fn(Rung) -> Offer) -> Vec<(Rung, Offer)> {
        RUNGS.into_iter().map(|rung| (rung, of(rung))).collect()
    }

    fn rungs(ladder: &Ladder) -> Vec<Rung> {
        ladder.attempts.iter().flat_map(|attempt| attempt.rungs().to_vec()).collect()
    }

    fn policies(rungs: [Rung; 6]) -> impl Iterator<Item = PurgePolicy> {
        let choices = [Choice::Best, Choice::Fast, Choice::Both].into_iter().chain(rungs.map(Choice::By));
        choices.flat_map(|choice| {
            (0..8).map(move |bits| PurgePolicy {
                choice,
                or_clear: bits & 1 != 0,
                or_overwrite: bits & 2 != 0,
                unrestricted_exit: bits & 4 != 0,
            })
        })
    }

    #[test]
    fn the_best_rung_comes_first_and_the_others_say_why_not() {
        let all = offers(|_| Offer::Offered);
        let ladder = |choice| Ladder::new(&all, &PurgePolicy { choice, ..PurgePolicy::default() });
        let best = ladder(Choice::Best);
        assert_eq!(rungs(&best), [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::FormatCrypto]);
        let others = [
            (Rung::SanitizeOverwrite, WhyNot::TakesHours),
            (Rung::FormatUserData, WhyNot::OnlyClear),
            (Rung::HostOverwrite, WhyNot::TakesHours),
        ];
        assert_eq!(best.others, others);
        let fast = [Rung::SanitizeCrypto, Rung::FormatCrypto, Rung::SanitizeBlock];
        assert_eq!(rungs(&ladder(Choice::Fast)), fast);
        assert_eq!(ladder(Choice::Both).attempts, [Attempt::CryptoThenBlock]);
        assert_eq!(rungs(&ladder(Choice::By(Rung::SanitizeOverwrite))), [Rung::SanitizeOverwrite]);
        let everything = PurgePolicy { or_clear: true, or_overwrite: true, ..PurgePolicy::default() };
        assert_eq!(rungs(&Ladder::new(&all, &everything)), RUNGS);
    }

    #[test]
    fn a_drive_that_offers_too_little_is_an_error_with_the_options() {
        let clear = offers(|rung| match rung {
            Rung::FormatUserData | Rung::HostOverwrite => Offer::Offered,
            _ => Offer::Not(WhyNot::NotOffered),
        });
        let error = Ladder::new(&clear, &PurgePolicy::default()).first().unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        assert_eq!(
            error.to_string(),
            "no way to purge it is possible (sanitize-block: the drive does not offer it; sanitize-crypto: the \
             drive does not offer it; sanitize-overwrite: the drive does not offer it; format-crypto: the drive \
             does not offer it; format-user-data: it is Clear and not Purge; host-overwrite: it takes hours, and \
             was not asked for); --or-clear allows format-user-data, --or-overwrite allows host-overwrite"
        );
        let kind = |why: WhyNot| {
            let offers = offers(|_| Offer::Not(why.clone()));
            Ladder::new(&offers, &PurgePolicy::default()).first().unwrap_err().kind
        };
        assert_eq!(kind(WhyNot::SanitizeRunning), Kind::Busy);
        assert_eq!(kind(WhyNot::FormatRunning), Kind::Busy);
        assert_eq!(kind(WhyNot::WriteProtected(vec![2])), Kind::Refused);
        assert_eq!(kind(WhyNot::SanitizeFailed), Kind::Unsupported);
        let both = PurgePolicy { choice: Choice::Both, ..PurgePolicy::default() };
        let crypto = offers(|rung| match rung {
            Rung::SanitizeCrypto => Offer::Offered,
            _ => Offer::Not(WhyNot::NotOffered),
        });
        let ladder = Ladder::new(&crypto, &both);
        assert_eq!(ladder.others[1], (Rung::SanitizeCrypto, WhyNot::OnlyTogether(Rung::SanitizeBlock)));
        assert!(ladder.first().is_err());
    }

    /// Each of six rungs offered, offered as a restricted operation alone, or not: 729 drives, 72 policies.
    #[test]
    fn for_every_drive_and_policy_the_rungs_are_those_that_are_offered_and_allowed() {
        for all_rungs in [Rung::NVME, Rung::sata(true), Rung::sata(false)] {
            for drive in 0..3_u32.pow(6) {
                let offer = |(place, rung)| match drive / 3_u32.pow(place) % 3 {
                    0 => (rung, Offer::Offered),
                    1 => (rung, Offer::OnlyRestricted),
                    _ => (rung, Offer::Not(WhyNot::NotOffered)),
                };
                let offers: Vec<_> = (0..).zip(all_rungs).map(offer).collect();
                policies(all_rungs).for_each(|policy| assert_ladder(all_rungs, &offers, &policy));
            }
        }
    }

    fn assert_ladder(all_rungs: [Rung; 6], offers: &[(Rung, Offer)], policy: &PurgePolicy) {
        let ladder = Ladder::new(offers, policy);
        let wanted: Vec<Rung> = all_rungs.into_iter().filter(|rung| allowed(*rung, offers, policy)).collect();
        let wanted = match policy.choice {
            Choice::Best | Choice::By(_) => wanted,
            Choice::Fast => {
                let (crypto, rest): (Vec<Rung>, _) = wanted.iter().partition(|rung| rung.is_crypto());
                [crypto, rest].concat()
            }
            Choice::Both if wanted.len() == 2 => vec![Rung::SanitizeCrypto, Rung::SanitizeBlock],
            Choice::Both => vec![],
        };
        assert_eq!(rungs(&ladder), wanted, "{offers:?} {policy:?}");
        let others = ladder.others.iter().map(|(rung, _)| *rung);
        let mut placed: Vec<Rung> = others.chain(wanted).collect();
        placed.sort_by_key(|rung| all_rungs.iter().position(|other| other == rung));
        assert_eq!(placed, all_rungs, "each rung has its place, or says why not: {policy:?}");
        assert_eq!(ladder.first().is_err(), ladder.attempts.is_empty());
    }

    /// The rules, from the side of one rung.
    fn allowed(rung: Rung, offers: &[(Rung, Offer)], policy: &PurgePolicy) -> bool {
        let offered = match &offers.iter().find(|(offered, _)| *offered == rung).unwrap().1 {
            Offer::Offered => true,
            Offer::OnlyRestricted => !policy.unrestricted_exit,
            Offer::Not(_) => false,
        };
        let chosen = match policy.choice {
            Choice::Best | Choice::Fast => true,
            Choice::Both => rung == Rung::SanitizeBlock || rung == Rung::SanitizeCrypto,
            Choice::By(asked) => rung == asked,
        };
        let by = policy.choice == Choice::By(rung);
        let permitted = match rung {
            Rung::SanitizeBlock | Rung::SanitizeCrypto => true,
            Rung::FormatCrypto | Rung::EnhancedSecurityErase => true,
            Rung::SanitizeOverwrite => by || policy.or_overwrite,
            Rung::FormatUserData | Rung::SecurityErase | Rung::FormatUnit => policy.or_clear,
            Rung::HostOverwrite => policy.or_overwrite,
        };
        offered && chosen && permitted
    }
}
