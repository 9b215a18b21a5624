//! The command line: what was asked, handed to the rooms that do it.

mod arguments;
mod certificate;
mod confirm;
mod destroy_key;
mod evidence;
mod ionice;
mod jobs;
mod key;
mod ledger;
mod list;
mod manual;
mod order;
mod plan;
mod selftest;
mod shred;
pub mod signals;
mod state;
mod verify;
mod wipe;

use clap::{Parser, Subcommand};
use shred::Shred;

use crate::error::Result;
use crate::progress::tell;
use crate::verdict::{EXIT_CODES, Verdict};

/// Wipes block devices at their own speed, and proves what it did
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Tell more on stderr (twice: much more)
    #[arg(short, long, global = true, display_order = 1000, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Overwrite devices, and verify what reads back
    Wipe(wipe::Wipe),
    /// Destroy the keys of a LUKS volume: its data is then beyond reading, in milliseconds
    DestroyKey(destroy_key::DestroyKey),
    /// Show the disks, what is on them, and which of them a wipe would take
    List(list::List),
    /// Show which wipes run, which could go on (--resume), and which have ended
    Jobs(jobs::Jobs),
    /// Show what a wipe would do, and what it could claim; writes nothing
    Plan(plan::Plan),
    /// Read a device, and say whether it holds what is expected; writes nothing
    Verify(verify::Verify),
    /// Check and show the certificates that a wipe wrote
    Certificate(certificate::Certificate),
    /// Make keys to sign certificates with
    Key(key::Key),
    /// Check a chain of records
    Ledger(ledger::Ledger),
    /// Write the manual pages and shell completions, for packages
    #[command(hide = true)]
    Manual(manual::Manual),
    /// Wipe a scratch device of its own, and show which lies of a disk the verification catches
    Selftest(selftest::Selftest),
}

impl Cli {
    /// What the command line says: efface's own, or that of the tool whose name the program was given.
    pub fn said() -> Cli {
        if !shred::is_meant() {
            return Cli::parse();
        }
        let words = Shred::parse().words().unwrap_or_else(|error| error.exit());
        Cli::parse_from(words)
    }

    pub fn run(self) -> Verdict {
        match self.command {
            Command::Wipe(wipe) => told(wipe.run()),
            Command::DestroyKey(destroy) => told(destroy.run()),
            Command::List(list) => told(list.run()),
            Command::Jobs(jobs) => told(jobs.run()),
            Command::Plan(plan) => told(plan.run()),
            Command::Verify(verify) => told(verify.run()),
            Command::Certificate(certificate) => told(certificate.run()),
            Command::Key(key) => told(key.run()),
            Command::Ledger(ledger) => told(ledger.run()),
            Command::Manual(manual) => told(manual.run()),
            Command::Selftest(selftest) => told(selftest.run()),
        }
    }
}

/// An error that is no single device's is told here; the devices' own stand in their records.
fn told(result: Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| {
        tell(format_args!("efface: {error}"));
        error.kind.into()
    })
}
