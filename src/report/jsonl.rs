//! Events and the result as JSON, one object a line. `v` is the version of the form: a field that
//! changes its meaning raises it, a new field does not.

use std::io::Write;

use serde::Serialize;

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
    to: Option<Box<dyn Write>>,
    name: &'static str,
    devices: Vec<String>,
}

impl Lines {
    pub fn new(to: Box<dyn Write>, name: &'static str, devices: &[String]) -> Lines {
        Lines { to: Some(to), name, devices: devices.to_vec() }
    }

    pub fn event(&mut self, job: usize, event: &Event) {
        let device = self.devices[job].clone();
        self.write(&Line { v: VERSION, device: &device, event });
    }

    pub fn result(&mut self, verdict: Verdict, devices: &[Record]) {
        let exit_code = verdict.exit_code();
        self.write(&Result { v: VERSION, event: "result", verdict, exit_code, devices });
    }

    /// Whoever read may have gone: said once, and no reason to stop a wipe.
    fn write(&mut self, line: &impl Serialize) {
        let Some(to) = &mut self.to else { return };
        let mut text = serde_json::to_string(line).expect("events have only string keys");
        text.push('\n');
        if let Err(error) = to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
            tell(format_args!(
                "efface: no more JSON lines: {} cannot be written: {error}; the work goes on",
                self.name
            ));
            self.to = None;
        }
    }
}
