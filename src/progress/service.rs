//! systemd notifications (sd_notify(3)): status line and watchdog.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::output::{Output, Priority};
use crate::engine::status::JobStatus;

/// Well within any watchdog's time.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// Does nothing without `NOTIFY_SOCKET`.
pub struct Service {
    to: Option<Output>,
    reported_at: Option<Instant>,
}

impl Service {
    pub fn new() -> Service {
        let asked = std::env::var_os("NOTIFY_SOCKET").is_some();
        Service { to: asked.then(|| Output::new(Socket { ready: false })), reported_at: None }
    }

    pub fn update_if_due(&mut self, states: &[JobStatus]) {
        let Some(to) = &self.to else { return };
        if self.reported_at.is_some_and(|reported_at| reported_at.elapsed() < UPDATE_INTERVAL) {
            return;
        }
        let status: Vec<String> = states.iter().map(JobStatus::describe).collect();
        to.send(status.join("; "), Priority::Progress);
        self.reported_at = Some(Instant::now());
    }

    pub fn end(&self) {
        self.to.iter().for_each(|to| {
            to.wait_drained(Instant::now() + UPDATE_INTERVAL);
        });
    }
}

/// Sends the status and a watchdog notification.
struct Socket {
    ready: bool,
}

impl Write for Socket {
    fn write(&mut self, status: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(status);
        let mut states = vec![NotifyState::Status(&text), NotifyState::Watchdog];
        if !std::mem::replace(&mut self.ready, true) {
            states.push(NotifyState::Ready);
        }
        if let Err(error) = sd_notify::notify(&states) {
            tracing::debug!("systemd cannot be notified: {error}");
        }
        Ok(status.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
