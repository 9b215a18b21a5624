//! A destroyed key opens nothing any more, by real cryptsetup; and no power cut leaves a copy behind
//! that a report calls gone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_chacha::rand_core::Rng;

use crate::evidence::{RunOutput, Workspace, record};
use crate::jobs::{run, settings};
use crate::loops::{Loop, skipped};
use efface::internals::engine::Settings;
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::luks::{self, KeyArea};
use efface::internals::pattern::Seed;
use efface::internals::plan::{Device, KeyPlan, Plan};
use efface::internals::range::Extent;
use efface::internals::verdict::Verdict;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;
const QUICK: [&str; 6] = ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

const QUICK_1: [&str; 4] = ["--type", "luks1", "--pbkdf-force-iterations", "1000"];

/// Runs cryptsetup with this passphrase; says whether it succeeded.
fn cryptsetup(passphrase: &str, arguments: &[&str]) -> bool {
    let mut child = Command::new("cryptsetup")
        .args(["--batch-mode", "--key-file", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(passphrase.as_bytes()).ok();
    child.wait().unwrap().success()
}

fn opens(passphrase: &str, path: &Path, more: &[&str]) -> bool {
    cryptsetup(passphrase, &[&["open", "--test-passphrase", path.to_str().unwrap()], more].concat())
}

/// What encrypted data looks like.
fn ciphertext(length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    Seed([7; 32]).rng().fill_bytes(&mut bytes);
    bytes
}

/// An image full of encrypted data, formatted with the passphrase "one".
fn formatted(workspace: &Workspace, name: &str, options: &[&str]) -> Option<PathBuf> {
    let image = workspace.path(name);
    fs::write(&image, ciphertext(SIZE)).unwrap();
    if Command::new("cryptsetup").arg("--version").output().is_err() {
        return skipped("there is no cryptsetup");
    }
    assert!(
        cryptsetup("one", &[&["luksFormat"], options, &[image.to_str().unwrap()]].concat()),
        "{options:?}"
    );
    Some(image)
}

fn add_key(image: &Path, passphrase: &str, more: &[&str]) {
    let file = image.with_extension("new");
    fs::write(&file, passphrase).unwrap();
    let quick = &QUICK[2..];
    let add = ["luksAddKey", image.to_str().unwrap(), file.to_str().unwrap()];
    assert!(cryptsetup("one", &[&add[..], quick, more].concat()), "{more:?}");
}

fn destroy(workspace: &Workspace, image: &str, options: &[&str]) -> RunOutput {
    workspace.run(&[&["destroy-key", image, "--yes", "-q"], options].concat())
}

/// Destroys the keys of an image, and checks everything that must be true then.
fn assert_destroyed(workspace: &Workspace, image: &Path, area: u64, passphrases: &[&str]) {
    let name = image.file_name().unwrap().to_str().unwrap();
    let before = fs::read(image).unwrap();
    let certificate = format!("{name}.json");
    destroy(workspace, name, &["--image", "--certificate-to", &certificate]).expect(0);
    let after = fs::read(image).unwrap();
    let area = area as usize;
    assert!(after[area..] == before[area..], "{name}: a byte behind the area changed");
    let slots = record(&workspace.path(&certificate))["job"]["plan"]["keys"]["found"]["keyslots"].clone();
    for slot in slots.as_array().unwrap() {
        let edge = |name: &str| slot["at"][name].as_u64().unwrap() as usize;
        let blocks = |image: &[u8]| {
            image[edge("start")..edge("end")].chunks(512).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert!(blocks(&after).iter().zip(blocks(&before)).all(|(new, old)| *new != old), "{name}: {slot}");
    }
    assert!(passphrases.iter().all(|passphrase| !opens(passphrase, image, &[])), "{name} still opens");
    workspace
        .run(&["certificate", "verify", "--unsigned-ok", &certificate])
        .expect(0)
        .says(&["were destroyed"]);
    workspace.run(&["verify", name, "--image", "--certificate", &certificate]).expect(0);

    // With its old header put back there is still no key.
    fs::OpenOptions::new().write(true).open(image).unwrap().write_all_at(&before[..4096], 0).unwrap();
    let headers = if before[7] == 2 { 0x8000.min(area) } else { 4096 };
    fs::OpenOptions::new().write(true).open(image).unwrap().write_all_at(&before[..headers], 0).unwrap();
    assert!(
        passphrases.iter().all(|passphrase| !opens(passphrase, image, &[])),
        "{name} opens by its old header"
    );
    fs::remove_file(image).unwrap();
}

#[test]
fn every_passphrase_of_every_kind_of_header_is_gone() {
    let workspace = Workspace::new();
    for (name, options, area) in [
        ("default", &QUICK[..], 16 * MIB),
        (
            "small",
            &[
                &QUICK[..],
                &["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "800k", "--offset", "2048"],
            ]
            .concat(),
            MIB,
        ),
        (
            "large",
            &[&QUICK[..], &["--luks2-metadata-size", "4m", "--luks2-keyslots-size", "16m"]].concat(),
            24 * MIB,
        ),
        ("offset", &[&QUICK[..], &["--offset", "40960"]].concat(), 20 * MIB),
        ("v1-128", &[&QUICK_1[..], &["--cipher", "aes-cbc-essiv:sha256", "--key-size", "128"]].concat(), 0),
        ("v1-256", &[&QUICK_1[..], &["--key-size", "256"]].concat(), 0),
        ("v1-512", &[&QUICK_1[..], &["--key-size", "512"]].concat(), 0),
    ] {
        let Some(image) = formatted(&workspace, name, options) else { return };
        add_key(&image, "two", &[]);
        if area > 0 {
            add_key(&image, "free", &["--unbound", "--key-size", "512"]);
        }
        assert!(opens("one", &image, &[]) && opens("two", &image, &[]), "{name}");
        let area = if area > 0 { area } else { payload_offset(&image) };
        assert_destroyed(&workspace, &image, area, &["one", "two"]);
    }
}

fn payload_offset(image: &Path) -> u64 {
    let header = fs::read(image).unwrap();
    u64::from(u32::from_be_bytes(header[104..108].try_into().unwrap())) * 512
}

#[test]
fn a_damaged_header_hides_no_key() {
    let workspace = Workspace::new();
    let damages: [(&str, &[u64], u64); 3] = [
        ("first", &[5000], 16 * MIB),
        ("second", &[0x4000 + 5000], 16 * MIB),
        ("both", &[5000, 0x4000 + 5000], SIZE),
    ];
    for (name, damage, area) in damages {
        let Some(image) = formatted(&workspace, name, &QUICK) else { return };
        let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
        damage.iter().for_each(|at| file.write_all_at(b"!", *at).unwrap());
        drop(file);
        destroy(&workspace, name, &["--image", "--certificate-to", "c.json"]).expect(0);
        let record = record(&workspace.path("c.json"));
        let said = record["limitations"].to_string();
        assert!(said.contains("is damaged"), "{said}");
        assert_eq!(record["job"]["plan"]["area"]["end"], area, "{name}");
        assert!(!opens("one", &image, &[]));
        fs::remove_file(workspace.path("c.json")).unwrap();
    }
}

#[test]
fn a_detached_header_is_destroyed_and_its_data_device_is_not() {
    let workspace = Workspace::new();
    fs::write(workspace.path("data.img"), ciphertext(SIZE)).unwrap();
    // A file that is larger than what LUKS uses of it.
    let header = workspace.image("header.img", 20 * MIB as usize);
    let (data, detached) = (workspace.path("data.img"), ["--header", header.to_str().unwrap()]);
    if formatted(&workspace, "probe.img", &QUICK).is_none() {
        return;
    }
    let format = ["luksFormat", data.to_str().unwrap()];
    assert!(cryptsetup("one", &[&format[..], &detached, &QUICK].concat()));
    assert!(opens("one", &data, &detached));
    destroy(&workspace, "data.img", &["--image"]).expect(4).says(&["no LUKS header", "--header"]);
    let (before, header_before) = (fs::read(&data).unwrap(), fs::read(&header).unwrap());
    let options =
        [&["--image", "--certificate-to", "c.json", "--external-key", "7d6a"], &detached[..]].concat();
    destroy(&workspace, "data.img", &options).expect(0);
    assert!(fs::read(&data).unwrap() == before, "the data is as it was");
    let after = fs::read(&header).unwrap();
    let end = 16 * MIB as usize;
    assert!(after[end..] == header_before[end..] && after[..end] != header_before[..end]);
    assert!(!opens("one", &data, &detached));
    let record = record(&workspace.path("c.json"));
    assert!(record["claim"].as_str().unwrap().contains("data.img"));
    assert_eq!(record["job"]["plan"]["keys"]["data"]["random"], 288, "of the data device");
    assert!(record["limitations"].to_string().contains("The secret 7d6a is kept elsewhere"));
    assert_eq!(record["achieved"], "none", "what cannot be known is not claimed");
}

#[test]
fn a_device_without_a_key_is_not_supported_and_not_touched() {
    let workspace = Workspace::new();
    for (name, magic, at, words) in [
        ("plain", &b""[..], 0, &["no LUKS header", "efface wipe"][..]),
        ("bitlocker", b"\xeb\x58\x90-FVE-FS-", 0, &["BitLocker"]),
        ("apfs", b"NXSB", 32, &["APFS"]),
        // ext4 over an old LUKS volume, whose second header is still there.
        ("ext4", b"", 0, &["ext4", "beside a LUKS header"]),
    ] {
        let image = workspace.image(name, SIZE as usize);
        if name == "ext4" {
            if formatted(&workspace, name, &QUICK).is_none() {
                continue;
            }
            let second = fs::read(&image).unwrap()[0x4000..0x8000].to_vec();
            fs::OpenOptions::new().write(true).open(&image).unwrap().write_all_at(&[0; 4096], 0).unwrap();
            assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().unwrap().success());
            fs::OpenOptions::new().write(true).open(&image).unwrap().write_all_at(&second, 0x4000).unwrap();
        }
        fs::OpenOptions::new().write(true).open(&image).unwrap().write_all_at(magic, at).unwrap();
        let before = fs::read(&image).unwrap();
        destroy(&workspace, name, &["--image"]).expect(4).says(words);
        assert!(fs::read(&image).unwrap() == before, "{name}");
    }
}

#[test]
fn prefer_key_destroys_the_key_of_a_luks_volume() {
    let workspace = Workspace::new();
    let Some(image) = formatted(&workspace, "luks.img", &QUICK) else { return };
    let before = fs::read(&image).unwrap();
    workspace.wipe("luks.img", &["--prefer-key", "--certificate-to", "luks.json"]).expect(0);
    let destroyed = record(&workspace.path("luks.json"));
    assert_eq!(destroyed["method"], "destroy-key");
    assert!(destroyed["limitations"].to_string().contains("stored on it before it was encrypted"));
    assert!(!opens("one", &image, &[]));
    let said = "Of 288 blocks of 4 KiB sampled in it, 288 look random";
    assert!(destroyed["limitations"].to_string().contains(said), "{}", destroyed["limitations"]);
    let data = 16 * MIB as usize..;
    assert!(fs::read(&image).unwrap()[data.clone()] == before[data], "the data is as it was");

    workspace.wipe("luks.img", &["--prefer-key", "--certificate-to", "plain.json"]).expect(0);
    let overwritten = record(&workspace.path("plain.json"));
    let method = overwritten["method"].as_str().unwrap();
    assert!(method.starts_with("zero (no key was destroyed: it holds no LUKS header"), "{method}");
    assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0));
    workspace.run(&["plan", "luks.img", "--image", "--prefer-key"]).expect(0).says(&["overwrite"]);
}

/// A key that protects nothing, or not all, is not worth destroying.
#[test]
fn data_that_needs_no_key_is_overwritten_instead() {
    let workspace = Workspace::new();
    for name in ["null", "half"] {
        let Some(image) = formatted(&workspace, name, &QUICK_1) else { return };
        if name == "null" {
            // cryptsetup formats it so only with device-mapper.
            let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
            file.write_all_at(b"cipher_null\0", 8).unwrap();
        } else {
            workspace.image(name, SIZE as usize);
            let begin = ["reencrypt", "--encrypt", "--init-only", "--reduce-device-size", "32M"];
            fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(2 * SIZE).unwrap();
            assert!(cryptsetup("one", &[&begin[..], &QUICK, &[image.to_str().unwrap()]].concat()));
        }
        let before = fs::read(&image).unwrap();
        destroy(&workspace, name, &["--image"])
            .expect(4)
            .says(&["do not protect all of its data", "efface wipe"]);
        assert!(fs::read(&image).unwrap() == before, "{name}");
        workspace.wipe(name, &["--prefer-key", "--verify", "full"]).expect(0);
        assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0), "{name}");
    }
    // Nor is a damaged header: what was written behind it since is not known.
    let Some(image) = formatted(&workspace, "damaged", &QUICK) else { return };
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    [5000, 0x4000 + 5000].iter().for_each(|at| file.write_all_at(b"!", *at).unwrap());
    drop(file);
    workspace.wipe("damaged", &["--prefer-key"]).expect(0);
    assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0));
    destroy(&workspace, "damaged", &["--image", "--header", "damaged"]).expect(2).says(&["same target"]);
}

/// A header can be written over anything, and a volume may have been made on a disk that was in use.
#[test]
fn a_header_over_plain_data_is_not_supported() {
    let workspace = Workspace::new();
    let Some(image) = formatted(&workspace, "luks.img", &QUICK) else { return };
    let text = b"tenant's secret!".repeat(MIB as usize / 16);
    let mut ext2 = ciphertext(4096);
    ext2[0x400..0x800].fill(0);
    ext2[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    let detached_elsewhere = |bytes: &mut Vec<u8>| bytes[104..108].fill(0);
    for (name, at, plain, words) in [
        ("text", 20 * MIB, &text[..], "are not encrypted (the first at byte"),
        ("the last block", SIZE - 4096, &text[..4096], "1 are not encrypted (the first at byte"),
        ("a file system", 16 * MIB, &ext2, "that holds ext2"),
    ] {
        let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
        let whole = fs::read(&image).unwrap();
        file.write_all_at(plain, at).unwrap();
        drop(file);
        let before = fs::read(&image).unwrap();
        destroy(&workspace, "luks.img", &["--image"]).expect(4).says(&[words, "efface wipe"]);
        assert!(fs::read(&image).unwrap() == before, "{name}: it was refused, and has changed");
        workspace.wipe("luks.img", &["--prefer-key", "--certificate-to", "c.json"]).expect(0);
        let method = record(&workspace.path("c.json"))["method"].to_string();
        assert!(
            method.contains("(no key was destroyed: its keys do not protect all of its data"),
            "{method}"
        );
        assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0), "{name}");
        fs::remove_file(workspace.path("c.json")).unwrap();
        fs::write(&image, whole).unwrap();
    }
    // A header that claims that its data is elsewhere protects nothing behind it.
    let Some(image) = formatted(&workspace, "luks.img", &QUICK_1) else { return };
    let mut bytes = fs::read(&image).unwrap();
    detached_elsewhere(&mut bytes);
    bytes[20 * MIB as usize..21 * MIB as usize].copy_from_slice(&text);
    fs::write(&image, bytes).unwrap();
    destroy(&workspace, "luks.img", &["--image"]).expect(4).says(&["are not encrypted"]);
}

/// A new volume on a new disk holds little but zeroes.
#[test]
fn a_nearly_empty_luks_volume_is_accepted() {
    let workspace = Workspace::new();
    let Some(image) = formatted(&workspace, "luks.img", &QUICK) else { return };
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(&vec![0; 15 * MIB as usize], 17 * MIB).unwrap();
    file.write_all_at(&ciphertext(512), 24 * MIB + 512).unwrap();
    drop(file);
    destroy(&workspace, "luks.img", &["--image", "--certificate-to", "c.json"]).expect(0);
    let sample = record(&workspace.path("c.json"))["job"]["plan"]["keys"]["data"].clone();
    assert!(sample["uniform"].as_u64() > Some(200) && sample["random"].as_u64() >= Some(16), "{sample}");
    workspace
        .run(&["certificate", "verify", "--unsigned-ok", "c.json"])
        .expect(0)
        .says(&["data encrypted with these keys"]);
}

/// Zeroes before, and zeroes now: that is what is left where a header was, and no key.
#[test]
fn a_slot_of_zeroes_inside_the_header_is_no_key_that_survives() {
    let workspace = Workspace::new();
    let Some(image) = formatted(&workspace, "luks.img", &QUICK_1) else { return };
    let mut bytes = fs::read(&image).unwrap();
    let slot = 208 + 7 * 48;
    bytes[slot + 40..slot + 44].copy_from_slice(&2_u32.to_be_bytes());
    bytes[slot + 44..slot + 48].copy_from_slice(&16_u32.to_be_bytes());
    bytes[1024..4096].fill(0);
    fs::write(&image, bytes).unwrap();
    destroy(&workspace, "luks.img", &["--image"]).expect(0);
    assert!(!opens("one", &image, &[]));
}

/// Key material that the process reads is kept out of core dumps.
#[test]
fn a_core_dump_holds_no_key() {
    let workspace = Workspace::new();
    if formatted(&workspace, "luks.img", &QUICK).is_none() {
        return;
    }
    // Where dumps are wanted.
    let script = "ulimit -c 4096 || exit 9; exec \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_efface"), "destroy-key", "--image", "--yes", "-q"])
        .args(["--rate", "8MiB/s"])
        .arg(workspace.path("luks.img"))
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_string();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "{core}");
}

#[test]
fn a_loop_device_of_a_tebibyte_takes_no_longer() {
    let workspace = Workspace::new();
    let image = tempfile::NamedTempFile::with_prefix("efface-test-").unwrap().into_temp_path();
    fs::File::create(&image).unwrap().set_len(1 << 40).unwrap();
    let Some(device) = Loop::over(image, &[]) else { return };
    let node = device.node.to_str().unwrap();
    if !cryptsetup("one", &[&["luksFormat", node], &QUICK[..]].concat()) {
        return skipped("cryptsetup failed, or is not there").unwrap_or(());
    }
    destroy(&workspace, node, &["--certificate-to", "c.json"]).expect(0);
    assert!(!opens("one", &device.node, &[]));
    let written: u64 = record(&workspace.path("c.json"))["job"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["bytes"].as_u64().unwrap())
        .sum();
    assert!(written < 200 * MIB, "{written} bytes");
}

/// A small volume's image, and where its keys are.
fn small_volume() -> Option<(Vec<u8>, KeyArea)> {
    let workspace = Workspace::new();
    let small = ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "256k", "--offset", "1024"];
    let image = formatted(&workspace, "small.img", &[&QUICK[..], &small].concat())?;
    let bytes = fs::read(image).unwrap()[..MIB as usize].to_vec();
    let found = find(&bytes).expect("a volume");
    Some((bytes, found))
}

fn find(bytes: &[u8]) -> Option<KeyArea> {
    let mut read = |extent: Extent| Ok(bytes[extent.start as usize..extent.end as usize].to_vec().into());
    luks::find(&mut read, bytes.len() as u64, false).unwrap()
}

fn plan(found: KeyArea, seed: u8) -> Plan {
    let device = Device { size: MIB, logical_block: 512, physical_block: 4096 };
    let mut drawn = seed;
    let mut draw = || {
        drawn += 1;
        Ok(Seed([drawn; 32]))
    };
    Plan::destroy_key(KeyPlan::of(found), 1, &device, &mut draw).unwrap()
}

fn key_settings() -> Settings {
    Settings { chunk_bytes: 16384, ..settings() }
}

/// Blocks of key material that are still what they were.
fn left(volume: &KeyArea, before: &[u8], now: &[u8]) -> usize {
    let blocks = volume.keyslots.iter().flat_map(|slot| slot.at.chunks(512));
    let same = |block: &Extent| {
        let range = block.start as usize..block.end as usize;
        now[range.clone()] == before[range]
    };
    blocks.filter(same).count()
}

/// The power goes at every operation: either a header still leads to what is left of the keys, so
/// that it can be begun again, or nothing is left of them.
#[test]
fn no_power_cut_leaves_a_key_without_a_header_that_leads_to_it() {
    let Some((content, volume)) = small_volume() else { return };
    let disk = |cut| {
        let faults = Faults { power_cut_at: cut, ..Faults::default() };
        SimDisk::new(content.clone(), 512, 4096, 7, faults)
    };
    let mut whole = disk(None);
    let (report, _) = run(&mut whole, plan(volume.clone(), 0), &key_settings());
    assert_eq!((report.verdict, report.unchanged_key_bytes), (Verdict::Wiped, Some(0)), "{:?}", report.error);
    assert_eq!((find(whole.durable()), left(&volume, &content, whole.durable())), (None, 0));
    let mut resumed = 0;
    for cut in 0..whole.operations() {
        let mut disk = disk(Some(cut));
        let (report, _) = run(&mut disk, plan(volume.clone(), 0), &key_settings());
        assert_ne!(report.verdict, Verdict::Wiped, "cut at {cut}");
        let durable = disk.durable().to_vec();
        match find(&durable) {
            None => assert_eq!(left(&volume, &content, &durable), 0, "cut at {cut}: keys without a header"),
            Some(found) => {
                let mut again = SimDisk::new(durable, 512, 4096, 8, Faults::default());
                let (report, _) = run(&mut again, plan(found, 100), &key_settings());
                assert_eq!(report.verdict, Verdict::Wiped, "cut at {cut}");
                assert_eq!((find(again.durable()), left(&volume, &content, again.durable())), (None, 0));
                resumed += 1;
            }
        }
    }
    assert!(resumed > 20, "{resumed}");
}

/// The last check compares with the earlier content, whatever the passes did.
#[test]
fn unchanged_key_material_is_a_failure() {
    let Some((content, volume)) = small_volume() else { return };
    let material: u64 = volume.keyslots.iter().map(|slot| slot.at.len()).sum();
    let mut plan = plan(volume, 0);
    plan.steps.retain(|step| step.fingerprints() || (step.writes() && !step.covers_area()));
    // The headers alone are overwritten.
    plan.steps.remove(1);
    let mut disk = SimDisk::new(content, 512, 4096, 7, Faults::default());
    let (report, _) = run(&mut disk, plan, &key_settings());
    assert_eq!((report.verdict, report.unchanged_key_bytes), (Verdict::Surviving, Some(material)));
}

/// A disk that answers well and loses writes: never a success over a key that is left.
#[test]
fn a_lost_write_is_found() {
    let Some((content, volume)) = small_volume() else { return };
    let mut surviving = 0;
    for seed in 0..200 {
        let faults = Faults { lose: 60, ..Faults::default() };
        let mut disk = SimDisk::new(content.clone(), 512, 4096, seed, faults);
        let (report, _) = run(&mut disk, plan(volume.clone(), 0), &key_settings());
        match report.verdict {
            Verdict::Wiped => {
                assert_eq!((find(disk.durable()), left(&volume, &content, disk.durable())), (None, 0));
            }
            Verdict::Surviving => surviving += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(surviving > 50, "{surviving}");
}
