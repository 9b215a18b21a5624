//! Signals and closed readers: neither changes what happens to the disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::loops::{Loop, is_root};
use crate::program::efface;
use efface::internals::engine::event::Event;
use efface::internals::progress::{OutputOptions, Report};
use efface::internals::session::Outcome;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
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
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let lines = std::fs::read_to_string(progress).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["v"] == 1));
    assert_eq!(events[0]["event"], "started");
    assert_eq!(events.last().unwrap()["verdict"], "wiped");
}

/// A wipe that takes a while, under a shell's prefix such as nohup.
fn long_wipe(device: &Loop, prefix: &[&str]) -> Child {
    let program = env!("CARGO_BIN_EXE_efface");
    let words = [prefix, &[program, "wipe", device.node.to_str().unwrap()]].concat();
    Command::new(words[0])
        .args(&words[1..])
        .args(["--yes", "--json", "--rate", "16MiB/s", "--verify", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_progress(child: &mut Child) {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    while !line.contains("\"progress\"") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it makes progress");
    }
}

#[test]
fn a_terminal_hangup_ends_the_wipe_cleanly_and_not_under_nohup() {
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
fn sigusr1_prints_the_status() {
    let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
    let mut child = long_wipe(&device, &[]);
    wait_for_progress(&mut child);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let context = stderr.lines().find(|line| line.contains(" %, ")).expect("the state");
    assert!(
        context.contains("step 1 of 1, overwrite 0x00: ") && context.contains("of 24.00 MiB"),
        "{context}"
    );
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
fn systemd_gets_status_and_watchdog_messages() {
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
    let mut context = vec![0; 4096];
    let length = socket.recv(&mut context).unwrap();
    let context = String::from_utf8_lossy(&context[..length]).into_owned();
    let status = format!("STATUS={}: ", device.node.display());
    assert!([&status, "WATCHDOG=1", "READY=1"].iter().all(|words| context.contains(*words)), "{context}");
}

/// A pipe that is full; its end to read from is kept, and not read.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

/// A wipe whose stdout, stderr and --progress-fd lead there. The certificate is written before any
/// reader is waited for, and what was wiped is a success.
fn is_wiped_without_a_reader(to: &OwnedFd, options: &[&str]) {
    let Some(device) = Loop::new(&vec![b'x'; 8 << 20], &[]) else { return };
    let kept = tempfile::tempdir().unwrap();
    let end = || Stdio::from(to.try_clone().unwrap());
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" 7>&2", env!("CARGO_BIN_EXE_efface"), "wipe"])
        .arg(&device.node)
        .args(["--yes", "--progress-fd", "7", "--rate", "16MiB/s", "--certificate-to"])
        .arg(kept.path())
        .args(options)
        .stdin(Stdio::null())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    // However loaded the machine is: it ends by itself, half a minute after its work.
    let deadline = Instant::now() + Duration::from_secs(90);
    let is_kept = || {
        let mut entries = std::fs::read_dir(kept.path()).unwrap().flatten();
        entries.any(|entry| entry.path().extension().is_some_and(|kind| kind == "json"))
    };
    let mut kept_before_the_end = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        kept_before_the_end |= is_kept();
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it never ends; certificate: {}", is_kept());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    assert!(kept_before_the_end, "the certificate does not wait for a reader");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn a_pipe_that_no_process_reads_stops_neither_the_wipe_nor_its_record() {
    let (_reader, writer) = full_pipe();
    is_wiped_without_a_reader(&writer, &["--json"]);
}

#[test]
fn a_pipe_that_no_process_reads_keeps_events_and_drops_progress() {
    const EVENTS: usize = 1000;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let wanted = OutputOptions { progress: Some(writer), quiet: true, ..OutputOptions::default() };
    let mut report = Report::new(wanted, &["disk".into()]);
    for bytes in 0..10 * EVENTS as u64 {
        report.watch(0, &Event::Progress { step: 0, bytes });
        if bytes % 10 == 0 {
            report.watch(0, &Event::Checkpoint { step: 0, upto: bytes });
        }
    }
    let reader = std::thread::spawn(|| {
        let mut lines: Vec<String> = Vec::new();
        let mut each = BufReader::new(File::from(reader)).lines();
        while !lines.last().is_some_and(|line| line.contains("\"result\"")) {
            lines.push(each.next().unwrap().unwrap());
        }
        lines
    });
    report.end(&Outcome::default());
    let lines = reader.join().unwrap();
    let count = |kind: &str| lines.iter().filter(|line| line.contains(kind)).count();
    assert_eq!(count("checkpoint"), EVENTS);
    // What the pipe held when it was full, and what waited behind it.
    assert!((1..3000).contains(&count("progress")), "{} of {}", count("progress"), 10 * EVENTS);
}

#[test]
fn a_terminal_that_is_paused_stops_neither_the_wipe_nor_its_record() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    // Ctrl-S
    nix::unistd::write(&terminal.master, &[0x13]).unwrap();
    is_wiped_without_a_reader(&terminal.slave, &[]);
}

/// As timeout(1) sends it: to its child, and to the group that its child is in.
#[test]
fn the_same_signal_twice_within_a_second_is_one() {
    for (signal, number, word) in [(Signal::SIGINT, 2, "interrupted"), (Signal::SIGTERM, 15, "terminated")] {
        let Some(device) = Loop::new(&vec![b'x'; 64 << 20], &[]) else { return };
        let mut child = long_wipe(&device, &[]);
        wait_for_progress(&mut child);
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, signal).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        // It may have ended by now.
        kill(pid, signal).ok();
        let output = child.wait_with_output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let result: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((&result["event"], &result["verdict"]), (&"result".into(), &word.into()));
        assert_eq!(output.status.signal(), Some(number));
    }
}

/// Whether a process has a handler for a signal.
fn handles(child: &Child, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (signal as u64 - 1)) != 0
}

#[test]
fn sigusr1_does_not_end_a_process_that_waits_for_a_device() {
    let Some(device) = Loop::new(&vec![b'x'; 1 << 20], &[]) else { return };
    let lock = Flock::lock(File::open(&device.node).unwrap(), FlockArg::LockExclusive).unwrap();
    let mut command = efface();
    command.arg("wipe").arg(&device.node).args(["--yes", "--quiet", "--wait", "60"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !handles(&child, Signal::SIGUSR1) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "efface: waiting: nothing has been written yet\n");
    drop(lock);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(device.content().iter().all(|byte| *byte == 0));
}

/// efface under limits that a shell sets.
fn limited(limits: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_efface")]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_with_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![b'x'; 4 << 20]).unwrap();
    let image = image.to_str().unwrap();
    let arguments = ["wipe", image, "--image", "--yes", "--verify", "none"];
    let output = limited("ulimit -f 2048", &arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("File too large") && stderr.contains("ulimit -f"), "{stderr}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("FAILED (exit code 1)"));
}

#[test]
fn an_ordinary_user_who_may_lock_no_memory_wipes_one_io_at_a_time() {
    if !is_root() {
        return;
    }
    const USER: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![b'x'; 1 << 20]).unwrap();
    for path in [folder.path(), &image] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    let state = folder.path().join("state");
    let arguments = ["wipe", image.to_str().unwrap(), "--image", "--yes", "--json", "--state-dir"];
    let mut command = limited("ulimit -l 0", &[&arguments[..], &[state.to_str().unwrap()]].concat());
    let output = command.uid(USER).gid(USER).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let path = &result["devices"][0]["job"]["io_path"];
    // Kernels before 5.12, and those that count the ring itself, have no ring; others lose less.
    let fallbacks = path["fallbacks"].to_string();
    assert!(fallbacks.contains("Cannot allocate memory"), "{path}");
    assert!(std::fs::read(&image).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn no_job_writes_a_core_dump() {
    let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
    let arguments = ["wipe", device.node.to_str().unwrap(), "--yes", "--json", "--rate", "16MiB/s"];
    let mut child = limited("ulimit -c unlimited", &arguments).spawn().unwrap();
    wait_for_progress(&mut child);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().take(2).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(core, ["1", "1"], "the one limit that programs which collect dumps keep to");
}

#[test]
fn an_interruption_reports_its_progress_and_the_command_that_resumes() {
    let Some(device) = Loop::new(&vec![b'x'; 64 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    let node = device.node.to_str().unwrap();
    let arguments = ["wipe", node, "--yes", "--state-dir", state.path().to_str().unwrap(), "--rate"];
    let child = limited("true", &[&arguments[..], &["16MiB/s"]].concat()).spawn().unwrap();
    let at_work = || {
        let output = efface().args(["jobs", "--json", "--state-dir"]).arg(state.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains("\"step_name\": \"overwrite 0x00\"")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !at_work() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // The report is wrapped.
    let report = String::from_utf8_lossy(&output.stdout);
    let report = report.split_whitespace().collect::<Vec<&str>>().join(" ");
    let step = report.split("step 2 overwrite 0x00: ").nth(1).unwrap_or(&report);
    let step = step.split(" claim ").next().unwrap_or_default();
    assert!(step.contains(" MiB of 64.00 MiB in ") && step.contains("MB/s, flushed"), "{step}");
    assert!(stderr.contains(&format!("go on with: efface wipe {node} --resume")), "{stderr}");

    // Without it a warning is logged, and not in colours where no terminal is.
    let arguments = [&arguments[..], &["1GiB/s"]].concat();
    let output = limited("unset CLICOLOR_FORCE", &arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("starts over (--resume goes on)") && !stderr.contains('\x1b'), "{stderr:?}");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}
