//! What a SCSI drive says of itself, asked by queries alone; each may fail, and what failed is unknown.

use super::answers::{Capacity, logical_units, supports};
use super::commands::{EraseCommand, Page, Query};
use super::condition::Condition;
use super::pages::{Inquiry, Media, Names, serial_number, supported_pages};
use super::{Unknown, decoded};
use crate::io::passthrough::{PassThrough, ReadOnly};

/// A logical unit, and the drive that it is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitFacts {
    /// Who made it.
    pub inquiry: Result<Inquiry, Unknown>,
    /// Its serial number; absent where it has no such page, as below.
    pub serial: Result<String, Unknown>,
    /// World wide names of it, and of the drive.
    pub names: Result<Names, Unknown>,
    /// What its media are.
    pub media: Result<Media, Unknown>,
    /// The logical units of the drive.
    pub units: Result<Vec<u16>, Unknown>,
    /// What it does now.
    pub condition: Result<Condition, Unknown>,
    /// Its size.
    pub capacity: Result<Capacity, Unknown>,
    /// Which commands that erase it supports, in the order of [`EraseCommand::ALL`].
    pub supported: [Result<bool, Unknown>; 4],
}

impl UnitFacts {
    /// Whether it supports a command.
    pub fn supports(&self, command: EraseCommand) -> Result<bool, Unknown> {
        self.supported[command as usize]
    }
}

/// Asks for everything that erasing needs. A drive that does not say what it is, is asked nothing more.
pub fn probe<P: PassThrough>(drive: &mut ReadOnly<P>) -> UnitFacts {
    const ABSENT: Unknown = Unknown::Absent;
    let mut facts = UnitFacts {
        inquiry: decoded(&drive.ask(Query::Identity), Inquiry::decode),
        serial: Err(ABSENT),
        names: Err(ABSENT),
        media: Err(ABSENT),
        units: Err(ABSENT),
        condition: Err(ABSENT),
        capacity: Err(ABSENT),
        supported: [Err(ABSENT); 4],
    };
    if facts.inquiry.is_err() {
        return facts;
    }
    let pages = decoded(&drive.ask(Query::Page(Page::Supported)), supported_pages);
    let page = |drive: &mut ReadOnly<P>, page: Page| match &pages {
        Ok(pages) if pages.contains(&(page as u8)) => Ok(drive.ask(Query::Page(page))),
        Ok(_) => Err(ABSENT),
        Err(why) => Err(*why),
    };
    facts.serial = page(drive, Page::SerialNumber).and_then(|reply| decoded(&reply, serial_number));
    facts.names = page(drive, Page::DeviceIdentification).and_then(|reply| decoded(&reply, Names::decode));
    facts.media =
        page(drive, Page::BlockDeviceCharacteristics).and_then(|reply| decoded(&reply, Media::decode));
    facts.units = decoded(&drive.ask(Query::Luns), logical_units);
    facts.condition = Condition::ask(drive);
    facts.capacity = decoded(&drive.ask(Query::Capacity), Capacity::decode);
    facts.supported = EraseCommand::ALL
        .map(|command| decoded(&drive.ask(Query::Support(command)), |bytes| supports(command, bytes)));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::script::Script;
    use crate::io::passthrough::sim::scsi::{ScsiSim, Setup};
    use crate::io::passthrough::{Outcome, Reply};

    const QUERIES: [Query; 13] = [
        Query::Identity,
        Query::Page(Page::Supported),
        Query::Page(Page::SerialNumber),
        Query::Page(Page::DeviceIdentification),
        Query::Page(Page::BlockDeviceCharacteristics),
        Query::Luns,
        Query::Ready,
        Query::Sense,
        Query::Capacity,
        Query::Support(EraseCommand::Overwrite),
        Query::Support(EraseCommand::BlockErase),
        Query::Support(EraseCommand::CryptoErase),
        Query::Support(EraseCommand::FormatUnit),
    ];

    /// What a drive answers to these queries, in this order and no others.
    fn script(sim: &ScsiSim, queries: &[Query]) -> ReadOnly<Script> {
        let mut path = sim.path(0);
        let exchange = |query: &Query| (query.request(), path.send(&query.request()));
        ReadOnly::new(Script::new(queries.iter().map(exchange).collect::<Vec<_>>()))
    }

    #[test]
    fn a_probe_sends_these_queries_and_nothing_else() {
        let facts = probe(&mut script(&ScsiSim::new(Setup::of(vec![0; 8192])), &QUERIES));
        let inquiry = facts.inquiry.unwrap();
        assert_eq!((&inquiry.vendor[..], &inquiry.product[..]), ("EXAMPLE", "Simulated SAS"));
        assert_eq!(facts.serial.unwrap(), "SIM-SAS-1");
        let names = facts.names.unwrap();
        assert_eq!(names.logical_unit.unwrap(), "naa.5000c50000000001");
        assert_eq!(names.target_device.unwrap(), "naa.5000c500000000ff");
        let capacity = Capacity { blocks: 16, block_bytes: 512, protection: None };
        assert_eq!((facts.capacity, facts.units), (Ok(capacity), Ok(vec![0])));
        assert_eq!((facts.condition, facts.supported), (Ok(Condition::Ready), [Ok(true); 4]));
        assert_eq!(facts.media.unwrap().rotation_rpm, Some(0));
    }

    #[test]
    fn pages_that_are_not_there_are_not_asked_for() {
        let setup = Setup { pages: vec![0x00, 0x83], ..Setup::of(vec![0; 8192]) };
        let without = |query: &&Query| {
            let missing = [Page::SerialNumber, Page::BlockDeviceCharacteristics].map(Query::Page);
            !missing.contains(query)
        };
        let queries: Vec<Query> = QUERIES.iter().filter(without).copied().collect();
        let facts = probe(&mut script(&ScsiSim::new(setup), &queries));
        assert_eq!((facts.serial, facts.media), (Err(Unknown::Absent), Err(Unknown::Absent)));
    }

    #[test]
    fn a_drive_that_does_not_say_what_it_is_is_asked_nothing_more() {
        for reply in
            [Reply::of(Outcome::TimedOut), Reply::of(Outcome::Status(0)), Reply::of(Outcome::Errno(1))]
        {
            let script = Script::new([(Query::Identity.request(), reply)]);
            let facts = probe(&mut ReadOnly::new(script));
            assert!(facts.inquiry.is_err());
            assert_eq!(facts.condition, Err(Unknown::Absent));
        }
    }

    #[test]
    fn what_happened_before_is_no_answer() {
        let sim = ScsiSim::new(Setup::of(vec![0; 8192]));
        let known = probe(&mut ReadOnly::new(sim.path(0)));
        sim.reset();
        assert_eq!(probe(&mut ReadOnly::new(sim.path(0))), known);
    }
}
