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
use shred::ShredArgs;

use crate::error::Result;
use crate::progress::stderr_line;
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
    Wipe(wipe::WipeArgs),
    /// Destroy the keys of a LUKS volume: its data is then beyond reading, in milliseconds
    DestroyKey(destroy_key::DestroyKeyArgs),
    /// Show the disks, what is on them, and which of them a wipe would take
    List(list::ListArgs),
    /// Show which wipes run, which could go on (--resume), and which have ended
    Jobs(jobs::JobsArgs),
    /// Show what a wipe would do, and what it could claim; writes nothing
    Plan(plan::PlanArgs),
    /// Read a device, and say whether it holds what is expected; writes nothing
    Verify(verify::VerifyArgs),
    /// Check and show the certificates that a wipe wrote
    Certificate(certificate::CertificateArgs),
    /// Make keys to sign certificates with
    Key(key::KeyArgs),
    /// Check a chain of records
    Ledger(ledger::LedgerArgs),
    /// Write the manual pages and shell completions, for packages
    #[command(hide = true)]
    Manual(manual::ManualArgs),
    /// Wipe a scratch device of its own, and show which lies of a disk the verification catches
    Selftest(selftest::SelftestArgs),
}

impl Cli {
    /// What the command line says: efface's own, or that of the tool whose name the program was given.
    pub fn from_args() -> Cli {
        if !shred::invoked_as_shred() {
            return Cli::parse();
        }
        let words = ShredArgs::parse().to_wipe_args().unwrap_or_else(|error| error.exit());
        Cli::parse_from(words)
    }

    pub fn run(self) -> Verdict {
        match self.command {
            Command::Wipe(wipe) => report_error(wipe.run()),
            Command::DestroyKey(destroy) => report_error(destroy.run()),
            Command::List(list) => report_error(list.run()),
            Command::Jobs(jobs) => report_error(jobs.run()),
            Command::Plan(plan) => report_error(plan.run()),
            Command::Verify(verify) => report_error(verify.run()),
            Command::Certificate(certificate) => report_error(certificate.run()),
            Command::Key(key) => report_error(key.run()),
            Command::Ledger(ledger) => report_error(ledger.run()),
            Command::Manual(manual) => report_error(manual.run()),
            Command::Selftest(selftest) => report_error(selftest.run()),
        }
    }
}

/// An error that is no single device's is told here; the devices' own stand in their records.
fn report_error(result: Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| {
        stderr_line(format_args!("efface: {error}"));
        error.kind.into()
    })
}
