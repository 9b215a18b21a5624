//! The key that seals journals: who cannot read it cannot write one that is believed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use nix::unistd::geteuid;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::pattern::Seed;

const NAME: &str = "journal.key";
const KEY_BYTES: u64 = 32;

pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// The folder's key, which is made where there is none yet.
    pub fn open(folder: &Path) -> io::Result<Key> {
        match Key::read(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Key::make(folder)?;
                Key::read(folder)
            }
            key => key,
        }
    }

    /// Believes only a file that its owner alone reads, and that is this user's.
    pub fn read(folder: &Path) -> io::Result<Key> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file =
            OpenOptions::new().read(true).custom_flags(flags).open(folder.join(NAME)).map_err(named)?;
        let metadata = file.metadata().map_err(named)?;
        let private =
            metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o077 == 0;
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES as usize + 1));
        file.take(KEY_BYTES + 1).read_to_end(&mut bytes).map_err(named)?;
        match bytes.as_slice().try_into() {
            Ok(key) if private => Ok(Key(Zeroizing::new(key))),
            _ => Err(io::Error::other(format!(
                "{NAME} is not a file of {KEY_BYTES} bytes that this user alone can read; remove it, and a new one is made"
            ))),
        }
    }

    /// Of several processes at the same time one makes it, whole.
    fn make(folder: &Path) -> io::Result<()> {
        let drawn = Seed::from_kernel().map_err(io::Error::other)?;
        let mut file = tempfile::Builder::new().prefix(".efface-").tempfile_in(folder).map_err(named)?;
        file.write_all(&drawn.0).and_then(|()| file.as_file().sync_all()).map_err(named)?;
        match file.persist_noclobber(folder.join(NAME)) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(named(error.error)),
            _ => File::open(folder)?.sync_all(),
        }
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&*self.0).expect("any key will do").chain_update(text)
    }

    pub fn seal(&self, text: &[u8]) -> String {
        hex::encode(self.mac(text).finalize().into_bytes())
    }

    pub fn fits(&self, seal: &str, text: &[u8]) -> bool {
        hex::decode(seal).is_ok_and(|seal| self.mac(text).verify_slice(&seal).is_ok())
    }
}

fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{NAME}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_seals_what_it_alone_opens() {
        let [folder, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert_eq!(Key::read(folder.path()).err().unwrap().kind(), io::ErrorKind::NotFound);
        let key = Key::open(folder.path()).unwrap();
        let seal = Key::open(folder.path()).unwrap().seal(b"journal");
        assert!(key.fits(&seal, b"journal") && !key.fits(&seal, b"Journal") && !key.fits("", b"journal"));
        assert!(!Key::open(other.path()).unwrap().fits(&seal, b"journal"));
        let mode = folder.path().join(NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_no_file_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        Key::open(folder.path()).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(Key::open(folder.path()).is_err(), "others can read it");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, [0; 31]).unwrap();
        assert!(Key::open(folder.path()).is_err(), "it is short");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, [0; 32]).unwrap();
        fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(Key::open(folder.path()).is_err(), "it is a link");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert!(Key::open(folder.path()).is_err(), "it is a FIFO");
        fs::remove_file(&path).unwrap();
        Key::open(folder.path()).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(Key::open(folder.path()).is_err(), "it is another user's");
        }
    }
}
