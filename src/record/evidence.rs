//! Evidence of a command: a certificate per device, and its record in a ledger.

use super::Record;
use super::certificate::encode;
use super::destination::Destination;
use super::ledger::Ledger;
use super::sign::SecretKey;
use crate::engine::Stop;
use crate::error::Result;

/// Where records are kept; opened and checked before the work starts.
#[derive(Default)]
pub struct Evidence {
    /// Where the certificates go; reserved for the number of devices.
    pub destination: Option<Destination>,
    /// Where each record is added to a chain.
    pub ledger: Option<Ledger>,
    /// Signs certificates and the records of the ledger.
    pub key: Option<SecretKey>,
}

impl Evidence {
    /// Writes a record durably. If the ledger fails, the certificate is still written.
    ///
    /// # Errors
    /// The first of those of [`Ledger::append`] and [`Destination::write`].
    pub fn keep(&mut self, record: &mut Record, stop: &Stop) -> Result<()> {
        let entry = self.ledger.as_mut().map(|ledger| ledger.append(record, self.key.as_ref(), stop));
        let (bytes, entered) = match entry {
            Some(Ok(bytes)) => (bytes, Ok(())),
            Some(Err(error)) => {
                record.chain = None;
                (encode(record, self.key.as_ref())?, Err(error))
            }
            None => (encode(record, self.key.as_ref())?, Ok(())),
        };
        if let Some(destination) = &mut self.destination {
            destination.write(record, &bytes)?;
        }
        entered
    }
}
