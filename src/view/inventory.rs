//! The table of devices: a tree of names, as wide as the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table};

use super::capabilities::capability_lines;
use crate::device::Signature;
use crate::device::identity::DeviceKind;
use crate::device::inventory::InventoryEntry;
use crate::printable::printable_path;
use crate::units::bytes;

/// The width from which columns that identify a drive are shown.
const WIDE: u16 = 150;
const WIDTH_UNKNOWN: u16 = 80;
/// In the place of lines that are no cells of the table; no name has a control character.
const LINES_HERE: &str = "\0";

/// One row per device; below a disk what it offers for erasing, where that was asked for, and the devices on it.
pub fn inventory_table(entries: &[InventoryEntry]) -> String {
    let width = console::Term::stdout().size_checked().map_or(WIDTH_UNKNOWN, |(_, columns)| columns);
    render(entries, width)
}

fn render(entries: &[InventoryEntry], width: u16) -> String {
    let wide = width >= WIDE;
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let mut head = vec!["NAME", "SIZE", "DEVICE", "HOLDS", "EFFACE TAKES IT"];
    if wide {
        head.extend(["BLOCKS", "FIRMWARE", "WWN", "STABLE NAME"]);
    }
    table.set_header(head.into_iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    let mut lines_between = Vec::new();
    for entry in entries {
        rows(&mut table, &mut lines_between, entry, "", "", wide);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Names are never wrapped: a broken tree is unreadable.
    table.column_mut(0).expect("the names").set_constraint(ColumnConstraint::ContentWidth);
    let mut lines_between = lines_between.into_iter();
    let lines = table.lines().flat_map(|line| match line.trim_end() {
        LINES_HERE => lines_between.next().expect("as many as were put there"),
        line => vec![line.to_string()],
    });
    lines.map(|line| line + "\n").collect()
}

/// `branch` stands before its own name, `stem` before the names above it.
fn rows(
    table: &mut Table,
    lines_between: &mut Vec<Vec<String>>,
    entry: &InventoryEntry,
    branch: &str,
    stem: &str,
    wide: bool,
) {
    let identity = &entry.identity;
    let mut row = vec![
        Cell::new(format!("{branch}{}", identity.name())),
        Cell::new(bytes(identity.size_bytes)),
        Cell::new(what(entry)),
        Cell::new(holds(entry)),
        answer(entry),
    ];
    if wide {
        let blocks = [identity.logical_block, identity.physical_block].map(|block| block.unwrap_or_default());
        let link = entry.links.first().map(|link| printable_path(link));
        row.push(Cell::new(format!("{}/{}", blocks[0], blocks[1])));
        let names = [identity.firmware.clone(), identity.wwn.clone(), link];
        row.extend(names.map(|name| Cell::new(name.unwrap_or_default())));
    }
    table.add_row(row);
    if let Some(capabilities) = &entry.capabilities {
        let below = if entry.above.is_empty() { "  " } else { "│ " };
        let lines = capability_lines(capabilities).into_iter().map(|line| format!("{stem}{below}  {line}"));
        table.add_row([LINES_HERE]);
        lines_between.push(lines.collect());
    }
    for (index, above) in entry.above.iter().enumerate() {
        let last = index + 1 == entry.above.len();
        let (branch, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        rows(table, lines_between, above, &format!("{stem}{branch}"), &format!("{stem}{below}"), wide);
    }
}

/// Model, serial and transport of a drive; the kind of other devices.
fn what(entry: &InventoryEntry) -> String {
    let identity = &entry.identity;
    let partition = identity.partition_start.is_some();
    let medium = identity.rotational.map(|rotational| if rotational { "rotational" } else { "flash" });
    let file = identity.backing_file.as_ref().map(|file| format!("over {}", printable_path(file)));
    let drive = [
        identity.model.clone(),
        identity.serial.clone(),
        identity.transport.as_ref().map(|transport| transport.to_string()),
        medium.filter(|_| identity.kind == DeviceKind::Disk).map(String::from),
        file,
    ];
    if let Some(thin) = &identity.thin {
        return format!("thin volume of {}", thin.pool);
    }
    let drive: Vec<String> = drive.into_iter().flatten().filter(|_| !partition).collect();
    if drive.is_empty() { identity.kind.word().into() } else { drive.join(" ") }
}

fn holds(entry: &InventoryEntry) -> String {
    let signatures = entry.signatures.iter().flatten().map(Signature::describe);
    let mounts = entry.mounts.iter().map(|point| format!("on {}", printable_path(point)));
    let swap = entry.swap.then(|| "swapped to".into());
    signatures.chain(mounts).chain(swap).collect::<Vec<String>>().join(", ")
}

fn answer(entry: &InventoryEntry) -> Cell {
    match &entry.refusal {
        None => Cell::new("yes").fg(Color::Green),
        Some(refusal) => Cell::new(format!("no: {}", refusal.short)).fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::device::capabilities::{Capabilities, NotAsked};
    use crate::io::passthrough::ReadOnly;
    use crate::io::passthrough::nvme::probe::probe;
    use crate::io::passthrough::sim::nvme::{NvmeSim, Setup};

    fn entry(name: &str, capabilities: Option<Capabilities>, above: Vec<InventoryEntry>) -> InventoryEntry {
        let node = format!("/dev/{name}");
        let identity = json!({ "path": node, "node": node, "kind": "disk", "size_bytes": 1 << 30 });
        InventoryEntry {
            identity: serde_json::from_value(identity).unwrap(),
            links: Vec::new(),
            read_only: false,
            signatures: None,
            mounts: Vec::new(),
            swap: false,
            refusal: None,
            capabilities,
            above,
        }
    }

    fn drive() -> Capabilities {
        let sim = NvmeSim::new(Setup { sanicap: 0b011, ..Setup::of(vec![0; 8192]) });
        Capabilities::of(&probe(&mut ReadOnly::new(sim.path(0))))
    }

    #[test]
    fn below_a_disk_are_its_capabilities_and_then_what_stands_on_it() {
        let virtual_disk = Capabilities::NotAsked { why: NotAsked::Virtual };
        let disks = [
            entry("nvme0n1", Some(drive()), vec![entry("nvme0n1p1", None, Vec::new())]),
            entry("vda", Some(virtual_disk), Vec::new()),
        ];
        assert_eq!(
            render(&disks, 80),
            "\
NAME         SIZE      DEVICE  HOLDS  EFFACE TAKES IT
nvme0n1      1.00 GiB  disk           yes
│   sanitize-block      Purge  offered
│   sanitize-crypto     Purge  offered
│   sanitize-overwrite  Purge  no: the drive does not offer it
│   format-crypto       Purge  offered
│   format-user-data    Clear  offered
└─nvme0n1p1  1.00 GiB  disk           yes
vda          1.00 GiB  disk           yes
    none of a virtual disk; use efface wipe
"
        );
    }

    #[test]
    fn without_capabilities_the_table_is_rows_alone() {
        let disks = [entry("nvme0n1", None, Vec::new())];
        assert_eq!(
            render(&disks, 80),
            "NAME     SIZE      DEVICE  HOLDS  EFFACE TAKES IT\nnvme0n1  1.00 GiB  disk           yes\n"
        );
    }

    /// The shape that docs/capabilities.md describes.
    #[test]
    fn the_json_of_a_disk_has_the_rungs_with_their_offers() {
        let sim = NvmeSim::new(Setup { sanicap: 0b010, last: Some((3, 0x02)), ..Setup::of(vec![0; 8192]) });
        let failed = Capabilities::of(&probe(&mut ReadOnly::new(sim.path(0))));
        let disk = serde_json::to_value(entry("nvme0n1", Some(failed), Vec::new())).unwrap();
        let capabilities = &disk["capabilities"];
        assert_eq!(capabilities["kind"], "answered");
        let rung = |rung, grade, offer| json!({ "rung": rung, "grade": grade, "offer": offer });
        let not = |why| json!({ "kind": "not", "why": { "kind": why } });
        let expected = json!([
            rung("sanitize-block", "purge", json!({ "kind": "only_restricted" })),
            rung("sanitize-crypto", "purge", not("not_offered")),
            rung("sanitize-overwrite", "purge", not("not_offered")),
            rung("format-crypto", "purge", not("sanitize_failed")),
            rung("format-user-data", "clear", not("sanitize_failed")),
        ]);
        assert_eq!(capabilities["rungs"], expected);
        assert_eq!(capabilities["sanitize"]["status"], "failed");
        assert_eq!(capabilities["protected_partitions"], 0);
        let other = serde_json::to_value(Capabilities::NotAsked { why: NotAsked::Usb }).unwrap();
        assert_eq!(other, json!({ "kind": "not_asked", "why": "usb" }));
        let unknown = serde_json::to_value(Capabilities::NotKnown { why: "no right".into() }).unwrap();
        assert_eq!(unknown, json!({ "kind": "not_known", "why": "no right" }));
    }
}
