//! Jobs that back off beside other users of a disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::stat::{major, minor};
use serde_json::Value;

use crate::file_systems::FileSystem;
use crate::loops::Loop;
use crate::program::efface;

fn start(device: &Loop, state: &Path) -> Child {
    let mut command = efface();
    command.arg("wipe").arg(&device.node).args(["--yes", "--json", "--verify", "none"]);
    command.arg("--state-dir").arg(state).args([
        "--yield=20%",
        "--yield-min",
        "32MiB/s",
        "--rate",
        "16MiB/s",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The writing step's report, and stderr.
fn finish(child: Child) -> (Value, String) {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let steps = result["devices"][0]["job"]["steps"].as_array().unwrap().clone();
    (steps.into_iter().find(|step| step["flushed"] == true).unwrap(), stderr)
}

#[test]
fn jobs_that_back_off_on_one_disk_take_turns() {
    let Some(disk) = FileSystem::new(64 << 20) else { return };
    let (Some(one), Some(other)) = (disk.device(12 << 20), disk.device(12 << 20)) else { return };
    let state = tempfile::tempdir().unwrap();
    let children = [&one, &other].map(|device| start(device, state.path()));
    let reports = children.map(finish);
    let time =
        |report: &Value, name: &str| -> jiff::Timestamp { report[name].as_str().unwrap().parse().unwrap() };
    let [first, second] =
        [0, 1].map(|job| (time(&reports[job].0, "started"), time(&reports[job].0, "ended")));
    assert!(first.1 <= second.0 || second.1 <= first.0, "one after the other: {first:?} {second:?}");
    let waited = reports.iter().filter(|(report, stderr)| {
        let waited = report["yielding"]["waited_ms"].as_u64().unwrap() > 0;
        assert_eq!(waited, stderr.contains("waits for another efface"), "{report} {stderr}");
        waited
    });
    assert_eq!(waited.count(), 1);
    let number = fs::metadata(disk.below()).unwrap().rdev();
    let lock = format!("/run/efface/turn-{}:{}", major(number), minor(number));
    assert!(fs::metadata(&lock).is_ok(), "the turn is that of the device below: {lock}");
}

#[test]
fn what_others_may_lose_is_a_part_of_their_rate() {
    for (options, words) in [
        (&["--yield=0%"][..], "1% to 50%"),
        (&["--yield=51%"], "1% to 50%"),
        (&["--yield=5"], "1% to 50%"),
        (&["--yield-min", "1MiB/s"], "--yield"),
        (&["--yield", "--min-rate", "1MiB/s"], "cannot be used with"),
    ] {
        let output = efface().args(["wipe", "/dev/null", "--yes"]).args(options).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(words), "{options:?}: {stderr}");
    }
}
