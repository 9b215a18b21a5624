//! The LUKS1 format: a header of 592 bytes, eight slots, their material between it and the data.

use super::{Content, Keyslot, KeyslotKind, big_endian_32, text};
use crate::range::{Extent, align_up};

const SECTOR: u64 = 512;
const SLOTS_AT: usize = 208;
const SLOT_BYTES: usize = 48;
const SLOTS: usize = 8;
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;

pub fn parse(header: &[u8], size: u64) -> Result<Content, String> {
    let payload = u64::from(big_endian_32(header, 104)) * SECTOR;
    let key_bytes = u64::from(big_endian_32(header, 108));
    let mut keyslots = Vec::new();
    for number in 0..SLOTS {
        let slot = &header[SLOTS_AT + number * SLOT_BYTES..][..SLOT_BYTES];
        let kind = match big_endian_32(slot, 0) {
            ACTIVE => KeyslotKind::Active,
            INACTIVE => KeyslotKind::Inactive,
            other => return Err(format!("slot {number} is neither in use nor free: {other:#x}")),
        };
        let (start, stripes) =
            (u64::from(big_endian_32(slot, 40)) * SECTOR, u64::from(big_endian_32(slot, 44)));
        // Both factors have 32 bits.
        let at = Extent::at(start, align_up(key_bytes * stripes, SECTOR).min(u64::MAX - start));
        if start < SECTOR || at.is_empty() || at.end > size || (payload > 0 && at.end > payload) {
            return Err(format!("slot {number} has its material at {at}, which cannot be"));
        }
        keyslots.push(Keyslot { number: number as u32, kind, at });
    }
    let keyslots_end = keyslots.iter().map(|slot| slot.at.end).max().unwrap_or_default();
    Ok(Content {
        version: 1,
        uuid: text(&header[168..208]),
        header_bytes: super::HEADER_BYTES,
        sequence: 0,
        keyslots,
        keyslots_end,
        data: (payload > 0).then_some(payload),
        readable: (text(&header[8..40]) == "cipher_null").then(|| "its cipher is cipher_null".into()),
        notes: Vec::new(),
    })
}
