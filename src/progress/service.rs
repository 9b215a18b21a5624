//! What systemd is told where it asks (sd_notify(3)): how far it is, and that it lives.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::output::{Output, Weight};
use crate::engine::status::State;

/// Well within any watchdog's time.
const NOW_AND_THEN: Duration = Duration::from_secs(1);

/// Does nothing where there is no NOTIFY_SOCKET.
pub struct Service {
    to: Option<Output>,
    told: Option<Instant>,
}

impl Service {
    pub fn new() -> Service {
        let asked = std::env::var_os("NOTIFY_SOCKET").is_some();
        Service { to: asked.then(|| Output::new(Socket { ready: false })), told: None }
    }

    pub fn now_and_then(&mut self, states: &[State]) {
        let Some(to) = &self.to else { return };
        if self.told.is_some_and(|told| told.elapsed() < NOW_AND_THEN) {
            return;
        }
        let status: Vec<String> = states.iter().map(State::describe).collect();
        to.send(status.join("; "), Weight::Progress);
        self.told = Some(Instant::now());
    }

    pub fn end(&self) {
        self.to.iter().for_each(|to| {
            to.settle(Instant::now() + NOW_AND_THEN);
        });
    }
}

/// Sends each status, and that it lives.
struct Socket {
    ready: bool,
}

impl Write for Socket {
    fn write(&mut self, status: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(status);
        let mut tell = vec![NotifyState::Status(&text), NotifyState::Watchdog];
        if !std::mem::replace(&mut self.ready, true) {
            tell.push(NotifyState::Ready);
        }
        if let Err(error) = sd_notify::notify(&tell) {
            tracing::debug!("systemd is not told: {error}");
        }
        Ok(status.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
