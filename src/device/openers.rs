//! Openers: processes that have devices or files open, found by one scan for all targets of a command.
//!
//! A process has a file open by a descriptor, by a shared mapping of it in memory, or by io_uring's
//! table of fixed files, which the kernel shows by their paths alone. What cannot be read is
//! counted: it may be a user of any device.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Tree;
use super::graph::{Role, Shared};
use super::identity::Inode;
use super::kernel::procfs::{self, Process, Unseen};
use super::place::Place;

/// How often the kernel is asked for the files of a ring, a millisecond apart.
const LOOKS_AT_RING: usize = 100;

/// A device or file that another process has open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OpenFile {
    pub process: Process,
    place: Place,
    writes: bool,
}

/// What the processes of the machine had open at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Openers {
    opened: Vec<OpenFile>,
    /// The paths in io_uring's tables of fixed files.
    fixed: Vec<(Process, PathBuf)>,
    /// What could not be read: `3 processes, such as …`.
    pub unseen: Vec<String>,
}

impl Openers {
    /// Looks for block devices, and for these files, in all processes but this one.
    pub fn read(tree: &Tree, files: &BTreeSet<Inode>) -> io::Result<Openers> {
        let mut look = ProcessScan { tree, files, openers: Openers::default(), unseen: Unseen::default() };
        let own = procfs::own_id(tree);
        for id in procfs::process_ids(tree)?.into_iter().filter(|id| *id != own) {
            let folder = tree.proc.join(id.to_string());
            for looked in [look.descriptors(id, &folder), look.mappings(id, &folder)] {
                looked.unwrap_or_else(|error| look.unseen.add(tree, id, &error));
            }
        }
        let ProcessScan { mut openers, unseen, .. } = look;
        openers.unseen.extend(unseen.describe());
        openers.unseen.extend(procfs::hidden_processes(tree).map(String::from));
        Ok(openers)
    }

    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.fixed.is_empty()
    }

    /// What a later scan still shows.
    pub fn still_in(mut self, later: &Openers) -> Openers {
        self.opened.retain(|each| later.opened.contains(each));
        self.fixed.retain(|each| later.fixed.contains(each));
        self
    }

    /// Those that an earlier scan showed before those that came since.
    pub fn lasting_first(mut self, earlier: &Openers) -> Openers {
        self.opened.sort_by_key(|each| !earlier.opened.contains(each));
        self
    }

    /// Those of the processes that are meant, and those of the others.
    pub fn split(self, meant: impl Fn(&Process) -> bool) -> (Openers, Openers) {
        let Openers { opened, fixed, unseen } = self;
        let (own, other) = opened.into_iter().partition(|each| meant(&each.process));
        let (own_fixed, other_fixed) = fixed.into_iter().partition(|(process, _)| meant(process));
        let openers = |opened, fixed| Openers { opened, fixed, unseen: unseen.clone() };
        (openers(own, own_fixed), openers(other, other_fixed))
    }

    /// A process that uses bytes of the target: of what lies below it only writers count, since many a
    /// monitor keeps whole disks open for reading.
    /// Says, too, whether it has only something below the target open.
    pub fn of(&self, sharing: &[Shared], names: &[PathBuf]) -> Option<(&Process, bool)> {
        let uses = |each: &OpenFile| {
            let shared = sharing.iter().find(|shared| shared.place == each.place)?;
            let below = is_below(shared, sharing);
            let file = matches!(shared.place, Place::File(_));
            // That a process reads a file is no use of the target.
            (each.writes || !(below || file)).then_some(below)
        };
        let named = |(_, path): &&(Process, PathBuf)| names.iter().any(|name| is_named(path, name));
        let opened = self.opened.iter().find_map(|each| Some((&each.process, uses(each)?)));
        opened.or_else(|| Some((&self.fixed.iter().find(named)?.0, false)))
    }
}

/// Whether it lies below the target, or is another path to what does.
fn is_below(shared: &Shared, sharing: &[Shared]) -> bool {
    let path_to = || sharing.iter().find(|other| other.place == shared.from).map(|other| other.role);
    let role = if shared.role == Role::Path { path_to() } else { Some(shared.role) };
    role == Some(Role::Below)
}

/// Nodes have other paths in other mount namespaces; files are known by their whole path.
fn is_named(path: &Path, name: &Path) -> bool {
    path == name || (name.starts_with("/dev") && path.file_name() == name.file_name())
}

struct ProcessScan<'a> {
    tree: &'a Tree,
    files: &'a BTreeSet<Inode>,
    openers: Openers,
    unseen: Unseen,
}

impl ProcessScan<'_> {
    fn descriptors(&mut self, id: u32, folder: &Path) -> io::Result<()> {
        let mut seen = Ok(());
        for descriptor in fs::read_dir(folder.join("fd"))? {
            let descriptor = descriptor?;
            let about = || fs::read_to_string(folder.join("fdinfo").join(descriptor.file_name()));
            match fs::metadata(descriptor.path()) {
                Ok(file) if self.is_wanted(Place::of(&file)) => {
                    // What is not shown is taken for the worse.
                    let writes = about().ok().and_then(|about| writes(&about)).unwrap_or(true);
                    self.add(id, Place::of(&file), writes);
                }
                Ok(file) if is_ring(&file, &descriptor.path()) => {
                    let process = Process::of(self.tree, id);
                    match shown_files(about) {
                        Ok(files) => {
                            self.openers.fixed.extend(files.into_iter().map(|file| (process.clone(), file)));
                        }
                        // What else the process has open is looked at all the same.
                        Err(error) => seen = Err(error),
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        seen
    }

    /// Shared mappings outlive the descriptor that they were made from.
    fn mappings(&mut self, id: u32, folder: &Path) -> io::Result<()> {
        let maps = fs::read(folder.join("maps"))?;
        for line in maps.split(|byte| *byte == b'\n') {
            let Some(mapping) = Mapping::parse(line) else { continue };
            let place = match fs::metadata(folder.join("map_files").join(&mapping.range)) {
                Ok(file) => Place::of(&file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Without the right to follow it: by its path, where that leads to the same inode.
                Err(error) => mapping.place(folder).ok_or(error)?,
            };
            if self.is_wanted(place) {
                self.add(id, place, mapping.writes);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, place: Place) -> bool {
        match place {
            Place::Device(_) => true,
            Place::File(inode) => self.files.contains(&inode),
        }
    }

    fn add(&mut self, id: u32, place: Place, writes: bool) {
        self.openers.opened.push(OpenFile { process: Process::of(self.tree, id), place, writes });
    }
}

/// Whether the flags of a descriptor, in octal, ask for more than reading.
fn writes(about: &str) -> Option<bool> {
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE != libc::O_RDONLY)
}

/// What has no inode of its own is of no file type.
fn is_ring(file: &fs::Metadata, descriptor: &Path) -> bool {
    file.mode() & libc::S_IFMT == 0
        && fs::read_link(descriptor).is_ok_and(|to| to == Path::new("anon_inode:[io_uring]"))
}

/// The kernel leaves a ring's files out while another thread holds the ring's lock: a submission, or
/// another reader of the same file. It does not wait for it, so the file is read again.
fn shown_files(about: impl Fn() -> io::Result<String>) -> io::Result<Vec<PathBuf>> {
    for _ in 0..LOOKS_AT_RING {
        if let Some(files) = fixed_files(&about()?) {
            return Ok(files);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the files of its io_uring are not shown"))
}

/// `UserFiles: COUNT` and below it a line `NUMBER: PATH` for each; nothing where the kernel left them out.
fn fixed_files(about: &str) -> Option<Vec<PathBuf>> {
    let mut lines = about.lines().skip_while(|line| !line.starts_with("UserFiles:"));
    let (_, count) = lines.next()?.split_once(':')?;
    let path = |line: &str| {
        let (number, path) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok().map(|_| procfs::unescape(path.as_bytes()).into())
    };
    let files: Vec<PathBuf> = lines.map_while(path).collect();
    (!files.is_empty() || count.trim() == "0").then_some(files)
}

/// A line of `/proc/PID/maps` that is a shared mapping of a file.
struct Mapping {
    range: String,
    writes: bool,
    inode: u64,
    path: PathBuf,
}

impl Mapping {
    /// `ADDRESSES PERMISSIONS OFFSET DEVICE INODE PATH`
    fn parse(line: &[u8]) -> Option<Mapping> {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions) = (fields.next()?, fields.next()?);
        let inode: u64 = fields.nth(2)?.parse().ok()?;
        let path = fields.next().unwrap_or_default();
        (permissions.ends_with('s') && inode != 0).then(|| Mapping {
            range: range.into(),
            writes: permissions.contains('w'),
            inode,
            path: path.into(),
        })
    }

    fn place(&self, process: &Path) -> Option<Place> {
        let below_root = self.path.strip_prefix("/").ok()?;
        let file = fs::metadata(process.join("root").join(below_root)).ok()?;
        (file.ino() == self.inode).then(|| Place::of(&file))
    }
}

#[cfg(test)]
impl Openers {
    pub fn one(process: Process, place: Place, writes: bool) -> Openers {
        Openers { opened: vec![OpenFile { process, place, writes }], ..Openers::default() }
    }
}

#[cfg(test)]
mod tests;
