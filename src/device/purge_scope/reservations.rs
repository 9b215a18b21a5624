//! Reservations: what other hosts have said that they use, which no command of this one is to erase.

use super::super::Force;
use crate::error::{Error, Result};
use crate::io::passthrough::nvme::commands::Query;
use crate::io::passthrough::nvme::identify::Controller;
use crate::io::passthrough::nvme::reservations::Reservations;
use crate::io::passthrough::nvme::{Unknown, decoded};
use crate::io::passthrough::{PassThrough, ReadOnly};

/// Refuses a namespace that hosts have registered with, which clusters do with the disks that they share. The way is
/// that of its own block node.
///
/// # Errors
/// Of kind [`Kind::Refused`](crate::Kind::Refused), which nothing overrides; where the drive does not say, the
/// override is [`Force::Unprobed`].
pub(crate) fn require_unreserved<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    nsid: u32,
    force: &[Force],
) -> Result<()> {
    match reservations(drive, nsid) {
        Ok(None | Some(Reservations { held: None, registered: 0 })) => Ok(()),
        Ok(Some(Reservations { held, registered })) => {
            let by = format!("({registered} controllers are registered with it)");
            let what = match held {
                Some(held) => format!("a host has reserved namespace {nsid}: {held} {by}"),
                None => format!("hosts may share namespace {nsid} {by}"),
            };
            Err(Error::refused(what).with_remedy(
                "stop what uses it there, and take the registrations back: nvme resv-report shows them",
            ))
        }
        Err(_) if force.contains(&Force::Unprobed) => Ok(()),
        Err(why) => {
            let what = format!("the drive does not say whether hosts have reserved namespace {nsid}: {why}");
            Err(Error::refused(what).with_remedy("if none has, override it with --force unprobed"))
        }
    }
}

/// `None` where the drive has no reservations.
fn reservations<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    nsid: u32,
) -> std::result::Result<Option<Reservations>, Unknown> {
    let controller = decoded(&drive.ask(Query::Controller), Controller::decode)?;
    controller.reserves.then(|| Reservations::ask(drive, nsid)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::io::passthrough::sim::nvme::{NvmeSim, Setup};

    fn required(setup: Setup, force: &[Force]) -> (Result<()>, usize) {
        let sim = NvmeSim::new(setup);
        let result = require_unreserved(&mut ReadOnly::new(sim.path(0)), 1, force);
        (result, sim.requests().len())
    }

    fn reserved(held: u8, registered: u16) -> Setup {
        let mut setup = Setup::of(vec![0; 8192]);
        setup.namespaces[0].reserved = (held, registered);
        setup
    }

    #[test]
    fn what_hosts_have_registered_with_is_refused() {
        assert!(required(reserved(0, 0), &[]).0.is_ok());
        for (held, registered, words) in [
            (3, 2, "a host has reserved namespace 1: Write Exclusive - Registrants Only (2 controllers are"),
            (1, 0, "a host has reserved namespace 1: Write Exclusive (0 controllers are registered with it)"),
            (0, 1, "hosts may share namespace 1 (1 controllers are registered with it)"),
        ] {
            let error = required(reserved(held, registered), &[Force::Unprobed]).0.unwrap_err();
            assert_eq!(error.kind, Kind::Refused);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_drive_without_reservations_is_not_asked_for_them() {
        let none = Setup { oncs: 0, ..reserved(3, 2) };
        let (result, queries) = required(none, &[]);
        assert!(result.is_ok() && queries == 1);
    }

    /// A sanitize that failed: the drive answers no I/O command.
    #[test]
    fn what_a_drive_does_not_say_is_refused_until_that_is_accepted() {
        let setup = Setup { last: Some((3, 2)), ..reserved(3, 2) };
        let error = required(setup.clone(), &[]).0.unwrap_err();
        assert!(error.to_string().contains("does not say") && error.kind == Kind::Refused, "{error}");
        assert!(required(setup, &[Force::Unprobed]).0.is_ok());
    }
}
