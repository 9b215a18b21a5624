//! Tests of the guard, on loop devices and images.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::unistd::mkfifo;
use tempfile::{NamedTempFile, TempDir};

use super::super::fake::{FakeTree, SWAPS_HEADER, zfs_label};
use super::*;
use crate::loops::{Loop, skipped};

static CONTENT: [u8; 1 << 20] = [b'x'; 1 << 20];

fn loop_device() -> Option<Loop> {
    Loop::new(&CONTENT, &[])
}

impl Loop {
    /// With two partitions of 256 KiB.
    fn partitioned() -> Option<Loop> {
        let device = Loop::new(&CONTENT, &["--partscan"])?;
        let mut add = [["1", "512", "512"], ["2", "1024", "512"]].map(|number_start_sectors| {
            let mut addpart = Command::new("addpart");
            addpart.arg(&device.node).args(number_start_sectors);
            addpart
        });
        ran(&mut add).then_some(device)
    }

    fn partition(&self, number: u32) -> PathBuf {
        format!("{}p{number}", self.node.display()).into()
    }

    fn claim(&self, wait: Duration) -> Result<Claim> {
        claim_at(&self.node, false, wait)
    }

    /// The guard's answer, after a check that every byte is as it was.
    fn refusal(&self, wait: Duration) -> Error {
        let before = self.content();
        let error = self.claim(wait).expect_err("the guard must refuse this device");
        assert!(self.content() == before, "the guard wrote to {}", self.node.display());
        assert!(error.to_string().starts_with(self.node.to_str().unwrap()), "{error}");
        error
    }
}

/// Long enough for what udev does to a new device.
const LONG_WAIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

fn claim_at(path: &Path, image: bool, wait: Duration) -> Result<Claim> {
    claim(&Tree::real(), &Request { path, image, deadline: Instant::now() + wait, force: &[] })
}

fn image(content: &[u8]) -> NamedTempFile {
    let image = NamedTempFile::with_prefix("efface-test-").unwrap();
    fs::write(image.path(), content).unwrap();
    image
}

fn assert_says(error: &Error, kind: Kind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind, kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
}

/// A process that the test started; it closes the device when this is dropped.
struct Helper {
    child: Child,
    /// Kept open, since it may say more.
    _output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts it, and waits until it says that it holds what it should.
    fn start(command: &mut Command) -> Helper {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.by_ref().lines();
        assert!(lines.any(|line| line.unwrap().contains("held")), "{command:?} does not hold it");
        Helper { child, _output: output }
    }

    /// A process of this name that has the device open exclusively.
    fn opener(node: &Path, name: &str) -> Helper {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--nocapture", "--exact", "device::guard::tests::holds_a_device"]);
        Helper::start(command.env("HOLD_NODE", node).env("HOLD_AS", name))
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// The device is claimed as soon as its holder has closed it.
fn assert_waits_for(holder: Helper, device: &Loop) {
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SHORT);
            drop(holder);
        });
        device.claim(LONG_WAIT).unwrap();
    });
}

#[test]
#[ignore = "the process that other tests start"]
fn holds_a_device() {
    let (Ok(node), Ok(name)) = (env::var("HOLD_NODE"), env::var("HOLD_AS")) else { return };
    fs::write("/proc/self/comm", name).unwrap();
    let _held = File::options().read(true).write(true).custom_flags(libc::O_EXCL).open(node).unwrap();
    println!("held");
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_free_device_is_claimed_and_is_ours_until_its_disk_is_dropped() {
    let Some(device) = loop_device() else { return };
    let claim = device.claim(LONG_WAIT).unwrap();
    assert_eq!(claim.geometry().size, 1 << 20);
    let identity = claim.identity();
    assert_eq!((&identity.path, &identity.node, identity.size_bytes), (&device.node, &device.node, 1 << 20));
    assert_eq!(identity.backing_file.as_deref(), Some(&*device.image));

    let disk = claim.open(1).unwrap();
    let locks = || {
        let flock =
            Command::new("flock").args(["--nonblock", "--exclusive"]).arg(&device.node).arg("true").status();
        flock.unwrap().success()
    };
    assert!(!locks(), "another process got the lock of a claimed disk");
    let again = File::options().write(true).custom_flags(libc::O_EXCL).open(&device.node);
    assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    drop(disk);
    assert!(locks(), "the lock outlives the disk");
    device.claim(LONG_WAIT).unwrap();
    assert!(device.content() == CONTENT);
}

#[test]
fn a_process_that_has_the_device_open_is_named() {
    let Some(device) = loop_device() else { return };
    let holder = Helper::opener(&device.node, "qemu-system");
    let error = device.refusal(LONG_WAIT);
    assert_says(&error, Kind::Refused, &["qemu-system", &holder.id()]);
}

/// ZFS opens its members exclusively, and whoever may write to a device can write any label.
#[test]
fn a_label_of_an_imported_zfs_pool_is_refused_only_where_the_device_is_held() {
    let Some(device) = Loop::new(&zfs_label("tank"), &[]) else { return };
    let fake = FakeTree::new();
    fs::create_dir_all(fake.tree.proc.join("spl/kstat/zfs/tank")).unwrap();
    let tree = Tree { proc: fake.tree.proc.clone(), ..Tree::real() };
    let claim = || {
        let deadline = Instant::now() + LONG_WAIT;
        claim(&tree, &Request { path: &device.node, image: false, deadline, force: &[] })
    };
    let taken = claim().unwrap();
    assert_eq!(taken.findings().signatures[0].label.as_deref(), Some("tank"));
    drop(taken);
    let flags = libc::O_EXCL | libc::O_CLOEXEC;
    let _member = File::options().read(true).custom_flags(flags).open(&device.node).unwrap();
    let refused = claim().unwrap_err();
    assert_says(&refused, Kind::Refused, &["member of the imported ZFS pool tank", "zpool export tank"]);
}

#[test]
fn another_efface_is_waited_for() {
    let Some(device) = loop_device() else { return };
    let holder = Helper::opener(&device.node, "efface");
    assert_says(&device.refusal(SHORT), Kind::Busy, &["efface", &holder.id()]);
    assert_waits_for(holder, &device);
}

#[test]
fn a_locked_disk_is_busy_and_its_holder_is_named() {
    let Some(device) = loop_device() else { return };
    let holder = Helper::start(Command::new("flock").arg(&device.node).args(["sh", "-c", "echo held; cat"]));
    assert_says(&device.refusal(SHORT), Kind::Busy, &["flock", &holder.id(), "locked"]);
    assert_waits_for(holder, &device);
}

#[test]
fn a_read_only_device_is_refused() {
    let Some(device) = Loop::new(&CONTENT, &["--read-only"]) else { return };
    assert_says(&device.refusal(LONG_WAIT), Kind::Refused, &["read-only"]);
}

#[test]
fn a_device_without_bytes_is_refused() {
    let Some(device) = Loop::new(&[], &[]) else { return };
    assert_says(&device.refusal(LONG_WAIT), Kind::Refused, &["size is 0"]);
}

/// Undoes what a command did.
struct Undo(Command);

impl Drop for Undo {
    fn drop(&mut self) {
        let undone = self.0.status();
        assert!(undone.is_ok_and(|undone| undone.success()) || thread::panicking(), "{:?} failed", self.0);
    }
}

/// Whether each of the commands worked; prints which one did not.
fn ran(commands: &mut [Command]) -> bool {
    commands.iter_mut().all(|command| {
        let output = command.output();
        let worked = output.as_ref().is_ok_and(|output| output.status.success());
        if !worked {
            skipped::<()>(&format!("{command:?}: {output:?}"));
        }
        worked
    })
}

#[test]
fn a_mounted_device_is_refused_by_its_mount_point() {
    let Some(device) = loop_device() else { return };
    let folder = TempDir::with_prefix("efface test ").unwrap();
    let (mut mkfs, mut mount) = (Command::new("mkfs.ext2"), Command::new("mount"));
    mkfs.args(["-q", "-F"]).arg(&device.node);
    mount.args(["-o", "ro"]).arg(&device.node).arg(folder.path());
    if !ran(&mut [mkfs, mount]) {
        return;
    }
    let mut umount = Command::new("umount");
    umount.arg(folder.path());
    let _undo = Undo(umount);
    let point = folder.path().to_str().unwrap();
    assert_says(&device.refusal(LONG_WAIT), Kind::Refused, &["mounted", &format!("umount {point}")]);
}

#[test]
fn a_device_that_is_swapped_to_is_refused() {
    let Some(device) = loop_device() else { return };
    let (mut mkswap, mut swapon) = (Command::new("mkswap"), Command::new("swapon"));
    mkswap.arg(&device.node);
    swapon.arg(&device.node);
    if !ran(&mut [mkswap, swapon]) {
        return;
    }
    let mut swapoff = Command::new("swapoff");
    swapoff.arg(&device.node);
    let _undo = Undo(swapoff);
    let node = device.node.to_str().unwrap();
    assert_says(&device.refusal(LONG_WAIT), Kind::Refused, &["swap", &format!("swapoff {node}")]);
}

#[test]
fn two_partitions_of_one_disk_share_its_lock() {
    let Some(device) = Loop::partitioned() else { return };
    let (one, two) = (device.partition(1), device.partition(2));
    let first = claim_at(&one, false, LONG_WAIT).unwrap();
    let second = claim_at(&two, false, LONG_WAIT).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.held._locks[0], &second.held._locks[0]));
    assert_eq!(second.geometry().size, 256 << 10);
    // The kernel reports the whole disk as held; the guard does not count its own hold.
    assert_says(&device.refusal(SHORT), Kind::Busy, &[]);

    drop(first);
    let flock = Command::new("flock").arg("--nonblock").arg(&device.node).arg("true").status().unwrap();
    assert!(!flock.success(), "the second partition's claim must keep the disk locked");
}

#[test]
fn a_target_given_twice_is_a_mistake_of_the_command_line() {
    let Some(device) = Loop::partitioned() else { return };
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("by-another-name");
    symlink(&device.node, &link).unwrap();
    let (one, two) = (device.partition(1), device.partition(2));
    let distinct = |paths: &[&PathBuf]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        super::distinct(&Tree::real(), &paths)
    };
    distinct(&[&one, &two, &"/no/such/device".into()]).unwrap();
    assert_says(&distinct(&[&device.node, &device.node]).unwrap_err(), Kind::Usage, &["the same target"]);
    assert_says(&distinct(&[&device.node, &link]).unwrap_err(), Kind::Usage, &["by-another-name"]);
    assert_says(&distinct(&[&one, &link]).unwrap_err(), Kind::Usage, &["shares its bytes"]);
    assert_says(&distinct(&[&link, &two]).unwrap_err(), Kind::Usage, &["shares its bytes"]);
}

#[test]
fn examining_reads_what_others_use_and_writes_nothing() {
    let Some(device) = loop_device() else { return };
    let _holder = Helper::opener(&device.node, "qemu-system");
    let examined = examine(&Tree::real(), &device.node, false).unwrap();
    assert_eq!(examined.geometry().size, 1 << 20);
    let mut disk = examined.open(1).unwrap();
    let buf = disk.buffers(1, 4096).unwrap().remove(0);
    disk.submit(Op::Write { at: 0, buf }).unwrap();
    let mut done = Vec::new();
    disk.reap(&mut done, None).unwrap();
    assert!(done[0].result.is_err(), "an examined target took a write");
    assert!(device.content() == CONTENT);
}

#[test]
fn an_image_that_is_claimed_is_locked() {
    let image = image(&CONTENT);
    let first = claim_at(image.path(), true, LONG_WAIT).unwrap();
    assert_eq!(first.identity().kind, super::super::identity::DeviceKind::Image);
    let error = claim_at(image.path(), true, SHORT).unwrap_err();
    assert_says(&error, Kind::Busy, &["locked", &std::process::id().to_string()]);
    drop(first);
    claim_at(image.path(), true, LONG_WAIT).unwrap();
    assert!(fs::read(image.path()).unwrap() == CONTENT);
}

#[test]
fn an_image_that_is_attached_to_a_loop_device_is_refused() {
    let Some(device) = loop_device() else { return };
    let error = claim_at(&device.image, true, LONG_WAIT).unwrap_err();
    assert_says(
        &error,
        Kind::Refused,
        &["loop device", &format!("losetup --detach {}", device.node.display())],
    );
}

#[test]
fn an_image_that_is_swapped_to_is_refused() {
    let (fake, image) = (FakeTree::new(), image(&CONTENT));
    let path = image.path();
    fake.write("proc/swaps", format!("{SWAPS_HEADER}{}  file  1020  0  -2\n", path.display()));
    let request = Request { path, image: true, deadline: Instant::now(), force: &[] };
    let error = claim(&fake.tree, &request).unwrap_err();
    assert_says(&error, Kind::Refused, &["swap", "swapoff"]);
}

#[test]
fn an_empty_image_is_refused() {
    let error = claim_at(image(&[]).path(), true, LONG_WAIT).unwrap_err();
    assert_says(&error, Kind::Refused, &["size is 0"]);
}

#[test]
fn what_is_no_block_device_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
    mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let file = image(&CONTENT);
    let missing = folder.path().join("missing");
    let below_a_file = file.path().join("below");
    let cases: [(&Path, bool, Kind, &str); 8] = [
        (&missing, false, Kind::Usage, "no such device"),
        (&below_a_file, true, Kind::Usage, "no such device"),
        (folder.path(), false, Kind::Refused, "a directory"),
        (folder.path(), true, Kind::Refused, "a directory"),
        (Path::new("/dev/null"), false, Kind::Refused, "a character device"),
        (&fifo, false, Kind::Refused, "a fifo"),
        (&socket, false, Kind::Refused, "a socket"),
        (file.path(), false, Kind::Refused, "--image"),
    ];
    for (path, image, kind, word) in cases {
        let error = claim_at(path, image, SHORT).unwrap_err();
        assert_says(&error, kind, &[word, path.to_str().unwrap()]);
        assert_says(&examine(&Tree::real(), path, image).unwrap_err(), kind, &[word]);
    }
    assert!(fs::read(file.path()).unwrap() == CONTENT);
}

#[test]
fn a_block_device_is_no_image() {
    let Some(device) = loop_device() else { return };
    let error = claim_at(&device.node, true, LONG_WAIT).unwrap_err();
    assert_says(&error, Kind::Refused, &["block device", "--image"]);
}

#[test]
fn a_path_that_was_given_to_another_target_is_refused() {
    let (checked, other) = (image(&CONTENT), image(&CONTENT));
    let candidate = Candidate::find(&Tree::real(), checked.path(), true).unwrap();
    candidate.check_opened(&Target::open(checked.path(), Access::Read).unwrap()).unwrap();
    let swapped = Target::open(other.path(), Access::Read).unwrap();
    assert_says(&candidate.check_opened(&swapped).unwrap_err(), Kind::Refused, &["another target"]);
}

#[test]
fn a_node_that_was_given_to_another_disk_is_refused() {
    let Some(device) = loop_device() else { return };
    let mut candidate = Candidate::find(&Tree::real(), &device.node, false).unwrap();
    let target = Target::open(&device.node, Access::Read).unwrap();
    candidate.check_opened(&target).unwrap();
    // What a detach and an attach between the check and the open would have shown.
    let Some(sequence) = candidate.identity.disk_sequence.as_mut() else {
        skipped::<()>("this kernel has no diskseq");
        return;
    };
    *sequence -= 1;
    assert_says(&candidate.check_opened(&target).unwrap_err(), Kind::Refused, &["another target"]);
}

#[test]
fn a_device_that_may_not_be_opened_says_who_may() {
    for errno in [libc::EACCES, libc::EPERM] {
        assert_says(&not_opened(io::Error::from_raw_os_error(errno)), Kind::Refused, &["root", "disk"]);
    }
    assert_says(&not_opened(io::Error::from_raw_os_error(libc::EROFS)), Kind::Refused, &["read-only"]);
}
