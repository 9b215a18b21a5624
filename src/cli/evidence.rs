//! Arguments for evidence: certificates, the ledger, the signing key and details.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::error::{Error, Result};
use crate::record::destination::Destination;
use crate::record::details::Details;
use crate::record::evidence::Evidence;
use crate::record::ledger::Ledger;
use crate::record::sign::SecretKey;

#[derive(Args)]
#[command(next_help_heading = "Evidence")]
pub struct EvidenceArgs {
    /// Write a certificate per device to this directory (or, for one device, this file)
    #[arg(long, value_name = "PATH")]
    certificate_to: Option<PathBuf>,

    /// Append a record per device to the ledger in this directory
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,

    /// Sign certificates and records with this key (efface key new)
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,

    /// Read details from a TOML file: media, job, operator, witness, validator
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,

    /// Set one detail, as in operator.name=A. Smith or media.property_number=1234
    #[arg(long, value_name = "SECTION.KEY=TEXT")]
    detail: Vec<String>,
}

impl EvidenceArgs {
    /// Fails early where evidence could not be kept later; waits for a ledger locked by another process.
    pub fn prepare(&self, devices: usize, deadline: Instant) -> Result<(Details, Evidence)> {
        if self.sign_key.is_some() && self.certificate_to.is_none() && self.ledger.is_none() {
            return Err(Error::usage("--sign-key: there is nothing to sign")
                .with_remedy("add --certificate-to PATH or --ledger DIR"));
        }
        let details = Details::read(self.details.as_deref(), &self.detail)?;
        details.check_device_count(devices)?;
        let evidence = Evidence {
            key: self.sign_key.as_deref().map(SecretKey::read).transpose()?,
            ledger: self.ledger.as_deref().map(|folder| Ledger::open(folder, deadline)).transpose()?,
            destination: self
                .certificate_to
                .as_deref()
                .map(|path| Destination::reserve(path, devices))
                .transpose()?,
        };
        Ok((details, evidence))
    }
}
