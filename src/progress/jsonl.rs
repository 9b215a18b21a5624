//! Events and the result as JSON, one object a line. `v` is the version of the form: a field that
//! changes its meaning raises it, a new field does not.

use serde::Serialize;

use super::output::{Output, Weight};
use super::{Record, tell};
use crate::engine::event::Event;
use crate::verdict::Verdict;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    device: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Serialize)]
struct Result<'a> {
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
        let weight = if matches!(event, Event::Progress { .. }) { Weight::Progress } else { Weight::Event };
        self.send(&Line { v: VERSION, device: &self.devices[job], event }, weight);
    }

    pub fn result(&self, verdict: Verdict, devices: &[Record]) {
        let exit_code = verdict.exit_code();
        self.send(&Result { v: VERSION, event: "result", verdict, exit_code, devices }, Weight::Result);
    }

    /// Waits for the reader, but no longer than this.
    pub fn end(&self, until: std::time::Instant) {
        self.to.finish(until);
        self.tell_lost();
    }

    fn send(&self, line: &impl Serialize, weight: Weight) {
        let text = serde_json::to_string(line).expect("events have only string keys");
        self.to.send(text + "\n", weight);
        self.tell_lost();
    }

    /// A reader that has gone is no reason to stop a wipe.
    fn tell_lost(&self) {
        if let Some(error) = self.to.take_lost() {
            tell(format_args!(
                "efface: no more JSON lines: {} cannot be written: {error}; this stops no work",
                self.name
            ));
        }
    }
}
