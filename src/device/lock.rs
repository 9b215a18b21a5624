//! The BSD lock on a whole disk, as systemd's "Locking Block Device Access" asks for it: it keeps
//! udev and a second efface out. One for a disk, shared by the jobs of this process.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The file system and inode, or the number, of what is locked.
type Key = (u64, u64);

/// Held until the last job on the disk is done.
pub struct Lock {
    _file: Flock<File>,
}

static LOCKS: LazyLock<Mutex<HashMap<Key, Weak<Lock>>>> = LazyLock::new(Mutex::default);

impl Lock {
    /// None where another process holds it.
    pub fn take(path: &Path, key: Key) -> io::Result<Option<Arc<Lock>>> {
        let mut locks = LOCKS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(held) = locks.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(held));
        }
        let file = File::open(path)?;
        tracing::debug!("flock on {} by descriptor {}", path.display(), file.as_raw_fd());
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                let lock = Arc::new(Lock { _file: file });
                locks.insert(key, Arc::downgrade(&lock));
                Ok(Some(lock))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}
