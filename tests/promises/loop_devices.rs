//! Real loop devices, wiped by the real program, and checked by other means.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use crate::jobs::image;
use crate::loops::Loop;
use crate::program::{efface, wipe};
use efface::internals::pattern::Pattern;
use serde_json::Value;

/// Bytes that no pattern makes by chance.
fn secret(size: usize) -> Vec<u8> {
    b"tenant's secret!".iter().copied().cycle().take(size).collect()
}

/// The last line of `--json`.
fn result(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().expect("a last line")).expect("JSON")
}

/// The pattern that a report says the last pass wrote.
fn last_pattern(result: &Value) -> Pattern {
    let steps = result["devices"][0]["job"]["plan"]["steps"].as_array().unwrap();
    let last = steps.iter().rfind(|step| step["operation"]["kind"] != "compare").unwrap();
    match last["operation"]["pattern"]["kind"].as_str() {
        Some("random") => {
            format!("random:{}", last["operation"]["pattern"]["seed"].as_str().unwrap()).parse().unwrap()
        }
        Some(_) => format!("0x{}", last["operation"]["pattern"]["bytes"].as_str().unwrap()).parse().unwrap(),
        None => Pattern::zero(),
    }
}

const METHODS: [&[&str]; 9] = [
    &["--method", "zero"],
    &["--method", "shred"],
    &["--method", "random"],
    &["--method", "shred-random", "--final-zero"],
    &["--method", "dod3"],
    &["--passes", "0x924924,0x55aa"],
    &["--method", "zero", "--zero-with", "offload"],
    &["--method", "nnsa", "--verify", "full"],
    &["--method", "discard"],
];

#[test]
fn every_byte_is_what_the_report_says() {
    // One block, an odd tail, less than a chunk, several chunks and a short one.
    for (sector, sizes) in [
        ("512", vec![512, 4096 * 3 + 512, 1_000_448, (9 << 20) + 1536]),
        ("4096", vec![4096, (5 << 20) + 4096]),
    ] {
        for size in sizes {
            for method in METHODS {
                let Some(device) = Loop::new(&secret(size), &["--sector-size", sector]) else { return };
                let context = format!("{method:?} on {size} bytes in blocks of {sector}");
                let (code, stdout, stderr) = wipe(&device.node, &[&["--json"], method].concat());
                assert_eq!(code, 0, "{context}: {stderr}");
                let wanted = image(&last_pattern(&result(&stdout)), size);
                assert!(device.content() == wanted, "{context}: the image differs");
            }
        }
    }
}

#[test]
fn an_independent_reader_finds_only_zeroes() {
    let Some(device) = Loop::new(&secret((80 << 20) + 512), &[]) else { return };
    let (code, stdout, stderr) = wipe(&device.node, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("4608 blocks of 4.00 KiB drawn at random"), "{stdout}");
    let mut cmp = Command::new("cmp");
    cmp.arg("--bytes").arg(device.content().len().to_string()).arg(&device.node).arg("/dev/zero");
    assert!(cmp.status().unwrap().success(), "cmp found a byte that is not zero");
}

#[test]
fn a_tail_that_the_device_never_serves_is_residue() {
    let size = 4096 * 20 + 512;
    let Some(device) = Loop::new(&secret(size), &["--sector-size", "4096"]) else { return };
    let (code, stdout, stderr) = wipe(&device.node, &["--json"]);
    if device.content()[..size] == image(&Pattern::zero(), size) {
        panic!("this kernel serves the tail after all: exit {code}, {stderr}");
    }
    assert_eq!(code, 5, "{stderr}");
    assert_eq!(result(&stdout)["devices"][0]["job"]["residue"][0]["start"], 4096 * 20);
    assert!(device.content()[..4096 * 20].iter().all(|byte| *byte == 0));
    let (_, stdout, stderr) = wipe(&device.node, &["--quiet"]);
    assert!(
        stdout.is_empty() && stderr.contains("RESIDUE; residue: 512 B in bytes 81920..82432"),
        "{stderr}"
    );
}

/// Smaller than one of its blocks, it serves nothing at all: by either method that is residue.
#[test]
fn a_device_that_is_shorter_than_its_logical_block_is_residue_for_offload_too() {
    for how in ["write", "offload"] {
        let Some(device) = Loop::new(&secret(1536), &["--sector-size", "4096"]) else { return };
        let options = ["--json", "--force", "unprobed", "--verify", "none", "--zero-with", how];
        let (code, stdout, stderr) = wipe(&device.node, &options);
        assert_eq!(code, 5, "{how}: {stderr}");
        let residue = &result(&stdout)["devices"][0]["job"]["residue"][0];
        assert_eq!((&residue["start"], &residue["end"]), (&0.into(), &1536.into()), "{how}");
    }
}

#[test]
fn a_part_is_wiped_and_the_rest_is_not() {
    let Some(device) = Loop::new(&secret(4 << 20), &[]) else { return };
    let (code, stdout, stderr) = wipe(&device.node, &["--offset", "1MiB", "--size", "1536K", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(result(&stdout)["devices"][0]["job"]["plan"]["partial"], true);
    let (content, old) = (device.content(), secret(4 << 20));
    assert!(content[1 << 20..(1 << 20) + (1536 << 10)].iter().all(|byte| *byte == 0));
    assert!(content[..1 << 20] == old[..1 << 20]);
    assert!(content[(1 << 20) + (1536 << 10)..] == old[(1 << 20) + (1536 << 10)..]);
}

#[test]
fn a_refused_device_does_not_stop_the_others() {
    let (Some(one), Some(two)) = (Loop::new(&secret(2 << 20), &[]), Loop::new(&secret(3 << 20), &[])) else {
        return;
    };
    let Some(read_only) = Loop::new(&secret(1 << 20), &["--read-only"]) else { return };
    let output = efface()
        .args(["wipe", "--yes", "--json"])
        .args([&one.node, &read_only.node, &two.node])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "the most severe: refused");
    let result = result(std::str::from_utf8(&output.stdout).unwrap());
    let verdicts: Vec<&str> = result["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["wiped", "refused", "wiped"]);
    assert!(one.content().iter().chain(&two.content()).all(|byte| *byte == 0));
    assert!(read_only.content() == secret(1 << 20));
}

fn open_exclusively(device: &Loop) -> std::io::Result<File> {
    File::options().read(true).write(true).custom_flags(nix::libc::O_EXCL).open(&device.node)
}

#[test]
fn the_device_is_free_when_the_wipe_ends() {
    let Some(device) = Loop::new(&secret(1 << 20), &[]) else { return };
    for round in 0..100 {
        let (code, _, stderr) = wipe(&device.node, &["--verify", "none", "--quiet"]);
        assert_eq!(code, 0, "{stderr}");
        open_exclusively(&device).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

#[test]
fn verify_reads_only_and_reports_differences() {
    let Some(device) = Loop::new(&vec![0; 3 << 20], &["--read-only"]) else { return };
    let verify = |expect: &str| {
        let output =
            efface().arg("verify").arg(&device.node).args(["--expect", expect, "--json"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, stdout) = verify("zero");
    assert_eq!((code, result(&stdout)["verdict"].as_str()), (Some(0), Some("verified")));
    let (code, stdout) = verify("0x55");
    assert_eq!(code, Some(6));
    let found = &result(&stdout)["devices"][0]["job"]["surviving"];
    assert_eq!(
        (&found["bytes"], &found["runs"][0]["at"]["end"]),
        (&Value::from(3 << 20), &Value::from(3 << 20))
    );
}

#[test]
fn an_image_file_is_wiped_only_when_asked_and_keeps_its_size() {
    for size in [1, 511, 4096, 1_000_001, (2 << 20) + 7] {
        // Closed: what a process may write to is refused.
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&file, secret(size)).unwrap();
        let (code, _, stderr) = wipe(&file, &[]);
        assert_eq!(code, 3, "{stderr}");
        assert!(std::fs::read(&file).unwrap() == secret(size), "a refused file is untouched");
        let (code, stdout, stderr) = wipe(&file, &["--image", "--method", "shred", "--json"]);
        assert_eq!(code, 0, "{size}: {stderr}");
        let wanted = image(&last_pattern(&result(&stdout)), size);
        assert!(std::fs::read(&file).unwrap() == wanted, "{size}");
        let limitations = result(&stdout)["devices"][0]["limitations"].to_string();
        assert!(limitations.contains("the file system below it may keep copies"), "{limitations}");
        let through_the_cache = limitations.contains("may have come from the page cache");
        assert!(through_the_cache || size % 512 == 0, "an odd size takes no direct I/O: {limitations}");
    }
}

/// This program runs one of its own tests where there is no losetup.
#[test]
fn a_skipped_test_fails_where_the_tests_are_strict() {
    let run = |strict: &str| {
        let test = "loop_devices::a_part_is_wiped_and_the_rest_is_not";
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", test]).env("PATH", "").env("EFFACE_TEST_STRICT", strict).output().unwrap()
    };
    let lenient = run("0");
    assert!(lenient.status.success(), "{lenient:?}");
    assert!(String::from_utf8_lossy(&lenient.stderr).contains("SKIPPED loop_devices::a_part"), "{lenient:?}");
    let strict = run("1");
    assert!(!strict.status.success(), "{strict:?}");
    assert!(String::from_utf8_lossy(&strict.stdout).contains("EFFACE_TEST_STRICT forbids"), "{strict:?}");
}
