//! Details that only people know: customer, asset, operator. They are recorded as given.

use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::printable::is_printable;

/// Fields of NIST SP 800-88 Rev. 2's sample form and of R2v3 that a drive cannot report.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Details {
    /// Of the device.
    pub media: MediaDetails,
    /// Of the request that led to the job.
    pub job: JobDetails,
    /// Who did the work.
    pub operator: Option<Person>,
    /// Who saw it done.
    pub witness: Option<Person>,
    /// Who checked the result.
    pub validator: Option<Person>,
}

/// What people know about the device.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MediaDetails {
    /// Where the drive does not report it (ATA).
    pub manufacturer: Option<String>,
    /// The organization's own number of the asset.
    pub property_number: Option<String>,
    /// Where it came from: a computer, a rack, a user.
    pub source: Option<String>,
    /// Where it goes: reuse, sale, destruction.
    pub destination: Option<String>,
    /// The confidentiality of what was on it.
    pub categorization: Option<String>,
}

/// Where the request came from.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobDetails {
    /// Of the ticket or the API call.
    pub request_id: Option<String>,
    /// The name of the volume in the system that manages it.
    pub volume_id: Option<String>,
    /// Whose data it was.
    pub tenant: Option<String>,
}

/// A person who is responsible for a part of the work.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Person {
    /// The only field of a person that must be given.
    pub name: String,
    /// The position in the organization.
    pub title: Option<String>,
    /// The employer.
    pub organization: Option<String>,
    /// Where the work was done.
    pub location: Option<String>,
    /// A telephone number or an address.
    pub contact: Option<String>,
}

/// A file of details is written by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Details {
    /// From a TOML file, and single values over it: `operator.name=A. Smith`.
    ///
    /// # Errors
    /// A usage error where the file cannot be read or is larger than 1 MiB, or a section or key is unknown,
    /// or a text holds control or formatting characters.
    pub fn read(file: Option<&Path>, values: &[String]) -> Result<Details> {
        let mut table = file.map_or(Ok(Table::new()), read_table)?;
        for value in values {
            set(&mut table, value)?;
        }
        let texts = table.values().filter_map(Value::as_table).flat_map(Table::values);
        if texts.filter_map(Value::as_str).any(|text| !is_printable(text)) {
            return Err(Error::usage("the details hold control or formatting characters")
                .with_remedy("write each on one line, in plain text"));
        }
        Details::deserialize(table).map_err(|error| {
            let first = error.message().lines().next().unwrap_or_default().to_string();
            Error::usage(format!("the details are not understood: {first}")).with_remedy(KEYS)
        })
    }

    /// One asset number cannot apply to several devices.
    ///
    /// # Errors
    /// A usage error where there are several and a property number was given.
    pub fn check_device_count(&self, devices: usize) -> Result<()> {
        if devices > 1 && self.media.property_number.is_some() {
            return Err(Error::usage("one property number for several devices")
                .with_remedy("wipe the devices one by one, or leave media.property_number out"));
        }
        Ok(())
    }
}

const KEYS: &str = "the keys are media.{manufacturer, property_number, source, destination, \
    categorization}, job.{request_id, volume_id, tenant}, and {operator, witness, validator}.{name, title, \
    organization, location, contact}; all are text";

fn read_table(file: &Path) -> Result<Table> {
    let unreadable = |error| Error::usage("the details cannot be read").because(error).on(file);
    let length = fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Error::usage("it is too large for a file of details")
            .with_remedy("at most 1 MiB")
            .on(file));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        Error::usage(format!("line {line} is not TOML: {}", error.message())).with_remedy(KEYS).on(file)
    })
}

fn set(table: &mut Table, text: &str) -> Result<()> {
    let wrong = || Error::usage(format!("--detail {text}: write SECTION.KEY=TEXT")).with_remedy(KEYS);
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let (section, key) = key.split_once('.').ok_or_else(wrong)?;
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let section = section.as_table_mut().ok_or_else(wrong)?;
    section.insert(key.trim().into(), Value::String(value.trim().into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn single_values_stand_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[operator]\nname = 'A'\ntitle = 'T'\n[job]\ntenant = 'blue'\n").unwrap();
        let values = ["operator.name=B = C".into(), "media.property_number=17".into()];
        let details = Details::read(Some(file.path()), &values).unwrap();
        let operator = details.operator.clone().unwrap();
        assert_eq!((operator.name.as_str(), operator.title.as_deref()), ("B = C", Some("T")));
        assert_eq!(details.job.tenant.as_deref(), Some("blue"));
        assert!(details.check_device_count(1).is_ok() && details.check_device_count(2).is_err());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (wrong, expected) in [
            ("operator", "SECTION.KEY=TEXT"),
            ("operator.nme=x", "nme"),
            ("people.name=x", "people"),
            ("name=x", "SECTION.KEY=TEXT"),
        ] {
            let error = Details::read(None, &[wrong.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[job]\ntenant = 7\n").unwrap();
        assert!(Details::read(None, &["operator.name=a\u{1b}[2J".into()]).is_err());
        assert!(Details::read(Some(file.path()), &[]).is_err());
        writeln!(file, "[[[").unwrap();
        let error = Details::read(Some(file.path()), &[]).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
