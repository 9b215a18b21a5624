//! What is kept of a command: a certificate of each device, and a record of each in a ledger.

use super::Record;
use super::certificate::encode;
use super::destination::Destination;
use super::ledger::Ledger;
use super::sign::SecretKey;
use crate::engine::Stop;
use crate::error::Result;

/// Where records go, all of it tried before the work began.
#[derive(Default)]
pub struct Evidence {
    pub destination: Option<Destination>,
    pub ledger: Option<Ledger>,
    pub key: Option<SecretKey>,
}

impl Evidence {
    /// Writes a record, durably. One whose place in the ledger is lost still gets its certificate.
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
