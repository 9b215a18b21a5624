//! Directories of kept files. A directory is opened once, and its files are reached by that descriptor
//! (openat(2)), so that a changed path cannot lead elsewhere. Only regular files are opened; modes do not
//! depend on the umask.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, openat, posix_fallocate, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

/// By which a file without a name gets one (linkat(2)).
const DESCRIPTORS: &str = "/proc/self/fd";
/// Of a directory that leads to another: passed through, and not listed.
const MODE_ON_THE_WAY: u32 = 0o711;
/// Of what only its owner may read, and of every file before it is whole.
pub const MODE_PRIVATE: u32 = 0o600;
const LOCK_RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Directory {
    file: Arc<File>,
    /// As it was called when it was opened: for messages.
    path: PathBuf,
}

fn read(file: File, name: &OsStr, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("{} is larger than {bytes_max} bytes", Path::new(name).display());
        return Err(io::Error::other(what));
    }
    Ok(bytes)
}

impl Directory {
    /// One that is there, whoever may write to it.
    pub fn open(path: &Path) -> io::Result<Directory> {
        Directory::open_as(path, OFlag::empty())
    }

    /// A directory that only this user and root can change.
    pub fn trusted(path: &Path) -> io::Result<Directory> {
        if path.is_symlink() {
            return Err(io::Error::other("it is a symbolic link: name the directory that it leads to"));
        }
        let directory = Directory::open_as(path, OFlag::O_NOFOLLOW)?;
        let metadata = directory.file.metadata()?;
        if !is_ours(metadata.uid()) {
            let what = format!("it belongs to user {}, and not to the user of this process", metadata.uid());
            return Err(io::Error::other(what + " or root: chown it, or name another"));
        }
        if metadata.mode() & 0o022 != 0 {
            let what = format!("others may write to it, by its mode {:o}", metadata.mode() & 0o7777);
            return Err(io::Error::other(what + ": chmod go-w, or name another"));
        }
        Ok(directory)
    }

    /// The same; made, with this mode, where it is not there.
    pub fn make(path: &Path, mode: u32) -> io::Result<Directory> {
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Err(_) => Directory::trusted(path),
            Ok(()) => {
                let made = Directory::trusted(path)?;
                // What it inherited of its parent stays: the group for what is made in it.
                let inherited = made.file.metadata()?.mode() & libc::S_ISGID;
                made.file.set_permissions(Permissions::from_mode(mode | inherited))?;
                Ok(made)
            }
        }
    }

    /// The same, with those that lead to it.
    pub fn make_all(path: &Path, mode: u32) -> io::Result<Directory> {
        match path.parent() {
            Some(parent) if parent != Path::new("") && !parent.exists() => {
                drop(Directory::make_all(parent, MODE_ON_THE_WAY)?);
            }
            _ => {}
        }
        Directory::make(path, mode)
    }

    /// The one that a file is in, or is to be in, and the file's name there.
    pub fn of_file(path: &Path) -> io::Result<(Directory, OsString)> {
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        Ok((Directory::open(parent.unwrap_or(Path::new(".")))?, name.to_os_string()))
    }

    fn open_as(path: &Path, flags: OFlag) -> io::Result<Directory> {
        let flags = OFlag::O_DIRECTORY | flags;
        let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
        Ok(Directory { file: Arc::new(file), path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The names of its files, without those that are not UTF-8: efface makes none of these.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut directory =
            Dir::openat(&*self.file, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let names = directory.iter().map(|entry| Ok(entry?.file_name().to_str().map(String::from).ok()));
        let names = names.filter_map(|name: io::Result<Option<String>>| name.transpose());
        names.filter(|name| !matches!(name.as_deref(), Ok("." | ".."))).collect()
    }

    /// What has this name, a link itself and not what it leads to.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> io::Result<Option<SFlag>> {
        match fstatat(&*self.file, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether there is a regular file of this name; anything else than that is an error.
    pub fn has(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let name = name.as_ref();
        let what = match self.kind(name)? {
            None => return Ok(false),
            Some(SFlag::S_IFREG) => return Ok(true),
            Some(SFlag::S_IFLNK) => "a symbolic link",
            Some(SFlag::S_IFDIR) => "a directory",
            Some(SFlag::S_IFIFO) => "a FIFO",
            Some(SFlag::S_IFSOCK) => "a socket",
            Some(_) => "a device",
        };
        Err(io::Error::other(format!("{} is {what}, and no regular file", Path::new(name).display())))
    }

    fn open_file(&self, name: &OsStr, flags: OFlag) -> io::Result<File> {
        // Should it have become a FIFO in between, nothing waits for its other end.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(MODE_PRIVATE);
        let file = File::from(openat(&*self.file, name, flags, mode)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other(format!("{} is no regular file", Path::new(name).display()))),
        }
    }

    /// `None` if there is no file of this name.
    fn open_to_read(&self, name: &OsStr) -> io::Result<Option<File>> {
        if !self.has(name)? {
            return Ok(None);
        }
        match self.open_file(name, OFlag::O_RDONLY) {
            // It was removed in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }

    /// What the file of this name holds, `None` if there is none; a larger one is an error.
    pub fn read(&self, name: impl AsRef<OsStr>, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let name = name.as_ref();
        self.open_to_read(name)?.map(|file| read(file, name, bytes_max)).transpose()
    }

    /// The same of a secret: a file of another user, or that others may read, is an error.
    pub fn read_private(&self, name: impl AsRef<OsStr>, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let name = name.as_ref();
        let Some(file) = self.open_to_read(name)? else { return Ok(None) };
        let metadata = file.metadata()?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            let what = format!("{} is not this user's alone; remove it", Path::new(name).display());
            return Err(io::Error::other(what));
        }
        read(file, name, bytes_max).map(Some)
    }

    /// Puts a file in place of the regular one of that name, or makes it. One process at a time: what a
    /// kill left of an earlier try has a name that does not change, and is replaced.
    pub fn replace(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> io::Result<()> {
        let name = name.as_ref();
        let mut new = OsString::from(".efface-");
        new.push(name);
        // node_exporter reads whatever ends as the file itself does.
        new.push(".new");
        let write = || {
            let file = self.open_file(&new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
            fill(&file, bytes, mode)?;
            self.has(name)?;
            Ok(renameat(&*self.file, new.as_os_str(), &*self.file, name)?)
        };
        let forget = || match self.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        forget()?;
        write().inspect_err(|_: &io::Error| drop(forget()))?;
        self.file.sync_all()
    }

    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&*self.file, name.as_ref(), UnlinkatFlags::NoRemoveDir)?)
    }

    /// A file without a name yet, of this directory's file system. A process that is killed leaves nothing
    /// of it, but where the file system knows no files without names (O_TMPFILE in open(2)).
    pub fn draft(&self) -> io::Result<Draft> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let nameless = openat(&*self.file, ".", flags, Mode::from_bits_truncate(MODE_PRIVATE));
        let (file, name) = match nameless {
            Ok(file) if Path::new(DESCRIPTORS).exists() => (File::from(file), None),
            _ => self.named_draft().map(|(file, name)| (file, Some(name)))?,
        };
        Ok(Draft { directory: self.clone(), file, name })
    }

    /// By a name that no other process uses; what a killed one of the same number left is passed over.
    fn named_draft(&self) -> io::Result<(File, String)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut number = 0;
        loop {
            let name = format!(".efface-{}-{number}", std::process::id());
            match self.open_file(name.as_ref(), flags) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                file => return file.map(|file| (file, name)),
            }
        }
    }

    /// Takes the lock file of this name (mode 0600); `None` if another process has it.
    /// It ends with its descriptor, and so with its process.
    pub fn lock(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Lock>> {
        let name = name.as_ref();
        loop {
            self.has(name)?;
            let file = self.open_file(name, OFlag::O_RDWR | OFlag::O_CREAT)?;
            let metadata = file.metadata()?;
            let refused = match (is_ours(metadata.uid()), metadata.nlink()) {
                (false, _) => Some(format!("belongs to user {}", metadata.uid())),
                (true, 2..) => Some("is a file with other names too".into()),
                _ => None,
            };
            if let Some(why) = refused {
                return Err(io::Error::other(format!("{} {why}", Path::new(name).display())));
            }
            if metadata.mode() & 0o777 != MODE_PRIVATE {
                file.set_permissions(Permissions::from_mode(MODE_PRIVATE))?;
            }
            if !take_lock(&file)? {
                return Ok(None);
            }
            // A lock on a file that was removed before it was locked would exclude no process.
            if file.metadata()?.nlink() > 0 {
                return Ok(Some(Lock(file)));
            }
        }
    }

    /// The same, tried until the deadline, or until the wait is called off.
    pub fn lock_until(
        &self,
        name: &str,
        deadline: Instant,
        called_off: impl Fn() -> bool,
    ) -> io::Result<Option<Lock>> {
        loop {
            let lock = self.lock(name)?;
            if lock.is_some() || Instant::now() >= deadline || called_off() {
                return Ok(lock);
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    /// What the lock of this name holds, where a process has it. Looking takes no lock itself.
    pub fn read_locked(&self, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        match self.is_locked(name)? {
            true => self.read(name, bytes_max),
            false => Ok(None),
        }
    }

    /// Whether a process has the lock of this name.
    pub fn is_locked(&self, name: &str) -> io::Result<bool> {
        let Some(file) = self.open_to_read(name.as_ref())? else { return Ok(false) };
        // What a reader can hold does not count.
        let mut lock = whole_file(libc::F_RDLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(lock.l_type == libc::F_WRLCK as libc::c_short)
    }
}

/// Of the folder in [`runtime_folder`].
pub const MODE_OF_RUNTIME_FOLDER: u32 = 0o700;

/// Where the effaces of this host meet: the host's own folder, or the user's.
pub fn runtime_folder() -> PathBuf {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = user.filter(|_| !geteuid().is_root()).unwrap_or_else(|| "/run".into());
    base.join("efface")
}

fn is_ours(user: u32) -> bool {
    user == geteuid().as_raw() || user == 0
}

/// A lock on a file of its own, held until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// For what its holder says of itself.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// Unlike flock(2), which whoever may read the file can take, this takes a descriptor that may write.
fn take_lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A file that is to appear, whole or not at all.
#[derive(Debug)]
pub struct Draft {
    directory: Directory,
    file: File,
    /// Where it could not be had without one.
    name: Option<String>,
}

impl Draft {
    /// Reserves space on the file system.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        Ok(posix_fallocate(&self.file, 0, bytes as i64)?)
    }

    /// Locks it before anyone sees it. The lock outlives the draft.
    pub fn lock(&self) -> io::Result<Lock> {
        match take_lock(&self.file)? {
            true => Ok(Lock(self.file.try_clone()?)),
            false => Err(io::Error::other("a file without a name is locked")),
        }
    }

    /// Gives it its name; one that is taken is an error.
    pub fn link(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let to = &*self.directory.file;
        match &self.name {
            None => {
                let held = format!("{DESCRIPTORS}/{}", self.file.as_raw_fd());
                linkat(AT_FDCWD, held.as_str(), to, name.as_ref(), AtFlags::AT_SYMLINK_FOLLOW)?;
            }
            Some(draft) => linkat(to, draft.as_str(), to, name.as_ref(), AtFlags::empty())?,
        }
        Ok(())
    }

    /// Gives it its content and its name, durably.
    pub fn write(self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> io::Result<()> {
        fill(&self.file, bytes, mode)?;
        self.link(name)?;
        self.directory.file.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.directory.remove(name).ok();
        }
    }
}

fn fill(mut file: &File, bytes: &[u8], mode: u32) -> io::Result<()> {
    file.write_all(bytes)?;
    // More space than needed may have been reserved.
    file.set_len(bytes.len() as u64)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::trusted(folder.path()).unwrap();
        (folder, directory)
    }

    #[test]
    fn a_lock_has_one_holder_and_ends_with_its_descriptor() {
        let (_folder, directory) = directory();
        assert!(!directory.is_locked("lock").unwrap());
        let held = directory.lock("lock").unwrap().unwrap();
        assert!(directory.is_locked("lock").unwrap() && directory.lock("lock").unwrap().is_none());
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(directory.lock_until("lock", deadline, || true).unwrap().is_none(), "called off");
        drop(held);
        assert!(!directory.is_locked("lock").unwrap() && directory.lock("lock").unwrap().is_some());
    }

    /// Its holder may have removed it just before: then there is a new file to lock.
    #[test]
    fn a_lock_whose_file_was_removed_is_taken_on_a_new_one() {
        let (_folder, directory) = directory();
        let first = directory.lock("lock").unwrap().unwrap();
        directory.remove("lock").unwrap();
        let second = directory.lock("lock").unwrap().unwrap();
        assert_ne!(first.file().metadata().unwrap().ino(), second.file().metadata().unwrap().ino());
    }

    #[test]
    fn a_draft_takes_no_name_that_is_taken_and_leaves_nothing() {
        let (folder, directory) = directory();
        let named = |name: &str| {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let file = directory.open_file(name.as_ref(), flags).unwrap();
            Draft { directory: directory.clone(), file, name: Some(name.into()) }
        };
        for (draft, name) in [(directory.draft().unwrap(), "one"), (named(".efface-1"), "two")] {
            draft.reserve(1 << 20).unwrap();
            draft.write(name, b"content", 0o640).unwrap();
            assert_eq!(directory.read(name, 7).unwrap().unwrap(), b"content");
            let metadata = folder.path().join(name).metadata().unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o640, 1));
        }
        for draft in [directory.draft().unwrap(), named(".efface-2")] {
            let error = draft.write("one", b"other", 0o640).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        drop(named(".efface-3"));
        let mut names = directory.names().unwrap();
        names.sort();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn a_file_is_read_up_to_its_bound_and_replaced_whole() {
        let (_folder, directory) = directory();
        assert!(directory.read("file", 4).unwrap().is_none());
        directory.replace("file", b"four", 0o600).unwrap();
        directory.replace("file", b"1234", 0o600).unwrap();
        assert_eq!(directory.read("file", 4).unwrap().unwrap(), b"1234");
        let error = directory.read("file", 3).unwrap_err().to_string();
        assert!(error.contains("larger than 3 bytes"), "{error}");
        assert_eq!(directory.names().unwrap(), ["file"]);
    }
}
