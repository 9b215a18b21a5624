//! Signals, and readers that go away: the disk's truth does not depend on who listens.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::loops::Loop;
use crate::program::efface;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

#[test]
fn a_signal_drains_flushes_and_is_raised_again() {
    for (signal, number, word) in [(Signal::SIGINT, 2, "interrupted"), (Signal::SIGTERM, 15, "terminated")] {
        let Some(device) = Loop::new(&vec![b'x'; 64 << 20], &[]) else { return };
        let mut child = efface()
            .arg("wipe")
            .arg(&device.node)
            .args(["--yes", "--json", "--rate", "16MiB/s"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Step 0 is the survey.
        let progressed = |line: &String| line.contains("\"progress\",\"step\":1");
        lines.by_ref().map(Result::unwrap).find(progressed).expect("it makes progress");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();

        let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "the parent sees the signal");
        let result = rest.last().unwrap();
        assert_eq!((&result["event"], &result["verdict"]), (&"result".into(), &word.into()));
        assert_eq!(result["exit_code"], 128 + number);
        let checkpoint =
            rest.iter().find(|line| line["event"] == "checkpoint" && line["step"] == 1).expect("flushed");
        let upto = checkpoint["upto"].as_u64().unwrap() as usize;
        let content = device.content();
        assert!(upto > 0 && upto < content.len(), "{upto}");
        assert!(content[..upto].iter().all(|byte| *byte == 0), "what was claimed is there");
        assert!(content[upto..].contains(&b'x'), "it did stop");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_wipe() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let mut child = efface()
        .arg("wipe")
        .arg(&device.node)
        .args(["--yes", "--json", "--rate", "32MiB/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("no more JSON lines").count(), 1, "{stderr}");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn progress_goes_to_a_descriptor_of_its_own() {
    let Some(device) = Loop::new(&vec![0; 1 << 20], &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    let script = format!(
        "exec {} wipe {} --yes --quiet --progress-fd 7 7>{}",
        env!("CARGO_BIN_EXE_efface"),
        device.node.display(),
        progress.display()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let lines = std::fs::read_to_string(progress).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["v"] == 1));
    assert_eq!(events[0]["event"], "started");
    assert_eq!(events.last().unwrap()["verdict"], "wiped");
}

/// The limit is a limit. (That it is reached is for the benchmarks: tests do not time.)
#[test]
fn a_rate_is_kept() {
    let Some(device) = Loop::new(&vec![0; 8 << 20], &[]) else { return };
    let started = Instant::now();
    let status = efface()
        .arg("wipe")
        .arg(&device.node)
        .args(["--yes", "--quiet", "--rate", "8MiB/s", "--verify", "none"])
        .status()
        .unwrap();
    assert!(status.success());
    assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
}
