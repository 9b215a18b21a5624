//! What shares bytes with a target is seen, however it was attached: each case was once a wiped file
//! system behind an exit code of 0.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use efface::internals::device::Findings;
use efface::internals::device::identity::Identity;
use efface::internals::engine::Settings;
use efface::internals::io::sim::{Faults, SimDisk};
use efface::internals::plan::{Method, Policy};
use efface::internals::record::claim::Category;
use efface::internals::record::{Assignment, Record, Subject};
use efface::internals::verdict::Verdict;
use io_uring::IoUring;
use serde_json::Value;
use tempfile::TempDir;

use crate::jobs::{LOGICAL, PHYSICAL, plan};
use crate::loops::{Loop, skipped};
use crate::program::efface;
use crate::scenarios::{
    Holder, MIB, Mounted, NO_LATE_WRITES, Swap, assert_refused, assert_refused_in_words, device, partition,
    run, sparse, text, tool,
};

/// A loop device over another device, which it outlives in no case.
struct Over(PathBuf);

impl Over {
    fn new(lower: &Path, options: &[&str]) -> Option<Over> {
        let made = tool(&[&["losetup", "--find", "--show"], options, &[text(lower)]].concat())?;
        Some(Over(made.trim().into()))
    }

    fn name(&self) -> &str {
        text(&self.0).trim_start_matches("/dev/")
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.0).status().ok();
    }
}

fn mkfs(node: &Path) -> Option<()> {
    tool(&["mkfs.ext4", "-q", "-F", text(node)]).map(drop)
}

fn python(script: &str) -> Option<Command> {
    tool(&["python3", "-c", "pass"])?;
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    Some(command)
}

/// Waits for the line of progress that the job is at work.
fn started(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"progress\"") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it began");
    }
    lines
}

/// Starts a slow wipe; it reports its progress.
fn slow_wipe(node: &Path, options: &[&str]) -> Child {
    efface()
        .args(["wipe", "--yes", "--json", "--rate", "4MiB/s", text(node)])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a wipe end; gives its exit code, and what it said at the end.
fn ended(child: Child, mut lines: BufReader<std::process::ChildStdout>) -> (i32, Value, String) {
    let mut line = String::new();
    let mut last = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        last = std::mem::take(&mut line);
    }
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_str(&last).unwrap_or(Value::Null);
    (output.status.code().unwrap_or(-1), result, String::from_utf8_lossy(&output.stderr).into())
}

#[test]
fn a_sibling_loop_over_the_same_device_is_a_user_of_it() {
    let Some(lower) = device(16 * MIB) else { return };
    let (Some(target), Some(sibling)) = (Over::new(&lower.node, &[]), Over::new(&lower.node, &[])) else {
        return;
    };
    assert_refused(&lower, &target.0, &["attached to the loop device", sibling.name()]);
    if mkfs(&sibling.0).is_none() {
        return;
    }
    let Some(mounted) = Mounted::new(&sibling.0, "ro") else { return };
    assert_refused(&lower, &target.0, &[sibling.name(), "is mounted at", mounted.point()]);
    assert_refused(&lower, &lower.node, &["attached to the loop device"]);
    drop((mounted, sibling));
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", text(&target.0)]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_loop_over_a_partition_is_a_user_of_the_disk_below_another_loop() {
    let Some(lower) = Loop::over(sparse(32 * MIB), &["--partscan"]) else { return };
    let node = text(&lower.node);
    let first = PathBuf::from(format!("{node}p1"));
    let made = partition(&lower, "start=2048, size=20480\n")
        .and_then(|()| tool(&["addpart", node, "1", "2048", "20480"]))
        .and_then(|_| mkfs(&first));
    if made.is_none() {
        return;
    }
    let (Some(target), Some(sibling)) = (Over::new(&lower.node, &[]), Over::new(&first, &[])) else { return };
    let Some(mounted) = Mounted::new(&sibling.0, "ro") else { return };
    assert_refused(&lower, &target.0, &[sibling.name(), mounted.point()]);
    // Beyond the partition there is no user.
    let offset = (32 * MIB - MIB).to_string();
    let Some(apart) = Over::new(&lower.node, &["--offset", &offset]) else { return };
    drop(target);
    let (code, _, stderr) = run(&["plan", text(&apart.0)]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_loop_over_the_backing_file_is_a_user_two_loops_higher() {
    let Some(lower) = device(16 * MIB) else { return };
    if mkfs(&lower.node).is_none() {
        return;
    }
    let (Some(target), Some(sibling)) = (Over::new(&lower.node, &[]), Over::new(&lower.image, &[])) else {
        return;
    };
    let Some(mounted) = Mounted::new(&sibling.0, "ro") else { return };
    assert_refused(&lower, &target.0, &["backing file", sibling.name(), mounted.point()]);
    drop((mounted, sibling));
    let writer = Holder::new(&format!("exec 7<>{}", lower.image.display()));
    assert_refused(&lower, &target.0, &["(bash) has it open"]);
    drop(writer);
    let writer = Holder::new(&format!("exec 7<>{}", lower.node.display()));
    assert_refused(&lower, &target.0, &["(bash) has it open"]);
    drop(writer);
    // A monitor that only reads what lies below is no user.
    let _reader = Holder::new(&format!("exec 7<{}", lower.node.display()));
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", text(&target.0)]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn an_external_journal_is_a_use() {
    let (Some(journal), Some(data)) = (device(16 * MIB), device(32 * MIB)) else { return };
    let made = tool(&["mke2fs", "-q", "-F", "-b", "1024", "-O", "journal_dev", text(&journal.node)])
        .and_then(|_| {
            let option = format!("device={}", text(&journal.node));
            tool(&[
                "mkfs.ext4",
                "-q",
                "-F",
                "-E",
                NO_LATE_WRITES,
                "-b",
                "1024",
                "-J",
                &option,
                text(&data.node),
            ])
        });
    if made.is_none() {
        return;
    }
    let Some(_mounted) = Mounted::new(&data.node, "rw") else { return };
    let words = &["is the external journal of a mounted file system"];
    assert_refused(&journal, &journal.node, words);
    if let Some(target) = Over::new(&journal.node, &[]) {
        assert_refused(&journal, &target.0, words);
    }
}

/// Another node of the same device, as pods and chroots have them.
fn another_node(node: &Path, folder: &TempDir) -> Option<PathBuf> {
    let other = folder.path().join("node");
    let number = std::fs::metadata(node).unwrap().rdev();
    let numbers = [nix::sys::stat::major(number), nix::sys::stat::minor(number)].map(|part| part.to_string());
    tool(&["mknod", "-m", "600", text(&other), "b", &numbers[0], &numbers[1]])?;
    Some(other)
}

#[test]
fn a_loop_that_was_attached_by_a_node_outside_of_dev_is_seen() {
    let Some(lower) = device(16 * MIB) else { return };
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let Some(node) = another_node(&lower.node, &folder) else { return };
    if mkfs(&lower.node).is_none() {
        return;
    }
    let Some(sibling) = Over::new(&node, &[]) else { return };
    let Some(mounted) = Mounted::new(&sibling.0, "ro") else { return };
    assert_refused(&lower, &lower.node, &[sibling.name(), mounted.point()]);
}

#[test]
fn swap_by_a_node_outside_of_dev_is_seen() {
    let Some(device) = device(16 * MIB) else { return };
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let Some(node) = another_node(&device.node, &folder) else { return };
    if tool(&["mkswap", text(&device.node)]).is_none() || tool(&["swapon", text(&node)]).is_none() {
        return;
    }
    let swap = Swap(&node);
    assert_refused_in_words(&device.node, &["is in use as swap"]);
    drop(swap);
}

/// Runs efface where /dev has no block node but this one, as in a container.
fn run_with_one_node(node: &Path, arguments: &[&str]) -> (i32, String) {
    let number = std::fs::metadata(node).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let script = format!(
        "set -e; mount -t tmpfs dev /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9; mknod {} b {major} {minor}; \
         exec \"$@\"",
        node.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_efface")).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into())
}

#[test]
fn a_loop_without_a_node_may_stand_on_the_target() {
    // Of a size that no other loop device of this machine has.
    let Some(lower) = device(16 * MIB + 7 * 4096) else { return };
    let Some(sibling) = Over::new(&lower.node, &[]) else { return };
    let (code, stderr) = run_with_one_node(&lower.node, &["wipe", "--yes", text(&lower.node)]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains(sibling.name()) && stderr.contains("--force unseen"), "{stderr}");
    // One that ends elsewhere does not.
    drop(sibling);
    let Some(_other) = device(9 * MIB) else { return };
    let (code, stderr) = run_with_one_node(&lower.node, &["wipe", "--yes", text(&lower.node)]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn an_image_on_an_overlay_is_its_file_in_the_upper_folder() {
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = "mount -t tmpfs efface-test \"$1\" && cd \"$1\" && mkdir lower upper work merged && \
                  mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work efface-test merged";
    if tool(&["sh", "-c", script, "sh", text(folder.path())]).is_none() {
        return;
    }
    let cleanup = Unmount(vec![path("merged"), folder.path().into()]);
    std::fs::File::create(path("upper/disk.img")).unwrap().set_len(16 * MIB).unwrap();
    let (merged, upper) = (path("merged/disk.img"), path("upper/disk.img"));
    if let (Some(target), Some(sibling)) = (Over::new(&merged, &[]), Over::new(&upper, &[])) {
        for (node, other) in [(&target, &sibling), (&sibling, &target)] {
            let (code, _, stderr) = run(&["wipe", "--yes", text(&node.0)]);
            assert_eq!(code, 3, "{stderr}");
            assert!(stderr.contains(other.name()), "{stderr}");
        }
        drop(target);
        let (code, _, stderr) = run(&["wipe", "--yes", "--image", text(&merged)]);
        assert_eq!(code, 3, "{stderr}");
        drop(sibling);
        let (code, stdout, stderr) = run(&["wipe", "--yes", "--image", "--json", text(&merged)]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.lines().last().unwrap().contains("overlay"), "{stdout}");
    }
    drop(cleanup);
}

struct Unmount(Vec<PathBuf>);

impl Drop for Unmount {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(Command::new("umount").arg(path).status()));
    }
}

#[test]
fn a_shared_mapping_is_a_use_after_its_descriptor_was_closed() {
    let Some(device) = device(4 * MIB) else { return };
    let image = sparse(4 * MIB);
    for (target, options) in [(&*device.node, &[][..]), (&*image, &["--image"])] {
        // Not by Python's own module, which keeps a descriptor.
        let script = "import ctypes, os, sys; f = os.open(sys.argv[1], os.O_RDWR); c = ctypes.CDLL(None); \
                      c.mmap.restype = ctypes.c_void_p; c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, \
                      ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]; m = c.mmap(None, 4096, 3, 1, f, 0); \
                      os.close(f); print('held' if m != 2**64 - 1 else 'no', flush=True); sys.stdin.read()";
        let Some(mut command) = python(script) else { return };
        let mut child = command.arg(target).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (code, _, stderr) = run(&[&["wipe", "--yes", text(target)], options].concat());
        drop(child.stdin.take());
        let id = child.id().to_string();
        child.wait().unwrap();
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains(&id) && stderr.contains("has it open"), "{stderr}");
    }
}

/// A ring's table of files keeps open what no descriptor does any more. The kernel shows it by its path,
/// with octal numbers for blanks; where it does not, the use is not seen (docs/refusals.md).
#[test]
fn a_file_that_only_an_io_uring_has_open_is_a_use_where_the_kernel_shows_it() {
    let Some(device) = device(4 * MIB) else { return };
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let image = folder.path().join("a disk.img");
    File::create(&image).unwrap().set_len(4 * MIB).unwrap();
    for (target, options) in [(&*device.node, &[][..]), (&*image, &["--image"])] {
        let wipe = || run(&[&["wipe", "--yes", "--quiet", text(target)], options].concat());
        let ring = match IoUring::new(1) {
            Ok(ring) => ring,
            Err(error) => return skipped(&format!("no io_uring: {error}")).unwrap_or(()),
        };
        let (code, _, stderr) = wipe();
        assert_eq!(code, 0, "{stderr}");
        let file = File::options().read(true).write(true).open(target).unwrap();
        ring.submitter().register_files(&[file.as_raw_fd()]).unwrap();
        drop(file);
        // Left out while another test looks at the same ring.
        let look = || std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.as_raw_fd())).unwrap();
        let about = (0..100).map(|_| look()).find(|about| about.contains("UserFiles:")).unwrap_or_default();
        let shown = about.contains(&text(target).replace(' ', "\\040"));
        let (code, _, stderr) = wipe();
        let seen = stderr.contains(&std::process::id().to_string()) && stderr.contains("has it open");
        assert_eq!((code, seen), if shown { (3, true) } else { (0, false) }, "{about}{stderr}");
        if !shown {
            skipped::<()>("this kernel does not show the files of a ring: what has them open is unseen");
        }
    }
}

#[test]
fn a_masked_sysfs_is_not_taken_for_an_idle_machine() {
    let Some(device) = device(4 * MIB) else { return };
    let script = "mount -t tmpfs masked /sys/class/block && exec \"$@\"";
    let masked = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let before = device.content();
    let output = Command::new(masked[0])
        .args(&masked[1..])
        .args([env!("CARGO_BIN_EXE_efface"), "wipe", "--yes", text(&device.node)])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("sysfs does not list the device"), "{stderr}");
    assert!(device.content() == before);
}

/// Runs efface under another program; gives the exit code, the last line of stdout, and stderr.
fn run_under(words: &[&str], arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(env!("CARGO_BIN_EXE_efface")).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = stdout.lines().last().unwrap_or_default().to_string();
    (output.status.code().unwrap_or(-1), last, String::from_utf8_lossy(&output.stderr).into())
}

#[test]
fn unreadable_processes_are_a_refusal_until_it_is_forced() {
    let Some(device) = device(4 * MIB) else { return };
    let node = text(&device.node);
    let without_ptrace = ["setpriv", "--bounding-set=-sys_ptrace,-checkpoint_restore", "--inh-caps=-all"];
    let other_namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
    for (words, named) in [(&without_ptrace[..], "process"), (&other_namespace, "PID namespace")] {
        if Command::new(words[0]).args(&words[1..]).arg("true").status().is_ok_and(|status| !status.success())
        {
            skipped::<()>(&format!("{words:?} does not work here"));
            continue;
        }
        let _holder = Holder::new(&format!("exec 7<>{node}"));
        let before = device.content();
        let (code, _, stderr) = run_under(words, &["wipe", "--yes", node]);
        assert_eq!(code, 3, "{words:?}: {stderr}");
        assert!(stderr.contains(named) && stderr.contains("--force unseen"), "{words:?}: {stderr}");
        let (code, _, stderr) = run_under(words, &["destroy-key", "--yes", node]);
        assert_eq!(code, 3, "{words:?}: {stderr}");
        assert!(device.content() == before);
        drop(_holder);
        let (code, _, stderr) = run_under(words, &["destroy-key", "--yes", "--force", "unseen", node]);
        assert_eq!(code, 4, "it holds no LUKS volume: {words:?}: {stderr}");
        let (code, result, stderr) =
            run_under(words, &["wipe", "--yes", "--json", "--force", "unseen", node]);
        assert_eq!(code, 0, "{words:?}: {stderr}");
        let result: Value = serde_json::from_str(&result).unwrap();
        let record = &result["devices"][0];
        assert_eq!(record["findings"]["forced"][0]["force"], "unseen", "{record}");
        assert!(record["limitations"].to_string().contains("could be examined"), "{record}");
    }
}

#[test]
fn an_ordinary_user_wipes_an_image_and_the_record_says_what_was_not_seen() {
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let image = folder.path().join("disk.img");
    std::fs::File::create(&image).unwrap().set_len(MIB).unwrap();
    if tool(&["chown", "-R", "65534:65534", text(folder.path())]).is_none() {
        return;
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent"];
    let (code, result, stderr) = run_under(&user, &["wipe", "--image", "--yes", "--json", text(&image)]);
    assert_eq!(code, 0, "{stderr}");
    assert!(result.contains("Not all possible users could be examined"), "{result}");
}

#[test]
fn an_ordinary_user_sees_that_an_image_may_be_under_a_loop_device_of_roots() {
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let image = folder.path().join("attached.img");
    std::fs::File::create(&image).unwrap().set_len(MIB).unwrap();
    if tool(&["chown", "-R", "65534:65534", text(folder.path())]).is_none() {
        return;
    }
    let Some(over) = Over::new(&image, &[]) else { return };
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent"];
    let (code, _, stderr) = run_under(&user, &["wipe", "--image", "--yes", text(&image)]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains(over.name()) && stderr.contains("--force unseen"), "{stderr}");
}

#[test]
fn dirty_pages_of_the_whole_disk_do_not_come_back_over_a_partition() {
    let Some(disk) = Loop::over(sparse(32 * MIB), &["--partscan"]) else { return };
    let node = text(&disk.node);
    let made = partition(&disk, "start=2048, size=40960\n")
        .and_then(|()| tool(&["addpart", node, "1", "2048", "40960"]));
    if made.is_none() {
        return;
    }
    let _reader = Holder::new(&format!("exec 7<{node}"));
    let write =
        "import os, sys; f = os.open(sys.argv[1], os.O_RDWR); os.pwrite(f, b'x' * (1 << 20), 4 << 20)";
    let Some(mut command) = python(write) else { return };
    assert!(command.arg(&disk.node).status().unwrap().success());
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--verify", "full", &format!("{node}p1")]);
    assert_eq!(code, 0, "{stderr}");
    nix::unistd::sync();
    let content = disk.content();
    assert!(content[2048 * 512..(2048 + 40960) * 512].iter().all(|byte| *byte == 0), "old data came back");
}

/// Two loop devices on one another: what the lower one holds in its page cache is not what is stored.
#[test]
fn a_read_back_comes_from_below_the_cache_of_a_lower_loop() {
    let Some(lower) = device(16 * MIB) else { return };
    let Some(target) = Over::new(&lower.node, &[]) else { return };
    let mut wipe =
        slow_wipe(&target.0, &["--verify", "full", "--epoch-size", "1MiB", "--on-mismatch", "stop"]);
    let mut lines = started(&mut wipe);
    // The first epoch is flushed long before the half of the pass.
    let mut line = String::new();
    while !(line.contains("\"step\":1") && line.contains("\"upto\":8388608")) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before the half");
    }
    let image = std::fs::File::options().write(true).open(&lower.image).unwrap();
    image.write_all_at(&[b'x'; 4096], MIB).unwrap();
    drop(image);
    let (code, result, stderr) = ended(wipe, lines);
    assert_eq!(code, 6, "{stderr}");
    let record = &result["devices"][0];
    assert_eq!(record["job"]["io_path"]["direct"], false, "{record}");
    assert!(record["limitations"].to_string().contains("through the page cache"), "{record}");
}

#[test]
fn a_loop_whose_offset_changes_under_the_wipe_is_another_disk() {
    let image = sparse(16 * MIB);
    let Some(device) = Loop::over(image, &["--sizelimit", "8388608"]) else { return };
    let mut wipe = slow_wipe(&device.node, &["--verify", "none"]);
    let lines = started(&mut wipe);
    // struct loop_info64: the offset is its fourth field of 64 bits.
    let script = "import fcntl, os, struct, sys; f = os.open(sys.argv[1], os.O_RDONLY); b = bytearray(232); \
                  fcntl.ioctl(f, 0x4c05, b); b[24:32] = struct.pack('Q', 4 << 20); fcntl.ioctl(f, 0x4c04, bytes(b))";
    let changed = python(script)
        .is_some_and(|mut command| command.arg(&device.node).status().is_ok_and(|status| status.success()));
    let (code, _, stderr) = ended(wipe, lines);
    if !changed {
        skipped::<()>("the kernel does not change the offset of a loop device that is in use");
        return;
    }
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("the device changed while it was in use"), "{stderr}");
}

#[test]
fn a_new_user_of_the_bytes_ends_the_wipe_and_a_sibling_does_not() {
    let Some(device) = Loop::over(sparse(16 * MIB), &["--sizelimit", "8388608"]) else { return };
    for (offset, expected) in [("8388608", 0), ("4194304", 1)] {
        let mut wipe = slow_wipe(&device.node, &["--verify", "none"]);
        let lines = started(&mut wipe);
        let Some(other) = Over::new(&device.image, &["--offset", offset]) else { return };
        let (code, _, stderr) = ended(wipe, lines);
        assert_eq!(code, expected, "{stderr}");
        assert_eq!(stderr.contains("another user now"), expected == 1, "{stderr}");
        drop(other);
    }
}

#[test]
fn the_device_below_a_loop_is_held_for_one_process() {
    let Some(lower) = device(16 * MIB) else { return };
    let half = "8388608";
    let (Some(one), Some(two)) =
        (Over::new(&lower.node, &["--sizelimit", half]), Over::new(&lower.node, &["--offset", half]))
    else {
        return;
    };
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", text(&one.0), text(&two.0)]);
    assert_eq!(code, 0, "two disjoint ranges in one process: {stderr}");
    let mut wipe = slow_wipe(&one.0, &["--verify", "none"]);
    let lines = started(&mut wipe);
    let (code, _, stderr) = run(&["wipe", "--yes", "--wait", "0", text(&two.0)]);
    assert_eq!(code, 7, "{stderr}");
    assert_eq!(ended(wipe, lines).0, 0);
    let (code, _, stderr) = run(&["wipe", "--yes", text(&one.0), text(&lower.node)]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("shares its bytes"), "{stderr}");
}

#[test]
fn foreign_writes_that_no_counter_can_show_are_not_known() {
    let Some(device) = device(4 * MIB) else { return };
    let (code, stdout, stderr) = run(&["wipe", "--yes", "--json", text(&device.node)]);
    assert_eq!(code, 0, "{stderr}");
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let record = &result["devices"][0];
    // A process that writes to the backing file goes past the loop device.
    assert_eq!(record["foreign_writes_bytes"], Value::Null, "{record}");
    assert!(record["limitations"].to_string().contains("Whether there were foreign writes"), "{record}");
}

const SIZE: usize = 1 << 20;

/// What the record says of a wipe that went well, on such a device with such layers below.
fn record_of_a_wipe(identity: Value, layers: Value) -> Record {
    let plan = plan(&Method::named("zero").unwrap(), Policy::Full, SIZE as u64);
    let mut disk = SimDisk::new(vec![b'x'; SIZE], LOGICAL, PHYSICAL, 1, Faults::default());
    let (job, _) = crate::jobs::run(&mut disk, plan, &Settings::default());
    assert_eq!(job.verdict, Verdict::Wiped);
    let findings = serde_json::json!({ "signatures": [], "forced": [], "layers": layers });
    let subject = Subject {
        device: PathBuf::from(identity["path"].as_str().unwrap()),
        identity: serde_json::from_value::<Identity>(identity).unwrap(),
        findings: serde_json::from_value::<Findings>(findings).unwrap(),
        counter: None,
    };
    let now = std::time::Instant::now();
    Record::of_job(&Assignment::default(), subject, jiff::Timestamp::now(), job, None, now)
}

#[test]
fn copies_below_make_a_wipe_residue_and_are_named() {
    let record = |effect: Value| {
        let identity = serde_json::json!({
            "path": "/dev/vg/lv", "node": "/dev/dm-1", "kind": "device_mapper", "size_bytes": SIZE,
            "logical_block": LOGICAL
        });
        let layers = serde_json::json!([{ "device": "dm-1", "kind": "dm writecache", "effect": effect }]);
        record_of_a_wipe(identity, layers)
    };
    let mut keeps = record(serde_json::json!({ "keeps_copies": { "on": "sda", "drain": "flush it" } }));
    assert_eq!(
        (keeps.verdict, keeps.exit_code, &keeps.copies),
        (Verdict::Residue, 5, &vec!["sda".to_string()])
    );
    assert!(keeps.claim.contains("copies") && keeps.claim.contains("sda"), "{}", keeps.claim);
    assert_eq!(keeps.check(), Ok(()));
    keeps.verdict = Verdict::Wiped;
    assert!(keeps.check().is_err(), "copies were claimed to be gone");
    let passes = record("passes_through".into());
    assert_eq!((passes.verdict, passes.copies.len()), (Verdict::Wiped, 0));
    let unknown = record("unknown".into());
    assert!(unknown.limitations.iter().any(|said| said.contains("does not know (dm writecache)")));
    assert_eq!(unknown.achieved, Category::None);
}

#[test]
fn a_drive_whose_layers_cannot_be_read_again_reaches_no_category() {
    let record = |number: Option<&str>| {
        let identity = serde_json::json!({
            "path": "/dev/sda", "node": "/dev/sda", "kind": "disk", "number": number, "size_bytes": SIZE,
            "logical_block": LOGICAL, "physical": true
        });
        record_of_a_wipe(identity, serde_json::json!([]))
    };
    let said = |record: &Record| record.limitations.iter().any(|each| each.contains("looked at again"));
    let seen = record(None);
    assert_eq!((seen.achieved, said(&seen)), (Category::Clear, false));
    // No device has this number.
    let mut unseen = record(Some("4095:1048575"));
    assert_eq!((unseen.achieved, said(&unseen)), (Category::None, true));
    assert_eq!(unseen.check(), Ok(()));
    unseen.achieved = Category::Clear;
    assert!(unseen.check().is_err(), "a category was claimed");
}
