//! Certificates: records as canonical JSON files, signed or not.
//!
//! There is one form of a record: the JSON that this program writes, field by field in their order,
//! indented by two spaces, with a newline at the end. Reading writes it again and compares, so that
//! nothing can be added, duplicated, reordered or formatted differently. For an earlier version only the
//! formatting is compared: its fields are those of the efface that wrote it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sign::{Envelope, PAYLOAD_TYPE, PublicKeys, SecretKey};
use super::{Record, version_2};
use super::{VERSION, VERSION_MIN};
use crate::error::{Error, Result};
use crate::printable::{excerpt, is_printable, printable};

/// Certificates that efface writes are below 1 MiB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The state of the signature.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Signed {
    /// There is no signature.
    No,
    /// Signed by the key with this id, not checked: no key was given.
    Unchecked(String),
    /// Signed by the key with this id, which is one of those that were given; unchanged since.
    By(String),
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signed::No => f.write_str("NOT SIGNED: whoever had this file could have written it"),
            Signed::Unchecked(key) => {
                write!(f, "signed by key {}, NOT CHECKED: give the key with --public-key", excerpt(key))
            }
            Signed::By(key) => write!(f, "signed by key {key}, and unchanged since"),
        }
    }
}

/// A certificate that was read and checked: the signature if a key was given, the form, and the claims.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certificate {
    /// Of this version of the form, whatever version the file has.
    pub record: Record,
    /// By whom, and whether that was checked.
    pub signed: Signed,
}

/// The bytes of a record's file. They are read back and checked like any certificate: an invalid one is
/// never written.
pub fn encode(record: &Record, key: Option<&SecretKey>) -> Result<Vec<u8>> {
    let payload = canonical(record);
    let bytes = key.map_or(payload.clone(), |key| canonical(&key.seal(&payload)));
    let keys = key.map_or_else(PublicKeys::default, |key| key.public().into());
    match Certificate::parse(&bytes, &keys) {
        Ok(_) => Ok(bytes),
        Err(why) => Err(Error::failed(format!("its record would not hold, and is not kept: {}", why.what()))
            .with_remedy("this is a mistake of efface: report it, with the record as --json prints it")),
    }
}

fn canonical(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("it has only string keys");
    bytes.push(b'\n');
    bytes
}

impl Certificate {
    /// Reads a file of 64 MiB at most. Without keys a signature is not checked ([`Signed::Unchecked`]).
    ///
    /// # Errors
    /// A usage error where the file cannot be read; those of [`Certificate::parse`].
    pub fn read(path: &Path, keys: &PublicKeys) -> Result<Certificate> {
        let read = || {
            let unreadable = |error| Error::usage("the certificate cannot be read").because(error);
            let file = File::open(path).map_err(unreadable)?;
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(Error::usage("it is too large for a certificate: more than 64 MiB")
                    .with_remedy("give the file that efface wrote"));
            }
            Certificate::parse(&bytes, keys)
        };
        read().map_err(|error: Error| error.on(path))
    }

    /// Checks the signature first, then the form, then recomputes the claims.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`](crate::Kind::Unsupported) for a record of a newer version, and
    /// [`Kind::Failed`](crate::Kind::Failed) where it is not signed by one of the keys, is not in the form
    /// that efface writes, or claims what does not follow from its numbers.
    pub fn parse(bytes: &[u8], keys: &PublicKeys) -> Result<Certificate> {
        let (payload, signed) = opened(bytes, keys)?;
        let record = record(&payload)?;
        record.check().map_err(bad)?;
        Ok(Certificate { record, signed })
    }

    /// Whether there is a signature, checked or not.
    pub fn is_signed(&self) -> bool {
        self.signed != Signed::No
    }
}

/// The record's bytes, unwrapped from the envelope if there is one, after its signature was checked.
fn opened(bytes: &[u8], keys: &PublicKeys) -> Result<(Vec<u8>, Signed)> {
    #[derive(Deserialize)]
    struct EnvelopeType {
        #[serde(rename = "payloadType")]
        payload_type: Option<String>,
    }
    let envelope: EnvelopeType = serde_json::from_slice(bytes).map_err(not_json)?;
    if envelope.payload_type.is_none() {
        return if keys.is_empty() { Ok((bytes.to_vec(), Signed::No)) } else { Err(bad("it is not signed")) };
    }
    let envelope: Envelope = in_one_form(bytes)?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(bad(format!("it holds something else: {}", printable(&envelope.payload_type))));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| bad("its payload is not base64"))?;
    let signer = printable(envelope.signer().map_err(bad)?);
    if keys.is_empty() {
        return Ok((payload, Signed::Unchecked(signer)));
    }
    keys.check(&envelope, &payload).map_err(|why| bad(printable(&why)))?;
    Ok((payload, Signed::By(signer)))
}

fn record(payload: &[u8]) -> Result<Record> {
    #[derive(Deserialize)]
    struct RecordVersion {
        efface_record: Option<u32>,
    }
    let versioned: RecordVersion = serde_json::from_slice(payload).map_err(not_json)?;
    let version = versioned.efface_record.ok_or_else(|| bad("it is no record of efface"))?;
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(Error::unsupported(format!(
            "it is a record of version {version}, and this efface reads versions {VERSION_MIN} to {VERSION}"
        ))
        .with_remedy("read it with the efface that wrote it, or a newer one"));
    }
    let mut document: Value = in_one_form(payload)?;
    if !steers_nothing(&document) {
        return Err(bad("it holds control or formatting characters, which efface never writes"));
    }
    match version {
        VERSION_MIN => {
            version_2::upgrade(&mut document);
            serde_json::from_value(document).map_err(not_json)
        }
        // Version 3 is the same without purges.
        _ => in_one_form(payload),
    }
}

/// Parses a document, and refuses any form but the canonical one.
fn in_one_form<T: Serialize + for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    let value: T = serde_json::from_slice(bytes).map_err(not_json)?;
    if canonical(&value) == bytes {
        return Ok(value);
    }
    Err(bad("it is not in the form that efface writes: it was changed"))
}

/// Text in a record must not contain terminal control characters.
fn steers_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => is_printable(text),
        Value::Array(values) => values.iter().all(steers_nothing),
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| is_printable(name) && steers_nothing(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn not_json(error: serde_json::Error) -> Error {
    match error.classify() {
        serde_json::error::Category::Eof => bad("it is cut off"),
        serde_json::error::Category::Data => bad(format!("it is no record of efface: {error}")),
        _ => bad(format!("it is not JSON: {error}")),
    }
}

/// An error for a certificate that is not valid.
fn bad(what: impl Into<String>) -> Error {
    Error::failed(what).with_remedy("do not rely on this certificate; ask for the original")
}
