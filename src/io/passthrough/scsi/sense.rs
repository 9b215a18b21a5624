//! Sense data: why a command was not carried out, or what a logical unit does now.

use std::fmt;

use super::{Unknown, be16, head};

/// Sense keys.
mod key {
    pub const NO_SENSE: u8 = 0x0;
    pub const NOT_READY: u8 = 0x2;
    pub const UNIT_ATTENTION: u8 = 0x6;
}

/// The standard's words for sense keys.
const KEYS: [&str; 16] = [
    "No sense",
    "Recovered error",
    "Not ready",
    "Medium error",
    "Hardware error",
    "Illegal request",
    "Unit attention",
    "Data protect",
    "Blank check",
    "Vendor specific",
    "Copy aborted",
    "Aborted command",
    "Reserved",
    "Volume overflow",
    "Miscompare",
    "Completed",
];

/// What follows from a sense code, whatever its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// A sanitize operation runs.
    SanitizeRunning,
    /// The last sanitize operation failed.
    SanitizeFailed,
    /// A format runs.
    FormatRunning,
    /// The last format failed, or was cut off.
    FormatFailed,
    /// Any other.
    Other,
}

/// ASC and ASCQ, the standard's words, and what follows.
const CODES: [(u16, &str, Meaning); 27] = [
    (0x0000, "No additional sense information", Meaning::Other),
    (0x0400, "Logical unit not ready, cause not reportable", Meaning::Other),
    (0x0401, "Logical unit is in process of becoming ready", Meaning::Other),
    (0x0402, "Logical unit not ready, initializing command required", Meaning::Other),
    (0x0403, "Logical unit not ready, manual intervention required", Meaning::Other),
    (0x0404, "Logical unit not ready, format in progress", Meaning::FormatRunning),
    (0x0409, "Logical unit not ready, self-test in progress", Meaning::Other),
    (0x0411, "Logical unit not ready, notify (enable spinup) required", Meaning::Other),
    (0x041b, "Logical unit not ready, sanitize in progress", Meaning::SanitizeRunning),
    (0x0500, "Logical unit does not respond to selection", Meaning::Other),
    (0x1115, "Write after sanitize required", Meaning::Other),
    (0x2000, "Invalid command operation code", Meaning::Other),
    (0x2104, "Unaligned write command", Meaning::Other),
    (0x2400, "Invalid field in cdb", Meaning::Other),
    (0x2500, "Logical unit not supported", Meaning::Other),
    (0x2600, "Invalid field in parameter list", Meaning::Other),
    (0x2700, "Write protected", Meaning::Other),
    (0x2900, "Power on, reset, or bus device reset occurred", Meaning::Other),
    (0x2901, "Power on occurred", Meaning::Other),
    (0x2902, "SCSI bus reset occurred", Meaning::Other),
    (0x2903, "Bus device reset function occurred", Meaning::Other),
    (0x2904, "Device internal reset", Meaning::Other),
    (0x2907, "I_T nexus loss occurred", Meaning::Other),
    (0x3100, "Medium format corrupted", Meaning::FormatFailed),
    (0x3101, "Format command failed", Meaning::FormatFailed),
    (0x3103, "Sanitize command failed", Meaning::SanitizeFailed),
    (0x7471, "Logical unit access not authorized", Meaning::Other),
];

/// The parts of sense data that every command has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// From 0 to 15.
    pub key: u8,
    /// ASC 15:8, ASCQ 7:0.
    pub code: u16,
    /// Of what runs: how much is done, of 65536; `None` where it is not said.
    pub progress: Option<u16>,
    /// It is about an earlier command, and not about the one that it came with.
    pub deferred: bool,
}

impl Sense {
    /// From sense data of the fixed or the descriptor format.
    ///
    /// # Errors
    /// It is neither, or ends before the code.
    pub fn decode(bytes: &[u8]) -> Result<Sense, Unknown> {
        let [response, ..] = *head::<8>(bytes)?;
        // The data says how long it is; a buffer that is larger may hold anything behind it.
        let bytes = &bytes[..bytes.len().min(8 + usize::from(bytes[7]))];
        let deferred = response & 1 != 0;
        match response & 0x7f {
            0x70 | 0x71 => fixed(bytes, deferred),
            // Bit 7 is reserved here.
            0x72 | 0x73 if response & 0x80 == 0 => Ok(descriptors(bytes, deferred)),
            _ => Err(Unknown::Invalid("the response code of sense data")),
        }
    }

    /// What follows from it.
    pub fn meaning(self) -> Meaning {
        CODES.iter().find(|(code, ..)| *code == self.code).map_or(Meaning::Other, |(.., meaning)| *meaning)
    }

    /// Something happened to the logical unit since the command before; asked again, it carries the command out.
    pub fn is_unit_attention(self) -> bool {
        self.key == key::UNIT_ATTENTION
    }

    /// Nothing to report: nothing runs, and nothing failed. Of the codes only those about low power may be there.
    pub fn is_idle(self) -> bool {
        const LOW_POWER: u16 = 0x5e;
        self.key == key::NO_SENSE && !self.deferred && (self.code == 0 || self.code >> 8 == LOW_POWER)
    }
}

fn fixed(bytes: &[u8], deferred: bool) -> Result<Sense, Unknown> {
    let code = bytes.get(12..14).ok_or(Unknown::Short)?;
    let key = bytes[2] & 0xf;
    let progress = bytes.get(15..18).and_then(|specific| progress(key, specific));
    Ok(Sense { key, code: be16(code, 0), progress, deferred })
}

fn descriptors(bytes: &[u8], deferred: bool) -> Sense {
    const KEY_SPECIFIC: u8 = 0x02;
    let key = bytes[1] & 0xf;
    let mut progress_said = None;
    let mut rest = &bytes[8..];
    while let [kind, length, body @ ..] = rest {
        let Some((body, after)) = body.split_at_checked(usize::from(*length)) else { break };
        if *kind == KEY_SPECIFIC
            && let Some(specific) = body.get(2..5)
        {
            progress_said = progress(key, specific);
        }
        rest = after;
    }
    Sense { key, code: be16(bytes, 2), progress: progress_said, deferred }
}

/// The three bytes that are specific to a key: of these two keys they are a progress, where their first bit says
/// that they are valid.
fn progress(key: u8, specific: &[u8]) -> Option<u16> {
    let valid = specific[0] & 0x80 != 0 && [key::NO_SENSE, key::NOT_READY].contains(&key);
    valid.then(|| be16(specific, 1))
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, qualifier) = (self.code >> 8, self.code & 0xff);
        let known = CODES.iter().find(|(known, ..)| *known == self.code && self.code != 0);
        let words = known.map_or(KEYS[usize::from(self.key & 0xf)], |(_, words, _)| words);
        let deferred = if self.deferred { ", of an earlier command" } else { "" };
        write!(f, "{words} ({:X}/{code:02X}/{qualifier:02X}{deferred})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(response: u8, key: u8, code: u16, specific: [u8; 3]) -> Vec<u8> {
        let [asc, ascq] = code.to_be_bytes();
        let [first, second, third] = specific;
        vec![response, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, first, second, third]
    }

    fn described(response: u8, key: u8, code: u16, descriptors: &[&[u8]]) -> Vec<u8> {
        let descriptors = descriptors.concat();
        let [asc, ascq] = code.to_be_bytes();
        [&[response, key, asc, ascq, 0, 0, 0, descriptors.len() as u8], &descriptors[..]].concat()
    }

    /// Both formats, current and deferred, with and without progress.
    #[test]
    fn both_formats_say_the_same() {
        let specific = |valid: u8| [0x02, 0x06, 0, 0, valid, 0x40, 0x00, 0];
        let information = [0x00, 0x0a, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        for (valid, progress) in [(0x80, Some(0x4000)), (0x00, None)] {
            for (deferred, response) in [(false, 0), (true, 1)] {
                let expected = Sense { key: 2, code: 0x041b, progress, deferred };
                for bit in [0x00, 0x80] {
                    let bytes = fixed(0x70 | response | bit, 2, 0x041b, [valid, 0x40, 0]);
                    assert_eq!(Sense::decode(&bytes), Ok(expected));
                    let padded = [bytes, vec![0xff; 80]].concat();
                    assert_eq!(Sense::decode(&padded), Ok(expected), "a larger buffer");
                }
                let bytes = described(0x72 | response, 2, 0x041b, &[&information, &specific(valid)]);
                assert_eq!(Sense::decode(&bytes), Ok(expected));
                assert_eq!(Sense::decode(&[bytes, vec![0xff; 80]].concat()), Ok(expected));
            }
        }
    }

    #[test]
    fn sense_data_that_ends_early_says_as_much_as_it_has() {
        let bytes = fixed(0x70, 2, 0x041b, [0x80, 0x40, 0]);
        let short = |length: usize, announced: u8| {
            let mut bytes = bytes[..length].to_vec();
            bytes[7] = announced;
            Sense::decode(&bytes).map(|sense| sense.progress)
        };
        assert_eq!([short(18, 10), short(17, 10), short(14, 10)], [Ok(Some(0x4000)), Ok(None), Ok(None)]);
        assert_eq!([short(13, 10), short(18, 5), short(18, 0)], [Err(Unknown::Short); 3]);
        assert_eq!([short(18, 6), short(18, 9)], [Ok(None); 2]);
        assert_eq!(Sense::decode(&bytes[..7]), Err(Unknown::Short));
        assert_eq!(Sense::decode(&[]), Err(Unknown::Absent));
        assert_eq!(Sense::decode(&[0; 252]), Err(Unknown::Zeroes));
        assert_eq!(Sense::decode(&[0xff; 252]), Err(Unknown::Ones));
        for response in [0x00, 0x6f, 0x74, 0x7f, 0xf2, 0xf3, 0xff] {
            let bytes = fixed(response, 2, 0x041b, [0x80, 0x40, 0]);
            assert_eq!(Sense::decode(&bytes), Err(Unknown::Invalid("the response code of sense data")));
        }
        // A descriptor that is longer than what is left, and one that is too short.
        for descriptor in [&[0x02, 0x06, 0, 0, 0x80, 0x40][..], &[0x02, 0x04, 0, 0, 0x80, 0x40], &[0x02]] {
            let bytes = described(0x72, 2, 0x041b, &[descriptor]);
            let expected = Sense { key: 2, code: 0x041b, progress: None, deferred: false };
            assert_eq!(Sense::decode(&bytes), Ok(expected), "{descriptor:02x?}");
        }
    }

    /// Of an illegal request these bytes say which field it was.
    #[test]
    fn only_what_runs_has_a_progress() {
        let of = |key| Sense::decode(&fixed(0x70, key, 0, [0xc0, 0, 1])).unwrap().progress;
        let with: Vec<u8> = (0..16).filter(|key| of(*key).is_some()).collect();
        assert_eq!(with, [0, 2]);
    }

    #[test]
    fn a_code_has_the_words_of_the_standard() {
        let text = |key, code, deferred| Sense { key, code, progress: None, deferred }.to_string();
        assert_eq!(text(3, 0x3103, false), "Sanitize command failed (3/31/03)");
        assert_eq!(text(2, 0x041b, false), "Logical unit not ready, sanitize in progress (2/04/1B)");
        assert_eq!(text(5, 0x2400, false), "Invalid field in cdb (5/24/00)");
        assert_eq!(text(4, 0x4480, true), "Hardware error (4/44/80, of an earlier command)");
        assert_eq!(text(0xb, 0, false), "Aborted command (B/00/00)");
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0), "each once");
    }

    #[test]
    fn what_follows_from_a_code() {
        let all = |wanted: Meaning| -> Vec<u16> {
            let meaning =
                |code: &u16| Sense { key: 2, code: *code, progress: None, deferred: false }.meaning();
            (0..=u16::MAX).filter(|code| meaning(code) == wanted).collect()
        };
        assert_eq!(all(Meaning::SanitizeRunning), [0x041b]);
        assert_eq!(all(Meaning::SanitizeFailed), [0x3103]);
        assert_eq!(all(Meaning::FormatRunning), [0x0404]);
        assert_eq!(all(Meaning::FormatFailed), [0x3100, 0x3101]);
    }

    #[test]
    fn idle_is_no_sense_of_now() {
        let idle = |key, code, deferred| Sense { key, code, progress: None, deferred }.is_idle();
        assert!(idle(0, 0, false) && idle(0, 0x5e01, false));
        assert!(
            !idle(0, 0, true) && !idle(2, 0, false) && !idle(0, 0x041b, false) && !idle(0, 0x0b01, false)
        );
    }
}
