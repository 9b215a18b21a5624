//! The ledger: a directory with one record per job, each with the hash of the previous one.
//!
//! `00000001.json` is the first; `head` names the last one and its hash. A writer holds the lock `.lock`
//! while it appends, so several processes can append. Before the work and before each record head and files are
//! compared: a damaged ledger accepts no record. A chain cannot show that its end was cut off together with
//! the head: for that, note the head's hash elsewhere and pass it to `verify --noted`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, FILE_BYTES_MAX, encode};
use super::destination::{MODE, RESERVED_BYTES};
use super::sign::{PublicKeys, SecretKey};
use super::{Link, Record, sha256};
use crate::directory::{Directory, Lock};
use crate::engine::Stop;
use crate::error::{Error, Kind, Result};
use crate::printable::printable_path;

const HEAD: &str = "head";
const HEAD_BYTES_MAX: u64 = 4096;
/// A file of its own: any reader of the directory could lock the directory itself.
const LOCK: &str = ".lock";
const MODE_OF_DIRECTORY: u32 = 0o755;
/// How long all records of a command together wait for other processes, after the work.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Attempts of a reader to see the ledger between two records.
const ATTEMPTS_MAX: usize = 100;
/// A shorter wait is not reported.
const SILENT_WAIT: Duration = Duration::from_secs(1);

/// A value, or a message that says what is wrong.
type Readable<T> = std::result::Result<T, String>;

/// The last record, and SHA-256 of its file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub sequence: u64,
    pub sha256: String,
}

/// A ledger opened for appending.
#[derive(Debug)]
pub struct Ledger {
    directory: Directory,
    wait_left: Duration,
}

impl Ledger {
    /// Creates the directory if needed, and checks that it is writable and that head and records agree.
    /// Waits until the deadline for another process that appends.
    ///
    /// # Errors
    /// A usage error where it cannot be written to, or is damaged; of kind [`Kind::Busy`] at the deadline.
    pub fn open(folder: &Path, deadline: Instant) -> Result<Ledger> {
        let open = || {
            let directory = Directory::make(folder, MODE_OF_DIRECTORY)?;
            directory.draft()?.reserve(RESERVED_BYTES)?;
            let lock = directory.lock_until(LOCK, deadline, || false)?;
            Ok((directory, lock))
        };
        let (directory, lock) = open().map_err(|error: io::Error| {
            Error::usage("the ledger cannot be written to")
                .because(error)
                .with_remedy(
                    "give a folder that this user alone may write to, on a file system with free space",
                )
                .on(folder)
        })?;
        let _lock = lock.ok_or_else(|| held().on(folder))?;
        last(&directory).map_err(|mut error| {
            // Nothing was written yet.
            error.kind = Kind::Usage;
            error.on(folder)
        })?;
        Ok(Ledger { directory, wait_left: WAIT_MAX })
    }

    /// Links the record into the chain and writes it; returns the bytes of its file.
    /// Waits for other processes, for 30 s over all records of a session, or until `stop` changes.
    ///
    /// # Errors
    /// Of kind [`Kind::Failed`]: the ledger is damaged, held by another process, or cannot be written. The
    /// record then keeps the place in the chain that was meant for it.
    pub fn append(&mut self, record: &mut Record, key: Option<&SecretKey>, stop: &Stop) -> Result<Vec<u8>> {
        let what = "the record cannot be added to the ledger";
        let folder = self.directory.path().to_path_buf();
        let failed = |error| Error::failed(what).because(error).on(&folder);
        let lock = self.lock(stop).map_err(failed)?;
        let _lock = lock.ok_or_else(|| failed(io::Error::other("another process holds it")))?;
        let head = last(&self.directory).map_err(|error| error.on(&folder))?;
        let sequence = head.as_ref().map_or(Some(1), |head| head.sequence.checked_add(1));
        let sequence = sequence.ok_or_else(|| failed(io::Error::other("it has no number left")))?;
        record.chain = Some(Link { sequence, previous: head.map(|head| head.sha256) });
        let bytes = encode(record, key)?;
        let written = || self.directory.draft()?.write(file_name(sequence), &bytes, MODE);
        written().map_err(failed)?;
        let head = Head { sequence, sha256: sha256(&bytes) };
        let text = serde_json::to_string(&head).expect("it has only string keys") + "\n";
        self.directory.replace(HEAD, text.as_bytes(), MODE).map_err(failed)?;
        Ok(bytes)
    }

    /// Waits for other writers, up to the remaining time or the next signal (not counting the one that
    /// stopped the work, whose record is wanted too).
    fn lock(&mut self, stop: &Stop) -> io::Result<Option<Lock>> {
        let (begun, stopped) = (Instant::now(), stop.verdict());
        let called_off = || stop.verdict() != stopped;
        let (soon, deadline) = (begun + SILENT_WAIT.min(self.wait_left), begun + self.wait_left);
        let mut lock = self.directory.lock_until(LOCK, soon, called_off)?;
        if lock.is_none() && Instant::now() < deadline && !called_off() {
            let path = printable_path(self.directory.path());
            tracing::warn!("waiting for the ledger {path}");
            lock = self.directory.lock_until(LOCK, deadline, called_off)?;
        }
        self.wait_left = self.wait_left.saturating_sub(begun.elapsed());
        Ok(lock)
    }
}

fn held() -> Error {
    Error::busy("another process holds the ledger").with_remedy("try again later, or with a longer --wait")
}

fn file_name(sequence: u64) -> String {
    format!("{sequence:08}.json")
}

/// The last record, if head and files agree. If a writer died between writing the record and the head, the
/// head is one record behind: then that record is the last.
fn last(directory: &Directory) -> Result<Option<Head>> {
    let damaged = |what: String| {
        Error::failed(format!("the ledger is not whole: {what}"))
            .with_remedy("see what is there: efface ledger verify; then begin a new ledger")
    };
    let unreadable = |error| Error::failed("the ledger cannot be read").because(error);
    let head = read_head(directory).map_err(damaged)?;
    let numbers = numbers(directory).map_err(unreadable)?;
    let named = match &head {
        Some(head) if numbers.contains(&head.sequence) => {
            Some(sha256(&read_record(directory, head.sequence).map_err(damaged)?))
        }
        _ => None,
    };
    if let Some(problem) = disagreement(head.as_ref(), &numbers, named.as_deref()) {
        return Err(damaged(problem));
    }
    match numbers.last().copied() {
        Some(last) if head.as_ref().is_none_or(|head| head.sequence != last) => {
            let bytes = read_record(directory, last).map_err(damaged)?;
            check(&bytes, last, head.as_ref(), &PublicKeys::default())
                .map_err(|problem| damaged(format!("record {last}: {problem}")))?;
            Ok(Some(Head { sequence: last, sha256: sha256(&bytes) }))
        }
        _ => Ok(head),
    }
}

/// Why the head cannot be that of these records; `named` is the hash of the one that it names, where that
/// was read.
fn disagreement(head: Option<&Head>, numbers: &BTreeSet<u64>, named: Option<&str>) -> Option<String> {
    let last = numbers.last().copied();
    let Some(Head { sequence, sha256 }) = head else {
        return (last > Some(1)).then(|| "the head is missing".into());
    };
    match last {
        None => Some(format!("the head names record {sequence}, and there is none")),
        Some(last) if !numbers.contains(sequence) || last > sequence.saturating_add(1) => {
            Some(format!("the head names record {sequence}, and the last one is {last}"))
        }
        Some(_) if named.is_some_and(|hash| hash != sha256) => {
            Some(format!("the head names another hash of record {sequence} than its file has"))
        }
        Some(_) => None,
    }
}

fn read_head(directory: &Directory) -> Readable<Option<Head>> {
    let bytes = directory.read(HEAD, HEAD_BYTES_MAX).map_err(|error| error.to_string())?;
    let head = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    head.map_err(|_| "its head is damaged".into())
}

fn read_record(directory: &Directory, sequence: u64) -> Readable<Vec<u8>> {
    let bytes = directory.read(file_name(sequence), FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    bytes.ok_or_else(|| format!("{} has gone", file_name(sequence)))
}

/// The result of verifying a ledger.
#[derive(Debug)]
pub struct Review {
    pub records: u64,
    pub signed: u64,
    pub head: Option<Head>,
    /// Problems, record by record.
    pub problems: Vec<String>,
}

/// Reads every record: its form, its claims, its signature where there are keys, its place in the
/// chain. `noted` is the hash of an earlier head, which must be in the chain.
pub fn review(folder: &Path, keys: &PublicKeys, noted: Option<&str>) -> Result<Review> {
    let unreadable = |error| Error::usage("the ledger cannot be read").because(error).on(folder);
    let directory = Directory::open(folder).map_err(unreadable)?;
    let (head, numbers) = head_and_numbers(&directory).map_err(unreadable)?;
    if head == Ok(None) && numbers.is_empty() {
        return Err(Error::usage("there is no ledger here: neither a head nor a record")
            .with_remedy("give the folder that --ledger named")
            .on(folder));
    }
    let mut review = Review { records: 0, signed: 0, head: None, problems: Vec::new() };
    let (mut named, mut noted_found) = (None, noted.is_none());
    let mut expected = 1;
    for &sequence in &numbers {
        if sequence != expected {
            review.problems.push(missing(expected, sequence - 1));
            review.head = None;
        }
        expected = sequence.saturating_add(1);
        let before = review.head.take();
        let bytes = match read_record(&directory, sequence) {
            Ok(bytes) => bytes,
            Err(problem) => {
                review.problems.push(format!("record {sequence}: {problem}"));
                continue;
            }
        };
        match check(&bytes, sequence, before.as_ref(), keys) {
            Ok(signed) => review.signed += u64::from(signed),
            Err(problem) => review.problems.push(format!("record {sequence}: {problem}")),
        }
        let hash = sha256(&bytes);
        noted_found |= noted == Some(hash.as_str());
        if matches!(&head, Ok(Some(head)) if head.sequence == sequence) {
            named = Some(hash.clone());
        }
        review.records += 1;
        review.head = Some(Head { sequence, sha256: hash });
    }
    match &head {
        Err(problem) => review.problems.push(problem.clone()),
        Ok(head) => review.problems.extend(disagreement(head.as_ref(), &numbers, named.as_deref())),
    }
    if !noted_found {
        review.problems.push("no record has the noted hash: the ledger was cut off or rewritten".into());
    }
    Ok(review)
}

/// Returns whether the record is signed.
fn check(bytes: &[u8], sequence: u64, before: Option<&Head>, keys: &PublicKeys) -> Readable<bool> {
    let certificate = Certificate::parse(bytes, keys).map_err(|error| error.to_string())?;
    let chain = certificate.record.chain.as_ref().ok_or("it was not written for a ledger")?;
    if chain.sequence != sequence {
        return Err(format!("it was written as record {}", chain.sequence));
    }
    // After a gap the previous record is unknown.
    if (sequence == 1 || before.is_some()) && chain.previous.as_ref() != before.map(|head| &head.sha256) {
        return Err("the record before it is not the one that it follows".into());
    }
    Ok(certificate.is_signed())
}

fn missing(first: u64, last: u64) -> String {
    match first == last {
        true => format!("record {first} is missing"),
        false => format!("records {first} to {last} are missing"),
    }
}

/// A consistent snapshot while others write: the head is the same before and after reading the names.
fn head_and_numbers(directory: &Directory) -> io::Result<(Readable<Option<Head>>, BTreeSet<u64>)> {
    let mut head = read_head(directory);
    let mut found = numbers(directory)?;
    for _ in 0..ATTEMPTS_MAX {
        let before = std::mem::replace(&mut head, read_head(directory));
        if before == head {
            break;
        }
        found = numbers(directory)?;
    }
    Ok((head, found))
}

fn numbers(directory: &Directory) -> io::Result<BTreeSet<u64>> {
    let number = |name: &String| name.strip_suffix(".json")?.parse().ok();
    let named = |name: &String| number(name).filter(|number| *number > 0 && file_name(*number) == *name);
    Ok(directory.names()?.iter().filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Assignment;
    use super::super::certificate::encode;
    use super::*;
    use crate::error::Kind;

    fn refused() -> Record {
        let error = Error::refused("it is in use");
        Record::of_error(
            &Assignment::default(),
            Path::new("/dev/x"),
            (None, None),
            jiff::Timestamp::now(),
            error,
        )
    }

    /// Whatever door such text came in by: a void certificate would end the ledger that it is in.
    #[test]
    fn a_record_that_would_not_hold_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let (now, stop) = (std::time::Instant::now(), crate::engine::Stop::default());
        let mut ledger = Ledger::open(folder.path(), now).unwrap();
        let void: [fn(&mut Record); 3] = [
            |record| record.host.name = "host\u{1b}[2J".into(),
            |record| record.claim = "All of it was wiped.".into(),
            |record| record.id = "of another form".into(),
        ];
        for make_void in void {
            let mut record = refused();
            make_void(&mut record);
            let error = encode(&record, None).unwrap_err();
            assert!(error.kind == Kind::Failed && error.what().contains("is not kept"), "{error}");
            assert!(ledger.append(&mut record, None, &stop).is_err());
        }
        assert!(!folder.path().join("00000001.json").exists(), "nothing is in the ledger");
        ledger.append(&mut refused(), None, &stop).unwrap();
        assert!(folder.path().join("00000001.json").exists());
    }
}
