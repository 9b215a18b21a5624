//! The table of docs/refusals.md on real devices: what is in use is refused by its name with every
//! byte as it was, and an unused signature is shown, recorded, and no reason to refuse.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir, TempPath};

use crate::loops::{Loop, skipped};
use crate::program::efface;

pub const MIB: u64 = 1 << 20;

pub fn sparse(bytes: u64) -> TempPath {
    let image = NamedTempFile::with_prefix("efface-test-").unwrap();
    image.as_file().set_len(bytes).unwrap();
    image.into_temp_path()
}

pub fn device(bytes: u64) -> Option<Loop> {
    Loop::over(sparse(bytes), &[])
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a tool; none, said aloud, where it is missing or fails.
pub fn tool(words: &[&str]) -> Option<String> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into()),
        failed => skipped(&format!("{words:?}: {failed:?}")),
    }
}

/// Writes a GPT with these partitions, without notifying the kernel.
pub fn partition(device: &Loop, partitions: &str) -> Option<()> {
    let script = format!("label: gpt\n{partitions}");
    let command = "printf '%s' \"$1\" | sfdisk --quiet --no-reread --no-tell-kernel \"$2\"";
    tool(&["sh", "-c", command, "sh", &script, text(&device.node)]).map(drop)
}

/// Mounted for as long as it lives.
pub struct Mounted(TempDir);

impl Mounted {
    pub fn new(node: &Path, options: &str) -> Option<Mounted> {
        let folder = TempDir::with_prefix("efface-test-").unwrap();
        tool(&["mount", "-o", options, text(node), text(folder.path())])?;
        Some(Mounted(folder))
    }

    pub fn point(&self) -> &str {
        text(self.0.path())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

/// A process of ours that holds something until it is dropped.
pub struct Holder(Child);

impl Holder {
    /// Starts a shell script that says "held" when it holds it, and then waits for its input to end.
    pub fn new(script: &str) -> Holder {
        let mut child = Command::new("bash")
            .args(["-c", &format!("set -e; {script}; echo held; read -r _ || true")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n", "{script}");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = efface().args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What `efface list --json` says of a node, wherever in the tree it stands.
fn listed(node: &Path) -> Value {
    fn find(devices: &Value, node: &str) -> Option<Value> {
        devices.as_array()?.iter().find_map(|entry| {
            let here = (entry["identity"]["node"] == node).then(|| entry.clone());
            here.or_else(|| find(&entry["above"], node))
        })
    }
    let (code, stdout, stderr) = run(&["list", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let list: Value = serde_json::from_str(&stdout).unwrap();
    find(&list["devices"], text(node)).unwrap_or_else(|| panic!("{} in {stdout}", node.display()))
}

/// Else the kernel writes the tables of inodes some seconds after the file system was mounted.
pub const NO_LATE_WRITES: &str = "lazy_itable_init=0,lazy_journal_init=0";

/// `wipe`, `plan` and `list` refuse this node by these words, and its image stays as it is.
pub fn assert_refused(device: &Loop, node: &Path, words: &[&str]) {
    nix::unistd::sync();
    let before = device.content();
    assert_refused_in_words(node, words);
    assert!(device.content() == before, "something was written to {}", node.display());
}

/// The same, where the kernel itself may write to the device meanwhile: to swap at any time.
pub fn assert_refused_in_words(node: &Path, words: &[&str]) {
    for command in [&["wipe", "--yes"][..], &["plan"]] {
        let (code, _, stderr) = run(&[command, &[text(node)]].concat());
        assert_eq!(code, 3, "{command:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} in: {stderr}");
    }
    let refusal = &listed(node)["refusal"];
    assert!(words.iter().all(|word| refusal.to_string().contains(word)), "{words:?} in: {refusal}");
}

/// It is listed with this signature and would be taken; the wipe takes it, and records it.
fn assert_taken(device: &Loop, kind: &str) {
    let has =
        |signatures: &Value| signatures.as_array().unwrap().iter().any(|signature| signature["kind"] == kind);
    let listed = listed(&device.node);
    assert!(has(&listed["signatures"]) && listed["refusal"].is_null(), "{listed}");
    let (code, stdout, stderr) = run(&["wipe", "--yes", "--json", text(&device.node)]);
    assert_eq!(code, 0, "{stderr}");
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert!(has(&result["devices"][0]["findings"]["signatures"]), "{result}");
    assert!(device.content().iter().all(|byte| *byte == 0));
}

#[test]
fn a_device_mounted_here_or_in_another_namespace_is_refused() {
    let Some(device) = device(16 * MIB) else { return };
    let node = text(&device.node);
    if tool(&["mkfs.ext4", "-q", node]).is_none() {
        return;
    }
    let Some(mounted) = Mounted::new(&device.node, "ro") else { return };
    assert_refused(&device, &device.node, &["is mounted at", mounted.point(), "umount"]);
    drop(mounted);

    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let point = text(folder.path());
    let holder = Holder::new(&format!(
        "exec unshare --mount bash -c 'mount -o ro {node} {point}; echo held; read -r _ || true'"
    ));
    let process = format!("mount namespace of process {}", holder.0.id());
    assert_refused(&device, &device.node, &["is mounted at", point, &process, "nsenter"]);
    drop(holder);
    assert_taken(&device, "ext4");
}

#[test]
fn a_device_in_use_as_swap_is_refused() {
    let Some(device) = device(16 * MIB) else { return };
    let node = text(&device.node);
    if tool(&["mkswap", node]).is_none() || tool(&["swapon", node]).is_none() {
        return;
    }
    let swap = Swap(&device.node);
    assert_refused_in_words(&device.node, &["is in use as swap", "swapoff"]);
    drop(swap);
    assert_taken(&device, "swap");
}

/// Swap that ends with the test, however that ends.
pub struct Swap<'a>(pub &'a Path);

impl Drop for Swap<'_> {
    fn drop(&mut self) {
        Command::new("swapoff").arg(self.0).status().ok();
    }
}

#[test]
fn both_devices_of_a_mounted_btrfs_are_refused() {
    let (Some(one), Some(two)) = (device(128 * MIB), device(128 * MIB)) else { return };
    if tool(&["mkfs.btrfs", "-q", "-f", text(&one.node), text(&two.node)]).is_none()
        || tool(&["btrfs", "device", "scan", text(&one.node), text(&two.node)]).is_none()
    {
        return;
    }
    let Some(mounted) = Mounted::new(&one.node, "ro") else { return };
    for device in [&one, &two] {
        assert_refused(device, &device.node, &["mounted at", mounted.point(), "umount"]);
    }
    drop(mounted);
    tool(&["btrfs", "device", "scan", "--forget"]);
    assert_taken(&two, "btrfs");
}

#[test]
fn a_disk_with_a_busy_partition_is_refused_and_its_idle_partition_is_not() {
    let Some(device) = Loop::over(sparse(32 * MIB), &["--partscan"]) else { return };
    let node = text(&device.node);
    let [busy, idle] = [1, 2].map(|number| PathBuf::from(format!("{node}p{number}")));
    let context = partition(&device, "start=2048, size=20480\nstart=24576, size=20480\n")
        .and_then(|()| tool(&["addpart", node, "1", "2048", "20480"]))
        .and_then(|_| tool(&["addpart", node, "2", "24576", "20480"]));
    if context.is_none() {
        return;
    }
    tool(&["mkfs.ext4", "-q", text(&busy)]).unwrap();
    let Some(mounted) = Mounted::new(&busy, "ro") else { return };
    assert_refused(&device, &device.node, &["p1 is mounted at", mounted.point()]);
    assert_refused(&device, &busy, &["p1 is mounted at", mounted.point()]);
    let before = device.content();
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--method", "random", text(&idle)]);
    assert_eq!(code, 0, "{stderr}");
    let after = device.content();
    let (from, to) = (24576 * 512, (24576 + 20480) * 512);
    assert!(before[..from] == after[..from] && before[to..] == after[to..], "only the idle one was written");
    assert!(before[from..to] != after[from..to]);
}

#[test]
fn a_device_that_is_open_without_o_excl_is_refused() {
    let Some(device) = device(MIB) else { return };
    let node = text(&device.node);
    for redirect in ["<>", "<"] {
        let holder = Holder::new(&format!("exec 7{redirect}{node}"));
        let process = format!("process {} (bash) has it open", holder.0.id());
        assert_refused(&device, &device.node, &[&process, "kill"]);
    }
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", node]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_loop_device_and_its_backing_file_are_one_target() {
    let Some(outer) = device(32 * MIB) else { return };
    if tool(&["mkfs.ext4", "-q", "-E", NO_LATE_WRITES, text(&outer.node)]).is_none() {
        return;
    }
    // What reads the inner device reads its file: a new time of access would be written later.
    let Some(mounted) = Mounted::new(&outer.node, "rw,noatime") else { return };
    let file = NamedTempFile::new_in(mounted.point()).unwrap();
    file.as_file().set_len(4 * MIB).unwrap();
    let inner = Loop::over(file.into_temp_path(), &[]).unwrap();
    // The outer device is refused, since the inner one's file lies in it; the inner one is free.
    assert_refused(&outer, &outer.node, &["is mounted at", mounted.point()]);
    let writer = Holder::new(&format!("exec 7<>{}", inner.image.display()));
    assert_refused(&inner, &inner.node, &["backing file", "(bash) has it open"]);
    drop(writer);
    let second = tool(&["losetup", "--find", "--show", text(&inner.image)]).unwrap();
    let name = second.trim().trim_start_matches("/dev/");
    assert_refused(&inner, &inner.node, &["backing file is attached to the loop device", name]);
    tool(&["losetup", "--detach", second.trim()]).unwrap();
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", text(&inner.node)]);
    assert_eq!(code, 0, "{stderr}");
}

/// A v1.2 superblock of an array of two, as md's kernel header lays it out (md_p.h).
fn md_superblock() -> Vec<u8> {
    let mut block = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1_u32.to_le_bytes());
    put(16, b"efface-test-uuid");
    put(32, b"efface:test");
    put(72, &1_u32.to_le_bytes());
    put(80, &14_000_u64.to_le_bytes());
    put(92, &2_u32.to_le_bytes());
    put(128, &2048_u64.to_le_bytes());
    put(136, &14_336_u64.to_le_bytes());
    put(144, &8_u64.to_le_bytes());
    put(168, b"efface-test-dev0");
    put(200, &1_u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &2_u32.to_le_bytes());
    put(256, &[0, 0, 1, 0]);
    let sum: u64 =
        block[..260].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    block[216..220].copy_from_slice(&(folded as u32).to_le_bytes());
    block
}

#[test]
fn a_stale_md_superblock_is_no_refusal() {
    let Some(device) = device(8 * MIB) else { return };
    File::options().write(true).open(&device.image).unwrap().write_all_at(&md_superblock(), 4096).unwrap();
    if let Some(examined) = tool(&["mdadm", "--examine", text(&device.image)]) {
        assert!(examined.contains("raid1") && examined.contains("efface:test"), "{examined}");
        assert!(examined.contains("correct") && !examined.contains("expected"), "{examined}");
    }
    assert_taken(&device, "linux_raid_member");
}

#[test]
fn an_inactive_volume_group_is_no_refusal() {
    let Some(device) = device(32 * MIB) else { return };
    let node = text(&device.node);
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let config = format!(
        "devices {{ dir=\"/dev\" scan=\"/dev\" filter=[\"a|^{node}$|\",\"r|.*|\"] use_devicesfile=0 }} \
         global {{ activation=0 locking_dir=\"{0}\" }} backup {{ backup=0 archive=0 }}",
        folder.path().display()
    );
    for command in [&["pvcreate", node][..], &["vgcreate", "efface-test", node]] {
        if tool(&[&["lvm", command[0], "--config", &config], &command[1..]].concat()).is_none() {
            return;
        }
    }
    assert_taken(&device, "LVM2_member");
}

#[test]
fn a_closed_luks_volume_is_no_refusal() {
    let Some(device) = device(32 * MIB) else { return };
    let key = NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "secret").unwrap();
    let format = [
        "cryptsetup",
        "luksFormat",
        "--batch-mode",
        "--type",
        "luks2",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ];
    let target = ["--key-file", text(key.path()), text(&device.node)];
    if tool(&[&format[..], &target].concat()).is_some() {
        assert_taken(&device, "crypto_LUKS");
    }
}

/// VMFS's volume member in a partition of a table that the kernel never read.
#[test]
fn a_shared_file_system_is_refused_until_it_is_forced() {
    let Some(device) = device(32 * MIB) else { return };
    let node = text(&device.node);
    let file = File::options().write(true).open(&device.image).unwrap();
    if partition(&device, "start=2048, size=40960\n").is_none() {
        return;
    }
    file.write_all_at(&[0x0d, 0xd0, 0x01, 0xc0], 2 * MIB).unwrap();
    drop(file);
    assert_refused(
        &device,
        &device.node,
        &["VMFS_volume_member in partition 1", "other hosts", "--force shared-fs"],
    );
    let (code, stdout, stderr) = run(&["wipe", "--yes", "--force", "shared-fs", "--json", node]);
    assert_eq!(code, 0, "{stderr}");
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(result["devices"][0]["findings"]["forced"][0]["force"], "shared-fs", "{result}");
    assert!(result["devices"][0]["limitations"].to_string().contains("Other hosts"), "{result}");
}

/// An image that was cut short under its loop device: the kernel answers EIO.
#[test]
fn a_device_that_cannot_be_probed_is_refused_until_it_is_forced() {
    let Some(device) = device(8 * MIB) else { return };
    let node = text(&device.node);
    File::options().write(true).open(&device.image).unwrap().set_len(0).unwrap();
    assert_refused(&device, &device.node, &["cannot be read", "--force unprobed"]);
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--force", "shared-fs", node]);
    assert_eq!(code, 3, "another kind does not override it: {stderr}");
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--force", "unprobed", node]);
    assert_eq!(code, 0, "{stderr}");
}

/// A GPT's header that leads to a gigabyte of entries, with a checksum that fits.
fn absurd_gpt() -> [u8; 92] {
    let mut header = [0; 92];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    put(24, &1_u64.to_le_bytes());
    put(32, &((3_u64 << 30) / 512 - 1).to_le_bytes());
    put(40, &(1_u64 << 22).to_le_bytes());
    put(48, &(5_u64 << 20).to_le_bytes());
    put(72, &2_u64.to_le_bytes());
    put(80, &(1_u32 << 23).to_le_bytes());
    put(84, &128_u32.to_le_bytes());
    let crc = !header.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header
}

/// libblkid would read and keep all of its entries.
#[test]
fn a_partition_table_of_a_gigabyte_is_not_read() {
    let image = tempfile::NamedTempFile::with_prefix("efface-test-").unwrap();
    image.as_file().set_len(3 << 30).unwrap();
    image.as_file().write_all_at(&absurd_gpt(), 512).unwrap();
    let image = image.into_temp_path();
    // More than this efface does not need for anything, and the table would be larger.
    let limited = "ulimit -v 1000000; exec \"$@\"";
    let mut plan = std::process::Command::new("sh");
    plan.args(["-c", limited, "sh", env!("CARGO_BIN_EXE_efface"), "plan", "--image"]).arg(&image);
    let plan = plan.output().unwrap();
    let context = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.status.success() && context.contains("gpt (a partition table, too large to read)"),
        "{plan:?}"
    );

    let Some(device) = device(8 * MIB) else { return };
    let node = text(&device.node);
    File::options().write(true).open(&device.node).unwrap().write_all_at(&absurd_gpt(), 512).unwrap();
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", node]);
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains("its gpt is too large to read") && stderr.contains("--force unprobed"),
        "{stderr}"
    );
    let (code, stdout, stderr) = run(&["wipe", "--yes", "--json", "--force", "unprobed", node]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("whether other hosts use it is not known"), "{stdout}");
}

#[test]
fn no_force_overrides_a_mount() {
    let Some(device) = device(16 * MIB) else { return };
    if tool(&["mkfs.ext4", "-q", text(&device.node)]).is_none() {
        return;
    }
    let Some(mounted) = Mounted::new(&device.node, "ro") else { return };
    let force = ["shared-fs", "snapshot-cow", "unprobed"].map(|kind| ["--force", kind]).concat();
    let (code, _, stderr) = run(&[&["wipe", "--yes", text(&device.node)], &force[..]].concat());
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains(mounted.point()), "{stderr}");
}

/// Text that the device holds must not steer the terminal, nor break the table.
#[test]
fn a_hostile_label_is_shown_and_does_nothing() {
    let Some(device) = device(16 * MIB) else { return };
    let node = text(&device.node);
    if tool(&["mkfs.ext4", "-q", "-L", "\u{1b}[31mX\u{7}\ny", node]).is_none() {
        return;
    }
    for arguments in [&["list"][..], &["list", "--json"], &["plan", node]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("[31mX"), "{stdout}");
        assert!(!stdout.contains(['\u{1b}', '\u{7}']), "{stdout}");
    }
}

/// The disk under / of this very machine: refused before anything is opened.
#[test]
fn the_running_system_is_refused() {
    let root = tool(&["findmnt", "--noheadings", "--output", "SOURCE", "/"]).unwrap_or_default();
    if !root.starts_with("/dev/") {
        skipped::<()>("/ lies on no block device here");
        return;
    }
    for arguments in [&["plan", root.trim()][..], &["wipe", "--dry-run", root.trim()]] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("the running system is on it"), "{stderr}");
    }
}

/// It grows while it is wiped: what was planned is not the whole disk any more.
#[test]
fn a_disk_that_changes_under_the_wipe_is_no_success() {
    let Some(device) = device(8 * MIB) else { return };
    let node = text(&device.node);
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let certificate = folder.path().join("failed.json");
    let mut wipe = efface()
        .args(["wipe", "--yes", "--json", "--rate", "4MiB/s", "--verify", "none", node])
        .args(["--certificate-to", text(&certificate)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(wipe.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    File::options().write(true).open(&device.image).unwrap().set_len(9 * MIB).unwrap();
    tool(&["losetup", "--set-capacity", node]).unwrap();
    let output = wipe.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the device changed while it was in use") && stderr.contains("9437184"),
        "{stderr}"
    );

    // A job that failed has its record too, and claims nothing.
    let (code, stdout, stderr) = run(&["certificate", "verify", "--unsigned-ok", text(&certificate)]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("FAILED") && stdout.contains("Nothing is claimed"), "{stdout}");
}
