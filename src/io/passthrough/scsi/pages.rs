//! INQUIRY: standard data, and pages of vital product data.

use serde::Serialize;

use super::commands::Page;
use super::{Unknown, be16, head};
use crate::printable::printable;

/// Standard data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inquiry {
    /// T10 VENDOR IDENTIFICATION.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION.
    pub product: String,
    /// PRODUCT REVISION LEVEL.
    pub revision: String,
}

/// Peripheral qualifier and device type of a disk that is there, and of one whose zones the host manages.
const DISKS: [u8; 2] = [0x00, 0x14];

impl Inquiry {
    /// From 36 bytes.
    ///
    /// # Errors
    /// No disk, or not in the form of the standard.
    pub fn decode(bytes: &[u8]) -> Result<Inquiry, Unknown> {
        const FORMAT: u8 = 2;
        let data = head::<36>(bytes)?;
        if !DISKS.contains(&data[0]) {
            return Err(Unknown::Invalid("this is no disk"));
        }
        if data[3] & 0xf != FORMAT {
            return Err(Unknown::Invalid("the format of INQUIRY"));
        }
        if data[4] < 31 {
            return Err(Unknown::Short);
        }
        let [vendor, product, revision] = [text(&data[8..16]), text(&data[16..32]), text(&data[32..36])];
        if vendor.is_empty() && product.is_empty() {
            return Err(Unknown::Invalid("a disk without a name"));
        }
        Ok(Inquiry { vendor, product, revision })
    }
}

fn text(bytes: &[u8]) -> String {
    printable(String::from_utf8_lossy(bytes).trim_matches([' ', '\0']))
}

/// What a page holds after its header.
fn page(bytes: &[u8], page: Page) -> Result<&[u8], Unknown> {
    let header = head::<4>(bytes)?;
    if !DISKS.contains(&header[0]) || header[1] != page as u8 {
        return Err(Unknown::Invalid("another page"));
    }
    bytes[4..].get(..be16(header, 2).into()).ok_or(Unknown::Short)
}

/// The codes of all pages that there are (page 00h).
///
/// # Errors
/// No page, or one that does not name itself.
pub fn supported_pages(bytes: &[u8]) -> Result<Vec<u8>, Unknown> {
    let codes = page(bytes, Page::Supported)?;
    if codes.first() != Some(&(Page::Supported as u8)) {
        return Err(Unknown::Invalid("a list of pages without itself"));
    }
    Ok(codes.to_vec())
}

/// The serial number of the product (page 80h).
///
/// # Errors
/// No page, or none in it.
pub fn serial_number(bytes: &[u8]) -> Result<String, Unknown> {
    match text(page(bytes, Page::SerialNumber)?) {
        serial if serial.is_empty() => Err(Unknown::Invalid("no serial number")),
        serial => Ok(serial),
    }
}

/// World wide names (page 83h), as `naa.…`; `None` where the page has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// Of this logical unit.
    pub logical_unit: Option<String>,
    /// Of the target device: all logical units of a drive have the same.
    pub target_device: Option<String>,
}

/// What a designator is of.
const LOGICAL_UNIT: u8 = 0;
const TARGET_DEVICE: u8 = 2;

impl Names {
    /// From the designators of page 83h.
    ///
    /// # Errors
    /// No page, or a designator that does not end in it.
    pub fn decode(bytes: &[u8]) -> Result<Names, Unknown> {
        let mut names = Names { logical_unit: None, target_device: None };
        let mut rest = page(bytes, Page::DeviceIdentification)?;
        while !rest.is_empty() {
            let [code_set, kind, _, length, body @ ..] = rest else { return Err(Unknown::Short) };
            let (body, after) = body.split_at_checked(usize::from(*length)).ok_or(Unknown::Short)?;
            let name = match kind >> 4 & 3 {
                LOGICAL_UNIT => Some(&mut names.logical_unit),
                TARGET_DEVICE => Some(&mut names.target_device),
                _ => None,
            };
            if let Some(name @ None) = name {
                *name = designator(code_set & 0xf, kind & 0xf, body);
            }
            rest = after;
        }
        Ok(names)
    }
}

fn designator(code_set: u8, kind: u8, body: &[u8]) -> Option<String> {
    // Code sets, and kinds of designators.
    const BINARY: u8 = 1;
    const UTF_8: u8 = 3;
    const NAA: u8 = 3;
    const SCSI_NAME: u8 = 8;
    match (code_set, kind, body.len()) {
        (BINARY, NAA, 8 | 16) if body[0] >> 4 != 0 => Some(format!("naa.{}", hex::encode(body))),
        (UTF_8, SCSI_NAME, _) => {
            Some(text(body).to_ascii_lowercase()).filter(|name| name.starts_with("naa."))
        }
        _ => None,
    }
}

/// What the media are, and what they give after an erase (page B1h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Media {
    /// Turns in a minute, 0 of media that do not turn; `None` where the drive does not say.
    pub rotation_rpm: Option<u16>,
    /// WABEREQ: what a read gives after a block erase; `None` where the drive does not say.
    pub after_block_erase: Option<ReadAfterErase>,
    /// WACEREQ: the same after a cryptographic erase.
    pub after_crypto_erase: Option<ReadAfterErase>,
}

/// What a read of a block gives that was not written since an erase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadAfterErase {
    /// Data, whichever.
    Completes,
    /// An error.
    Fails,
    /// The error "write after sanitize required".
    NeedsWrite,
}

impl Media {
    /// From page B1h.
    ///
    /// # Errors
    /// No page, or a rate of rotation that does not exist.
    pub fn decode(bytes: &[u8]) -> Result<Media, Unknown> {
        let page: &[u8; 60] =
            page(bytes, Page::BlockDeviceCharacteristics)?.first_chunk().ok_or(Unknown::Short)?;
        let rotation_rpm = match be16(page, 0) {
            0 => None,
            1 => Some(0),
            rpm @ 0x0401..=0xfffe => Some(rpm),
            _ => return Err(Unknown::Invalid("the rate of rotation")),
        };
        let after = |bits: u8| match bits & 3 {
            1 => Some(ReadAfterErase::Completes),
            2 => Some(ReadAfterErase::Fails),
            3 => Some(ReadAfterErase::NeedsWrite),
            _ => None,
        };
        let (after_block_erase, after_crypto_erase) = (after(page[3] >> 6), after(page[3] >> 4));
        Ok(Media { rotation_rpm, after_block_erase, after_crypto_erase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inquiry(change: impl Fn(&mut [u8])) -> Result<Inquiry, Unknown> {
        let mut data = [&[0, 0, 7, 2, 31, 0, 0, 2][..], b"ACME    Turning disk    0A1 "].concat();
        change(&mut data);
        Inquiry::decode(&data)
    }

    #[test]
    fn standard_data_names_the_drive() {
        let [vendor, product, revision] = ["ACME", "Turning disk", "0A1"].map(String::from);
        assert_eq!(inquiry(|_| {}), Ok(Inquiry { vendor, product, revision }));
        assert!(inquiry(|data| data[0] = 0x14).is_ok(), "its zones are managed by the host");
        // A tape, and a logical unit that is not there.
        for first in [0x01, 0x20, 0x7f] {
            assert_eq!(inquiry(|data| data[0] = first), Err(Unknown::Invalid("this is no disk")));
        }
        assert_eq!(inquiry(|data| data[3] = 1), Err(Unknown::Invalid("the format of INQUIRY")));
        assert_eq!(inquiry(|data| data[4] = 30), Err(Unknown::Short));
        assert_eq!(inquiry(|data| data[8..].fill(0)), Err(Unknown::Invalid("a disk without a name")));
        let steers = inquiry(|data| data[9] = 0x1b).unwrap();
        assert_eq!(steers.vendor, "A\u{fffd}ME");
        assert_eq!(Inquiry::decode(&[0; 35]), Err(Unknown::Zeroes));
        assert_eq!(Inquiry::decode(&[0xff; 36]), Err(Unknown::Ones));
        assert_eq!(Inquiry::decode(&[]), Err(Unknown::Absent));
    }

    fn page(code: u8, body: &[u8]) -> Vec<u8> {
        [&[0, code, (body.len() >> 8) as u8, body.len() as u8], body].concat()
    }

    #[test]
    fn a_page_is_the_one_that_was_asked_for_and_whole() {
        let listed = page(0x00, &[0x00, 0x80, 0x83, 0xb1]);
        assert_eq!(supported_pages(&listed), Ok(vec![0x00, 0x80, 0x83, 0xb1]));
        assert_eq!(supported_pages(&[&listed[..], &[0xff; 200]].concat()), supported_pages(&listed));
        assert_eq!(supported_pages(&listed[..7]), Err(Unknown::Short));
        assert_eq!(serial_number(&page(0x80, b"A")[..3]), Err(Unknown::Short));
        let itself = Err(Unknown::Invalid("a list of pages without itself"));
        assert_eq!(supported_pages(&page(0x00, &[0x80])), itself);
        assert_eq!(serial_number(&listed), Err(Unknown::Invalid("another page")));
        assert_eq!(serial_number(&page(0x80, b"  ZC18XYZ9\0\0")), Ok("ZC18XYZ9".to_string()));
        assert_eq!(serial_number(&page(0x80, b"    ")), Err(Unknown::Invalid("no serial number")));
        assert_eq!(serial_number(&page(0x80, b"")), Err(Unknown::Invalid("no serial number")));
        assert_eq!(serial_number(&[0; 252]), Err(Unknown::Zeroes));
    }

    #[test]
    fn names_are_of_the_logical_unit_or_of_the_whole_drive() {
        let naa = |association: u8, last: u8| {
            [&[0x61, 0x80 | association << 4 | 3, 0, 8, 0x50, 0, 0xc5, 0, 1, 2, 3][..], &[last]].concat()
        };
        let name = [&[0x63, 0x80 | 2 << 4 | 8, 0, 24][..], b"naa.5000C50001020300\0\0\0\0"].concat();
        let of = |designators: &[&[u8]]| Names::decode(&page(0x83, &designators.concat()));
        let text = |last: &str| Some(format!("naa.5000c500010203{last}"));
        let both = Names { logical_unit: text("04"), target_device: text("00") };
        assert_eq!(of(&[&naa(0, 4), &naa(1, 5), &name]), Ok(both.clone()));
        assert_eq!(of(&[&naa(2, 0), &naa(0, 4), &naa(0, 6)]), Ok(both), "the first counts");
        let none = Names { logical_unit: None, target_device: None };
        // None; of a port; a vendor's own; of no kind of name; of a wrong length.
        let vendors = [0x02, 0x01, 0, 4, b'A', b'B', b'C', b'D'];
        let short = [0x01, 0x03, 0, 4, 0x50, 0, 0xc5, 0];
        let no_kind = [0x01, 0x03, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        for designator in [&[][..], &naa(1, 4), &vendors, &short, &no_kind] {
            assert_eq!(of(&[designator]), Ok(none.clone()), "{designator:02x?}");
        }
        assert_eq!(of(&[&naa(0, 4), &[0x01, 0x03]]), Err(Unknown::Short));
        assert_eq!(of(&[&[0x01, 0x03, 0, 9, 0x50]]), Err(Unknown::Short));
    }

    #[test]
    fn media_say_what_a_read_gives_after_an_erase() {
        let media = |rpm: u16, bits: u8| {
            let mut body = [0; 60];
            body[..2].copy_from_slice(&rpm.to_be_bytes());
            body[3] = bits | 0x0f;
            Media::decode(&page(0xb1, &body))
        };
        let rpm = |rpm| media(rpm, 0).map(|media| media.rotation_rpm);
        assert_eq!([rpm(0), rpm(1), rpm(7200)], [Ok(None), Ok(Some(0)), Ok(Some(7200))]);
        assert_eq!([rpm(2), rpm(0x400), rpm(0xffff)], [Err(Unknown::Invalid("the rate of rotation")); 3]);
        use ReadAfterErase::*;
        let after = [None, Some(Completes), Some(Fails), Some(NeedsWrite)];
        for (block, crypto) in (0..4).flat_map(|block| (0..4).map(move |crypto| (block, crypto))) {
            let media = media(1, block << 6 | crypto << 4).unwrap();
            let expected = (after[usize::from(block)], after[usize::from(crypto)]);
            assert_eq!((media.after_block_erase, media.after_crypto_erase), expected);
        }
        assert_eq!(Media::decode(&page(0xb1, &[1; 59])), Err(Unknown::Short));
    }
}
