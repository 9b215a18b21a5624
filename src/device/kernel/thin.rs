//! Thin volumes of device-mapper: the mapped blocks, and what the pool holds
//! (Documentation/admin-guide/device-mapper/thin-provisioning.rst).

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{DeviceNumber, Tree};
use super::sysfs::{Block, SECTOR_BYTES};
use crate::io::DmLine;

/// A thin volume as it was at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Thin {
    /// Its pool's name.
    pub pool: String,
    /// It takes discards, and gives its blocks back by them.
    pub discards: bool,
    /// Bytes of this volume that lie on blocks of the pool.
    pub mapped_bytes: u64,
    /// Bytes of the pool's blocks that any of its volumes and snapshots holds.
    pub pool_used_bytes: u64,
    /// Bytes of all blocks of the pool's data device.
    pub pool_bytes: u64,
}

impl Thin {
    /// As it is now; `None` if it is gone, or no thin volume.
    pub fn now(tree: &Tree, number: DeviceNumber) -> Option<Thin> {
        Thin::of(tree, &tree.block(number).ok()?).ok().flatten()
    }

    /// `None` for a device that is no thin volume.
    pub(in crate::device) fn of(tree: &Tree, block: &Block) -> io::Result<Option<Thin>> {
        let ask = |number: DeviceNumber, line, kind: &str| {
            let lines = match (tree.kernel.mapping)(tree, &tree.block(number)?, line) {
                // What is below a mapping without a table that can be read, the graph asks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                lines => lines?,
            };
            let only = lines.into_iter().next().filter(|target| target.kind == kind);
            Ok::<_, io::Error>(only.map(|target| target.line.to_string()))
        };
        if !block.has("dm") {
            return Ok(None);
        }
        let Some(table) = ask(block.number(), DmLine::Table, "thin")? else { return Ok(None) };
        let pool = table.split_whitespace().next().and_then(|pool| pool.parse().ok()).ok_or_else(unknown)?;
        let lines = [(pool, DmLine::Table), (pool, DmLine::Status)];
        let [pool_table, pool_status] = lines.map(|(number, line)| ask(number, line, "thin-pool"));
        let status = ask(block.number(), DmLine::Status, "thin")?;
        let blocks = blocks(&pool_table?.unwrap_or_default(), &pool_status?.unwrap_or_default());
        let (block_bytes, used, total) = blocks.ok_or_else(unknown)?;
        let pool = tree.block(pool)?;
        let name = pool.attribute("dm/name").unwrap_or_else(|| pool.name());
        Ok(Some(Thin {
            // LVM's own device below the pool that people know.
            pool: name.strip_suffix("-tpool").unwrap_or(&name).into(),
            discards: block.number_attribute("queue/discard_max_bytes").is_some_and(|bytes| bytes > 0),
            mapped_bytes: mapped(&status.unwrap_or_default()).ok_or_else(unknown)?,
            pool_used_bytes: used * block_bytes,
            pool_bytes: total * block_bytes,
        }))
    }
}

/// Its pool may have failed, or be asked for too much.
fn unknown() -> io::Error {
    io::Error::other("device-mapper shows nothing of this thin volume and its pool")
}

/// A volume's status is `<mapped sectors> <highest>`, or a word where it has failed.
fn mapped(status: &str) -> Option<u64> {
    status.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(SECTOR_BYTES)
}

/// The bytes of a pool's block, and how many are used and there: of its table
/// `<metadata> <data> <sectors of a block> …` and its status `<transaction> <used>/<total metadata>
/// <used>/<total data> …`.
fn blocks(table: &str, status: &str) -> Option<(u64, u64, u64)> {
    let sectors: u64 = table.split_whitespace().nth(2)?.parse().ok()?;
    let (used, total) = status.split_whitespace().nth(2)?.split_once('/')?;
    Some((sectors.checked_mul(SECTOR_BYTES)?, used.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(mapped("2048 131071"), Some(1 << 20));
        assert_eq!(mapped("Fail"), None);
        assert_eq!(mapped("-"), None);
        let table = "253:0 253:1 128 0 1 skip_block_zeroing ";
        let status = "1 11/1024 16/256 - rw discard_passdown queue_if_no_space - 1024";
        assert_eq!(blocks(table, status), Some((64 << 10, 16, 256)));
        assert_eq!(blocks(table, "Fail"), None);
        assert_eq!(blocks("", ""), None);
    }
}
