//! Evidence: with the public key, the certificate and the disk, every change of a certificate or of the disk
//! is detected.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::loops::{Loop, skipped};
use crate::program::efface;
use efface::internals::record::certificate::Certificate;
use efface::internals::record::sign::{PublicKey, PublicKeys};

const MIB: usize = 1 << 20;

/// A folder with a key, and images that are wiped in it.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    pub fn new() -> Workspace {
        let workspace = Workspace { folder: TempDir::with_prefix("efface-test-").unwrap() };
        workspace.run(&["key", "new", "key"]).expect(0);
        workspace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn image(&self, name: &str, size: usize) -> PathBuf {
        let content: Vec<u8> = b"tenant's secret!".iter().copied().cycle().take(size).collect();
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Runs efface in the folder.
    pub fn run(&self, arguments: &[&str]) -> RunOutput {
        let output =
            efface().args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        RunOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Wipes an image, with these options besides.
    pub fn wipe(&self, image: &str, options: &[&str]) -> RunOutput {
        self.run(&[&["wipe", image, "--image", "--yes", "--quiet"], options].concat())
    }

    /// A signed certificate of an image's random wipe.
    pub fn certificate(&self, size: usize) -> PathBuf {
        self.image("disk.img", size);
        let keep = ["--certificate-to", "c.json", "--sign-key", "key", "--method", "random"];
        self.wipe("disk.img", &keep).expect(0);
        self.path("c.json")
    }

    pub fn keys(&self) -> PublicKeys {
        PublicKey::read(&self.path("key.pub")).unwrap().into()
    }
}

#[derive(Debug)]
pub struct RunOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl RunOutput {
    #[track_caller]
    pub fn expect(self, code: i32) -> RunOutput {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, words: &[&str]) -> RunOutput {
        let text = format!("{}{}", self.stdout, self.stderr);
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
        self
    }
}

pub fn record(certificate: &Path) -> Value {
    let text = fs::read(certificate).unwrap();
    let json: Value = serde_json::from_slice(&text).unwrap();
    match json["payload"].as_str() {
        Some(payload) => serde_json::from_slice(&STANDARD.decode(payload).unwrap()).unwrap(),
        None => json,
    }
}

/// openssl knows nothing of efface.
#[test]
fn openssl_verifies_the_signature() {
    let workspace = Workspace::new();
    let certificate = workspace.certificate(MIB);
    let envelope: Value = serde_json::from_slice(&fs::read(&certificate).unwrap()).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let kind = envelope["payloadType"].as_str().unwrap();
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend(payload);
    fs::write(workspace.path("signed"), signed).unwrap();
    let sig = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    fs::write(workspace.path("sig"), sig).unwrap();
    let check =
        ["pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "signed", "-sigfile", "sig"];
    let openssl = Command::new("openssl").args(check).current_dir(workspace.folder.path()).output();
    let Ok(checked) = openssl else { return skipped("there is no openssl").unwrap_or(()) };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    workspace
        .run(&["certificate", "verify", "c.json", "--public-key", "key.pub"])
        .expect(0)
        .says(&["unchanged"]);
}

/// A script sees the exit code alone.
#[test]
fn a_certificate_holds_only_with_the_key_that_signed_it_or_a_waiver() {
    let workspace = Workspace::new();
    workspace.certificate(MIB);
    workspace.wipe("disk.img", &["--certificate-to", "plain.json"]).expect(0);
    let verify = |options: &[&str]| workspace.run(&[&["certificate", "verify"], options].concat());
    verify(&["c.json"]).expect(1).says(&["NOT CHECKED", "--public-key", "--unsigned-ok"]);
    verify(&["plain.json"]).expect(1).says(&["NOT SIGNED", "--unsigned-ok"]);
    verify(&["c.json", "plain.json", "--unsigned-ok"]).expect(0).says(&["NOT CHECKED", "NOT SIGNED"]);
    verify(&["c.json", "--unsigned-ok", "--public-key", "key.pub"]).expect(2);

    // Keys follow one another: each signature is by one of them.
    workspace.run(&["key", "new", "next"]).expect(0);
    let keep = ["--certificate-to", "next.json", "--sign-key", "next"];
    workspace.wipe("disk.img", &keep).expect(0);
    fs::create_dir(workspace.path("keys")).unwrap();
    verify(&["c.json", "--public-key", "keys"]).expect(2).says(&["no public key is in this folder"]);
    for key in ["key.pub", "next.pub"] {
        fs::copy(workspace.path(key), workspace.path("keys").join(key)).unwrap();
    }
    verify(&["c.json", "next.json", "--public-key", "keys"]).expect(0).says(&["unchanged since"]);
    verify(&["c.json", "next.json", "--public-key", "next.pub", "--public-key", "key.pub"]).expect(0);
    fs::remove_file(workspace.path("keys/key.pub")).unwrap();
    verify(&["c.json", "--public-key", "keys"]).expect(1).says(&["another key"]);
    verify(&["plain.json", "--public-key", "keys"]).expect(1).says(&["it is not signed"]);

    // What only shows it, or holds a device to it, says so.
    workspace.run(&["certificate", "render", "plain.json"]).expect(0).says(&["NOT SIGNED"]);
    workspace.run(&["certificate", "render", "--html", "plain.json"]).expect(0).says(&["NOT SIGNED"]);
    workspace
        .run(&["verify", "disk.img", "--image", "--certificate", "next.json"])
        .expect(0)
        .says(&["NOT CHECKED"]);
}

#[test]
fn a_signature_is_checked_before_what_it_signs_is_read() {
    let workspace = Workspace::new();
    let mut envelope: Value = serde_json::from_slice(&fs::read(workspace.certificate(MIB)).unwrap()).unwrap();
    for payload in ["{\"efface_record\": 99}", "no JSON at all"] {
        envelope["payload"] = STANDARD.encode(payload).into();
        fs::write(workspace.path("c.json"), serde_json::to_string_pretty(&envelope).unwrap() + "\n").unwrap();
        workspace
            .run(&["certificate", "verify", "c.json", "--public-key", "key.pub"])
            .expect(1)
            .says(&["its signature does not fit"]);
    }
}

#[test]
fn a_device_of_another_size_than_its_job_is_refused() {
    let workspace = Workspace::new();
    workspace.image("disk.img", MIB);
    workspace.wipe("disk.img", &["--certificate-to", "plain.json"]).expect(0);
    workspace.run(&["wipe", "disk.img", "--yes", "--certificate-to", "refused.json"]).expect(3);
    let plain = fs::read_to_string(workspace.path("plain.json")).unwrap();
    for (from, to) in [
        ("\"size_bytes\": 1048576", "\"size_bytes\": 4000000000000"),
        ("\"size_bytes\": 1048576", "\"size_bytes\": 18446744073709551615"),
        ("\"logical_block\": null", "\"logical_block\": 16384"),
    ] {
        let changed = plain.replacen(from, to, 1);
        assert_ne!(changed, plain, "{from}");
        fs::write(workspace.path("changed.json"), changed).unwrap();
        let verify = ["certificate", "verify", "changed.json", "--unsigned-ok"];
        workspace.run(&verify).expect(1).says(&["its device"]);
    }
}

/// Signed by an earlier efface, whose records were of version 2.
#[test]
fn a_signed_certificate_of_version_2_stays_verifiable() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/certificates");
    let [certificate, key] =
        ["version-2.json", "version-2.pub"].map(|name| kept.join(name).to_str().unwrap().to_string());
    Workspace::new().run(&["certificate", "verify", &certificate, "--public-key", &key]).expect(0).says(&[
        "f7310a2a803689a66127829d1e757a6d",
        "and unchanged since",
        "are those of efface 0.1.0, which wrote it",
    ]);
}

/// Its sentences are not computed again, and all else is.
#[test]
fn a_changed_record_of_version_2_is_refused() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/certificates/version-2.json");
    let envelope: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    let text = String::from_utf8(STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()).unwrap();
    let check = |text: &str| {
        let parsed = Certificate::parse(text.as_bytes(), &PublicKeys::default());
        parsed.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(check(&text), Ok(()));
    for (from, to, why) in [
        ("\"exit_code\": 0", "\"exit_code\": 5", "its exit code"),
        ("\"verdict\": \"wiped\",\n  \"exit", "\"verdict\": \"verified\",\n  \"exit", "not that of its job"),
        ("\"flushed\": true", "\"flushed\": false", "not flushed"),
        ("\"method\": \"shred\"", "\"method\":  \"shred\"", "it was changed"),
        ("\"method\": \"shred\"", "\"method\": \"\\u001b[2J\"", "control or formatting characters"),
        (
            "\"error\": null,\n  \"method\"",
            "\"error\": null,\n  \"error\": null,\n  \"method\"",
            "it was changed",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let refused = check(&changed).unwrap_err();
        assert!(refused.contains(why), "{from}: {refused}");
    }
}

#[test]
fn one_flipped_byte_anywhere_in_a_signed_certificate_is_found() {
    let workspace = Workspace::new();
    let bytes = fs::read(workspace.certificate(MIB)).unwrap();
    let keys = workspace.keys();
    let accepted = |bytes: &[u8]| Certificate::parse(bytes, &keys).is_ok();
    assert!(accepted(&bytes));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(!accepted(&changed), "byte {at} of {}", bytes.len());
    }
    for length in (0..bytes.len()).step_by(7) {
        assert!(!accepted(&bytes[..length]), "cut off at {length}");
    }
    assert!(!accepted(&[&bytes[..], b"\n"].concat()) && !accepted(&[b" ", &bytes[..]].concat()));
}

/// Its name in /dev can be that of another disk tomorrow.
#[test]
fn the_record_of_a_refused_device_has_its_identity_and_time() {
    let workspace = Workspace::new();
    let Some(device) = Loop::new(&vec![0; MIB], &["--read-only"]) else { return };
    let node = device.node.to_str().unwrap();
    let keep = ["--yes", "--quiet", "--ledger", "ledger", "--method", "random"];
    let Some(other) = Loop::new(&vec![0; 2 * MIB], &[]) else { return };
    workspace.run(&[&["wipe", other.node.to_str().unwrap(), node][..], &keep].concat()).expect(3);
    let [wiped, refused] =
        ["1", "2"].map(|number| record(&workspace.path(&format!("ledger/0000000{number}.json"))));
    assert_eq!((refused["identity"]["node"].as_str(), &refused["device"]), (Some(node), &Value::from(node)));
    assert_eq!(refused["identity"]["size_bytes"], MIB);
    assert_eq!(refused["identity"]["backing_file"], device.image.to_str().unwrap());
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&refused["ended"]) <= time(&wiped["started"]), "not the end of the whole command");
    workspace.run(&["ledger", "verify", "ledger"]).expect(0);
    // What was asked for and is no device has nothing to be known by.
    workspace.image("a.img", MIB);
    workspace.run(&["wipe", "a.img", "--yes", "--certificate-to", "c.json"]).expect(3);
    assert_eq!(record(&workspace.path("c.json"))["identity"], Value::Null);
}

#[test]
fn verify_checks_a_disk_against_its_certificate() {
    let workspace = Workspace::new();
    let Some(device) =
        Loop::over(tempfile::TempPath::try_from_path(workspace.image("disk.img", 96 * MIB)).unwrap(), &[])
    else {
        return;
    };
    let node = device.node.to_str().unwrap();
    let keep = ["--certificate-to", "c.json", "--sign-key", "key", "--method", "shred"];
    workspace.run(&[&["wipe", node, "--yes", "-q"], &keep[..]].concat()).expect(0);
    let Loop { image, .. } = &device;
    let image = image.to_path_buf();
    Command::new("losetup").arg("--detach").arg(&device.node).status().unwrap();

    let output =
        Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(&image).output().unwrap();
    let read_only = Detach(String::from_utf8(output.stdout).unwrap().trim().into());
    let verify = |options: &[&str]| {
        let held = ["verify", &read_only.0, "--certificate", "c.json", "--public-key", "key.pub"];
        workspace.run(&[&held, options].concat())
    };
    let before = fs::read(&image).unwrap();
    verify(&[]).expect(0).says(&["replay random, 4608 probes", "verify random, 4608 probes", "verified"]);
    assert!(fs::read(&image).unwrap() == before, "nothing was written");

    // Another process wrote to it since, below the device.
    let secret = vec![b'S'; 3 * MIB];
    fs::File::options().write(true).open(&image).unwrap().write_all_at(&secret, 40 * MIB as u64).unwrap();
    Command::new("blockdev").arg("--flushbufs").arg(&read_only.0).status().unwrap();
    let context = format!("bytes {}..{}: unknown", 40 * MIB, 43 * MIB);
    verify(&[]).expect(6).says(&["3.00 MiB", &context]);
    verify(&["--on-mismatch", "stop"]).expect(6);
    let kept = verify(&["--certificate-to", "audit.json", "--sign-key", "key", "--json"]).expect(6);
    assert!(kept.stdout.contains("\"surviving\""));
    workspace
        .run(&["certificate", "verify", "audit.json", "--public-key", "key.pub"])
        .expect(0)
        .says(&["DATA SURVIVES"]);
}

struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.0).status().ok();
    }
}

#[test]
fn verify_refuses_another_disk_than_the_certificates() {
    let workspace = Workspace::new();
    workspace.certificate(2 * MIB);
    let verify = |image: &str, certificate: &str| {
        workspace.run(&["verify", image, "--image", "--certificate", certificate, "--public-key", "key.pub"])
    };
    verify("disk.img", "c.json").expect(0).says(&["verified"]);
    workspace.image("larger.img", 3 * MIB);
    verify("larger.img", "c.json").expect(3).says(&[
        "larger.img",
        "not the device of the certificate",
        "size_bytes",
    ]);
    workspace.image("same-size.img", 2 * MIB);
    verify("same-size.img", "c.json").expect(6);

    // Of another serial, says a record that anybody could have written.
    workspace.wipe("disk.img", &["--certificate-to", "plain.json"]).expect(0);
    let plain = fs::read_to_string(workspace.path("plain.json")).unwrap();
    let other = named(&plain, "\"WD-1\"");
    fs::write(workspace.path("other.json"), other).unwrap();
    workspace
        .run(&["verify", "disk.img", "--image", "--certificate", "other.json"])
        .expect(3)
        .says(&["serial: the certificate says WD-1, it is none"]);

    // A record that claims nothing.
    workspace
        .run(&["wipe", "disk.img", "--yes", "--certificate-to", "refused.json", "--sign-key", "key"])
        .expect(3);
    verify("disk.img", "refused.json").expect(3).says(&["claims nothing", "REFUSED"]);
}

#[test]
fn partial_and_unverified_wipes_are_checked_against_their_certificates() {
    let workspace = Workspace::new();
    workspace.image("disk.img", 4 * MIB);
    for (name, options) in [
        ("part.json", &["--offset", "1MiB", "--size", "1MiB", "--method", "random"][..]),
        ("unread.json", &["--verify", "none"]),
        ("full.json", &["--verify", "full", "--method", "dod7"]),
    ] {
        workspace.wipe("disk.img", &[options, &["--certificate-to", name]].concat()).expect(0);
        workspace
            .run(&["verify", "disk.img", "--image", "--certificate", name])
            .expect(0)
            .says(&["verified"]);
    }
    workspace.run(&["certificate", "verify", "--unsigned-ok", "part.json", "full.json"]).expect(0);
}

#[test]
fn a_destination_that_cannot_be_written_is_found_before_the_first_byte() {
    let workspace = Workspace::new();
    let image = workspace.image("disk.img", MIB);
    let before = fs::read(&image).unwrap();
    fs::write(workspace.path("there.json"), "mine").unwrap();
    fs::write(workspace.path("d.toml"), "[job]\ntenant = 3\n").unwrap();
    for (options, words) in [
        (&["--certificate-to", "no/such/folder/c.json"][..], &["could not be written", "No such file"][..]),
        (&["--certificate-to", "there.json"], &["already"]),
        (&["--certificate-to", "no-folder/"], &["no such folder"]),
        (&["--certificate-to", "c.json", "--sign-key", "no-key"], &["no-key", "cannot be read"]),
        (&["--certificate-to", "c.json", "--sign-key", "key.pub"], &["others may use this key"]),
        (&["--sign-key", "key"], &["nothing to sign"]),
        (&["--ledger", "there.json"], &["ledger cannot be written"]),
        (&["--details", "d.toml"], &["details are not understood"]),
        (&["--detail", "operator"], &["SECTION.KEY=TEXT"]),
    ] {
        let ran = workspace.wipe("disk.img", options).says(words);
        assert!(matches!(ran.code, 2 | 3), "{options:?}: {}", ran.code);
        assert!(fs::read(&image).unwrap() == before, "{options:?}");
    }
    assert_eq!(fs::read_to_string(workspace.path("there.json")).unwrap(), "mine");
    let left: Vec<_> =
        fs::read_dir(workspace.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".efface-")), "{left:?}");
}

#[test]
fn a_full_file_system_is_found_before_the_first_byte() {
    let workspace = Workspace::new();
    let image = workspace.image("disk.img", MIB);
    let full = workspace.path("full");
    fs::create_dir(&full).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&full).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        return skipped("no tmpfs can be mounted").unwrap_or(());
    }
    let before = fs::read(&image).unwrap();
    let runs =
        ["--certificate-to", "--ledger"].map(|option| workspace.wipe("disk.img", &[option, "full/new"]));
    let kept = fs::read(&image).unwrap() == before;
    Command::new("umount").arg(&full).status().unwrap();
    for ran in runs {
        ran.expect(2).says(&["No space left"]);
    }
    assert!(kept);
}

/// Every device that was asked for has a record, whatever became of it.
#[test]
fn refused_and_interrupted_jobs_are_recorded() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("certs")).unwrap();
    workspace.image("good.img", MIB);
    fs::create_dir(workspace.path("folder")).unwrap();
    let run = ["wipe", "good.img", "folder", "--image", "--yes", "-q", "--certificate-to", "certs"];
    workspace.run(&run).expect(3);
    let mut verdicts: Vec<(String, String)> = fs::read_dir(workspace.path("certs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            workspace
                .run(&["certificate", "verify", "--unsigned-ok", path.to_str().unwrap()])
                .expect(0)
                .says(&["NOT SIGNED"]);
            let record = record(&path);
            assert!(!record["limitations"].as_array().unwrap().is_empty());
            let word = |name: &str| record[name].as_str().unwrap().to_string();
            (word("device"), word("verdict"))
        })
        .collect();
    verdicts.sort();
    let expected = [("folder", "refused"), ("good.img", "wiped")];
    assert_eq!(verdicts, expected.map(|(device, verdict)| (device.to_string(), verdict.to_string())));

    workspace.image("long.img", 64 * MIB);
    let mut long = efface()
        .args([
            "wipe",
            "long.img",
            "--image",
            "--yes",
            "-q",
            "--rate",
            "8MiB/s",
            "--certificate-to",
            "long.json",
        ])
        .current_dir(workspace.folder.path())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let child = nix::unistd::Pid::from_raw(long.id() as i32);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGINT).unwrap();
    long.wait().unwrap();
    assert_eq!(record(&workspace.path("long.json"))["verdict"], "interrupted");
    workspace.run(&["certificate", "verify", "--unsigned-ok", "long.json"]).expect(0);
}

#[test]
fn a_file_that_is_no_certificate_is_a_clear_error() {
    let workspace = Workspace::new();
    let certificate = workspace.certificate(MIB);
    let text = fs::read_to_string(&certificate).unwrap();
    let write = |name: &str, content: &str| fs::write(workspace.path(name), content).unwrap();
    let plain = {
        workspace.wipe("disk.img", &["--certificate-to", "plain.json"]).expect(0);
        fs::read_to_string(workspace.path("plain.json")).unwrap()
    };
    write("cut.json", &text[..text.len() / 2]);
    write("empty.json", "");
    write("words.json", "hello");
    write("other.json", "{\"a\": 1}");
    write("newer.json", &plain.replace("\"efface_record\": 4", "\"efface_record\": 5"));
    write("earlier.json", &plain.replace("\"efface_record\": 4", "\"efface_record\": 3"));
    let lying = plain
        .replace("\"efface_record\": 4", "\"efface_record\": 3")
        .replace("flushed once", "flushed twice");
    write("earlier_claim.json", &lying);
    workspace.run(&["certificate", "verify", "earlier.json", "--unsigned-ok"]).expect(0);
    write("spelled.json", &plain.replace("  \"id\"", "   \"id\""));
    write("better.json", &plain.replace("\"differ_per_billion\"", "\"differ_per_billion\" "));
    write("claim.json", &plain.replace("\"flushed\": true", "\"flushed\": false"));
    write("steers.json", &plain.replacen("\"serial\": null", "\"serial\": \"\\u001b[2J\"", 1));
    let huge = fs::File::create(workspace.path("huge.json")).unwrap();
    huge.set_len(1 << 30).unwrap();
    workspace.run(&["key", "new", "other"]).expect(0);
    for (name, code, words) in [
        ("cut.json", 1, "cut off"),
        ("empty.json", 1, "cut off"),
        ("words.json", 1, "not JSON"),
        ("other.json", 1, "no record of efface"),
        ("newer.json", 4, "versions 2 to 4"),
        ("spelled.json", 1, "it was changed"),
        ("claim.json", 1, "not flushed"),
        ("earlier_claim.json", 1, "do not follow"),
        ("steers.json", 1, "control or formatting characters"),
        ("huge.json", 2, "too large"),
        ("missing.json", 2, "cannot be read"),
        (".", 2, "cannot be read"),
    ] {
        workspace.run(&["certificate", "verify", name]).expect(code).says(&[name, words]);
        workspace.run(&["certificate", "render", "--html", name]).expect(code).says(&[words]);
        workspace.run(&["verify", "disk.img", "--image", "--certificate", name]).expect(code).says(&[words]);
    }
    workspace
        .run(&["certificate", "verify", "c.json", "--public-key", "other.pub"])
        .expect(1)
        .says(&["another key"]);
    workspace
        .run(&["certificate", "verify", "plain.json", "--public-key", "key.pub"])
        .expect(1)
        .says(&["not signed"]);
    workspace
        .run(&["certificate", "verify", "c.json", "--public-key", "key"])
        .expect(2)
        .says(&["no Ed25519 public key"]);
}

/// The schema is published, and certificates keep to it.
#[test]
fn every_record_fits_the_schema() {
    let workspace = Workspace::new();
    let schema = workspace.run(&["certificate", "schema"]).expect(0).stdout;
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/certificate.schema.json");
    if std::env::var_os("EFFACE_SCHEMA_OVERWRITE").is_some() {
        fs::write(kept, &schema).unwrap();
    }
    assert!(fs::read_to_string(kept).unwrap() == schema, "EFFACE_SCHEMA_OVERWRITE=1 rewrites the schema");
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let wiped = record(&workspace.certificate(MIB));
    workspace.run(&["wipe", "disk.img", "--yes", "--certificate-to", "refused.json"]).expect(3);
    for record in [&wiped, &record(&workspace.path("refused.json"))] {
        let errors: Vec<String> = validator.iter_errors(record).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
    }
    let mut wrong = wiped.clone();
    wrong["job"]["geometry"]["size"] = "large".into();
    assert!(!validator.is_valid(&wrong));
    wrong = wiped;
    wrong["more"] = 1.into();
    assert!(!validator.is_valid(&wrong));
}

/// A record of a device with this serial number, as if it had been written so.
pub fn named(plain: &str, serial: &str) -> String {
    let nameless = "\n    \"It has no serial number, WWN or UUID: this record fits any device of the same size and content.\",";
    assert!(plain.contains(nameless), "{plain}");
    plain.replacen("\"serial\": null", &format!("\"serial\": {serial}"), 1).replacen(nameless, "", 1)
}

/// Another process writes to the device while it is wiped: its counter shows that it was, and never that
/// nothing was, since the backing file can be written past it.
#[test]
fn foreign_writes_are_counted() {
    let workspace = Workspace::new();
    let Some(device) = Loop::new(&vec![b'x'; 32 * MIB], &[]) else { return };
    let node = device.node.to_str().unwrap();
    // What the image's making left to be written is not of the job.
    Command::new("sync").status().unwrap();
    workspace.run(&["wipe", node, "--yes", "-q", "--certificate-to", "alone.json"]).expect(0);
    assert_eq!(record(&workspace.path("alone.json"))["foreign_writes_bytes"], Value::Null);

    let wipe = efface()
        .args(["wipe", node, "--yes", "-q", "--rate", "32MiB/s", "--certificate-to", "beside.json"])
        .current_dir(workspace.folder.path())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let target = format!("of={node}");
    let dd = ["if=/dev/zero", &target, "bs=64k", "count=3", "oflag=direct", "conv=notrunc", "status=none"];
    let wrote = Command::new("dd").args(dd).status().unwrap().success();
    let output = wipe.wait_with_output().unwrap();
    assert!(wrote && output.status.success());
    let record = record(&workspace.path("beside.json"));
    assert_eq!(record["foreign_writes_bytes"], 3 * 65536);
    let context = record["limitations"].as_array().unwrap().iter().filter_map(Value::as_str);
    assert!(context.into_iter().any(|line| line.contains("Foreign writes during the job: 192.00 KiB")));
}
