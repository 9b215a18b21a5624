//! Where a file is to appear: tried before the work begins, and then there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, posix_fallocate};
use nix::unistd::linkat;
use tempfile::NamedTempFile;

use super::Record;
use crate::error::{Error, Result};

/// By which a file without a name gets one (linkat(2)).
const DESCRIPTORS: &str = "/proc/self/fd";
/// Room for a long record.
const ROOM_BYTES: i64 = 1 << 20;

/// A file without a name yet, with room on its file system. A process that is killed leaves nothing
/// of it, but where the file system knows no files without names (O_TMPFILE in open(2)).
#[derive(Debug)]
pub enum Reserved {
    Nameless(File),
    Named(NamedTempFile),
}

impl Reserved {
    pub fn in_folder(folder: &Path) -> io::Result<Reserved> {
        let nameless = File::options().write(true).custom_flags(libc::O_TMPFILE).open(folder);
        let reserved = match nameless {
            Ok(file) if Path::new(DESCRIPTORS).exists() => Reserved::Nameless(file),
            _ => Reserved::Named(tempfile::Builder::new().prefix(".efface-").tempfile_in(folder)?),
        };
        posix_fallocate(reserved.file(), 0, ROOM_BYTES)?;
        Ok(reserved)
    }

    fn file(&self) -> &File {
        match self {
            Reserved::Nameless(file) => file,
            Reserved::Named(file) => file.as_file(),
        }
    }

    /// Gives it its content and its name, durably; a name that is taken is an error.
    pub fn write(self, bytes: &[u8], path: &Path) -> io::Result<()> {
        fill(self.file(), bytes)?;
        match self {
            Reserved::Nameless(file) => {
                let held = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
                linkat(AT_FDCWD, held.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
            }
            Reserved::Named(file) => drop(file.persist_noclobber(path).map_err(|error| error.error)?),
        }
        sync_folder(path)
    }
}

/// Puts a file in place of the one of that name, or makes it. One process at a time: what a kill left
/// of an earlier try has a name that does not change, and is replaced.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".efface-");
    name.push(path.file_name().unwrap_or_default());
    // node_exporter reads whatever ends as the file itself does.
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        fill(&File::options().write(true).create_new(true).open(&new)?, bytes)?;
        fs::rename(&new, path)
    };
    let forget = || match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    forget()?;
    write().inspect_err(|_| drop(forget()))?;
    sync_folder(path)
}

fn fill(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Where the certificates of a command go: into a folder, or, of one device, to a file.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    is_folder: bool,
    reserved: Vec<Reserved>,
}

impl Destination {
    /// Finds out now whether so many certificates can be written.
    pub fn reserve(path: &Path, count: usize) -> Result<Destination> {
        let is_folder = path.is_dir();
        if !is_folder && path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Error::usage("there is no such folder").way_out("make it first").on(path));
        }
        if !is_folder && path.symlink_metadata().is_ok() {
            return Err(Error::usage("there is something of that name already")
                .way_out("name another file, or a folder")
                .on(path));
        }
        if !is_folder && count > 1 {
            return Err(Error::usage(format!("{count} devices have {count} certificates"))
                .way_out("name a folder that is there")
                .on(path));
        }
        let folder = if is_folder { path } else { folder_of(path) };
        let reserved: io::Result<Vec<Reserved>> = (0..count).map(|_| Reserved::in_folder(folder)).collect();
        let reserved = reserved.map_err(|error| {
            Error::usage("the certificate could not be written")
                .because(error)
                .way_out("give a folder that this user may write to, on a file system with room")
                .on(path)
        })?;
        Ok(Destination { path: path.to_path_buf(), is_folder, reserved })
    }

    /// Writes the file of one record; tells where.
    pub fn write(&mut self, record: &Record, bytes: &[u8]) -> Result<PathBuf> {
        let path = if self.is_folder { self.path.join(file_name(record)) } else { self.path.clone() };
        let reserved = self.reserved.pop().expect("one for each record");
        let written = reserved.write(bytes, &path);
        written
            .map_err(|error| Error::failed("the certificate cannot be written").because(error).on(&path))?;
        Ok(path)
    }
}

/// `efface-sda-0123abcd.json`
fn file_name(record: &Record) -> String {
    let device = record.device.rsplit('/').next().unwrap_or_default();
    let safe =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let device: String = device.chars().map(safe).take(64).collect();
    format!("efface-{device}-{}.json", &record.id[..8])
}
