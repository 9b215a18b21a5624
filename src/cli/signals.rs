//! SIGINT and SIGTERM: the first asks the jobs to end well, the second ends the process at once. A
//! terminal that hangs up is a SIGTERM, but not under nohup or systemd. SIGUSR1 asks for the state.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use crate::engine::Stop;

/// The signal that came, 0 while none did.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

static STATE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on a signal asks for a stop. Before, it ends a process that has written nothing.
pub fn listen() -> Stop {
    let asked = Arc::new(AtomicBool::new(false));
    let hangs_up = if may_hang_up() { Some((SIGHUP, SIGTERM)) } else { None };
    let ends = [(SIGINT, SIGINT), (SIGTERM, SIGTERM)].into_iter().chain(hangs_up);
    for (signal, taken_for) in ends {
        // In this order: the first signal finds the flag unset, the second one finds it set.
        flag::register_conditional_default(signal, asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .and_then(|_| flag::register_usize(signal, SIGNAL.clone(), taken_for as usize))
            .expect("these signals can be handled");
    }
    if hangs_up.is_none() {
        flag::register(SIGHUP, Arc::default()).expect("SIGHUP can be handled");
    }
    flag::register(SIGUSR1, STATE.clone()).expect("SIGUSR1 can be handled");
    Stop::new(SIGNAL.clone())
}

/// Whether somebody asked for the state since the last time.
pub fn state_asked() -> bool {
    STATE.swap(false, Ordering::Relaxed)
}

/// nohup has SIGHUP ignored; systemd names each run of a service.
fn may_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (SIGHUP - 1)) == 0 && std::env::var_os("INVOCATION_ID").is_none()
}

/// Ends the process by the signal that interrupted it, so that its parent sees that.
pub fn raise_again() {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal != 0 {
        low_level::emulate_default_handler(signal as i32).ok();
    }
}
