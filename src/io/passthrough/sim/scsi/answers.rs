//! What a simulated SCSI drive answers to queries.

use super::{BLOCK, Drive, SenseData};

impl Drive {
    pub(super) fn inquiry(&self, unit: u8, cdb: &[u8]) -> Result<Vec<u8>, SenseData> {
        let length = usize::from(u16::from_be_bytes([cdb[3], cdb[4]]));
        let mut answer = match (cdb[1] & 1, cdb[2]) {
            (0, 0) => {
                let mut data = vec![0x00, 0x00, 0x06, 0x12, 0x5b, 0x00, 0x10, 0x02];
                data.extend(*b"EXAMPLE Simulated SAS   0001");
                data.resize(96, 0);
                data
            }
            (1, page) if self.setup.pages.contains(&page) => {
                let body = self.page(unit, page);
                [&[0x00, page, 0x00, body.len() as u8], &body[..]].concat()
            }
            _ => return Err(SenseData::INVALID_FIELD),
        };
        answer.truncate(length);
        Ok(answer)
    }

    fn page(&self, unit: u8, page: u8) -> Vec<u8> {
        match page {
            0x00 => self.setup.pages.clone(),
            0x80 => b"SIM-SAS-1".to_vec(),
            0x83 => {
                let naa = |kind: u8, last: u8| vec![0x61, kind, 0, 8, 0x50, 0, 0xc5, 0, 0, 0, 0, last];
                // Of the unit, of the port, and of the device, whose name is text.
                let device = [&[0x63, 0xa8, 0, 24][..], b"naa.5000C500000000FF\0\0\0\0"].concat();
                [naa(0x03, unit + 1), naa(0x93, 0xfe), device].concat()
            }
            _ => {
                let mut body = vec![0; 60];
                body[..2].copy_from_slice(&self.setup.rotation.to_be_bytes());
                let (block, crypto) = self.setup.needs_write;
                // A disk of 2.5 inches.
                body[3] = block << 6 | crypto << 4 | 0x03;
                body
            }
        }
    }

    pub(super) fn capacity(&self) -> Vec<u8> {
        let last = self.unit_blocks() as u64 - 1;
        let mut data = [&last.to_be_bytes()[..], &(BLOCK as u32).to_be_bytes()].concat();
        data.resize(32, 0);
        data[12] = self.setup.protection;
        data
    }

    pub(super) fn luns(&self) -> Vec<u8> {
        let mut list = vec![0, 0, 0, 8 * self.setup.units, 0, 0, 0, 0];
        (0..self.setup.units).for_each(|unit| list.extend([0, unit, 0, 0, 0, 0, 0, 0]));
        list
    }

    /// REPORT SUPPORTED OPERATION CODES of one of the two commands that erase.
    pub(super) fn support(&self, cdb: &[u8]) -> Result<Vec<u8>, SenseData> {
        let usage: Option<&[u8]> = match (cdb[2], cdb[3], cdb[5]) {
            (1, 0x04, _) if self.setup.formats => Some(&[0x04, 0xff, 0, 0, 0, 0x04]),
            (2, 0x48, action) if self.setup.sanitize_actions.contains(&action) => {
                Some(&[0x48, 0xe0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04])
            }
            (1, 0x04, _) | (2, 0x48, _) => None,
            _ => return Err(SenseData::INVALID_FIELD),
        };
        Ok(match usage {
            Some(usage) => [&[0, 3, 0, usage.len() as u8], usage].concat(),
            None => vec![0, 1, 0, 0],
        })
    }
}
