//! Whether two nodes lead to one disk: two paths of one SCSI unit, or of one NVMe namespace.

use super::super::identity::Identity;
use super::super::select::same as same_name;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::device) enum Sameness {
    Same,
    /// One serial number, model and size, and nothing better to tell them by.
    Perhaps,
    Different,
}

/// World wide names decide where both have one; the kernel makes an NVMe namespace one of its
/// identifiers, or of the serial number and the namespace's.  Serial numbers count only where they are no
/// placeholder: bridges and virtual machines give many disks the same. `all` are the machine's disks.
pub(in crate::device) fn same(one: &Identity, other: &Identity, all: &[&Identity]) -> Sameness {
    if let (Some(wwn), Some(other_wwn)) = (&one.wwn, &other.wwn) {
        return if same_name(wwn, other_wwn) { Sameness::Same } else { Sameness::Different };
    }
    let serial = one.serial.as_deref().filter(|serial| Some(*serial) == other.serial.as_deref());
    match serial {
        Some(serial)
            if (&one.model, one.size_bytes) == (&other.model, other.size_bytes)
                && !is_placeholder(serial, all) =>
        {
            Sameness::Perhaps
        }
        _ => Sameness::Different,
    }
}

/// Empty, of one character, or shared by disks of different sizes.
fn is_placeholder(serial: &str, all: &[&Identity]) -> bool {
    let mut letters = serial.trim().chars();
    let first = letters.next();
    let mut sizes =
        all.iter().filter(|disk| disk.serial.as_deref() == Some(serial)).map(|disk| disk.size_bytes);
    let size = sizes.next();
    letters.all(|letter| Some(letter) == first) || sizes.any(|other| Some(other) != size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(serial: Option<&str>, wwn: Option<&str>, size_bytes: u64) -> Identity {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let blank = Identity::of_image(file.path(), file.path().into(), &metadata);
        let text = |text: Option<&str>| text.map(String::from);
        Identity { serial: text(serial), wwn: text(wwn), model: text(Some("MODEL")), size_bytes, ..blank }
    }

    #[test]
    fn world_wide_names_decide_before_serial_numbers() {
        let same = |one: &Identity, other: &Identity| super::same(one, other, &[one, other]);
        let path = |wwn| disk(Some("S1"), Some(wwn), 4096);
        assert_eq!(same(&path("naa.5000AB"), &path("0x5000ab")), Sameness::Same);
        assert_eq!(same(&path("naa.5000ab"), &path("naa.5000ac")), Sameness::Different);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &path("naa.5000ab")), Sameness::Perhaps);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &disk(Some("S1"), None, 8192)), Sameness::Different);
        assert_eq!(same(&disk(Some("S1"), None, 4096), &disk(Some("S2"), None, 4096)), Sameness::Different);
        assert_eq!(same(&disk(None, None, 4096), &disk(None, None, 4096)), Sameness::Different);
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
