//! What a drive says of itself, asked by queries alone; each may fail, and what failed is unknown.

use super::commands::Query;
use super::identify::{
    Controller, IndependentNamespace, Namespace, NamespaceNames, SanitizeCapabilities, controller_list,
    namespace_list,
};
use super::logs::{Effects, SanitizeLog};
use super::status::WriteProtection;
use super::{Unknown, decoded, succeeded};
use crate::io::passthrough::{PassThrough, ReadOnly};

/// No drive has as many namespaces; more are not asked for.
pub const NAMESPACES_MAX: usize = 4096;

/// The versions that brought namespace descriptors.
const NVME_1_3: u32 = 0x0001_0300;

/// A subsystem, as one of its controllers shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubsystemFacts {
    /// The controller that answered.
    pub controller: Result<Controller, Unknown>,
    /// Which commands it supports; absent where it has no such log.
    pub effects: Result<Effects, Unknown>,
    /// The most recent sanitize operation; absent where it supports none.
    pub sanitize: Result<SanitizeLog, Unknown>,
    /// What `namespaces` has.
    pub listing: Listing,
    /// In the order of their numbers.
    pub namespaces: Result<Vec<NamespaceFacts>, Unknown>,
    /// The controllers of the subsystem; absent where it has no list of them.
    pub controllers: Result<Vec<u16>, Unknown>,
}

/// Which namespaces were listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// All that exist in the subsystem, attached or not.
    Allocated,
    /// Those attached to this controller; the subsystem may have others.
    Active,
}

/// One namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceFacts {
    /// From 1.
    pub nsid: u32,
    /// Its size and format.
    pub namespace: Result<Namespace, Unknown>,
    /// Its identifiers; absent before NVMe 1.3.
    pub names: Result<NamespaceNames, Unknown>,
    /// Of another command set than NVM; absent for that one.
    pub independent: Result<IndependentNamespace, Unknown>,
    /// The controllers that it is attached to; absent where there is no list of them.
    pub controllers: Result<Vec<u16>, Unknown>,
    /// In what way it is write protected; absent where it is not.
    pub write_protection: Result<WriteProtection, Unknown>,
}

impl NamespaceFacts {
    /// What is left of a format, in percent.
    pub fn format_left_percent(&self) -> Option<u8> {
        let independent = || self.independent.as_ref().ok()?.format_left_percent;
        self.namespace.as_ref().ok().and_then(|namespace| namespace.format_left_percent).or_else(independent)
    }

    /// Whether it says that it cannot be written now.
    pub fn is_write_protected(&self) -> bool {
        self.namespace.as_ref().is_ok_and(|namespace| namespace.write_protected)
            || self.independent.as_ref().is_ok_and(|namespace| namespace.write_protected)
    }
}

/// Asks for everything that purging needs. What a controller does not announce is not asked for, since it
/// would count as an error in the drive's log.
pub fn probe<P: PassThrough>(drive: &mut ReadOnly<P>) -> SubsystemFacts {
    let mut facts = SubsystemFacts {
        controller: decoded(&drive.ask(Query::Controller), Controller::decode),
        effects: Err(Unknown::Absent),
        sanitize: Err(Unknown::Absent),
        listing: Listing::Active,
        namespaces: Err(Unknown::Absent),
        controllers: Err(Unknown::Absent),
    };
    let Ok(controller) = &facts.controller else { return facts };
    if controller.effects_log {
        facts.effects = decoded(&drive.ask(Query::Effects), Effects::decode);
    }
    let none = |it: &SanitizeCapabilities| !(it.block_erase || it.crypto_erase || it.overwrite);
    if !controller.sanitize.as_ref().is_some_and(none) {
        facts.sanitize = sanitize_log(drive);
    }
    let mut numbers = Err(Unknown::Absent);
    if controller.manages_namespaces {
        facts.listing = Listing::Allocated;
        numbers = list_namespaces(drive, Query::AllocatedNamespaces);
        facts.controllers = list_controllers(drive, Query::Controllers);
    }
    if numbers.is_err() {
        facts.listing = Listing::Active;
        numbers = list_namespaces(drive, Query::ActiveNamespaces);
    }
    let one = |nsid| namespace(drive, controller, facts.listing, nsid);
    facts.namespaces = numbers.map(|numbers| numbers.into_iter().map(one).collect());
    facts
}

/// The most recent sanitize operation.
///
/// # Errors
/// The drive does not say, or not in time.
pub fn sanitize_log<P: PassThrough>(drive: &mut ReadOnly<P>) -> Result<SanitizeLog, Unknown> {
    decoded(&drive.ask(Query::SanitizeStatus), SanitizeLog::decode)
}

fn namespace<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    controller: &Controller,
    listing: Listing,
    nsid: u32,
) -> NamespaceFacts {
    const NVM: u8 = 0;
    let identify = match listing {
        Listing::Allocated => Query::AllocatedNamespace(nsid),
        Listing::Active => Query::Namespace(nsid),
    };
    let mut facts = NamespaceFacts {
        nsid,
        namespace: decoded(&drive.ask(identify), Namespace::decode),
        names: Err(Unknown::Absent),
        independent: Err(Unknown::Absent),
        controllers: Err(Unknown::Absent),
        write_protection: Err(Unknown::Absent),
    };
    if controller.version >= NVME_1_3 {
        facts.names = decoded(&drive.ask(Query::NamespaceNames(nsid)), NamespaceNames::decode);
    }
    if facts.names.is_ok_and(|names| names.command_set.is_some_and(|set| set != NVM)) {
        let query = Query::IndependentNamespace(nsid);
        facts.independent = decoded(&drive.ask(query), IndependentNamespace::decode);
    }
    if controller.manages_namespaces {
        facts.controllers = list_controllers(drive, |from| Query::AttachedControllers(nsid, from));
    }
    if controller.write_protects && facts.is_write_protected() {
        let reply = drive.ask(Query::WriteProtection(nsid));
        facts.write_protection = succeeded(&reply).and_then(|()| WriteProtection::decode(reply.result));
    }
    facts
}

/// All pages of a list of namespaces.
fn list_namespaces<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    query: fn(u32) -> Query,
) -> Result<Vec<u32>, Unknown> {
    const PAGE: usize = 1024;
    let mut all = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(0);
        let list = decoded(&drive.ask(query(after)), |bytes| namespace_list(bytes, after))?;
        all.extend(&list);
        if list.len() < PAGE {
            return Ok(all);
        }
        if all.len() >= NAMESPACES_MAX {
            return Err(Unknown::Invalid("more namespaces than drives have"));
        }
    }
}

/// All pages of a list of controllers: there are fewer than 65,536 of them.
fn list_controllers<P: PassThrough>(
    drive: &mut ReadOnly<P>,
    query: impl Fn(u16) -> Query,
) -> Result<Vec<u16>, Unknown> {
    const PAGE: usize = 2047;
    let mut all: Vec<u16> = Vec::new();
    let mut from = 0;
    loop {
        let list = match decoded(&drive.ask(query(from)), |bytes| controller_list(bytes, from)) {
            Err(Unknown::Zeroes) if !all.is_empty() => Vec::new(),
            list => list?,
        };
        all.extend(&list);
        match all.last().and_then(|last| last.checked_add(1)) {
            Some(next) if list.len() == PAGE => from = next,
            _ => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::Status;
    use super::*;
    use crate::io::passthrough::script::Script;
    use crate::io::passthrough::sim::nvme::{ControllerSetup, NamespaceSetup, NvmeSim, Setup};
    use crate::io::passthrough::{Outcome, Reply, Request};

    /// The namespaces 1 and 3, of which this controller has the first.
    fn setup() -> Setup {
        let mut setup = Setup::of(vec![0; 8192]);
        let other = NamespaceSetup { nsid: 3, write_protected: true, ..setup.namespaces[0].clone() };
        setup.namespaces.push(other);
        setup.controllers.push(ControllerSetup { id: 9, attached: vec![1, 3] });
        setup
    }

    /// What a drive answers to these queries, in this order and no others.
    fn script(sim: &NvmeSim, queries: &[Query]) -> ReadOnly<Script> {
        let mut path = sim.path(0);
        let exchange = |query: &Query| (query.request(), path.send(&query.request()));
        ReadOnly::new(Script::new(queries.iter().map(exchange).collect::<Vec<_>>()))
    }

    #[test]
    fn a_probe_sends_these_queries_and_nothing_else() {
        let facts = probe(&mut script(
            &NvmeSim::new(setup()),
            &[
                Query::Controller,
                Query::Effects,
                Query::SanitizeStatus,
                Query::AllocatedNamespaces(0),
                Query::Controllers(0),
                Query::AllocatedNamespace(1),
                Query::NamespaceNames(1),
                Query::AttachedControllers(1, 0),
                Query::AllocatedNamespace(3),
                Query::NamespaceNames(3),
                Query::AttachedControllers(3, 0),
                Query::WriteProtection(3),
            ],
        ));
        let namespaces = facts.namespaces.unwrap();
        assert_eq!((facts.listing, facts.controllers), (Listing::Allocated, Ok(vec![0, 9])));
        assert_eq!(namespaces.iter().map(|it| it.nsid).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((&namespaces[0].controllers, &namespaces[1].controllers), (&Ok(vec![0, 9]), &Ok(vec![9])));
        assert_eq!(namespaces[0].write_protection, Err(Unknown::Absent));
        assert_eq!(namespaces[1].write_protection, Ok(WriteProtection::Protected));
        assert_eq!(namespaces[0].names.unwrap().nguid, Some(*b"simulated-ns\0\0\0\x01"));
        assert_eq!(namespaces[0].format_left_percent(), Some(0));
    }

    #[test]
    fn what_a_controller_does_not_announce_is_not_asked_for() {
        let old = NvmeSim::new(Setup { oacs: 0, sanicap: 0, version: 0x0001_0200, ..setup() });
        let queries = [Query::Controller, Query::Effects, Query::ActiveNamespaces(0), Query::Namespace(1)];
        let facts = probe(&mut script(&old, &queries));
        assert_eq!(facts.sanitize, Err(Unknown::Absent));
        assert_eq!((facts.listing, facts.namespaces.unwrap().len()), (Listing::Active, 1));
    }

    #[test]
    fn a_controller_that_answers_nothing_is_asked_nothing_more() {
        let ones = Reply { data: vec![0xff; 4096], ..Reply::of(Outcome::Status(0)) };
        let replies = [
            (ones, Unknown::Ones),
            (Reply::of(Outcome::Status(0)), Unknown::Absent),
            (Reply::of(Outcome::TimedOut), Unknown::TimedOut),
            (Reply::of(Outcome::Errno(libc::ENOTTY)), Unknown::Errno(libc::ENOTTY)),
            (Reply::of(Outcome::Status(0x4001)), Unknown::Refused(Status(0x4001))),
        ];
        for (reply, unknown) in replies {
            let script = Script::new([(Query::Controller.request(), reply)]);
            let facts = probe(&mut ReadOnly::new(script));
            assert_eq!(facts.controller, Err(unknown));
            assert!(facts.namespaces.is_err() && facts.sanitize.is_err() && facts.effects.is_err());
        }
    }

    #[test]
    fn long_lists_are_read_to_their_end() {
        let mut setup = setup();
        setup.namespaces = (1..=2048)
            .map(|nsid| NamespaceSetup {
                nsid,
                content: vec![0; 512],
                flbas: 0,
                dps: 0,
                write_protected: false,
                reserved: (0, 0),
            })
            .collect();
        setup.controllers = (0..4094).map(|id| ControllerSetup { id, attached: vec![1] }).collect();
        let sim = NvmeSim::new(setup);
        let mut drive = ReadOnly::new(sim.path(0));
        let all: Vec<u32> = (1..=2048).collect();
        assert_eq!(list_namespaces(&mut drive, Query::AllocatedNamespaces), Ok(all));
        let all: Vec<u16> = (0..4094).collect();
        assert_eq!(list_controllers(&mut drive, Query::Controllers), Ok(all));
    }

    /// A drive that lists namespaces without an end.
    struct Endless;

    impl PassThrough for Endless {
        fn send(&mut self, request: &Request) -> Reply {
            let Request::Nvme(command) = request else { panic!() };
            let data = (command.nsid + 1..).take(1024).flat_map(u32::to_le_bytes).collect();
            Reply { data, ..Reply::of(Outcome::Status(0)) }
        }
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let list = list_namespaces(&mut ReadOnly::new(Endless), Query::ActiveNamespaces);
        assert_eq!(list, Err(Unknown::Invalid("more namespaces than drives have")));
    }
}
