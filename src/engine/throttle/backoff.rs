//! Back-off of `--yield` while others use the disk.
//!
//! The kernel counts the I/O of all users of a disk, and our own appears below it in other shapes and
//! later. So contention is sampled while our queue is drained: what moves then is foreign. (PSI does not
//! help: it covers the whole machine, and counts tasks that wait for our own I/O.)
//!
//! On an otherwise idle disk a sample of one millisecond is taken ten times per second. Beside a neighbour
//! (any other user of the disk), our I/Os are sent one at a time, each followed by a pause of two hundred
//! times its duration: one in two hundred of the neighbour's I/Os waits for one of ours, which its 99th
//! percentile does not show. Only if a small I/O of ours takes less than half the time of the neighbour's
//! undisturbed I/Os, the pause shrinks step by step until it is as long as our I/Os: the neighbour's I/Os
//! are then delayed by a quarter at most, on average. If even a small I/O takes longer, large ones are used.

use std::time::{Duration, Instant};

use super::Admission;
use crate::io::IoStats;

/// The interval between samples on an otherwise idle disk.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// The duration of such a sample.
const SAMPLE_TIME: Duration = Duration::from_millis(1);
/// A sample that ends this late is ignored: a flush or the scheduler delayed it.
const SAMPLE_LATE: Duration = Duration::from_millis(20);
/// Beside a neighbour: the shortest pause, the longest (for very slow I/Os of ours), and the sample interval
/// within a long one.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_secs(3);
const PAUSE_SAMPLE: Duration = Duration::from_millis(50);
/// How long a neighbour must be idle to count as gone: longer if it returned soon before.
const REST_MIN: Duration = Duration::from_millis(300);
const REST_MAX: Duration = Duration::from_millis(700);
const RETURN_SOON: Duration = Duration::from_secs(2);
/// One I/O beside a neighbour, and where small ones are not cheap.
const SMALL_BYTES: u64 = 64 << 10;
const LARGE_BYTES: u64 = 1 << 20;
/// How often small I/Os are tried again.
const RETRY: Duration = Duration::from_secs(30);
/// The number of I/Os after which a service time is known.
const SAMPLE: f64 = 2.0;
/// Our share of the time beside a neighbour.
const SHARE_MIN: f64 = 1.0 / 200.0;
const SHARE_MAX: f64 = 1.0 / 2.0;
const SHARE_GROWTH: f64 = 1.5;
/// The service time of our I/O, relative to the neighbour's, below which the share grows.
const COST_MAX: f64 = 0.5;
/// How long I/Os are sent between two pauses, if more than one may be.
const TIME_SLICE: Duration = Duration::from_millis(5);
/// What an old measurement weighs, beside a new one.
const DECAY: f64 = 0.8;

enum Phase {
    /// I/O may start, until it is time to look again.
    Busy { since: Option<Instant>, ios: u32 },
    /// None of ours is in flight until `until`; the loads are those at `from`.
    Quiet { until: Instant, from: Instant, stats: Vec<IoStats> },
}

/// The I/O counters while none of our I/Os was in flight, and our total bytes until then.
#[derive(Clone)]
struct StatsSample {
    stats: Vec<IoStats>,
    own_bytes: u64,
}

struct Neighbour {
    seen: Instant,
    /// Our part of the time, and the bytes of one of our I/Os.
    share: f64,
    bytes: u64,
    tried: Instant,
    /// The service times of the neighbour's undisturbed I/Os, and of ours.
    theirs: ServiceTime,
    ours: ServiceTime,
}

/// A number of I/Os and their total time, both decaying.
#[derive(Default)]
struct ServiceTime {
    seconds: f64,
    ios: f64,
}

impl ServiceTime {
    fn add(&mut self, seconds: f64, ios: f64) {
        self.seconds = self.seconds * DECAY + seconds;
        self.ios = self.ios * DECAY + ios;
    }

    fn each(&self) -> Option<f64> {
        (self.ios >= SAMPLE).then(|| self.seconds / self.ios)
    }
}

/// The control loop: a pure function of the samples and times that it is given.
pub struct Backoff {
    writes: bool,
    phase: Phase,
    own_bytes: u64,
    first: Option<StatsSample>,
    last: Option<StatsSample>,
    neighbour: Option<Neighbour>,
    /// How long the neighbour must be idle, and when the last one counted as gone.
    rest: Duration,
    gone: Option<Instant>,
}

impl Backoff {
    pub fn new(writes: bool) -> Backoff {
        Backoff {
            writes,
            phase: Phase::Busy { since: None, ios: 0 },
            own_bytes: 0,
            first: None,
            last: None,
            neighbour: None,
            rest: REST_MIN,
            gone: None,
        }
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.own_bytes += bytes;
        if let Phase::Busy { since, ios } = &mut self.phase {
            since.get_or_insert(now);
            *ios += 1;
        }
    }

    pub fn admit(
        &mut self,
        now: Instant,
        in_flight: usize,
        mut stats: impl FnMut() -> Vec<IoStats>,
    ) -> Admission {
        match &self.phase {
            Phase::Busy { since, ios } => {
                let spent = since.map(|since| now.saturating_duration_since(since));
                if self.first.is_some() && !self.slice_is_over(spent) {
                    return self.start(in_flight);
                }
                if in_flight > 0 {
                    return Admission::Wait(None);
                }
                self.begin_observation(now, spent.unwrap_or_default(), *ios, stats());
            }
            Phase::Quiet { until, from, .. } => {
                let next = (*until).min(*from + PAUSE_SAMPLE);
                if now < next {
                    return Admission::Wait(Some(next));
                }
                self.observe(now, next, stats());
            }
        }
        match &self.phase {
            Phase::Busy { .. } => self.start(in_flight),
            Phase::Quiet { until, from, .. } => Admission::Wait(Some((*until).min(*from + PAUSE_SAMPLE))),
        }
    }

    fn start(&self, in_flight: usize) -> Admission {
        match &self.neighbour {
            None => Admission::Start { bytes_max: u64::MAX },
            Some(_) if in_flight > 0 => Admission::Wait(None),
            Some(neighbour) => Admission::Start { bytes_max: neighbour.bytes },
        }
    }

    fn slice_is_over(&self, spent: Option<Duration>) -> bool {
        spent.is_some_and(|spent| match &self.neighbour {
            None => spent >= SAMPLE_INTERVAL,
            Some(neighbour) => neighbour.share <= SHARE_MIN || spent >= TIME_SLICE,
        })
    }

    /// Our last I/O has completed: begins a sample.
    fn begin_observation(&mut self, now: Instant, spent: Duration, ios: u32, stats: Vec<IoStats>) {
        let sample = StatsSample { stats: stats.clone(), own_bytes: self.own_bytes };
        self.first.get_or_insert_with(|| sample.clone());
        self.last.get_or_insert(sample);
        let pause = match &mut self.neighbour {
            None => SAMPLE_TIME,
            Some(neighbour) => neighbour.pause(now, spent, ios),
        };
        self.phase = Phase::Quiet { until: now + pause, from: now, stats };
    }

    /// Evaluates what moved while none of our I/Os was in flight.
    fn observe(&mut self, now: Instant, due: Instant, stats: Vec<IoStats>) {
        let Phase::Quiet { until, stats: before, .. } =
            std::mem::replace(&mut self.phase, Phase::Busy { since: None, ios: 0 })
        else {
            unreachable!("a sample ends only after it began")
        };
        if now <= due + SAMPLE_LATE {
            self.detect_contention(now, &before, &stats);
        }
        if now < until && self.neighbour.is_some() {
            self.phase = Phase::Quiet { until, from: now, stats };
        }
    }

    fn detect_contention(&mut self, now: Instant, before: &[IoStats], after: &[IoStats]) {
        let others: Vec<usize> = (0..after.len())
            .filter(|&device| self.is_foreign(device, &before[device], &after[device]))
            .collect();
        if !others.is_empty() {
            let times =
                others.iter().map(|&device| after[device].ended_in.saturating_sub(before[device].ended_in));
            let ios = others.iter().map(|&device| after[device].ended.saturating_sub(before[device].ended));
            self.note_contention(now, times.sum(), ios.sum());
        } else if self.neighbour.as_ref().is_some_and(|neighbour| now - neighbour.seen >= self.rest) {
            (self.neighbour, self.gone) = (None, Some(now));
        }
        self.last = Some(StatsSample { stats: after.to_vec(), own_bytes: self.own_bytes });
    }

    /// Whether others are at this device.
    ///
    /// On the disk itself bytes add up: what moved since the last look beyond what we sent is another's.
    /// Below it only what moves or waits in a quiet moment counts. And even that can be ours, as a page
    /// cache or a write-back cache writes it later: so what goes our way counts there only where more
    /// bytes of it have gone than we ever sent.
    fn is_foreign(&self, device: usize, before: &IoStats, after: &IoStats) -> bool {
        let Some((first, last)) = self.first.as_ref().zip(self.last.as_ref()) else { return false };
        let since = if after.below { first } else { last };
        let surplus = self.moved(&since.stats[device], after).0 > self.own_bytes - since.own_bytes;
        let (our_way, other_way) = self.moved(if after.below { before } else { &last.stats[device] }, after);
        let (reads, writes) = (after.reads_in_flight, after.writes_in_flight);
        let (ours_wait, others_wait) = if self.writes { (writes, reads) } else { (reads, writes) };
        let ours_moves =
            if after.below { surplus && our_way + ours_wait > 0 } else { surplus || ours_wait > 0 };
        ours_moves || other_way + others_wait > 0
    }

    /// Bytes that moved the way ours go, and the other way.
    fn moved(&self, before: &IoStats, after: &IoStats) -> (u64, u64) {
        let read = after.read_bytes.saturating_sub(before.read_bytes);
        let written = after.write_bytes.saturating_sub(before.write_bytes);
        if self.writes { (written, read) } else { (read, written) }
    }

    fn note_contention(&mut self, now: Instant, times: Duration, ios: u64) {
        if self.neighbour.is_none() {
            let soon = self.gone.is_some_and(|gone| now - gone < RETURN_SOON);
            self.rest = if soon { (self.rest * 2).min(REST_MAX) } else { REST_MIN };
        }
        let neighbour = self.neighbour.get_or_insert(Neighbour {
            seen: now,
            share: SHARE_MIN,
            bytes: SMALL_BYTES,
            tried: now,
            theirs: ServiceTime::default(),
            ours: ServiceTime::default(),
        });
        neighbour.seen = now;
        neighbour.theirs.add(times.as_secs_f64(), ios as f64);
    }
}

impl Neighbour {
    /// The pause after `ios` I/Os, one at a time, that took `spent`.
    fn pause(&mut self, now: Instant, spent: Duration, ios: u32) -> Duration {
        self.ours.add(spent.as_secs_f64(), ios.into());
        let cheap = self.ours.each().zip(self.theirs.each()).map(|(ours, theirs)| ours <= theirs * COST_MAX);
        match cheap {
            Some(true) => self.share = (self.share * SHARE_GROWTH).min(SHARE_MAX),
            Some(false) => {
                self.share = SHARE_MIN;
                self.resize(LARGE_BYTES);
            }
            None => self.share = SHARE_MIN,
        }
        if self.share == SHARE_MIN && now - self.tried >= RETRY {
            self.tried = now;
            self.resize(SMALL_BYTES);
        }
        spent.mul_f64(1.0 / self.share - 1.0).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    fn resize(&mut self, bytes: u64) {
        if bytes != self.bytes {
            (self.bytes, self.ours) = (bytes, ServiceTime::default());
        }
    }
}
