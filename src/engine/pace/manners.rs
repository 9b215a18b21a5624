//! `--yield`: only what others leave of a disk.
//!
//! What the kernel counts for a disk is the sum of all its users, and what we sent shows below it in
//! another shape, or later. So others are told apart where there is nothing to tell apart: again and
//! again our I/O is drained, and for a moment nothing is sent. What moves then is not ours. (PSI would
//! not do: it is of the whole machine, and counts those who wait for our own I/O.)
//!
//! While nobody else is there, that costs a look of a millisecond ten times a second. When somebody
//! is, our I/Os go one at a time, with a pause behind each that is two hundred times as long as it
//! took: one in two hundred of the neighbour's I/Os then waits behind one of ours, which his 99th
//! percentile does not show. Only where a small I/O of ours takes less than half the time that his take
//! while we are quiet, the pause shrinks by and by until it is as long as the I/Os before it: then his
//! I/Os are delayed by a quarter at most, on average. Where even a small one takes longer, there is
//! nothing to be gained by small ones.

use std::time::{Duration, Instant};

use super::Leave;
use crate::io::Load;

/// From one look to the next while nobody else is there.
const ALONE: Duration = Duration::from_millis(100);
/// How long such a look takes.
const LOOK: Duration = Duration::from_millis(1);
/// A look that ends so much later than it should says nothing: there was a flush, or no processor.
const LATE: Duration = Duration::from_millis(20);
/// Beside a neighbour: the shortest pause, the longest (where our I/O itself takes for ever), and how
/// often it is looked for him in a long one.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_secs(3);
const PAUSE_LOOK: Duration = Duration::from_millis(50);
/// How long a neighbour must rest until he is taken for gone: longer, if he came back soon.
const REST_MIN: Duration = Duration::from_millis(300);
const REST_MAX: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(2);
/// One I/O beside a neighbour, and where small ones are not cheap.
const SMALL_BYTES: u64 = 64 << 10;
const LARGE_BYTES: u64 = 1 << 20;
/// How often it is tried anew whether small ones are.
const RETRY: Duration = Duration::from_secs(30);
/// After how many I/Os it is known what one takes.
const SAMPLE: f64 = 2.0;
/// Our share of the time beside a neighbour.
const SHARE_MIN: f64 = 1.0 / 200.0;
const SHARE_MAX: f64 = 1.0 / 2.0;
const SHARE_GROWTH: f64 = 1.5;
/// How much of the time that his I/O takes ours may take, for a share that grows.
const COST_MAX: f64 = 0.5;
/// How long I/Os follow one another before a pause, where more than one may.
const TURN: Duration = Duration::from_millis(5);
/// What an old measurement weighs, beside a new one.
const FADING: f64 = 0.8;

enum Phase {
    /// I/O may start, until it is time to look again.
    Busy { since: Option<Instant>, ios: u32 },
    /// None of ours is in flight until `until`; the loads are those at `from`.
    Quiet { until: Instant, from: Instant, loads: Vec<Load> },
}

/// The loads at a moment with nothing of ours in flight, and all bytes that were ours until then.
#[derive(Clone)]
struct Ledger {
    loads: Vec<Load>,
    own_bytes: u64,
}

struct Neighbour {
    seen: Instant,
    /// Our part of the time, and the bytes of one of our I/Os.
    share: f64,
    bytes: u64,
    tried: Instant,
    /// What his I/Os take while we are quiet, and what ours take.
    his: Took,
    ours: Took,
}

/// How many I/Os took how long: both fade.
#[derive(Default)]
struct Took {
    seconds: f64,
    ios: f64,
}

impl Took {
    fn add(&mut self, seconds: f64, ios: f64) {
        self.seconds = self.seconds * FADING + seconds;
        self.ios = self.ios * FADING + ios;
    }

    fn each(&self) -> Option<f64> {
        (self.ios >= SAMPLE).then(|| self.seconds / self.ios)
    }
}

/// The control loop: a pure function of the looks and the times that it is given.
pub struct Manners {
    writes: bool,
    phase: Phase,
    own_bytes: u64,
    first: Option<Ledger>,
    last: Option<Ledger>,
    neighbour: Option<Neighbour>,
    /// How long the neighbour must rest, and when the last one was taken for gone.
    rest: Duration,
    gone: Option<Instant>,
}

impl Manners {
    pub fn new(writes: bool) -> Manners {
        Manners {
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

    pub fn leave(&mut self, now: Instant, in_flight: usize, mut loads: impl FnMut() -> Vec<Load>) -> Leave {
        match &self.phase {
            Phase::Busy { since, ios } => {
                let spent = since.map(|since| now.saturating_duration_since(since));
                if self.first.is_some() && !self.turn_is_over(spent) {
                    return self.start(in_flight);
                }
                if in_flight > 0 {
                    return Leave::Wait(None);
                }
                self.fall_quiet(now, spent.unwrap_or_default(), *ios, loads());
            }
            Phase::Quiet { until, from, .. } => {
                let next = (*until).min(*from + PAUSE_LOOK);
                if now < next {
                    return Leave::Wait(Some(next));
                }
                self.look(now, next, loads());
            }
        }
        match &self.phase {
            Phase::Busy { .. } => self.start(in_flight),
            Phase::Quiet { until, from, .. } => Leave::Wait(Some((*until).min(*from + PAUSE_LOOK))),
        }
    }

    fn start(&self, in_flight: usize) -> Leave {
        match &self.neighbour {
            None => Leave::Start { bytes_max: u64::MAX },
            Some(_) if in_flight > 0 => Leave::Wait(None),
            Some(neighbour) => Leave::Start { bytes_max: neighbour.bytes },
        }
    }

    fn turn_is_over(&self, spent: Option<Duration>) -> bool {
        spent.is_some_and(|spent| match &self.neighbour {
            None => spent >= ALONE,
            Some(neighbour) => neighbour.share <= SHARE_MIN || spent >= TURN,
        })
    }

    /// Our last I/O has come home: begins to look.
    fn fall_quiet(&mut self, now: Instant, spent: Duration, ios: u32, loads: Vec<Load>) {
        let ledger = Ledger { loads: loads.clone(), own_bytes: self.own_bytes };
        self.first.get_or_insert_with(|| ledger.clone());
        self.last.get_or_insert(ledger);
        let pause = match &mut self.neighbour {
            None => LOOK,
            Some(neighbour) => neighbour.pause(now, spent, ios),
        };
        self.phase = Phase::Quiet { until: now + pause, from: now, loads };
    }

    /// Judges what moved while nothing of ours was under way.
    fn look(&mut self, now: Instant, due: Instant, loads: Vec<Load>) {
        let Phase::Quiet { until, loads: before, .. } =
            std::mem::replace(&mut self.phase, Phase::Busy { since: None, ios: 0 })
        else {
            unreachable!("looks end only where they began")
        };
        if now <= due + LATE {
            self.judge(now, &before, &loads);
        }
        if now < until && self.neighbour.is_some() {
            self.phase = Phase::Quiet { until, from: now, loads };
        }
    }

    fn judge(&mut self, now: Instant, before: &[Load], after: &[Load]) {
        let others: Vec<usize> = (0..after.len())
            .filter(|&device| self.is_anothers(device, &before[device], &after[device]))
            .collect();
        if !others.is_empty() {
            let times =
                others.iter().map(|&device| after[device].ended_in.saturating_sub(before[device].ended_in));
            let ios = others.iter().map(|&device| after[device].ended.saturating_sub(before[device].ended));
            self.welcome(now, times.sum(), ios.sum());
        } else if self.neighbour.as_ref().is_some_and(|neighbour| now - neighbour.seen >= self.rest) {
            (self.neighbour, self.gone) = (None, Some(now));
        }
        self.last = Some(Ledger { loads: after.to_vec(), own_bytes: self.own_bytes });
    }

    /// Whether others are at this device.
    ///
    /// On the disk itself bytes add up: what moved since the last look beyond what we sent is another's.
    /// Below it only what moves or waits in a quiet moment counts. And even that can be ours, as a page
    /// cache or a write-back cache writes it later: so what goes our way counts there only where more
    /// bytes of it have gone than we ever sent.
    fn is_anothers(&self, device: usize, before: &Load, after: &Load) -> bool {
        let Some((first, last)) = self.first.as_ref().zip(self.last.as_ref()) else { return false };
        let since = if after.below { first } else { last };
        let surplus = self.moved(&since.loads[device], after).0 > self.own_bytes - since.own_bytes;
        let (our_way, other_way) = self.moved(if after.below { before } else { &last.loads[device] }, after);
        let (reads, writes) = (after.reads_in_flight, after.writes_in_flight);
        let (ours_wait, others_wait) = if self.writes { (writes, reads) } else { (reads, writes) };
        let ours_moves =
            if after.below { surplus && our_way + ours_wait > 0 } else { surplus || ours_wait > 0 };
        ours_moves || other_way + others_wait > 0
    }

    /// Bytes that moved the way ours go, and the other way.
    fn moved(&self, before: &Load, after: &Load) -> (u64, u64) {
        let read = after.read_bytes.saturating_sub(before.read_bytes);
        let written = after.write_bytes.saturating_sub(before.write_bytes);
        if self.writes { (written, read) } else { (read, written) }
    }

    fn welcome(&mut self, now: Instant, times: Duration, ios: u64) {
        if self.neighbour.is_none() {
            let soon = self.gone.is_some_and(|gone| now - gone < SOON);
            self.rest = if soon { (self.rest * 2).min(REST_MAX) } else { REST_MIN };
        }
        let neighbour = self.neighbour.get_or_insert(Neighbour {
            seen: now,
            share: SHARE_MIN,
            bytes: SMALL_BYTES,
            tried: now,
            his: Took::default(),
            ours: Took::default(),
        });
        neighbour.seen = now;
        neighbour.his.add(times.as_secs_f64(), ios as f64);
    }
}

impl Neighbour {
    /// How long to be quiet after so many I/Os, one at a time, in this time.
    fn pause(&mut self, now: Instant, spent: Duration, ios: u32) -> Duration {
        self.ours.add(spent.as_secs_f64(), ios.into());
        let cheap = self.ours.each().zip(self.his.each()).map(|(ours, his)| ours <= his * COST_MAX);
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
            (self.bytes, self.ours) = (bytes, Took::default());
        }
    }
}
