//! Signal handling: the first SIGINT or SIGTERM stops the jobs gracefully, a later one ends the process at
//! once. SIGHUP counts as SIGTERM, except under nohup or systemd. SIGUSR1 prints the status.

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::{flag, low_level};

use crate::engine::Stop;
use crate::progress::stderr_line;

/// The signal received, 0 if none.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Whether the status was requested, and whether jobs are running that can report it.
static STATE: AtomicBool = AtomicBool::new(false);
static AT_WORK: AtomicBool = AtomicBool::new(false);

static HANDLE: OnceLock<Handle> = OnceLock::new();

/// A repeated signal within this time counts as one: timeout(1) sends it to the process and to its group,
/// and sudo passes on what the terminal has sent already.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

/// Called first in `main`, so that neither SIGUSR1 nor SIGXFSZ (a file size limit, then an error of the
/// write) ends the process.
pub fn start() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGUSR1])?;
    HANDLE.set(signals.handle()).expect("it is started once");
    thread::Builder::new().spawn(move || {
        let mut first = None;
        signals.forever().for_each(|signal| receive(signal, &mut first));
    })?;
    Ok(())
}

/// From here on a signal requests a stop. Before, it ends the process, which has written nothing.
pub fn listen() -> Stop {
    let handle = HANDLE.get().expect("started first");
    for signal in [SIGINT, SIGTERM] {
        handle.add_signal(signal).expect("these signals can be handled");
    }
    if hangup_ends_it() {
        handle.add_signal(SIGHUP).expect("SIGHUP can be handled");
    } else {
        flag::register(SIGHUP, Arc::default()).expect("SIGHUP can be handled");
    }
    Stop::new(SIGNAL.clone())
}

fn receive(signal: c_int, first: &mut Option<(c_int, Instant)>) {
    match (signal, *first) {
        (SIGUSR1, _) if AT_WORK.load(Ordering::Relaxed) => STATE.store(true, Ordering::Relaxed),
        (SIGUSR1, _) => stderr_line("efface: waiting: nothing has been written yet"),
        (_, None) => {
            *first = Some((signal, Instant::now()));
            let taken_for = if signal == SIGHUP { SIGTERM } else { signal };
            SIGNAL.store(taken_for as usize, Ordering::Relaxed);
        }
        (_, Some((same, at))) if same == signal && at.elapsed() < REPEAT_WINDOW => {}
        (_, Some(_)) => {
            low_level::emulate_default_handler(signal).ok();
        }
    }
}

/// Whether SIGUSR1 arrived since the last call.
pub fn status_requested() -> bool {
    AT_WORK.store(true, Ordering::Relaxed);
    STATE.swap(false, Ordering::Relaxed)
}

/// Whether SIGHUP ends a wipe: not where nohup ignores it, nor in a systemd service (`INVOCATION_ID`).
fn hangup_ends_it() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (SIGHUP - 1)) == 0 && std::env::var_os("INVOCATION_ID").is_none()
}

/// Ends the process by the signal that interrupted it, so that its parent sees that.
pub fn raise_again() {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal != 0 {
        low_level::emulate_default_handler(signal as c_int).ok();
    }
}
