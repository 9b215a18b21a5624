//! The `--state-dir` argument: the directory of the journals.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::journal::{JournalStore, warn_no_journal};
use crate::printable::printable_path;

#[derive(Args)]
pub struct StateDirArgs {
    /// Set the directory of the journals [default: /var/lib/efface/jobs, or the user's state directory]
    #[arg(long, help_heading = "Resume", value_name = "DIR", env = "EFFACE_STATE_DIR", hide_env = true)]
    state_dir: Option<PathBuf>,
}

impl StateDirArgs {
    pub fn path(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(usual)
    }

    /// For what cannot do without a journal.
    pub fn required(&self) -> Result<JournalStore> {
        let path = self.path();
        JournalStore::open(&path).map_err(|error| {
            Error::failed("no journal can be kept")
                .because(error)
                .with_remedy("name a folder that can be written: --state-dir")
                .on(&path)
        })
    }

    /// `None`, with a warning, if no journal can be kept: a wipe does not need one.
    pub fn open(&self) -> Option<JournalStore> {
        let path = self.path();
        JournalStore::open(&path).map_err(|error| warn_no_journal(&printable_path(&path), &error)).ok()
    }
}

fn usual() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/efface/jobs".into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/state");
    std::env::var_os("XDG_STATE_HOME").map_or_else(home, PathBuf::from).join("efface")
}
