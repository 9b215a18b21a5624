//! `efface manual DIR`: manual pages and shell completions for packages, generated from the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Cli;
use crate::error::{Error, Result};
use crate::verdict::Verdict;

#[derive(Args)]
pub struct ManualArgs {
    /// Directory to write to
    folder: PathBuf,
}

impl ManualArgs {
    pub fn run(self) -> Result<Verdict> {
        let failed = |error| Error::failed("the manual cannot be written").because(error).on(&self.folder);
        write(&self.folder).map_err(failed)?;
        Ok(Verdict::Shown)
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Cli::command(), "efface", folder)?;
    }
    Ok(())
}
