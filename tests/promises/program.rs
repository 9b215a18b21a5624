//! The program under test.

use std::path::Path;
use std::process::Command;

pub fn efface() -> Command {
    Command::new(env!("CARGO_BIN_EXE_efface"))
}

/// Runs `efface wipe NODE --yes` with these options; gives the exit code, stdout and stderr.
pub fn wipe(node: &Path, options: &[&str]) -> (i32, String, String) {
    let output = efface().arg("wipe").arg(node).arg("--yes").args(options).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
