//! Signing keys and signatures: Ed25519 in a DSSE envelope (github.com/secure-systems-lab/dsse, protocol.md).
//!
//! Keys are PEM files as openssl reads and writes them: PKCS #8 for the secret one, SPKI for the public.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use nix::unistd::geteuid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::pattern::Seed;
use crate::printable::printable_path;

/// The payload type of envelopes.
pub const PAYLOAD_TYPE: &str = "application/vnd.efface.record+json";

/// A PEM file of one key is far smaller.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The DSSE envelope, with the field names of the specification.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Envelope {
    /// For a record `application/vnd.efface.record+json`.
    pub payload_type: String,
    /// Base64 of the record.
    pub payload: String,
    /// The specification allows several; efface makes and takes exactly one.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct EnvelopeSignature {
    /// SHA-256 of the public key (SPKI, DER), in hex.
    pub keyid: String,
    /// Base64 of the Ed25519 signature over the pre-authentication encoding.
    pub sig: String,
}

impl Envelope {
    /// The id of the one key named as signer.
    ///
    /// # Errors
    /// There is not exactly one signature.
    pub fn signer(&self) -> std::result::Result<&str, String> {
        match &self.signatures[..] {
            [signature] => Ok(&signature.keyid),
            signatures => Err(format!("it has {} signatures, and not one", signatures.len())),
        }
    }
}

/// `DSSEv1 LEN(type) type LEN(body) body`
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

/// On the heap, so that it is one copy however it is moved; it is overwritten when it is dropped.
/// An Ed25519 key that signs records.
pub struct SecretKey(Box<SigningKey>);

impl SecretKey {
    /// Creates a key pair: `path`, readable by its owner alone, and `path.pub`.
    ///
    /// # Errors
    /// A usage error where one of the files exists or cannot be written.
    pub fn create(path: &Path) -> Result<PublicKey> {
        let key = SecretKey(Box::new(SigningKey::from_bytes(&Seed::from_kernel()?.0)));
        let public = key.public();
        let broken = |_| Error::failed("the key cannot be written as PEM");
        let secret = key.0.to_pkcs8_pem(LineEnding::LF).map_err(broken)?;
        let text =
            public.0.to_public_key_pem(LineEnding::LF).map_err(|_| Error::failed("no PEM of the key"))?;
        let public_path = public_path(path);
        for each in [path, &public_path] {
            if each.symlink_metadata().is_ok() {
                return Err(Error::usage("there is something of that name already")
                    .with_remedy("name another file, or move the old key away")
                    .on(each));
            }
        }
        write_new(path, 0o600, secret.as_bytes())?;
        write_new(&public_path, 0o644, text.as_bytes())?;
        Ok(public)
    }

    /// Refuses a key that others may read. A symbolic link is followed, since keys are often given by
    /// one (a mounted secret): all that counts is checked on the file that was opened.
    ///
    /// # Errors
    /// Of kind [`Kind::Refused`](crate::Kind::Refused) where it belongs to another user or its mode grants
    /// others anything; a usage error where it cannot be read or is no Ed25519 key (PKCS #8, PEM).
    pub fn read(path: &Path) -> Result<SecretKey> {
        let unreadable = |error| Error::usage("the signing key cannot be read").because(error).on(path);
        // Opening a FIFO must not block.
        let file =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Error::usage("the signing key is no regular file")
                .with_remedy("make one: efface key new FILE")
                .on(path));
        }
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let used_by_others = if owner != geteuid().as_raw() && owner != 0 {
            Some((format!("it belongs to user {owner}"), format!("chown {}", geteuid())))
        } else if mode & 0o077 != 0 {
            Some((format!("its mode is {mode:o}"), "chmod 600".into()))
        } else {
            None
        };
        if let Some((why, cure)) = used_by_others {
            let cure =
                format!("{cure} {}, and make a new one if others could have read it", printable_path(path));
            return Err(Error::refused(format!("others may use this key: {why}")).with_remedy(cure).on(path));
        }
        let text = read_pem(file).map_err(unreadable)?;
        let key = SigningKey::from_pkcs8_pem(&text).map(Box::new).map_err(|_| {
            Error::usage("it is no Ed25519 secret key (PKCS #8, PEM)")
                .with_remedy("make one: efface key new FILE")
                .on(path)
        })?;
        Ok(SecretKey(key))
    }

    /// The other half, which checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs the bytes of a record.
    pub fn seal(&self, payload: &[u8]) -> Envelope {
        let signed = pre_authentication_encoding(PAYLOAD_TYPE, payload);
        let signature = self.0.sign(&signed);
        Envelope {
            payload_type: PAYLOAD_TYPE.into(),
            payload: STANDARD.encode(payload),
            signatures: vec![EnvelopeSignature {
                keyid: self.public().id(),
                sig: STANDARD.encode(signature.to_bytes()),
            }],
        }
    }
}

/// An Ed25519 key that checks signatures.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From a file.
    ///
    /// # Errors
    /// A usage error where it cannot be read or is no Ed25519 key (SPKI, PEM).
    pub fn read(path: &Path) -> Result<PublicKey> {
        let unreadable = |error| Error::usage("the public key cannot be read").because(error).on(path);
        let text = File::open(path).and_then(read_pem).map_err(unreadable)?;
        let key = VerifyingKey::from_public_key_pem(&text).map_err(|_| {
            Error::usage("it is no Ed25519 public key (SPKI, PEM)")
                .with_remedy("give the file that efface key new wrote beside the secret key: FILE.pub")
                .on(path)
        })?;
        Ok(PublicKey(key))
    }

    /// SHA-256 of the key as SPKI in DER: `openssl pkey -pubin -outform DER | sha256sum`.
    pub fn id(&self) -> String {
        sha256(self.0.to_public_key_der().expect("32 bytes have a DER form").as_bytes())
    }

    /// Whether the envelope holds exactly one signature, and that is this key's over its payload.
    ///
    /// # Errors
    /// Why not, as a clause.
    pub fn check(&self, envelope: &Envelope, payload: &[u8]) -> std::result::Result<(), String> {
        let signer = envelope.signer()?;
        if signer != self.id() {
            return Err(format!("it is signed by another key: {signer}"));
        }
        let sig = &envelope.signatures[0].sig;
        let bytes = STANDARD.decode(sig).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signed = pre_authentication_encoding(&envelope.payload_type, payload);
        match bytes.map(|signature| self.0.verify_strict(&signed, &signature)) {
            Some(Ok(())) => Ok(()),
            _ => {
                Err("its signature does not fit: it was changed after it was signed, or by another key"
                    .into())
            }
        }
    }
}

/// Accepted public keys: an old key stays in a directory beside its successor.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(Vec<PublicKey>);

impl PublicKeys {
    /// Each path is a key, or a directory with keys named `*.pub`.
    ///
    /// # Errors
    /// A usage error where a key cannot be read, or a directory has none.
    pub fn read(paths: &[PathBuf]) -> Result<PublicKeys> {
        let mut keys = Vec::new();
        for path in paths {
            if path.is_dir() {
                keys.extend(keys_in(path)?);
            } else {
                keys.push(PublicKey::read(path)?);
            }
        }
        Ok(PublicKeys(keys))
    }

    /// No key was given to check with.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the envelope holds exactly one signature, and that is one of these keys' over its payload.
    ///
    /// # Errors
    /// Why not, as a clause.
    pub fn check(&self, envelope: &Envelope, payload: &[u8]) -> std::result::Result<(), String> {
        let signer = envelope.signer()?;
        match self.0.iter().find(|key| key.id() == signer) {
            Some(key) => key.check(envelope, payload),
            None => Err(format!("it is signed by another key: {signer}")),
        }
    }
}

impl From<PublicKey> for PublicKeys {
    fn from(key: PublicKey) -> PublicKeys {
        PublicKeys(vec![key])
    }
}

fn keys_in(folder: &Path) -> Result<Vec<PublicKey>> {
    let unreadable = |error| Error::usage("the folder of keys cannot be read").because(error).on(folder);
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> =
        entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    paths.sort();
    if paths.is_empty() {
        return Err(Error::usage("no public key is in this folder")
            .with_remedy("put the files there that efface key new wrote: FILE.pub")
            .on(folder));
    }
    paths.iter().map(|path| PublicKey::read(path)).collect()
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".pub");
    name.into()
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Error::usage("the key cannot be written").because(error).on(path))
}

fn read_pem(file: File) -> std::io::Result<Zeroizing<String>> {
    // Allocated once: a growing string leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Kind;

    /// The specification's own words (protocol.md, "Test vectors").
    #[test]
    fn what_is_signed_is_as_the_specification_has_it() {
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_new_pair_signs_and_checks_and_is_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let public = SecretKey::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let read = PublicKey::read(&public_path(&path)).unwrap();
        assert_eq!(read.id(), public.id());
        let envelope = SecretKey::read(&path).unwrap().seal(b"payload");
        assert_eq!(public.check(&envelope, b"payload"), Ok(()));
        assert!(public.check(&envelope, b"Payload").unwrap_err().contains("does not fit"));
        let other = SecretKey::create(&folder.path().join("other")).unwrap();
        assert!(other.check(&envelope, b"payload").unwrap_err().contains("another key"));

        assert_eq!(SecretKey::create(&path).unwrap_err().kind, Kind::Usage, "never written over");
        let keys = PublicKeys::read(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(keys.check(&envelope, b"payload"), Ok(()), "of a folder the key that signed it");
        assert!(PublicKeys::from(other).check(&envelope, b"payload").unwrap_err().contains("another key"));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(PublicKeys::read(&[empty.path().to_path_buf()]).unwrap_err().kind, Kind::Usage);

        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(SecretKey::read(&path).err().unwrap().kind, Kind::Refused);
        assert_eq!(SecretKey::read(&public_path(&path)).err().unwrap().kind, Kind::Refused);
        assert_eq!(PublicKey::read(&path).unwrap_err().kind, Kind::Usage);
    }
}
