//! The conclusion of a purge: a pure function of what the drive was sent, what it answered, and what is left.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::whole::Change;
use crate::io::passthrough::nvme::Unknown;
use crate::io::passthrough::nvme::logs::{Phase, SanitizeLog};
use crate::io::passthrough::nvme::probe::NamespaceFacts;
use crate::io::passthrough::nvme::status::Answer;
use crate::units::share;

/// What the drive's status says of our command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum DriveStatus {
    /// Nothing was begun: the drive refused the command, or the kernel did.
    NotStarted(Answer),
    /// An operation runs: how much of it is done, of 65536, where the drive says so.
    Running(Option<u16>),
    /// It succeeded, and this is why it was ours.
    Done(Proof),
    /// The drive reports a failure.
    Failed,
    /// The status does not say that ours succeeded. Further polls can change that.
    Unproven(Unproven),
}

/// Why a status is about our command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The status names our command, and was seen to run.
    SeenRunning,
    /// The status names our command, and "nothing was written since" became true after it.
    GlobalDataErased,
    /// The status names our command, and did not before.
    NamesCommand,
    /// The drive accepted the command, which ends with its operation; no status names it.
    Completion,
}

/// What is missing for a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Unproven {
    /// The drive's status cannot be read.
    NoStatus,
    /// By its status there was no operation.
    NeverStarted,
    /// The status names another command, by this dword 10.
    OtherCommand(u32),
    /// The status already named this command as done, or may have, and no change was seen.
    NoChange,
    /// An operation ran when the command was sent: the status may be about that one.
    RanBefore,
    /// There was no answer, and no status names the command.
    NoAnswer,
    /// It ended while no process watched, and others may have written since.
    WrittenSince,
    /// Nothing was read back.
    NotReadBack,
    /// No known block could be compared.
    NoCanary,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::SeenRunning => {
                "the drive accepted it, its status names this command as done, and was seen to show it running"
            }
            Proof::GlobalDataErased => {
                "the drive accepted it, and its status names this command as done, with nothing written since"
            }
            Proof::NamesCommand => {
                "the drive accepted it, and its status names this command as done, which it did not before"
            }
            Proof::Completion => "the drive answered each command with success",
        })
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unproven::NoStatus => f.write_str("the drive's status cannot be read"),
            Unproven::NeverStarted => f.write_str("by the drive's status there was no operation"),
            Unproven::OtherCommand(dword) => {
                write!(f, "the drive's status is about another command (dword 10 is {dword:08x}h)")
            }
            Unproven::NoChange => {
                f.write_str("the drive's status named such a command as done before, and never changed")
            }
            Unproven::RanBefore => f.write_str("an operation ran already when the command was sent"),
            Unproven::NoAnswer => f.write_str("there was no answer, and no status names the command"),
            Unproven::WrittenSince => {
                f.write_str("it ended while no process watched, and others may have written since")
            }
            Unproven::NotReadBack => f.write_str("nothing was read back"),
            Unproven::NoCanary => f.write_str(
                "there was no block that could be written or read before, and compared: another purge may show it",
            ),
        }
    }
}

/// What is known of one Sanitize command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SanitizeEvidence {
    /// Its dword 10.
    pub command: u32,
    /// The status after the canaries were written and before the command was sent; `None` where it could not
    /// be read.
    pub before: Option<SanitizeLog>,
    /// How the drive answered it.
    pub answer: Answer,
    /// The first status after it that showed it running.
    pub running: Option<SanitizeLog>,
    /// The last status; `None` where it could not be read.
    pub last: Option<SanitizeLog>,
    /// An earlier process sent it, and it has not been seen to run since.
    pub resumed: bool,
}

impl SanitizeEvidence {
    /// Before the first poll.
    pub fn new(command: u32, before: Option<SanitizeLog>, answer: Answer) -> SanitizeEvidence {
        SanitizeEvidence { command, before, answer, running: None, last: None, resumed: false }
    }

    /// Takes the next poll.
    pub fn add(&mut self, polled: Result<SanitizeLog, Unknown>) {
        self.last = polled.ok();
        let ours = |log: &SanitizeLog| log.phase() == Phase::Running && log.command == self.command;
        let running = self.last.filter(ours);
        // From then on no other process can write: the drive refuses it, and then the claim keeps others away.
        self.resumed &= running.is_none();
        self.running = self.running.or(running);
    }

    /// What follows from all of it.
    pub fn status(&self) -> DriveStatus {
        if matches!(self.answer, Answer::Refused(_) | Answer::NotSent(_)) {
            return DriveStatus::NotStarted(self.answer);
        }
        let Some(last) = &self.last else { return DriveStatus::Unproven(Unproven::NoStatus) };
        match last.phase() {
            Phase::Running => DriveStatus::Running(last.progress),
            Phase::Failed => DriveStatus::Failed,
            Phase::Never => DriveStatus::Unproven(Unproven::NeverStarted),
            Phase::Done if last.command != self.command => {
                DriveStatus::Unproven(Unproven::OtherCommand(last.command))
            }
            Phase::Done if self.resumed && !last.global_data_erased => {
                DriveStatus::Unproven(Unproven::WrittenSince)
            }
            Phase::Done => self.proof(last).map_or_else(DriveStatus::Unproven, DriveStatus::Done),
        }
    }

    /// Why a status that names the command as done is about the one that we sent, and no earlier one like it.
    fn proof(&self, last: &SanitizeLog) -> Result<Proof, Unproven> {
        let Some(before) = self.before else {
            // What runs may be any command like ours, unless the drive accepted ours.
            return match (self.answer, self.running) {
                (Answer::Accepted, Some(_)) => Ok(Proof::SeenRunning),
                (Answer::Accepted, None) => Err(Unproven::NoChange),
                _ => Err(Unproven::NoAnswer),
            };
        };
        if before.phase() == Phase::Running {
            return Err(Unproven::RanBefore);
        }
        if self.running.is_some() {
            return Ok(Proof::SeenRunning);
        }
        if !before.global_data_erased && last.global_data_erased {
            return Ok(Proof::GlobalDataErased);
        }
        let named = before.phase() == Phase::Done && before.command == self.command;
        if named { Err(Unproven::NoChange) } else { Ok(Proof::NamesCommand) }
    }
}

/// What is known of the Format commands of a purge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FormatEvidence {
    /// One for each command, in the order of sending.
    pub answers: Vec<Answer>,
    /// What is left to format of each namespace in percent at the last poll, `None` where the drive does not
    /// report it; none of them where one could not be read.
    pub left_percent: Option<Vec<Option<u8>>>,
    /// An earlier process sent them.
    pub resumed: bool,
}

impl FormatEvidence {
    /// Before the first poll.
    pub fn new(answers: Vec<Answer>) -> FormatEvidence {
        FormatEvidence { answers, left_percent: None, resumed: false }
    }

    /// Takes the next poll of all namespaces.
    pub fn add(&mut self, namespaces: &[NamespaceFacts]) {
        let read = |facts: &NamespaceFacts| facts.namespace.is_ok() || facts.independent.is_ok();
        let left = || namespaces.iter().map(NamespaceFacts::format_left_percent).collect();
        self.left_percent = (!namespaces.is_empty() && namespaces.iter().all(read)).then(left);
    }

    /// What follows from all of it.
    pub fn status(&self) -> DriveStatus {
        let refused = |answer: &&Answer| matches!(answer, Answer::Refused(_) | Answer::NotSent(_));
        let refusal = self.answers.iter().find(refused);
        match (refusal, &self.left_percent) {
            (Some(refusal), _) if self.answers.iter().all(|answer| refused(&answer)) => {
                DriveStatus::NotStarted(*refusal)
            }
            (_, Some(left)) if left.iter().flatten().any(|percent| *percent > 0) => {
                let most = left.iter().flatten().max().copied().unwrap_or_default().min(100);
                DriveStatus::Running(Some((u32::from(100 - most) * 0xffff / 100) as u16))
            }
            // Of several namespaces some were formatted: the rest holds what it held.
            (Some(_), _) => DriveStatus::Failed,
            (None, None) => DriveStatus::Unproven(Unproven::NoStatus),
            (None, Some(_)) if self.resumed => DriveStatus::Unproven(Unproven::WrittenSince),
            (None, Some(_))
                if !self.answers.is_empty() && self.answers.iter().all(|it| *it == Answer::Accepted) =>
            {
                DriveStatus::Done(Proof::Completion)
            }
            (None, Some(_)) => DriveStatus::Unproven(Unproven::NoAnswer),
        }
    }
}

/// What became of blocks whose content was known before: canaries that were written, and surveyed blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Canaries {
    /// Those that hold something else.
    pub gone: u64,
    /// Those that hold what they held.
    pub alive: u64,
    /// Those that could not be read.
    pub unread: u64,
}

/// What was found after the drive said that it is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Settled {
    /// By reads from the media, of all namespaces.
    pub canaries: Canaries,
    /// Namespaces none of whose known blocks was seen to be gone: nothing is known of what became of them.
    pub unknown: Vec<u32>,
    /// What is not as it was before: the drive, or the shape of a namespace.
    pub changes: Vec<Change>,
}

/// What may be said of a purge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Conclusion {
    /// All four conditions hold.
    Done {
        /// Why the drive's status is about our command.
        proof: Proof,
        /// Known blocks that could not be read back.
        unread: u64,
    },
    /// It has not ended.
    Running(Option<u16>),
    /// Nothing was begun: another rung can be tried where the drive does not know this one.
    NotStarted(Answer),
    /// The drive reports a failure.
    Failed,
    /// The drive came back as another one, or in another shape.
    Changed(Vec<Change>),
    /// A condition is not known to hold.
    Unproven(Unproven),
    /// Known blocks hold what they held, whatever the drive says: their number.
    Surviving(u64),
}

/// As the rest of a sentence that begins with the rung.
impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conclusion::Done { proof, .. } => write!(f, "is done: {proof}"),
            Conclusion::Running(Some(part)) => {
                write!(f, "has not ended: the drive says {}", share((*part).into(), 1 << 16))
            }
            Conclusion::Running(None) => f.write_str("has not ended"),
            Conclusion::NotStarted(answer) => write!(f, "was not begun: {answer}"),
            Conclusion::Failed => f.write_str("failed, as the drive reports"),
            Conclusion::Changed(changes) => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                write!(f, "left another drive than before: {}", changes.join("; "))
            }
            Conclusion::Unproven(why) => write!(f, "is not known to be done: {why}"),
            Conclusion::Surviving(blocks) => write!(f, "left {blocks} known blocks as they were"),
        }
    }
}

/// The conclusion; `None` for what was not looked at yet.
pub fn conclude(status: DriveStatus, settled: Option<&Settled>) -> Conclusion {
    let canaries = settled.map_or(Canaries::default(), |settled| settled.canaries);
    match (status, settled) {
        _ if canaries.alive > 0 => Conclusion::Surviving(canaries.alive),
        (DriveStatus::NotStarted(answer), _) => Conclusion::NotStarted(answer),
        (DriveStatus::Running(progress), _) => Conclusion::Running(progress),
        (DriveStatus::Failed, _) => Conclusion::Failed,
        (DriveStatus::Unproven(why), _) => Conclusion::Unproven(why),
        (DriveStatus::Done(_), None) => Conclusion::Unproven(Unproven::NotReadBack),
        (DriveStatus::Done(_), Some(settled)) if !settled.changes.is_empty() => {
            Conclusion::Changed(settled.changes.clone())
        }
        (DriveStatus::Done(_), Some(settled)) if canaries.gone == 0 || !settled.unknown.is_empty() => {
            Conclusion::Unproven(Unproven::NoCanary)
        }
        (DriveStatus::Done(proof), Some(_)) => Conclusion::Done { proof, unread: canaries.unread },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::nvme::status::Status;

    const OURS: u32 = 0x02;
    const OTHER: u32 = 0x04;

    // SSTAT 2:0.
    const NEVER: u8 = 0;
    const DONE: u8 = 1;
    const RUNNING: u8 = 2;
    const FAILED: u8 = 3;
    const DONE_DEALLOCATED: u8 = 4;

    fn log(status: u8, command: u32, erased: bool) -> SanitizeLog {
        let mut page = [0; 512];
        page[..4].copy_from_slice(&[0xff, 0xff, status, erased.into()]);
        page[4..8].copy_from_slice(&command.to_le_bytes());
        SanitizeLog::decode(&page).unwrap()
    }

    fn status(before: Option<SanitizeLog>, answer: Answer, polls: &[SanitizeLog]) -> DriveStatus {
        let mut evidence = SanitizeEvidence::new(OURS, before, answer);
        polls.iter().for_each(|log| evidence.add(Ok(*log)));
        evidence.status()
    }

    fn accepted(before: SanitizeLog, polls: &[SanitizeLog]) -> DriveStatus {
        status(Some(before), Answer::Accepted, polls)
    }

    #[test]
    fn done_is_a_status_that_names_our_command_and_did_not_before() {
        let done = |proof| DriveStatus::Done(proof);
        let fresh = log(NEVER, 0, false);
        let ours = log(DONE, OURS, false);
        for before in [fresh, log(DONE, OTHER, false), log(FAILED, OURS, false), log(NEVER, OURS, false)] {
            assert_eq!(accepted(before, &[ours]), done(Proof::NamesCommand), "{before:?}");
            let unexpected = log(DONE_DEALLOCATED, OURS, false);
            assert_eq!(accepted(before, &[unexpected]), done(Proof::NamesCommand));
        }
        let running = log(RUNNING, OURS, false);
        assert_eq!(accepted(fresh, &[running, ours]), done(Proof::SeenRunning));
        assert_eq!(accepted(fresh, &[log(DONE, OURS, true)]), done(Proof::GlobalDataErased));
    }

    #[test]
    fn where_the_status_said_done_before_a_change_has_to_be_seen() {
        let unproven = DriveStatus::Unproven(Unproven::NoChange);
        let (same, erased) = (log(DONE, OURS, false), log(DONE, OURS, true));
        assert_eq!(accepted(same, &[same]), unproven);
        assert_eq!(accepted(erased, &[erased]), unproven, "it was true after the canaries were written");
        assert_eq!(accepted(erased, &[same]), unproven);
        assert_eq!(accepted(same, &[erased]), DriveStatus::Done(Proof::GlobalDataErased));
        let running = log(RUNNING, OURS, false);
        assert_eq!(accepted(erased, &[running, erased]), DriveStatus::Done(Proof::SeenRunning));
        // An operation of another command is no sign of ours.
        assert_eq!(accepted(erased, &[log(RUNNING, OTHER, false), erased]), unproven);
        // Before is not known: it may have said so.
        assert_eq!(status(None, Answer::Accepted, &[erased]), unproven);
        assert_eq!(status(None, Answer::Accepted, &[running, same]), DriveStatus::Done(Proof::SeenRunning));
    }

    #[test]
    fn another_command_in_the_status_is_not_ours() {
        let fresh = log(NEVER, 0, false);
        let other = DriveStatus::Unproven(Unproven::OtherCommand(OTHER));
        assert_eq!(accepted(fresh, &[log(DONE, OTHER, true)]), other);
        assert_eq!(accepted(fresh, &[log(RUNNING, OURS, false), log(DONE, OTHER, true)]), other);
        // As ours, but for the bit that allows an unrestricted exit.
        let unrestricted = log(DONE, OURS | 1 << 3, true);
        assert!(matches!(accepted(fresh, &[unrestricted]), DriveStatus::Unproven(_)));
        let ran = log(RUNNING, OURS, false);
        let polls = [ran, log(DONE, OURS, true)];
        assert_eq!(accepted(ran, &polls), DriveStatus::Unproven(Unproven::RanBefore));
    }

    #[test]
    fn what_runs_has_not_ended_and_what_cannot_be_read_is_no_status() {
        let fresh = log(NEVER, 0, false);
        let (running, done) = (log(RUNNING, OURS, false), log(DONE, OURS, true));
        assert_eq!(accepted(fresh, &[running]), DriveStatus::Running(None), "FFFFh is no progress");
        assert_eq!(accepted(fresh, &[done, running]), DriveStatus::Running(None), "it fell back");
        assert_eq!(accepted(fresh, &[log(FAILED, OURS, false)]), DriveStatus::Failed);
        assert_eq!(accepted(fresh, &[fresh]), DriveStatus::Unproven(Unproven::NeverStarted));
        assert_eq!(accepted(fresh, &[]), DriveStatus::Unproven(Unproven::NoStatus));
        let mut evidence = SanitizeEvidence::new(OURS, Some(fresh), Answer::Accepted);
        evidence.add(Ok(done));
        evidence.add(Err(Unknown::Zeroes));
        assert_eq!(evidence.status(), DriveStatus::Unproven(Unproven::NoStatus));
        // Processing, or a failure, by the state alone.
        for (state, expected) in
            [(1, DriveStatus::Running(None)), (5, DriveStatus::Running(None)), (4, DriveStatus::Failed)]
        {
            let mut page = [0; 512];
            page[..5].copy_from_slice(&[0xff, 0xff, DONE, 1, OURS as u8]);
            page[36] = state;
            assert_eq!(accepted(fresh, &[SanitizeLog::decode(&page).unwrap()]), expected);
        }
    }

    #[test]
    fn without_an_answer_the_status_decides() {
        let fresh = log(NEVER, 0, false);
        let (running, done) = (log(RUNNING, OURS, false), log(DONE, OURS, true));
        let lost = |before, polls: &[SanitizeLog]| status(before, Answer::Lost, polls);
        assert_eq!(lost(Some(fresh), &[running]), DriveStatus::Running(None));
        assert_eq!(lost(Some(fresh), &[running, done]), DriveStatus::Done(Proof::SeenRunning));
        assert_eq!(lost(Some(fresh), &[done]), DriveStatus::Done(Proof::GlobalDataErased));
        assert_eq!(lost(Some(fresh), &[fresh]), DriveStatus::Unproven(Unproven::NeverStarted));
        assert_eq!(lost(Some(done), &[done]), DriveStatus::Unproven(Unproven::NoChange));
        assert_eq!(lost(None, &[running, done]), DriveStatus::Unproven(Unproven::NoAnswer));
        for answer in [Answer::Refused(Status(0x4002)), Answer::NotSent(libc::EACCES)] {
            assert_eq!(status(Some(fresh), answer, &[running, done]), DriveStatus::NotStarted(answer));
        }
    }

    fn formatted(answers: &[Answer], left: Option<&[Option<u8>]>) -> DriveStatus {
        let left_percent = left.map(<[_]>::to_vec);
        FormatEvidence { left_percent, ..FormatEvidence::new(answers.to_vec()) }.status()
    }

    #[test]
    fn a_format_is_done_when_it_was_accepted_and_nothing_is_left() {
        use Answer::*;
        let refused = Refused(Status(0x4002));
        let done = DriveStatus::Done(Proof::Completion);
        assert_eq!(formatted(&[Accepted], Some(&[Some(0)])), done);
        assert_eq!(formatted(&[Accepted, Accepted], Some(&[Some(0), None])), done);
        assert_eq!(formatted(&[Accepted], Some(&[Some(0), Some(25)])), DriveStatus::Running(Some(49151)));
        assert_eq!(formatted(&[Accepted], Some(&[Some(0x7f)])), DriveStatus::Running(Some(0)));
        assert_eq!(formatted(&[Lost], Some(&[Some(1)])), DriveStatus::Running(Some(64879)));
        assert_eq!(formatted(&[Lost], Some(&[Some(0)])), DriveStatus::Unproven(Unproven::NoAnswer));
        assert_eq!(formatted(&[Accepted], None), DriveStatus::Unproven(Unproven::NoStatus));
        assert_eq!(formatted(&[], Some(&[Some(0)])), DriveStatus::Unproven(Unproven::NoAnswer));
        assert_eq!(formatted(&[refused], Some(&[Some(0)])), DriveStatus::NotStarted(refused));
        assert_eq!(formatted(&[Accepted, refused], Some(&[Some(0); 2])), DriveStatus::Failed);
    }

    /// Every status with everything that can be found afterwards: only one combination is done.
    #[test]
    fn only_all_four_conditions_together_are_done() {
        let refused = Answer::Refused(Status(0x4001));
        let statuses = [
            DriveStatus::Done(Proof::SeenRunning),
            DriveStatus::Running(Some(7)),
            DriveStatus::Failed,
            DriveStatus::NotStarted(refused),
            DriveStatus::Unproven(Unproven::NoStatus),
        ];
        let mut done = 0;
        for (status, gone, alive, unread) in
            statuses.into_iter().flat_map(|status| (0..8).map(move |n| (status, n & 1, n >> 1 & 1, n >> 2)))
        {
            for changes in [vec![], vec![Change::Gone { nsid: 1 }]] {
                let settled =
                    Settled { canaries: Canaries { gone, alive, unread }, unknown: Vec::new(), changes };
                let conclusion = conclude(status, Some(&settled));
                if alive > 0 {
                    assert_eq!(conclusion, Conclusion::Surviving(1), "whatever {status:?} says");
                }
                if let Conclusion::Done { proof, unread: left } = conclusion {
                    assert_eq!((proof, left, gone, alive), (Proof::SeenRunning, unread, 1, 0));
                    assert!(settled.changes.is_empty());
                    done += 1;
                }
            }
            assert!(!matches!(conclude(status, None), Conclusion::Done { .. }));
        }
        assert_eq!(done, 2, "with and without unread blocks");
    }
}
