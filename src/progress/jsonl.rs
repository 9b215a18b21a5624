//! Events and the result as JSON Lines. `v` is the version of the form: a changed meaning raises it, a new
//! field does not.

use serde::Serialize;

use super::output::{Output, Priority};
use super::{Record, stderr_line};
use crate::engine::event::Event;
use crate::verdict::Verdict;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct EventLine<'a> {
    v: u32,
    device: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Serialize)]
struct ResultLine<'a> {
    v: u32,
    event: &'static str,
    verdict: Verdict,
    exit_code: u8,
    devices: &'a [Record],
}

pub struct Lines {
    to: Output,
    name: &'static str,
    devices: Vec<String>,
}

impl Lines {
    pub fn new(to: Output, name: &'static str, devices: &[String]) -> Lines {
        Lines { to, name, devices: devices.to_vec() }
    }

    pub fn event(&self, job: usize, event: &Event) {
        let priority =
            if matches!(event, Event::Progress { .. }) { Priority::Progress } else { Priority::Event };
        self.send(&EventLine { v: VERSION, device: &self.devices[job], event }, priority);
    }

    pub fn result(&self, verdict: Verdict, devices: &[Record]) {
        let exit_code = verdict.exit_code();
        self.send(&ResultLine { v: VERSION, event: "result", verdict, exit_code, devices }, Priority::Result);
    }

    /// Waits for the reader, but no longer than this.
    pub fn end(&self, until: std::time::Instant) {
        self.to.finish(until);
        self.report_lost();
    }

    fn send(&self, line: &impl Serialize, priority: Priority) {
        let text = serde_json::to_string(line).expect("events have only string keys");
        self.to.send(text + "\n", priority);
        self.report_lost();
    }

    /// A closed reader does not stop a wipe.
    fn report_lost(&self) {
        if let Some(error) = self.to.take_lost() {
            stderr_line(format_args!(
                "efface: no more JSON lines: {} cannot be written: {error}; this stops no work",
                self.name
            ));
        }
    }
}
