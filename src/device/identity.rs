//! The identity of a disk, as the kernel reports it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kernel::sysfs::{Block, read_attribute_but};
use super::media;
use super::{DeviceNumber, Signature, Thin, Tree};
use crate::error::{Error, Result};
use crate::io::Medium;
use crate::printable::{lossy, printable, printable_path};
use crate::units::bytes;

/// What kind of block device, or file, a target is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceKind {
    /// A whole disk that is none of the others: a drive, or what its driver shows as one.
    Disk,
    /// A partition of a whole disk.
    Partition,
    /// A loop device, attached to a file or not.
    Loop,
    /// A mapping: LVM, crypt, multipath, and others.
    DeviceMapper,
    /// An array of Linux software RAID.
    Md,
    /// A regular file.
    Image,
}

impl DeviceKind {
    /// What stands behind it, for the advice in messages about its errors.
    pub fn medium(self) -> Medium {
        match self {
            DeviceKind::Disk | DeviceKind::Partition => Medium::Drive,
            DeviceKind::DeviceMapper | DeviceKind::Md => Medium::Mapping,
            DeviceKind::Loop | DeviceKind::Image => Medium::File,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            DeviceKind::Disk => "disk",
            DeviceKind::Partition => "partition",
            DeviceKind::Loop => "loop device",
            DeviceKind::DeviceMapper => "device-mapper device",
            DeviceKind::Md => "md array",
            DeviceKind::Image => "image file",
        }
    }
}

/// The identity of a target. `None` for what the kernel does not report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Identity {
    /// As the user gave it.
    #[serde(with = "lossy")]
    #[schemars(with = "String")]
    pub path: PathBuf,
    /// The node or the file that the path leads to, past every link.
    #[serde(with = "lossy")]
    #[schemars(with = "String")]
    pub node: PathBuf,
    /// Of the target itself: of a partition, that it is one.
    pub kind: DeviceKind,
    /// `None` for an image.
    pub number: Option<DeviceNumber>,
    /// `None` for a device.
    pub inode: Option<Inode>,
    /// Of the target itself: of a partition, its own.
    pub size_bytes: u64,
    /// Where a partition begins on its disk, in bytes.
    pub partition_start: Option<u64>,
    /// In bytes, of the whole disk; `None` for an image.
    pub logical_block: Option<u64>,
    /// In bytes, of the whole disk; `None` for an image.
    pub physical_block: Option<u64>,
    /// The manufacturer, if the transport reports it (SCSI).
    pub vendor: Option<String>,
    /// Of the whole disk: from sysfs, or else from udev's database.
    pub model: Option<String>,
    /// Of the whole disk: from sysfs, its VPD page 0x80 or its USB device, or else from udev's database.
    pub serial: Option<String>,
    /// World wide name, with its kind before it: `naa.…`, `eui.…`, `t10.…`.
    pub wwn: Option<String>,
    /// The drive's firmware revision.
    pub firmware: Option<String>,
    /// What the disk hangs on: `usb`, `sata`, `sas`, `fc`, `iscsi`, `nvme`, `mmc`, `virtio` or `xen`.
    pub transport: Option<Cow<'static, str>>,
    /// Whether its media turn, as far as the drive says so (`queue/rotational`).
    pub rotational: Option<bool>,
    /// Of a loop device.
    pub backing_file: Option<PathBuf>,
    /// Of a device-mapper device: its name below `/dev/mapper`.
    pub dm_name: Option<String>,
    /// Of a device-mapper device: what its maker set, as `LVM-…` or `CRYPT-LUKS2-…`.
    pub dm_uuid: Option<String>,
    /// Of a thin volume, before it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin: Option<Thin>,
    /// Shingled disks: `host-aware` or `host-managed`.
    pub zoned: Option<String>,
    /// Counts up with every new disk or medium (kernel 5.15).
    pub disk_sequence: Option<u64>,
    /// It is a drive of this very machine, so that an overwrite reaches its media as a standard means it.
    #[serde(default)]
    pub physical: bool,
}

/// What the user says that the disk is.
#[derive(Clone, Default, Debug)]
pub struct Expected {
    /// Compared without the spaces around it.
    pub serial: Option<String>,
    /// Compared without regard to case, or to the kind before it (`naa.`, `eui.`, `0x`).
    pub wwn: Option<String>,
    /// Compared without the spaces around it.
    pub model: Option<String>,
    /// Compared exactly.
    pub size_bytes: Option<u64>,
}

impl Expected {
    /// Refuses a disk that is something else.
    ///
    /// # Errors
    /// Of kind [`Kind::Refused`](crate::Kind::Refused), with what was expected and what was found.
    pub fn check(&self, found: &Identity) -> Result<()> {
        let text = |wanted: &Option<String>, found: &Option<String>, same: fn(&str, &str) -> bool| {
            let wanted = wanted.as_deref()?;
            let fits = found.as_deref().is_some_and(|found| same(found, wanted));
            (!fits).then(|| (wanted.to_string(), found.clone().unwrap_or("none".into())))
        };
        let size = self.size_bytes.filter(|wanted| *wanted != found.size_bytes);
        let differs = [
            ("serial", text(&self.serial, &found.serial, |found, wanted| found == wanted.trim())),
            ("WWN", text(&self.wwn, &found.wwn, same_name)),
            ("model", text(&self.model, &found.model, |found, wanted| found == wanted.trim())),
            ("size", size.map(|wanted| (format!("{wanted} bytes"), format!("{} bytes", found.size_bytes)))),
        ];
        match differs.into_iter().find_map(|(what, pair)| Some((what, pair?))) {
            None => Ok(()),
            Some((what, (wanted, found))) => {
                Err(Error::refused(format!("its {what} is {found}, and {wanted} was expected"))
                    .with_remedy("see which disk is which: efface list"))
            }
        }
    }
}

/// What differs, name by name: `serial: planned A, found B`, in the words of the caller.
pub fn difference<Name: Ord + fmt::Display>(
    one: &BTreeMap<Name, String>,
    other: &BTreeMap<Name, String>,
    words: [&str; 2],
) -> Option<String> {
    let names: BTreeSet<&Name> = one.keys().chain(other.keys()).collect();
    let of = |map: &BTreeMap<Name, String>, name: &Name| map.get(name).cloned().unwrap_or("none".into());
    let lines: Vec<String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {} {}, {} {}", words[0], of(one, name), words[1], of(other, name)))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A file's place on this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Inode {
    /// The number of the file system (`st_dev`).
    pub device: u64,
    /// Its number there (`st_ino`).
    pub inode: u64,
}

impl Inode {
    pub(super) fn of(file: &Metadata) -> Inode {
        Inode { device: file.dev(), inode: file.ino() }
    }
}

/// What a disk hangs on, by the first folder of its sysfs path that begins like this.
const TRANSPORTS: [(&str, &str); 9] = [
    ("usb", "usb"),
    ("ata", "sata"),
    ("end_device-", "sas"),
    ("rport-", "fc"),
    ("session", "iscsi"),
    ("nvme", "nvme"),
    ("mmc_host", "mmc"),
    ("virtio", "virtio"),
    ("vbd-", "xen"),
];

impl Identity {
    pub(super) fn of_block(tree: &Tree, path: &Path, node: PathBuf, block: &Block) -> io::Result<Identity> {
        // A partition has of its own only the size; all else is the disk's.
        let disk = block.disk()?;
        let first = |names: &[&str]| names.iter().find_map(|name| disk.attribute(name));
        let Names { serial, wwn, model, .. } = Names::of(tree, &disk);
        Ok(Identity {
            path: path.into(),
            node,
            kind: kind(block),
            number: Some(block.number()),
            inode: None,
            size_bytes: block.size_bytes(),
            partition_start: block.partition_start(),
            logical_block: disk.number_attribute("queue/logical_block_size"),
            physical_block: disk.number_attribute("queue/physical_block_size"),
            // Behind a SATA bridge every vendor is called ATA.
            vendor: first(&["device/vendor"]).filter(|name| name != "ATA" && !name.starts_with("0x")),
            model: model.ok().flatten(),
            serial: serial.ok().flatten(),
            wwn: wwn.ok().flatten(),
            firmware: first(&["device/firmware_rev", "device/rev", "device/fwrev"]),
            transport: transport(disk.folder()).map(Cow::Borrowed),
            rotational: disk.number_attribute("queue/rotational").map(|flag| flag != 0),
            backing_file: disk.attribute("loop/backing_file").map(PathBuf::from),
            dm_name: disk.attribute("dm/name"),
            dm_uuid: disk.attribute("dm/uuid"),
            // The guard reads it again, and refuses what it cannot read.
            thin: Thin::of(tree, block).ok().flatten(),
            zoned: disk.attribute("queue/zoned").filter(|model| model != "none"),
            disk_sequence: disk.number_attribute("diskseq"),
            physical: media::is_physical(tree, &disk, transport(disk.folder())),
        })
    }

    pub(super) fn of_image(path: &Path, node: PathBuf, file: &Metadata) -> Identity {
        Identity {
            path: path.into(),
            node,
            kind: DeviceKind::Image,
            number: None,
            inode: Some(Inode::of(file)),
            size_bytes: file.len(),
            partition_start: None,
            logical_block: None,
            physical_block: None,
            vendor: None,
            model: None,
            serial: None,
            wwn: None,
            firmware: None,
            transport: None,
            rotational: None,
            backing_file: None,
            dm_name: None,
            dm_uuid: None,
            thin: None,
            zoned: None,
            disk_sequence: None,
            physical: false,
        }
    }

    /// What stays with a medium, wherever it hangs and whatever it is called.
    pub fn medium(&self) -> BTreeMap<&'static str, String> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(printable_path);
        let marks = [
            ("kind", Some(self.kind.word().into())),
            ("size_bytes", Some(self.size_bytes.to_string())),
            ("partition_start", self.partition_start.map(|start| start.to_string())),
            ("model", self.model.clone()),
            ("serial", self.serial.clone()),
            ("wwn", self.wwn.clone()),
            ("dm_uuid", self.dm_uuid.clone()),
            ("backing_file", file(&self.backing_file)),
        ];
        marks.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Whether it has a name that stays with it.
    pub fn has_name(&self) -> bool {
        self.serial.is_some() || self.wwn.is_some() || self.dm_uuid.is_some()
    }

    /// What has to be the same for it to be the same disk that may be written. A device without a
    /// name of its own is the same only until the kernel has removed it.
    pub fn marks(&self) -> BTreeMap<&'static str, String> {
        let named = self.has_name();
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let inode = self.inode.map(|inode| format!("{} on device {}", inode.inode, inode.device));
        let node = printable_path(&self.node);
        let marks = [
            ("logical_block", number(self.logical_block)),
            ("physical_block", number(self.physical_block)),
            ("firmware", self.firmware.clone()),
            ("inode", inode),
            ("node", (!named).then_some(node)),
            ("disk_sequence", number(self.disk_sequence).filter(|_| !named)),
        ];
        let here = marks.into_iter().filter_map(|(name, value)| Some((name, value?)));
        self.medium().into_iter().chain(here).collect()
    }

    /// What it is still known by after a crash of the machine; `None` if it has no name of its own.
    /// A loop device is what it is only as long as it stays attached.
    pub fn enduring(&self) -> Option<BTreeMap<&'static str, String>> {
        let mut marks = self.medium();
        if self.has_name() {
            return Some(marks);
        }
        let (_, sequence) = self.backing_file.as_ref().zip(self.disk_sequence)?;
        marks.insert("disk_sequence", sequence.to_string());
        Some(marks)
    }

    /// What a person types to confirm.
    pub fn name(&self) -> String {
        let node = || printable_path(Path::new(self.node.file_name().unwrap_or_default()));
        self.dm_name.clone().unwrap_or_else(node)
    }

    /// What it is made of, and what it hangs on: `disk, flash, nvme`.
    pub fn medium_type(&self) -> String {
        let medium = self.rotational.filter(|_| self.kind == DeviceKind::Disk);
        let medium = medium.map(|rotational| if rotational { "rotational" } else { "flash" });
        let parts = [Some(self.kind.word()), medium, self.transport.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What it is, on one line.
    pub fn describe(&self) -> String {
        let medium = self.rotational.filter(|_| self.kind == DeviceKind::Disk);
        let facts = [
            Some(format!("{}: {}", printable_path(&self.node), self.kind.word())),
            self.dm_name.clone(),
            Some(bytes(self.size_bytes)),
            self.model.clone(),
            self.serial.as_ref().map(|serial| format!("serial {serial}")),
            self.transport.as_ref().map(|transport| transport.to_string()),
            medium.map(|rotational| if rotational { "rotational" } else { "flash" }.into()),
            self.backing_file.as_ref().map(|file| format!("over {}", printable_path(file))),
        ];
        facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What is on it, line by line: partitions as the kernel knows them, and what libblkid found.
    pub fn contents(&self, tree: &Tree, signatures: &[Signature]) -> Vec<String> {
        let partition = |block: Block| format!("partition {}, {}", block.name(), bytes(block.size_bytes()));
        let partitions = self.number.and_then(|number| tree.block(number).ok()?.partitions().ok());
        let lines: Vec<String> = partitions
            .unwrap_or_default()
            .into_iter()
            .map(partition)
            .chain(signatures.iter().map(|signature| format!("holds {}", signature.describe())))
            .collect();
        if lines.is_empty() { vec!["nothing that is known was found on it".into()] } else { lines }
    }
}

pub(super) fn kind(block: &Block) -> DeviceKind {
    match block {
        _ if block.is_partition() => DeviceKind::Partition,
        // One without a backing file has no folder `loop`.
        _ if block.name().starts_with("loop") => DeviceKind::Loop,
        _ if block.has("dm") => DeviceKind::DeviceMapper,
        _ if block.has("md") => DeviceKind::Md,
        _ => DeviceKind::Disk,
    }
}

/// What distinguishes two disks. An error means that it could not be read, which
/// differs from a disk without that name.
#[derive(Debug)]
pub(super) struct Names {
    pub serial: io::Result<Option<String>>,
    pub wwn: io::Result<Option<String>>,
    pub model: io::Result<Option<String>>,
    pub size_bytes: io::Result<u64>,
}

impl Names {
    /// Of a whole disk.
    pub fn of(tree: &Tree, disk: &Block) -> Names {
        let own = |name| name_in(disk.folder(), name);
        let udev = |names: &[&str]| udev_property(tree, disk.number(), names);
        Names {
            serial: first([
                &|| own("serial"),
                &|| own("device/serial"),
                &|| unit_serial_number(disk),
                &|| usb_serial_number(disk),
                &|| udev(&["ID_SCSI_SERIAL", "ID_SERIAL_SHORT"]),
            ]),
            wwn: first([&|| own("wwid"), &|| own("device/wwid"), &|| {
                udev(&["ID_WWN_WITH_EXTENSION", "ID_WWN"])
            }]),
            model: first([&|| own("device/model"), &|| own("device/name"), &|| udev(&["ID_MODEL"])]),
            size_bytes: disk.read_size(),
        }
    }
}

/// The first value that is there; else the first error.
fn first<const N: usize>(
    sources: [&dyn Fn() -> io::Result<Option<String>>; N],
) -> io::Result<Option<String>> {
    let mut unread = None;
    for source in sources {
        match source() {
            Ok(None) => {}
            Ok(name) => return Ok(name),
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    unread.map_or(Ok(None), Err)
}

fn name_in(folder: &Path, name: &str) -> io::Result<Option<String>> {
    read_attribute_but(folder, name, &NO_SUCH_NAME)
}

/// No such file, or what the drivers answer of a disk without that name: SCSI (scsi_vpd_lun_id of the kernel)
/// and virtio (virtblk_get_id).
const NO_SUCH_NAME: [i32; 6] =
    [libc::ENOENT, libc::ENOTDIR, libc::EINVAL, libc::ENXIO, libc::EOPNOTSUPP, libc::ENOTTY];

/// The serial number of a SCSI disk: VPD page 80h, four bytes of header before it (SPC-5).
fn unit_serial_number(disk: &Block) -> io::Result<Option<String>> {
    let page = match fs::read(disk.folder().join("device/vpd_pg80")) {
        Err(error) if error.raw_os_error().is_some_and(|errno| NO_SUCH_NAME.contains(&errno)) => {
            return Ok(None);
        }
        page => page?,
    };
    let serial = String::from_utf8_lossy(page.get(4..).unwrap_or_default());
    let serial = printable(serial.trim_matches([' ', '\0']));
    Ok((!serial.is_empty()).then_some(serial))
}

/// The serial number of the USB device that a disk hangs on: of the nearest one above it, since those
/// above that are hubs.
fn usb_serial_number(disk: &Block) -> io::Result<Option<String>> {
    let device = disk.folder().ancestors().find(|folder| folder.join("idVendor").exists());
    device.map_or(Ok(None), |device| name_in(device, "serial"))
}

/// What udev found out about a disk, where it runs: /run/udev/data/b8:0, `E:NAME=value` a line.
fn udev_property(tree: &Tree, disk: DeviceNumber, names: &[&str]) -> io::Result<Option<String>> {
    let text = match fs::read(tree.run.join(format!("udev/data/b{disk}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let text = String::from_utf8_lossy(&text);
    let value = |name: &&str| {
        text.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(*name)?.strip_prefix('='))
    };
    let value = names.iter().find_map(value).unwrap_or_default().trim();
    Ok((!value.is_empty()).then(|| printable(value)))
}

pub(super) fn transport(folder: &Path) -> Option<&'static str> {
    folder.components().find_map(|component| {
        let component = component.as_os_str().to_str()?;
        TRANSPORTS.iter().find(|(begin, _)| component.starts_with(begin)).map(|(_, transport)| *transport)
    })
}

/// Names are written with and without their kind, in either case: `naa.5000…`, `0x5000…`, `eui.…`.
pub(super) fn same_name(value: &str, wanted: &str) -> bool {
    let bare = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        ["naa.", "eui.", "t10.", "uuid.", "0x"]
            .iter()
            .find_map(|kind| text.strip_prefix(kind).map(String::from))
            .unwrap_or(text)
    };
    !wanted.trim().is_empty() && bare(value) == bare(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTree, SDA};
    use super::super::select;
    use super::*;

    fn identity(fake: &FakeTree, number: DeviceNumber) -> Identity {
        let block = fake.tree.block(number).unwrap();
        Identity::of_block(&fake.tree, Path::new("/given"), format!("/dev/{}", block.name()).into(), &block)
            .unwrap()
    }

    #[test]
    fn a_sata_disk_and_its_partition_have_the_names_of_the_drive() {
        let fake = FakeTree::new();
        let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
        let write = |name: &str, content: &[u8]| fake.write(&format!("sys/devices/{SDA}/{name}"), content);
        write("device/model", b"ST4000NM0035-1V4\n");
        write("device/rev", b"TN04\n");
        write("device/wwid", b"naa.5000c500a1b2c3d4\n");
        write("device/vpd_pg80", b"\0\x80\0\x14            ZC18XYZ9");
        write("queue/logical_block_size", b"512\n");
        write("queue/physical_block_size", b"4096\n");
        write("queue/rotational", b"1\n");
        write("diskseq", b"9\n");
        for (number, kind) in [(disk, DeviceKind::Disk), (partition, DeviceKind::Partition)] {
            let found = identity(&fake, number);
            assert_eq!((found.kind, found.number, found.size_bytes), (kind, Some(number), 1 << 20));
            assert_eq!((found.logical_block, found.physical_block), (Some(512), Some(4096)));
            assert_eq!(found.model.as_deref(), Some("ST4000NM0035-1V4"));
            assert_eq!(found.serial.as_deref(), Some("ZC18XYZ9"));
            assert_eq!(found.wwn.as_deref(), Some("naa.5000c500a1b2c3d4"));
            assert_eq!(found.firmware.as_deref(), Some("TN04"));
            assert_eq!((found.transport.as_deref(), found.rotational), (Some("sata"), Some(true)));
            assert_eq!(found.disk_sequence, Some(9));
        }
        assert_eq!(
            identity(&fake, disk).describe(),
            "/dev/sda: disk, 1.00 MiB, ST4000NM0035-1V4, serial ZC18XYZ9, sata, rotational"
        );
        assert_eq!(identity(&fake, disk).name(), "sda");
    }

    #[test]
    fn each_kind_is_known_by_its_folder() {
        let fake = FakeTree::new();
        let nvme = fake.device("pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1", "259:0");
        let virtio = fake.device("pci0000:00/0000:00:02.0/virtio1/block/vda", "254:0");
        let bound = fake.device("virtual/block/loop0", "7:0");
        let unbound = fake.device("virtual/block/loop1", "7:1");
        let mapped = fake.device("virtual/block/dm-3", "253:3");
        let array = fake.device("virtual/block/md127", "9:127");
        fake.write("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/wwid", "eui.0025385b71b0f1a2\n");
        fake.write("sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/serial", "overlayblk\n");
        fake.write("sys/devices/virtual/block/loop0/loop/backing_file", "/tmp/disk.img\n");
        fake.write("sys/devices/virtual/block/dm-3/dm/name", "vg-root\n");
        fake.write("sys/devices/virtual/block/md127/md/level", "raid1\n");

        let found = |number| {
            let identity = identity(&fake, number);
            (identity.kind, identity.transport.clone(), identity.name())
        };
        assert_eq!(found(nvme), (DeviceKind::Disk, Some("nvme".into()), "nvme0n1".into()));
        assert_eq!(found(virtio), (DeviceKind::Disk, Some("virtio".into()), "vda".into()));
        assert_eq!(found(bound), (DeviceKind::Loop, None, "loop0".into()));
        assert_eq!(found(unbound), (DeviceKind::Loop, None, "loop1".into()));
        assert_eq!(found(mapped), (DeviceKind::DeviceMapper, None, "vg-root".into()));
        assert_eq!(found(array), (DeviceKind::Md, None, "md127".into()));
        assert_eq!(identity(&fake, nvme).wwn.as_deref(), Some("eui.0025385b71b0f1a2"));
        assert_eq!(identity(&fake, virtio).serial.as_deref(), Some("overlayblk"));
        assert_eq!(identity(&fake, bound).backing_file.as_deref(), Some(Path::new("/tmp/disk.img")));
    }

    #[test]
    fn contents_names_partitions_and_signatures() {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        let nothing = identity(&fake, disk).contents(&fake.tree, &[]);
        assert_eq!(nothing, ["nothing that is known was found on it"]);
        fake.partition(SDA, "8:1");
        let ext4 = Signature {
            kind: "ext4".into(),
            usage: "filesystem".into(),
            label: Some("da\u{1b}[31mta".into()),
            uuid: None,
            partition: Some(1),
        };
        assert_eq!(
            identity(&fake, disk).contents(&fake.tree, &[ext4]),
            ["partition sda1, 1.00 MiB", "holds ext4 in partition 1 \"da\\u{1b}[31mta\""]
        );
    }

    #[test]
    fn udev_has_names_that_sysfs_lacks() {
        let fake = FakeTree::new();
        let disk =
            fake.device("pci0000:00/0000:00:14.0/usb1/1-1/host6/target6:0:0/6:0:0:0/block/sdb", "8:16");
        assert_eq!(identity(&fake, disk).serial, None);
        let data = "S:disk/by-id/usb-x\nE:ID_MODEL=Stick\nE:ID_SERIAL=Vendor_Stick_123\nE:ID_SERIAL_SHORT=123\nE:ID_WWN=\n";
        fake.write("run/udev/data/b8:16", data);
        let found = identity(&fake, disk);
        assert_eq!(
            (found.serial.as_deref(), found.model.as_deref(), found.wwn),
            (Some("123"), Some("Stick"), None)
        );
    }

    #[test]
    fn a_usb_disk_has_the_serial_number_of_its_device_and_not_of_a_hub() {
        let fake = FakeTree::new();
        let hub = "pci0000:00/0000:00:14.0/usb2/2-1";
        let folder = format!("{hub}/2-1.3/2-1.3:1.0/host6/target6:0:0/6:0:0:0/block/sdb");
        let disk = fake.device(&folder, "8:16");
        let write = |name: &str, content: &[u8]| fake.write(&format!("sys/devices/{name}"), content);
        write(&format!("{hub}/idVendor"), b"1d6b\n");
        write(&format!("{hub}/serial"), b"HUB0001\n");
        write(&format!("{hub}/2-1.3/idVendor"), b"0781\n");
        assert_eq!(identity(&fake, disk).serial, None);
        write(&format!("{hub}/2-1.3/serial"), b"USBSER\x1b7\n");
        let found = identity(&fake, disk);
        assert_eq!(found.serial.as_deref(), Some("USBSER\u{fffd}7"));
        assert!(found.enduring().is_some(), "a resume finds it again");
        assert_eq!(select(&fake.tree, "serial:USBSER\u{fffd}7").unwrap(), fake.tree.dev.join("sdb"));
        write(&format!("{folder}/device/vpd_pg80"), b"\0\x80\0\x04OWN7");
        assert_eq!(identity(&fake, disk).serial.as_deref(), Some("OWN7"), "the drive's own comes first");
    }

    #[test]
    fn an_image_is_its_inode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(5000).unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let found = Identity::of_image(file.path(), file.path().into(), &metadata);
        assert_eq!((found.kind, found.size_bytes), (DeviceKind::Image, 5000));
        assert_eq!(found.inode, Some(Inode { device: metadata.dev(), inode: metadata.ino() }));
        assert_eq!(found.number, None);
    }
}
