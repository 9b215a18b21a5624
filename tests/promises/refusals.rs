//! Refusals: the exit code, the message, and every byte unchanged.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::loops::{Loop, skipped};
use crate::program::efface;

/// Runs efface without a terminal; gives the exit code and stderr.
fn refuse(arguments: &[&str]) -> (i32, String) {
    let output = efface().args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

/// Transcripts of command lines. `TRYCMD=overwrite` rewrites them.
#[test]
fn command_line_transcripts() {
    trycmd::TestCases::new().case("tests/promises/*.trycmd").run();
}

/// Each wrong command over a real device: its code, a word of its message, and nothing written.
#[test]
fn a_wrong_command_leaves_the_device_as_it_was() {
    let content = vec![b'x'; (1 << 20) + 512];
    let Some(device) = Loop::new(&content, &[]) else { return };
    let node = device.node.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 20] = [
        (&[], 3, "was not confirmed"),
        (&["--yes", "--size", "2MiB"], 2, "beyond the end"),
        (&["--yes", "--offset", "100"], 2, "logical blocks"),
        (&["--yes", "--offset", "512", "--size", "100"], 2, "logical blocks"),
        (&["--yes", "--offset", "1G"], 2, "beyond the end"),
        (&["--yes", "--size", "0"], 2, "logical blocks"),
        (&["--yes", "--method", "magic"], 2, "magic"),
        (&["--yes", "--passes", "0x00,,0xff"], 2, "pattern"),
        (&["--yes", "--passes", ""], 2, "pattern"),
        (&["--yes", "--rate", "0"], 2, "rate of 0"),
        (&["--yes", "--block-size", "1000"], 2, "logical blocks"),
        (&["--yes", "--block-size", "0"], 2, "0 bytes"),
        (&["--yes", "--queue-depth", "0"], 2, "queue-depth"),
        (&["--yes", "--block-size", "1GiB", "--queue-depth", "1024"], 2, "memory"),
        (&["--yes", "--method", "dod3", "--verify", "none"], 2, "includes a check"),
        (&["--yes", "--method", "random", "--zero-with", "offload"], 2, "no pass of zeroes"),
        (&["--yes", "--wait", "18446744073709551615"], 2, "wait"),
        (&["--yes", "--image"], 3, "block device"),
        (&["--yes", "--progress-fd", "99"], 2, "descriptor"),
        (&["--yes", "/no/such/device"], 2, "/no/such/device"),
    ];
    for (options, code, word) in cases {
        let (answered, stderr) = refuse(&[&["wipe", node], options].concat());
        assert_eq!(answered, code, "{options:?}: {stderr}");
        assert!(stderr.contains(word), "{options:?}: {stderr}");
        assert!(device.content() == content, "{options:?}: something was written");
    }
    let (answered, stderr) = refuse(&["destroy-key", node, "--yes", "--wait", "18446744073709551615"]);
    assert!(answered == 2 && stderr.contains("wait"), "{answered}: {stderr}");
}

#[test]
fn the_same_device_twice_is_a_usage_error() {
    let content = vec![b'x'; 1 << 20];
    let Some(device) = Loop::new(&content, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("by-another-name");
    symlink(&device.node, &link).unwrap();
    let node = device.node.to_str().unwrap();
    for twice in
        [node, link.to_str().unwrap(), &format!("/dev/./{}", device.node.file_name().unwrap().display())]
    {
        let (code, stderr) = refuse(&["wipe", "--yes", node, twice]);
        assert_eq!(code, 2, "{stderr}");
        assert!(device.content() == content, "{twice}");
    }
}

#[test]
fn a_path_that_is_no_disk_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let cases: [(&Path, &str); 3] =
        [(folder.path(), "directory"), (Path::new("/dev/null"), "character device"), (&file, "--image")];
    for (path, word) in cases {
        let (code, stderr) = refuse(&["wipe", "--yes", path.to_str().unwrap()]);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains(word) && stderr.contains(path.to_str().unwrap()), "{stderr}");
    }
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(refuse(&["wipe", "--yes", "--image", empty.to_str().unwrap()]).0, 3);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

/// Two at once: the second waits its time, and names the process that holds the device.
#[test]
fn a_second_efface_ends_with_busy() {
    let Some(device) = Loop::new(&vec![0; 64 << 20], &[]) else { return };
    let mut first = efface()
        .arg("wipe")
        .arg(&device.node)
        .args(["--yes", "--json", "--rate", "8MiB/s", "--verify", "none"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first event comes when it holds the device.
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(first.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    let (code, stderr) = refuse(&["wipe", "--yes", "--wait", "0", device.node.to_str().unwrap()]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.contains(&first.id().to_string()), "names the holder: {stderr}");
    // A killed one lets go within the wait.
    let (code, stderr) = refuse(&["wipe", "--yes", "--quiet", device.node.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_mounted_device_is_refused_by_its_mount_point() {
    let Some(device) = Loop::new(&vec![0; 8 << 20], &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.node).status();
    let mounted = Command::new("mount").arg(&device.node).arg(folder.path()).status();
    if !made.is_ok_and(|made| made.success()) || !mounted.is_ok_and(|mounted| mounted.success()) {
        skipped::<()>("no ext4 can be made and mounted here");
        return;
    }
    std::fs::write(folder.path().join("file"), "precious").unwrap();
    nix::unistd::sync();
    let before = device.content();
    let (code, stderr) = refuse(&["wipe", "--yes", device.node.to_str().unwrap()]);
    let after = device.content();
    Command::new("umount").arg(folder.path()).status().unwrap();
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains(folder.path().to_str().unwrap()), "{stderr}");
    assert!(before == after);
}

/// On a terminal it shows the device and takes only its name for a yes.
#[test]
fn only_the_typed_device_name_confirms() {
    for (answer, code) in [("yes\n", 3), ("\n", 3), ("NAME\n", 0)] {
        let content = vec![b'x'; 1 << 20];
        let Some(device) = Loop::new(&content, &[]) else { return };
        let name = device.node.file_name().unwrap().to_str().unwrap();
        let terminal = nix::pty::openpty(None, None).unwrap();
        let side = || Stdio::from(terminal.slave.try_clone().unwrap());
        let mut child = efface()
            .arg("wipe")
            .arg(&device.node)
            .stdin(side())
            .stderr(side())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        nix::unistd::write(&terminal.master, answer.replace("NAME", name).as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{answer:?}");
        assert_eq!(device.content() == content, code == 3, "{answer:?}");
        drop(terminal.slave);
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        // The master side of a terminal without open slaves returns EIO.
        while let Ok(count @ 1..) = nix::unistd::read(&terminal.master, &mut part) {
            seen.extend_from_slice(&part[..count]);
        }
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains(&format!("Type {name} to destroy")), "{seen}");
    }
}
