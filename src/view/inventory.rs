//! The table of devices: a tree of names, as wide as the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table};

use crate::device::Signature;
use crate::device::identity::DeviceKind;
use crate::device::inventory::InventoryEntry;
use crate::printable::printable_path;
use crate::units::bytes;

/// The width from which columns that identify a drive are shown.
const WIDE: u16 = 150;
const WIDTH_UNKNOWN: u16 = 80;

/// One row per device; below a disk the devices on it.
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
    for entry in entries {
        rows(&mut table, entry, "", "", wide);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Names are never wrapped: a broken tree is unreadable.
    table.column_mut(0).expect("the names").set_constraint(ColumnConstraint::ContentWidth);
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// `branch` stands before its own name, `stem` before the names above it.
fn rows(table: &mut Table, entry: &InventoryEntry, branch: &str, stem: &str, wide: bool) {
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
    for (index, above) in entry.above.iter().enumerate() {
        let last = index + 1 == entry.above.len();
        let (branch, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        rows(table, above, &format!("{stem}{branch}"), &format!("{stem}{below}"), wide);
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
