//! The capacity, the logical units of a target, and which commands one supports.

use serde::Serialize;

use super::commands::EraseCommand;
use super::{Unknown, be16, be32, be64, head};

/// READ CAPACITY (16).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Capacity {
    /// How many logical blocks.
    pub blocks: u64,
    /// The data of each, without protection information.
    pub block_bytes: u32,
    /// The type of protection information, from 1 to 3; `None` without.
    pub protection: Option<u8>,
}

impl Capacity {
    /// From 32 bytes.
    ///
    /// # Errors
    /// No capacity, or one that no disk has.
    pub fn decode(bytes: &[u8]) -> Result<Capacity, Unknown> {
        let data = head::<32>(bytes)?;
        let blocks = be64(data, 0).checked_add(1).ok_or(Unknown::Invalid("the number of blocks"))?;
        let block_bytes = be32(data, 8);
        if block_bytes == 0 || u64::from(block_bytes).checked_mul(blocks).is_none() {
            return Err(Unknown::Invalid("the block size"));
        }
        let (enabled, kind) = (data[12] & 1 != 0, data[12] >> 1 & 7);
        match kind {
            0..=2 => Ok(Capacity { blocks, block_bytes, protection: enabled.then_some(kind + 1) }),
            _ => Err(Unknown::Invalid("the type of protection information")),
        }
    }
}

/// The numbers of the logical units of a target (REPORT LUNS), as many as there are.
///
/// # Errors
/// The list is cut off or empty, or has an address that is not a number of one level.
pub fn logical_units(bytes: &[u8]) -> Result<Vec<u16>, Unknown> {
    let header = head::<8>(bytes)?;
    let length = be32(header, 0) as usize;
    let list = bytes[8..].get(..length).ok_or(Unknown::Short)?;
    let (numbers, rest) = list.as_chunks::<8>();
    if numbers.is_empty() || !rest.is_empty() {
        return Err(Unknown::Invalid("a list of no logical units"));
    }
    // Peripheral addressing of bus 0, and flat addressing.
    let number = |address: &[u8; 8]| match address {
        [0x00, number, 0, 0, 0, 0, 0, 0] => Ok((*number).into()),
        [flat @ 0x40..=0x7f, low, 0, 0, 0, 0, 0, 0] => Ok(u16::from(flat & 0x3f) << 8 | u16::from(*low)),
        _ => Err(Unknown::Invalid("the address of a logical unit")),
    };
    numbers.iter().map(number).collect()
}

/// Whether a logical unit supports a command (REPORT SUPPORTED OPERATION CODES).
///
/// # Errors
/// It does not say, or says it of another command.
pub fn supports(command: EraseCommand, bytes: &[u8]) -> Result<bool, Unknown> {
    let (opcode, _) = command.codes();
    let header = head::<4>(bytes)?;
    match header[1] & 7 {
        1 => return Ok(false),
        // As a standard has it, or in a way of the vendor's own.
        3 | 5 => {}
        0 => return Err(Unknown::Invalid("the support is not known now")),
        _ => return Err(Unknown::Invalid("the support")),
    }
    // Which bits of the command are used; its operation code stands as it is.
    let usage = bytes[4..].get(..be16(header, 2).into()).ok_or(Unknown::Short)?;
    if usage.first() != Some(&opcode) {
        return Err(Unknown::Invalid("the support of another command"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(last: u64, block_bytes: u32, protection: u8) -> Result<Capacity, Unknown> {
        let mut data = [0; 32];
        data[..8].copy_from_slice(&last.to_be_bytes());
        data[8..12].copy_from_slice(&block_bytes.to_be_bytes());
        (data[12], data[13], data[14]) = (protection, 0x03, 0xc0);
        Capacity::decode(&data)
    }

    #[test]
    fn a_capacity_is_blocks_and_their_size() {
        let disk = |protection| Ok(Capacity { blocks: 0x1_0000_0000, block_bytes: 4096, protection });
        assert_eq!(capacity(0xffff_ffff, 4096, 0), disk(None));
        assert_eq!(capacity(0xffff_ffff, 4096, 0b0010), disk(None), "not enabled");
        let with = [0b0001, 0b0011, 0b0101].map(|bits| capacity(0xffff_ffff, 4096, bits));
        assert_eq!(with, [disk(Some(1)), disk(Some(2)), disk(Some(3))]);
        assert!((3..8).all(|kind| capacity(1, 512, kind << 1).is_err()));
        assert_eq!(capacity(u64::MAX, 512, 0), Err(Unknown::Invalid("the number of blocks")));
        for (last, block_bytes) in [(1, 0), (u64::MAX - 1, 512)] {
            assert_eq!(capacity(last, block_bytes, 0), Err(Unknown::Invalid("the block size")));
        }
        assert_eq!(Capacity::decode(&[1; 31]), Err(Unknown::Short));
        assert_eq!(Capacity::decode(&[0; 32]), Err(Unknown::Zeroes));
    }

    fn luns(addresses: &[[u8; 8]]) -> Vec<u8> {
        [&[0, 0, 0, addresses.len() as u8 * 8, 0, 0, 0, 0], addresses.as_flattened()].concat()
    }

    #[test]
    fn logical_units_are_those_of_the_list() {
        let address = |first: u8, second: u8| [first, second, 0, 0, 0, 0, 0, 0];
        let two = luns(&[address(0, 0), address(0, 1)]);
        assert_eq!(logical_units(&two), Ok(vec![0, 1]));
        assert_eq!(logical_units(&[&two[..], &[0xff; 99]].concat()), Ok(vec![0, 1]));
        assert_eq!(logical_units(&luns(&[address(0x41, 2)])), Ok(vec![0x102]));
        assert_eq!(logical_units(&two[..23]), Err(Unknown::Short));
        let none = Err(Unknown::Invalid("a list of no logical units"));
        assert_eq!(logical_units(&[0, 0, 0, 4, 0, 0, 0, 0, 1, 1, 1, 1]), none);
        assert_eq!(logical_units(&[&luns(&[])[..], &[1]].concat()), none);
        assert_eq!(logical_units(&luns(&[])), Err(Unknown::Zeroes));
        // Well known, behind a bus, of two levels.
        for address in [address(0xc1, 1), address(0x01, 1), [0, 1, 0, 1, 0, 0, 0, 0]] {
            let invalid = Err(Unknown::Invalid("the address of a logical unit"));
            assert_eq!(logical_units(&luns(&[address])), invalid);
        }
    }

    #[test]
    fn a_command_is_supported_where_the_drive_says_so_of_it() {
        let answer = |support: u8, opcode: u8| {
            let usage = [opcode, 0xe2, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04];
            supports(EraseCommand::BlockErase, &[&[0, 0x80 | support, 0, 10][..], &usage].concat())
        };
        for support in 0..8 {
            let expected = match support {
                1 => Ok(false),
                3 | 5 => Ok(true),
                0 => Err(Unknown::Invalid("the support is not known now")),
                _ => Err(Unknown::Invalid("the support")),
            };
            assert_eq!(answer(support, 0x48), expected, "{support}");
        }
        assert_eq!(answer(3, 0x04), Err(Unknown::Invalid("the support of another command")));
        assert_eq!(supports(EraseCommand::FormatUnit, &[0, 3, 0, 6, 4, 0]), Err(Unknown::Short));
        assert_eq!(supports(EraseCommand::FormatUnit, &[0, 3, 0, 2, 4, 0]), Ok(true));
        let nothing = supports(EraseCommand::FormatUnit, &[0, 3, 0, 0]);
        assert_eq!(nothing, Err(Unknown::Invalid("the support of another command")));
        assert_eq!(supports(EraseCommand::FormatUnit, &[0, 1, 0, 0]), Ok(false));
        assert_eq!(supports(EraseCommand::FormatUnit, &[0; 4]), Err(Unknown::Zeroes));
        assert_eq!(supports(EraseCommand::FormatUnit, &[0xff; 4]), Err(Unknown::Ones));
    }
}
