//! `efface jobs`: running, waiting, resumable and finished wipes.

use std::io;

use clap::Args;
use serde::Serialize;

use super::state::StateDirArgs;
use crate::error::{Error, Result};
use crate::journal::{JournalStore, ListedJob};
use crate::progress::print;
use crate::verdict::Verdict;
use crate::view::jobs_table;

#[derive(Args)]
pub struct JobsArgs {
    #[command(flatten)]
    state: StateDirArgs,

    /// Print everything known about each job as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JobsJson {
    v: u32,
    jobs: Vec<ListedJob>,
}

impl JobsArgs {
    pub fn run(self) -> Result<Verdict> {
        let path = self.state.path();
        let unreadable = |error| {
            Error::failed("the journals cannot be read")
                .because(error)
                .with_remedy("name the folder of the wipes: --state-dir")
                .on(&path)
        };
        // Where nothing was ever wiped there is no folder.
        let jobs = match JournalStore::at(&path).and_then(|folder| folder.jobs()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            jobs => jobs.map_err(unreadable)?,
        };
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
