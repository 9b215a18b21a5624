//! The report of a purge: everything that its claim is computed from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conclusion::{
    Canaries, Conclusion, DriveStatus, FormatEvidence, SanitizeEvidence, Settled, conclude,
};
use super::known::BlockClasses;
use crate::io::passthrough::nvme::status::{Answer, Meaning};
use crate::io::passthrough::nvme::{FORMAT, SANITIZE};
use crate::io::passthrough::{NvmeCommand, Request};
use crate::plan::{Choice, PurgePolicy, Rung, WhyNot};
use crate::verdict::Verdict;

/// What a purge did, and what may be said of the drive now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Of the last rung that was tried.
    pub verdict: Verdict,
    /// What was asked for.
    pub policy: PurgePolicy,
    /// Why the other rungs were not taken.
    pub others: Vec<(Rung, WhyNot)>,
    /// In the order in which they were tried; empty where nothing was sent.
    pub rungs: Vec<RungReport>,
    /// Why it ended early, with the way out.
    pub error: Option<String>,
}

/// What one rung came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct RungReport {
    /// Which one.
    pub rung: Rung,
    /// What was sent, in order.
    pub commands: Vec<SentCommand>,
    /// What the drive answered, and what its status said.
    pub evidence: Evidence,
    /// From the first command to the last status, in milliseconds.
    pub milliseconds: u64,
    /// In the order of their numbers.
    pub namespaces: Vec<NamespaceReport>,
    /// What was found afterwards; `None` where nothing was looked at.
    pub settled: Option<Settled>,
    /// What follows from all of it.
    pub conclusion: Conclusion,
}

/// An admin command, by the fields that differ from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SentCommand {
    /// 80h is Format NVM, 84h Sanitize.
    pub opcode: u8,
    /// The namespace, 0 for none.
    pub nsid: u32,
    /// Dword 10.
    pub dword_10: u32,
    /// Dword 11.
    pub dword_11: u32,
}

impl SentCommand {
    /// Whether it is a command of this rung: by its opcode, and SANACT or SES.
    fn is_of(&self, rung: Rung) -> bool {
        let sanitize = |action| self.opcode == SANITIZE && self.dword_10 & 0b111 == action;
        let format = |setting| self.opcode == FORMAT && self.dword_10 >> 9 & 0b111 == setting;
        match rung {
            Rung::SanitizeBlock => sanitize(2),
            Rung::SanitizeOverwrite => sanitize(3),
            Rung::SanitizeCrypto => sanitize(4),
            Rung::FormatUserData => format(1),
            Rung::FormatCrypto => format(2),
            Rung::HostOverwrite | Rung::EnhancedSecurityErase | Rung::SecurityErase | Rung::FormatUnit => {
                false
            }
        }
    }

    pub(super) fn of(request: &Request) -> SentCommand {
        let Request::Nvme(NvmeCommand { opcode, nsid, dwords, .. }) = request else {
            unreachable!("purges send NVMe commands alone")
        };
        SentCommand { opcode: *opcode, nsid: *nsid, dword_10: dwords[0], dword_11: dwords[1] }
    }
}

/// What is known of the commands of a rung.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// Of Sanitize.
    Sanitize(SanitizeEvidence),
    /// Of Format NVM.
    Format(FormatEvidence),
}

impl Evidence {
    /// What follows from it.
    pub fn status(&self) -> DriveStatus {
        match self {
            Evidence::Sanitize(evidence) => evidence.status(),
            Evidence::Format(evidence) => evidence.status(),
        }
    }

    /// Dword 10 of a Sanitize command; a Format is named by no status.
    pub fn command(&self) -> Option<u32> {
        match self {
            Evidence::Sanitize(evidence) => Some(evidence.command),
            Evidence::Format(_) => None,
        }
    }
}

/// The known blocks of one namespace, in logical blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct NamespaceReport {
    /// From 1.
    pub nsid: u32,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Surveyed before, and not of one byte.
    pub surveyed_blocks: u64,
    /// Written before, and read back as they were written.
    pub canary_blocks: u64,
    /// What became of these.
    pub canaries: Canaries,
    /// What all places read as afterwards.
    pub after: BlockClasses,
    /// The first and last MiB were zeroed after a change of keys; `None` where that was not to be done.
    pub tidied: Option<bool>,
}

impl NamespaceReport {
    /// Blocks whose content was known, surveyed or written.
    pub fn known_blocks(&self) -> u64 {
        self.surveyed_blocks + self.canary_blocks
    }
}

/// Those none of whose known blocks was seen to be gone.
pub(super) fn unknown_namespaces(namespaces: &[NamespaceReport]) -> Vec<u32> {
    let unknown = namespaces.iter().filter(|namespace| namespace.canaries.gone == 0);
    unknown.map(|namespace| namespace.nsid).collect()
}

/// The verdict that a conclusion comes to: canaries were written, whatever the drive did then.
pub(super) fn verdict(conclusion: &Conclusion) -> Verdict {
    match conclusion {
        Conclusion::Done { unread: 0, .. } => Verdict::Erased,
        Conclusion::Done { .. } => Verdict::Residue,
        Conclusion::Surviving(_) => Verdict::Surviving,
        Conclusion::NotStarted(_)
        | Conclusion::Running(_)
        | Conclusion::Failed
        | Conclusion::Changed(_)
        | Conclusion::Unproven(_) => Verdict::Failed,
    }
}

/// Whether the drive does not have the command, so that another rung may do.
pub(super) fn not_offered(conclusion: &Conclusion) -> bool {
    matches!(conclusion, Conclusion::NotStarted(Answer::Refused(status)) if status.meaning() == Meaning::NotSupported)
}

impl PurgeReport {
    /// Says what does not hold.
    ///
    /// # Errors
    /// The first conclusion that does not follow from what is reported, as a clause.
    pub fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, otherwise: &str| if holds { Ok(()) } else { Err(otherwise.to_string()) };
        for rung in &self.rungs {
            rung.check()?;
        }
        let earlier = self.rungs.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
        // A rung goes before another where the drive does not have it, or as the first of two.
        let goes_on = |rung: &RungReport| {
            let first_of_two = rung.rung == Rung::SanitizeCrypto && self.policy.choice == Choice::Both;
            not_offered(&rung.conclusion) || (first_of_two && verdict(&rung.conclusion) == Verdict::Erased)
        };
        ensure(earlier.iter().all(goes_on), "it went on after a rung that had begun and did not succeed")?;
        // A signal or an error can come after the last conclusion, and hides no data that survives.
        let asked = matches!(self.verdict, Verdict::Interrupted | Verdict::Terminated);
        let cut_short = asked || (self.verdict == Verdict::Failed && self.error.is_some());
        match self.rungs.last() {
            None => ensure(self.verdict.exit_code() != 0, "it claims success without a command"),
            Some(last) => ensure(
                match verdict(&last.conclusion) {
                    Verdict::Surviving => self.verdict == Verdict::Surviving,
                    concluded => self.verdict == concluded || cut_short,
                },
                "its verdict is not that of its last rung",
            ),
        }
    }
}

impl RungReport {
    fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, otherwise: &str| if holds { Ok(()) } else { Err(otherwise.to_string()) };
        let sum = |count: fn(&NamespaceReport) -> u64| self.namespaces.iter().map(count).sum::<u64>();
        if let Some(settled) = &self.settled {
            let canaries = Canaries {
                gone: sum(|namespace| namespace.canaries.gone),
                alive: sum(|namespace| namespace.canaries.alive),
                unread: sum(|namespace| namespace.canaries.unread),
            };
            ensure(canaries == settled.canaries, "its known blocks are not those of its namespaces")?;
            let unknown = unknown_namespaces(&self.namespaces);
            ensure(settled.unknown == unknown, "it hides a namespace of which nothing is known")?;
            let known = sum(NamespaceReport::known_blocks);
            let found = canaries.gone + canaries.alive + canaries.unread;
            ensure(known == found, "it found other blocks than it knew")?;
        }
        let commands = match &self.evidence {
            Evidence::Sanitize(_) => 1,
            Evidence::Format(evidence) => evidence.answers.len(),
        };
        let own = self.commands.iter().all(|command| command.is_of(self.rung));
        ensure(own && self.commands.len() == commands, "its commands are not those of its rung")?;
        let sent = self.commands.first().map(|command| command.dword_10);
        let named = self.evidence.command();
        ensure(named.is_none() || named == sent, "its status is about another command than it sent")?;
        ensure(
            self.conclusion == conclude(self.evidence.status(), self.settled.as_ref()),
            "its conclusion does not follow from what the drive answered and what was read",
        )
    }
}
