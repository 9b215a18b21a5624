//! A textfile for node_exporter's collector, written whole each time.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::destination::write_whole;
use super::state::State;
use super::{Record, tell};
use crate::printable::printable_path;

/// Prometheus asks every 15 seconds, usually.
const NOW_AND_THEN: Duration = Duration::from_secs(5);

pub struct Metrics {
    path: PathBuf,
    written: Option<Instant>,
    broken: bool,
}

/// What is told of a job that runs: a number by device.
type Gauge = (&'static str, &'static str, fn(&State) -> f64);

const GAUGES: [Gauge; 6] = [
    ("efface_step", "The step that runs, from 1; 0 before the first.", |state| state.step as f64),
    ("efface_steps", "The steps of the plan.", |state| state.steps as f64),
    ("efface_step_bytes", "The bytes of the step that runs.", |state| state.bytes as f64),
    ("efface_step_done_bytes", "What is done of them.", |state| state.done as f64),
    ("efface_unusable_bytes", "Blocks that could not be written or read.", |state| state.unusable as f64),
    ("efface_rate_bytes_per_second", "Bytes written and read a second, from the start on.", |state| {
        let done = (state.done_before + state.done) as f64;
        done / state.started.elapsed().as_secs_f64().max(1e-3)
    }),
];

impl Metrics {
    pub fn new(path: PathBuf) -> Metrics {
        Metrics { path, written: None, broken: false }
    }

    pub fn now_and_then(&mut self, states: &[State]) {
        if self.written.is_none_or(|written| written.elapsed() >= NOW_AND_THEN) {
            self.written = Some(Instant::now());
            self.write(&running(states));
        }
    }

    /// The last word: how each job ended.
    pub fn end(&mut self, states: &[State], records: &[Record]) {
        let mut text = running(states);
        let rows = |get: fn(&Record) -> f64| {
            records.iter().map(move |record| (record.device.clone(), get(record))).collect()
        };
        gauge(
            &mut text,
            "efface_exit_code",
            "How it ended, as the exit code.",
            rows(|record| record.exit_code.into()),
        );
        gauge(
            &mut text,
            "efface_duration_seconds",
            "From start to end.",
            rows(|record| record.ended.duration_since(record.started).as_secs_f64()),
        );
        gauge(
            &mut text,
            "efface_residue_bytes",
            "What no pass could write.",
            rows(|record| record.job.as_ref().map_or(0.0, |job| job.residue.bytes() as f64)),
        );
        self.write(&text);
    }

    /// A file that cannot be written is said once, and is no reason to stop.
    fn write(&mut self, text: &str) {
        if let Err(error) = write_whole(&self.path, text.as_bytes())
            && !std::mem::replace(&mut self.broken, true)
        {
            tell(format_args!(
                "efface: no metrics: {}: {error}; the work goes on",
                printable_path(&self.path)
            ));
        }
    }
}

fn running(states: &[State]) -> String {
    let mut text = String::new();
    for (name, help, get) in GAUGES {
        let rows = states.iter().map(|state| (state.device.clone(), get(state))).collect();
        gauge(&mut text, name, help, rows);
    }
    text
}

fn gauge(text: &mut String, name: &str, help: &str, rows: Vec<(String, f64)>) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
    for (device, value) in rows {
        let device = device.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        writeln!(text, "{name}{{device=\"{device}\"}} {value}").ok();
    }
}
