//! Command-line parsing and dispatch.

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
mod output;
mod plan;
mod purge;
mod selftest;
mod shred;
pub mod signals;
mod state;
mod verify;
mod wipe;

use clap::{Parser, Subcommand};
use shred::ShredArgs;

use crate::error::Result;
pub use crate::progress::{StderrLog, output::end as end_output, stderr_line};
use crate::verdict::{EXIT_CODES, Verdict};

/// Wipe block devices at full device speed, and prove what was done
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print more on stderr (repeat for debug output)
    #[arg(short, long, global = true, display_order = 1000, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Overwrite devices and verify them by reading back
    Wipe(wipe::WipeArgs),
    /// Destroy the keys of a LUKS volume, so that its data cannot be decrypted
    DestroyKey(destroy_key::DestroyKeyArgs),
    /// Let NVMe drives erase themselves, spare blocks too, and check what they say of it
    Purge(purge::PurgeArgs),
    /// List the disks, their contents, and which of them a wipe would accept
    List(list::ListArgs),
    /// List running, waiting, queued, resumable and finished wipes
    Jobs(jobs::JobsArgs),
    /// Show what a wipe would do and could claim, without writing
    Plan(plan::PlanArgs),
    /// Read a device and check that it holds the expected data, without writing
    Verify(verify::VerifyArgs),
    /// Verify and render certificates
    Certificate(certificate::CertificateArgs),
    /// Create keys for signing certificates
    Key(key::KeyArgs),
    /// Verify a ledger of records
    Ledger(ledger::LedgerArgs),
    /// Write manual pages and shell completions, for packages
    #[command(hide = true)]
    Manual(manual::ManualArgs),
    /// Wipe a scratch device, and show which disk faults the verification detects
    Selftest(selftest::SelftestArgs),
}

impl Cli {
    /// Parses the command line, as efface's own or, when invoked as `shred`, as GNU shred's.
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
            Command::Purge(purge) => report_error(purge.run()),
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

/// Prints an error that concerns no single device; errors of devices are in their records.
fn report_error(result: Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| {
        stderr_line(format_args!("efface: {error}"));
        error.kind.into()
    })
}
