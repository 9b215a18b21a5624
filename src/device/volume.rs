//! The encrypted volume on a target: where its keys are, or why they cannot be destroyed.

use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::Signature;
use super::guard::Findings;
use crate::error::{Error, Result};
use crate::io::Target;
use crate::luks::{self, KeyArea, other_format};
use crate::range::Extent;

const OVERWRITE: &str = "overwrite it instead: efface wipe";

/// Where the LUKS volume keeps its keys. A header beside something else is older than that, and is
/// not touched; a detached one stands where it was put.
pub(super) fn keys(target: &Target, findings: &Findings, detached: bool) -> Result<KeyArea> {
    let unread = |error| Error::refused("its header cannot be read").because(error).way_out(OVERWRITE);
    let start = read_at(target, Extent::new(0, 4096)).map_err(unread)?;
    let unsupported = |what: String| Err(Error::unsupported(what).way_out(OVERWRITE));
    if let Some(format) = other_format(&start) {
        return unsupported(format!("it holds {format}, whose keys efface cannot destroy"));
    }
    let others = findings.signatures.iter().filter(|each| each.kind != "crypto_LUKS");
    let others = others.map(Signature::describe).collect::<Vec<_>>().join(", ");
    let found = luks::find(&mut |extent| read_at(target, extent), target.geometry().size, detached);
    match (found.map_err(unread)?, others.is_empty()) {
        (Some(KeyArea { readable: Some(why), .. }), true) => {
            unsupported(format!("its keys do not protect all of its data: {why}"))
        }
        (Some(found), true) => Ok(found),
        (Some(_), false) => unsupported(format!("it holds {others} beside a LUKS header")),
        (None, false) => unsupported(format!("it holds {others}, and no LUKS header")),
        (None, true) => Err(Error::unsupported(
            "it holds no LUKS header (plain dm-crypt and VeraCrypt cannot be told from random bytes)",
        )
        .way_out("give a detached header with --header, or overwrite it: efface wipe")),
    }
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
