//! The LUKS2 format: two headers with JSON, each with a checksum; keyslots behind both of them.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

use super::{Content, HEADER_BYTES, Keyslot, KeyslotKind, Read, SECOND_OFFSETS, big_endian_64, text};
use crate::printable::excerpt;
use crate::range::Extent;

const CHECKSUM_AT: usize = 448;
const CHECKSUM_BYTES: usize = 64;
const OFFSET_AT: usize = 256;
const KEYSLOTS_BYTES_MAX: u64 = 128 << 20;

/// The part of the JSON that says where keys are. Numbers of 64 bits are strings.
#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, JsonKeyslot>,
    #[serde(default)]
    tokens: BTreeMap<String, Typed>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, JsonDigest>,
    config: Config,
}

#[derive(Deserialize)]
struct Typed {
    r#type: String,
}

#[derive(Deserialize)]
struct JsonKeyslot {
    r#type: String,
    area: Area,
}

#[derive(Deserialize)]
struct Area {
    r#type: String,
    offset: String,
    size: String,
}

#[derive(Deserialize)]
struct Segment {
    r#type: String,
    offset: String,
    encryption: Option<String>,
    integrity: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct JsonDigest {
    keyslots: Vec<String>,
    segments: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    json_size: String,
    keyslots_size: String,
    #[serde(default)]
    requirements: Option<Requirements>,
}

#[derive(Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// Parses the header at `at`; the outer error is that of the device.
pub fn parse(header: &[u8], at: u64, size: u64, read: Read) -> io::Result<Result<Content, String>> {
    let header_bytes = big_endian_64(header, 8);
    let offset = big_endian_64(header, OFFSET_AT);
    if !SECOND_OFFSETS.contains(&header_bytes) {
        return Ok(Err(format!("its size is {header_bytes}")));
    }
    if offset != at || (at != 0 && at != header_bytes) || at + header_bytes > size {
        return Ok(Err(format!("it belongs at {offset}")));
    }
    let whole = read(Extent::at(at, header_bytes))?;
    if whole.len() as u64 != header_bytes {
        return Ok(Err("the device ends in it".into()));
    }
    Ok(check(&whole).and_then(|()| content(&whole, size)))
}

/// The checksum over all of it, its own place taken as zeroes.
fn check(whole: &[u8]) -> Result<(), String> {
    let algorithm = text(&whole[72..104]);
    let stored = &whole[CHECKSUM_AT..][..CHECKSUM_BYTES];
    let parts = [&whole[..CHECKSUM_AT], &[0; CHECKSUM_BYTES], &whole[CHECKSUM_AT + CHECKSUM_BYTES..]];
    let found = match algorithm.as_str() {
        "sha256" => digest::<Sha256>(&parts),
        "sha512" => digest::<Sha512>(&parts),
        other => return Err(format!("its checksum is of an unknown kind: {other}")),
    };
    if stored.starts_with(&found) { Ok(()) } else { Err("its checksum does not fit".into()) }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}

fn content(whole: &[u8], size: u64) -> Result<Content, String> {
    let header_bytes = whole.len() as u64;
    let json = &whole[HEADER_BYTES as usize..];
    let end = json.iter().position(|byte| *byte == 0).unwrap_or(json.len());
    let metadata: Metadata = serde_json::from_slice(&json[..end])
        .map_err(|error| format!("its JSON is not understood: {}", excerpt(&error.to_string())))?;
    let keyslots_start = 2 * header_bytes;
    let keyslots_bytes = number(&metadata.config.keyslots_size)?;
    if number(&metadata.config.json_size)? != header_bytes - HEADER_BYTES
        || keyslots_bytes > KEYSLOTS_BYTES_MAX
    {
        return Err("its sizes contradict one another".into());
    }
    let keyslots_area = Extent::at(keyslots_start, keyslots_bytes);
    if keyslots_area.end > size {
        return Err(format!("its keyslots at {keyslots_area} lie beyond the device's end"));
    }
    let bound = |id: &String| {
        let of_data = |digest: &&JsonDigest| !digest.segments.is_empty();
        metadata.digests.values().filter(of_data).any(|digest| digest.keyslots.contains(id))
    };
    let mut keyslots = Vec::new();
    for (id, slot) in &metadata.keyslots {
        let kind = match slot.r#type.as_str() {
            "reencrypt" => KeyslotKind::Reencryption,
            _ if bound(id) => KeyslotKind::Active,
            _ => KeyslotKind::Unbound,
        };
        let (start, length) = (number(&slot.area.offset)?, number(&slot.area.size)?);
        let at = start.checked_add(length).map(|end| Extent::new(start, end));
        // A reencryption that shifts the data keeps nothing in the keyslots area.
        let at = at.filter(|at| at.intersect(keyslots_area) == *at || slot.area.r#type == "datashift");
        let at = at.ok_or_else(|| format!("keyslot {id} lies outside of the keyslots area"))?;
        let number = id.parse().map_err(|_| format!("a keyslot is called '{}'", text(id.as_bytes())))?;
        keyslots.push(Keyslot { number, kind, at: at.intersect(keyslots_area) });
    }
    keyslots.retain(|slot| !slot.at.is_empty());
    let segments: Vec<u64> =
        metadata.segments.values().map(|segment| number(&segment.offset)).collect::<Result<_, _>>()?;
    Ok(Content {
        version: 2,
        uuid: text(&whole[168..208]),
        header_bytes,
        sequence: big_endian_64(whole, 16),
        keyslots,
        keyslots_end: keyslots_area.end,
        data: segments.into_iter().min(),
        readable: readable(&metadata),
        notes: notes(&metadata),
    })
}

fn notes(metadata: &Metadata) -> Vec<String> {
    let requirements = metadata.config.requirements.iter().flat_map(|all| &all.mandatory);
    let reencryption = requirements.filter(|name| name.contains("reencrypt")).map(|name| {
        format!("a reencryption is under way ({}): the area holds two volume keys", text(name.as_bytes()))
    });
    let tokens = metadata.tokens.values().map(|token| {
        format!("a token of type {} names a secret that is kept elsewhere", text(token.r#type.as_bytes()))
    });
    let sealed = metadata.segments.values().any(|segment| segment.integrity.is_some());
    let integrity = sealed.then(|| "the data has integrity tags, under the same volume key".to_string());
    let by_drive_too = metadata.segments.values().any(|segment| segment.r#type == DRIVE_AND_CRYPT);
    let opal = by_drive_too.then(|| {
        "the drive encrypts the data once more (TCG Opal), by a key of its own that stays in it".to_string()
    });
    reencryption.chain(tokens).chain(integrity).chain(opal).collect()
}

/// Segments that the drive encrypts (cryptsetup 2.7, `luksFormat --hw-opal-only` and `--hw-opal`). What the keyslots
/// hold for it is only the password of its locking range.
const DRIVE_ALONE: &str = "hw-opal";
const DRIVE_AND_CRYPT: &str = "hw-opal-crypt";

/// Data that none of the keys protects: not encrypted yet or any more, by no cipher, or by the drive.
fn readable(metadata: &Metadata) -> Option<String> {
    let null = |segment: &Segment| segment.encryption.as_ref().is_some_and(|cipher| cipher.contains("null"));
    metadata.segments.values().find_map(|segment| match segment.r#type.as_str() {
        "crypt" | DRIVE_AND_CRYPT if null(segment) => Some("its cipher is cipher_null".into()),
        "crypt" | DRIVE_AND_CRYPT => None,
        DRIVE_ALONE => Some(
            "the drive alone encrypts it (TCG Opal), by a key of its own that no keyslot has: erase the drive itself \
             (efface purge), or revert it with its PSID (cryptsetup erase --hw-opal-factory-reset)"
                .into(),
        ),
        "linear" => Some("a part of its data is not encrypted: a reencryption is under way".into()),
        other => Some(format!("its data is of an unknown kind: {}", text(other.as_bytes()))),
    })
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{}' is no number", super::text(text.as_bytes())))
}

/// Gives a changed header a checksum that fits, so that its JSON is read at all.
#[cfg(test)]
pub fn tests_reseal(whole: &mut [u8]) {
    whole[CHECKSUM_AT..][..CHECKSUM_BYTES].fill(0);
    let sum = digest::<Sha256>(&[&*whole]);
    whole[CHECKSUM_AT..][..sum.len()].copy_from_slice(&sum);
}
