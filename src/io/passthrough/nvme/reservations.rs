//! Reservations: which hosts have registered with a namespace, and whether one of them holds it.

use std::fmt;

use super::commands::{HostIds, Query};
use super::{Unknown, decoded, le16};
use crate::io::passthrough::{PassThrough, ReadOnly};

/// "Host Identifier Inconsistent Format".
const OTHER_HOST_IDS: u16 = 0x018;

/// The header of the Reservation Status data structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reservations {
    /// RTYPE; `None` where no host holds the namespace.
    pub held: Option<ReservationType>,
    /// REGCTL: how many controllers hosts have registered with.
    pub registered: u16,
}

/// What a reservation keeps the other hosts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservationType(u8);

impl ReservationType {
    const NAMES: [&str; 6] = [
        "Write Exclusive",
        "Exclusive Access",
        "Write Exclusive - Registrants Only",
        "Exclusive Access - Registrants Only",
        "Write Exclusive - All Registrants",
        "Exclusive Access - All Registrants",
    ];
}

impl fmt::Display for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[usize::from(self.0) - 1])
    }
}

impl Reservations {
    /// From the answer to Reservation Report. All zeroes are an answer: no host ever registered.
    ///
    /// # Errors
    /// It is cut off, all ones, or has a type that does not exist.
    pub fn decode(bytes: &[u8]) -> Result<Reservations, Unknown> {
        let header: &[u8; 24] = match bytes.first_chunk() {
            Some(header) => header,
            None if bytes.is_empty() => return Err(Unknown::Absent),
            None => return Err(Unknown::Short),
        };
        if header.iter().all(|byte| *byte == 0xff) {
            return Err(Unknown::Ones);
        }
        let held = match header[4] {
            0 => None,
            held @ 1..=6 => Some(ReservationType(held)),
            _ => return Err(Unknown::Invalid("the type of the reservation")),
        };
        Ok(Reservations { held, registered: le16(header, 5) })
    }

    /// As the drive reports them of the namespace of this way's block node.
    ///
    /// # Errors
    /// The drive does not say.
    pub fn ask<P: PassThrough>(drive: &mut ReadOnly<P>, nsid: u32) -> Result<Reservations, Unknown> {
        let mut report = |ids| decoded(&drive.ask(Query::Reservations(nsid, ids)), Reservations::decode);
        match report(HostIds::Short) {
            Err(Unknown::Refused(status)) if status.code() == OTHER_HOST_IDS => report(HostIds::Long),
            reservations => reservations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::Status;
    use super::*;
    use crate::io::passthrough::script::Script;
    use crate::io::passthrough::{Outcome, Reply};

    /// GEN, RTYPE, REGCTL, PTPLS.
    fn report(held: u8, registered: u16) -> Vec<u8> {
        let [low, high] = registered.to_le_bytes();
        let mut bytes = vec![7, 0, 0, 0, held, low, high, 0, 0, 1];
        bytes.resize(4096, 0);
        bytes
    }

    #[test]
    fn a_report_says_who_holds_a_namespace() {
        let decode = |held, registered| Reservations::decode(&report(held, registered));
        assert_eq!(decode(0, 0), Ok(Reservations { held: None, registered: 0 }));
        let held = decode(3, 0x102).unwrap();
        assert_eq!((held.registered, held.held), (0x102, Some(ReservationType(3))));
        assert_eq!(held.held.unwrap().to_string(), "Write Exclusive - Registrants Only");
        assert_eq!(decode(6, 1).unwrap().held.unwrap().to_string(), "Exclusive Access - All Registrants");
        assert_eq!(decode(7, 1), Err(Unknown::Invalid("the type of the reservation")));
        assert_eq!(Reservations::decode(&[0; 4096]), Ok(Reservations { held: None, registered: 0 }));
        assert_eq!(Reservations::decode(&[0xff; 4096]), Err(Unknown::Ones));
        assert_eq!(Reservations::decode(&[0; 23]), Err(Unknown::Short));
        assert_eq!(Reservations::decode(&[]), Err(Unknown::Absent));
    }

    #[test]
    fn the_other_length_of_host_identifiers_is_asked_for_where_a_drive_wants_it() {
        let exchange = |ids, outcome, data| {
            (Query::Reservations(3, ids).request(), Reply { data, ..Reply::of(outcome) })
        };
        let ask = |replies: Vec<_>| Reservations::ask(&mut ReadOnly::new(Script::new(replies)), 3);
        let short = |status| exchange(HostIds::Short, Outcome::Status(status), Vec::new());
        let long = exchange(HostIds::Long, Outcome::Status(0), report(1, 2));
        assert_eq!(ask(vec![short(0x4018), long]).unwrap().registered, 2);
        assert_eq!(ask(vec![short(0x4001)]), Err(Unknown::Refused(Status(0x4001))));
    }
}
