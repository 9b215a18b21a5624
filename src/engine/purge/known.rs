//! Known blocks: what a namespace holds before a purge, and what became of it.
//!
//! A survey keeps a keyed hash of drawn blocks; canaries are written at drawn places and read back. A block of
//! one byte over and over is not known: what it reads as afterwards proves nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conclusion::Canaries;
use crate::engine::cover::{Halt, StepContext, cover};
use crate::engine::event::{Emitter, Event};
use crate::engine::fingerprints::FingerprintSet;
use crate::engine::sampling::draw;
use crate::engine::step::StepReport;
use crate::engine::throttle::Throttle;
use crate::engine::{Settings, Stop};
use crate::error::Result;
use crate::io::Disk;
use crate::luks::data::{BlockClass, is_uniform};
use crate::pattern::{Pattern, Seed};
use crate::plan::{Policy, Sample, Step};
use crate::range::{Extent, ExtentSet, align_down};

/// The canaries of each namespace.
const CANARIES: u64 = 64;
const CANARY_BYTES: u64 = 4096;
/// Failed I/Os after which what is not needed for a claim is given up: each can take a drive's full error
/// recovery time, and a drive whose sanitize failed refuses all of them.
const ERRORS_MAX: u64 = 16;

/// What blocks read as after a purge, in logical blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct BlockClasses {
    /// All bytes 00.
    pub zeroes: u64,
    /// All bytes FF.
    pub ones: u64,
    /// Another byte over and over.
    pub uniform: u64,
    /// As random bytes can be: what a changed key leaves.
    pub random: u64,
    /// What they held before.
    pub old: u64,
    /// Anything else.
    pub other: u64,
    /// They could not be read.
    pub unreadable: u64,
}

impl BlockClasses {
    fn count(&mut self, block: &[u8], old: bool) {
        *match block[0] {
            _ if old => &mut self.old,
            0x00 if is_uniform(block) => &mut self.zeroes,
            0xff if is_uniform(block) => &mut self.ones,
            _ if is_uniform(block) => &mut self.uniform,
            _ if BlockClass::of(block) == BlockClass::Random => &mut self.random,
            _ => &mut self.other,
        } += 1;
    }
}

/// What reads and writes need besides a disk.
pub struct IoContext<'a> {
    pub settings: &'a Settings,
    pub stop: &'a Stop,
    pub emitter: &'a Emitter,
}

impl IoContext<'_> {
    /// Runs one step over these places of a disk, as number `number` of a purge.
    fn cover(
        &self,
        disk: &mut dyn Disk,
        number: usize,
        (step, places): (&Step, &ExtentSet),
        on_read: &mut dyn FnMut(Extent, &[u8]),
    ) -> (StepReport, Option<Halt>) {
        let &IoContext { settings, stop, emitter } = self;
        let impatient = Settings { errors_max: ERRORS_MAX, ..*settings };
        let settings = if number < ERASE { &impatient } else { settings };
        let (step_name, bytes) = (step.to_string(), places.bytes());
        emitter.emit(Event::StepStarted { step: number, steps: STEPS, step_name, bytes });
        let throttle = &mut Throttle::new(settings, disk.clock().now());
        let checkpoint = &mut |_: &StepReport, _| {};
        let context = StepContext { disk, settings, throttle, stop, emitter, number, on_read, checkpoint };
        let (report, halt) = cover(context, step, places);
        emitter.emit(Event::StepEnded { step: number, report: report.clone() });
        (report, halt)
    }
}

// The numbers of the steps of a purge.
const SURVEY: usize = 0;
const CANARY_WRITE: usize = 1;
const CANARY_READ: usize = 2;
/// What the drive does.
pub const ERASE: usize = 3;
const READ_BACK: usize = 4;
const TIDY: usize = 5;
/// How many there are.
pub const STEPS: usize = 6;

/// The canaries of one namespace: all that another process needs to know them again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CanarySet {
    /// From 1.
    pub nsid: u32,
    /// Of the random pattern that they hold.
    pub seed: Seed,
    /// Where they were read back as they were written.
    pub places: ExtentSet,
}

/// Blocks of one namespace whose content is known.
pub struct KnownBlocks {
    area: Extent,
    block: u64,
    sample: Option<Sample>,
    fingerprints: FingerprintSet,
    /// Of the pattern that the canaries hold.
    seed: Seed,
    /// Drawn blocks that were read and are not of one byte.
    surveyed: ExtentSet,
    /// Canaries that were read back as they were written.
    written: ExtentSet,
    /// All drawn places: they are read again.
    drawn: ExtentSet,
}

impl KnownBlocks {
    /// Surveys a namespace, then writes canaries and reads them back. What cannot be read or written is not
    /// known.
    ///
    /// # Errors
    /// A signal asked for an end, or the disk does not answer.
    pub fn prepare(
        disk: &mut dyn Disk,
        io: &IoContext,
        draw_seed: &mut dyn FnMut() -> Result<Seed>,
    ) -> std::result::Result<KnownBlocks, Halt> {
        let geometry = disk.geometry();
        let block = geometry.logical_block;
        let area = Extent::new(0, align_down(geometry.size, block));
        let sample = Policy::Standard.sample(area, geometry.physical_block);
        let mut seed = || draw_seed().map_err(Halt::Failed);
        let drawn = draw(sample.as_ref(), area, &seed()?);
        let canary_seed = seed()?;
        let canary_places = draw(canary_sample(area, geometry.physical_block).as_ref(), area, &seed()?);
        let mut known = KnownBlocks {
            area,
            block,
            sample,
            fingerprints: FingerprintSet::new(block).map_err(Halt::Failed)?,
            seed: canary_seed,
            surveyed: ExtentSet::new(),
            written: ExtentSet::new(),
            drawn,
        };
        known.survey(disk, io)?;
        known.surveyed = std::mem::take(&mut known.surveyed).without(&canary_places);
        known.write_canaries(disk, io, &canary_places)?;
        Ok(known)
    }

    fn survey(&mut self, disk: &mut dyn Disk, io: &IoContext) -> std::result::Result<(), Halt> {
        let KnownBlocks { fingerprints, surveyed, block, .. } = self;
        let on_read = &mut |extent: Extent, bytes: &[u8]| {
            fingerprints.keep(extent.start, bytes);
            for (at, bytes) in extent.chunks(*block).zip(bytes.chunks(*block as usize)) {
                if !is_uniform(bytes) {
                    surveyed.insert(at);
                }
            }
        };
        let step = Step::fingerprint(self.sample);
        going_on(io.cover(disk, SURVEY, (&step, &self.drawn), on_read).1)
    }

    fn write_canaries(
        &mut self,
        disk: &mut dyn Disk,
        io: &IoContext,
        places: &ExtentSet,
    ) -> std::result::Result<(), Halt> {
        let canary = self.canary();
        let write = Step::write_ranges(canary.clone(), places.clone());
        going_on(io.cover(disk, CANARY_WRITE, (&write, places), &mut |_, _| {}).1)?;
        if disk.drop_caches().is_err() {
            // What would be read may come from a cache of the host.
            return Ok(());
        }
        let mut written = ExtentSet::new();
        let on_read = &mut |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(self.block).zip(bytes.chunks(self.block as usize)) {
                if holds(&canary, at, bytes) {
                    written.insert(at);
                }
            }
        };
        let halt = io.cover(disk, CANARY_READ, (&Step::fingerprint(None), places), on_read).1;
        self.written = written;
        going_on(halt)
    }

    /// Those of an earlier process: its canaries alone, since the key of a survey's hashes dies with its process.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn of_earlier(disk: &dyn Disk, canaries: &CanarySet) -> Result<KnownBlocks> {
        let geometry = disk.geometry();
        let (block, seed) = (geometry.logical_block, canaries.seed);
        Ok(KnownBlocks {
            area: Extent::new(0, align_down(geometry.size, block)),
            block,
            sample: None,
            fingerprints: FingerprintSet::new(block)?,
            seed,
            surveyed: ExtentSet::new(),
            written: canaries.places.clone(),
            drawn: ExtentSet::new(),
        })
    }

    fn canary(&self) -> Pattern {
        Pattern::Random { seed: self.seed }
    }

    /// What another process needs to know the canaries again.
    pub fn canaries(&self, nsid: u32) -> CanarySet {
        CanarySet { nsid, seed: self.seed, places: self.written.clone() }
    }

    /// How many blocks are known: of the survey, and canaries.
    pub fn blocks(&self) -> (u64, u64) {
        (self.surveyed.bytes() / self.block, self.written.bytes() / self.block)
    }

    /// What became of them, and what all drawn places read as. Of a drive that `failed` not every block is tried.
    ///
    /// # Errors
    /// A signal asked for an end, or the disk does not answer.
    pub fn read_back(
        &self,
        disk: &mut dyn Disk,
        io: &IoContext,
        failed: bool,
    ) -> std::result::Result<(Canaries, BlockClasses), Halt> {
        let impatient = Settings { errors_max: ERRORS_MAX, ..*io.settings };
        let io = IoContext { settings: if failed { &impatient } else { io.settings }, ..*io };
        let places: ExtentSet = self.drawn.iter().chain(self.written.iter()).collect();
        let (mut canaries, mut classes) = (Canaries::default(), BlockClasses::default());
        let (surveyed, written) = self.blocks();
        if disk.drop_caches().is_err() {
            canaries.unread = surveyed + written;
            classes.unreadable = places.bytes() / self.block;
            return Ok((canaries, classes));
        }
        let (canary, mut read) = (self.canary(), 0);
        let on_read = &mut |extent: Extent, bytes: &[u8]| {
            for (at, bytes) in extent.chunks(self.block).zip(bytes.chunks(self.block as usize)) {
                let surveyed = self.surveyed.contains(at.start) && self.fingerprints.holds(at.start, bytes);
                let old = surveyed || (self.written.contains(at.start) && holds(&canary, at, bytes));
                let known = self.surveyed.contains(at.start) || self.written.contains(at.start);
                canaries.alive += u64::from(old);
                canaries.gone += u64::from(known && !old);
                classes.count(bytes, old);
                read += 1;
            }
        };
        let halt = io.cover(disk, READ_BACK, (&Step::fingerprint(self.sample), &places), on_read).1;
        going_on(halt)?;
        canaries.unread = surveyed + written - canaries.alive - canaries.gone;
        classes.unreadable = places.bytes() / self.block - read;
        Ok((canaries, classes))
    }

    /// Zeroes the first and the last MiB, where random bytes can look like a partition table; says whether all
    /// of it was written.
    ///
    /// # Errors
    /// A signal asked for an end, or the disk does not answer.
    pub fn tidy(&self, disk: &mut dyn Disk, io: &IoContext) -> std::result::Result<bool, Halt> {
        const ENDS_BYTES: u64 = 1 << 20;
        let (first, rest) = self.area.split(ENDS_BYTES.min(self.area.end));
        let last_start = align_down(self.area.end.saturating_sub(ENDS_BYTES), self.block);
        let last = Extent::new(last_start, self.area.end).intersect(rest);
        let ends: ExtentSet = [first, last].into_iter().filter(|extent| !extent.is_empty()).collect();
        let step = Step::write_ranges(Pattern::zero(), ends.clone());
        let (report, halt) = io.cover(disk, TIDY, (&step, &ends), &mut |_, _| {});
        going_on(halt)?;
        Ok(report.flushed && report.unusable.is_empty())
    }
}

/// An I/O error leaves blocks unknown, and is no reason to end.
fn going_on(halt: Option<Halt>) -> std::result::Result<(), Halt> {
    match halt {
        None | Some(Halt::Failed(_)) => Ok(()),
        Some(halt) => Err(halt),
    }
}

/// One place in each of 64 equal parts; `None` for all of a smaller area.
fn canary_sample(area: Extent, physical_block: u64) -> Option<Sample> {
    let block_bytes = physical_block.max(CANARY_BYTES);
    let sample = Sample { strata: CANARIES, per_stratum: 1, block_bytes, confidence_ppm: 0 };
    (area.len() >= sample.bytes()).then_some(sample)
}

fn holds(pattern: &Pattern, at: Extent, bytes: &[u8]) -> bool {
    let mut expected = vec![0; bytes.len()];
    pattern.fill(at.start, &mut expected);
    expected == bytes
}
