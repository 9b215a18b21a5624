//! Destinations of certificates: reserved before the work starts, written completely or not at all.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Record;
use crate::directory::{Directory, Draft};
use crate::error::{Error, Result};

/// Space reserved for a record.
pub const RESERVED_BYTES: u64 = 1 << 20;
/// Records are readable by everyone who can search their directory.
pub const MODE: u32 = 0o644;

/// Where the certificates of a command go: a directory, or for one device a file. The directory stays the
/// one that was opened, wherever its path leads later.
#[derive(Debug)]
pub struct Destination {
    directory: Directory,
    /// `None` for a directory, where each certificate gets its own name.
    file: Option<OsString>,
    reserved: Vec<Draft>,
}

impl Destination {
    /// Checks that `count` certificates can be written, and reserves their space.
    ///
    /// # Errors
    /// A usage error where the directory is missing or cannot be written to, the file exists, or a file is
    /// named for several devices.
    pub fn reserve(path: &Path, count: usize) -> Result<Destination> {
        let unwritable = |error| {
            Error::usage("the certificate could not be written")
                .because(error)
                .with_remedy("give a folder that this user may write to, on a file system with free space")
                .on(path)
        };
        let (directory, file) = match Directory::open(path) {
            Ok(folder) => (folder, None),
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(unwritable(error));
            }
            Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(Error::usage("there is no such folder").with_remedy("make it first").on(path));
            }
            Err(_) => {
                let (directory, name) = Directory::of_file(path).map_err(unwritable)?;
                (directory, Some(name))
            }
        };
        let taken = file.as_ref().map(|name| directory.kind(name)).transpose().map_err(unwritable)?;
        if taken.flatten().is_some() {
            return Err(Error::usage("there is something of that name already")
                .with_remedy("name another file, or a folder")
                .on(path));
        }
        if file.is_some() && count > 1 {
            return Err(Error::usage(format!("{count} devices have {count} certificates"))
                .with_remedy("name a folder that is there")
                .on(path));
        }
        let reserve = || {
            let draft = directory.draft()?;
            draft.reserve(RESERVED_BYTES)?;
            Ok(draft)
        };
        let reserved = (0..count).map(|_| reserve()).collect::<io::Result<_>>().map_err(unwritable)?;
        Ok(Destination { directory, file, reserved })
    }

    /// Writes the file of one record; returns its path.
    ///
    /// # Errors
    /// The file cannot be written, or its name was taken meanwhile; of kind
    /// [`Kind::Failed`](crate::Kind::Failed).
    ///
    /// # Panics
    /// Where more are written than were reserved.
    pub fn write(&mut self, record: &Record, bytes: &[u8]) -> Result<PathBuf> {
        let name = self.file.clone().unwrap_or_else(|| file_name(record).into());
        let path = self.directory.path_of(&name);
        let reserved = self.reserved.pop().expect("one for each record");
        reserved
            .write(&name, bytes, MODE)
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
