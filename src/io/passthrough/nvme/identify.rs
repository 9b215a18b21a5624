//! Identify: the controller, its namespaces, and the lists of both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IDENTIFY_BYTES, Unknown, le16, le32, le64, page};
use crate::printable::printable;

type Page = [u8; IDENTIFY_BYTES];

/// Identify Controller (CNS 01h), as far as erasing needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// SN.
    pub serial: String,
    /// MN.
    pub model: String,
    /// FR.
    pub firmware: String,
    /// CNTLID, unique in the subsystem.
    pub id: u16,
    /// VER: major 31:16, minor 15:8, tertiary 7:0; 0 before NVMe 1.2.
    pub version: u32,
    /// CNTRLTYPE: 1 for I/O, 2 for discovery, 3 for administration; `None` where it is not reported.
    pub kind: Option<u8>,
    /// CMIC bit 1: the subsystem can have other controllers.
    pub shares_subsystem: bool,
    /// OACS bit 1: Format NVM.
    pub format: bool,
    /// OACS bit 3: namespaces are made and attached by the host.
    pub manages_namespaces: bool,
    /// LPA bit 1: the log page with the supported commands.
    pub effects_log: bool,
    /// SANICAP, where it is valid.
    pub sanitize: Option<SanitizeCapabilities>,
    /// FNA, where it is valid.
    pub format_attributes: Option<FormatAttributes>,
    /// NN: the largest namespace number.
    pub namespaces_max: u32,
    /// ONCS bit 5: hosts can reserve namespaces.
    pub reserves: bool,
    /// NWPC bit 0: namespaces can be write protected.
    pub write_protects: bool,
    /// RPMBS 2:0: partitions that need authentication, which no erase command reaches.
    pub protected_partitions: u8,
    /// SUBNQN; `None` on drives from before it was defined (NVMe 1.3).
    pub subsystem: Option<String>,
}

/// SANICAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SanitizeCapabilities {
    /// Bit 0.
    pub crypto_erase: bool,
    /// Bit 1.
    pub block_erase: bool,
    /// Bit 2.
    pub overwrite: bool,
    /// Bit 29, NDI: the command's bit against deallocation is refused, or ignored.
    pub keeps_nothing_allocated: bool,
    /// Bits 31:30, NODMMAS: an operation that keeps blocks allocated modifies the media once more at its end;
    /// `None` where it is not defined.
    pub modifies_afterwards: Option<bool>,
}

/// FNA: how far Format NVM reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatAttributes {
    /// Bit 0: the block format of all namespaces is changed.
    pub formats_all: bool,
    /// Bit 1: all namespaces are erased.
    pub erases_all: bool,
    /// Bit 2: erasing by new keys is supported.
    pub crypto_erase: bool,
    /// Bit 3: the number for all namespaces is refused.
    pub one_by_one: bool,
}

impl SanitizeCapabilities {
    fn decode(sanicap: u32) -> Option<SanitizeCapabilities> {
        let modifies_afterwards = match sanicap >> 30 {
            0b00 => None,
            0b01 => Some(false),
            0b10 => Some(true),
            _ => return None,
        };
        Some(SanitizeCapabilities {
            crypto_erase: sanicap & 1 << 0 != 0,
            block_erase: sanicap & 1 << 1 != 0,
            overwrite: sanicap & 1 << 2 != 0,
            keeps_nothing_allocated: sanicap & 1 << 29 != 0,
            modifies_afterwards,
        })
    }
}

impl FormatAttributes {
    fn decode(fna: u8) -> Option<FormatAttributes> {
        (fna >> 4 == 0).then_some(FormatAttributes {
            formats_all: fna & 1 << 0 != 0,
            erases_all: fna & 1 << 1 != 0,
            crypto_erase: fna & 1 << 2 != 0,
            one_by_one: fna & 1 << 3 != 0,
        })
    }

    /// Whether a format of one namespace concerns the others.
    pub fn reaches_all(self) -> bool {
        self.formats_all || self.erases_all
    }
}

impl Controller {
    /// From the answer to Identify CNS 01h.
    ///
    /// # Errors
    /// No page, or names that are no ASCII.
    pub fn decode(bytes: &[u8]) -> Result<Controller, Unknown> {
        let page: &Page = page(bytes)?;
        Ok(Controller {
            serial: text(&page[4..24])?,
            model: text(&page[24..64])?,
            firmware: text(&page[64..72])?,
            id: le16(page, 78),
            version: le32(page, 80),
            kind: Some(page[111]).filter(|kind| (1..=3).contains(kind)),
            shares_subsystem: page[76] & 1 << 1 != 0,
            format: le16(page, 256) & 1 << 1 != 0,
            manages_namespaces: le16(page, 256) & 1 << 3 != 0,
            effects_log: page[261] & 1 << 1 != 0,
            sanitize: SanitizeCapabilities::decode(le32(page, 328)),
            format_attributes: FormatAttributes::decode(page[524]),
            namespaces_max: le32(page, 516),
            reserves: le16(page, 520) & 1 << 5 != 0,
            write_protects: page[531] & 1 != 0,
            protected_partitions: page[312] & 0b111,
            subsystem: text(&page[768..1024]).ok().filter(|name| !name.is_empty()),
        })
    }
}

/// ASCII, padded with spaces or zeroes.
fn text(field: &[u8]) -> Result<String, Unknown> {
    if !field.iter().all(|byte| matches!(byte, 0 | b' '..=b'~')) {
        return Err(Unknown::Invalid("a name with other bytes than ASCII"));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(printable(String::from_utf8_lossy(text).trim()))
}

/// Identify Namespace (CNS 00h and 11h), of the NVM command set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// NSZE, in logical blocks; never 0.
    pub blocks: u64,
    /// NCAP, in logical blocks: how many of them can be allocated at once.
    pub capacity_blocks: u64,
    /// From FLBAS, DPS and the table of formats; `None` where these contradict each other.
    pub format: Option<BlockFormat>,
    /// NMIC bit 0: it may be attached to several controllers.
    pub shared: bool,
    /// NSATTR bit 0: it cannot be written now.
    pub write_protected: bool,
    /// FPI: what is left of a format in percent; `None` where the drive does not report it.
    pub format_left_percent: Option<u8>,
    /// DLFEAT 2:0: the byte that a deallocated block reads as, where the drive says so.
    pub deallocated_reads: Option<u8>,
    /// NGUID, where it is not zero.
    pub nguid: Option<[u8; 16]>,
    /// EUI64, where it is not zero.
    pub eui64: Option<[u8; 8]>,
}

/// The format of a namespace's blocks: what a Format NVM has to keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BlockFormat {
    /// Into the table of formats, 0 to 63.
    pub index: u8,
    /// Bytes of data in a block: a power of two, 512 at least.
    pub block_bytes: u64,
    /// Bytes of metadata with each block.
    pub metadata_bytes: u16,
    /// The metadata is transferred at the end of each block's data.
    pub extended: bool,
    /// The type of protection information, 0 for none, to 3.
    pub protection: u8,
    /// It is in the first bytes of the metadata, and not in the last.
    pub protection_first: bool,
}

const PROTECTION_BYTES_MIN: u16 = 8;

impl Namespace {
    /// From the answer to Identify CNS 00h or 11h. A namespace that does not exist is answered by zeroes.
    ///
    /// # Errors
    /// No page, or a size that does not exist.
    pub fn decode(bytes: &[u8]) -> Result<Namespace, Unknown> {
        let page: &Page = page(bytes)?;
        let (blocks, capacity_blocks) = (le64(page, 0), le64(page, 8));
        if blocks == 0 || capacity_blocks > blocks {
            return Err(Unknown::Invalid("the size of a namespace"));
        }
        Ok(Namespace {
            blocks,
            capacity_blocks,
            format: BlockFormat::decode(page),
            shared: page[30] & 1 != 0,
            write_protected: page[99] & 1 != 0,
            format_left_percent: format_left_percent(page[32]),
            deallocated_reads: match page[33] & 0b111 {
                1 => Some(0x00),
                2 => Some(0xff),
                _ => None,
            },
            nguid: page[104..].first_chunk().copied().filter(|id| *id != [0; 16]),
            eui64: page[120..].first_chunk().copied().filter(|id| *id != [0; 8]),
        })
    }

    /// Of its data, without metadata; `None` beyond 2^64.
    pub fn size_bytes(&self) -> Option<u64> {
        self.blocks.checked_mul(self.format?.block_bytes)
    }
}

impl BlockFormat {
    fn decode(page: &Page) -> Option<BlockFormat> {
        let (formats_max, flbas, dps) = (page[25], page[26], page[29]);
        let index = flbas & 0xf | (flbas >> 5 & 0b11) << 4;
        let entry = 128 + 4 * usize::from(index);
        let (metadata_bytes, shift) = (le16(page, entry), page[entry + 2]);
        let protection = dps & 0b111;
        let valid = (index < 16 || formats_max > 15)
            && (9..=31).contains(&shift)
            && protection <= 3
            && (protection == 0 || metadata_bytes >= PROTECTION_BYTES_MIN);
        // Only where it is valid: a shift by more is a panic.
        valid.then(|| BlockFormat {
            index,
            block_bytes: 1 << shift,
            metadata_bytes,
            extended: flbas & 1 << 4 != 0,
            protection,
            protection_first: dps & 1 << 3 != 0,
        })
    }
}

fn format_left_percent(fpi: u8) -> Option<u8> {
    (fpi & 1 << 7 != 0).then_some(fpi & 0x7f)
}

/// What namespaces of all command sets have in common (CNS 08h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndependentNamespace {
    /// As [`Namespace::shared`].
    pub shared: bool,
    /// As [`Namespace::write_protected`].
    pub write_protected: bool,
    /// As [`Namespace::format_left_percent`].
    pub format_left_percent: Option<u8>,
    /// NSTAT bit 0: it takes I/O.
    pub ready: bool,
}

impl IndependentNamespace {
    /// From the answer to Identify CNS 08h.
    ///
    /// # Errors
    /// No page.
    pub fn decode(bytes: &[u8]) -> Result<IndependentNamespace, Unknown> {
        let page: &Page = page(bytes)?;
        Ok(IndependentNamespace {
            shared: page[1] & 1 != 0,
            write_protected: page[8] & 1 != 0,
            format_left_percent: format_left_percent(page[3]),
            ready: page[14] & 1 != 0,
        })
    }
}

/// The identifiers of a namespace (CNS 03h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceNames {
    /// Type 1.
    pub eui64: Option<[u8; 8]>,
    /// Type 2.
    pub nguid: Option<[u8; 16]>,
    /// Type 3.
    pub uuid: Option<[u8; 16]>,
    /// Type 4: 0 for the NVM command set, 2 for zoned namespaces.
    pub command_set: Option<u8>,
}

impl NamespaceNames {
    /// From the answer to Identify CNS 03h: descriptors of a type, a length, two bytes of nothing and the
    /// identifier, up to a length of 0.
    ///
    /// # Errors
    /// No page, or an identifier of another length than its type has.
    pub fn decode(bytes: &[u8]) -> Result<NamespaceNames, Unknown> {
        let page: &Page = page(bytes)?;
        let mut names = NamespaceNames::default();
        let mut rest = &page[..];
        while let [kind, length @ 1..=255, _, _, after @ ..] = rest {
            let (name, after) = after
                .split_at_checked((*length).into())
                .ok_or(Unknown::Invalid("an identifier is cut off"))?;
            let length = Unknown::Invalid("the length of an identifier");
            match kind {
                1 => names.eui64 = Some(name.try_into().map_err(|_| length)?),
                2 => names.nguid = Some(name.try_into().map_err(|_| length)?),
                3 => names.uuid = Some(name.try_into().map_err(|_| length)?),
                4 => names.command_set = Some(<[u8; 1]>::try_from(name).map_err(|_| length)?[0]),
                _ => {}
            }
            rest = after;
        }
        Ok(names)
    }
}

/// The namespaces of a list (CNS 02h and 10h) from above `after`, at most 1024; an empty list is valid only as
/// the end of another.
///
/// # Errors
/// No page, or numbers that do not ascend.
pub fn namespace_list(bytes: &[u8], after: u32) -> Result<Vec<u32>, Unknown> {
    const NSID_MAX: u32 = 0xffff_fffd;
    let page: &Page = match page(bytes) {
        Err(Unknown::Zeroes) if after > 0 => return Ok(Vec::new()),
        page => page?,
    };
    let numbers = page.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let mut list = Vec::new();
    let mut ended = false;
    for number in numbers {
        let above = list.last().copied().unwrap_or(after);
        match number {
            0 => ended = true,
            number if !ended && number > above && number <= NSID_MAX => list.push(number),
            _ => return Err(Unknown::Invalid("a list of namespaces out of order")),
        }
    }
    Ok(list)
}

/// The controllers of a list (CNS 12h and 13h) from `from` on, at most 2047. An empty one is not known from
/// no answer.
///
/// # Errors
/// No page, or numbers that do not ascend.
pub fn controller_list(bytes: &[u8], from: u16) -> Result<Vec<u16>, Unknown> {
    let page: &Page = page(bytes)?;
    let (count, numbers) = (usize::from(le16(page, 0)), &page[2..]);
    let numbers = numbers.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    let list: Vec<u16> = numbers.take(count).collect();
    let ascend = list.is_sorted_by(|one, next| one < next) && list.first().is_none_or(|first| *first >= from);
    if list.is_empty() || list.len() != count || !ascend {
        return Err(Unknown::Invalid("a list of controllers out of order"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn controller(change: impl Fn(&mut [u8])) -> Result<Controller, Unknown> {
        let mut page = vec![0; 4096];
        put(&mut page, 4, b"S5XANA0R123456      ");
        put(&mut page, 24, b"MODEL 1                                 ");
        put(&mut page, 64, b"FW1     ");
        change(&mut page);
        Controller::decode(&page)
    }

    fn namespace(change: impl Fn(&mut [u8])) -> Result<Namespace, Unknown> {
        let mut page = vec![0; 4096];
        put(&mut page, 0, &1000_u64.to_le_bytes());
        put(&mut page, 8, &900_u64.to_le_bytes());
        put(&mut page, 128, &[0, 0, 9, 0]);
        change(&mut page);
        Namespace::decode(&page)
    }

    #[test]
    fn the_fields_of_a_controller_are_where_the_specification_has_them() {
        let found = controller(|page| {
            page[76] = 0b10;
            put(page, 78, &[0x34, 0x12, 0x00, 0x04, 0x01, 0x00]);
            page[111] = 1;
            put(page, 256, &0b1010_u16.to_le_bytes());
            page[261] = 0b10;
            page[312] = 0b1111_1010;
            put(page, 328, &0x6000_0003_u32.to_le_bytes());
            put(page, 516, &128_u32.to_le_bytes());
            put(page, 520, &(1_u16 << 5).to_le_bytes());
            page[524] = 0b0110;
            page[531] = 1;
            put(page, 768, b"nqn.2014.08.org.example:1\0");
        });
        let expected = Controller {
            serial: "S5XANA0R123456".into(),
            model: "MODEL 1".into(),
            firmware: "FW1".into(),
            id: 0x1234,
            version: 0x0001_0400,
            kind: Some(1),
            shares_subsystem: true,
            format: true,
            manages_namespaces: true,
            effects_log: true,
            sanitize: Some(SanitizeCapabilities {
                crypto_erase: true,
                block_erase: true,
                overwrite: false,
                keeps_nothing_allocated: true,
                modifies_afterwards: Some(false),
            }),
            format_attributes: Some(FormatAttributes {
                formats_all: false,
                erases_all: true,
                crypto_erase: true,
                one_by_one: false,
            }),
            namespaces_max: 128,
            reserves: true,
            write_protects: true,
            protected_partitions: 2,
            subsystem: Some("nqn.2014.08.org.example:1".into()),
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_field_that_cannot_be_is_unknown_and_not_its_default() {
        let sanitize =
            |sanicap: u32| controller(|page| put(page, 328, &sanicap.to_le_bytes())).unwrap().sanitize;
        assert!(sanitize(u32::MAX).is_none() && sanitize(0xc000_0007).is_none());
        assert!(sanitize(0).is_some_and(|none| !none.block_erase));
        assert_eq!(sanitize(0x8000_0000).unwrap().modifies_afterwards, Some(true));
        assert_eq!(sanitize(7).unwrap().modifies_afterwards, None);
        let attributes = |fna| controller(|page| page[524] = fna).unwrap().format_attributes;
        assert!(attributes(0xff).is_none() && attributes(0x0f).is_some_and(FormatAttributes::reaches_all));
        assert!(!attributes(0b1100).unwrap().reaches_all());
        assert_eq!(controller(|page| page[111] = 0xff).unwrap().kind, None);
        let names = Err(Unknown::Invalid("a name with other bytes than ASCII"));
        assert_eq!(controller(|page| page[30] = 0xff), names);
        assert_eq!(controller(|page| page[5] = 0x1b), names);
        assert_eq!(controller(|page| (page[5], page[6]) = (0, 0xff)), names, "behind the end too");
        let no_page =
            [(&[][..], Unknown::Absent), (&[1; 4095], Unknown::Short), (&[0; 4096], Unknown::Zeroes)];
        for (bytes, unknown) in no_page.into_iter().chain([(&[0xff; 5000][..], Unknown::Ones)]) {
            assert_eq!(Controller::decode(bytes), Err(unknown));
            assert_eq!(Namespace::decode(bytes), Err(unknown));
            assert_eq!(IndependentNamespace::decode(bytes), Err(unknown));
            assert_eq!(NamespaceNames::decode(bytes), Err(unknown));
            assert_eq!(namespace_list(bytes, 0), Err(unknown));
            assert_eq!(controller_list(bytes, 0), Err(unknown));
        }
    }

    #[test]
    fn the_fields_of_a_namespace_are_where_the_specification_has_them() {
        let found = namespace(|page| {
            page[25] = 31;
            page[26] = 0b0011_0010;
            page[29] = 0b1010;
            page[30] = 1;
            page[32] = 0x80 | 42;
            page[33] = 2;
            page[99] = 1;
            put(page, 104, &[1; 16]);
            put(page, 120, &[2; 8]);
            put(page, 128 + 4 * 18, &[64, 0, 12, 0]);
        });
        let format = BlockFormat {
            index: 18,
            block_bytes: 4096,
            metadata_bytes: 64,
            extended: true,
            protection: 2,
            protection_first: true,
        };
        let expected = Namespace {
            blocks: 1000,
            capacity_blocks: 900,
            format: Some(format),
            shared: true,
            write_protected: true,
            format_left_percent: Some(42),
            deallocated_reads: Some(0xff),
            nguid: Some([1; 16]),
            eui64: Some([2; 8]),
        };
        assert_eq!(found, Ok(expected));
        assert_eq!(expected.size_bytes(), Some(4_096_000));
    }

    #[test]
    fn a_block_format_that_contradicts_itself_is_unknown() {
        let format = |change: fn(&mut [u8])| namespace(change).unwrap().format;
        let plain = format(|_| {}).unwrap();
        assert_eq!((plain.index, plain.block_bytes, plain.metadata_bytes, plain.protection), (0, 512, 0, 0));
        // Formats above 15 on a drive that has 16 at most; one that is not in the table.
        assert_eq!(format(|page| (page[25], page[26], page[128 + 64 + 2]) = (15, 0b0010_0000, 9)), None);
        assert_eq!(format(|page| page[26] = 5), None);
        assert_eq!(format(|page| page[130] = 8), None);
        assert_eq!(format(|page| page[130] = 64), None);
        // Protection without the bytes for it, or of a type that does not exist.
        assert_eq!(format(|page| page[29] = 1), None);
        assert_eq!(format(|page| (page[128], page[29]) = (64, 4)), None);
        assert!(format(|page| (page[128], page[29]) = (8, 1)).is_some());
        let size = |blocks: u64, capacity: u64| {
            namespace(|page| {
                put(page, 0, &blocks.to_le_bytes());
                put(page, 8, &capacity.to_le_bytes());
            })
        };
        assert!(size(0, 0).is_err() && size(10, 11).is_err() && size(10, 0).is_ok());
        assert_eq!(size(u64::MAX, 0).unwrap().size_bytes(), None);
        let none = namespace(|page| page[32] = 50).unwrap();
        assert_eq!((none.format_left_percent, none.deallocated_reads, none.nguid), (None, None, None));
    }

    #[test]
    fn identifiers_are_read_up_to_the_first_of_no_length() {
        let names = |parts: &[&[u8]]| {
            let mut page = vec![0; 4096];
            put(&mut page, 0, &parts.concat());
            NamespaceNames::decode(&page)
        };
        let (eui64, nguid, uuid) = ([1; 8], [2; 16], [3; 16]);
        let found = names(&[
            &[1, 8, 0, 0],
            &eui64,
            &[9, 2, 0, 0, 7, 7],
            &[2, 16, 0, 0],
            &nguid,
            &[3, 16, 0, 0],
            &uuid,
            &[4, 1, 0, 0, 2],
        ]);
        let expected =
            NamespaceNames { eui64: Some(eui64), nguid: Some(nguid), uuid: Some(uuid), command_set: Some(2) };
        assert_eq!(found, Ok(expected));
        assert_eq!(names(&[&[2, 8, 0, 0], &eui64]), Err(Unknown::Invalid("the length of an identifier")));
        assert_eq!(names(&[&[9, 255, 0, 0].repeat(1024)]), Err(Unknown::Invalid("an identifier is cut off")));
        assert_eq!(names(&[&[1, 0, 0, 0], &eui64]), Ok(NamespaceNames::default()));
    }

    #[test]
    fn a_list_of_namespaces_ascends_and_is_not_empty() {
        let list = |numbers: &[u32], after| {
            let mut page: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            page.resize(4096, 0);
            namespace_list(&page, after)
        };
        assert_eq!(list(&[1, 2, 7], 0), Ok(vec![1, 2, 7]));
        assert_eq!(list(&[], 0), Err(Unknown::Zeroes));
        assert_eq!(list(&[], 7), Ok(vec![]), "the end of a list");
        let full: Vec<u32> = (8..8 + 1024).collect();
        assert_eq!(list(&full, 7), Ok(full.clone()));
        let invalid = Err(Unknown::Invalid("a list of namespaces out of order"));
        for (numbers, after) in [(&[2, 2][..], 0), (&[2, 1], 0), (&[1, 0, 3], 0), (&[7], 7), (&[u32::MAX], 0)]
        {
            assert_eq!(list(numbers, after), invalid, "{numbers:?} after {after}");
        }
    }

    #[test]
    fn a_list_of_controllers_has_as_many_as_it_says() {
        let list = |numbers: &[u16], from| {
            let mut page: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            page.resize(4096, 0);
            controller_list(&page, from)
        };
        assert_eq!(list(&[2, 0, 5], 0), Ok(vec![0, 5]));
        assert_eq!(list(&[1, 7], 7), Ok(vec![7]));
        let invalid = Err(Unknown::Invalid("a list of controllers out of order"));
        for (numbers, from) in [(&[0, 1][..], 0), (&[2, 5], 0), (&[2, 5, 5], 0), (&[1, 6], 7), (&[2048], 0)] {
            assert_eq!(list(numbers, from), invalid, "{numbers:?} from {from}");
        }
        let numbers: Vec<u16> = std::iter::once(2047).chain(0..2047).collect();
        assert_eq!(list(&numbers, 0).unwrap().len(), 2047);
    }
}
