//! The encrypted volume on a target: where its keys are, or why destroying them is not sufficient.

use std::io;
use std::os::unix::fs::FileExt;

use rand_chacha::rand_core::Rng;
use zeroize::Zeroizing;

use super::kernel::blkid;
use super::{Findings, Signature};
use crate::error::{Error, Result};
use crate::io::Target;
use crate::luks::data::{BlockClass, DataSample, places};
use crate::luks::{self, KeyArea, other_format};
use crate::pattern::Seed;
use crate::plan::KeyPlan;
use crate::range::Extent;

const OVERWRITE: &str = "overwrite it instead: efface wipe";

/// Where the LUKS volume keeps its keys, and how its data looks: behind the header, or, of a detached
/// one, all over the data device.
pub(super) fn keys(
    target: &Target,
    findings: &Findings,
    data: Option<(&Target, &Findings)>,
) -> Result<KeyPlan> {
    let found = header(target, findings, data.is_some())?;
    let sample = match data {
        None => {
            let behind = Extent::new(found.area.end, target.geometry().size);
            sample(target, behind, signatures_at(target, behind)?)?
        }
        Some((device, findings)) => {
            sample(device, Extent::new(0, device.geometry().size), described(&findings.signatures))?
        }
    };
    Ok(KeyPlan { data: Some(sample), ..KeyPlan::of(found) })
}

/// A header beside something else is older than that, and is not touched; a detached one stands where
/// it was put.
fn header(target: &Target, findings: &Findings, detached: bool) -> Result<KeyArea> {
    let start = read_at(target, Extent::new(0, 4096)).map_err(unread)?;
    if let Some(format) = other_format(&start) {
        return unsupported(format!("it holds {format}, whose keys efface cannot destroy"));
    }
    let others = findings.signatures.iter().filter(|each| each.kind != "crypto_LUKS");
    let others = described(others);
    let found = luks::find(&mut |extent| read_at(target, extent), target.geometry().size, detached);
    match (found.map_err(unread)?, others.is_empty()) {
        (Some(KeyArea { readable: Some(why), .. }), true) => {
            unsupported(format!("its keys do not protect all of its data: {why}"))
        }
        (Some(found), true) => Ok(found),
        (Some(_), false) => unsupported(format!("it holds {others} beside a LUKS header")),
        (None, false) => unsupported(format!("it holds {others}, and no LUKS header")),
        (None, true) => Err(Error::unsupported(
            "it holds no LUKS header (plain dm-crypt and VeraCrypt cannot be distinguished from random bytes)",
        )
        .with_remedy("give a detached header with --header, or overwrite it: efface wipe")),
    }
}

/// Draws blocks of the data; one that is not encrypted, or something known at its start, is an error.
fn sample(target: &Target, data: Extent, known: String) -> Result<DataSample> {
    if !known.is_empty() {
        return unsupported(format!("its keys do not protect all of its data: that holds {known}"));
    }
    let mut rng = Seed::from_kernel()?.rng();
    let mut sample = DataSample::default();
    let mut plain: Vec<Extent> = Vec::new();
    for place in places(data, &mut || rng.next_u64()) {
        sample.blocks += 1;
        match read_at(target, place).map(|block| BlockClass::of(&block)) {
            Ok(BlockClass::Random) => sample.random += 1,
            Ok(BlockClass::Uniform) => sample.uniform += 1,
            Ok(BlockClass::Plain) => plain.push(place),
            Err(_) => sample.unreadable += 1,
        }
    }
    match plain.first() {
        None => Ok(sample),
        Some(first) => unsupported(format!(
            "its keys do not protect all of its data: of {} blocks that were looked at {} are not encrypted \
             (the first at byte {})",
            sample.blocks,
            plain.len(),
            first.start
        )),
    }
}

fn unsupported<T>(what: String) -> Result<T> {
    Err(Error::unsupported(what).with_remedy(OVERWRITE))
}

fn unread(error: io::Error) -> Error {
    Error::refused("its header cannot be read").because(error).with_remedy(OVERWRITE)
}

/// What libblkid knows at the beginning of the data.
fn signatures_at(target: &Target, data: Extent) -> Result<String> {
    if data.is_empty() {
        return Ok(String::new());
    }
    let found = target.reader().and_then(|file| blkid::superblocks(&file, data)).map_err(unread)?;
    Ok(described(&found))
}

fn described<'a>(signatures: impl IntoIterator<Item = &'a Signature>) -> String {
    signatures.into_iter().map(Signature::describe).collect::<Vec<_>>().join(", ")
}

/// What there is of these bytes; they are forgotten when they are dropped.
fn read_at(target: &Target, extent: Extent) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = target.reader()?;
    let mut bytes = Zeroizing::new(vec![0; extent.len() as usize]);
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], extent.start + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
