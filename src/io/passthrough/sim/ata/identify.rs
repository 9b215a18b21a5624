//! IDENTIFY DEVICE of a simulated drive.

use super::Drive;

impl Drive {
    pub(super) fn identify(&self) -> [u8; 512] {
        let mut words = [0_u16; 256];
        text(&mut words[10..20], "SIM-0001");
        text(&mut words[23..27], "1.0");
        text(&mut words[27..47], "efface simulated ATA drive");
        let sectors = self.hidden.visible();
        let halves = |number: u64| [number as u16, (number >> 16) as u16, (number >> 32) as u16];
        // LBA and DMA, without which hdparm prints nothing.
        words[49] = 0x0300;
        words[53] = 0x0006;
        words[60..62].copy_from_slice(&halves(sectors.min(0x0fff_ffff))[..2]);
        words[80] = 0x0ff0;
        words[100..103].copy_from_slice(&halves(sectors));
        words[108..112].copy_from_slice(&[0x5000, 0xc500, 0x1234, 0x5678]);
        words[217] = self.setup.rotation;
        words[59] = self.setup.sanitize;
        let protected = u16::from(self.setup.protected.is_some()) << 10;
        let overlay = u16::from(self.setup.overlay.is_some()) << 11;
        let security = u16::from(self.setup.erase_words.is_some()) << 1;
        words[82] = protected | security;
        words[83] = 0x4400 | overlay;
        words[84] = 0x4120;
        words[85] = protected | u16::from(self.security.is_enabled()) << 1;
        words[86] = 0x8400 | overlay;
        words[87] = 0x4120;
        if let Some((normal, enhanced)) = self.setup.erase_words {
            (words[89], words[90]) = (normal, enhanced.unwrap_or(0));
            words[92] = self.security.master_identifier();
            words[128] = 1 | self.security.status() | u16::from(enhanced.is_some()) << 5;
        }
        words[119] = 0x4000 | u16::from(self.setup.accessible.is_some()) << 8;
        words[120] = 0x4000;
        words[255] = 0x00a5;
        let mut page = [0; 512];
        for (bytes, word) in page.chunks_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        page[511] = page.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        page
    }
}

/// Two characters to a word, the first in its upper byte, and spaces behind them.
fn text(words: &mut [u16], text: &str) {
    let mut characters = text.bytes().chain(std::iter::repeat(b' '));
    words.fill_with(|| {
        characters.next().zip(characters.next()).map_or(0, |pair| u16::from_be_bytes(pair.into()))
    });
}
