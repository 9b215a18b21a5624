//! Progress bars on the terminal.

use std::io;
use std::sync::OnceLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::text::late;
use crate::engine::event::Event;

const BAR: &str = "{prefix:>9.bold} {msg:30} {wide_bar:.cyan/dim} {percent:>3} % \
                   {binary_total_bytes:>10} {decimal_bytes_per_sec:>11} {eta:>4}";

/// One for the process: log lines go above the bars that it draws.
fn all() -> &'static MultiProgress {
    static ALL: OnceLock<MultiProgress> = OnceLock::new();
    ALL.get_or_init(MultiProgress::new)
}

pub struct Bars {
    bars: Vec<ProgressBar>,
}

impl Bars {
    pub fn new(devices: &[String]) -> Bars {
        let style = ProgressStyle::with_template(BAR).expect("a valid template").progress_chars("━╸─");
        let bar = |device: &String| {
            let bar = all().add(ProgressBar::no_length().with_style(style.clone()));
            bar.set_prefix(device.rsplit('/').next().unwrap_or(device).to_string());
            bar
        };
        Bars { bars: devices.iter().map(bar).collect() }
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        let bar = &self.bars[job];
        match event {
            Event::StepStarted { step, steps, act, bytes } => {
                bar.reset();
                bar.set_length(*bytes);
                bar.set_message(format!("{}/{steps} {act}", step + 1));
            }
            Event::Progress { bytes, .. } => bar.set_position(*bytes),
            Event::Unusable { at, operation, error, .. } => {
                all().println(format!("{}: bytes {at}: {operation}: {error}", bar.prefix())).ok();
            }
            Event::Late { at, operation, seconds } => {
                all().println(format!("{}: {}", bar.prefix(), late(*at, operation, *seconds))).ok();
            }
            Event::Started { .. } | Event::Checkpoint { .. } | Event::StepEnded { .. } => {}
        }
    }

    /// Lines that stay, above the bars.
    pub fn above(&self, lines: &[String]) {
        all().suspend(|| lines.iter().for_each(super::tell));
    }

    pub fn end(&self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Where log lines go: stderr, above the bars.
pub struct StderrLog;

impl io::Write for StderrLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        all().suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for StderrLog {
    type Writer = StderrLog;

    fn make_writer(&self) -> StderrLog {
        StderrLog
    }
}
