//! Detection of two nodes of one disk: two paths of one SCSI unit, or of one NVMe namespace.

use std::io;

use super::super::identity::{Names, same_name};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::device) enum Sameness {
    Same,
    /// Same serial number, model and size, and no better identification.
    Perhaps,
    /// No difference was found, and this could not be read.
    Unknown(String),
    Different,
}

/// World wide names decide where both have one; the kernel makes an NVMe namespace one of its
/// identifiers, or of the serial number and the namespace's.  Serial numbers count only where they are no
/// placeholder: bridges and virtual machines give many disks the same. `all` are the machine's disks.
pub(in crate::device) fn same(one: &Names, other: &Names, all: &[&Names]) -> Sameness {
    if let (Ok(Some(wwn)), Ok(Some(other_wwn))) = (&one.wwn, &other.wwn) {
        return if same_name(wwn, other_wwn) { Sameness::Same } else { Sameness::Different };
    }
    if differ(&one.size_bytes, &other.size_bytes)
        || differ(&one.model, &other.model)
        || differ(&one.serial, &other.serial)
    {
        return Sameness::Different;
    }
    match unread(one).or_else(|| unread(other)) {
        Some(unread) => Sameness::Unknown(unread.to_string()),
        None => match &one.serial {
            Ok(Some(serial)) if !is_placeholder(serial, all) => Sameness::Perhaps,
            _ => Sameness::Different,
        },
    }
}

fn differ<T: PartialEq>(one: &io::Result<T>, other: &io::Result<T>) -> bool {
    matches!((one, other), (Ok(one), Ok(other)) if one != other)
}

fn unread(disk: &Names) -> Option<&io::Error> {
    let Names { serial, wwn, model, size_bytes } = disk;
    let names = [wwn, serial, model].into_iter().find_map(|name| name.as_ref().err());
    names.or(size_bytes.as_ref().err())
}

/// Empty, of one character, or shared by disks of different sizes.
fn is_placeholder(serial: &str, all: &[&Names]) -> bool {
    let mut letters = serial.trim().chars();
    let first = letters.next();
    let has_it = |disk: &&&Names| matches!(&disk.serial, Ok(Some(other)) if other == serial);
    let mut sizes = all.iter().filter(has_it).filter_map(|disk| disk.size_bytes.as_ref().ok());
    let size = sizes.next();
    letters.all(|letter| Some(letter) == first) || sizes.any(|other| Some(other) != size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(serial: Option<&str>, wwn: Option<&str>, size_bytes: u64) -> Names {
        let text = |text: Option<&str>| Ok(text.map(String::from));
        Names { serial: text(serial), wwn: text(wwn), model: text(Some("MODEL")), size_bytes: Ok(size_bytes) }
    }

    fn silent() -> io::Error {
        io::Error::other("wwid cannot be read")
    }

    #[test]
    fn world_wide_names_decide_before_serial_numbers() {
        let same = |one: &Names, other: &Names| super::same(one, other, &[one, other]);
        let path = |wwn| disk(Some("S1"), Some(wwn), 4096);
        assert_eq!(same(&path("naa.5000AB"), &path("0x5000ab")), Sameness::Same);
        assert_eq!(same(&path("naa.5000ab"), &path("naa.5000ac")), Sameness::Different);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &path("naa.5000ab")), Sameness::Perhaps);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &disk(Some("S1"), None, 8192)), Sameness::Different);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &disk(Some("S2"), None, 4096)), Sameness::Different);
        assert_eq!(same(&disk(None, None, 4096), &disk(None, None, 4096)), Sameness::Different);
    }

    #[test]
    fn a_name_that_cannot_be_read_is_no_name_that_differs() {
        let unknown = Sameness::Unknown("wwid cannot be read".into());
        let known = |serial| disk(serial, Some("naa.5000ab"), 4096);
        let without_wwn = |serial| Names { wwn: Err(silent()), ..disk(serial, None, 4096) };
        let without_serial = || Names { serial: Err(silent()), ..disk(None, None, 4096) };
        let cases = [
            (known(None), without_wwn(None), unknown.clone()),
            (disk(None, None, 4096), without_wwn(None), unknown.clone()),
            (disk(Some("S1"), None, 4096), without_serial(), unknown.clone()),
            (known(None), Names { model: Err(silent()), ..disk(None, None, 4096) }, unknown.clone()),
            (known(None), Names { size_bytes: Err(silent()), ..disk(None, None, 4096) }, unknown),
            // They differ in what can be read.
            (known(Some("S1")), without_wwn(Some("S2")), Sameness::Different),
            (disk(Some("S1"), None, 8192), without_serial(), Sameness::Different),
            (known(None), Names { serial: Err(silent()), ..known(None) }, Sameness::Same),
        ];
        for (one, other, expected) in cases {
            assert_eq!(same(&one, &other, &[&one, &other]), expected, "{one:?}, {other:?}");
            assert_eq!(same(&other, &one, &[&one, &other]), expected, "{one:?}, {other:?}");
        }
    }

    #[test]
    fn a_placeholder_is_no_serial_number() {
        let one = |serial| disk(Some(serial), None, 4096);
        for serial in ["", " ", "0000000000", "........"] {
            assert_eq!(same(&one(serial), &one(serial), &[]), Sameness::Different, "{serial:?}");
        }
        let (first, second, larger) =
            (one("0123456789"), one("0123456789"), disk(Some("0123456789"), None, 8192));
        assert_eq!(same(&first, &second, &[&first, &second]), Sameness::Perhaps);
        assert_eq!(same(&first, &second, &[&first, &second, &larger]), Sameness::Different);
    }
}
