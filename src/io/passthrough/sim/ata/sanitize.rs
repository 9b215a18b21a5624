//! The sanitize state machine of a simulated drive (ACS, states SD0 to SD4).

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Drive;
use super::commands::{Ended, Taskfile};

const STATUS: u16 = 0x0000;
const CRYPTO_SCRAMBLE: u16 = 0x0011;
const BLOCK_ERASE: u16 = 0x0012;
const OVERWRITE: u16 = 0x0014;
const FREEZE_LOCK: u16 = 0x0020;
const ANTIFREEZE_LOCK: u16 = 0x0040;

/// Why a command was aborted.
const NOT_REPORTED: u64 = 0;
const LAST_FAILED: u64 = 1;
const UNSUPPORTED: u64 = 2;
const FROZEN: u64 = 3;
const ANTIFREEZE: u64 = 4;

#[derive(Default)]
pub(super) struct Machine {
    state: State,
    /// The last operation succeeded (SD4), which is kept over power cycles.
    completed: bool,
    antifreeze: bool,
    /// How often there were new keys.
    keys: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// SD0, and SD4 with `completed`.
    #[default]
    Idle,
    /// SD1.
    Frozen,
    /// SD2.
    Running(Operation),
    /// SD3.
    Failed { unrestricted: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Operation {
    feature: u16,
    count: u16,
    pattern: u32,
    begun: Instant,
    ends: Instant,
}

impl Operation {
    /// FAILURE MODE.
    fn is_unrestricted(&self) -> bool {
        self.count & 1 << 4 != 0
    }
}

impl Machine {
    pub(super) fn powered_on(&mut self, frozen: bool) {
        self.antifreeze = false;
        if let State::Idle | State::Frozen = self.state {
            self.state = if frozen { State::Frozen } else { State::Idle };
        }
    }

    pub(super) fn is_processing(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    fn status(&self, now: Instant) -> Ended {
        let bit = |bit: u16, is: bool| u16::from(is) << bit;
        let count = bit(15, self.completed)
            | bit(14, self.is_processing())
            | bit(13, self.state == State::Frozen)
            | bit(12, self.antifreeze);
        let progress = match &self.state {
            State::Running(run) => {
                let whole = (run.ends - run.begun).max(Duration::from_nanos(1));
                ((now - run.begun).as_nanos() * 0x1_0000 / whole.as_nanos()).min(0xfffe) as u64
            }
            _ => 0xffff,
        };
        Ended { count, lba: progress, ..Ended::done() }
    }
}

fn aborted(reason: u64) -> Ended {
    Ended { lba: reason, ..Ended::aborted() }
}

impl Drive {
    /// SANITIZE DEVICE.
    pub(super) fn sanitize_device(&mut self, taskfile: &Taskfile, now: Instant) -> Ended {
        let machine = &mut self.sanitize;
        let supported = |bit: u16| self.setup.sanitize & 1 << 12 != 0 && self.setup.sanitize & 1 << bit != 0;
        let clears = taskfile.count & 1 != 0;
        let named = match taskfile.feature {
            STATUS => return self.sanitize_status(clears, now),
            CRYPTO_SCRAMBLE => supported(13) && taskfile.lba == 0x4372_7970,
            BLOCK_ERASE => supported(15) && taskfile.lba == 0x426b_4572,
            OVERWRITE => supported(14) && taskfile.lba >> 32 == 0x4f57,
            FREEZE_LOCK => taskfile.lba == 0x4672_4c6b,
            ANTIFREEZE_LOCK => supported(10) && taskfile.lba == 0x416e_7469,
            _ => false,
        };
        let starts = [CRYPTO_SCRAMBLE, BLOCK_ERASE, OVERWRITE].contains(&taskfile.feature);
        let run = Operation {
            feature: taskfile.feature,
            count: taskfile.count,
            pattern: taskfile.lba as u32,
            begun: now,
            ends: now + self.setup.erase_time,
        };
        let overrides = self.setup.sanitizes_locked && !run.is_unrestricted();
        match machine.state {
            _ if !named => return aborted(UNSUPPORTED),
            State::Frozen => return aborted(FROZEN),
            State::Running(_) => return aborted(NOT_REPORTED),
            State::Failed { .. } if !starts => return aborted(LAST_FAILED),
            _ if starts && self.security.is_locked() && !overrides => return aborted(NOT_REPORTED),
            _ if starts => (machine.state, machine.completed) = (State::Running(run), false),
            _ if taskfile.feature == ANTIFREEZE_LOCK => machine.antifreeze = true,
            _ if machine.antifreeze => return aborted(ANTIFREEZE),
            _ => machine.state = State::Frozen,
        }
        machine.status(now)
    }

    fn sanitize_status(&mut self, clears: bool, now: Instant) -> Ended {
        let machine = &mut self.sanitize;
        match machine.state {
            _ if self.setup.sanitize & 1 << 12 == 0 => return Ended::aborted(),
            State::Failed { unrestricted: true } if clears => machine.state = State::Idle,
            State::Failed { .. } => return aborted(LAST_FAILED),
            _ => {}
        }
        machine.status(now)
    }

    /// What the operation that runs has done by this time.
    pub(super) fn sanitize_until(&mut self, now: Instant) {
        let State::Running(run) = self.sanitize.state else { return };
        if now < run.ends {
            return;
        }
        if self.setup.sanitize_fails {
            self.sanitize.state = State::Failed { unrestricted: run.is_unrestricted() };
            return;
        }
        (self.sanitize.state, self.sanitize.completed) = (State::Idle, true);
        match run.feature {
            BLOCK_ERASE => self.media.fill(0),
            OVERWRITE => {
                let passes = if run.count & 0xf == 0 { 16 } else { run.count & 0xf };
                // INVERT, and not DEFINITIVE ENDING PATTERN.
                let inverts = run.count & 0xc0 == 0x80 && passes % 2 == 0;
                let pattern = if inverts { !run.pattern } else { run.pattern }.to_le_bytes();
                self.media.chunks_mut(4).for_each(|word| word.copy_from_slice(&pattern));
            }
            _ => {
                self.sanitize.keys += 1;
                ChaCha8Rng::seed_from_u64(self.sanitize.keys).fill_bytes(&mut self.media);
            }
        }
    }
}
