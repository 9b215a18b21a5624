//! Reads a certificate, computes again what it concludes, and says whether it holds.
//!
//! `cargo run --example verify_certificate -- certificate.json key.pub`; without arguments it takes
//! the certificate of version 2 that the tests keep, and checks that one changed byte is found.

use std::path::PathBuf;

use efface::{Certificate, PublicKeys, Signed, Verdict};

fn main() -> efface::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from).peekable();
    let kept = arguments.peek().is_none();
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

    if kept {
        assert!(matches!(signed, Signed::By(_)), "{signed}");
        assert_eq!(record.verdict, Verdict::Wiped);
        let mut changed = std::fs::read(&file).expect("it was read above");
        // The first letter of the payload, which is base64.
        let payload = b"\"payload\": \"";
        let at = changed.windows(payload.len()).position(|bytes| bytes == payload).expect("an envelope");
        changed[at + payload.len()] ^= 1;
        let error = Certificate::parse(&changed, &keys).expect_err("its signature fits no longer");
        println!("with one byte changed: {error}");
    }
    Ok(())
}
