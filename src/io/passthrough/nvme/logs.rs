//! Log pages: the sanitize status, and which commands the controller supports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FORMAT, IDENTIFY, SANITIZE, Unknown, le16, le32, page};

const SANITIZE_BYTES: usize = 512;
const EFFECTS_BYTES: usize = 4096;

/// The most recent sanitize operation (log page 81h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SanitizeLog {
    /// SPROG: how much is done, of 65536; `None` for FFFFh, which proves nothing: it is there whenever nothing
    /// runs, and on some drives while something does.
    pub progress: Option<u16>,
    /// SSTAT 2:0.
    pub status: SanitizeStatus,
    /// SSTAT 7:3: finished passes of an overwrite.
    pub passes: u8,
    /// SSTAT 8: nothing was written since the media was sanitized.
    pub global_data_erased: bool,
    /// SCDW10: dword 10 of the command that began the operation.
    pub command: u32,
    /// How long operations take.
    pub estimates: SanitizeEstimates,
    /// SSI 3:0; idle on drives from before the field was defined (NVMe 2.1).
    pub state: SanitizeState,
    /// SSI 7:4: the state in which it failed; 0 where it did not.
    pub failed_in: u8,
}

/// The result of the most recent operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SanitizeStatus {
    /// There was none.
    Never,
    /// It succeeded.
    Completed,
    /// It goes on.
    InProgress,
    /// It failed.
    Failed,
    /// It succeeded, and deallocated although the command asked not to.
    CompletedDeallocated,
}

/// The state of the drive's sanitize state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SanitizeState {
    /// None of the others.
    Idle,
    /// An operation runs that, should it fail, only another restricted one leads out of.
    RestrictedProcessing,
    /// It failed.
    RestrictedFailure,
    /// An operation runs whose failure can be left by the action "exit failure mode".
    UnrestrictedProcessing,
    /// It failed.
    UnrestrictedFailure,
    /// It is done, and the media can be read before it is deallocated.
    MediaVerification,
    /// That deallocation.
    PostVerificationDeallocation,
}

/// All that the log says of an operation, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// There never was one.
    Never,
    /// It has not ended.
    Running,
    /// It has succeeded.
    Done,
    /// It has failed.
    Failed,
}

/// How long operations take, in seconds; `None` where the drive does not report it, 0 where the command ends
/// with the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SanitizeEstimates {
    /// ETO: an overwrite of 16 passes.
    pub overwrite_seconds: Option<u32>,
    /// ETBE.
    pub block_erase_seconds: Option<u32>,
    /// ETCE.
    pub crypto_erase_seconds: Option<u32>,
    /// ETOND: as the overwrite above, without deallocation at its end.
    pub overwrite_kept_seconds: Option<u32>,
    /// ETBEND.
    pub block_erase_kept_seconds: Option<u32>,
    /// ETCEND.
    pub crypto_erase_kept_seconds: Option<u32>,
}

impl SanitizeLog {
    /// From the 512 bytes of log page 81h.
    ///
    /// # Errors
    /// No page, or a state that does not exist.
    pub fn decode(bytes: &[u8]) -> Result<SanitizeLog, Unknown> {
        let page = page::<SANITIZE_BYTES>(bytes)?;
        let status = match page[2] & 0b111 {
            0 => SanitizeStatus::Never,
            1 => SanitizeStatus::Completed,
            2 => SanitizeStatus::InProgress,
            3 => SanitizeStatus::Failed,
            4 => SanitizeStatus::CompletedDeallocated,
            _ => return Err(Unknown::Invalid("the sanitize status")),
        };
        let state = match page[36] & 0b1111 {
            0 => SanitizeState::Idle,
            1 => SanitizeState::RestrictedProcessing,
            2 => SanitizeState::RestrictedFailure,
            3 => SanitizeState::UnrestrictedProcessing,
            4 => SanitizeState::UnrestrictedFailure,
            5 => SanitizeState::MediaVerification,
            6 => SanitizeState::PostVerificationDeallocation,
            _ => return Err(Unknown::Invalid("the sanitize state")),
        };
        let seconds = |at| Some(le32(page, at)).filter(|seconds| *seconds != u32::MAX);
        Ok(SanitizeLog {
            progress: Some(le16(page, 0)).filter(|progress| *progress != u16::MAX),
            status,
            passes: page[2] >> 3,
            global_data_erased: page[3] & 1 != 0,
            command: le32(page, 4),
            estimates: SanitizeEstimates {
                overwrite_seconds: seconds(8),
                block_erase_seconds: seconds(12),
                crypto_erase_seconds: seconds(16),
                overwrite_kept_seconds: seconds(20),
                block_erase_kept_seconds: seconds(24),
                crypto_erase_kept_seconds: seconds(28),
            },
            state,
            failed_in: page[36] >> 4,
        })
    }

    /// Done only where status and state both say so; where they contradict each other, the worse is taken.
    pub fn phase(&self) -> Phase {
        use SanitizeState::*;
        match (self.status, self.state) {
            (SanitizeStatus::Failed, _) | (_, RestrictedFailure | UnrestrictedFailure) => Phase::Failed,
            (SanitizeStatus::InProgress, _)
            | (_, RestrictedProcessing | UnrestrictedProcessing)
            | (_, MediaVerification | PostVerificationDeallocation) => Phase::Running,
            (SanitizeStatus::Completed | SanitizeStatus::CompletedDeallocated, Idle) => Phase::Done,
            (SanitizeStatus::Never, Idle) => Phase::Never,
        }
    }

    /// Whether only a restricted operation leads out of the failure: as the state says, and on drives without
    /// it the command that failed.
    pub fn failed_restricted(&self) -> bool {
        const ALLOW_UNRESTRICTED_EXIT: u32 = 1 << 3;
        self.phase() == Phase::Failed
            && match self.state {
                SanitizeState::RestrictedFailure => true,
                SanitizeState::UnrestrictedFailure => false,
                _ => self.command & ALLOW_UNRESTRICTED_EXIT == 0,
            }
    }
}

/// Which of the commands that erase a controller supports (log page 05h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects {
    /// Format NVM.
    pub format: bool,
    /// Sanitize.
    pub sanitize: bool,
}

impl Effects {
    /// From the 4096 bytes of log page 05h: for each admin opcode 32 bits, of which the lowest says that it
    /// is supported.
    ///
    /// # Errors
    /// No page, or one by which the controller lacks a command that every controller has.
    pub fn decode(bytes: &[u8]) -> Result<Effects, Unknown> {
        let page = page::<EFFECTS_BYTES>(bytes)?;
        let supports = |opcode: u8| page[4 * usize::from(opcode)] & 1 != 0;
        if !supports(IDENTIFY) {
            return Err(Unknown::Invalid("a controller without Identify"));
        }
        Ok(Effects { format: supports(FORMAT), sanitize: supports(SANITIZE) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(change: impl Fn(&mut [u8])) -> Result<SanitizeLog, Unknown> {
        let mut page = vec![0; 512];
        page[0..2].copy_from_slice(&[0xff, 0xff]);
        change(&mut page);
        SanitizeLog::decode(&page)
    }

    #[test]
    fn the_fields_of_the_sanitize_status_are_where_the_specification_has_them() {
        let log = log(|page| {
            page[..4].copy_from_slice(&[0x34, 0x12, 0b0001_1010, 0b1]);
            page[4..8].copy_from_slice(&0x0000_0113_u32.to_le_bytes());
            for (number, at) in (8..32).step_by(4).enumerate() {
                page[at..at + 4].copy_from_slice(&(60 + number as u32).to_le_bytes());
            }
            page[12..16].copy_from_slice(&[0xff; 4]);
            page[16..20].copy_from_slice(&[0; 4]);
            page[36] = 0x13;
        });
        assert_eq!(
            log.unwrap(),
            SanitizeLog {
                progress: Some(0x1234),
                status: SanitizeStatus::InProgress,
                passes: 3,
                global_data_erased: true,
                command: 0x113,
                estimates: SanitizeEstimates {
                    overwrite_seconds: Some(60),
                    block_erase_seconds: None,
                    crypto_erase_seconds: Some(0),
                    overwrite_kept_seconds: Some(63),
                    block_erase_kept_seconds: Some(64),
                    crypto_erase_kept_seconds: Some(65),
                },
                state: SanitizeState::UnrestrictedProcessing,
                failed_in: 1,
            }
        );
    }

    #[test]
    fn no_log_is_no_status() {
        assert_eq!(SanitizeLog::decode(&[]), Err(Unknown::Absent));
        assert_eq!(SanitizeLog::decode(&[1; 511]), Err(Unknown::Short));
        assert_eq!(
            SanitizeLog::decode(&[0; 512]),
            Err(Unknown::Zeroes),
            "\"never sanitized\" is not all zero"
        );
        assert_eq!(SanitizeLog::decode(&[0xff; 512]), Err(Unknown::Ones));
        assert_eq!(log(|page| page[2] = 5), Err(Unknown::Invalid("the sanitize status")));
        assert_eq!(log(|page| page[36] = 7), Err(Unknown::Invalid("the sanitize state")));
        assert_eq!(log(|_| {}).unwrap().phase(), Phase::Never);
        assert_eq!(log(|_| {}).unwrap().progress, None);
    }

    /// Of 5 results and 7 states only two together are done.
    #[test]
    fn done_is_what_result_and_state_agree_on() {
        let mut done = Vec::new();
        for (status, state) in (0..5).flat_map(|status| (0..7).map(move |state| (status, state))) {
            let log = log(|page| (page[2], page[36]) = (status, state)).unwrap();
            match log.phase() {
                Phase::Done => done.push((status, state)),
                Phase::Failed => assert!(status == 3 || state == 2 || state == 4),
                Phase::Running => assert!(status == 2 || [1, 3, 5, 6].contains(&state)),
                Phase::Never => assert_eq!((status, state), (0, 0)),
            }
        }
        assert_eq!(done, [(1, 0), (4, 0)]);
    }

    #[test]
    fn a_failure_is_restricted_by_its_state_or_its_command() {
        let restricted = |state: u8, command: u8| {
            log(|page| (page[2], page[4], page[36]) = (3, command, state)).unwrap().failed_restricted()
        };
        assert!(restricted(2, 0x0a) && !restricted(4, 0x02), "the state decides");
        assert!(restricted(0, 0x02) && !restricted(0, 0x0a), "without it, the command does");
        assert!(!log(|page| page[2] = 1).unwrap().failed_restricted());
    }

    #[test]
    fn effects_are_supported_where_their_lowest_bit_is_set() {
        let mut page = vec![0; 4096];
        page[4 * 0x80] = 1;
        assert_eq!(Effects::decode(&page), Err(Unknown::Invalid("a controller without Identify")));
        page[4 * 0x06] = 1;
        page[4 * 0x84] = 0xfe;
        assert_eq!(Effects::decode(&page), Ok(Effects { format: true, sanitize: false }));
        assert_eq!(Effects::decode(&page[..4095]), Err(Unknown::Short));
    }
}
