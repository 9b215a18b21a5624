//! SCSI: commands to bytes, and answers to facts.

const INQUIRY: u8 = 0x12;

/// An allow-list: Inquiry, and what of ATA only reads.
pub(super) fn only_reads(cdb: &[u8]) -> bool {
    matches!(cdb, [INQUIRY, ..]) || super::ata::only_reads(cdb)
}
