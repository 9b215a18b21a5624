//! What a session prints: on the terminal, or as JSON.

use std::path::{Path, PathBuf};

use clap::Args;

use super::confirm::{confirm, confirm_purge};
use super::signals;
use crate::device::Tree;
use crate::engine::Stop;
use crate::engine::event::Event;
use crate::error::{Error, Result};
use crate::printable::printable_path;
use crate::progress::{Metrics, OutputOptions, Report, stderr_line};
use crate::session::{Observer, Outcome, PurgeQuestion, Question};
use crate::verdict::Verdict;

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print events and the result as JSON lines on stdout
    #[arg(long)]
    json: bool,

    /// Write the JSON lines to this open file descriptor
    #[arg(long, value_name = "N")]
    progress_fd: Option<i32>,

    /// Maintain a metrics textfile for node_exporter
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

impl OutputArgs {
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn options(&self) -> Result<OutputOptions> {
        let progress = self.progress_fd.map(crate::io::inherited).transpose().map_err(|error| {
            Error::usage("--progress-fd: no such open descriptor")
                .because(error)
                .with_remedy("open it in the calling program, as in 3>progress.json")
        })?;
        let metrics = self.metrics.as_deref().map(Metrics::open).transpose()?;
        Ok(OutputOptions { json: self.json, progress, quiet: self.quiet, metrics })
    }
}

/// Reports a session on the terminal, or as JSON.
pub struct TerminalObserver {
    options: Option<OutputOptions>,
    report: Option<Report>,
    /// Nothing is asked.
    yes: bool,
}

impl TerminalObserver {
    pub fn new(options: OutputOptions, yes: bool) -> TerminalObserver {
        TerminalObserver { options: Some(options), report: None, yes }
    }

    /// The last word on the devices.
    pub fn end(self, outcome: &Outcome) -> Verdict {
        self.report.expect("it was started").end(outcome)
    }
}

impl Observer for TerminalObserver {
    fn confirm(&mut self, question: &Question) -> Result<()> {
        if self.yes { Ok(()) } else { confirm(&Tree::real(), question) }
    }

    fn confirm_purge(&mut self, question: &PurgeQuestion) -> Result<()> {
        if self.yes { Ok(()) } else { confirm_purge(&Tree::real(), question) }
    }

    fn awaits(&mut self, device: &Path) {
        stderr_line(format_args!(
            "efface: {}: waiting for another efface, which purges this drive",
            printable_path(device)
        ));
    }

    fn begin(&mut self) -> Stop {
        signals::listen()
    }

    fn queued(&mut self, before: usize, slots: u16) {
        stderr_line(format_args!(
            "efface: waiting: {before} processes are queued before this one, and {slots} may work at once"
        ));
    }

    fn started(&mut self, devices: &[String]) {
        self.report = Some(Report::new(self.options.take().expect("it is started once"), devices));
    }

    fn watch(&mut self, event: Option<(usize, &Event)>) {
        let report = self.report.as_mut().expect("it was started");
        if let Some((job, event)) = event {
            report.watch(job, event);
        }
        if signals::status_requested() {
            report.print_status();
        }
    }
}
