//! A record as a file: canonical JSON, signed or not.
//!
//! There is one form of a record: the JSON that this program writes, field by field in their order,
//! indented by two spaces, with a newline at the end. Reading writes it again and compares, so that
//! nothing can be added, doubled, reordered or spelled otherwise. Of an earlier version only the
//! spelling can be compared: its fields are those of the efface that wrote it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Record;
use super::record::{VERSION, VERSION_MIN};
use super::sign::{Envelope, PAYLOAD_TYPE, PublicKey, SecretKey};
use crate::error::{Error, Result};

/// Ours are below 1 MiB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is known of the signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signed {
    No,
    /// By a key of this id, and nobody gave the key to check it with.
    Unchecked(String),
    By(String),
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signed::No => f.write_str("not signed: whoever had this file could have written it"),
            Signed::Unchecked(key) => {
                write!(f, "signed by key {key}, NOT CHECKED: give the key with --public-key")
            }
            Signed::By(key) => write!(f, "signed by key {key}, and unchanged since"),
        }
    }
}

/// A file that was read, and is in its one form.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub record: Record,
    envelope: Option<Envelope>,
    payload: Vec<u8>,
}

/// The bytes of a record's file.
pub fn encode(record: &Record, key: Option<&SecretKey>) -> Vec<u8> {
    let payload = canonical(record);
    key.map_or(payload.clone(), |key| canonical(&key.seal(&payload)))
}

fn canonical(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("it has only string keys");
    bytes.push(b'\n');
    bytes
}

impl Certificate {
    pub fn read(path: &Path) -> Result<Certificate> {
        let read = || {
            let unreadable = |error| Error::usage("the certificate cannot be read").because(error);
            let file = File::open(path).map_err(unreadable)?;
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(Error::usage("it is too large for a certificate: more than 64 MiB")
                    .way_out("give the file that efface wrote"));
            }
            Certificate::parse(&bytes)
        };
        read().map_err(|error: Error| error.on(path))
    }

    pub fn parse(bytes: &[u8]) -> Result<Certificate> {
        /// What tells the two forms apart, and their versions.
        #[derive(Deserialize)]
        struct Form {
            #[serde(rename = "payloadType")]
            payload_type: Option<String>,
            efface_record: Option<u32>,
        }
        let form: Form = serde_json::from_slice(bytes).map_err(no_json)?;
        match (form.payload_type, form.efface_record) {
            (Some(_), _) => {
                let envelope: Envelope = in_one_form(bytes)?;
                if envelope.payload_type != PAYLOAD_TYPE {
                    return Err(bad(format!("it holds something else: {}", envelope.payload_type)));
                }
                let payload =
                    STANDARD.decode(&envelope.payload).map_err(|_| bad("its payload is not base64"))?;
                let inner = Certificate::parse(&payload)?;
                if inner.envelope.is_some() {
                    return Err(bad("an envelope lies in the envelope"));
                }
                Ok(Certificate { envelope: Some(envelope), ..inner })
            }
            (None, Some(version @ VERSION_MIN..=VERSION)) => {
                let document: Value = in_one_form(bytes)?;
                if !steers_nothing(&document) {
                    return Err(bad("it holds control characters, which efface never writes"));
                }
                let record: Record = match version {
                    VERSION => in_one_form(bytes)?,
                    _ => serde_json::from_slice(bytes).map_err(no_json)?,
                };
                Ok(Certificate { record, envelope: None, payload: bytes.to_vec() })
            }
            (None, Some(version)) => Err(Error::unsupported(format!(
                "it is a record of version {version}, and this efface reads versions {VERSION_MIN} to {VERSION}"
            ))
            .way_out("read it with the efface that wrote it, or a newer one")),
            (None, None) => Err(bad("it is no record of efface")),
        }
    }

    pub fn is_signed(&self) -> bool {
        self.envelope.is_some()
    }

    /// Checks the signature where there is a key to do it with, and computes the claims again.
    pub fn verify(&self, key: Option<&PublicKey>) -> Result<Signed> {
        let signed = match (&self.envelope, key) {
            (None, None) => Signed::No,
            (None, Some(_)) => return Err(bad("it is not signed")),
            (Some(envelope), None) => {
                let [signature] = &envelope.signatures[..] else {
                    return Err(bad(format!("it has {} signatures, and not one", envelope.signatures.len())));
                };
                Signed::Unchecked(signature.keyid.clone())
            }
            (Some(envelope), Some(key)) => {
                key.check(envelope, &self.payload).map_err(bad)?;
                Signed::By(key.id())
            }
        };
        self.record.check().map_err(bad)?;
        Ok(signed)
    }
}

/// Reads a document, and refuses any other spelling of it than ours.
fn in_one_form<T: Serialize + for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    let value: T = serde_json::from_slice(bytes).map_err(no_json)?;
    if canonical(&value) == bytes {
        return Ok(value);
    }
    Err(bad("it is not in the form that efface writes: it was changed"))
}

/// Text that somebody wrote must not steer the terminal of whoever reads it.
fn steers_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains(char::is_control),
        Value::Array(values) => values.iter().all(steers_nothing),
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| !name.contains(char::is_control) && steers_nothing(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn no_json(error: serde_json::Error) -> Error {
    match error.classify() {
        serde_json::error::Category::Eof => bad("it is cut off"),
        serde_json::error::Category::Data => bad(format!("it is no record of efface: {error}")),
        _ => bad(format!("it is not JSON: {error}")),
    }
}

/// A certificate that must not be believed.
fn bad(what: impl Into<String>) -> Error {
    Error::failed(what).way_out("do not rely on this certificate; ask for the original")
}
