//! Reads a certificate, computes again what it concludes, and says whether it holds.
//!
//! `cargo run --example verify_certificate -- certificate.json key.pub`; without arguments it takes
//! the certificate of version 2 that the tests keep.

use std::path::PathBuf;

use efface::{Certificate, PublicKeys};

fn main() -> efface::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (file, key) = match (arguments.next(), arguments.next()) {
        (Some(file), key) => (file, key),
        (None, _) => {
            let kept = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promises/certificates"));
            (kept.join("version-2.json"), Some(kept.join("version-2.pub")))
        }
    };
    let keys = PublicKeys::read(&key.into_iter().collect::<Vec<_>>())?;
    let Certificate { record, signed, .. } = Certificate::read(&file, &keys)?;
    println!("{}: {signed}", file.display());
    println!("{}: {}. {}", record.device, record.verdict.word(), record.claim);
    Ok(())
}
