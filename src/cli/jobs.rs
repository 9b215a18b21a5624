//! `efface jobs`: running, waiting, queued, resumable and finished wipes.

use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::state::StateDirArgs;
use crate::device::Tree;
use crate::error::{Error, Result};
use crate::journal::{JournalStore, ListedJob};
use crate::progress::{Metrics, print};
use crate::verdict::Verdict;
use crate::view::jobs_table;

#[derive(Args)]
pub struct JobsArgs {
    #[command(flatten)]
    state: StateDirArgs,

    /// Print everything known about each job as JSON
    #[arg(long)]
    json: bool,

    /// Write the count and the bytes of each state to a textfile for node_exporter
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

#[derive(Serialize)]
struct JobsJson {
    v: u32,
    jobs: Vec<ListedJob>,
}

impl JobsArgs {
    pub fn run(self) -> Result<Verdict> {
        let metrics = self.metrics.as_deref().map(Metrics::open).transpose()?;
        let tree = Tree::real();
        let path = self.state.path();
        let unreadable = |error| {
            Error::failed("the journals cannot be read")
                .because(error)
                .with_remedy("name the folder of the wipes: --state-dir")
                .on(&path)
        };
        // Where nothing was ever wiped there is no folder.
        let mut jobs = match JournalStore::at(&path).and_then(|folder| folder.jobs()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            jobs => jobs.map_err(unreadable)?,
        };
        ListedJob::add_queued(&mut jobs, &tree)
            .map_err(|error| Error::failed("what waits to be wiped cannot be read").because(error))?;
        if let Some(metrics) = metrics {
            metrics.write_jobs(&jobs, &tree)?;
        }
        let text = if self.json {
            let error = |error| Error::failed(format!("the jobs cannot be written as JSON: {error}"));
            serde_json::to_string_pretty(&JobsJson { v: 1, jobs }).map_err(error)? + "\n"
        } else {
            jobs_table(&jobs)
        };
        print(&text)?;
        Ok(Verdict::Shown)
    }
}
