//! The key of the HMAC that seals journals: a process that cannot read it writes none that is trusted.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::directory::{Directory, MODE_PRIVATE};
use crate::pattern::Seed;

const NAME: &str = "journal.key";
const KEY_BYTES: u64 = 32;

pub(super) struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// The folder's key, which is made where there is none yet.
    pub fn open(folder: &Directory) -> io::Result<SealKey> {
        match SealKey::read(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                SealKey::make(folder)?;
                SealKey::read(folder)
            }
            key => key,
        }
    }

    /// Only from a file of this user that no other may read.
    pub fn read(folder: &Directory) -> io::Result<SealKey> {
        let bytes = folder.read_private(NAME, KEY_BYTES).map_err(named)?;
        let bytes = Zeroizing::new(bytes.ok_or_else(|| named(io::ErrorKind::NotFound.into()))?);
        let key = bytes.as_slice().try_into().map_err(|_| {
            named(io::Error::other(format!(
                "it is not of {KEY_BYTES} bytes; remove it, and a new one is made"
            )))
        })?;
        Ok(SealKey(Zeroizing::new(key)))
    }

    /// Of several processes at the same time one makes the key; its file appears whole.
    fn make(folder: &Directory) -> io::Result<()> {
        let drawn = Seed::from_kernel().map_err(io::Error::other)?;
        match folder.draft()?.write(NAME, &drawn.0, MODE_PRIVATE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(named),
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
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [folder, other] = folders.each_ref().map(|folder| Directory::trusted(folder.path()).unwrap());
        assert_eq!(SealKey::read(&folder).err().unwrap().kind(), io::ErrorKind::NotFound);
        let key = SealKey::open(&folder).unwrap();
        let seal = SealKey::open(&folder).unwrap().seal(b"journal");
        assert!(key.fits(&seal, b"journal") && !key.fits(&seal, b"Journal") && !key.fits("", b"journal"));
        assert!(!SealKey::open(&other).unwrap().fits(&seal, b"journal"));
        let mode = folder.path().join(NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_no_file_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = (folder.path().join(NAME), Directory::trusted(folder.path()).unwrap());
        SealKey::open(&at).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(SealKey::open(&at).is_err(), "others can read it");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, [0; 31]).unwrap();
        assert!(SealKey::open(&at).is_err(), "it is short");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, [0; 32]).unwrap();
        fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(SealKey::open(&at).is_err(), "it is a link");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert!(SealKey::open(&at).is_err(), "it is a FIFO");
        fs::remove_file(&path).unwrap();
        SealKey::open(&at).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(SealKey::open(&at).is_err(), "it is another user's");
        }
    }
}
