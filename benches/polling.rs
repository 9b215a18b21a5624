//! What it costs to wait for 64 drives that erase themselves, on a thread each: the share of one core, over
//! the seconds in which all of them are polled. At most 1 % is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use efface::internals::engine::event::{Emitter, Event};
use efface::internals::engine::purge::job::{OpenNamespace, PurgeContext, run};
use efface::internals::engine::purge::known::IoContext;
use efface::internals::engine::{Settings, Stop};
use efface::internals::io::Clock;
use efface::internals::io::passthrough::sim::nvme::{NvmeSim, Setup};
use efface::internals::pattern::Seed;
use efface::internals::plan::PurgePolicy;
use efface::{SimClock, Verdict};

const DRIVES: usize = 64;
/// So long that the intervals of the polls grow as those of a real drive.
const SANITIZE_TIME: Duration = Duration::from_secs(40);

/// The clock of the machine, which takes that of a simulated drive with it.
struct RealTime(Arc<SimClock>);

impl Clock for RealTime {
    fn now(&self) -> Instant {
        let now = Instant::now();
        self.0.sleep_until(now);
        now
    }

    fn sleep_until(&self, until: Instant) {
        thread::sleep(until.saturating_duration_since(Instant::now()));
        self.0.sleep_until(until);
    }
}

fn purge(erasing: &AtomicUsize) -> Verdict {
    let content = (0..1 << 20).map(|at| b"old data "[at % 9]).collect();
    let sim = NvmeSim::new(Setup { sanitize_time: SANITIZE_TIME, ..Setup::of(content) });
    let clock = RealTime(sim.clock().clone());
    let (to, events) = channel();
    let (emitter, stop, settings) = (Emitter::new(0, to), Stop::default(), Settings::default());
    let context = PurgeContext {
        io: IoContext { settings: &settings, stop: &stop, emitter: &emitter },
        clock: &clock,
        draw: &mut Seed::from_kernel,
        keep: &mut |_| {
            erasing.fetch_add(1, Ordering::Relaxed);
            Ok(())
        },
        give_up_after: None,
    };
    let mut namespace = [OpenNamespace { nsid: 1, disk: Box::new(sim.disk(1)) }];
    let report = run(&mut sim.path(0), &mut namespace, PurgePolicy::default(), context);
    assert!(events.try_iter().any(|(_, event)| matches!(event, Event::Progress { .. })));
    report.verdict
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it exists");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

fn main() {
    let erasing = AtomicUsize::new(0);
    thread::scope(|scope| {
        let drives: Vec<_> = (0..DRIVES).map(|_| scope.spawn(|| purge(&erasing))).collect();
        // A checkpoint before the command, and one with its answer.
        while erasing.load(Ordering::Relaxed) < 2 * DRIVES {
            thread::sleep(Duration::from_millis(10));
        }
        let (cpu, wall) = (cpu_time(), Instant::now());
        thread::sleep(SANITIZE_TIME / 2);
        let (cpu, wall) = (cpu_time() - cpu, wall.elapsed());
        let share = 100.0 * cpu.as_secs_f64() / wall.as_secs_f64();
        println!(
            "{DRIVES} drives, {:.0} s: {share:.2} % of a core (at most 1 % asked for)",
            wall.as_secs_f64()
        );
        for drive in drives {
            assert_eq!(drive.join().expect("no panic"), Verdict::Erased);
        }
    });
}
