//! What a logical unit does now, by its answers to REQUEST SENSE and TEST UNIT READY.

use serde::Serialize;

use super::commands::Query;
use super::sense::{Meaning, Sense};
use super::{Unknown, decoded, succeeded};
use crate::io::passthrough::{PassThrough, ReadOnly, Reply};

/// The better first: of two answers the worse is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Condition {
    /// It takes commands: nothing runs, and nothing failed. That anything was done is not said.
    Ready,
    /// FORMAT UNIT runs.
    Formatting {
        /// How much is done, of 65536; `None` where it does not say.
        progress: Option<u16>,
    },
    /// A sanitize operation runs.
    Sanitizing {
        /// As above.
        progress: Option<u16>,
    },
    /// The last FORMAT UNIT failed, or was cut off: it has to be begun again.
    FormatFailed,
    /// The last sanitize operation failed.
    SanitizeFailed,
}

impl Condition {
    /// Asks the logical unit.
    ///
    /// # Errors
    /// What it answers is not known, or not one of these.
    pub fn ask<P: PassThrough>(drive: &mut ReadOnly<P>) -> Result<Condition, Unknown> {
        // First, since a logical unit reports what happened to it in sense data too.
        let ready = settled(drive, Query::Ready);
        let sense = drive.ask(Query::Sense);
        both(of_sense_data(&sense), of_readiness(&ready))
    }
}

/// A logical unit reports first what happened to it, once each, in the place of an answer.
const UNIT_ATTENTIONS_MAX: usize = 8;

/// The reply to a query, when the logical unit has reported what happened to it before.
fn settled<P: PassThrough>(drive: &mut ReadOnly<P>, query: Query) -> Reply {
    let mut reply = drive.ask(query);
    for _ in 0..UNIT_ATTENTIONS_MAX {
        let refused = succeeded(&reply).err();
        if !matches!(refused, Some(Unknown::Refused(sense)) if sense.is_unit_attention()) {
            break;
        }
        reply = drive.ask(query);
    }
    reply
}

/// By the data of REQUEST SENSE.
pub fn of_sense_data(reply: &Reply) -> Result<Condition, Unknown> {
    match decoded(reply, Sense::decode)? {
        sense if sense.is_idle() => Ok(Condition::Ready),
        sense => of_sense(sense),
    }
}

/// By the status of TEST UNIT READY.
pub fn of_readiness(reply: &Reply) -> Result<Condition, Unknown> {
    match succeeded(reply) {
        Ok(()) => Ok(Condition::Ready),
        Err(Unknown::Refused(sense)) => of_sense(sense),
        Err(why) => Err(why),
    }
}

fn of_sense(sense: Sense) -> Result<Condition, Unknown> {
    let progress = sense.progress;
    match sense.meaning() {
        Meaning::SanitizeFailed => Ok(Condition::SanitizeFailed),
        Meaning::FormatFailed => Ok(Condition::FormatFailed),
        // What is reported late may have ended.
        Meaning::SanitizeRunning if !sense.deferred => Ok(Condition::Sanitizing { progress }),
        Meaning::FormatRunning if !sense.deferred => Ok(Condition::Formatting { progress }),
        _ => Err(Unknown::Refused(sense)),
    }
}

/// Ready only where both say so; where one is not known, what the other one finds.
fn both(one: Result<Condition, Unknown>, other: Result<Condition, Unknown>) -> Result<Condition, Unknown> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.max(other)),
        (Ok(Condition::Ready), Err(why)) | (Err(why), Ok(Condition::Ready) | Err(_)) => Err(why),
        (Ok(known), Err(_)) | (Err(_), Ok(known)) => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::Outcome;
    use crate::io::passthrough::script::Script;

    fn sense(key: u8, code: u16) -> Vec<u8> {
        let [asc, ascq] = code.to_be_bytes();
        vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0x80, 0x40, 0]
    }

    fn data(data: Vec<u8>) -> Reply {
        Reply { data, ..Reply::of(Outcome::Status(0)) }
    }

    fn check(sense: Vec<u8>) -> Reply {
        Reply { sense, ..Reply::of(Outcome::Status(2)) }
    }

    fn good() -> Reply {
        Reply::of(Outcome::Status(0))
    }

    fn ask(sense: Reply, ready: &[Reply]) -> Result<Condition, Unknown> {
        let ready = ready.iter().map(|reply| (Query::Ready.request(), reply.clone()));
        let exchanges = ready.chain([(Query::Sense.request(), sense)]);
        Condition::ask(&mut ReadOnly::new(Script::new(exchanges)))
    }

    const QUARTER: Option<u16> = Some(0x4000);

    #[test]
    fn ready_is_what_both_answers_say() {
        let idle = || data(sense(0, 0));
        assert_eq!(ask(idle(), &[good()]), Ok(Condition::Ready));
        assert_eq!(ask(data(sense(0, 0x5e03)), &[good()]), Ok(Condition::Ready), "standby");
        let nothing = [
            Reply::of(Outcome::TimedOut),
            Reply::of(Outcome::Errno(libc::EIO)),
            Reply::of(Outcome::Status(8)),
            check(Vec::new()),
            check(vec![0; 96]),
            check(vec![0xff; 96]),
            check(sense(0, 0)),
            check(sense(2, 0x0402)),
            check(sense(5, 0x2000)),
        ];
        for nothing in nothing {
            assert!(ask(idle(), std::slice::from_ref(&nothing)).is_err(), "{nothing:?}");
            assert!(ask(nothing.clone(), &[good()]).is_err(), "{nothing:?}");
            assert!(ask(nothing.clone(), &[nothing]).is_err());
        }
        for nothing in [Vec::new(), vec![0; 252], vec![0xff; 252], sense(0, 0)[..13].to_vec()] {
            assert!(ask(data(nothing), &[good()]).is_err());
        }
        let mut deferred = sense(0, 0);
        deferred[0] = 0x71;
        assert!(ask(data(deferred), &[good()]).is_err(), "of an earlier command");
    }

    #[test]
    fn what_one_answer_says_is_not_undone_by_the_other() {
        let found = [
            (2, 0x041b, Condition::Sanitizing { progress: QUARTER }),
            (2, 0x0404, Condition::Formatting { progress: QUARTER }),
            (3, 0x3103, Condition::SanitizeFailed),
            (3, 0x3101, Condition::FormatFailed),
            (3, 0x3100, Condition::FormatFailed),
        ];
        for (key, code, condition) in found {
            let (sense, lost) = (|| sense(key, code), || Reply::of(Outcome::TimedOut));
            for other in [good(), lost()] {
                assert_eq!(ask(data(sense()), std::slice::from_ref(&other)), Ok(condition), "{code:04x}");
            }
            for other in [data(super::tests::sense(0, 0)), lost()] {
                assert_eq!(ask(other, &[check(sense())]), Ok(condition), "{code:04x}");
            }
        }
        let failed = ask(data(sense(2, 0x041b)), &[check(sense(3, 0x3103))]);
        assert_eq!(failed, Ok(Condition::SanitizeFailed), "the worse is taken");
    }

    /// A sanitize that failed is reported late too; one that runs may have ended since.
    #[test]
    fn what_is_reported_late_is_no_sign_of_what_runs() {
        let late = |key, code| {
            let mut sense = sense(key, code);
            sense[0] = 0x71;
            ask(data(sense), &[good()]).ok()
        };
        assert_eq!(late(3, 0x3103), Some(Condition::SanitizeFailed));
        assert_eq!([late(2, 0x041b), late(2, 0x0404)], [None, None]);
    }

    #[test]
    fn what_happened_to_a_logical_unit_is_heard_first() {
        let reset = || check(sense(6, 0x2900));
        let sanitizing = check(sense(2, 0x041b));
        let idle = || data(sense(0, 0));
        assert_eq!(ask(idle(), &[reset(), reset(), good()]), Ok(Condition::Ready));
        let running = ask(idle(), &[reset(), sanitizing]);
        assert_eq!(running, Ok(Condition::Sanitizing { progress: QUARTER }));
        let endless = vec![reset(); UNIT_ATTENTIONS_MAX + 1];
        assert!(ask(idle(), &endless).is_err());
    }
}
