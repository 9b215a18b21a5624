//! The executable: starts signal handling and logging, runs the command line, and exits with the verdict's code.

use std::process::ExitCode;

use efface::Verdict;
use efface::cli::{Cli, StderrLog, end_output, signals, stderr_line};
use nix::sys::resource::{Resource, setrlimit};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    if let Err(error) = signals::start() {
        eprintln!("efface: signals cannot be received: {error}");
        return ExitCode::from(Verdict::Failed.exit_code());
    }
    no_core_dumps();
    let cli = Cli::from_args();
    let level = match cli.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(StderrLog)
        .init();

    let verdict = cli.run();
    end_output();
    if matches!(verdict, Verdict::Interrupted | Verdict::Terminated) {
        signals::raise_again();
    }
    ExitCode::from(verdict.exit_code())
}

/// What is read of a disk, and keys that sign, stay in this process. A limit of 1 byte is the one that
/// a program which collects dumps cannot override (core(5)). The process stays "dumpable": otherwise
/// another efface, without CAP_SYS_PTRACE, could not see which devices it has open.
fn no_core_dumps() {
    let none = |bytes| setrlimit(Resource::RLIMIT_CORE, bytes, bytes);
    if let Err(error) = none(1).or_else(|_| none(0)) {
        stderr_line(format_args!("efface: core dumps cannot be turned off: {error}"));
    }
}
