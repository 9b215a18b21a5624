//! Untrusted text (of devices, files, people) never controls a terminal or a page, never invalidates a record,
//! and is never repeated at length; file names need not be UTF-8.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::evidence::{Workspace, record};
use crate::loops::Loop;
use crate::program::efface;

const MIB: usize = 1 << 20;

/// What steers a terminal or a page, in UTF-8.
const STEERING: [char; 9] =
    ['\u{80}', '\u{85}', '\u{9b}', '\u{ad}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}', '\u{e0041}'];

/// An ext2 superblock with this label, as `tune2fs -L` writes it.
fn labelled(label: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    bytes[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    bytes[0x468..0x478].copy_from_slice(&[0x11; 16]);
    bytes[0x478..][..label.len()].copy_from_slice(label);
    bytes
}

/// Every string in a document.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn steers(text: &str) -> bool {
    text.contains(|letter: char| letter.is_control() || STEERING.contains(&letter))
}

#[test]
fn a_label_of_any_bytes_leaves_the_certificate_and_the_ledger_whole() {
    let workspace = Workspace::new();
    let bytes = (1..0x20).chain(0x7f..=0x9f).map(|byte| [b"p", &[byte][..], b"w"].concat());
    let letters = STEERING.iter().map(|letter| format!("p{letter}w").into_bytes());
    let labels: Vec<Vec<u8>> = bytes.chain(letters).collect();
    let count = labels.len();
    for (number, label) in labels.into_iter().enumerate() {
        let (image, certificate) = (format!("{number}.img"), format!("{number}.json"));
        fs::write(workspace.path(&image), labelled(&label)).unwrap();
        let keep = ["--certificate-to", &certificate, "--ledger", "ledger", "--sign-key", "key"];
        workspace.wipe(&image, &keep).expect(0);
        let found = record(&workspace.path(&certificate))["findings"].clone();
        assert_eq!(found["signatures"][0]["kind"], "ext2", "{label:?}");
        assert!(!texts(&found).iter().any(|text| steers(text)), "{label:?}: {found}");
        workspace.run(&["certificate", "verify", &certificate, "--public-key", "key.pub"]).expect(0);
    }
    let records = format!("{count} records");
    workspace.run(&["ledger", "verify", "ledger", "--public-key", "key.pub"]).expect(0).says(&[&records]);
}

#[test]
fn a_label_on_a_loop_device_controls_no_terminal() {
    let workspace = Workspace::new();
    let Some(device) = Loop::new(&labelled("p\u{1b}]0;x\u{7}\u{202e}w".as_bytes()), &[]) else { return };
    let node = device.node.to_str().unwrap();
    let plan = workspace.run(&["plan", node]).expect(0).says(&["ext2"]);
    assert!(!plan.stdout.lines().any(steers), "{:?}", plan.stdout);
    let keep = ["--certificate-to", "c.json", "--sign-key", "key"];
    let wiped = workspace.run(&[&["wipe", node, "--yes"][..], &keep].concat()).expect(0);
    assert!(!format!("{}{}", wiped.stdout, wiped.stderr).lines().any(steers), "{:?}", wiped.stderr);
    workspace
        .run(&["certificate", "verify", "c.json", "--public-key", "key.pub"])
        .expect(0)
        .says(&["unchanged"]);
}

#[test]
fn control_characters_in_a_path_are_replaced() {
    let workspace = Workspace::new();
    let name = "disk\u{202e}\u{1b}[2J.img";
    workspace.image(name, MIB);
    let shown = "disk\u{fffd}\u{fffd}[2J.img";
    for (command, code) in [
        (&["plan", name, "--image"][..], 0),
        (&["wipe", name, "--image", "--yes", "--certificate-to", "c.json"], 0),
        (&["wipe", name, "--yes", "--certificate-to", "refused.json"], 3),
        (&["plan", name], 3),
    ] {
        let ran = workspace.run(command).expect(code).says(&[shown]);
        assert!(!format!("{}{}", ran.stdout, ran.stderr).lines().any(steers), "{command:?}: {ran:?}");
    }
    for file in ["c.json", "refused.json"] {
        workspace.run(&["certificate", "verify", "--unsigned-ok", file]).expect(0).says(&[shown]);
        let page = workspace.run(&["certificate", "render", "--html", file]).expect(0).says(&[shown]);
        assert!(!page.stdout.lines().any(steers), "{file}");
    }
    let wrong = ["wipe", name, "--image", "--yes", "--detail", "operator.name=A\u{202e}B"];
    workspace.run(&wrong).expect(2).says(&["the details hold"]);
}

#[test]
fn an_error_repeats_only_an_excerpt_of_a_file() {
    let workspace = Workspace::new();
    let certificate: Value = serde_json::from_slice(&fs::read(workspace.certificate(MIB)).unwrap()).unwrap();
    let long = Value::from("long ".repeat(MIB));
    let plan = workspace.run(&["plan", "disk.img", "--image", "--json"]).expect(0).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let plain = record(&workspace.path("c.json"));
    let with = |document: &Value, at: &str| {
        let mut changed = document.clone();
        *changed.pointer_mut(at).unwrap() = long.clone();
        serde_json::to_string_pretty(&changed).unwrap() + "\n"
    };
    let verify = ["certificate", "verify", "bad", "--public-key", "key.pub"];
    let carry_out = ["wipe", "--plan", "bad", "--yes"];
    for (document, command) in [
        (with(&certificate, "/payloadType"), &verify[..]),
        (with(&certificate, "/signatures/0/keyid"), &verify),
        (with(&certificate, "/signatures/0/keyid"), &verify[..3]),
        (with(&plain, "/efface_record"), &verify),
        (with(&plain, "/verdict"), &verify),
        (with(&plan, "/made"), &carry_out),
        (with(&plan, "/order/policy"), &carry_out),
        (with(&plan, "/devices/0/must_hold/area"), &carry_out),
    ] {
        fs::write(workspace.path("bad"), document).unwrap();
        let ran = workspace.run(command);
        assert!(ran.code != 0 || command == &verify[..3], "{}", ran.code);
        let context = format!("{}{}", ran.stdout, ran.stderr);
        assert!(context.len() < 8000, "{command:?}: {} bytes: {:.300}", context.len(), context);
    }
}

#[test]
fn a_file_whose_name_is_not_utf_8_is_planned_wiped_and_verified() {
    let workspace = Workspace::new();
    let name = OsStr::from_bytes(b"disk\xff.img");
    let run = |arguments: &[&str]| {
        let folder = workspace.path("");
        let output = efface().args(arguments).arg("--image").arg(name).current_dir(folder).output().unwrap();
        let context = format!("{output:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {context}");
        assert!(String::from_utf8(output.stdout).is_ok(), "{arguments:?}");
    };
    fs::write(workspace.path("").join(name), labelled(b"x")).unwrap();
    run(&["plan"]);
    let name_in_a_plan =
        efface().args(["plan", "--json", "--image"]).arg(name).current_dir(workspace.path("")).output();
    assert_eq!(name_in_a_plan.unwrap().status.code(), Some(2));
    run(&["wipe", "--yes", "--method", "random", "--certificate-to", "c.json"]);
    assert_eq!(record(&workspace.path("c.json"))["device"], "disk\u{fffd}.img");
    run(&["verify", "--certificate", "c.json"]);
    run(&["wipe", "--yes"]);
    run(&["verify", "--expect", "zero"]);
    let image = workspace.path("").join(name);
    assert!(fs::read(image).unwrap().iter().all(|byte| *byte == 0));
}
