//! The sanitize state machine of a simulated subsystem, and its status log.

use std::time::{Duration, Instant};

use super::media::Media;
use super::{Lie, Setup, Subsystem};
use crate::range::Extent;

// States, as SSI 3:0 has them.
const IDLE: u8 = 0;
const RESTRICTED_PROCESSING: u8 = 1;
const RESTRICTED_FAILURE: u8 = 2;
const UNRESTRICTED_PROCESSING: u8 = 3;
const UNRESTRICTED_FAILURE: u8 = 4;
const MEDIA_VERIFICATION: u8 = 5;
const POST_VERIFICATION_DEALLOCATION: u8 = 6;

// Results, as SSTAT 2:0 has them.
const COMPLETED: u8 = 1;
const IN_PROGRESS: u8 = 2;
const FAILED: u8 = 3;
const COMPLETED_DEALLOCATED: u8 = 4;

// Status codes.
const INVALID_FIELD: u16 = 0x4002;
const COMMAND_SEQUENCE: u16 = 0x400c;
const SANITIZE_FAILED: u16 = 0x401c;
const SANITIZE_IN_PROGRESS: u16 = 0x401d;

/// How long the deallocation after a media verification takes.
const DEALLOCATION_TIME: Duration = Duration::from_secs(10);

pub(super) struct Machine {
    state: u8,
    result: u8,
    failed_in: u8,
    global_data_erased: bool,
    command: u32,
    pattern: u32,
    begun: Instant,
    ends: Instant,
    /// What was begun and said to be done already.
    later: bool,
}

impl Machine {
    pub(super) fn new(setup: &Setup, now: Instant) -> Machine {
        let (status, command) = setup.last.unwrap_or_default();
        Machine {
            state: if status & 7 == u16::from(FAILED) {
                if command & 1 << 3 == 0 { RESTRICTED_FAILURE } else { UNRESTRICTED_FAILURE }
            } else {
                IDLE
            },
            result: status as u8 & 7,
            failed_in: 0,
            global_data_erased: status & 1 << 8 != 0,
            command,
            pattern: 0,
            begun: now,
            ends: now,
            later: false,
        }
    }

    fn is_processing(&self) -> bool {
        [RESTRICTED_PROCESSING, UNRESTRICTED_PROCESSING, POST_VERIFICATION_DEALLOCATION].contains(&self.state)
    }

    /// The status of a command that has to wait until nothing runs, 0 where it has not.
    pub(super) fn prohibits(&self) -> u16 {
        match self.state {
            _ if self.is_processing() => SANITIZE_IN_PROGRESS,
            RESTRICTED_FAILURE | UNRESTRICTED_FAILURE => SANITIZE_FAILED,
            MEDIA_VERIFICATION => SANITIZE_IN_PROGRESS,
            _ => 0,
        }
    }

    /// Whether the media can be read, and written.
    pub(super) fn allows_io(&self, writes: bool) -> bool {
        self.state == IDLE || (self.state == MEDIA_VERIFICATION && !writes)
    }

    pub(super) fn written(&mut self) {
        self.global_data_erased = false;
    }

    fn begin(&mut self, setup: &Setup, [command, pattern]: [u32; 2], now: Instant) {
        if setup.lie == Some(Lie::IgnoresCommand) {
            return;
        }
        let unrestricted = command & 1 << 3 != 0;
        (self.command, self.pattern, self.begun) = (command, pattern, now);
        (self.ends, self.failed_in) = (now + setup.sanitize_time, 0);
        self.state = if unrestricted { UNRESTRICTED_PROCESSING } else { RESTRICTED_PROCESSING };
        (self.result, self.global_data_erased) = (IN_PROGRESS, false);
        if setup.lie == Some(Lie::DoneAtOnce) {
            (self.state, self.result, self.global_data_erased, self.later) = (IDLE, COMPLETED, true, true);
        }
    }
}

impl Subsystem {
    /// The Sanitize command: its status.
    pub(super) fn start_sanitize(&mut self, nsid: u32, dwords: [u32; 2], now: Instant) -> u16 {
        const ACCESS_DENIED: u16 = 0x4286;
        const WRITE_PROTECTED: u16 = 0x4020;
        const PROHIBITED_BY_MEMORY_REGION: u16 = 0x4123;
        let (action, setup) = (dwords[0] & 7, &self.setup);
        let (unrestricted, keep_allocated) = (dwords[0] & 1 << 3 != 0, dwords[0] & 1 << 9 != 0);
        let supported = |bit: u32| setup.sanicap & 1 << bit != 0;
        let known = match action {
            1 => true,
            2 => supported(1),
            3 => supported(2),
            4 => supported(0),
            5 => supported(3),
            _ => false,
        };
        let starts = (2..=4).contains(&action);
        let refuses_kept = supported(29) && !setup.keep_allocated_ignored;
        if nsid != 0
            || !known
            || (!starts && (unrestricted || keep_allocated))
            || (keep_allocated && refuses_kept)
        {
            return INVALID_FIELD;
        }
        match (self.sanitize.state, action) {
            (RESTRICTED_FAILURE, 2..=4) if !unrestricted => {}
            (UNRESTRICTED_FAILURE, 1..=4) | (IDLE, 1..=4) | (MEDIA_VERIFICATION, 5) => {}
            (IDLE, _) => return COMMAND_SEQUENCE,
            _ => return self.sanitize.prohibits(),
        }
        match action {
            _ if setup.locked => return ACCESS_DENIED,
            _ if self.media.iter().any(|media| media.write_protected) => return WRITE_PROTECTED,
            _ if starts && setup.memory_region => return PROHIBITED_BY_MEMORY_REGION,
            1 => self.sanitize.state = IDLE,
            5 => {
                self.sanitize.state = POST_VERIFICATION_DEALLOCATION;
                (self.sanitize.begun, self.sanitize.ends) = (now, now + DEALLOCATION_TIME);
            }
            _ => self.sanitize.begin(&self.setup, dwords, now),
        }
        0
    }

    /// What the operation that runs has done by this time.
    pub(super) fn sanitize_until(&mut self, now: Instant) {
        let (machine, lie) = (&mut self.sanitize, self.setup.lie);
        let pending = machine.is_processing() || machine.later;
        if !pending || now < machine.ends || (lie == Some(Lie::Stuck) && !machine.later) {
            return;
        }
        if machine.state == POST_VERIFICATION_DEALLOCATION {
            machine.state = IDLE;
            return self.media.iter_mut().for_each(Media::unmap_all);
        }
        if self.setup.sanitize_fails {
            (machine.failed_in, machine.result) = (machine.state, FAILED);
            let restricted = machine.state == RESTRICTED_PROCESSING;
            machine.state = if restricted { RESTRICTED_FAILURE } else { UNRESTRICTED_FAILURE };
            return;
        }
        let verify = machine.command & 1 << 10 != 0;
        let keep_allocated = machine.command & 1 << 9 != 0;
        let deallocates = !keep_allocated || self.setup.sanicap & 1 << 29 != 0;
        let unexpected = keep_allocated && deallocates;
        if machine.later {
            machine.later = false;
        } else {
            machine.result = if unexpected { COMPLETED_DEALLOCATED } else { COMPLETED };
            machine.state = if verify { MEDIA_VERIFICATION } else { IDLE };
            machine.global_data_erased = true;
        }
        let (command, pattern, ended) = (machine.command, machine.pattern, machine.ends);
        for media in &mut self.media {
            sanitize(media, lie, [command, pattern], deallocates && !verify, ended);
        }
    }

    /// Log page 81h.
    pub(super) fn sanitize_log(&self, now: Instant) -> Vec<u8> {
        const NONE: u16 = 0xffff;
        let (machine, lie) = (&self.sanitize, self.setup.lie);
        let (passed, whole) =
            (now - machine.begun, (machine.ends - machine.begun).max(Duration::from_nanos(1)));
        let done = |passed: Duration| (passed.as_nanos() * 0x1_0000 / whole.as_nanos()).min(0xfffe) as u16;
        let progress = match lie {
            _ if !machine.is_processing() => NONE,
            Some(Lie::NoProgress) => NONE,
            Some(Lie::Stuck) => done(passed).min(655),
            Some(Lie::FallsBack) => done(passed.checked_sub(whole / 2).unwrap_or(passed)),
            _ => done(passed),
        };
        let finished = self.finished_passes(done(passed));
        let erased = machine.global_data_erased || lie == Some(Lie::IgnoresCommand);
        let command = machine.command ^ if lie == Some(Lie::WrongCommand) { 0b110 } else { 0 };
        let seconds = self.setup.sanitize_time.as_secs() as u32;
        let mut page = Vec::with_capacity(512);
        page.extend(progress.to_le_bytes());
        page.extend([machine.result | finished << 3, u8::from(erased)]);
        page.extend(command.to_le_bytes());
        page.extend([seconds; 6].map(u32::to_le_bytes).as_flattened());
        page.extend((DEALLOCATION_TIME.as_secs() as u32).to_le_bytes());
        page.extend([machine.state | machine.failed_in << 4]);
        page.resize(512, 0);
        page
    }

    /// Of an overwrite, when so much is done.
    fn finished_passes(&self, done: u16) -> u8 {
        let machine = &self.sanitize;
        let passes = match machine.command >> 4 & 0xf {
            _ if machine.command & 7 != 3 => 0,
            0 => 16,
            passes => passes,
        };
        match machine.result {
            COMPLETED | COMPLETED_DEALLOCATED => passes as u8,
            _ => (u32::from(done) * passes / 0x1_0000) as u8,
        }
    }
}

/// What an operation leaves on the media.
fn sanitize(
    media: &mut Media,
    lie: Option<Lie>,
    [command, pattern]: [u32; 2],
    deallocates: bool,
    now: Instant,
) {
    let keep: Option<Extent> = match lie {
        Some(Lie::DoesNothing) => return,
        Some(Lie::DeallocatesOnly) => return media.unmap_all(),
        Some(Lie::StaleReads(time)) => {
            media.remember(now, now + time);
            None
        }
        Some(Lie::KeepsRegion(region)) => Some(region),
        _ => None,
    };
    match command & 7 {
        2 => media.fill(keep, |bytes| bytes.fill(0)),
        3 => {
            let passes = if command >> 4 & 0xf == 0 { 16 } else { command >> 4 & 0xf };
            let inverts = command & 1 << 8 != 0 && passes.is_multiple_of(2);
            let pattern = if inverts { !pattern } else { pattern }.to_le_bytes();
            media.fill(keep, |bytes| {
                bytes.chunks_mut(4).for_each(|word| word.copy_from_slice(&pattern[..word.len()]));
            });
        }
        // What was encrypted with the old keys stays mapped, and reads as random bytes.
        _ => return media.scramble(keep),
    }
    if deallocates {
        media.unmap_all();
        if let Some(region) = keep {
            media.map(region.intersect(Extent::new(0, media.size())), true);
        }
    }
}
