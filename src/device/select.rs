//! Selection of targets by identity: `serial:…` and `wwn:…` instead of a path.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Tree;
use super::identity::{Identity, same_name};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// The path of the one whole disk with this serial number or world wide name; any other text is a
/// path already.
///
/// # Errors
/// A usage error where no disk has that name; of kind [`Kind::Refused`](crate::Kind::Refused) where several
/// have it, or /sys cannot be read.
pub fn select(tree: &Tree, target: impl AsRef<OsStr>) -> Result<PathBuf> {
    type NameOf = fn(&Identity) -> Option<&str>;
    let target = target.as_ref();
    let (part, wanted): (NameOf, &[u8]) = if let Some(serial) = target.as_bytes().strip_prefix(b"serial:") {
        (|identity| identity.serial.as_deref(), serial)
    } else if let Some(wwn) = target.as_bytes().strip_prefix(b"wwn:") {
        (|identity| identity.wwn.as_deref(), wwn)
    } else {
        return Ok(target.into());
    };
    let wanted = String::from_utf8_lossy(wanted);
    let disks = disks(tree).map_err(|error| {
        Error::refused("the disks cannot be seen")
            .because(error)
            .with_remedy("see that /sys is mounted")
            .on(Path::new(target))
    })?;
    let found: Vec<&Identity> =
        disks.iter().filter(|disk| part(disk).is_some_and(|value| same_name(value, &wanted))).collect();
    match found[..] {
        [disk] => Ok(disk.node.clone()),
        [] => Err(Error::usage("no disk is called that").with_remedy("see which there are: efface list")),
        _ => {
            let nodes: Vec<String> = found.iter().map(|disk| printable_path(&disk.node)).collect();
            Err(Error::refused(format!("{} disks are called that: {}", nodes.len(), nodes.join(", ")))
                .with_remedy("name one of them by its path (of a multipath disk its map)"))
        }
    }
    .map_err(|error| error.on(Path::new(target)))
}

/// Partitions have their disk's names, and are not meant.
fn disks(tree: &Tree) -> io::Result<Vec<Identity>> {
    let blocks = tree.blocks()?;
    let disks = blocks.iter().filter(|block| !block.is_partition() && !block.is_hidden());
    disks
        .map(|block| {
            let node = tree.dev.join(block.name());
            Identity::of_block(tree, &node, node.clone(), block)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTree, SDA};
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_disk_is_found_by_serial_and_by_world_wide_name() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fake.partition(SDA, "8:1");
        let write = |name: &str, content: &str| fake.write(&format!("sys/devices/{SDA}/{name}"), content);
        write("device/wwid", "naa.5000C500A1B2C3D4\n");
        write("serial", "ZC18XYZ9\n");
        let sda = fake.tree.dev.join("sda");
        for target in ["serial:ZC18XYZ9", "wwn:naa.5000c500a1b2c3d4", "wwn:0x5000c500a1b2c3d4"] {
            assert_eq!(select(&fake.tree, target).unwrap(), sda, "{target}");
        }
        assert_eq!(select(&fake.tree, "/dev/sdz").unwrap(), Path::new("/dev/sdz"));
        for target in ["serial:ZC18", "serial:", "wwn:", "wwn:5000"] {
            assert_eq!(select(&fake.tree, target).unwrap_err().kind, Kind::Usage, "{target}");
        }
    }

    #[test]
    fn two_disks_of_one_name_are_not_guessed_between() {
        let fake = FakeTree::new();
        let other = SDA.replace("sda", "sdb");
        for (folder, number) in [(SDA, "8:0"), (&other, "8:16")] {
            fake.device(folder, number);
            fake.write(&format!("sys/devices/{folder}/serial"), "0123456789\n");
        }
        let error = select(&fake.tree, "serial:0123456789").unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.to_string().contains("sda") && error.to_string().contains("sdb"), "{error}");
    }
}
