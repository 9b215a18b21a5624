//! What is to be kept of a command, and what is known of it besides.

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
pub struct EvidenceArgs {
    /// Write a certificate of each device into this folder, or, of one device, to this file
    #[arg(long, value_name = "PATH")]
    certificate_to: Option<PathBuf>,

    /// Add a record of each device to the chain in this folder
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,

    /// Sign what is kept with this key (efface key new)
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,

    /// What people know of the job, as TOML: media, job, operator, witness, validator
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,

    /// One of these, as in operator.name=A. Smith or media.property_number=1234
    #[arg(long, value_name = "SECTION.KEY=TEXT")]
    detail: Vec<String>,
}

impl EvidenceArgs {
    /// Finds out now what could not be kept later; a ledger that another process holds is waited for.
    pub fn prepare(&self, devices: usize, deadline: Instant) -> Result<(Details, Evidence)> {
        if self.sign_key.is_some() && self.certificate_to.is_none() && self.ledger.is_none() {
            return Err(Error::usage("--sign-key: there is nothing to sign")
                .way_out("add --certificate-to PATH or --ledger DIR"));
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
