//! The part of a record that is about a purge: its claim, its limitations and its category.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{Category, NO_NAME, NOT_PHYSICAL, of_forced, of_unseen};
use crate::device::Findings;
use crate::device::identity::Identity;
use crate::device::purge_scope::{PurgeScope, Reach, ScopedNamespace};
use crate::engine::job::JobProcess;
use crate::engine::purge::conclusion::{Conclusion, DriveStatus};
use crate::engine::purge::report::{Evidence, PurgeReport, RungReport};
use crate::plan::{Grade, Rung};
use crate::verdict::Verdict;

/// A purge of a drive, and what its commands reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PurgeRecord {
    /// The subsystem of the device, as it was before.
    pub scope: PurgeScope,
    /// How far the commands reach.
    pub reach: Reach,
    /// What was sent and answered, and what was read afterwards.
    pub report: PurgeReport,
    /// Another process purged the drive while this command waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<JobProcess>,
}

type CheckResult = Result<(), String>;

impl PurgeRecord {
    /// `drive MODEL SERIAL`.
    pub fn drive(&self) -> String {
        let key = &self.scope.key;
        format!("drive {} {}", key.model, key.serial)
    }

    /// What may be said of the drive, and why.
    pub(super) fn claim(&self, identity: &Identity) -> String {
        let Some(last) = self.report.rungs.last() else {
            return "Nothing was erased: no command was sent.".into();
        };
        let sentence = match (self.report.verdict, &last.conclusion) {
            (Verdict::Surviving, Conclusion::Surviving(blocks)) => format!(
                "{blocks} of {} hold what they held before {}{}.",
                known_blocks(last),
                last.rung,
                match last.evidence.status() {
                    DriveStatus::Done(_) => ", which the drive reports as done",
                    _ => "",
                }
            ),
            (Verdict::Erased | Verdict::Residue, Conclusion::Done { unread, .. }) => {
                let rungs = self.report.rungs.iter().filter(|rung| is_done(&rung.conclusion));
                let rungs: Vec<String> = rungs.map(|rung| erased(rung, identity.physical)).collect();
                let unread = match unread {
                    0 => String::new(),
                    count => format!(" {count} of them could not be read, and may hold what they held."),
                };
                format!(
                    "The {} erased {} itself. {}{unread}",
                    self.drive(),
                    self.reached_words(),
                    rungs.join(" ")
                )
            }
            (_, conclusion) => {
                format!("Nothing is claimed for the {}: {} {conclusion}.", self.drive(), last.rung)
            }
        };
        match &self.taken_from {
            Some(JobProcess { pid, .. }) => format!("{sentence} That was done by process {pid}."),
            None => sentence,
        }
    }

    /// What the claim does not cover. Never empty.
    pub(super) fn limitations(&self, identity: &Identity, findings: &Findings) -> Vec<String> {
        let rungs = || self.report.rungs.iter().filter(|rung| is_done(&rung.conclusion));
        let any = |is: fn(Rung) -> bool| rungs().any(|rung| is(rung.rung));
        let formatted = |rung: Rung| matches!(rung, Rung::FormatCrypto | Rung::FormatUserData);
        let untidy = rungs().any(|rung| rung.namespaces.iter().any(|each| each.tidied == Some(false)));
        let sentences = [
            (true, "Software sees no spare blocks: that these are erased is the drive's word."),
            (
                any(|rung| !rung.is_crypto()),
                "Blocks that read as zeroes are what a deallocation alone shows too.",
            ),
            (any(Rung::is_crypto), "A change of keys is as good as the drive's handling of its keys."),
            (
                any(formatted),
                "No status of the drive names a Format command: that it was done is the drive's answer to it.",
            ),
            (
                any(|rung| rung == Rung::FormatUserData),
                "What a drive does for a user data erase is up to it: counted as Clear.",
            ),
            (
                untidy,
                "The first and last MiB were not zeroed after the change of keys: they can look like a partition \
                 table.",
            ),
            (!identity.physical, NOT_PHYSICAL),
            (!identity.has_name(), NO_NAME),
            (true, "Partitions that need authentication (RPMB) and boot partitions are outside."),
        ];
        let sentences =
            sentences.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.to_string());
        let scope = self.scope.limitations(self.reach).into_iter();
        let forced = of_forced(findings).map(String::from);
        sentences.chain(scope).chain(forced).chain(of_unseen(findings)).collect()
    }

    /// The least that would do.
    pub(super) fn asked(&self) -> Category {
        let policy = &self.report.policy;
        if policy.or_clear || policy.or_overwrite { Category::Clear } else { Category::Purge }
    }

    /// Of the last rung, where it is done, and where the media are known.
    pub(super) fn achieved(&self, identity: &Identity) -> Category {
        let erased = self.report.verdict == Verdict::Erased && identity.physical;
        let done = self.report.rungs.last().filter(|_| erased);
        match done.map(|rung| rung.rung.grade()) {
            Some(Grade::Purge) => Category::Purge,
            Some(Grade::Clear) => Category::Clear,
            None => Category::None,
        }
    }

    /// Says what does not hold.
    pub(super) fn check(&self, identity: &Identity) -> CheckResult {
        let ensure = |holds: bool, otherwise: &str| if holds { Ok(()) } else { Err(otherwise.to_string()) };
        self.report.check()?;
        let named = self.scope.namespaces.iter().find(|namespace| namespace.named);
        let is_named = |named: &ScopedNamespace| {
            named.size_bytes == Some(identity.size_bytes)
                && named.nodes.iter().any(|node| Some(node.number) == identity.number)
        };
        ensure(named.is_some_and(is_named), "its device is none of the drive that was purged")?;
        for rung in &self.report.rungs {
            let sanitizes = matches!(rung.evidence, Evidence::Sanitize(_));
            ensure(
                !sanitizes || self.reach == Reach::Subsystem,
                "it sent a command that reaches more than it says",
            )?;
            let known = |namespace: &ScopedNamespace| {
                namespace.nodes.is_empty() || rung.namespaces.iter().any(|known| known.nsid == namespace.nsid)
            };
            ensure(
                self.scope.reached(self.reach).all(known),
                "it knew nothing of a namespace that its command reaches",
            )?;
        }
        Ok(())
    }

    /// `all 2 namespaces`, `namespace 1`.
    fn reached_words(&self) -> String {
        let reached: Vec<u32> = self.scope.reached(self.reach).map(|namespace| namespace.nsid).collect();
        match (self.reach, &reached[..]) {
            (Reach::Namespace, numbers) => {
                format!("namespace {}", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
            }
            (Reach::Subsystem, [_]) => "its one namespace".into(),
            (Reach::Subsystem, numbers) => format!("all {} namespaces", numbers.len()),
        }
    }
}

fn is_done(conclusion: &Conclusion) -> bool {
    matches!(conclusion, Conclusion::Done { .. })
}

/// `of 3072 blocks whose content was known (3008 surveyed, 64 canaries)`.
fn known_blocks(rung: &RungReport) -> String {
    let sum = |count: fn(&crate::engine::purge::report::NamespaceReport) -> u64| {
        rung.namespaces.iter().map(count).sum::<u64>()
    };
    let (surveyed, canaries) =
        (sum(|namespace| namespace.surveyed_blocks), sum(|namespace| namespace.canary_blocks));
    format!(
        "{} blocks whose content was known ({surveyed} surveyed, {canaries} written as canaries)",
        surveyed + canaries
    )
}

/// One rung, in a sentence.
fn erased(rung: &RungReport, physical: bool) -> String {
    let Conclusion::Done { proof, .. } = rung.conclusion else { return String::new() };
    let name = rung.rung;
    let grade = if physical { format!(" ({} by NIST SP 800-88)", name.grade()) } else { String::new() };
    format!(
        "{name}{grade}: {proof}; of {}, none is left; size, block format and names are \
         as before.",
        known_blocks(rung)
    )
}
