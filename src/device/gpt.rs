//! A check of the headers of a GPT, before libblkid reads and keeps as many entries as they announce.
//!
//! UEFI Specification 2.10, 5.3.2: the header is in logical block 1, and its copy in the last one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::range::Extent;

/// Tables have 128 entries of 128 bytes; some have more.
const TABLE_BYTES_MAX: u64 = 1 << 20;
const LOGICAL_BLOCKS: [u64; 4] = [512, 1024, 2048, 4096];

/// Whether a header in this range of a device announces a table that no partitions need.
pub(super) fn is_too_large(file: &File, range: Extent) -> bool {
    for block in LOGICAL_BLOCKS {
        let last = (range.len() / block).saturating_sub(1) * block;
        for at in [block, last] {
            let mut header = [0; 92];
            if at + header.len() as u64 > range.len() {
                continue;
            }
            // What cannot be read here announces nothing to libblkid either.
            let read = file.read_exact_at(&mut header, range.start + at);
            if read.is_ok() && announced_bytes(&header).is_some_and(|bytes| bytes > TABLE_BYTES_MAX) {
                return true;
            }
        }
    }
    false
}

/// The bytes of the table that a header leads to; `None` if there is no header.
fn announced_bytes(header: &[u8; 92]) -> Option<u64> {
    let number = |at: usize| header[at..at + 4].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
    header.starts_with(b"EFI PART").then(|| number(80) * number(84))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SIZE: u64 = 1 << 20;

    fn too_large(at: u64, entries: u32, entry_bytes: u32, range: Extent) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0xff; 4096]).unwrap();
        file.set_len(SIZE).unwrap();
        let header =
            [&b"EFI PART"[..], &[0; 72], &entries.to_le_bytes(), &entry_bytes.to_le_bytes()].concat();
        file.write_all_at(&header, at).unwrap();
        is_too_large(&file, range)
    }

    #[test]
    fn a_header_at_either_end_and_of_any_block_size_is_seen() {
        let whole = Extent::new(0, SIZE);
        for at in [512, 1024, 2048, 4096, SIZE - 512, SIZE - 1024, SIZE - 2048, SIZE - 4096] {
            assert!(too_large(at, 1 << 23, 128, whole), "{at}");
            assert!(!too_large(at, 128, 128, whole), "{at}");
        }
        assert!(too_large(512, u32::MAX, u32::MAX, whole));
        assert!(!too_large(512, 4096, 256, whole) && too_large(512, 4097, 256, whole));
        let partition = Extent::new(65536, 131_072);
        assert!(too_large(65536 + 512, 1 << 23, 128, partition));
        assert!(!too_large(512, 1 << 23, 128, partition), "that of the disk, not of the partition");
    }

    #[test]
    fn a_range_too_small_for_a_header_has_none() {
        for size in [0, 1, 511, 512, 600] {
            assert!(!too_large(4096, 1 << 23, 128, Extent::new(0, size)), "{size}");
        }
    }
}
