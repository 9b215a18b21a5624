//! The commands of a simulated subsystem: Identify, Get Log Page, Get Features, Format, Sanitize, and Reservation
//! Report.

use std::time::{Duration, Instant};

use super::media::Media;
use super::{Answer, BLOCK_FORMATS, Subsystem};
use crate::io::clock::{Clock, SimClock};
use crate::io::passthrough::NvmeCommand;

const INVALID_OPCODE: u16 = 0x4001;
const INVALID_FIELD: u16 = 0x4002;
const INVALID_NAMESPACE: u16 = 0x400b;
const INCONSISTENT_HOST_ID: u16 = 0x4018;
const WRITE_PROTECTED: u16 = 0x4020;
const FORMAT_IN_PROGRESS: u16 = 0x0084;
const INVALID_LOG: u16 = 0x4109;
const INVALID_FORMAT: u16 = 0x410a;
const ACCESS_DENIED: u16 = 0x4286;

/// The identifier of a namespace begins with these.
const NGUID: [u8; 12] = *b"simulated-ns";

/// A format that goes on.
pub(super) struct FormatRun {
    namespaces: Vec<u32>,
    crypto: bool,
    begun: Instant,
    ends: Instant,
}

impl FormatRun {
    pub(super) fn reaches(&self, nsid: u32) -> bool {
        self.namespaces.contains(&nsid)
    }
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Subsystem {
    /// What has ended by this time.
    pub(super) fn work_until(&mut self, now: Instant) {
        self.sanitize_until(now);
        if let Some(run) = self.format.take_if(|run| now >= run.ends) {
            for media in self.media.iter_mut().filter(|media| run.reaches(media.nsid())) {
                if run.crypto {
                    media.scramble(None);
                } else {
                    media.fill(None, |bytes| bytes.fill(0));
                    media.unmap_all();
                }
            }
        }
    }

    /// `None` where the host gave up waiting.
    pub(super) fn admin(
        &mut self,
        controller: u16,
        command: &NvmeCommand,
        clock: &SimClock,
    ) -> Option<Answer> {
        let &NvmeCommand { opcode, nsid, dwords, timeout, .. } = command;
        let now = clock.now();
        let status = match opcode {
            0x02 => return Some(self.log(dwords[0], now)),
            0x06 => return Some(self.identify(controller, nsid, dwords[0], now)),
            0x0a => return Some(self.feature(nsid, dwords[0])),
            0x80 if self.setup.oacs & 1 << 1 != 0 => {
                let status = self.start_format(nsid, dwords[0], now);
                if status == 0 {
                    let waits = Duration::from_millis(timeout.as_ms().into()).min(self.setup.format_time);
                    clock.advance(waits);
                    self.work_until(clock.now());
                    if self.format.is_some() {
                        return None;
                    }
                }
                status
            }
            0x84 if self.setup.sanicap & 0b111 != 0 => self.start_sanitize(nsid, [dwords[0], dwords[1]], now),
            _ => match self.sanitize.prohibits() {
                0 => INVALID_OPCODE,
                prohibited => prohibited,
            },
        };
        Some(Answer::status(status))
    }

    /// The only command that is not of the admin set.
    pub(super) fn reservation_report(&self, command: &NvmeCommand) -> Answer {
        let &NvmeCommand { opcode, nsid, dwords, .. } = command;
        let namespace = self.setup.namespaces.iter().find(|namespace| namespace.nsid == nsid);
        let supported = opcode == 0x0e && self.setup.oncs & 1 << 5 != 0;
        match (self.sanitize.prohibits(), namespace) {
            (0, Some(_)) if supported && dwords[1] != 0 => Answer::status(INCONSISTENT_HOST_ID),
            (0, Some(namespace)) if supported => {
                let mut page = vec![0; 4096];
                page[4] = namespace.reserved.0;
                put(&mut page, 5, &namespace.reserved.1.to_le_bytes());
                Answer::data(page)
            }
            (0, _) => Answer::status(INVALID_OPCODE),
            (prohibited, _) => Answer::status(prohibited),
        }
    }

    fn log(&self, dword_10: u32, now: Instant) -> Answer {
        match dword_10 & 0xff {
            0x05 => {
                let mut page = vec![0; 4096];
                let format = (self.setup.oacs & 1 << 1 != 0).then_some(0x80);
                let sanitize = (self.setup.sanicap & 0b111 != 0).then_some(0x84);
                for opcode in [0x02, 0x06, 0x09, 0x0a].into_iter().chain(format).chain(sanitize) {
                    page[4 * opcode] = 1;
                }
                Answer::data(page)
            }
            0x81 if self.setup.sanicap & 0b111 != 0 => Answer::data(self.sanitize_log(now)),
            _ => Answer::status(INVALID_LOG),
        }
    }

    /// Namespace Write Protection alone.
    fn feature(&mut self, nsid: u32, dword_10: u32) -> Answer {
        match (dword_10, self.media(nsid)) {
            (0x84, Some(media)) => {
                Answer { result: media.write_protected.into(), ..Answer::data(Vec::new()) }
            }
            _ => Answer::status(INVALID_FIELD),
        }
    }

    fn start_format(&mut self, nsid: u32, dword_10: u32, now: Instant) -> u16 {
        const ALL: u32 = u32::MAX;
        let flag = |bit: u8| self.setup.fna & 1 << bit != 0;
        let erase = dword_10 >> 9 & 7;
        let index = dword_10 & 0xf | (dword_10 >> 12 & 3) << 4;
        let (extended, protection) = (dword_10 >> 4 & 1, dword_10 >> 5 & 7);
        let prohibited = self.sanitize.prohibits();
        let exists = self.media.iter().any(|media| media.nsid() == nsid);
        let status = match BLOCK_FORMATS.get(index as usize) {
            _ if prohibited != 0 => prohibited,
            _ if self.format.is_some() => FORMAT_IN_PROGRESS,
            _ if self.setup.locked => ACCESS_DENIED,
            _ if erase > 2 || (erase == 2 && !flag(2)) || (nsid == ALL && flag(3)) => INVALID_FIELD,
            _ if nsid != ALL && !exists => INVALID_NAMESPACE,
            None => INVALID_FORMAT,
            Some((metadata, _)) if protection > 3 || (protection > 0 && *metadata < 8) => INVALID_FORMAT,
            Some(_) => 0,
        };
        if status != 0 {
            return status;
        }
        let named = |media: &&mut Media| nsid == ALL || media.nsid() == nsid;
        let (formats_all, erases_all) = (flag(0), flag(1));
        if self.media.iter().any(|media| media.write_protected) {
            return WRITE_PROTECTED;
        }
        for media in self.media.iter_mut().filter(|media| formats_all || named(media)) {
            media.flbas = (index & 0xf | extended << 4 | (index >> 4) << 5) as u8;
            media.dps = (protection | (dword_10 >> 8 & 1) << 3) as u8;
        }
        let reached = self.media.iter_mut().filter(|media| formats_all || erases_all || named(media));
        let namespaces = reached.map(|media| media.nsid()).collect();
        // Without a secure erase what is left is up to the drive: here it stays.
        if erase > 0 {
            let (crypto, ends) = (erase == 2, now + self.setup.format_time);
            self.format = Some(FormatRun { namespaces, crypto, begun: now, ends });
        }
        0
    }

    fn identify(&mut self, controller: u16, nsid: u32, dword_10: u32, now: Instant) -> Answer {
        let (structure, from) = (dword_10 & 0xff, (dword_10 >> 16) as u16);
        let attached: Vec<u32> = {
            let own = self.setup.controllers.iter().find(|own| own.id == controller);
            own.map_or(Vec::new(), |own| own.attached.clone())
        };
        let exists = self.media.iter().any(|media| media.nsid() == nsid);
        let managed = self.setup.oacs & 1 << 3 != 0;
        let mut page = vec![0; 4096];
        match structure {
            0x00 if attached.contains(&nsid) => self.namespace_page(&mut page, nsid, now),
            0x11 if managed && exists => self.namespace_page(&mut page, nsid, now),
            0x00 => {}
            0x01 => self.controller_page(&mut page, controller),
            0x02 | 0x10 if structure == 0x02 || managed => {
                let all = self.media.iter().map(Media::nsid);
                let listed = all.filter(|it| *it > nsid && (structure == 0x10 || attached.contains(it)));
                let bytes: Vec<u8> = listed.take(1024).flat_map(u32::to_le_bytes).collect();
                put(&mut page, 0, &bytes);
            }
            0x03 if exists => {
                put(&mut page, 0, &[2, 16, 0, 0]);
                put(&mut page, 4, &nguid(nsid));
                put(&mut page, 20, &[4, 1, 0, 0, 0]);
            }
            0x08 if exists => {
                let left = self.format_left(nsid, now);
                let protected = self.media(nsid).is_some_and(|media| media.write_protected);
                (page[3], page[8], page[14]) = (0x80 | left, protected.into(), 1);
            }
            0x12 | 0x13 if managed => {
                let of = |it: &&super::ControllerSetup| structure == 0x13 || it.attached.contains(&nsid);
                let listed = self.setup.controllers.iter().filter(of).map(|it| it.id);
                let listed: Vec<u16> = listed.filter(|id| *id >= from).take(2047).collect();
                put(&mut page, 0, &(listed.len() as u16).to_le_bytes());
                let bytes: Vec<u8> = listed.into_iter().flat_map(u16::to_le_bytes).collect();
                put(&mut page, 2, &bytes);
            }
            0x11 | 0x03 | 0x08 if !exists => return Answer::status(INVALID_NAMESPACE),
            _ => return Answer::status(INVALID_FIELD),
        }
        Answer::data(page)
    }

    fn controller_page(&self, page: &mut [u8], controller: u16) {
        let setup = &self.setup;
        put(page, 4, b"SIM-SERIAL-000000001");
        put(page, 24, b"Simulated NVMe drive                    ");
        put(page, 64, b"1.0     ");
        page[76] = u8::from(setup.controllers.len() > 1) << 1;
        put(page, 78, &controller.to_le_bytes());
        put(page, 80, &setup.version.to_le_bytes());
        page[111] = 1;
        put(page, 256, &setup.oacs.to_le_bytes());
        page[261] = 1 << 1;
        put(page, 328, &setup.sanicap.to_le_bytes());
        let largest = setup.namespaces.iter().map(|namespace| namespace.nsid).max().unwrap_or_default();
        put(page, 516, &largest.to_le_bytes());
        put(page, 520, &setup.oncs.to_le_bytes());
        page[524] = setup.fna;
        page[531] = 1;
        put(page, 768, b"nqn.2014-08.org.example:simulated");
    }

    fn namespace_page(&mut self, page: &mut [u8], nsid: u32, now: Instant) {
        let left = self.format_left(nsid, now);
        let paths = self.setup.controllers.iter().filter(|it| it.attached.contains(&nsid)).count();
        let Some(media) = self.media(nsid) else { return };
        let blocks = media.size() / media.block_bytes();
        put(page, 0, &blocks.to_le_bytes());
        put(page, 8, &blocks.to_le_bytes());
        (page[25], page[26], page[29]) = (BLOCK_FORMATS.len() as u8 - 1, media.flbas, media.dps);
        page[30] = u8::from(paths > 1);
        (page[32], page[33]) = (0x80 | left, 1);
        page[99] = media.write_protected.into();
        put(page, 104, &nguid(nsid));
        for (number, (metadata, shift)) in BLOCK_FORMATS.iter().enumerate() {
            put(page, 128 + 4 * number, &metadata.to_le_bytes());
            page[128 + 4 * number + 2] = *shift;
        }
    }

    /// In percent.
    fn format_left(&self, nsid: u32, now: Instant) -> u8 {
        let Some(run) = self.format.as_ref().filter(|run| run.reaches(nsid)) else { return 0 };
        let whole = (run.ends - run.begun).as_nanos().max(1);
        ((run.ends - now).as_nanos() * 100 / whole).max(1) as u8
    }
}

fn nguid(nsid: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    put(&mut bytes, 0, &NGUID);
    put(&mut bytes, 12, &nsid.to_be_bytes());
    bytes
}
