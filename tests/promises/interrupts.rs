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

/// A wipe that takes a while, under a shell's prefix such as nohup.
fn long_wipe(device: &Loop, prefix: &[&str]) -> std::process::Child {
    let program = env!("CARGO_BIN_EXE_efface");
    let words = [prefix, &[program, "wipe", device.node.to_str().unwrap()]].concat();
    std::process::Command::new(words[0])
        .args(&words[1..])
        .args(["--yes", "--json", "--rate", "16MiB/s", "--verify", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_progress(child: &mut std::process::Child) {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    while !line.contains("\"progress\"") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it makes progress");
    }
}

#[test]
fn a_terminal_that_hangs_up_ends_it_well_but_not_under_nohup() {
    // Whatever the tests themselves run under.
    let terminal = ["env", "--default-signal=HUP", "--unset=INVOCATION_ID"];
    for (prefix, signal) in [(&terminal[..], Some(15)), (&["nohup"], None)] {
        let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
        let mut child = long_wipe(&device, prefix);
        wait_for_progress(&mut child);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), signal, "{prefix:?}: {output:?}");
        assert_eq!(device.content().contains(&b'x'), signal.is_some(), "{prefix:?}");
    }
}

#[test]
fn sigusr1_asks_for_the_state() {
    let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
    let mut child = long_wipe(&device, &[]);
    wait_for_progress(&mut child);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let told = stderr.lines().find(|line| line.contains(" %, ")).expect("the state");
    assert!(told.contains("step 1 of 1, overwrite 0x00: ") && told.contains("of 24.00 MiB"), "{told}");
}

/// A terminal that is gone takes no more lines, and the wipe goes on.
#[test]
fn stderr_that_went_away_does_not_stop_the_wipe() {
    let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
    let mut child = long_wipe(&device, &[]);
    drop(child.stderr.take());
    wait_for_progress(&mut child);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn metrics_are_a_textfile_and_devices_go_one_after_the_other_where_asked() {
    let (Some(one), Some(two)) = (Loop::new(&vec![b'x'; 4 << 20], &[]), Loop::new(&vec![b'x'; 4 << 20], &[]))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("efface.prom");
    let output = efface()
        .arg("wipe")
        .args([&one.node, &two.node])
        .args(["--yes", "--json", "--parallel", "1", "--metrics"])
        .arg(&metrics)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(metrics).unwrap();
    for device in [&one.node, &two.node] {
        assert!(text.contains(&format!("efface_exit_code{{device=\"{}\"}} 0\n", device.display())), "{text}");
    }
    assert!(text.lines().all(|line| line.starts_with('#') || line.split(' ').count() == 2), "{text}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let devices: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["device"].clone())
        .filter(|device| !device.is_null())
        .collect();
    assert_eq!(devices.chunk_by(|one, other| one == other).count(), 2, "one after the other");
}

#[test]
fn systemd_is_told_how_far_it_is() {
    let Some(device) = Loop::new(&vec![b'x'; 4 << 20], &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let status = efface()
        .arg("wipe")
        .arg(&device.node)
        .args(["--yes", "--quiet"])
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .status()
        .unwrap();
    assert!(status.success());
    let mut told = vec![0; 4096];
    let length = socket.recv(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]).into_owned();
    let status = format!("STATUS={}: ", device.node.display());
    assert!([&status, "WATCHDOG=1", "READY=1"].iter().all(|words| told.contains(*words)), "{told}");
}
