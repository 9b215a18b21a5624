//! `efface jobs`: which wipes run, which could go on, and which have ended.

use std::io;

use clap::Args;
use serde::Serialize;

use super::state::StateDir;
use crate::error::{Error, Result};
use crate::journal::{Folder, Job};
use crate::progress::print;
use crate::verdict::Verdict;
use crate::view::jobs_table;

#[derive(Args)]
pub struct Jobs {
    #[command(flatten)]
    state: StateDir,

    /// For programs: everything that is known of each
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    v: u32,
    jobs: Vec<Job>,
}

impl Jobs {
    pub fn run(self) -> Result<Verdict> {
        let path = self.state.path();
        let unreadable = |error| {
            Error::failed("the journals cannot be read")
                .because(error)
                .way_out("name the folder of the wipes: --state-dir")
                .on(&path)
        };
        // Where nothing was ever wiped there is no folder.
        let jobs = match Folder::at(&path).and_then(|folder| folder.jobs()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            jobs => jobs.map_err(unreadable)?,
        };
        let text = if self.json {
            let error = |error| Error::failed(format!("the jobs cannot be written as JSON: {error}"));
            serde_json::to_string_pretty(&Listed { v: 1, jobs }).map_err(error)? + "\n"
        } else {
            jobs_table(&jobs)
        };
        print(&text)?;
        Ok(Verdict::Shown)
    }
}
