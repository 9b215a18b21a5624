//! What /proc tells of who uses a device: mounts, swap, open descriptors, locks (proc(5)).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::identity::Inode;
use super::place::Place;
use super::{DeviceNumber, Tree, printable};

/// One line of mountinfo.
#[derive(Clone)]
pub(super) struct Mount {
    number: DeviceNumber,
    source: PathBuf,
    pub point: PathBuf,
    /// One of those that see it, where we do not.
    pub seen_by: Option<Process>,
}

impl Mount {
    fn parse(fields: &[OsString]) -> Option<Mount> {
        let number = fields.get(2)?.to_str()?.parse().ok()?;
        let point = fields.get(4)?.into();
        // A varying number of optional fields ends with a dash; type and source come after it.
        let dash = fields.iter().position(|field| field == "-")?;
        Some(Mount { number, source: fields.get(dash + 2)?.into(), point, seen_by: None })
    }

    /// By number or by source: btrfs mounts under a number of its own, and bcachefs names all its
    /// devices with colons between them.
    pub fn is_of(&self, device: DeviceNumber, tree: &Tree) -> bool {
        let sources = self.source.as_os_str().as_bytes().split(|byte| *byte == b':');
        let named = |source: &[u8]| tree.number_of(Path::new(OsStr::from_bytes(source))) == Some(device);
        self.number == device || sources.into_iter().any(named)
    }
}

/// What is mounted here, and in every other mount namespace that a process lives in. In one namespace a
/// process under another root (chroot) sees other mounts: those below its root.
pub(super) fn mounts(tree: &Tree) -> io::Result<Vec<Mount>> {
    let mut mounts = mountinfo(&tree.proc.join("self/mountinfo"))?;
    let view = |process: &str| {
        let process = tree.proc.join(process);
        let root = fs::metadata(process.join("root")).ok().map(|root| Inode::of(&root));
        Some((fs::read_link(process.join("ns/mnt")).ok()?, root))
    };
    let mut seen: BTreeSet<(PathBuf, Option<Inode>)> = view("self").into_iter().collect();
    for id in process_ids(tree)? {
        let another = view(&id.to_string()).is_some_and(|other| seen.insert(other));
        if !another {
            continue;
        }
        // A process that has ended by now shows nothing, and uses nothing.
        let others = mountinfo(&tree.proc.join(id.to_string()).join("mountinfo")).unwrap_or_default();
        let process = Process::of(tree, id);
        mounts.extend(others.into_iter().map(|mount| Mount { seen_by: Some(process.clone()), ..mount }));
    }
    Ok(mounts)
}

fn mountinfo(path: &Path) -> io::Result<Vec<Mount>> {
    let mounts: Option<Vec<Mount>> = table(path)?.iter().map(|fields| Mount::parse(fields)).collect();
    mounts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a line of mountinfo cannot be read"))
}

/// The devices and files that are swapped to.
pub(super) fn swaps(tree: &Tree) -> io::Result<Vec<PathBuf>> {
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
pub(super) struct Process {
    pub id: u32,
    pub command: String,
}

impl Process {
    fn of(tree: &Tree, id: u32) -> Process {
        let command = fs::read_to_string(tree.proc.join(id.to_string()).join("comm")).unwrap_or_default();
        Process { id, command: printable(command.trim()) }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.id, self.command)
    }
}

/// A descriptor of another process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    pub process: Process,
    pub place: Place,
    pub writes: bool,
}

/// What other processes have open of the files that are asked for, as far as we may look into them.
pub(super) fn opened(tree: &Tree, wanted: &dyn Fn(&Metadata) -> bool) -> Vec<Opened> {
    let ids = process_ids(tree).unwrap_or_default().into_iter();
    let others = ids.filter(|id| *id != std::process::id());
    others.flat_map(|id| opened_by(tree, id, wanted)).collect()
}

/// Another process that may write to this file.
pub(super) fn writer(tree: &Tree, file: Place) -> Option<Process> {
    let writers = opened(tree, &|other| Place::of(other) == file);
    writers.into_iter().find(|each| each.writes).map(|each| each.process)
}

fn opened_by(tree: &Tree, id: u32, wanted: &dyn Fn(&Metadata) -> bool) -> Vec<Opened> {
    let folder = tree.proc.join(id.to_string());
    let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { return Vec::new() };
    let each = descriptors.flatten().filter_map(|descriptor| {
        let file = fs::metadata(descriptor.path()).ok().filter(wanted)?;
        let about = fs::read_to_string(folder.join("fdinfo").join(descriptor.file_name()));
        let process = Process::of(tree, id);
        // What is not told is taken for the worse.
        let writes = about.ok().and_then(|about| writes(&about)).unwrap_or(true);
        Some(Opened { process, place: Place::of(&file), writes })
    });
    each.collect()
}

/// Whether the flags of a descriptor, in octal, ask for more than reading.
fn writes(about: &str) -> Option<bool> {
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE != libc::O_RDONLY)
}

fn process_ids(tree: &Tree) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(&tree.proc)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The process that holds a BSD lock on this file, where the kernel tells.
pub(super) fn lock_holder(tree: &Tree, file: &Metadata) -> Option<Process> {
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
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).map(unescape).collect()
}

/// The kernel writes blanks and backslashes of a path as three octal digits: `\040`.
fn unescape(field: &[u8]) -> OsString {
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
    use super::super::fake::{FakeTree, SDA, SWAPS_HEADER};
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
        let mounts = mounts(&fake.tree).unwrap();
        assert_eq!(mounts[0].point, Path::new("/mnt/with blank"));
        let of = |device| mounts.iter().map(|mount| mount.is_of(device, &fake.tree)).collect::<Vec<_>>();
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
        assert_eq!(mounts(&fake.tree).unwrap()[0].point, Path::new("/srv"));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_and_no_pass() {
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
