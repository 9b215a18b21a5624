//! Where journals lie, and whether an earlier wipe goes on.

use std::path::PathBuf;

use clap::Args;

use crate::journal::{JournalStore, warn_no_journal};
use crate::printable::printable_path;

#[derive(Args)]
pub struct StateDirArgs {
    /// The folder with the journals [default: /var/lib/efface/jobs, or the user's state folder]
    #[arg(long, value_name = "DIR", env = "EFFACE_STATE_DIR", hide_env = true)]
    state_dir: Option<PathBuf>,
}

impl StateDirArgs {
    pub fn path(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(usual)
    }

    /// None, said aloud, where no journal can be kept: that is no reason not to wipe.
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
