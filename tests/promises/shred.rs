//! The program invoked as `shred`: Nova's command lines, and those of people.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::loops::Loop;

const SIZE: usize = 4 << 20;

fn secret() -> Vec<u8> {
    b"tenant's secret!".iter().copied().cycle().take(SIZE).collect()
}

/// Exit code and stderr of `shred` as found on the PATH.
fn shred(options: &[&str], device: &Loop) -> (Option<i32>, String) {
    let bin = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_efface"), bin.path().join("shred")).unwrap();
    let output =
        Command::new("shred").env("PATH", bin.path()).args(options).arg(&device.node).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn novas_shred_calls_wipe_the_volume() {
    let size = format!("-s{SIZE}");
    let Some(device) = Loop::new(&secret(), &[]) else { return };
    assert_eq!(shred(&["-n0", "-z", &size], &device), (Some(0), String::new()));
    assert!(device.content().iter().all(|byte| *byte == 0));

    let Some(device) = Loop::new(&secret(), &[]) else { return };
    assert_eq!(shred(&["-n3", &size], &device), (Some(0), String::new()));
    let blocks: Vec<Vec<u8>> = device.content().chunks(4096).map(<[u8]>::to_vec).collect();
    assert!(blocks.iter().all(|block| block.iter().any(|byte| *byte != 0) && block[..16] != secret()[..16]));

    // volume_clear_size: the start alone.
    let Some(device) = Loop::new(&secret(), &[]) else { return };
    assert_eq!(shred(&["-n0", "-z", "-s1048576"], &device).0, Some(0));
    let content = device.content();
    assert!(content[..1 << 20].iter().all(|byte| *byte == 0) && content[1 << 20..] == secret()[1 << 20..]);
}

#[test]
fn shred_options_without_a_counterpart_change_nothing() {
    let Some(device) = Loop::new(&secret(), &[]) else { return };
    let (code, stderr) = shred(&["-vfxzn1"], &device);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("overwrite random") && stderr.contains("verify 0x00"), "{stderr}");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn an_unsupported_shred_option_writes_nothing() {
    let Some(device) = Loop::new(&secret(), &[]) else { return };
    for options in [&["-u"][..], &["-n0"], &["--random-source=/dev/zero"], &["-s8M"]] {
        let (code, stderr) = shred(options, &device);
        assert_eq!(code, Some(2), "{options:?}: {stderr}");
        assert!(device.content() == secret(), "{options:?}");
    }
}
