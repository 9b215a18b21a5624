//! What SAS drives offer.

use serde::Serialize;

use super::{Capabilities, OfferedRung, own};
use crate::io::passthrough::scsi::answers::Capacity;
use crate::io::passthrough::scsi::condition::Condition;
use crate::io::passthrough::scsi::offers::offers;
use crate::io::passthrough::scsi::pages::{Inquiry, Media};
use crate::io::passthrough::scsi::probe::UnitFacts;

/// The answers of a SAS drive, through one of its logical units; `None` for what it does not say.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SasOffers {
    /// Every rung that is the drive's own, the best first.
    pub rungs: Vec<OfferedRung>,
    /// What the logical unit does now.
    pub condition: Option<Condition>,
    /// Who made the drive.
    pub inquiry: Inquiry,
    /// Of the logical unit.
    pub serial: Option<String>,
    /// World wide name of the logical unit.
    pub name: Option<String>,
    /// World wide name of the drive, which all of its logical units have.
    pub drive_name: Option<String>,
    /// The numbers of the drive's logical units: a command to one of them may reach all.
    pub units: Option<Vec<u16>>,
    /// Of the logical unit.
    pub capacity: Option<Capacity>,
    /// What its media are, and what a read of them gives after an erase.
    pub media: Option<Media>,
}

impl Capabilities {
    /// By what a SAS drive answered.
    pub fn of_sas(facts: &UnitFacts) -> Capabilities {
        match &facts.inquiry {
            Ok(inquiry) => Capabilities::AnsweredSas(SasOffers::new(facts, inquiry)),
            Err(why) => Capabilities::NotKnown { why: format!("INQUIRY: {why}") },
        }
    }
}

impl SasOffers {
    fn new(facts: &UnitFacts, inquiry: &Inquiry) -> SasOffers {
        let names = facts.names.as_ref().ok();
        SasOffers {
            rungs: own(offers(facts)),
            condition: facts.condition.ok(),
            inquiry: inquiry.clone(),
            serial: facts.serial.clone().ok(),
            name: names.and_then(|names| names.logical_unit.clone()),
            drive_name: names.and_then(|names| names.target_device.clone()),
            units: facts.units.clone().ok(),
            capacity: facts.capacity.ok(),
            media: facts.media.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::fake::FakeTree;
    use super::super::super::identity::Identity;
    use super::super::super::inventory::inventory;
    use super::super::{Interface, Prober};
    use super::*;
    use crate::io::passthrough::scsi::probe::probe;
    use crate::io::passthrough::sim::scsi::{ScsiSim, Setup};
    use crate::io::passthrough::{Outcome, PassThrough, ReadOnly, Reply, Request};
    use crate::plan::{Grade, Offer, Rung};

    /// A test that waits for so long has failed.
    const LONG: Duration = Duration::from_secs(60);
    const SAS: &str = "pci0000:00/0000:00:05.0/host1/port-1:0/end_device-1:0/target1:0:0";

    /// Both disks of a drive with two logical units.
    fn sas(sim: &ScsiSim) -> Vec<Capabilities> {
        let fake = FakeTree::new();
        fake.device(&format!("{SAS}/1:0:0:0/block/sdb"), "8:16");
        fake.device(&format!("{SAS}/1:0:0:1/block/sdc"), "8:32");
        for disk in ["1:0:0:0/block/sdb", "1:0:0:1/block/sdc"] {
            fake.write(&format!("sys/devices/{SAS}/{disk}/device/vendor"), "EXAMPLE \n");
        }
        let drive = sim.clone();
        let answer = move |disk: &Identity, interface| {
            assert_eq!(interface, Interface::Sas);
            let unit = u8::from(disk.name() == "sdc");
            Ok(Capabilities::of_sas(&probe(&mut ReadOnly::new(drive.path(unit)))))
        };
        let found = inventory(&fake.tree, Some(&Prober::new(answer, LONG))).unwrap();
        assert!(sim.requests().iter().all(Request::only_reads));
        found.into_iter().map(|entry| entry.capabilities.unwrap()).collect()
    }

    #[test]
    fn each_logical_unit_of_a_sas_drive_is_asked_and_names_the_drive() {
        let setup = Setup { units: 2, ..Setup::of(vec![0; 8192]) };
        let found = sas(&ScsiSim::new(setup));
        let drives: Vec<&SasOffers> = found
            .iter()
            .map(|capabilities| match capabilities {
                Capabilities::AnsweredSas(drive) => drive,
                other => panic!("{other:?}"),
            })
            .collect();
        let rungs = [Rung::SanitizeBlock, Rung::SanitizeCrypto, Rung::SanitizeOverwrite, Rung::FormatUnit];
        for drive in &drives {
            assert_eq!(drive.rungs.iter().map(|it| it.rung).collect::<Vec<_>>(), rungs);
            assert!(drive.rungs.iter().all(|it| it.offer == Offer::Offered));
            assert_eq!(drive.rungs.iter().map(|it| it.grade).max(), Some(Grade::Purge));
            assert_eq!((drive.rungs[3].grade, &drive.units), (Grade::Clear, &Some(vec![0, 1])));
            assert_eq!(drive.condition, Some(Condition::Ready));
        }
        assert_eq!(drives.len(), 2);
        assert_eq!(drives[0].drive_name, drives[1].drive_name);
        assert_ne!(drives[0].name, drives[1].name);
        let json = serde_json::to_value(&found[0]).unwrap();
        assert_eq!(json["kind"], "answered_sas");
        assert_eq!(json["condition"], serde_json::json!({"kind": "ready"}));
        assert_eq!(json["capacity"]["blocks"], 8);
        assert_eq!(json["media"]["after_block_erase"], "completes");
    }

    #[test]
    fn a_sas_drive_that_does_not_say_what_it_is_is_not_known() {
        struct Silent;
        impl PassThrough for Silent {
            fn send(&mut self, _: &Request) -> Reply {
                Reply::of(Outcome::Status(0))
            }
        }
        let facts = probe(&mut ReadOnly::new(Silent));
        let why = "INQUIRY: the answer has no data".to_string();
        assert_eq!(Capabilities::of_sas(&facts), Capabilities::NotKnown { why });
    }
}
