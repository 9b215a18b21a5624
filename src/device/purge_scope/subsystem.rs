//! An NVMe subsystem in sysfs: its controllers, and the block devices of its namespaces (Linux
//! drivers/nvme/host/sysfs.c and multipath.c).

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::super::Tree;
use super::super::identity::{kind, transport};
use super::super::kernel::sysfs::{Block, entries, is_gone, linked_folder, read_attribute};
use super::ScopedNode;
use crate::error::{Error, Result};
use crate::io::passthrough::nvme::identify;

/// A subsystem, with those of its controllers that this machine has.
pub(super) struct Subsystem {
    folder: PathBuf,
    model: String,
    serial: String,
    /// In the order of their numbers.
    pub controllers: Vec<Controller>,
}

/// A controller of this machine.
pub(super) struct Controller {
    /// `nvme0`.
    pub name: String,
    folder: PathBuf,
    /// CNTLID.
    pub id: u16,
}

/// A block device of a namespace: a path through one controller, or the head of its paths.
pub(super) struct Shown {
    pub name: String,
    pub nsid: u32,
    pub wwid: String,
    /// The controller of a path; `None` for a head.
    pub controller: Option<u16>,
    /// `None` for a hidden one.
    pub node: Option<ScopedNode>,
}

impl Shown {
    fn read(name: String, folder: PathBuf, controller: Option<u16>) -> Result<Shown> {
        let nsid = number(&folder, "nsid", &name)?;
        let wwid = required(&folder, "wwid", &name)?;
        let node = || -> io::Result<Option<ScopedNode>> {
            if read_attribute(&folder, "hidden")?.as_deref() == Some("1") {
                return Ok(None);
            }
            let block = Block::at(folder.clone())?;
            let (name, number, size_bytes) = (block.name(), block.number(), block.read_size()?);
            Ok(Some(ScopedNode { name, number, size_bytes }))
        };
        let node = node().map_err(|error| unread(&name, error))?;
        Ok(Shown { name, nsid, wwid, controller, node })
    }

    /// Whether both can be paths of one namespace, through different controllers.
    pub fn is_path_beside(&self, other: &Shown) -> bool {
        let controllers = self.controller.zip(other.controller);
        controllers.is_some_and(|(one, other)| one != other)
            && (self.nsid, &self.wwid) == (other.nsid, &other.wwid)
    }
}

impl Subsystem {
    /// That of a namespace.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`](crate::Kind::Unsupported) where the device is not a whole namespace, else
    /// of kind [`Kind::Refused`](crate::Kind::Refused) where something cannot be read.
    pub fn of(tree: &Tree, block: &Block) -> Result<Subsystem> {
        let disk = block.disk().map_err(|error| unread(&block.name(), error))?;
        let (controllers, subsystems) = (class(tree, "nvme")?, class(tree, "nvme-subsystem")?);
        let parent = disk.folder().parent();
        let is_parent = |entry: &&(String, PathBuf)| Some(entry.1.as_path()) == parent;
        let path = controllers.iter().find(is_parent);
        if path.is_none() && !subsystems.iter().any(|entry| is_parent(&entry)) {
            return Err(not_a_namespace(block, &disk));
        }
        if block.is_partition() {
            return Err(a_partition(block, &disk));
        }
        for entry in &subsystems {
            let members = entries(&entry.1).map_err(|error| unread(&entry.0, error))?;
            if is_parent(&entry) || path.is_some_and(|(controller, _)| members.contains(controller)) {
                let controllers = controllers.iter().filter(|(name, _)| members.contains(name));
                return Subsystem::read(entry, controllers);
            }
        }
        Err(not_known(&format!("no subsystem has the controller of {}", block.name())))
    }

    fn read<'a>(
        (name, folder): &(String, PathBuf),
        controllers: impl Iterator<Item = &'a (String, PathBuf)>,
    ) -> Result<Subsystem> {
        let controller = |(name, folder): &(String, PathBuf)| {
            let id = number(folder, "cntlid", name)?;
            Ok(Controller { name: name.clone(), folder: folder.clone(), id })
        };
        let mut controllers = controllers.map(controller).collect::<Result<Vec<_>>>()?;
        controllers.sort_by_key(|controller| controller.id);
        let attribute = |attribute| required(folder, attribute, name);
        let (model, serial) = (attribute("model")?, attribute("serial")?);
        Ok(Subsystem { folder: folder.clone(), model, serial, controllers })
    }

    /// Refuses drives that are not on the PCIe bus of this machine: an allow-list.
    pub fn require_pcie(&self) -> Result<()> {
        for Controller { name, folder, .. } in &self.controllers {
            let transport = required(folder, "transport", name)?;
            if transport != "pcie" {
                return Err(Error::refused(format!(
                    "its controller {name} is attached by {transport}, and only a drive on PCIe is purged"
                ))
                .with_remedy("purge it on the machine that it is in"));
            }
        }
        Ok(())
    }

    /// Refuses facts of another drive, and a drive that cannot be distinguished from another one here: the kernel
    /// makes two subsystems of one drive where its controllers disagree about the subsystem's name.
    pub fn require_only(&self, tree: &Tree, facts: &identify::Controller) -> Result<()> {
        if (&self.model, &self.serial) != (&facts.model, &facts.serial) {
            return Err(contradiction(format!(
                "the drive answers as {} {}, and in sysfs it is {} {}",
                facts.model, facts.serial, self.model, self.serial
            )));
        }
        let own = |folder: &Path| self.controllers.iter().any(|controller| controller.folder == folder);
        for (name, folder) in class(tree, "nvme")?.iter().filter(|(_, folder)| !own(folder)) {
            let attribute =
                |attribute| read_attribute(folder, attribute).map_err(|error| unread(name, error));
            if attribute("serial")?.as_ref() == Some(&self.serial)
                && attribute("model")?.as_ref() == Some(&self.model)
            {
                return Err(Error::refused(format!(
                    "{name} has the same model and serial number and is in another subsystem: it is not known \
                     whether both are one drive"
                ))
                .with_remedy("remove the other one, and try again"));
            }
        }
        Ok(())
    }

    /// Its block devices, hidden ones among them.
    pub fn shown(&self, tree: &Tree) -> Result<Vec<Shown>> {
        let mut all = Vec::new();
        for (name, folder) in class(tree, "block")? {
            let parent = folder.parent();
            let path = self.controllers.iter().find(|controller| Some(&*controller.folder) == parent);
            if path.is_some() || parent == Some(&*self.folder) {
                all.push(Shown::read(name, folder, path.map(|controller| controller.id))?);
            }
        }
        all.sort_by(|one, other| (one.nsid, &one.name).cmp(&(other.nsid, &other.name)));
        Ok(all)
    }
}

/// The devices of a class, each with its folder.
fn class(tree: &Tree, class: &str) -> Result<Vec<(String, PathBuf)>> {
    let links = tree.sys.join("class").join(class);
    let names = entries(&links).map_err(|error| unread(&format!("class/{class}"), error))?;
    let mut devices = Vec::new();
    for name in names {
        match linked_folder(&links.join(&name)) {
            // A device can go while others are read.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(unread(&name, error)),
            Ok(folder) => devices.push((name, folder)),
        }
    }
    Ok(devices)
}

fn required(folder: &Path, name: &str, of: &str) -> Result<String> {
    let text = read_attribute(folder, name).map_err(|error| unread(of, error))?;
    text.ok_or_else(|| not_known(&format!("{of} has no {name}")))
}

fn number<T: FromStr>(folder: &Path, name: &str, of: &str) -> Result<T> {
    let text = required(folder, name, of)?;
    text.parse().map_err(|_| not_known(&format!("{name} of {of} is {text}")))
}

fn not_known(why: &str) -> Error {
    Error::refused(format!("sysfs does not show what a purge reaches: {why}"))
        .with_remedy("see what the kernel says of the drive: dmesg")
}

fn unread(of: &str, error: io::Error) -> Error {
    not_known(of).because(error)
}

/// The kernel and the drive disagree.
pub(super) fn contradiction(what: String) -> Error {
    Error::refused(what)
        .with_remedy("let the kernel look again: write 1 to rescan_controller in sysfs, or reboot")
}

fn not_a_namespace(block: &Block, disk: &Block) -> Error {
    let transport = transport(disk.folder()).map_or(String::new(), |transport| format!(", {transport}"));
    let (name, word) = (block.name(), kind(block).word());
    Error::unsupported(format!(
        "{name} ({word}{transport}) is no NVMe namespace, and only these are purged by their drive"
    ))
    .with_remedy("efface wipe overwrites it")
}

fn a_partition(block: &Block, disk: &Block) -> Error {
    let (name, disk) = (block.name(), disk.name());
    Error::unsupported(format!("{name} is a partition, and no erase command of a drive is limited to one"))
        .with_remedy(format!("name the whole disk: /dev/{disk}; efface wipe overwrites the partition alone"))
}
