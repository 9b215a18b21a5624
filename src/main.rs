use std::process::ExitCode;

use efface::cli::{Cli, signals};
use efface::report::StderrLog;
use efface::verdict::Verdict;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::said();
    let level = match cli.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(StderrLog).init();

    let verdict = cli.run();
    if matches!(verdict, Verdict::Interrupted | Verdict::Terminated) {
        signals::raise_again();
    }
    ExitCode::from(verdict.exit_code())
}
