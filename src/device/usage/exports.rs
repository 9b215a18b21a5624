//! Exports of the kernel's SCSI and NVMe targets, as configfs shows them (Documentation/target,
//! Documentation/nvme). nvmet does not claim what it exports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::kernel::sysfs::{entries, read_attribute};
use super::super::place::Place;
use super::super::{DeviceNumber, Tree};

/// A device or file that other machines may write to.
#[derive(Debug)]
pub(super) struct Export {
    /// Its folder in configfs.
    pub name: String,
    /// `None` if that cannot be found out: it may be any.
    pub place: Option<Place>,
}

pub(super) fn exports(tree: &Tree) -> io::Result<Vec<Export>> {
    let config = tree.sys.join("kernel/config");
    let mut exports = Vec::new();
    let core = config.join("target/core");
    for kind in entries(&core)? {
        for name in entries(&core.join(&kind))? {
            let folder = core.join(&kind).join(name);
            let number = kind.starts_with("iblock").then(|| number_of_block(&folder)).flatten();
            // Memory, and processes: those are asked for what they have open.
            if !kind.starts_with("rd_mcp") && !kind.starts_with("user") {
                exports.extend(export(tree, &config, &folder, "udev_path", number));
            }
        }
    }
    let subsystems = config.join("nvmet/subsystems");
    for subsystem in entries(&subsystems)? {
        let namespaces = subsystems.join(&subsystem).join("namespaces");
        for name in entries(&namespaces)? {
            exports.extend(export(tree, &config, &namespaces.join(name), "device_path", None));
        }
    }
    Ok(exports)
}

/// `None` for a folder that is no export, or of one that is not enabled: the kernel has nothing open for it.
fn export(
    tree: &Tree,
    config: &Path,
    folder: &Path,
    file: &str,
    number: Option<DeviceNumber>,
) -> Option<Export> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let path = match fs::read_to_string(folder.join(file)) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return None,
        path => path.ok().map(|path| PathBuf::from(path.trim())),
    };
    if matches!(read_attribute(folder, "enable"), Ok(Some(enabled)) if enabled == "0") {
        return None;
    }
    let by_path = || {
        let path = path?;
        tree.number_of(&path).map(Place::Device).or_else(|| Place::at(&path))
    };
    let name = folder.strip_prefix(config).unwrap_or(folder).display().to_string();
    Some(Export { name, place: number.map(Place::Device).or_else(by_path) })
}

/// The device of a block backstore, by the kernel's own word (`Major: 8 Minor: 16`): its path is what the
/// administrator wrote, and may lead elsewhere here.
fn number_of_block(folder: &Path) -> Option<DeviceNumber> {
    let info = read_attribute(folder, "info").ok()??;
    let words: Vec<&str> = info.split_whitespace().collect();
    let after = |name| words.iter().skip_while(|word| **word != name).nth(1);
    format!("{}:{}", after("Major:")?, after("Minor:")?)
        .parse()
        .ok()
        .filter(|number| *number != DeviceNumber(0))
}
