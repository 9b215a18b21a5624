//! `efface list`: the disks, and which of them a wipe would accept.

use clap::Args;
use serde::Serialize;

use crate::device::Tree;
use crate::device::capabilities::Prober;
use crate::device::inventory::{InventoryEntry, inventory};
use crate::error::{Error, Result};
use crate::progress::print;
use crate::verdict::Verdict;
use crate::view::inventory_table;

#[derive(Args)]
pub struct ListArgs {
    /// Ask drives what they offer for erasing (NVMe on PCIe, SATA, SAS; as root)
    #[arg(long)]
    capabilities: bool,

    /// Print everything known about each device as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DevicesJson {
    v: u32,
    devices: Vec<InventoryEntry>,
}

impl ListArgs {
    pub fn run(self) -> Result<Verdict> {
        let devices = inventory(&Tree::real(), self.capabilities.then(Prober::real).as_ref())?;
        let text = if self.json {
            let listed = DevicesJson { v: 1, devices };
            let error = |error| Error::failed(format!("the list cannot be written as JSON: {error}"));
            serde_json::to_string_pretty(&listed).map_err(error)? + "\n"
        } else {
            inventory_table(&devices)
        };
        print(&text)?;
        Ok(Verdict::Shown)
    }
}
