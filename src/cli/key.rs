//! `efface key`: key pairs for signing.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::printable::printable_path;
use crate::progress::print;
use crate::record::sign::SecretKey;
use crate::verdict::Verdict;

#[derive(Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a key pair: FILE (private, mode 0600) and FILE.pub
    New {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl KeyArgs {
    pub fn run(self) -> Result<Verdict> {
        let KeyCommand::New { file } = self.command;
        let public = SecretKey::create(&file)?;
        print(&format!("{}\nkey {}\n", printable_path(&file), public.id()))?;
        Ok(Verdict::Shown)
    }
}
