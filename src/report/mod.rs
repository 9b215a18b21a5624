//! What is told of the work: bars or plain lines while it runs, JSON for machines, a record at the end.

mod bars;
pub mod certificate;
pub mod claim;
pub mod destination;
pub mod details;
pub mod evidence;
pub mod html;
mod jobs;
mod jsonl;
pub mod ledger;
mod map;
mod metrics;
pub mod outline;
mod peers;
mod plain;
pub mod record;
mod service;
pub mod sign;
pub mod state;
mod table;
pub mod text;

use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use bars::StderrLog;
pub use jobs::jobs_table;
pub use record::Record;
pub use table::inventory_table;
pub use text::{bytes, rate};

use crate::engine::event::Event;
use crate::error::Error;
use crate::verdict::Verdict;
use bars::Bars;
use jsonl::Lines;
use metrics::Metrics;
use peers::Peers;
use plain::Plain;
use service::Service;
use state::State;

/// Writes to stdout; a reader that has gone away has seen enough.
pub fn print(text: &str) -> crate::error::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(crate::error::Error::failed("stdout takes no more").because(error))
        }
        _ => Ok(()),
    }
}

/// A line on stderr. A terminal that was closed is no reason to stop a wipe.
pub fn tell(line: impl std::fmt::Display) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// What the person asked to see.
#[derive(Default)]
pub struct Wanted {
    /// Events and result as JSON lines on stdout, instead of the text.
    pub json: bool,
    /// The same lines on this descriptor too.
    pub progress: Option<OwnedFd>,
    /// Nothing but errors.
    pub quiet: bool,
    /// A textfile for node_exporter.
    pub metrics: Option<PathBuf>,
}

/// How progress is shown to a person.
enum Show {
    Bars(Bars),
    Plain(Plain),
    Nothing,
}

/// Everything that watches the jobs.
pub struct Report {
    show: Show,
    lines: Vec<Lines>,
    text: bool,
    json: bool,
    states: Vec<State>,
    peers: Peers,
    metrics: Option<Metrics>,
    service: Service,
}

impl Report {
    /// `devices` are the names of the jobs, in order.
    pub fn new(wanted: Wanted, devices: &[String]) -> Report {
        let show = match wanted.quiet {
            true => Show::Nothing,
            false if std::io::stderr().is_terminal() => Show::Bars(Bars::new(devices)),
            false => Show::Plain(Plain::new(devices)),
        };
        let stdout = wanted.json.then(|| Lines::new(Box::new(std::io::stdout()), "stdout", devices));
        let descriptor = wanted.progress.map(|fd| {
            Lines::new(Box::new(std::fs::File::from(fd)), "the descriptor of --progress-fd", devices)
        });
        let text = !wanted.json && !wanted.quiet;
        Report {
            show,
            lines: stdout.into_iter().chain(descriptor).collect(),
            text,
            json: wanted.json,
            states: devices.iter().map(|device| State::new(device)).collect(),
            peers: Peers::new(devices.len()),
            metrics: wanted.metrics.map(Metrics::new),
            service: Service::default(),
        }
    }

    /// Where every job is, on stderr.
    pub fn tell_state(&self) {
        let lines: Vec<String> = self.states.iter().map(State::describe).collect();
        self.tell_lines(&lines);
    }

    fn tell_lines(&self, lines: &[String]) {
        match &self.show {
            Show::Bars(bars) => bars.above(lines),
            Show::Plain(_) | Show::Nothing => lines.iter().for_each(tell),
        }
    }

    pub fn states(&self) -> &[State] {
        &self.states
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        match &mut self.show {
            Show::Bars(bars) => bars.watch(job, event),
            Show::Plain(plain) => plain.watch(job, event),
            Show::Nothing => {}
        }
        self.lines.iter_mut().for_each(|lines| lines.event(job, event));
        self.states[job].watch(event);
        let slow = self.peers.now_and_then(&self.states);
        self.tell_lines(&slow);
        if let Some(metrics) = &mut self.metrics {
            metrics.now_and_then(&self.states);
        }
        self.service.now_and_then(&self.states);
    }

    /// The last word: what each device's job came to, and all of them together.
    /// `lost` is a record that could not be kept: then the command failed, whatever was wiped.
    pub fn end(mut self, records: &[Record], lost: Option<&Error>) -> Verdict {
        if let Show::Bars(bars) = &self.show {
            bars.end();
        }
        let verdicts = records.iter().map(|record| record.verdict);
        let verdict = Verdict::worst(verdicts.chain(lost.map(|_| Verdict::Failed)));
        self.lines.iter_mut().for_each(|lines| lines.result(verdict, records));
        if let Some(metrics) = &mut self.metrics {
            metrics.end(&self.states, records);
        }
        if self.text {
            let mut stdout = std::io::stdout().lock();
            for record in records {
                // A closed stdout changes nothing on the disk: the exit code still tells.
                writeln!(stdout, "{}", text::render(record)).ok();
            }
        }
        for record in records {
            match &record.error {
                Some(error) => tell(format_args!("efface: {error}")),
                None if self.text || self.json => {}
                None => {
                    text::shortfall(record).iter().for_each(|short| tell(format_args!("efface: {short}")))
                }
            }
        }
        if let Some(error) = lost {
            tell(format_args!("efface: {error}"));
        }
        verdict
    }
}
