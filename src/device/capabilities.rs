//! What drives themselves offer for erasing, asked by queries alone: of NVMe drives on PCIe, of SATA and SAS drives,
//! and no others.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

mod sas;

pub use sas::SasOffers;

use super::identity::{DeviceKind, Identity};
use super::kernel::sysfs::Block;
use super::place::Place;
use super::{Tree, media};
use crate::io::passthrough::ata;
use crate::io::passthrough::ata::hidden::{HiddenArea, HiddenBy};
use crate::io::passthrough::ata::identify::Identify;
use crate::io::passthrough::ata::probe::DriveFacts;
use crate::io::passthrough::ata::security::Security;
use crate::io::passthrough::linux::BlockDescriptor;
use crate::io::passthrough::nvme::identify::Controller;
use crate::io::passthrough::nvme::logs::SanitizeLog;
use crate::io::passthrough::nvme::offers::offers;
use crate::io::passthrough::nvme::probe::{SubsystemFacts, probe};
use crate::io::passthrough::scsi;
use crate::io::{Access, Target};
use crate::plan::{Grade, Offer, Rung};

/// What is known of a drive's own ways to erase it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Capabilities {
    /// An NVMe drive that answered.
    Answered(DriveOffers),
    /// A SATA drive that answered.
    AnsweredSata(SataOffers),
    /// A SAS drive that answered.
    AnsweredSas(SasOffers),
    /// It was to be asked, and nothing is known of it.
    NotKnown {
        /// What went wrong, for people.
        why: String,
    },
    /// Nothing was sent to it.
    NotAsked {
        /// What it hangs on.
        why: NotAsked,
    },
}

/// The answers of an NVMe drive, of all its namespaces and controllers together.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DriveOffers {
    /// Every rung that is the drive's own, the best first.
    pub rungs: Vec<OfferedRung>,
    /// Its most recent sanitize operation; `None` where it supports none, or does not say.
    pub sanitize: Option<SanitizeLog>,
    /// RPMBS: partitions that need authentication, from 0 to 7. No rung reaches them.
    pub protected_partitions: u8,
}

/// The answers of a SATA drive.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SataOffers {
    /// Every rung that is the drive's own, the best first.
    pub rungs: Vec<OfferedRung>,
    /// Its sanitize status; `None` where it offers no such operation, or does not say.
    pub sanitize: Option<ata::sanitize::SanitizeStatus>,
    /// Passwords, and what they erase; `None` where it does not have them, or does not say.
    pub security: Option<Security>,
    /// What cannot be addressed.
    pub hidden: Vec<HiddenArea>,
    /// By which of its feature sets it may hide an area, without an answer that says so; and why that is not known.
    pub hidden_not_known: Vec<(HiddenBy, String)>,
}

/// One of them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OfferedRung {
    /// Which one.
    pub rung: Rung,
    /// What it is worth.
    pub grade: Grade,
    /// Whether the drive has it, and takes it now.
    pub offer: Offer,
}

/// What a disk hangs on, where nothing is sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotAsked {
    /// SATA on a SAS controller, which translates its commands: these follow.
    SataOnSas,
    /// SD cards and eMMC: their commands follow.
    Mmc,
    /// A bridge passes on what it likes.
    Usb,
    /// NVMe that is not on PCIe: over Fabrics, where the target decides what reaches which media.
    Fabrics,
    /// Fibre Channel and iSCSI, as above.
    Network,
    /// A hypervisor's disk, a loop device, a mapping: none of these is a drive.
    Virtual,
    /// Not known: RAID controllers, and drivers of their own.
    Unknown,
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotAsked::SataOnSas => "SATA on a SAS controller: not supported yet; use efface wipe",
            NotAsked::Mmc => "MMC: not supported yet; use efface wipe",
            NotAsked::Usb => "none behind USB: connect it directly, or use efface wipe",
            NotAsked::Fabrics => "none of NVMe that is not on PCIe; use efface wipe",
            NotAsked::Network => "none over a network; use efface wipe",
            NotAsked::Virtual => "none of a virtual disk; use efface wipe",
            NotAsked::Unknown => "none, since it is not known what it hangs on; use efface wipe",
        })
    }
}

impl Capabilities {
    /// By what a SATA drive answered.
    pub fn of_sata(facts: &DriveFacts) -> Capabilities {
        match &facts.identify {
            Ok(identify) => Capabilities::AnsweredSata(SataOffers::new(facts, identify)),
            Err(why) => Capabilities::NotKnown { why: format!("IDENTIFY DEVICE: {why}") },
        }
    }

    /// By what an NVMe drive answered.
    pub fn of(facts: &SubsystemFacts) -> Capabilities {
        match &facts.controller {
            Ok(controller) => Capabilities::Answered(DriveOffers::new(facts, controller)),
            Err(why) => Capabilities::NotKnown { why: format!("Identify Controller: {why}") },
        }
    }
}

impl DriveOffers {
    fn new(facts: &SubsystemFacts, controller: &Controller) -> DriveOffers {
        DriveOffers {
            rungs: own(offers(facts)),
            sanitize: facts.sanitize.ok(),
            protected_partitions: controller.protected_partitions,
        }
    }
}

impl SataOffers {
    fn new(facts: &DriveFacts, identify: &Identify) -> SataOffers {
        let not_known = |found: &Result<HiddenArea, (HiddenBy, ata::Unknown)>| {
            found.err().map(|(by, why)| (by, why.to_string()))
        };
        SataOffers {
            rungs: own(ata::offers::offers(facts)),
            sanitize: facts.sanitize.ok(),
            security: identify.security.ok().flatten(),
            hidden: facts.hidden.iter().filter_map(|found| found.ok()).collect(),
            hidden_not_known: facts.hidden.iter().filter_map(not_known).collect(),
        }
    }
}

/// Those that are the drive's own.
fn own(offers: Vec<(Rung, Offer)>) -> Vec<OfferedRung> {
    let own = offers.into_iter().filter(|(rung, _)| *rung != Rung::HostOverwrite);
    own.map(|(rung, offer)| OfferedRung { rung, grade: rung.grade(), offer }).collect()
}

/// How drives are asked, and how long they are waited for.
pub struct Prober {
    ask: Arc<Ask>,
    wait: Duration,
}

type Answer = io::Result<Capabilities>;
type Ask = dyn Fn(&Identity, Interface) -> Answer + Send + Sync;

/// The commands that a drive takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Interface {
    /// On PCIe.
    Nvme,
    /// On a port that the kernel drives itself (libata).
    Sata,
    /// A port of a SAS host adapter or expander, not behind a RAID controller: that shows none.
    Sas,
}

/// For all drives together. A drive answers a query within milliseconds, or after a second when it slept. The
/// kernel waits 60 s for one, and this is no reason to make that less: it then resets the controller.
const WAIT: Duration = Duration::from_secs(10);

impl Prober {
    /// By queries to the drives of this machine.
    pub fn real() -> Prober {
        Prober::new(ask, WAIT)
    }

    /// By what `ask` answers of a namespace; all drives together are waited for as long as `wait`.
    fn new(ask: impl Fn(&Identity, Interface) -> Answer + Send + Sync + 'static, wait: Duration) -> Prober {
        Prober { ask: Arc::new(ask), wait }
    }

    /// The capabilities of each of these whole disks, in their order. All drives are asked at once, and each
    /// one once, however many of its namespaces are among the disks.
    pub(crate) fn capabilities(&self, tree: &Tree, disks: &[&Identity]) -> Vec<Capabilities> {
        let until = Instant::now() + self.wait;
        let drives: Vec<_> = disks.iter().map(|disk| drive_of(tree, disk)).collect();
        let mut asked = BTreeMap::new();
        for (disk, drive) in disks.iter().zip(&drives) {
            if let Ok(drive) = drive {
                asked.entry(drive).or_insert_with(|| self.begin(disk, drive.0));
            }
        }
        let answers: BTreeMap<_, _> =
            asked.into_iter().map(|(drive, answer)| (drive, self.answer(answer, until))).collect();
        let of = |drive: &Result<(Interface, PathBuf), NotAsked>| match drive {
            Ok(drive) => answers[drive].clone(),
            Err(why) => Capabilities::NotAsked { why: *why },
        };
        drives.iter().map(of).collect()
    }

    /// On a thread of its own, which is left behind where the drive does not answer: it cannot be ended while
    /// the kernel waits.
    fn begin(&self, disk: &Identity, interface: Interface) -> io::Result<Receiver<Answer>> {
        let (sender, answer) = mpsc::channel();
        let (ask, disk) = (self.ask.clone(), disk.clone());
        // Where nothing waits for the answer any more, it is dropped.
        thread::Builder::new().name("probe".into()).spawn(move || sender.send(ask(&disk, interface)).ok())?;
        Ok(answer)
    }

    fn answer(&self, asked: io::Result<Receiver<Answer>>, until: Instant) -> Capabilities {
        let left = until.saturating_duration_since(Instant::now());
        let why = match asked.map(|answer| answer.recv_timeout(left)) {
            Ok(Ok(Ok(capabilities))) => return capabilities,
            Ok(Ok(Err(error))) | Err(error) => error.to_string(),
            Ok(Err(RecvTimeoutError::Timeout)) => {
                format!("the drive did not answer within {} s", self.wait.as_secs_f64())
            }
            Ok(Err(RecvTimeoutError::Disconnected)) => panic!("the thread that asked a drive has panicked"),
        };
        Capabilities::NotKnown { why }
    }
}

fn ask(disk: &Identity, interface: Interface) -> Answer {
    let target = Target::open(&disk.node, Access::Read)?;
    let (seen, opened) = (disk.disk_sequence, target.disk_sequence());
    let another_disk = seen.zip(opened).is_some_and(|(seen, opened)| seen != opened);
    if Some(Place::of(&target.metadata()?)) != disk.number.map(Place::Device) || another_disk {
        return Err(io::Error::other("another device took its place"));
    }
    let mut drive = BlockDescriptor::of_inspected(&target)?;
    Ok(match interface {
        Interface::Nvme => Capabilities::of(&probe(&mut drive)),
        Interface::Sata => Capabilities::of_sata(&ata::probe::probe(&mut drive)),
        Interface::Sas => Capabilities::of_sas(&scsi::probe::probe(&mut drive)),
    })
}

/// The folder in sysfs of the drive that a disk is: of a namespace its controller, or with the kernel's multipath
/// support its subsystem.
fn drive_of(tree: &Tree, disk: &Identity) -> Result<(Interface, PathBuf), NotAsked> {
    if disk.kind != DeviceKind::Disk {
        return Err(NotAsked::Virtual);
    }
    let block = disk.number.and_then(|number| tree.block(number).ok());
    let parent = |block: Block| Some(block.folder().parent()?.to_path_buf());
    match disk.transport.as_deref() {
        Some("nvme") => {}
        Some("sata") => {
            return block.and_then(parent).map(|drive| (Interface::Sata, drive)).ok_or(NotAsked::Unknown);
        }
        Some("sas") => {
            // As SAT has it, the vendor of a translated drive is ATA.
            return match block.as_ref().and_then(vendor).as_deref() {
                Some("ATA") => Err(NotAsked::SataOnSas),
                Some(_) => {
                    block.and_then(parent).map(|drive| (Interface::Sas, drive)).ok_or(NotAsked::Unknown)
                }
                None => Err(NotAsked::Unknown),
            };
        }
        Some("mmc") => return Err(NotAsked::Mmc),
        Some("usb") => return Err(NotAsked::Usb),
        Some("fc" | "iscsi") => return Err(NotAsked::Network),
        Some("virtio" | "xen") => return Err(NotAsked::Virtual),
        _ => return Err(NotAsked::Unknown),
    }
    let drive = block.filter(media::is_pcie).and_then(parent);
    drive.map(|drive| (Interface::Nvme, drive)).ok_or(NotAsked::Fabrics)
}

/// As the kernel has it from INQUIRY; `None` where that cannot be read.
fn vendor(block: &Block) -> Option<String> {
    let text = fs::read_to_string(block.folder().join("device/vendor")).ok()?;
    Some(text.trim().into())
}

#[cfg(test)]
mod sata_tests;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::DeviceNumber;
    use super::super::fake::FakeTree;
    use super::super::inventory::{InventoryEntry, inventory};
    use super::*;
    use crate::io::passthrough::nvme::commands::{Exit, Sanitize, SanitizeMethod};
    use crate::io::passthrough::nvme::logs::SanitizeStatus;
    use crate::io::passthrough::sim::nvme::{NamespaceSetup, NvmeSim, Setup};
    use crate::io::passthrough::{Outcome, PassThrough, ReadOnly, Reply, Request};
    use crate::plan::WhyNot;

    const NVME: &str = "pci0000:00/0000:00:04.0/nvme/nvme0";
    const OWN: [Rung; 5] = [
        Rung::SanitizeBlock,
        Rung::SanitizeCrypto,
        Rung::SanitizeOverwrite,
        Rung::FormatCrypto,
        Rung::FormatUserData,
    ];
    /// A test that waits for so long has failed.
    pub(super) const LONG: Duration = Duration::from_secs(60);

    fn setup() -> Setup {
        Setup::of(vec![0; 8192])
    }

    /// One NVMe drive on PCIe with a namespace, which this answers for.
    fn machine() -> FakeTree {
        let fake = FakeTree::new();
        fake.device(&format!("{NVME}/nvme0n1"), "259:0");
        fake.write(&format!("sys/devices/{NVME}/transport"), "pcie\n");
        fake
    }

    fn prober(sim: &NvmeSim) -> Prober {
        let sim = sim.clone();
        Prober::new(move |_, _| Ok(Capabilities::of(&probe(&mut ReadOnly::new(sim.path(0))))), LONG)
    }

    pub(super) fn listed(fake: &FakeTree, prober: &Prober) -> Vec<(String, Capabilities)> {
        let entries = inventory(&fake.tree, Some(prober)).unwrap();
        let one = |entry: InventoryEntry| (entry.identity.name(), entry.capabilities.unwrap());
        entries.into_iter().map(one).collect()
    }

    /// What is listed of a machine with this drive alone; nothing but queries was sent.
    fn capabilities(sim: &NvmeSim) -> Capabilities {
        let before = sim.requests().len();
        let (_, found) = listed(&machine(), &prober(sim)).remove(0);
        let sent = sim.requests().split_off(before);
        assert!(!sent.is_empty() && sent.iter().all(Request::only_reads), "{sent:?}");
        found
    }

    fn answered(sim: &NvmeSim) -> DriveOffers {
        match capabilities(sim) {
            Capabilities::Answered(drive) => drive,
            other => panic!("{other:?}"),
        }
    }

    fn offers_of(drive: &DriveOffers) -> Vec<(Rung, Offer)> {
        drive.rungs.iter().map(|it| (it.rung, it.offer.clone())).collect()
    }

    fn all(offer: Offer) -> Vec<(Rung, Offer)> {
        OWN.map(|rung| (rung, offer.clone())).to_vec()
    }

    #[test]
    fn a_drive_is_asked_with_the_option_alone_and_by_queries_alone() {
        let fake = machine();
        let sim = NvmeSim::new(setup());
        let without = inventory(&fake.tree, None).unwrap();
        assert!(without[0].capabilities.is_none());
        assert!(serde_json::to_value(&without).unwrap()[0].get("capabilities").is_none());
        assert!(sim.requests().is_empty());

        let drive = answered(&sim);
        assert_eq!(offers_of(&drive), all(Offer::Offered));
        let grades: Vec<Grade> = drive.rungs.iter().map(|it| it.grade).collect();
        let purge = Grade::Purge;
        assert_eq!(grades, [purge, purge, purge, purge, Grade::Clear]);
        assert_eq!(drive.sanitize.unwrap().status, SanitizeStatus::Never);
    }

    #[test]
    fn nothing_is_sent_to_what_is_none_of_nvme_on_pcie_sata_and_sas() {
        let fake = FakeTree::new();
        let disks = [
            (
                "pci0000:00/0000:00:05.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0/block/sdb",
                NotAsked::SataOnSas,
            ),
            ("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sdc", NotAsked::Usb),
            ("platform/host7/session1/target7:0:0/7:0:0:1/block/sdd", NotAsked::Network),
            ("pci0000:00/0000:00:06.0/host8/rport-8:0-0/target8:0:0/8:0:0:0/block/sde", NotAsked::Network),
            ("pci0000:00/0000:00:07.0/host9/target9:0:0/9:0:0:0/block/sdf", NotAsked::Unknown),
            ("platform/mmc_host/mmc0/mmc0:0001/block/mmcblk0", NotAsked::Mmc),
            ("pci0000:00/0000:00:02.0/virtio1/block/vda", NotAsked::Virtual),
            ("virtual/nvme-fabrics/ctl/nvme1/nvme1n1", NotAsked::Fabrics),
            ("virtual/nvme-subsystem/nvme-subsys2/nvme2n1", NotAsked::Fabrics),
            ("virtual/block/loop0", NotAsked::Virtual),
        ];
        for (number, (folder, _)) in disks.iter().enumerate() {
            fake.device(folder, &format!("240:{number}"));
        }
        fake.write("sys/devices/virtual/nvme-fabrics/ctl/nvme1/transport", "tcp\n");
        // Two paths, one of them over a network.
        fake.write("sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2/transport", "pcie\n");
        fake.write("sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme3/transport", "rdma\n");
        fake.write("sys/devices/virtual/block/loop0/loop/backing_file", "/hidden\n");
        fake.write(&format!("sys/devices/{}/device/vendor", disks[0].0), "ATA     \n");
        let never = Prober::new(|disk, _| panic!("{} was asked", disk.name()), LONG);
        let mut found = listed(&fake, &never);
        found.sort_by_key(|(name, _)| name.clone());
        let expected = disks.map(|(folder, why)| {
            (folder.rsplit('/').next().unwrap().to_string(), Capabilities::NotAsked { why })
        });
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(name, _)| name.clone());
        assert_eq!(found, expected);
    }

    #[test]
    fn a_drive_whose_restricted_sanitize_failed_offers_restricted_ones_alone() {
        const FAILED: u16 = 3;
        let drive = answered(&NvmeSim::new(Setup { last: Some((FAILED, 0x02)), ..setup() }));
        let (sanitize, format) = (Offer::OnlyRestricted, Offer::Not(WhyNot::SanitizeFailed));
        let expected = [&sanitize, &sanitize, &sanitize, &format, &format].map(Clone::clone);
        assert_eq!(offers_of(&drive), OWN.into_iter().zip(expected).collect::<Vec<_>>());
        assert_eq!(drive.sanitize.unwrap().status, SanitizeStatus::Failed);
        let unrestricted = answered(&NvmeSim::new(Setup { last: Some((FAILED, 0x0a)), ..setup() }));
        assert_eq!(unrestricted.rungs[0].offer, Offer::Offered);
    }

    #[test]
    fn an_operation_that_runs_is_shown_with_its_progress() {
        let sim = NvmeSim::new(setup());
        let (method, exit) = (SanitizeMethod::BlockErase, Exit::Restricted);
        let start = Sanitize::Start { method, exit, keep_allocated: false };
        assert_eq!(sim.path(0).send(&start.request()).outcome, Outcome::Status(0));
        sim.clock().advance(Duration::from_secs(25));
        let drive = answered(&sim);
        assert_eq!(offers_of(&drive), all(Offer::Not(WhyNot::SanitizeRunning)));
        assert_eq!(drive.sanitize.unwrap().progress, Some(1 << 14), "a quarter of 100 s");
        sim.clock().advance(Duration::from_secs(75));
        let drive = answered(&sim);
        assert_eq!(offers_of(&drive), all(Offer::Offered));
        assert_eq!(drive.sanitize.unwrap().status, SanitizeStatus::Completed);
    }

    #[test]
    fn a_write_protected_namespace_of_the_drive_prevents_every_rung() {
        let mut protected = setup();
        protected.namespaces.push(NamespaceSetup {
            nsid: 2,
            write_protected: true,
            ..protected.namespaces[0].clone()
        });
        let drive = answered(&NvmeSim::new(protected));
        assert_eq!(offers_of(&drive), all(Offer::Not(WhyNot::WriteProtected(vec![2]))));
    }

    /// A security function shows itself only by what it refuses: of a drive that answers all queries nothing is
    /// seen of it.
    #[test]
    fn a_locked_drive_shows_what_it_refuses_and_no_more() {
        let locked = NvmeSim::new(Setup { locked: true, ..setup() });
        assert_eq!(offers_of(&answered(&locked)), all(Offer::Offered));

        struct RefusesLogs<P>(P);
        impl<P: PassThrough> PassThrough for RefusesLogs<P> {
            fn send(&mut self, request: &Request) -> Reply {
                const GET_LOG_PAGE: u8 = 0x02;
                const ACCESS_DENIED: u16 = 0x4286;
                match request {
                    Request::Nvme(command) if command.opcode == GET_LOG_PAGE => {
                        Reply::of(Outcome::Status(ACCESS_DENIED))
                    }
                    _ => self.0.send(request),
                }
            }
        }
        let mut refuses = ReadOnly::new(RefusesLogs(locked.path(0)));
        let answer = Capabilities::of(&probe(&mut refuses));
        let refuses = Prober::new(move |_, _| Ok(answer.clone()), LONG);
        let (_, found) = listed(&machine(), &refuses).remove(0);
        let Capabilities::Answered(drive) = found else { panic!("{found:?}") };
        let why = "sanitize status: the drive refused the command: Access Denied (286h)";
        assert_eq!(drive.rungs[0].offer, Offer::Not(WhyNot::NotKnown(why.into())));
        assert_eq!(
            (drive.sanitize, &drive.rungs[3].offer),
            (None, &Offer::Offered),
            "its log decides nothing of Format"
        );
    }

    #[test]
    fn what_cannot_be_asked_is_not_known() {
        struct Answers(Outcome);
        impl PassThrough for Answers {
            fn send(&mut self, _: &Request) -> Reply {
                Reply::of(self.0)
            }
        }
        fn of(drive: Answers) -> Answer {
            Ok(Capabilities::of(&probe(&mut ReadOnly::new(drive))))
        }
        let why = |ask: fn(&Identity, Interface) -> Answer| match listed(&machine(), &Prober::new(ask, LONG))
            .remove(0)
            .1
        {
            Capabilities::NotKnown { why } => why,
            other => panic!("{other:?}"),
        };
        let denied = why(|_, _| Err(io::Error::from_raw_os_error(libc::EACCES)));
        assert_eq!(denied, "Permission denied (os error 13)");
        let denied = why(|_, _| of(Answers(Outcome::Errno(libc::EACCES))));
        assert_eq!(denied, "Identify Controller: Permission denied (os error 13)");
        let silent = why(|_, _| of(Answers(Outcome::TimedOut)));
        assert_eq!(silent, "Identify Controller: the drive did not answer in time");
        let empty = why(|_, _| of(Answers(Outcome::Status(0))));
        assert_eq!(empty, "Identify Controller: the answer has no data");
        assert_eq!(why(ask), "No such file or directory (os error 2)", "the fake tree has no nodes");
    }

    /// By the kernel, on a file: where there is no drive, nothing is known.
    #[test]
    fn a_node_that_is_another_device_now_is_not_asked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let number = DeviceNumber(metadata.rdev());
        let disk = Identity {
            number: Some(number),
            ..Identity::of_image(file.path(), file.path().into(), &metadata)
        };
        assert_eq!(ask(&disk, Interface::Nvme).unwrap_err().to_string(), "another device took its place");
    }

    /// Twenty drives, of which one answers: together the others are waited for no longer than one.
    #[test]
    fn drives_that_do_not_answer_do_not_hold_up_the_list() {
        const WAIT: Duration = Duration::from_millis(300);
        const ANSWERS: &str = "nvme19n1";
        let fake = FakeTree::new();
        for number in 0..20 {
            let drive = format!("pci0000:00/0000:00:{number:02}.0/nvme/nvme{number}");
            fake.device(&format!("{drive}/nvme{number}n1"), &format!("259:{number}"));
            fake.write(&format!("sys/devices/{drive}/transport"), "pcie\n");
        }
        let sim = NvmeSim::new(setup());
        let (_end, never) = mpsc::channel::<()>();
        let never = std::sync::Mutex::new(never);
        let answer = move |disk: &Identity, _| {
            if disk.name() != ANSWERS {
                never.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv().ok();
            }
            Ok(Capabilities::of(&probe(&mut ReadOnly::new(sim.path(0)))))
        };
        let began = Instant::now();
        let found = listed(&fake, &Prober::new(answer, WAIT));
        assert!(began.elapsed() < WAIT * 5, "{:?}", began.elapsed());
        let (silent, answered): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, it)| matches!(it, Capabilities::NotKnown { .. }));
        assert_eq!(answered.len(), 1, "{answered:?}");
        assert!(answered[0].0 == ANSWERS && matches!(answered[0].1, Capabilities::Answered(_)));
        let expected = Capabilities::NotKnown { why: "the drive did not answer within 0.3 s".into() };
        assert!(silent.len() == 19 && silent.iter().all(|(_, it)| *it == expected), "{silent:?}");
    }

    #[test]
    fn a_drive_with_several_namespaces_is_asked_once() {
        let fake = machine();
        fake.device(&format!("{NVME}/nvme0n2"), "259:1");
        let sim = NvmeSim::new(setup());
        let found = listed(&fake, &prober(&sim));
        assert!(
            found.len() == 2 && found[0].1 == found[1].1 && matches!(found[0].1, Capabilities::Answered(_))
        );
        let identify = crate::io::passthrough::nvme::commands::Query::Controller.request();
        assert_eq!(sim.requests().iter().filter(|request| **request == identify).count(), 1);
    }
}
