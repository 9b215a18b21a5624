//! Tests against headers made by cryptsetup, and against arbitrary bytes.

use std::fs;
use std::process::Command;

use tempfile::{NamedTempFile, TempPath};

use super::*;
use crate::loops::skipped;

const SIZE: u64 = 32 << 20;

fn read_of(bytes: &[u8]) -> impl FnMut(Extent) -> io::Result<Zeroizing<Vec<u8>>> {
    |extent: Extent| {
        let end = (extent.end as usize).min(bytes.len());
        Ok(Zeroizing::new(bytes[(extent.start as usize).min(end)..end].to_vec()))
    }
}

fn find_in(bytes: &[u8], detached: bool) -> Option<KeyArea> {
    find(&mut read_of(bytes), bytes.len() as u64, detached).unwrap()
}

/// An image that cryptsetup has formatted; none, said aloud, where there is no cryptsetup.
fn formatted(options: &[&str]) -> Option<TempPath> {
    let image = NamedTempFile::with_prefix("efface-test-").unwrap().into_temp_path();
    fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
    cryptsetup(&image, "luksFormat", options)
        .then_some(image)
        .or_else(|| skipped("cryptsetup failed, or is not there"))
}

fn cryptsetup(image: &TempPath, action: &str, options: &[&str]) -> bool {
    cryptsetup_with(image, action, options, &[])
}

/// `more` stands behind the image's name.
fn cryptsetup_with(image: &TempPath, action: &str, options: &[&str], more: &[&str]) -> bool {
    let secret = NamedTempFile::with_prefix("efface-test-").unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let quick = ["--batch-mode", "--pbkdf-force-iterations", "1000", "--key-file"];
    let status = Command::new("cryptsetup")
        .arg(action)
        .args(quick)
        .arg(secret.path())
        .args(options)
        .arg(image)
        .args(more)
        .status();
    status.is_ok_and(|status| status.success())
}

/// What cryptsetup itself says of the keyslots: their ranges by number.
fn dumped(image: &TempPath) -> Vec<(u32, u64, u64)> {
    let output =
        Command::new("cryptsetup").args(["luksDump", "--dump-json-metadata"]).arg(image).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let slots = json["keyslots"].as_object().unwrap().iter();
    let mut slots: Vec<_> = slots
        .map(|(id, slot)| {
            (id.parse().unwrap(), number(&slot["area"]["offset"]), number(&slot["area"]["size"]))
        })
        .collect();
    slots.sort_unstable();
    slots
}

#[test]
fn luks2_headers_are_read_as_cryptsetup_reads_them() {
    let pbkdf2 = ["--type", "luks2", "--pbkdf", "pbkdf2"];
    for (options, end) in [
        (&[][..], 16 << 20),
        (&["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "256k"], 0x8000 + (256 << 10)),
        (&["--luks2-metadata-size", "4m"], 16 << 20),
        (&["--offset", "40960"], 40_960 * 512),
        (&["--sector-size", "4096", "--key-size", "256"], 16 << 20),
    ] {
        let Some(image) = formatted(&[&pbkdf2, options].concat()) else { return };
        let found = find_in(&fs::read(&image).unwrap(), false).unwrap();
        let mut slots: Vec<_> =
            found.keyslots.iter().map(|slot| (slot.number, slot.at.start, slot.at.len())).collect();
        slots.sort_unstable();
        assert_eq!(slots, dumped(&image), "{options:?}");
        assert_eq!((found.version, found.detached), (Some(2), false));
        // Small areas are followed by data at once; cryptsetup aligns that.
        assert!(found.area.end >= end && found.area.end <= end.max(1 << 20), "{options:?}: {}", found.area);
        assert_eq!((found.headers.len(), found.headers.contains(0)), (1, true), "the headers touch");
        let uuid = Command::new("cryptsetup").arg("luksUUID").arg(&image).output().unwrap().stdout;
        assert_eq!(found.uuid.unwrap(), String::from_utf8(uuid).unwrap().trim());
    }
}

#[test]
fn luks1_headers_have_eight_slots_before_the_data() {
    for key_bits in ["128", "256", "512"] {
        let cipher = if key_bits == "128" { "aes-cbc-essiv:sha256" } else { "aes-xts-plain64" };
        let options = ["--type", "luks1", "--key-size", key_bits, "--cipher", cipher];
        let Some(image) = formatted(&options) else { return };
        let found = find_in(&fs::read(&image).unwrap(), false).unwrap();
        assert_eq!((found.version, found.keyslots.len(), found.area.start), (Some(1), 8, 0));
        let dump = Command::new("cryptsetup").arg("luksDump").arg(&image).output().unwrap().stdout;
        let dump = String::from_utf8(dump).unwrap();
        let dumped = |name: &str| -> Vec<u64> {
            let lines = dump.lines().filter_map(|line| line.trim().strip_prefix(name));
            lines.map(|rest| rest.trim().parse::<u64>().unwrap() * 512).collect()
        };
        assert_eq!(found.area.end, dumped("Payload offset:")[0]);
        let active: Vec<u64> = found
            .keyslots
            .iter()
            .filter(|slot| slot.kind == KeyslotKind::Active)
            .map(|slot| slot.at.start)
            .collect();
        assert_eq!(active, dumped("Key material offset:"));
    }
}

#[test]
fn the_newer_or_the_intact_header_is_in_force() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let good = fs::read(&image).unwrap();
    let whole = find_in(&good, false).unwrap();
    let damaged = |places: &[usize]| {
        let mut bytes = good.clone();
        places.iter().for_each(|at| bytes[*at] ^= 1);
        find_in(&bytes, false).unwrap()
    };
    for places in [[5000], [0x4000 + 5000]] {
        let found = damaged(&places);
        assert_eq!((&found.keyslots, found.area, &found.uuid), (&whole.keyslots, whole.area, &whole.uuid));
        assert!(found.notes[0].contains("checksum"), "{:?}", found.notes);
    }
    let lost = damaged(&[5000, 0x4000 + 5000]);
    assert_eq!((lost.version, lost.area), (None, Extent::new(0, SIZE)));
    // Without the first magic the second header is still found.
    let second_only = damaged(&[0]);
    assert_eq!((second_only.keyslots, second_only.area), (whole.keyslots, whole.area));
    let mut blank = good;
    blank[..0x8000].fill(0);
    assert_eq!(find_in(&blank, false), None);
}

#[test]
fn unbound_slots_tokens_and_detached_headers_are_noted() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let other = NamedTempFile::with_prefix("efface-test-").unwrap();
    fs::write(other.path(), "other").unwrap();
    let unbound = ["--unbound", "--key-size", "512", "--pbkdf", "pbkdf2", "--key-slot", "5"];
    assert!(cryptsetup_with(&image, "luksAddKey", &unbound, &[other.path().to_str().unwrap()]));
    let token =
        Command::new("cryptsetup").args(["token", "add", "--key-description", "test"]).arg(&image).status();
    assert!(token.unwrap().success());
    let found = find_in(&fs::read(&image).unwrap(), false).unwrap();
    let kinds: Vec<_> = found.keyslots.iter().map(|slot| (slot.number, slot.kind)).collect();
    assert_eq!(kinds, [(0, KeyslotKind::Active), (5, KeyslotKind::Unbound)]);
    assert!(found.notes.iter().any(|note| note.contains("luks2-keyring")), "{:?}", found.notes);

    let header = find_in(&fs::read(&image).unwrap(), true).unwrap();
    assert!(header.detached && header.area == Extent::new(0, 16 << 20), "{}", header.area);
}

/// Both are intact, and one missed the last change.
#[test]
fn of_two_intact_headers_the_newer_one_is_in_force() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let before = fs::read(&image).unwrap();
    let token =
        Command::new("cryptsetup").args(["token", "add", "--key-description", "test"]).arg(&image).status();
    assert!(token.unwrap().success());
    let after = fs::read(&image).unwrap();
    for header in [0..0x4000, 0x4000..0x8000] {
        let mut bytes = after.clone();
        bytes[header.clone()].copy_from_slice(&before[header]);
        let found = find_in(&bytes, false).unwrap();
        assert!(found.notes.iter().any(|note| note.contains("luks2-keyring")), "{:?}", found.notes);
    }
}

/// As cryptsetup reads them.
#[test]
fn of_two_headers_that_count_the_same_the_first_is_in_force() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let mut bytes = fs::read(&image).unwrap();
    let (from, to) = (b"\"offset\":\"16777216\"", b"\"offset\":\"20971520\"");
    let second = &mut bytes[0x4000..0x8000];
    let at = second.windows(from.len()).position(|window| window == from).expect("the segment's offset");
    second[at..at + to.len()].copy_from_slice(to);
    v2::tests_reseal(second);
    let found = find_in(&bytes, false).unwrap();
    assert_eq!((found.notes.len(), found.area), (0, Extent::new(0, 16 << 20)), "{:?}", found.notes);
}

/// A second header of an earlier volume lies in the data of this one, and would be found again.
#[test]
fn a_stale_second_header_goes_too() {
    let large = ["--type", "luks2", "--pbkdf", "pbkdf2", "--luks2-metadata-size", "4m"];
    let (Some(old), Some(new)) = (formatted(&large), formatted(&["--type", "luks1"])) else { return };
    let (old, mut bytes) = (fs::read(&old).unwrap(), fs::read(&new).unwrap());
    let volume = find_in(&bytes, false).unwrap();
    bytes[0x40_0000..0x80_0000].copy_from_slice(&old[0x40_0000..0x80_0000]);
    let found = find_in(&bytes, false).unwrap();
    assert!(volume.area.end < 0x40_0000 && found.area == Extent::new(0, 0x80_0000), "{}", found.area);
    assert!(found.headers.contains(0x40_0000) && found.headers.contains(0));
}

/// Two volume keys, and what is kept to survive a crash.
#[test]
fn a_reencryption_under_way_is_noted_and_all_its_keys_are_found() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    assert!(cryptsetup(&image, "reencrypt", &["--init-only", "--pbkdf", "pbkdf2"]));
    let found = find_in(&fs::read(&image).unwrap(), false).unwrap();
    let kinds: Vec<_> = found.keyslots.iter().map(|slot| slot.kind).collect();
    assert!(kinds.len() == 3 && kinds.contains(&KeyslotKind::Reencryption), "{kinds:?}");
    let mut slots: Vec<_> =
        found.keyslots.iter().map(|slot| (slot.number, slot.at.start, slot.at.len())).collect();
    slots.sort_unstable();
    assert_eq!(slots, dumped(&image));
    assert!(found.notes.iter().any(|note| note.contains("two volume keys")), "{:?}", found.notes);
}

#[test]
fn data_that_no_key_protects_is_reported() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let mut bytes = fs::read(&image).unwrap();
    assert_eq!(find_in(&bytes, false).unwrap().readable, None);
    // The same length, so that nothing else moves.
    let (from, to) = (
        b"\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
        b"\"encryption\":\"cipher_null-ecb\",\"sector_size\"",
    );
    for header in [0, 0x4000] {
        let header = &mut bytes[header..header + 0x4000];
        let at = header.windows(from.len()).position(|window| window == from).expect("the segment's cipher");
        header[at..at + to.len()].copy_from_slice(to);
        v2::tests_reseal(header);
    }
    assert_eq!(find_in(&bytes, false).unwrap().readable.as_deref(), Some("its cipher is cipher_null"));
}

/// A volume whose only segment says something else.
fn with_segment(bytes: &[u8], change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    const JSON_AT: usize = 4096;
    let mut bytes = bytes.to_vec();
    for header in [0, 0x4000] {
        let header = &mut bytes[header..header + 0x4000];
        let end = header[JSON_AT..].iter().position(|byte| *byte == 0).unwrap();
        let mut metadata = serde_json::from_slice(&header[JSON_AT..JSON_AT + end]).unwrap();
        change(&mut metadata);
        let json = metadata.to_string();
        header[JSON_AT..].fill(0);
        header[JSON_AT..JSON_AT + json.len()].copy_from_slice(json.as_bytes());
        v2::tests_reseal(header);
    }
    bytes
}

#[test]
fn what_the_drive_encrypts_is_not_destroyed_with_the_keyslots() {
    let Some(image) = formatted(&["--type", "luks2", "--pbkdf", "pbkdf2"]) else { return };
    let bytes = fs::read(&image).unwrap();
    let opal = |kind: &str| {
        let changed = with_segment(&bytes, |metadata| {
            let segment = &mut metadata["segments"]["0"];
            (segment["type"], segment["size"]) = (kind.into(), "8388608".into());
            (segment["opal_segment_number"], segment["opal_key_size"]) = (1.into(), 32.into());
            segment["opal_segment_size"] = "8388608".into();
            metadata["config"]["requirements"] = serde_json::json!({"mandatory": ["opal"]});
        });
        find_in(&changed, false).unwrap()
    };
    let alone = opal("hw-opal").readable.unwrap();
    assert!(alone.contains("the drive alone encrypts it") && alone.contains("efface purge"), "{alone}");
    let both = opal("hw-opal-crypt");
    assert_eq!(both.readable, None, "dm-crypt's key is in the keyslots");
    assert!(both.notes.iter().any(|note| note.contains("a key of its own that stays")), "{:?}", both.notes);
    assert!(find_in(&bytes, false).unwrap().notes.is_empty());
}

#[test]
fn other_formats_have_names() {
    let mut start = vec![0; 512];
    assert_eq!(other_format(&start), None);
    start[3..11].copy_from_slice(b"-FVE-FS-");
    assert_eq!(other_format(&start), Some("BitLocker"));
    assert_eq!(other_format(&[]), None);
}

#[test]
fn any_header_is_read_without_a_panic() {
    let images: Vec<Vec<u8>> = [&["--type", "luks1"][..], &["--type", "luks2", "--pbkdf", "pbkdf2"]]
        .iter()
        .filter_map(|options| Some(fs::read(formatted(options)?).unwrap()[..1 << 20].to_vec()))
        .collect();
    if images.is_empty() {
        return;
    }
    bolero::check!().with_iterations(3_000).with_type::<(bool, bool, Vec<(u16, u8)>)>().for_each(
        |(second, resealed, changes)| {
            let mut bytes = images[usize::from(*second) % images.len()].clone();
            for (at, byte) in changes {
                bytes[usize::from(*at) % 0x8000] = *byte;
            }
            if *resealed {
                v2::tests_reseal(&mut bytes[..0x4000]);
            }
            if let Some(found) = find_in(&bytes, false) {
                assert!(found.area.end <= bytes.len() as u64);
                assert!(found.keyslots.iter().all(|slot| slot.at.end <= found.area.end));
            }
        },
    );
}
