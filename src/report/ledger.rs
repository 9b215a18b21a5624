//! A folder with one record a job, each naming the hash of the one before.
//!
//! `00000001.json` is the first; `head` tells the last one and its hash. A writer holds a lock on the
//! folder while it appends, so many may do so at once. What a chain cannot tell is that its end was
//! cut off together with the head: for that the head's hash is noted elsewhere, and asked for later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, FILE_BYTES_MAX, encode};
use super::destination::{Reserved, write_whole};
use super::record::{Link, Record, sha256};
use super::sign::{PublicKeys, SecretKey};
use crate::error::{Error, Result};

/// The last record, and SHA-256 of its file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub sequence: u64,
    pub sha256: String,
}

/// A ledger that records can be added to.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Makes the folder where there is none yet, and tries whether it can be written to.
    pub fn open(folder: &Path) -> Result<Ledger> {
        let open = || {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }?;
            Reserved::in_folder(folder)?;
            lock(folder).map(drop)
        };
        open().map_err(|error| {
            Error::usage("the ledger cannot be written to")
                .because(error)
                .way_out("give a folder that this user may write to, on a file system with room")
                .on(folder)
        })?;
        let ledger = Ledger { folder: folder.to_path_buf() };
        ledger.head()?;
        Ok(ledger)
    }

    /// Gives the record its place in the chain, and writes it; returns its file's bytes.
    pub fn append(&self, record: &mut Record, key: Option<&SecretKey>) -> Result<Vec<u8>> {
        let failed =
            |error| Error::failed("the record cannot be added to the ledger").because(error).on(&self.folder);
        let _lock = lock(&self.folder).map_err(failed)?;
        let head = self.head()?;
        let sequence = head.as_ref().map_or(1, |head| head.sequence + 1);
        record.chain = Some(Link { sequence, previous: head.map(|head| head.sha256) });
        let bytes = encode(record, key)?;
        Reserved::in_folder(&self.folder)
            .and_then(|reserved| reserved.write(&bytes, &self.folder.join(file_name(sequence))))
            .map_err(failed)?;
        let head = Head { sequence, sha256: sha256(&bytes) };
        let text = serde_json::to_string(&head).expect("it has only string keys") + "\n";
        write_whole(&self.folder.join(HEAD), text.as_bytes()).map_err(failed)?;
        Ok(bytes)
    }

    /// The last record. A writer that died between the record and the head left the head behind by
    /// one: then that record is the last.
    fn head(&self) -> Result<Option<Head>> {
        let head = read_head(&self.folder)?;
        let next = head.as_ref().map_or(1, |head| head.sequence + 1);
        match fs::read(self.folder.join(file_name(next))) {
            Ok(bytes) => Ok(Some(Head { sequence: next, sha256: sha256(&bytes) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(head),
            Err(error) => Err(Error::failed("a record cannot be read").because(error).on(&self.folder)),
        }
    }
}

const HEAD: &str = "head";

fn file_name(sequence: u64) -> String {
    format!("{sequence:08}.json")
}

/// Held as long as the descriptor is open: it ends with its process.
fn lock(folder: &Path) -> io::Result<Flock<File>> {
    let folder = File::open(folder)?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn read_head(folder: &Path) -> Result<Option<Head>> {
    let path = folder.join(HEAD);
    let damaged = || {
        Error::failed("the ledger's head is damaged")
            .way_out("see what is there: efface ledger verify; then begin a new ledger")
            .on(&path)
    };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed("the ledger's head cannot be read").because(error).on(&path)),
    }
}

/// What reading a whole ledger came to.
#[derive(Debug)]
pub struct Review {
    pub records: u64,
    pub signed: u64,
    pub head: Option<Head>,
    /// What does not hold, record by record.
    pub problems: Vec<String>,
}

/// Reads every record: its form, its claims, its signature where there are keys, its place in the
/// chain. `noted` is the hash of a head of some earlier day, which must be in it.
pub fn review(folder: &Path, keys: &PublicKeys, noted: Option<&str>) -> Result<Review> {
    let unreadable = |error| Error::usage("the ledger cannot be read").because(error).on(folder);
    let numbers = numbers(folder).map_err(unreadable)?;
    let mut review = Review { records: 0, signed: 0, head: None, problems: Vec::new() };
    let last = numbers.last().copied().unwrap_or(0);
    let mut noted_found = noted.is_none();
    for sequence in 1..=last {
        if !numbers.contains(&sequence) {
            review.problems.push(format!("record {sequence} is missing"));
            review.head = None;
            continue;
        }
        let path = folder.join(file_name(sequence));
        let length = fs::metadata(&path).map_err(unreadable)?.len();
        let bytes = if length > FILE_BYTES_MAX { Vec::new() } else { fs::read(&path).map_err(unreadable)? };
        let before = review.head.take();
        match check(&bytes, sequence, before.as_ref(), keys) {
            Ok(signed) => review.signed += u64::from(signed),
            Err(problem) => review.problems.push(format!("record {sequence}: {problem}")),
        }
        let hash = sha256(&bytes);
        noted_found |= noted == Some(hash.as_str());
        review.records += 1;
        review.head = Some(Head { sequence, sha256: hash });
    }
    match (read_head(folder), &review.head) {
        (Err(error), _) => review.problems.push(error.to_string()),
        // A writer that died before it wrote the head left it behind by one.
        (Ok(Some(told)), Some(found)) if told != *found && told.sequence + 1 != found.sequence => {
            review.problems.push(format!(
                "the head names record {}, and the last one is {}",
                told.sequence, found.sequence
            ));
        }
        (Ok(Some(told)), None) => {
            review.problems.push(format!("the head names record {}, and there is none", told.sequence))
        }
        (Ok(None), Some(found)) if found.sequence > 1 => review.problems.push("the head is missing".into()),
        _ => {}
    }
    if !noted_found {
        review.problems.push("no record has the noted hash: the ledger was cut off or rewritten".into());
    }
    Ok(review)
}

/// Says whether it is signed.
fn check(
    bytes: &[u8],
    sequence: u64,
    before: Option<&Head>,
    keys: &PublicKeys,
) -> std::result::Result<bool, String> {
    let certificate = Certificate::parse(bytes, keys).map_err(|error| error.to_string())?;
    let chain = certificate.record.chain.as_ref().ok_or("it was not written for a ledger")?;
    if chain.sequence != sequence {
        return Err(format!("it was written as record {}", chain.sequence));
    }
    // After a gap nothing is known of the one before.
    if (sequence == 1 || before.is_some()) && chain.previous.as_ref() != before.map(|head| &head.sha256) {
        return Err("the record before it is not the one that it follows".into());
    }
    Ok(certificate.is_signed())
}

fn numbers(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        numbers.extend(
            number.filter(|number| *number > 0 && Some(file_name(*number).as_str()) == name.to_str()),
        );
    }
    Ok(numbers)
}
