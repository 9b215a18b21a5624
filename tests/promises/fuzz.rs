//! Untrusted input never causes a panic, a hang or a false claim. `scripts/soak` runs these longer.

use std::fs;
use std::sync::OnceLock;

use crate::evidence::Workspace;
use crate::passthrough::{decode_all, decode_ata};
use crate::passthrough_scsi::decode_scsi;
use efface::internals::record::Record;
use efface::internals::record::certificate::Certificate;
use efface::internals::record::sign::PublicKeys;
use efface::internals::view::{html, text};
use serde_json::Value;

/// An unsigned certificate, of a sampled or a full check.
fn samples() -> &'static [Vec<u8>; 2] {
    static SAMPLES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let workspace = Workspace::new();
        let certificate = |name: &str, size, options: &[&str]| {
            workspace.image("disk.img", size);
            workspace.wipe("disk.img", &[options, &["--certificate-to", name]].concat()).expect(0);
            fs::read(workspace.path(name)).unwrap()
        };
        [
            certificate("sampled.json", 80 << 20, &["--method", "random"]),
            certificate("full.json", 1 << 20, &["--method", "shred", "--verify", "full"]),
        ]
    })
}

/// Reads it as a third party would; renders and returns an accepted record.
fn read(bytes: &[u8]) -> Option<Record> {
    let Certificate { record, signed, .. } = Certificate::parse(bytes, &PublicKeys::default()).ok()?;
    let shown = text::render(&record) + &html::page(&[(record.clone(), signed)]);
    assert!(!shown.is_empty());
    Some(record)
}

/// A record accepted from changed bytes has the original's conclusions: no other field was changed to fit.
fn assert_concludes_the_same(bytes: &[u8], full: bool) {
    static ORIGINALS: OnceLock<[Record; 2]> = OnceLock::new();
    let originals = ORIGINALS.get_or_init(|| samples().each_ref().map(|sample| read(sample).unwrap()));
    if let Some(record) = read(bytes) {
        let original = &originals[usize::from(full)];
        let context = String::from_utf8_lossy(bytes);
        assert_eq!((record.verdict, record.exit_code), (original.verdict, original.exit_code), "{context}");
        assert_eq!(
            (&record.claim, &record.limitations),
            (&original.claim, &original.limitations),
            "{context}"
        );
    }
}

#[test]
fn any_bytes_are_read_as_a_certificate() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| assert!(read(bytes).is_none()));
}

#[test]
fn any_bytes_are_read_as_answers_of_a_drive() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        // As long as the structures are.
        let mut page = bytes.to_vec();
        for length in [bytes.len(), 512, 4096] {
            page.resize(length, 0);
            decode_all(&page, length as u64);
            decode_ata(&page);
            decode_scsi(&page);
        }
    });
}

#[test]
fn changed_bytes_are_read_as_a_certificate() {
    bolero::check!().with_iterations(5_000).with_type::<(bool, Vec<(u16, u8)>)>().for_each(
        |(full, changes)| {
            let mut bytes = samples()[usize::from(*full)].clone();
            // A few: with more it is no JSON any more.
            for (at, byte) in changes.iter().take(2) {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *byte;
            }
            assert_concludes_the_same(&bytes, *full);
        },
    );
}

/// Numbers that overflow, and lists that are long or gone, in a document that is well formed.
#[test]
fn changed_values_are_read_as_a_certificate() {
    const NUMBERS: [u64; 10] = [0, 1, 2, 511, 4097, 1 << 32, 1 << 53, 1 << 62, u64::MAX - 1, u64::MAX];
    bolero::check!().with_iterations(5_000).with_type::<(bool, Vec<(u16, u8)>)>().for_each(
        |(full, changes)| {
            let mut record: Value = serde_json::from_slice(&samples()[usize::from(*full)]).unwrap();
            for (place, choice) in changes.iter().take(4) {
                let count = values_in(&mut record, &mut 0, usize::MAX).0;
                let (_, leaf) = values_in(&mut record, &mut 0, usize::from(*place) % count);
                match leaf.expect("there is one of each number") {
                    Value::Number(number) => *number = NUMBERS[usize::from(*choice) % NUMBERS.len()].into(),
                    Value::Array(list) if choice % 2 == 0 => list.clear(),
                    Value::Array(list) => list.extend(list.clone()),
                    Value::String(text) if text.len() == 64 => *text = hex(*choice),
                    Value::Bool(value) => *value = !*value,
                    other => *other = Value::Null,
                }
            }
            // In the one form: the order of fields is that of the type.
            if let Ok(record) = serde_json::from_value::<Record>(record) {
                // What does not hold is not even written.
                if let Ok(written) = efface::internals::record::certificate::encode(&record, None) {
                    assert_concludes_the_same(&written, *full);
                }
            }
        },
    );
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

/// The number of values and lists, and the one with this number.
fn values_in<'a>(value: &'a mut Value, count: &mut usize, wanted: usize) -> (usize, Option<&'a mut Value>) {
    let is_leaf = !matches!(value, Value::Object(_));
    let number = *count;
    *count += usize::from(is_leaf);
    if is_leaf && number == wanted {
        return (*count, Some(value));
    }
    let children: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(list) => list.iter_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        if let (_, Some(found)) = values_in(child, count, wanted) {
            return (*count, Some(found));
        }
    }
    (*count, None)
}
