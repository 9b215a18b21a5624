//! Areas that a drive hides: its native size, by the host protected area, its successor, and the overlay.

use serde::Serialize;

use super::registers::Registers;
use super::{Unknown, is_summed_up, le64, page};
use crate::io::passthrough::Reply;

/// By what an area is hidden.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenBy {
    /// HPA: the host protected area.
    Hpa,
    /// AMA: the accessible max address configuration.
    Ama,
    /// DCO: the device configuration overlay.
    Dco,
}

/// An area that cannot be addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct HiddenArea {
    /// By what.
    pub by: HiddenBy,
    /// What could be addressed without this.
    pub native_bytes: u64,
    /// What can be addressed with it.
    pub visible_bytes: u64,
}

/// The sectors that a drive has, by its answer to READ NATIVE MAX ADDRESS EXT or GET NATIVE MAX ADDRESS EXT.
///
/// # Errors
/// No registers, an address that has lost its upper bytes, or none at all.
pub fn native_sectors(reply: &Reply) -> Result<u64, Unknown> {
    let registers = Registers::of(reply)?;
    sectors_to(registers.succeeded()?.lba()?)
}

/// The same by the data of DEVICE CONFIGURATION IDENTIFY.
///
/// # Errors
/// No page, one that does not add up, or no address.
pub fn configurable_sectors(bytes: &[u8]) -> Result<u64, Unknown> {
    const SIGNATURE: u8 = 0xa5;
    const MAX_LBA: usize = 6;
    let page = page(bytes)?;
    if page[510] != SIGNATURE || !is_summed_up(page) {
        return Err(Unknown::Invalid("the checksum of DEVICE CONFIGURATION IDENTIFY"));
    }
    sectors_to(le64(page, MAX_LBA))
}

/// No drive ends at address 0, nor at the end of what 28, 32 or 48 bits can address: bridges answer so.
fn sectors_to(last: u64) -> Result<u64, Unknown> {
    match last {
        0 => Err(Unknown::Zeroes),
        0xfff_ffff | 0xffff_ffff | 0xffff_ffff_ffff.. => Err(Unknown::Ones),
        last => Ok(last + 1),
    }
}

/// The area between two sizes in sectors, if there is one.
///
/// # Errors
/// The native size is less than the visible one.
pub fn hidden_area(
    by: HiddenBy,
    native: u64,
    visible: u64,
    sector_bytes: u32,
) -> Result<Option<HiddenArea>, Unknown> {
    let bytes = |sectors: u64| sectors.checked_mul(sector_bytes.into());
    match (bytes(native), bytes(visible)) {
        (Some(native), Some(visible)) if native == visible => Ok(None),
        (Some(native_bytes), Some(visible_bytes)) if native_bytes > visible_bytes && visible_bytes > 0 => {
            Ok(Some(HiddenArea { by, native_bytes, visible_bytes }))
        }
        _ => Err(Unknown::Invalid("a native size that contradicts the visible one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::passthrough::Outcome;

    fn native(status: u8, last: u64) -> Result<u64, Unknown> {
        let [first, mid, high, upper @ ..] = last.to_le_bytes();
        let mut sense = vec![0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 1, 4 * (status & 1), 0, 0];
        sense.extend([upper[0], first, upper[1], mid, upper[2], high, 0x40, status]);
        native_sectors(&Reply { sense, ..Reply::of(Outcome::Status(2)) })
    }

    #[test]
    fn an_address_that_bridges_answer_is_no_size() {
        assert_eq!(native(0x50, 0x1234_5678_9abc), Ok(0x1234_5678_9abd));
        assert_eq!(native(0x50, 0), Err(Unknown::Zeroes));
        for ones in [0xfff_ffff, 0xffff_ffff, 0xffff_ffff_ffff] {
            assert_eq!(native(0x50, ones), Err(Unknown::Ones), "{ones:x}");
        }
        assert_eq!(native(0x51, 99), Err(Unknown::Refused { status: 0x51, error: 4 }));
        assert_eq!(native_sectors(&Reply::of(Outcome::Status(0))), Err(Unknown::Absent));
    }

    #[test]
    fn an_overlay_counts_with_its_checksum() {
        let mut page = [0; 512];
        page[6..14].copy_from_slice(&999_u64.to_le_bytes());
        page[510] = 0xa5;
        assert!(matches!(configurable_sectors(&page), Err(Unknown::Invalid(_))));
        page[511] = page.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        assert_eq!(configurable_sectors(&page), Ok(1000));
        page[510] = 0;
        page[511] = page[511].wrapping_add(0xa5);
        assert!(matches!(configurable_sectors(&page), Err(Unknown::Invalid(_))), "without its signature");
        assert_eq!(configurable_sectors(&[0; 512]), Err(Unknown::Zeroes));
    }

    #[test]
    fn an_area_is_what_is_more_than_visible() {
        let of = |native, visible| hidden_area(HiddenBy::Hpa, native, visible, 512);
        let area = HiddenArea { by: HiddenBy::Hpa, native_bytes: 1024, visible_bytes: 512 };
        assert_eq!((of(2, 1), of(2, 2)), (Ok(Some(area)), Ok(None)));
        for (native, visible) in [(1, 2), (1, 0), (u64::MAX, 1)] {
            assert!(matches!(of(native, visible), Err(Unknown::Invalid(_))), "{native} {visible}");
        }
    }
}
