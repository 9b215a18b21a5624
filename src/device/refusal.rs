//! Refusals: why a device is not accepted, and how to resolve it.

use std::fmt;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kernel::procfs::{Mount, Process};
use super::kernel::sysfs::Block;
use super::printable;
use crate::error::Error;

/// A refusal that the user may override, by its name in `--force`; its documentation is that option's help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Force {
    /// A file system that other hosts may have mounted (GFS2, OCFS2, VMFS)
    SharedFs,
    /// A closed snapshot's exception store (COW device)
    SnapshotCow,
    /// A device whose content cannot be probed
    Unprobed,
    /// Possible users (processes, namespaces, devices) that cannot be examined
    Unseen,
    /// A layer below that keeps a copy of the data (exit code 5)
    Copies,
    /// A disk with the same serial number, model and size, which may be the same disk
    SameSerial,
}

impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Force::SharedFs => "shared-fs",
            Force::SnapshotCow => "snapshot-cow",
            Force::Unprobed => "unprobed",
            Force::Unseen => "unseen",
            Force::Copies => "copies",
            Force::SameSerial => "same-serial",
        })
    }
}

/// Why a device is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Refusal {
    /// In a few words.
    pub short: String,
    /// What holds which of its bytes.
    pub what: String,
    /// What the user can do about it, as a clause.
    pub remedy: String,
    /// What overrides it; nothing does where this is none.
    pub force: Option<Force>,
    /// The running system stands on it.
    #[serde(skip)]
    pub(super) system: bool,
}

impl Refusal {
    pub(super) fn new(
        short: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refusal {
        let (short, what, remedy) = (short.into(), what.into(), remedy.into());
        Refusal { short, what, remedy, force: None, system: false }
    }

    pub(super) fn unless(self, force: Force) -> Refusal {
        Refusal {
            remedy: format!("{}, or override it with --force {force}", self.remedy),
            force: Some(force),
            ..self
        }
    }

    /// The same, seen from a device below the one that it is about.
    pub(super) fn below(self, held: &Holder) -> Refusal {
        let remedy = match self.system {
            true => self.remedy,
            false => format!("{}, then {}", self.remedy, held.close),
        };
        Refusal { what: format!("{}: {}", held.what, self.what), remedy, ..self }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::refused(refusal.what).with_remedy(refusal.remedy)
    }
}

/// Where the running system lives.
const SYSTEM: [&str; 4] = ["/", "/boot", "/boot/efi", "/usr"];

/// That one device stands on another, and how to end it.
pub(super) struct Holder {
    pub short: String,
    pub what: String,
    pub close: String,
}

impl Holder {
    pub fn of(lower: &str, holder: &Block) -> Holder {
        let name = holder.name();
        if holder.has("loop") {
            return Holder {
                short: format!("attached to {name}"),
                what: format!("{lower} is attached to the loop device {name}"),
                close: format!("detach it: losetup --detach /dev/{name}"),
            };
        }
        let (held_by, close) = holding(holder);
        let short = format!("held by {}", holder.map_name());
        Holder { short, what: format!("{lower} is held by {held_by}"), close }
    }
}

impl From<Holder> for Refusal {
    fn from(held: Holder) -> Refusal {
        Refusal::new(held.short, held.what, held.close)
    }
}

/// What a holder is, and how to end it.
fn holding(holder: &Block) -> (String, String) {
    let upper = holder.name();
    let Some(map) = holder.attribute("dm/name") else {
        return match holder.has("md") {
            true => (format!("the md array {upper}"), format!("stop the array: mdadm --stop /dev/{upper}")),
            false => (upper.clone(), format!("stop what runs on /dev/{upper}")),
        };
    };
    let uuid = holder.attribute("dm/uuid").unwrap_or_default();
    let (what, close) = match uuid.split('-').next() {
        Some("CRYPT") => crypt(&uuid, &map),
        Some("LVM") => {
            ("the logical volume", format!("deactivate it: lvchange --activate n /dev/mapper/{map}"))
        }
        Some("mpath") => {
            ("the multipath map", format!("wipe the map instead of its path: /dev/mapper/{map}"))
        }
        _ => ("the device-mapper device", format!("remove it: dmsetup remove {map}")),
    };
    (format!("{what} {map} ({upper})"), close)
}

/// What cryptsetup's tools make, by the word behind `CRYPT-` in its UUID (lib/utils_dm.h of
/// cryptsetup), and how to end it.
fn crypt(uuid: &str, map: &str) -> (&'static str, String) {
    match uuid.split('-').nth(1) {
        Some("INTEGRITY") => {
            ("the open dm-integrity mapping", format!("close it: integritysetup close {map}"))
        }
        Some("VERITY") => ("the open dm-verity mapping", format!("close it: veritysetup close {map}")),
        Some("SUBDEV") => (
            "a part of an open crypt mapping",
            "close that mapping: dmsetup ls --tree, cryptsetup close".into(),
        ),
        _ => ("the open crypt mapping", format!("close it: cryptsetup close {map}")),
    }
}

/// What cannot be read is not taken for empty.
pub(super) fn unprobed(error: &io::Error) -> Refusal {
    let what = format!("what is on it cannot be read: {error}");
    Refusal::new("cannot be probed", what, "see what the kernel says of it: dmesg").unless(Force::Unprobed)
}

pub(super) fn read_only() -> Refusal {
    let remedy = "lift the write protection (blockdev --setrw), if it may be lifted";
    Refusal::new("read-only", "it is read-only", remedy)
}

pub(super) fn open_in(process: &Process) -> Refusal {
    let remedy = format!("end that process first, if it may end: kill {}", process.id);
    Refusal::new(format!("open in {process}"), format!("{process} has it open"), remedy)
}

pub(super) fn mounted(name: &str, mount: &Mount) -> Refusal {
    let point = printable(&mount.point.to_string_lossy());
    let (whose, umount) = match &mount.seen_by {
        None => (String::new(), format!("umount {point}")),
        Some(process) => (
            format!(" in the mount namespace of {process}"),
            format!("nsenter --target {} --mount umount {point}", process.id),
        ),
    };
    let mut refusal = Refusal::new(
        format!("mounted at {point}"),
        format!("{name} is mounted at {point}{whose}"),
        format!("unmount it first: {umount}"),
    );
    if SYSTEM.iter().any(|system| mount.point == Path::new(system)) {
        refusal.system = true;
        refusal.what += ": the running system is on it";
        refusal.remedy = "boot another system to wipe this disk".into();
    }
    refusal
}

pub(super) fn swapped_to(name: &str, swap: &Path) -> Refusal {
    let remedy = format!("take it out of use first: swapoff {}", swap.display());
    Refusal::new("swap", format!("{name} is in use as swap"), remedy)
}

/// What was not seen may be a user.
pub(super) fn unseen(what: &str) -> Refusal {
    let remedy = "run efface where all of the machine can be seen: as root, in the first PID namespace, with \
                   CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and with /sys and /proc whole";
    Refusal::new("its users cannot all be seen", format!("it cannot be seen who uses it: {what}"), remedy)
        .unless(Force::Unseen)
}
