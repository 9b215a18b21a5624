//! What systemd is told where it asks (sd_notify(3)): how far it is, and that it lives.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::state::State;

/// Well within any watchdog's time.
const NOW_AND_THEN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Service {
    told: Option<Instant>,
}

impl Service {
    /// Does nothing where there is no NOTIFY_SOCKET.
    pub fn now_and_then(&mut self, states: &[State]) {
        if self.told.is_some_and(|told| told.elapsed() < NOW_AND_THEN) {
            return;
        }
        let status: Vec<String> = states.iter().map(State::describe).collect();
        let status = status.join("; ");
        let mut tell = vec![NotifyState::Status(&status), NotifyState::Watchdog];
        if self.told.is_none() {
            tell.push(NotifyState::Ready);
        }
        if let Err(error) = sd_notify::notify(&tell) {
            tracing::debug!("systemd is not told: {error}");
        }
        self.told = Some(Instant::now());
    }
}
