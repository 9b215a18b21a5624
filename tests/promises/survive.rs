//! Kills, hangs and concurrent wipes on loop devices: no progress is lost beyond an epoch, and nothing is
//! claimed that is not there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::file_systems::FileSystem;
use crate::loops::{Loop, skipped};
use crate::program::efface;

/// A wipe with a journal in this folder.
fn command(device: &Path, state: &Path, options: &[&str]) -> Command {
    let mut command = efface();
    command.arg("wipe").arg(device).args(["--yes", "--json", "--state-dir"]).arg(state).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The last line of the JSON, the exit code and stderr.
fn finish(child: Child) -> (Value, Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let last = lines.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
    (last, output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn run(device: &Path, state: &Path, options: &[&str]) -> (Value, Option<i32>, String) {
    finish(command(device, state, options).spawn().unwrap())
}

fn job(result: &Value) -> &Value {
    &result["devices"][0]["job"]
}

fn jobs(state: &Path) -> Vec<Value> {
    let output = efface().args(["jobs", "--json", "--state-dir"]).arg(state).output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    listed["jobs"].as_array().unwrap().clone()
}

fn wait_for(child: &mut Child, words: &str) {
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it says {words}");
    }
}

fn seed_of_the_last_pass(result: &Value) -> String {
    let steps = job(result)["plan"]["steps"].as_array().unwrap();
    let seed = steps.iter().rev().find_map(|step| step["operation"]["pattern"]["seed"].as_str());
    seed.unwrap().into()
}

/// `scripts/soak` asks for more.
fn kills() -> u64 {
    std::env::var("EFFACE_KILLS").map_or(20, |kills| kills.parse().expect("EFFACE_KILLS is a number"))
}

/// Killed at random moments until it comes to its end: then every byte is the last pass's.
#[test]
fn a_wipe_that_is_killed_again_and_again_completes() {
    const SIZE: usize = 24 << 20;
    let Some(device) = Loop::new(&vec![b'x'; SIZE], &[]) else { return };
    let (state, certificates) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kept = ["--certificate-to", certificates.path().to_str().unwrap()];
    let options =
        ["--resume", "--method", "shred", "--verify", "full", "--epoch-size", "1MiB", "--rate", "150MiB/s"];
    let options = [&options[..], &kept[..]].concat();
    let mut moment = [0; 8];
    let mut went_on = 0;
    for _ in 0..kills() {
        getrandom::fill(&mut moment).unwrap();
        let child = command(&device.node, state.path(), &options).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from_le_bytes(moment) % 500));
        kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).ok();
        finish(child);
        went_on += u64::from(jobs(state.path()).iter().any(|job| job["state"] == "resumable"));
    }
    let (result, code, stderr) = run(&device.node, state.path(), &options);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(went_on > 0, "nothing was ever left to be resumed");
    assert_eq!(jobs(state.path())[0]["state"], "ended");
    let mut expected = vec![0; SIZE];
    let pattern: efface::internals::pattern::Pattern =
        format!("random:{}", seed_of_the_last_pass(&result)).parse().unwrap();
    pattern.fill(0, &mut expected);
    assert!(device.content() == expected, "every byte is the last pass's");

    let left: Vec<String> = [state.path(), certificates.path()]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let kept = |name: &String| name == "journal.key" || name.ends_with(".journal") || name.ends_with(".json");
    assert!(left.iter().all(kept), "{left:?}");
}

#[test]
fn a_signal_keeps_the_journal_and_only_resume_uses_it() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    let slow = ["--method", "random", "--epoch-size", "4MiB", "--rate", "16MiB/s"];
    let stop = |options: &[&str]| {
        let mut child = command(&device.node, state.path(), options).spawn().unwrap();
        wait_for(&mut child, "\"checkpoint\",\"step\":1");
        let running = jobs(state.path());
        assert!(running.iter().any(|job| job["state"] == "running" && job["total_bytes"].as_u64() > Some(0)));
        let pid = child.id();
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
        (finish(child).0, pid)
    };
    let (first, pid) = stop(&slow);
    assert_eq!(first["verdict"], "terminated");
    assert_eq!(jobs(state.path())[0]["state"], "resumable");

    let (result, code, stderr) =
        run(&device.node, state.path(), &["--resume", "--method", "random", "--epoch-size", "4MiB"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(seed_of_the_last_pass(&result), seed_of_the_last_pass(&first), "the same stream goes on");
    let resumed = &job(&result)["resumed"][0];
    assert_eq!((&resumed["trusted"], &resumed["differing_bytes"]), (&false.into(), &0.into()), "{resumed}");
    assert!(resumed["upto"].as_u64().unwrap() >= 4 << 20);
    assert_eq!(resumed["reread_bytes"], resumed["upto"], "its file can be written to past a loop's counter");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(
        (&resumed["earlier"]["pid"], &resumed["now"]["boot_id"]),
        (&pid.into(), &boot_id.trim().into())
    );
    let limitations = result["devices"][0]["limitations"].to_string();
    for process in [&resumed["earlier"]["pid"], &resumed["now"]["pid"]] {
        let words = format!("(process {process} of boot {})", boot_id.trim());
        assert!(limitations.contains(&words), "{limitations}");
    }

    let (second, _) = stop(&slow);
    let (result, code, stderr) = run(&device.node, state.path(), &["--method", "random"]);
    assert_eq!(code, Some(0));
    assert!(stderr.contains("starts over (--resume goes on)"), "{stderr}");
    assert_ne!(seed_of_the_last_pass(&result), seed_of_the_last_pass(&second));
    assert!(job(&result)["resumed"].as_array().unwrap().is_empty());
}

/// A second SIGINT ends it at once, and the journal stays valid.
#[test]
fn a_second_signal_ends_the_process_and_keeps_a_valid_journal() {
    let Some(frozen) = Frozen::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let options = ["--rate", "16MiB/s", "--verify", "full", "--epoch-size", "4MiB"];
    let mut child = command(&frozen.device.node, state.path(), &options).spawn().unwrap();
    wait_for(&mut child, "\"checkpoint\",\"step\":1,\"upto\":4194304");
    // What is in flight now is not answered, so that the first signal waits for it.
    frozen.freeze("--freeze");
    std::thread::sleep(Duration::from_millis(300));
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    // Sooner it would count as the same request.
    std::thread::sleep(Duration::from_millis(1200));
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    frozen.freeze("--unfreeze");
    let (result, _, stderr) = finish(child);
    assert_ne!(result["event"], "result", "it did not wait: {stderr}");
    let (result, code, stderr) = run(&frozen.device.node, state.path(), &["--resume", "--verify", "full"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(job(&result)["resumed"][0]["upto"].as_u64() >= Some(4 << 20), "{result}");
    assert!(frozen.device.content().iter().all(|byte| *byte == 0));
}

/// As of a logical volume that another tenant had in between: nothing is trusted, and differences are rewritten.
#[test]
fn foreign_writes_between_two_runs_are_found() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    let options = ["--resume", "--verify", "full", "--epoch-size", "4MiB"];
    let mut child = command(&device.node, state.path(), &[&options[..], &["--rate", "16MiB/s"]].concat())
        .spawn()
        .unwrap();
    wait_for(&mut child, "\"checkpoint\",\"step\":1,\"upto\":8388608");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    finish(child);
    let status = Command::new("dd")
        .args(["if=/dev/urandom", "bs=4096", "count=1", "seek=100", "oflag=direct", "conv=nocreat,fsync"])
        .arg(format!("of={}", device.node.display()))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    // One that is killed before it has detected that does not change the journal.
    let slow = [&options[..], &["--rate", "1MiB/s"]].concat();
    let mut child = command(&device.node, state.path(), &slow).spawn().unwrap();
    wait_for(&mut child, "read again what was written");
    child.kill().unwrap();
    child.wait().unwrap();
    let (result, code, stderr) = run(&device.node, state.path(), &options);
    assert_eq!(code, Some(0), "{stderr}");
    let resumed = &job(&result)["resumed"][0];
    assert_eq!(
        (&resumed["trusted"], &resumed["differing_bytes"]),
        (&false.into(), &4096.into()),
        "{resumed}"
    );
    let said = result["devices"][0]["limitations"].to_string();
    assert!(said.contains("whether there were foreign writes in between is not known"), "{said}");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

/// The one file of a journal.
fn journal(state: &Path) -> PathBuf {
    let files = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "journal")).unwrap()
}

/// A journal changed by root, which has its key.
fn change(journal: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(journal).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    assert!(rest.contains(old), "{old}");
    let rest = rest.replace(old, new);
    let key = fs::read(journal.with_file_name("journal.key")).unwrap();
    let seal = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&rest).finalize().into_bytes();
    fs::write(journal, format!("{}\n{rest}", hex::encode(seal))).unwrap();
}

/// The name that belongs to the disk in a journal.
fn name_of(journal: &Path) -> PathBuf {
    let text = fs::read_to_string(journal).unwrap();
    let entry: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let disk: std::collections::BTreeMap<String, String> =
        serde_json::from_value(entry["disk"].clone()).unwrap();
    let name = &hex::encode(Sha256::digest(format!("{disk:?}")))[..32];
    journal.with_file_name(format!("{name}.journal"))
}

/// Stopped in the full check behind the pass.
fn stopped_in_the_check(device: &Loop, state: &TempDir) {
    let options = ["--rate", "24MiB/s", "--epoch-size", "4MiB", "--verify", "full"];
    let mut child = command(&device.node, state.path(), &options).spawn().unwrap();
    wait_for(&mut child, "\"checkpoint\",\"step\":2,\"upto\":16777216");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(finish(child).0["verdict"], "terminated");
}

/// Through the loop's file, which no counter of the loop device sees.
fn write_old_data_below_the_mark(device: &Loop) {
    let file = fs::File::options().write(true).open(&device.image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'x'; 4 << 20], 8 << 20).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn old_data_that_comes_back_below_the_mark_of_a_check_is_overwritten() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    stopped_in_the_check(&device, &state);
    write_old_data_below_the_mark(&device);
    let options = ["--resume", "--verify", "full", "--epoch-size", "4MiB"];
    let (result, code, stderr) = run(&device.node, state.path(), &options);
    let clean = device.content().iter().all(|byte| *byte == 0);
    assert!(clean || code != Some(0), "old data is left: {result}");
    assert_eq!((clean, code), (true, Some(0)), "{stderr}");
    let resumed = &job(&result)["resumed"][0];
    assert_eq!((&resumed["trusted"], &resumed["differing_bytes"]), (&false.into(), &(4 << 20).into()));
    assert_eq!(job(&result)["verification"]["bytes_read"], 32 << 20);
}

/// A process that can write to the folder does not have the key: a hash that fits is not enough.
#[test]
fn a_journal_that_was_changed_without_its_key_is_not_trusted() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    stopped_in_the_check(&device, &state);
    write_old_data_below_the_mark(&device);
    let file = journal(state.path());
    let text = fs::read_to_string(&file).unwrap();
    let rest = text.split_once('\n').unwrap().1.replace("\"written_bytes\":null", "\"written_bytes\":0");
    fs::write(&file, format!("{}\n{rest}", hex::encode(Sha256::digest(&rest)))).unwrap();
    assert_eq!(jobs(state.path())[0]["state"], "damaged");
    let (result, code, stderr) = run(&device.node, state.path(), &["--resume", "--verify", "full"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("its journal is damaged (its seal is wrong"), "{stderr}");
    assert!(job(&result)["resumed"].as_array().unwrap().is_empty(), "it began again");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

fn interrupted(device: &Loop, state: &TempDir) {
    let mut child =
        command(&device.node, state.path(), &["--rate", "16MiB/s", "--epoch-size", "4MiB"]).spawn().unwrap();
    wait_for(&mut child, "\"checkpoint\",\"step\":1");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    finish(child);
}

#[test]
fn another_disk_at_the_same_path_and_other_work_are_refused() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    interrupted(&device, &state);
    let before = device.content();
    for other_work in [&["--resume", "--method", "shred"][..], &["--resume", "--offset", "16MiB"]] {
        let (_, code, stderr) = run(&device.node, state.path(), other_work);
        assert!(
            code == Some(3) && stderr.contains("what is to be resumed is other work"),
            "{code:?} {stderr}"
        );
    }
    // Another one by its marks, under the name of the file that the other disk's journal would have.
    let old = journal(state.path());
    let text = fs::read_to_string(&old).unwrap();
    let (_, mark) = text.split_once("\"disk_sequence\":\"").unwrap();
    let mark = format!("\"disk_sequence\":\"{}\"", mark.split_once('"').unwrap().0);
    change(&old, &mark, "\"disk_sequence\":\"0\"");
    fs::rename(&old, name_of(&old)).unwrap();
    let (_, code, stderr) = run(&device.node, state.path(), &["--resume"]);
    assert!(code == Some(3) && stderr.contains("it is another disk"), "{code:?} {stderr}");
    assert!(device.content() == before, "nothing was written");
}

#[test]
fn a_damaged_journal_costs_the_progress_and_a_clock_that_was_set_back_nothing() {
    let Some(device) = Loop::new(&vec![b'x'; 32 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    interrupted(&device, &state);
    let file = journal(state.path());
    let text = fs::read(&file).unwrap();
    for (at, len) in [(text.len() / 2, text.len()), (100, text.len()), (0, 0), (text.len(), text.len() - 10)]
    {
        let mut damaged = text.clone();
        damaged.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
        damaged.truncate(len);
        fs::write(&file, damaged).unwrap();
        assert_eq!(jobs(state.path())[0]["state"], "damaged");
    }
    let (result, code, stderr) = run(&device.node, state.path(), &["--resume", "--rate", "1GiB/s"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("its journal is damaged") && job(&result)["resumed"].as_array().unwrap().is_empty()
    );

    interrupted(&device, &state);
    let text = fs::read_to_string(&file).unwrap();
    let year = jiff::Timestamp::now().to_string()[..4].to_string();
    assert!(text.contains(&format!("\"written\":\"{year}")));
    change(&file, &format!("\"written\":\"{year}"), "\"written\":\"2199");
    change(&file, &format!("\"begun\":\"{year}"), "\"begun\":\"2199");
    let (result, code, stderr) = run(&device.node, state.path(), &["--resume"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(job(&result)["resumed"][0]["differing_bytes"], 0);
}

/// In a mount namespace of its own, with a small file system for the journals.
fn beside(state: &Path, mount: &str, device: &Path) -> Option<(Option<i32>, String)> {
    let script = format!(
        "mount -t tmpfs {mount} none {state} && {{ head -c 100k /dev/zero >{state}/full 2>/dev/null; \
         exec {program} wipe {device} --yes --quiet --state-dir {state}; }} || exit 99",
        state = state.display(),
        program = env!("CARGO_BIN_EXE_efface"),
        device = device.display(),
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(99) => skipped(&format!("no mounts here: {stderr}")),
        code => Some((code, stderr)),
    }
}

#[test]
fn a_journal_that_cannot_be_kept_stops_no_wipe() {
    for (mount, why) in
        [("-o mode=700,ro", "Read-only file system"), ("-o mode=700,size=16k", "No space left on device")]
    {
        let Some(device) = Loop::new(&vec![b'x'; 4 << 20], &[]) else { return };
        let state = tempfile::tempdir().unwrap();
        let Some((code, stderr)) = beside(state.path(), mount, &device.node) else { return };
        assert_eq!(code, Some(0), "{mount}: {stderr}");
        assert!(
            stderr.matches("no journal can be kept").count() == 1 && stderr.contains(why),
            "{mount}: {stderr}"
        );
        assert!(device.content().iter().all(|byte| *byte == 0));
    }
    let Some(device) = Loop::new(&vec![b'x'; 4 << 20], &[]) else { return };
    let (_, code, stderr) = run(&device.node, Path::new("/dev/null/jobs"), &[]);
    assert!(code == Some(0) && stderr.contains("no journal can be kept (Not a directory"), "{stderr}");
}

/// A second node of the same device.
fn other_node(device: &Path, folder: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let node = folder.join("node");
    let number = fs::metadata(device).unwrap().rdev();
    let kind = nix::sys::stat::SFlag::S_IFBLK;
    nix::sys::stat::mknod(&node, kind, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR, number)
        .unwrap();
    node
}

/// Started together a hundred times, by one name or by two: one writes, the other waits or says busy.
#[test]
fn of_two_concurrent_wipes_exactly_one_writes() {
    let Some(device) = Loop::new(&vec![b'x'; 1 << 20], &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let other = other_node(&device.node, folder.path());
    let mut busy = 0;
    for round in 0..100 {
        let second = if round % 2 == 0 { &device.node } else { &other };
        let wait: &[&str] = if round % 4 < 2 { &["--no-wait"] } else { &["--wait", "60"] };
        let children = [&device.node, second].map(|node| command(node, folder.path(), wait).spawn().unwrap());
        let codes = children.map(|child| finish(child).1);
        busy += codes.iter().filter(|code| **code == Some(7)).count();
        let one_at_least = codes.contains(&Some(0));
        let fair = codes.iter().all(|code| *code == Some(0) || (*code == Some(7) && round % 4 < 2));
        assert!(one_at_least && fair, "round {round}: {codes:?}");
    }
    assert!(busy > 0, "they never met");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn a_killed_wipe_leaves_the_device_free() {
    let Some(device) = Loop::new(&vec![b'x'; 64 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut child = command(&device.node, state.path(), &["--rate", "64MiB/s"]).spawn().unwrap();
        wait_for(&mut child, "\"progress\",\"step\":1");
        child.kill().unwrap();
        // Not waited for: its ring may still be closing.
        let (_, code, stderr) = run(&device.node, state.path(), &["--rate", "1GiB/s"]);
        assert_eq!(code, Some(0), "{stderr}");
        child.wait().unwrap();
    }
}

/// The highest number of a held ticket.
fn last_ticket() -> u64 {
    let names = fs::read_dir("/run/efface").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("ticket-")?.parse().ok()).max().unwrap_or(0)
}

/// Of the tests that use the host's slots, one at a time.
static SLOTS: Mutex<()> = Mutex::new(());

#[test]
fn eight_processes_share_two_slots_in_fifo_order() {
    let _slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let devices: Vec<Loop> = (0..9).filter_map(|_| Loop::new(&vec![b'x'; 2 << 20], &[])).collect();
    let (9, Ok(state)) = (devices.len(), tempfile::tempdir()) else { return };
    let (ninth, devices) = devices.split_last().unwrap();
    let options = ["--slots", "2", "--rate", "2MiB/s", "--verify", "none"];
    let start = |device: &Loop| {
        let before = last_ticket();
        let child = command(&device.node, state.path(), &options).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while last_ticket() <= before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    };
    let children: Vec<Child> = devices.iter().map(start).collect();
    let (_, code, stderr) = run(&ninth.node, state.path(), &["--slots", "2", "--no-wait"]);
    assert!(code == Some(7) && stderr.contains("2 may work at once"), "{code:?} {stderr}");
    let (mut times, mut waited) = (Vec::new(), 0);
    for child in children {
        let (result, code, stderr) = finish(child);
        assert_eq!(code, Some(0), "{stderr}");
        waited += usize::from(stderr.contains("efface: waiting: "));
        let time = |step: &Value| -> jiff::Timestamp { step.as_str().unwrap().parse().unwrap() };
        let step = &job(&result)["steps"][0];
        times.push((time(&step["started"]), time(&step["ended"])));
    }
    assert!(waited > 2, "only {waited} said that they wait");
    let beside = |(start, _): &(jiff::Timestamp, jiff::Timestamp)| {
        times.iter().filter(|(from, to)| from <= start && start < to).count()
    };
    assert!(times.iter().all(|time| beside(time) <= 2), "two at a time: {times:?}");
    // Two that are let in together may begin in either order.
    let in_turn = times.windows(3).all(|three| three[0].0 <= three[2].0);
    assert!(in_turn, "in their order: {times:?}");

    // A place dies with its holder.
    let mut killed = start(ninth);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let (_, code, stderr) = run(&devices[0].node, state.path(), &["--slots", "1", "--no-wait"]);
    assert_eq!(code, Some(0), "{stderr}");
}

/// The one that has the device locked works only after it has waited for its slot.
#[test]
fn the_time_that_a_devices_holder_waits_for_its_slot_does_not_count() {
    let _slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let devices: Vec<Loop> = (0..2).filter_map(|_| Loop::new(&vec![b'x'; 8 << 20], &[])).collect();
    let ([first, second], Ok(state)) = (&devices[..], tempfile::tempdir()) else { return };
    let slow = ["--slots", "1", "--rate", "2MiB/s", "--verify", "none"];
    let mut works = command(&first.node, state.path(), &slow).spawn().unwrap();
    wait_for(&mut works, "\"progress\",\"step\":0");
    let queued = command(&second.node, state.path(), &["--slots", "1"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while jobs(state.path()).len() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let (_, code, stderr) = run(&second.node, state.path(), &["--slots", "1", "--wait", "1"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(begun.elapsed() > Duration::from_secs(2), "the one before it was queued for longer");
    assert_eq!([finish(works).1, finish(queued).1], [Some(0); 2]);
}

/// A device whose every write waits: a loop device over a file on a frozen file system.
struct Frozen {
    device: Loop,
    disk: FileSystem,
}

impl Frozen {
    fn new() -> Option<Frozen> {
        let disk = FileSystem::new(96 << 20)?;
        Some(Frozen { device: disk.device(32 << 20)?, disk })
    }

    fn freeze(&self, how: &str) {
        assert!(Command::new("fsfreeze").arg(how).arg(self.disk.folder.path()).status().unwrap().success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(self.disk.folder.path())
            .stderr(Stdio::null())
            .status()
            .ok();
        Command::new("losetup").arg("--detach").arg(&self.device.node).status().ok();
        fs::remove_file(&self.device.image).ok();
    }
}

/// The verdict comes by the deadline, whatever the device does; so does the other device's.
#[test]
fn a_device_that_hangs_is_given_up_in_time_and_the_other_goes_on() {
    let (Some(frozen), Some(good)) = (Frozen::new(), Loop::new(&vec![b'x'; 4 << 20], &[])) else { return };
    let state = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let mut command =
        command(&frozen.device.node, state.path(), &["--rate", "16MiB/s", "--io-timeout", "1s"]);
    command
        .arg(&good.node)
        .args(["--give-up-after", "3s", "--verify", "none", "--certificate-to"])
        .arg(kept.path());
    let mut child = command.spawn().unwrap();
    wait_for(&mut child, "\"progress\",\"step\":0");
    frozen.freeze("--freeze");
    let started = Instant::now();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let late = lines.by_ref().find(|line| line.contains("\"late\"")).expect("it says that it waits");
    assert!(late.contains("\"operation\":\"write\"") && late.contains("\"start\":"), "{late}");
    let result = lines.by_ref().find(|line| line.contains("\"event\":\"result\"")).expect("a result");
    let took = started.elapsed();
    let certificates = fs::read_dir(kept.path()).unwrap().count();
    frozen.freeze("--unfreeze");
    let (_, code, stderr) = finish(child);
    assert!(took < Duration::from_secs(60), "while it hung, not after: {took:?}");
    let result: Value = serde_json::from_str(&result).unwrap();
    let verdicts: Vec<&str> = result["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["verdict"].as_str().unwrap())
        .collect();
    assert_eq!((verdicts, code), (vec!["failed", "wiped"], Some(1)), "{stderr}");
    assert!(stderr.contains("has not been answered for") || stderr.contains("has not come back"), "{stderr}");
    assert_eq!(certificates, 2, "the records were written while it hung");
    assert_eq!(jobs(state.path())[0]["state"], "resumable");
}

/// docs/errors.md: 15 s in all, for what is in flight and for the calls behind it.
#[test]
fn a_signal_ends_a_job_whose_device_hangs_in_time() {
    let Some(frozen) = Frozen::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let options = ["--rate", "16MiB/s", "--verify", "none"];
    let mut child = command(&frozen.device.node, state.path(), &options).spawn().unwrap();
    wait_for(&mut child, "\"progress\",\"step\":0");
    frozen.freeze("--freeze");
    std::thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let result = lines.by_ref().find(|line| line.contains("\"event\":\"result\"")).expect("a result");
    let took = asked.elapsed();
    frozen.freeze("--unfreeze");
    let (_, code, stderr) = finish(child);
    let result: Value = serde_json::from_str(&result).unwrap();
    assert_eq!((&result["verdict"], code), (&"failed".into(), Some(1)), "{stderr}");
    assert!(took < Duration::from_secs(19), "{took:?}");
}

#[test]
fn a_device_detached_during_a_wipe_still_gets_its_record() {
    let Some(device) = Loop::new(&vec![b'x'; 24 << 20], &[]) else { return };
    let state = tempfile::tempdir().unwrap();
    let mut child = command(&device.node, state.path(), &["--rate", "32MiB/s"]).spawn().unwrap();
    wait_for(&mut child, "\"progress\",\"step\":1");
    assert!(Command::new("losetup").arg("--detach").arg(&device.node).status().unwrap().success());
    let (result, code, stderr) = finish(child);
    assert_eq!((code, &result["verdict"]), (Some(0), &"wiped".into()), "{stderr}");
    assert!(device.content().iter().all(|byte| *byte == 0));
}
