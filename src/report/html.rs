//! The records as a page for people.

use super::Record;
use super::certificate::Signed;

pub fn page(records: &[(Record, Signed)]) -> String {
    format!("{}", records.len())
}
