//! `efface ledger`: verification of a chain of records.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::printable::printable_path;
use crate::progress::{print, stderr_line};
use crate::record::ledger::{Review, review};
use crate::record::sign::PublicKeys;
use crate::verdict::{EXIT_CODES, Verdict};

#[derive(Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Detect missing, changed or reordered records
    #[command(after_help = EXIT_CODES)]
    Verify(LedgerVerifyArgs),
}

#[derive(Args)]
struct LedgerVerifyArgs {
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Require every record to be signed by this public key, or by one of this directory (*.pub)
    #[arg(long, value_name = "PATH")]
    public_key: Vec<PathBuf>,

    /// Require this hash of an earlier last record to be in the chain
    #[arg(long, value_name = "SHA256")]
    noted: Option<String>,
}

impl LedgerArgs {
    pub fn run(self) -> Result<Verdict> {
        let LedgerCommand::Verify(LedgerVerifyArgs { folder, public_key, noted }) = self.command;
        let keys = PublicKeys::read(&public_key)?;
        let Review { records, signed, head, problems } = review(&folder, &keys, noted.as_deref())?;
        let head = head.map_or("none".into(), |head| format!("{} {}", head.sequence, head.sha256));
        print(&format!(
            "{}: {records} records, {signed} of them signed\nlast {head}\n",
            printable_path(&folder)
        ))?;
        if keys.is_empty() && problems.is_empty() {
            print(
                "the chain is whole; who wrote it is not checked without --public-key, and that its end was not \
                   cut off shows --noted with the last hash that you wrote down elsewhere\n",
            )?;
        }
        for problem in &problems {
            stderr_line(format_args!("efface: {}: {problem}", printable_path(&folder)));
        }
        if problems.is_empty() {
            return Ok(Verdict::Shown);
        }
        Err(Error::failed(format!("the ledger is not whole: {} problems", problems.len()))
            .with_remedy("do not rely on it; compare it with a copy")
            .on(&folder))
    }
}
