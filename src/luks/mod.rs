//! Key locations of LUKS volumes: header bytes in, ranges out. Nothing here writes, and no input is trusted.
//!
//! LUKS1: the "LUKS On-Disk Format Specification" 1.2.3. LUKS2: "LUKS2 On-Disk Format
//! Specification" 1.1.2, and lib/luks2 of cryptsetup.

pub mod data;
mod v1;
mod v2;

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::range::{Extent, ExtentSet};

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
/// Of the second header of LUKS2.
const MAGIC_SECOND: &[u8; 6] = b"SKUL\xba\xbe";
/// The binary header of LUKS2; that of LUKS1 is shorter.
const HEADER_BYTES: u64 = 4096;
/// Where the second header of LUKS2 can lie: right behind the first one, whose size is one of these.
const SECOND_OFFSETS: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
/// No LUKS volume keeps a key behind this: two headers of 4 MiB and 128 MiB of keyslots.
const AREA_BYTES_MAX: u64 = 2 * 0x40_0000 + (128 << 20);

/// Reads bytes of the device; short where it ends.
pub type Read<'a> = &'a mut dyn FnMut(Extent) -> io::Result<Zeroizing<Vec<u8>>>;

/// Everything that holds, or could hold, the keys of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct KeyArea {
    /// 1 or 2; none where no header is intact.
    pub version: Option<u8>,
    /// The volume's, from the header; `None` where no header is intact or it has none.
    pub uuid: Option<String>,
    /// All that has to be overwritten.
    pub area: Extent,
    /// The headers, with their JSON where they are intact: as long as one of them is left, the rest can
    /// be found again.
    pub headers: ExtentSet,
    /// In the order of the header; empty where no header is intact.
    pub keyslots: Vec<Keyslot>,
    /// The header stands alone: the data is elsewhere.
    pub detached: bool,
    /// Why some of the data can be read without any of these keys.
    pub readable: Option<String>,
    /// What else was found: damage, reencryption, tokens.
    pub notes: Vec<String>,
}

/// A range of key material.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Keyslot {
    /// The slot's number in the header, from 0.
    pub number: u32,
    /// What its key opens.
    pub kind: KeyslotKind,
    /// All of its key material, absolute on the device that has the header.
    pub at: Extent,
}

/// What a keyslot is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyslotKind {
    /// Opens the volume.
    Active,
    /// Of LUKS1: not in use, and perhaps never wiped.
    Inactive,
    /// Of LUKS2: opens no segment of the volume, and may hold any key.
    Unbound,
    /// Of LUKS2: what reencryption keeps to survive a crash.
    Reencryption,
}

/// One copy of the header.
struct HeaderCopy {
    at: Extent,
    content: Result<Content, String>,
}

/// What an intact header says.
struct Content {
    version: u8,
    uuid: String,
    /// With its JSON.
    header_bytes: u64,
    /// Counts up with each change; of two intact headers the higher one is in force, else the first.
    sequence: u64,
    keyslots: Vec<Keyslot>,
    keyslots_end: u64,
    /// Why some of the data is not encrypted with these keys.
    readable: Option<String>,
    /// Where the data begins on the same device; `None` if it is not there.
    data: Option<u64>,
    notes: Vec<String>,
}

/// Finds the volume whose header is on this device or file; `None` if there is no header.
pub fn find(read: Read, size: u64, detached: bool) -> io::Result<Option<KeyArea>> {
    let copies = copies(read, size)?;
    if copies.is_empty() {
        return Ok(None);
    }
    let mut notes: Vec<String> = Vec::new();
    for copy in &copies {
        if let Err(damage) = &copy.content {
            notes.push(format!("the header at {} is damaged: {damage}", copy.at.start));
        }
    }
    let headers: ExtentSet = copies.iter().map(|copy| copy.at).collect();
    // A second header of another volume than the first one's is left over from earlier.
    let first = copies.iter().find(|copy| copy.at.start == 0).and_then(|copy| copy.content.as_ref().ok());
    let same = |content: &&Content| {
        first.is_none_or(|first| (first.version, &first.uuid) == (content.version, &content.uuid))
    };
    let intact = || copies.iter().filter_map(|copy| copy.content.as_ref().ok()).filter(same);
    let newest = intact().reduce(|one, next| if next.sequence > one.sequence { next } else { one });
    let Some(newest) = newest else {
        notes.push("no header is intact: all that LUKS could have placed is covered".into());
        let area = Extent::new(0, AREA_BYTES_MAX.min(size));
        return Ok(Some(KeyArea {
            version: None,
            uuid: None,
            area,
            headers,
            keyslots: vec![],
            detached,
            readable: None,
            notes,
        }));
    };
    // An older copy may know of key material that the newer one has given up.
    let mut keyslots: Vec<Keyslot> = Vec::new();
    for slot in intact().flat_map(|content| &content.keyslots) {
        if !keyslots.contains(slot) {
            keyslots.push(slot.clone());
        }
    }
    let data = newest.data.filter(|data| *data >= newest.keyslots_end && !detached);
    let known = keyslots.iter().map(|slot| slot.at.end).chain([newest.keyslots_end]);
    // A stale second header of an earlier volume would be found again: it goes too.
    let stale = headers.iter().map(|header| header.end).filter(|_| !detached);
    let end = known.chain(stale).chain(data).max().unwrap_or_default();
    notes.extend(newest.notes.iter().cloned());
    Ok(Some(KeyArea {
        version: Some(newest.version),
        uuid: Some(newest.uuid.clone()),
        area: Extent::new(0, end.min(size)),
        headers,
        keyslots,
        detached: data.is_none(),
        readable: intact().find_map(|content| content.readable.clone()),
        notes,
    }))
}

/// Every place with a LUKS magic.
fn copies(read: Read, size: u64) -> io::Result<Vec<HeaderCopy>> {
    let mut copies = Vec::new();
    for at in [0].into_iter().chain(SECOND_OFFSETS).filter(|at| at + HEADER_BYTES <= size) {
        let header = read(Extent::at(at, HEADER_BYTES))?;
        let magic = if at == 0 { MAGIC } else { MAGIC_SECOND };
        if !header.starts_with(magic) {
            continue;
        }
        let content = match big_endian_16(&header, 6) {
            1 if at == 0 => v1::parse(&header, size),
            2 => v2::parse(&header, at, size, read)?,
            version => Err(format!("its version is {version}")),
        };
        let length = content.as_ref().map_or(HEADER_BYTES, |content| content.header_bytes);
        copies.push(HeaderCopy { at: Extent::at(at, length), content });
    }
    Ok(copies)
}

/// What else encrypts a whole device, by the signature at its start.
pub fn other_format(start: &[u8]) -> Option<&'static str> {
    let holds = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|bytes| bytes.starts_with(magic));
    if holds(3, b"-FVE-FS-") {
        Some("BitLocker")
    } else if holds(32, b"NXSB") {
        Some("APFS (FileVault)")
    } else if holds(88, b"CS") {
        Some("Core Storage (FileVault 2)")
    } else {
        None
    }
}

fn big_endian_16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn big_endian_32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn big_endian_64(bytes: &[u8], at: usize) -> u64 {
    u64::from(big_endian_32(bytes, at)) << 32 | u64::from(big_endian_32(bytes, at + 4))
}

/// Text up to the first zero; anything that is not plain is replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let plain = |byte: &u8| if byte.is_ascii_graphic() { *byte as char } else { '?' };
    bytes[..end].iter().map(plain).collect()
}

#[cfg(test)]
mod tests;
