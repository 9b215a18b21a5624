//! IDENTIFY DEVICE: the drive, and which feature sets it has.

use super::sanitize::SanitizeCapabilities;
use super::security::{Security, SecurityState, Words};
use super::{Unknown, is_summed_up, page};

/// What a drive says of itself (ACS, "IDENTIFY DEVICE data").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identify {
    /// Words 27 to 46.
    pub model: String,
    /// Words 10 to 19.
    pub serial: String,
    /// Words 23 to 26.
    pub firmware: String,
    /// Words 108 to 111, where the drive has a worldwide name.
    pub wwn: Option<u64>,
    /// What can be addressed now.
    pub sectors: u64,
    /// Bytes of a logical sector.
    pub sector_bytes: u32,
    /// Whether its media rotate; `None` where it does not say (word 217).
    pub rotates: Option<bool>,
    /// Commands with addresses of 48 bits.
    pub addresses_48: bool,
    /// General Purpose Logging: READ LOG EXT.
    pub logs: bool,
    /// Word 59.
    pub sanitize: Result<SanitizeCapabilities, Unknown>,
    /// Absent where the drive does not have the feature set.
    pub security: Result<Option<Security>, Unknown>,
    /// The HPA feature set.
    pub protected_area: bool,
    /// The device configuration overlay.
    pub configuration_overlay: bool,
    /// The accessible max address configuration, which is in the place of both.
    pub accessible_max: bool,
}

/// The words of a page.
struct Page<'a>(&'a [u8; 512]);

impl Page<'_> {
    fn word(&self, number: usize) -> u16 {
        u16::from_le_bytes([self.0[2 * number], self.0[2 * number + 1]])
    }

    fn bit(&self, number: usize, bit: u16) -> bool {
        self.word(number) & 1 << bit != 0
    }

    /// As many words as a number of 64 bits has, the lowest first.
    fn number(&self, from: usize) -> u64 {
        (0..4).rev().fold(0, |number, index| number << 16 | u64::from(self.word(from + index)))
    }

    /// The same, the highest first.
    fn name(&self, from: usize) -> u64 {
        (0..4).fold(0, |name, index| name << 16 | u64::from(self.word(from + index)))
    }

    /// Bits 15:14 of such a word say whether it is there at all.
    fn is_valid(&self, number: usize) -> bool {
        self.word(number) >> 14 == 0b01
    }

    /// Two characters to a word, the first in its upper byte.
    fn text(&self, from: usize, to: usize) -> String {
        let bytes = (from..=to).flat_map(|number| self.word(number).to_be_bytes());
        let printable = |byte: u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' };
        bytes.filter(|byte| *byte != 0).map(printable).collect::<String>().trim().to_string()
    }
}

impl Identify {
    /// From the 512 bytes of the answer.
    ///
    /// # Errors
    /// No page, one that does not add up, or not that of an ATA drive.
    pub fn decode(bytes: &[u8]) -> Result<Identify, Unknown> {
        const SIGNATURE: u8 = 0xa5;
        let bytes = page(bytes)?;
        let page = Page(bytes);
        if bytes[510] == SIGNATURE && !is_summed_up(bytes) {
            return Err(Unknown::Invalid("the checksum of IDENTIFY DEVICE"));
        }
        if page.bit(0, 15) || !page.is_valid(83) {
            return Err(Unknown::Invalid("it is not an ATA drive"));
        }
        let in_use = page.is_valid(87);
        let addresses_48 = page.bit(83, 10);
        Ok(Identify {
            model: page.text(27, 46),
            serial: page.text(10, 19),
            firmware: page.text(23, 26),
            wwn: Some(page.name(108)).filter(|wwn| in_use && page.bit(87, 8) && *wwn != 0),
            sectors: sectors(&page, addresses_48),
            sector_bytes: sector_bytes(&page)?,
            rotates: match page.word(217) {
                0x0001 => Some(false),
                0x0401..=0xfffe => Some(true),
                _ => None,
            },
            addresses_48,
            logs: page.is_valid(84) && page.bit(84, 5) && (!in_use || page.bit(87, 5)),
            sanitize: SanitizeCapabilities::decode(page.word(59)),
            security: Security::decode(&Words {
                supported_enabled: in_use.then(|| (page.word(82), page.word(85))),
                erase: page.word(89),
                enhanced: page.word(90),
                master: page.word(92),
                status: page.word(128),
            }),
            protected_area: page.bit(82, 10) && (!in_use || page.bit(85, 10)),
            configuration_overlay: page.bit(83, 11),
            accessible_max: in_use && page.bit(86, 15) && page.is_valid(119) && page.bit(119, 8),
        })
    }
}

impl Identify {
    /// Whether a password keeps its media from everything.
    pub fn is_locked(&self) -> bool {
        matches!(self.security, Ok(Some(Security { state: SecurityState::Locked, .. })))
    }
}

fn sectors(page: &Page<'_>, addresses_48: bool) -> u64 {
    if !addresses_48 {
        return u64::from(page.word(61)) << 16 | u64::from(page.word(60));
    }
    // EXTENDED NUMBER OF USER ADDRESSABLE SECTORS, where the drive has it.
    match page.number(230) {
        extended if page.bit(69, 3) && extended != 0 => extended,
        _ => page.number(100),
    }
}

fn sector_bytes(page: &Page<'_>) -> Result<u32, Unknown> {
    const DEFAULT: u32 = 512;
    if !page.is_valid(106) || !page.bit(106, 12) {
        return Ok(DEFAULT);
    }
    let words = u32::from(page.word(118)) << 16 | u32::from(page.word(117));
    let bytes = words.checked_mul(2).filter(|bytes| (DEFAULT..=1 << 20).contains(bytes));
    bytes.ok_or(Unknown::Invalid("the size of a logical sector"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with these words, and those without which none is a drive's.
    fn page(words: &[(usize, u16)]) -> Vec<u8> {
        let mut page = vec![0; 512];
        for (number, word) in [(83, 0x4400), (87, 0x4000)].iter().chain(words) {
            page[2 * number..2 * number + 2].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    fn of(words: &[(usize, u16)]) -> Identify {
        Identify::decode(&page(words)).unwrap()
    }

    #[test]
    fn names_and_sizes() {
        let drive = of(&[
            (10, 0x5331),
            (19, 0x2020),
            (23, 0x4601),
            (27, 0x4142),
            (28, 0x4300),
            (60, 0x1234),
            (87, 0x4100),
            (108, 0x5000),
            (109, 0xc500),
            (110, 0x1122),
            (111, 0x3344),
            (100, 0x6db0),
            (101, 0x7470),
            (217, 7200),
        ]);
        assert_eq!((&drive.model[..], &drive.serial[..], &drive.firmware[..]), ("ABC", "S1", "F?"));
        assert_eq!(
            (drive.wwn, drive.sectors, drive.sector_bytes),
            (Some(0x5000_c500_1122_3344), 0x7470_6db0, 512)
        );
        assert_eq!(drive.rotates, Some(true));
        assert_eq!((of(&[(217, 1)]).rotates, of(&[(217, 0)]).rotates), (Some(false), None));
        assert_eq!(of(&[(83, 0x4000), (60, 0x1234), (61, 1), (100, 9)]).sectors, 0x1_1234);
        assert_eq!(of(&[(100, 9), (230, 10), (69, 1 << 3)]).sectors, 10);
        assert_eq!(of(&[(106, 0x5000), (117, 2048)]).sector_bytes, 4096);
        assert_eq!(of(&[(106, 0x1000), (117, 2048)]).sector_bytes, 512, "the word is not valid");
        let odd = Identify::decode(&page(&[(106, 0x5000)]));
        assert_eq!(odd, Err(Unknown::Invalid("the size of a logical sector")));
    }

    #[test]
    fn feature_sets_are_those_that_are_in_use() {
        let drive = of(&[]);
        assert_eq!(drive.security, Ok(None));
        assert!(!(drive.protected_area || drive.configuration_overlay || drive.accessible_max || drive.logs));
        assert!(of(&[(82, 1 << 10), (85, 1 << 10)]).protected_area);
        assert!(!of(&[(82, 1 << 10)]).protected_area, "it is switched off");
        assert!(of(&[(83, 0x4c00)]).configuration_overlay);
        assert!(of(&[(86, 1 << 15), (119, 0x4100)]).accessible_max);
        assert!(!of(&[(86, 1 << 15), (119, 0x0100)]).accessible_max, "the word is not valid");
        assert!(!of(&[(119, 0x4100)]).accessible_max, "the word is not there");
        assert!(of(&[(84, 0x4020), (87, 0x4020)]).logs);
        assert!(!of(&[(84, 0x4020)]).logs);
        assert_eq!(of(&[(59, 0xffff)]).sanitize, Err(Unknown::Ones));
        let security = of(&[(82, 2), (85, 2), (128, 0x0007)]).security.unwrap().unwrap();
        assert_eq!(security.state, SecurityState::Locked);
        assert!(of(&[(82, 2), (128, 0x0007)]).security.is_err());
    }

    #[test]
    fn what_is_not_the_page_of_a_drive_is_unknown() {
        let unknown = |page: &[u8]| Identify::decode(page).unwrap_err();
        assert_eq!(unknown(&[]), Unknown::Absent);
        assert_eq!(unknown(&page(&[])[..511]), Unknown::Short);
        assert_eq!(unknown(&[0; 512]), Unknown::Zeroes);
        assert_eq!(unknown(&[0xff; 512]), Unknown::Ones);
        assert!(matches!(unknown(&page(&[(0, 0x8000)])), Unknown::Invalid(_)), "ATAPI");
        assert!(matches!(unknown(&page(&[(83, 0)])), Unknown::Invalid(_)));
        let mut signed = page(&[(255, 0x00a5)]);
        assert_eq!(unknown(&signed), Unknown::Invalid("the checksum of IDENTIFY DEVICE"));
        signed[511] = signed.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        assert!(Identify::decode(&signed).is_ok());
    }
}
