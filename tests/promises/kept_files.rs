//! What efface keeps on a host (locks, journals, ledgers, metrics, certificates) cannot be led elsewhere,
//! held up, or read past its end by what another process put there.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use efface::internals::directory::Directory;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;

use crate::evidence::{RunOutput, Workspace};
use crate::loops::{Loop, is_root, skipped};

pub const UNPRIVILEGED: u32 = 65534;
pub const MIB: usize = 1 << 20;
pub const EFFACE: &str = env!("CARGO_BIN_EXE_efface");

/// Runs a program in the folder, with an address space of 1 GiB; code 124 is one that did not end.
fn bounded(workspace: &Workspace, words: &[&str]) -> RunOutput {
    let output = Command::new("prlimit")
        .args(["--as=1073741824", "timeout", "--kill-after=1", "60"])
        .args(words)
        .current_dir(workspace.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    RunOutput {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

pub fn efface(workspace: &Workspace, words: &[&str]) -> RunOutput {
    bounded(workspace, &[&[EFFACE], words].concat())
}

pub fn wipe(workspace: &Workspace, options: &[&str]) -> RunOutput {
    workspace.image("disk.img", MIB);
    efface(workspace, &[&["wipe", "disk.img", "--image", "--yes", "--quiet"], options].concat())
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub fn listing(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Holds a lock (flock) on a path as a user with read access only, until it is dropped.
pub struct UnprivilegedLock(Child);

impl UnprivilegedLock {
    pub fn on(path: &Path) -> UnprivilegedLock {
        let mut child = Command::new("flock")
            .args(["--exclusive", "--no-fork"])
            .arg(path)
            .args(["sh", "-c", "echo held; exec sleep 600"])
            .uid(UNPRIVILEGED)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        UnprivilegedLock(child)
    }
}

impl Drop for UnprivilegedLock {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn metrics_replace_a_regular_file_and_nothing_else() {
    let workspace = Workspace::new();
    let path = |name| workspace.path(name);
    fs::write(path("file"), "old").unwrap();
    fs::create_dir(path("folder")).unwrap();
    mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
    symlink("file", path("link")).unwrap();
    symlink("absent", path("dangling")).unwrap();
    symlink("/proc/self/fd/1", path("stdout")).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    let mut others = vec!["folder", "fifo", "link", "dangling", "stdout", "socket"];
    if is_root() {
        // As /dev/null, in a folder of this test's own.
        mknod(&path("node"), SFlag::S_IFCHR, Mode::S_IRWXU, nix::sys::stat::makedev(1, 3)).unwrap();
        others.push("node");
    }
    for name in others {
        let before = path(name).symlink_metadata().unwrap();
        wipe(&workspace, &["--metrics", name]).expect(2).says(&["--metrics", name, "regular file"]);
        let after = path(name).symlink_metadata().unwrap();
        assert_eq!((after.ino(), after.file_type()), (before.ino(), before.file_type()), "{name}");
        assert!(fs::read(path("disk.img")).unwrap().starts_with(b"tenant"), "{name}: something was written");
    }
    assert_eq!(fs::read_to_string(path("file")).unwrap(), "old");
    wipe(&workspace, &["--metrics", "no/such/file"]).expect(2).says(&["--metrics", "No such file"]);
    for name in ["file", "new"] {
        wipe(&workspace, &["--metrics", name]).expect(0);
        assert!(fs::read_to_string(path(name)).unwrap().contains("efface_exit_code{device=\"disk.img\"} 0"));
    }
}

#[test]
fn metrics_of_jobs_are_written_by_one_process_at_a_time() {
    let workspace = Workspace::new();
    let (path, file) = (workspace.path("metrics"), workspace.path("metrics/jobs.prom"));
    fs::create_dir(&path).unwrap();
    let folder = Directory::trusted(&path).unwrap();
    let lock = folder.lock(".efface-metrics.lock").unwrap().expect("it is free");
    let mut child = Command::new(EFFACE)
        .args(["jobs", "--state-dir", "absent", "--metrics", "metrics/jobs.prom"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "another process has the lock");
    assert!(!file.exists());
    drop(lock);
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(&file).unwrap();
    for state in ["running", "waiting", "resumable", "damaged"] {
        for name in ["efface_jobs", "efface_jobs_bytes"] {
            assert!(text.contains(&format!("{name}{{state=\"{state}\"}} 0\n")), "{text}");
        }
    }
    assert!(text.contains("efface_jobs{state=\"queued\"} "), "{text}");
    assert_eq!(listing(&path), ["jobs.prom"], "the lock is removed");
}

#[test]
fn metrics_of_jobs_that_cannot_be_written_are_an_error() {
    let workspace = Workspace::new();
    let jobs = |file: &str| efface(&workspace, &["jobs", "--state-dir", "absent", "--metrics", file]);
    fs::create_dir(workspace.path("folder")).unwrap();
    jobs("folder").expect(2).says(&["--metrics", "regular file"]);
    let folder = Directory::trusted(&workspace.path("folder")).unwrap();
    let _lock = folder.lock(".efface-metrics.lock").unwrap().expect("it is free");
    jobs("folder/jobs.prom").expect(1).says(&["the metrics cannot be written", "jobs.prom"]);
}

/// What was a regular file when the work began may be something else later.
#[test]
fn metrics_do_not_touch_a_file_that_replaced_theirs() {
    let workspace = Workspace::new();
    workspace.image("disk.img", 16 * MIB);
    let mut child = Command::new(EFFACE)
        .args(["wipe", "disk.img", "--image", "--yes", "--rate", "8MiB/s", "--verify", "none"])
        .args(["--metrics", "metrics"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !workspace.path("metrics").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first metrics");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::remove_file(workspace.path("metrics")).unwrap();
    mkfifo(&workspace.path("metrics"), Mode::S_IRWXU).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.matches("no metrics").count() == 1, "{stderr}");
    assert!(workspace.path("metrics").symlink_metadata().unwrap().file_type().is_fifo());
}

/// A folder's path may lead elsewhere when the work ends: what was tried is what is written to.
#[test]
fn records_go_to_the_folders_that_were_tried_even_if_their_paths_change() {
    let workspace = Workspace::new();
    workspace.image("disk.img", 8 * MIB);
    for name in ["ledger", "certificates", "elsewhere"] {
        fs::create_dir(workspace.path(name)).unwrap();
    }
    let mut child = Command::new(EFFACE)
        .args(["wipe", "disk.img", "--image", "--yes", "--json", "--rate", "8MiB/s", "--verify", "none"])
        .args(["--ledger", "ledger", "--certificate-to", "certificates"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("step_started")).unwrap().unwrap();
    for name in ["ledger", "certificates"] {
        fs::rename(workspace.path(name), workspace.path(&format!("{name}-moved"))).unwrap();
        symlink("elsewhere", workspace.path(name)).unwrap();
    }
    lines.for_each(|line| drop(line.unwrap()));
    assert!(child.wait().unwrap().success());
    assert_eq!(listing(&workspace.path("elsewhere")), Vec::<String>::new());
    assert_eq!(listing(&workspace.path("certificates-moved")).len(), 1);
    efface(&workspace, &["ledger", "verify", "ledger-moved"]).expect(0).says(&["1 records"]);
}

/// Wipes a loop device with everything that can be kept, in the folder `kept`, under this umask.
fn keeps_everything(workspace: &Workspace, device: &Loop, umask: &str) {
    let script = format!(
        "umask {umask}; exec {EFFACE} wipe {} --yes --quiet --method random --rate 16MiB/s --epoch-size 1MiB \
         --state-dir kept/below/state --ledger ledger --metrics metrics --certificate-to certificate",
        device.node.display()
    );
    let mut child = Command::new("sh").args(["-c", &script]).current_dir(workspace.path("")).spawn().unwrap();
    let state = workspace.path("kept/below/state");
    let running = || {
        fs::read_dir(&state)
            .ok()?
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|kind| kind == "running"))
    };
    let running = loop {
        if let Some(entry) = running() {
            break entry.path();
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(mode(&running), 0o600, "its lock under umask {umask}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_modes_of_what_is_kept_are_the_same_under_any_umask() {
    for umask in ["0", "022", "077"] {
        let workspace = Workspace::new();
        let Some(device) = Loop::new(&vec![b'x'; 8 * MIB], &[]) else { return };
        keeps_everything(&workspace, &device, umask);
        let state = workspace.path("kept/below/state");
        let journal = state.join(&listing(&state)[0]);
        assert!(journal.extension().is_some_and(|kind| kind == "journal"));
        let modes: Vec<(PathBuf, u32)> = vec![
            (workspace.path("kept"), 0o711),
            (workspace.path("kept/below"), 0o711),
            (state, 0o700),
            (journal, 0o600),
            (workspace.path("ledger"), 0o755),
            (workspace.path("ledger/.lock"), 0o600),
            (workspace.path("ledger/head"), 0o644),
            (workspace.path("ledger/00000001.json"), 0o644),
            (workspace.path("metrics"), 0o644),
            (workspace.path("certificate"), 0o644),
        ];
        for (path, expected) in modes {
            assert_eq!(mode(&path), expected, "{} under umask {umask}", path.display());
        }
    }
}

/// A user that may write to a folder, or owns it, can replace what is in it.
#[test]
fn a_folder_that_others_may_change_is_not_used() {
    if !is_root() {
        return;
    }
    let workspace = Workspace::new();
    let Some(device) = Loop::new(&vec![b'x'; 2 * MIB], &[]) else { return };
    fs::create_dir(workspace.path("kept")).unwrap();
    symlink("kept", workspace.path("link")).unwrap();
    let node = device.node.to_str().unwrap();
    let is_not_used = |folder: &str, why: &str| {
        let run = ["wipe", node, "--yes", "--quiet", "--state-dir", folder];
        efface(&workspace, &run).expect(0).says(&["no journal can be kept", why]);
        wipe(&workspace, &["--ledger", folder]).expect(2).says(&[folder, "ledger cannot be written to", why]);
        assert!(
            fs::read(workspace.path("disk.img")).unwrap().starts_with(b"tenant"),
            "something was written"
        );
        efface(&workspace, &["jobs", "--state-dir", folder])
            .expect(1)
            .says(&["journals cannot be read", why]);
        assert_eq!(listing(&workspace.path("kept")), Vec::<String>::new());
    };
    for (changed, why) in [(0o777, "mode 777"), (0o1777, "mode 1777"), (0o770, "mode 770")] {
        set_mode(&workspace.path("kept"), changed);
        is_not_used("kept", why);
    }
    set_mode(&workspace.path("kept"), 0o755);
    is_not_used("link", "symbolic link");
    chown(workspace.path("kept"), Some(UNPRIVILEGED), None).unwrap();
    is_not_used("kept", "user 65534");
    chown(workspace.path("kept"), Some(0), None).unwrap();
    let run = ["wipe", node, "--yes", "--quiet", "--state-dir", "kept"];
    efface(&workspace, &run).expect(0);
    let (kept, key) = (listing(&workspace.path("kept")), "journal.key".to_string());
    assert_eq!(
        (kept.len(), kept.contains(&key)),
        (2, true),
        "with the owner and the mode set right it is used"
    );
}

#[test]
fn a_user_with_read_access_delays_no_slot() {
    let Some(device) = is_root().then(|| Loop::new(&vec![b'x'; 2 * MIB], &[])).flatten() else { return };
    let workspace = Workspace::new();
    // Files as they were once made, in a /run of this test's own.
    let script = format!(
        "mount -t tmpfs none /run || exit 99; mkdir -m 755 /run/efface; cd /run/efface; touch desk ticket-1
         trap 'kill $pids' EXIT
         for file in /run/efface desk ticket-1; do
             setpriv --reuid {UNPRIVILEGED} --clear-groups flock --no-fork $file sleep 600 & pids=\"$pids $!\"
             while flock --nonblock $file true; do sleep 0.05; done
         done
         {EFFACE} wipe {node} --yes --quiet --slots 1 --no-wait --state-dir {state}",
        node = device.node.display(),
        state = workspace.path("state").display(),
    );
    let ran = bounded(&workspace, &["unshare", "--mount", "sh", "-c", &script]);
    if ran.code == 99 {
        return skipped("no mounts here").unwrap_or(());
    }
    ran.expect(0);
}

/// Neither is a wipe that has ended shown as running, nor is its journal lost.
#[test]
fn a_user_with_read_access_makes_no_job_appear_running() {
    let Some(device) = is_root().then(|| Loop::new(&vec![b'x'; 32 * MIB], &[])).flatten() else { return };
    let workspace = Workspace::new();
    set_mode(&workspace.path(""), 0o755);
    fs::create_dir(workspace.path("state")).unwrap();
    set_mode(&workspace.path("state"), 0o755);
    let node = device.node.to_str().unwrap();
    let slow = ["--rate", "16MiB/s", "--epoch-size", "1MiB", "--yes", "--json", "--state-dir", "state"];
    let mut child = Command::new(EFFACE)
        .args(["wipe", node])
        .args(slow)
        .current_dir(workspace.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("\"checkpoint\",\"step\":1")).unwrap().unwrap();
    let jobs = || efface(&workspace, &["jobs", "--json", "--state-dir", "state"]).expect(0).stdout;
    assert!(jobs().contains("\"state\": \"running\""), "{}", jobs());
    child.kill().unwrap();
    child.wait().unwrap();
    let names = listing(&workspace.path("state"));
    let running = names.iter().find(|name| name.ends_with(".running")).unwrap();
    let running = workspace.path("state").join(running);
    // As one that was made by an earlier efface.
    set_mode(&running, 0o644);
    let _lock = UnprivilegedLock::on(&running);
    assert!(jobs().contains("\"state\": \"resumable\""), "{}", jobs());
    let resume =
        ["wipe", node, "--resume", "--yes", "--quiet", "--epoch-size", "1MiB", "--state-dir", "state"];
    let ran = efface(&workspace, &resume).expect(0);
    assert!(!ran.stderr.contains("no journal can be kept"), "{}", ran.stderr);
    assert!(jobs().contains("\"state\": \"ended\""), "{}", jobs());
}

#[test]
fn a_signing_key_is_a_regular_file_of_this_user_or_root() {
    let workspace = Workspace::new();
    let sign = |key: &str| wipe(&workspace, &["--certificate-to", "c.json", "--sign-key", key]);
    mkfifo(&workspace.path("fifo"), Mode::S_IRUSR).unwrap();
    sign("fifo").expect(2).says(&["fifo", "no regular file"]);
    sign(".").expect(2).says(&["no regular file"]);
    if is_root() {
        fs::copy(workspace.path("key"), workspace.path("foreign")).unwrap();
        chown(workspace.path("foreign"), Some(UNPRIVILEGED), None).unwrap();
        sign("foreign").expect(3).says(&["others may use this key", "user 65534"]);
    }
    assert!(!workspace.path("c.json").exists());
    symlink("key", workspace.path("link")).unwrap();
    sign("link").expect(0);
}

/// How often these bytes are in the memory of a process.
fn copies(process: u32, bytes: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let readable = maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw"));
    let count = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut content = vec![0; (to - from) as usize];
        let length = memory.read_at(&mut content, from).unwrap_or(0);
        content[..length].windows(bytes.len()).filter(|window| *window == bytes).count()
    };
    readable.map(count).sum()
}

#[test]
fn a_signing_key_is_in_memory_once() {
    use ed25519_dalek::SigningKey;
    use ed25519_dalek::pkcs8::DecodePrivateKey;

    if !is_root() {
        return;
    }
    let workspace = Workspace::new();
    let pem = fs::read_to_string(workspace.path("key")).unwrap();
    let key = SigningKey::from_pkcs8_pem(&pem).unwrap();
    workspace.image("disk.img", 16 * MIB);
    let mut child = Command::new(EFFACE)
        .args(["wipe", "disk.img", "--image", "--yes", "--json", "--rate", "8MiB/s", "--verify", "none"])
        .args(["--certificate-to", "c.json", "--sign-key", "key"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("step_started")).unwrap().unwrap();
    let secret = copies(child.id(), key.as_bytes());
    let text = copies(child.id(), pem.lines().nth(1).unwrap().as_bytes());
    lines.for_each(|line| drop(line.unwrap()));
    assert!(child.wait().unwrap().success());
    assert_eq!((secret, text), (1, 0), "copies of the key, and of its text");
}

/// What may stand in place of a file of efface's, each with a file that is not efface's behind it.
const IN_ITS_PLACE: [&str; 4] = ["a symbolic link", "a FIFO", "a directory", "other names"];

fn put(what: &str, path: &Path, victim: &Path) {
    match what {
        "a symbolic link" => symlink(victim, path).unwrap(),
        "a FIFO" => mkfifo(path, Mode::S_IRWXU).unwrap(),
        "a directory" => fs::create_dir(path).unwrap(),
        _ => fs::hard_link(victim, path).unwrap(),
    }
}

#[test]
fn a_file_in_place_of_a_journal_or_its_lock_is_not_changed() {
    let Some(device) = Loop::new(&vec![b'x'; 2 * MIB], &[]) else { return };
    let workspace = Workspace::new();
    let node = device.node.to_str().unwrap();
    let wipe = |folder: &str| {
        efface(&workspace, &["wipe", node, "--yes", "--quiet", "--resume", "--state-dir", folder]).expect(0)
    };
    wipe("state");
    let journal = workspace.path("state").join(&listing(&workspace.path("state"))[0]);
    let victim = workspace.path("victim");
    fs::write(&victim, "another's").unwrap();
    set_mode(&victim, 0o644);
    for kind in ["running", "journal"] {
        let path = journal.with_extension(kind);
        // A journal is replaced, and not written to.
        for what in IN_ITS_PLACE.iter().take(if kind == "journal" { 3 } else { 4 }) {
            fs::remove_file(&path).ok();
            put(what, &path, &victim);
            let inode = path.symlink_metadata().unwrap().ino();
            wipe("state").says(&[
                "no journal can be kept",
                path.file_name().unwrap().to_str().unwrap(),
                what,
            ]);
            assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "{kind}, {what}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "another's", "{kind}, {what}");
            assert_eq!(mode(&victim), 0o644, "{kind}, {what}");
            let state = if kind == "journal" { "damaged" } else { "ended" };
            efface(&workspace, &["jobs", "--json", "--state-dir", "state"]).expect(0).says(&[state]);
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
    }
    mkfifo(&workspace.path("fifo"), Mode::S_IRWXU).unwrap();
    wipe("fifo").says(&["no journal can be kept", "Not a directory"]);
    efface(&workspace, &["jobs", "--state-dir", "fifo"]).expect(1).says(&["Not a directory"]);
}

/// Runs the package's script with a /var/lib of this test's own, after this one and before that.
fn installed(before: &str, after: &str) -> Option<RunOutput> {
    if !is_root() {
        return None;
    }
    let postinst = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/debian/postinst");
    let script = format!(
        "mount -t tmpfs none /var/lib || exit 99; cd /var/lib; umask 0; {before}
         sh {postinst} configure; code=$?; {after}; exit $code"
    );
    let ran = bounded(&Workspace::new(), &["unshare", "--mount", "sh", "-c", &script]);
    if ran.code == 99 { skipped("no mounts here") } else { Some(ran) }
}

#[test]
fn the_package_makes_folders_that_only_root_can_write() {
    let (stat, expected) = (
        "stat -c '%U:%G %a %n' efface efface/*",
        "root:root 711 efface\nroot:root 750 efface/certificates\nroot:root 700 efface/jobs\n\
         root:root 700 efface/ledger\nroot:root 755 efface/metrics\n",
    );
    let foreign = "mkdir -p efface/jobs; chown -R 65534 efface; chmod -R 777 efface";
    for before in ["true", foreign] {
        // Without cinder's group here.
        let Some(ran) = installed(before, stat) else { return };
        assert_eq!(ran.expect(0).stdout, expected, "{before}");
    }
    for link in ["efface", "efface/jobs"] {
        let before =
            format!("mkdir -m 777 elsewhere efface; rmdir {link} 2>/dev/null; ln -s ../lib/elsewhere {link}");
        let Some(ran) = installed(&before, "stat -c %a elsewhere; ls elsewhere") else { return };
        let ran = ran.expect(1).says(&[link, "symbolic link"]);
        assert_eq!(ran.stdout, "777\n", "what the link leads to was changed");
    }
}

#[test]
fn the_unit_gives_its_state_directory_the_same_mode() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/integrations/systemd/efface@.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("StateDirectory=efface\nStateDirectoryMode=0711\n"));
}
