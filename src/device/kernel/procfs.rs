//! Users of devices in /proc: mounts, swap, locks, processes (proc(5)).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::super::identity::Inode;
use super::super::{DeviceNumber, Tree, printable};

/// One line of mountinfo.
#[derive(Clone, Debug)]
pub(in crate::device) struct Mount {
    number: DeviceNumber,
    kind: OsString,
    /// What is mounted, by its number and by its source (btrfs mounts under a number of its own), and a log
    /// or real-time device beside it.
    devices: Vec<DeviceNumber>,
    pub point: PathBuf,
    /// A process that sees it, where this one does not.
    pub seen_by: Option<Process>,
}

impl Mount {
    fn parse(tree: &Tree, fields: &[OsString]) -> Option<Mount> {
        let number = fields.get(2)?.to_str()?.parse().ok()?;
        let point = fields.get(4)?.into();
        // A varying number of optional fields ends with a dash; type, source and options come after it.
        let dash = fields.iter().position(|field| field == "-")?;
        let device = |bytes: &[u8]| tree.number_of(Path::new(OsStr::from_bytes(bytes)));
        // bcachefs names all its devices with colons between them.
        let source = fields.get(dash + 2)?.as_bytes().split(|byte| *byte == b':');
        let options = fields.get(dash + 3).map_or(&b""[..], |options| options.as_bytes());
        let beside = options
            .split(|byte| *byte == b',')
            .filter_map(|option| option.strip_prefix(b"logdev=").or_else(|| option.strip_prefix(b"rtdev=")));
        let devices = source.chain(beside).filter_map(device).chain([number]).collect();
        Some(Mount { number, kind: fields.get(dash + 1)?.clone(), devices, point, seen_by: None })
    }

    pub fn is_of(&self, device: DeviceNumber) -> bool {
        self.devices.contains(&device)
    }

    /// The device number that files on it have, where it is an overlay.
    pub fn overlay(&self) -> Option<DeviceNumber> {
        (self.kind == "overlay").then_some(self.number)
    }
}

/// What of the processes could not be looked into, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::device) struct Unseen(Vec<Process>);

impl Unseen {
    /// A process that has ended uses nothing, and a kernel thread has neither files nor memory.
    pub fn add(&mut self, tree: &Tree, id: u32, error: &io::Error) {
        if !is_gone(error)
            && !is_kernel_thread_or_ended(tree, id)
            && self.0.last().is_none_or(|last| last.id != id)
        {
            self.0.push(Process::of(tree, id));
        }
    }

    /// `3 processes, such as process 1 (systemd)`; `None` if all was seen.
    pub fn describe(&self) -> Option<String> {
        let first = self.0.first()?;
        Some(match self.0.len() {
            1 => first.to_string(),
            count => format!("{count} processes, such as {first}"),
        })
    }
}

/// There is no such process, or it has no such file any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// From `/proc/PID/stat`: the flag PF_KTHREAD, the states Z and X. A process that was refused to us
/// while it ended may be gone by now.
fn is_kernel_thread_or_ended(tree: &Tree, id: u32) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = match fs::read_to_string(tree.proc.join(id.to_string()).join("stat")) {
        Ok(stat) => stat,
        Err(error) => return is_gone(&error),
    };
    // The command stands in parentheses, and may hold some itself.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let flags: Option<u32> = fields.get(6).and_then(|flags| flags.parse().ok());
    matches!(fields.first(), Some(&("Z" | "X"))) || flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// What is mounted here, and in every other mount namespace that a process lives in. In one namespace a
/// process under another root (chroot) sees other mounts: those below its root.
pub(in crate::device) fn mounts(tree: &Tree) -> io::Result<(Vec<Mount>, Unseen)> {
    let mut mounts = mountinfo(tree, "self")?;
    let mut unseen = Unseen::default();
    let view = |process: &str| {
        let process = tree.proc.join(process);
        let namespace = fs::read_link(process.join("ns/mnt"))?;
        Ok::<_, io::Error>((namespace, fs::metadata(process.join("root")).map(|root| Inode::of(&root))?))
    };
    let mut seen: BTreeSet<(PathBuf, Inode)> = view("self").into_iter().collect();
    for id in process_ids(tree)? {
        let others = view(&id.to_string()).and_then(|other| match seen.insert(other) {
            true => mountinfo(tree, &id.to_string()).map(Some),
            false => Ok(None),
        });
        match others {
            Ok(None) => {}
            Ok(Some(others)) => {
                let process = Process::of(tree, id);
                mounts.extend(
                    others.into_iter().map(|mount| Mount { seen_by: Some(process.clone()), ..mount }),
                );
            }
            Err(error) => unseen.add(tree, id, &error),
        }
    }
    Ok((mounts, unseen))
}

fn mountinfo(tree: &Tree, process: &str) -> io::Result<Vec<Mount>> {
    let lines = table(&tree.proc.join(process).join("mountinfo"))?;
    let mounts: Option<Vec<Mount>> = lines.iter().map(|fields| Mount::parse(tree, fields)).collect();
    mounts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a line of mountinfo cannot be read"))
}

/// The devices and files that are swapped to.
pub(in crate::device) fn swaps(tree: &Tree) -> io::Result<Vec<PathBuf>> {
    match table(&tree.proc.join("swaps")) {
        Ok(lines) => Ok(lines
            .into_iter()
            .skip(1)
            .filter_map(|fields| fields.into_iter().next())
            .map(PathBuf::from)
            .collect()),
        // A kernel built without swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::device) struct Process {
    pub id: u32,
    pub command: String,
}

impl Process {
    pub fn of(tree: &Tree, id: u32) -> Process {
        let command = fs::read_to_string(tree.proc.join(id.to_string()).join("comm")).unwrap_or_default();
        Process { id, command: printable(command.trim()) }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.id, self.command)
    }
}

/// The processes that are not to be asked, since they are this one.
pub(in crate::device) fn own_id(tree: &Tree) -> u32 {
    // By the numbers of that /proc, which can be another namespace's.
    let own = fs::read_link(tree.proc.join("self")).ok();
    own.and_then(|own| own.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
}

/// Which processes this /proc does not show at all: it shows those of one PID namespace.
pub(in crate::device) fn hidden_processes(tree: &Tree) -> Option<&'static str> {
    /// PROC_PID_INIT_INO of the kernel: the first PID namespace has this number on every machine.
    const FIRST: &str = "pid:[4026531836]";
    let is_first = |process: &str| {
        fs::read_link(tree.proc.join(process).join("ns/pid"))
            .is_ok_and(|namespace| namespace == Path::new(FIRST))
    };
    // A process of the first namespace finds itself in that one's /proc alone.
    match is_first("self") || is_first("1") {
        true => hides_processes(tree).then_some("the processes that /proc hides (hidepid)"),
        false => Some("the processes outside of this PID namespace"),
    }
}

/// The mount option hidepid, which CAP_SYS_PTRACE overrides.
fn hides_processes(tree: &Tree) -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let read = |name| fs::read_to_string(tree.proc.join("self").join(name)).unwrap_or_default();
    let (mounts, status) = (read("mountinfo"), read("status"));
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let hides = |line: &str| {
        let option = line.split_once(" - proc ")?.1.split("hidepid=").nth(1)?;
        Some(!option.starts_with(['0', 'o']))
    };
    effective & CAP_SYS_PTRACE == 0 && mounts.lines().any(|line| hides(line) == Some(true))
}

pub(in crate::device) fn process_ids(tree: &Tree) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(&tree.proc)? {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// The process that holds a BSD lock on this file, where the kernel shows it.
pub(in crate::device) fn lock_holder(tree: &Tree, file: &Metadata) -> Option<Process> {
    let (major, minor, inode) = (major(file.dev()), minor(file.dev()), file.ino());
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    let lines = table(&tree.proc.join("locks")).ok()?;
    // A line of one that waits for the lock has an arrow in this field.
    let held = |fields: &&Vec<OsString>| {
        fields.get(1).is_some_and(|kind| kind == "FLOCK") && fields.get(5).is_some_and(|at| *at == *place)
    };
    let id = lines.iter().find(held)?.get(4)?.to_str()?.parse().ok()?;
    Some(Process::of(tree, id))
}

/// The lines of a file in /proc, split into their fields.
fn table(path: &Path) -> io::Result<Vec<Vec<OsString>>> {
    let content = fs::read(path)?;
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(fields).collect())
}

fn fields(line: &[u8]) -> Vec<OsString> {
    // The kernel escapes blanks, tabs and line ends, and no other white space.
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty()).map(unescape).collect()
}

/// The kernel writes blanks and backslashes of a path as three octal digits: `\040`.
pub(in crate::device) fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk::<3>().filter(|_| *first == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{FakeTree, SDA, SWAPS_HEADER};
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_number_and_by_its_source() {
        let fake = FakeTree::new();
        let (sda, other) = (fake.device(SDA, "8:0"), "8:16".parse().unwrap());
        fake.write(
            "proc/self/mountinfo",
            "36 27 8:0 / /mnt/with\\040blank rw,noatime shared:1 master:2 - ext4 /dev/root rw\n\
             37 27 0:41 / /mnt/btrfs rw,relatime - btrfs /dev/sda rw,space_cache=v2\n\
             38 27 0:42 / /mnt/tmp rw - tmpfs  rw\n",
        );
        let (mounts, _) = mounts(&fake.tree).unwrap();
        assert_eq!(mounts[0].point, Path::new("/mnt/with blank"));
        let of = |device| mounts.iter().map(|mount| mount.is_of(device)).collect::<Vec<_>>();
        assert_eq!(of(sda), [true, true, false]);
        assert_eq!(of(other), [false; 3]);
    }

    #[test]
    fn a_process_under_another_root_is_asked_too() {
        let fake = FakeTree::new();
        fake.write("proc/self/mountinfo", "");
        for (process, mounted) in [("self", ""), ("7", "36 27 8:0 / /srv rw - ext4 /dev/sda rw\n")] {
            fake.write(&format!("proc/{process}/mountinfo"), mounted);
            fake.write(&format!("proc/{process}/root/file"), "");
            fake.write(&format!("proc/{process}/ns/file"), "");
            std::os::unix::fs::symlink("mnt:[1]", fake.tree.proc.join(process).join("ns/mnt")).unwrap();
        }
        assert_eq!(mounts(&fake.tree).unwrap().0[0].point, Path::new("/srv"));
    }

    #[test]
    fn an_unreadable_pass_list_is_an_error() {
        let fake = FakeTree::new();
        fake.write("proc/self/mountinfo", "36 27 eight:zero / /mnt rw - ext4 /dev/sda rw\n");
        assert!(mounts(&fake.tree).is_err());
    }

    #[test]
    fn swaps_are_listed_without_their_heading() {
        let fake = FakeTree::new();
        fake.write(
            "proc/swaps",
            format!(
                "{SWAPS_HEADER}/dev/sda2                               partition\t8388604\t\t0\t\t-2\n\
                 /var/swap\\040file                      file\t\t1048572\t\t0\t\t-3\n"
            ),
        );
        assert_eq!(swaps(&fake.tree).unwrap(), [Path::new("/dev/sda2"), Path::new("/var/swap file")]);
    }

    #[test]
    fn a_lock_leads_to_the_process_that_holds_it() {
        let fake = FakeTree::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let place = format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino());
        fake.write(
            "proc/locks",
            format!(
                "1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 22 00:06:1 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 33 {place} 0 EOF\n\
                 3: -> FLOCK  ADVISORY  WRITE 44 {place} 0 EOF\n"
            ),
        );
        fake.write("proc/33/comm", "efface\n");
        let holder = lock_holder(&fake.tree, &metadata).unwrap();
        assert_eq!(holder.to_string(), "process 33 (efface)");
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        for (escaped, path) in [("/a\\040b\\134c", "/a b\\c"), ("/a\\", "/a\\"), ("/a\\9zz", "/a\\9zz")] {
            assert_eq!(unescape(escaped.as_bytes()), path);
        }
    }
}
