//! SIGINT and SIGTERM: the first asks the jobs to end well, the second ends the process at once.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::engine::Stop;

/// The signal that came, 0 while none did.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From here on a signal asks for a stop. Before, it ends a process that has written nothing.
pub fn listen() -> Stop {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, the second one finds it set.
        flag::register_conditional_default(signal, asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .and_then(|_| flag::register_usize(signal, SIGNAL.clone(), signal as usize))
            .expect("SIGINT and SIGTERM can be handled");
    }
    Stop::new(SIGNAL.clone())
}

/// Ends the process by the signal that interrupted it, so that its parent sees that.
pub fn raise_again() {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal != 0 {
        low_level::emulate_default_handler(signal as i32).ok();
    }
}
