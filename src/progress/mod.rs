//! Live output: bars or plain lines, JSON Lines, metrics, systemd notifications, and the final report.

mod bars;
mod jsonl;
mod metrics;
pub mod output;
mod peers;
mod plain;
mod service;

use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub use metrics::Metrics;

use crate::engine::event::Event;
use crate::engine::status::JobStatus;
use crate::printable::printable;
use crate::range::Extent;
use crate::record::Record;
use crate::session::Outcome;
use crate::verdict::Verdict;
use crate::view::text;
use bars::Bars;
use jsonl::Lines;
use output::{Output, Priority, READER_MAX};
use peers::Peers;
use plain::Plain;
use service::Service;
use tracing_subscriber::fmt::MakeWriter;

/// Writes to stdout; a closed reader is not an error.
pub fn print(text: &str) -> crate::error::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(crate::error::Error::failed("stdout takes no more").because(error))
        }
        _ => Ok(()),
    }
}

/// Prints a line on stderr. A closed or paused terminal does not stop a wipe.
pub fn stderr_line(line: impl std::fmt::Display) {
    bars::above(format!("{line}\n"));
}

/// Where log lines go: stderr, above the bars.
pub struct StderrLog;

impl Write for StderrLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bars::above(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for StderrLog {
    type Writer = StderrLog;

    fn make_writer(&self) -> StderrLog {
        StderrLog
    }
}

/// What the user asked to see.
#[derive(Default)]
pub struct OutputOptions {
    /// Events and result as JSON lines on stdout, instead of the text.
    pub json: bool,
    /// The same lines on this descriptor too.
    pub progress: Option<OwnedFd>,
    /// Nothing but errors.
    pub quiet: bool,
    /// A textfile for node_exporter.
    pub metrics: Option<Metrics>,
}

/// How progress is shown to a person.
enum LiveView {
    Bars(Bars),
    Plain(Plain),
    Nothing,
}

/// All live views of the jobs.
pub struct Report {
    show: LiveView,
    lines: Vec<Lines>,
    text: bool,
    json: bool,
    states: Vec<JobStatus>,
    peers: Peers,
    metrics: Option<Metrics>,
    service: Service,
}

impl Report {
    /// `devices` are the names of the jobs, in order.
    pub fn new(options: OutputOptions, devices: &[String]) -> Report {
        let show = match options.quiet {
            true => LiveView::Nothing,
            false if std::io::stderr().is_terminal() && !console::is_dumb() => {
                LiveView::Bars(Bars::new(devices))
            }
            false => LiveView::Plain(Plain::new(devices)),
        };
        let stdout = options.json.then(|| Lines::new(output::stdout().clone(), "stdout", devices));
        let descriptor = options.progress.map(|fd| {
            let to = Output::new(std::fs::File::from(fd));
            Lines::new(to, "the descriptor of --progress-fd", devices)
        });
        let text = !options.json && !options.quiet;
        Report {
            show,
            lines: stdout.into_iter().chain(descriptor).collect(),
            text,
            json: options.json,
            states: devices.iter().map(|device| JobStatus::new(device)).collect(),
            peers: Peers::new(devices.len()),
            metrics: options.metrics,
            service: Service::new(),
        }
    }

    /// Prints the status of every job on stderr.
    pub fn print_status(&self) {
        self.states.iter().map(JobStatus::describe).for_each(stderr_line);
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        match &mut self.show {
            LiveView::Bars(bars) => bars.watch(job, event),
            LiveView::Plain(plain) => plain.watch(job, event),
            LiveView::Nothing => {}
        }
        self.lines.iter().for_each(|lines| lines.event(job, event));
        self.states[job].watch(event);
        self.peers.update_if_due(&self.states).iter().for_each(stderr_line);
        if let Some(metrics) = &mut self.metrics {
            metrics.update_if_due(&self.states);
        }
        self.service.update_if_due(&self.states);
    }

    /// The final report: the result of each device, and of all. The records are already kept; only here the
    /// readers are waited for.
    pub fn end(mut self, outcome: &Outcome) -> Verdict {
        let until = Instant::now() + READER_MAX;
        let Outcome { records, lost, resumable } = outcome;
        let verdict = outcome.verdict();
        self.lines.iter().for_each(|lines| lines.result(verdict, records));
        if let Some(metrics) = &mut self.metrics {
            metrics.end(&self.states, records);
        }
        self.service.end();
        if let LiveView::Bars(bars) = &self.show {
            bars.end();
            // The bars are removed before the report is written to the same terminal.
            output::stderr().wait_drained(drain_deadline());
        }
        if self.text {
            for record in records {
                output::stdout().send(text::render(record) + "\n", Priority::Result);
            }
            output::stdout().finish(until);
        }
        for record in records {
            match &record.error {
                Some(error) => stderr_line(format_args!("efface: {error}")),
                None if self.text || self.json => {}
                None => text::shortfall(record)
                    .iter()
                    .for_each(|short| stderr_line(format_args!("efface: {short}"))),
            }
        }
        if let Some(error) = lost {
            stderr_line(format_args!("efface: {error}"));
        }
        if self.text && matches!(verdict, Verdict::Interrupted | Verdict::Terminated) {
            for device in resumable {
                let device = printable(&device.to_string_lossy());
                let purged = records.iter().any(|record| record.device == device && record.purge.is_some());
                let command = if purged {
                    format!(
                        "the drive goes on alone; see what came of it with: efface purge {device} --resume"
                    )
                } else {
                    format!("go on with: efface wipe {device} --resume, and the other options")
                };
                stderr_line(format_args!("efface: {command}"));
            }
        }
        self.lines.iter().for_each(|lines| lines.end(until));
        // It has only just been sent what the others came to.
        output::stderr().finish(until.max(drain_deadline()));
        verdict
    }
}

/// The message about a late I/O.
/// Of a step that has not the turn.
const WAITING: &str = "waits for another efface that backs off on the same disk";

fn late(at: Extent, operation: &str, seconds: u64) -> String {
    format!("bytes {at}: no answer to a {operation} for {seconds} s; waiting")
}

/// The deadline for draining output.
fn drain_deadline() -> Instant {
    Instant::now() + Duration::from_secs(1)
}
