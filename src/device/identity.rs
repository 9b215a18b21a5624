//! Which device this is.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use serde::Serialize;

use super::Tree;
use super::guard::mounts;
use super::sysfs::{Node, Number};
use crate::io::Geometry;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Disk,
    Partition,
    Loop,
    DeviceMapper,
    Md,
    Image,
}

/// What sets a device apart, as far as the kernel tells it. Sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Identity {
    /// As the person gave it.
    pub path: PathBuf,
    pub kind: Kind,
    /// The kernel's name, `sda1`; an image has none.
    pub kernel_name: Option<String>,
    pub number: Option<Number>,
    pub size: u64,
    pub logical_block: u64,
    pub physical_block: u64,
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub firmware: Option<String>,
    pub rotational: Option<bool>,
    pub backing_file: Option<String>,
    pub dm_name: Option<String>,
    /// Counts up with every disk that the kernel sees (BLKGETDISKSEQ).
    pub disk_sequence: Option<u64>,
    /// An image's file system and inode.
    pub inode: Option<(u64, u64)>,
}

impl Identity {
    pub fn read(
        tree: &Tree,
        path: &Path,
        metadata: &Metadata,
        geometry: Geometry,
        disk_sequence: Option<u64>,
    ) -> Identity {
        let block = metadata.file_type().is_block_device();
        let number = block.then(|| Number::of(metadata.rdev()));
        let node = number.and_then(|number| Node::find(tree, number));
        let disk = node.as_ref().map(Node::whole_disk);
        let of_disk =
            |names: &[&str]| disk.as_ref().and_then(|disk| names.iter().find_map(|name| disk.read(name)));
        let of_node = |name| node.as_ref().and_then(|node| node.read(name));
        let model = of_disk(&["device/model"]);
        // Whether a loop or dm device seeks is its parents' matter: it only repeats a default.
        let rotational = of_disk(&["queue/rotational"]).filter(|_| model.is_some()).map(|flag| flag == "1");
        Identity {
            path: path.into(),
            kind: if block { kind(node.as_ref()) } else { Kind::Image },
            kernel_name: node.as_ref().map(|node| node.name.clone()),
            number,
            size: geometry.size,
            logical_block: geometry.logical_block,
            physical_block: geometry.physical_block,
            vendor: of_disk(&["device/vendor"]),
            model,
            serial: of_disk(&["device/serial", "serial"]),
            wwn: of_disk(&["wwid", "device/wwid"]),
            firmware: of_disk(&["device/firmware_rev", "device/rev"]),
            rotational,
            backing_file: of_node("loop/backing_file"),
            dm_name: of_node("dm/name"),
            disk_sequence,
            inode: (!block).then(|| (metadata.dev(), metadata.ino())),
        }
    }

    /// What a person types to confirm: `sda`, or an image's file name.
    pub fn name(&self) -> String {
        let file_name = || self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.kernel_name.clone().or_else(file_name).unwrap_or_else(|| self.path.display().to_string())
    }

    /// `sda, disk, 4.00 TiB, ACME X100, serial 1234`
    pub fn describe(&self) -> String {
        let kind = match self.kind {
            Kind::Disk => "disk",
            Kind::Partition => "partition",
            Kind::Loop => "loop device",
            Kind::DeviceMapper => "device-mapper device",
            Kind::Md => "md array",
            Kind::Image => "image file",
        };
        let told = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!("{what}{value}"));
        let parts = [
            Some(self.name()),
            Some(kind.to_string()),
            Some(BinaryBytes(self.size).to_string()),
            told("", &self.vendor),
            told("", &self.model),
            told("serial ", &self.serial),
            told("WWN ", &self.wwn),
            told("over ", &self.backing_file),
            told("named ", &self.dm_name),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What the device holds, a line each, as far as the kernel knows without reading it.
    pub fn contents(&self, tree: &Tree) -> Vec<String> {
        let Some(node) = self.number.and_then(|number| Node::find(tree, number)) else { return Vec::new() };
        let mut lines = Vec::new();
        for part in std::iter::once(node.clone()).chain(node.partitions()) {
            if part.number != node.number {
                let sectors: u64 = part.read("size").and_then(|size| size.parse().ok()).unwrap_or(0);
                lines.push(format!("partition {}, {}", part.name, BinaryBytes(sectors * 512)));
            }
            let mounted = mounts(tree).into_iter().filter(|mount| mount.number == part.number);
            lines.extend(mounted.map(|mount| format!("{} is mounted at {}", part.name, mount.at)));
            lines.extend(part.holders().iter().map(|holder| format!("{} is held by {holder}", part.name)));
        }
        if lines.is_empty() {
            lines.push("no partitions, mounts or holders known to the kernel".into());
        }
        lines
    }
}

fn kind(node: Option<&Node>) -> Kind {
    match node {
        Some(node) if node.has("partition") => Kind::Partition,
        Some(node) if node.name.starts_with("loop") => Kind::Loop,
        Some(node) if node.has("dm") => Kind::DeviceMapper,
        Some(node) if node.has("md") => Kind::Md,
        _ => Kind::Disk,
    }
}
