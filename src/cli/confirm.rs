//! Interactive confirmation: the device is shown, and its name has to be typed.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::Instant;

use crate::device::Tree;
use crate::error::{Error, Result};
use crate::progress::output::{self, READER_MAX};
use crate::session::Question;

/// An error unless the device's name was typed on a terminal.
pub fn confirm(tree: &Tree, &Question { identity, findings, plan }: &Question) -> Result<()> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Error::refused("the wipe of this device was not confirmed")
            .with_remedy("run it on a terminal, or add --yes"));
    }
    // Earlier messages are printed before the question.
    output::stderr().wait_drained(Instant::now() + READER_MAX);
    let name = identity.name();
    eprintln!("{}", identity.describe());
    for line in identity.contents(tree, &findings.signatures) {
        eprintln!("  {line}");
    }
    for forced in &findings.forced {
        eprintln!("  forced: {}", forced.what);
    }
    if plan.keys.is_some() {
        eprintln!(
            "  its keys will be destroyed: bytes {}; its data cannot be decrypted after that",
            plan.area
        );
    } else {
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        eprintln!("  will be wiped: bytes {}, {}", plan.area, steps.join(", "));
    }
    eprint!("Type {name} to destroy its data: ");
    stderr().flush().ok();
    let mut answer = String::new();
    stdin()
        .read_line(&mut answer)
        .map_err(|error| Error::failed("no answer could be read").because(error))?;
    if answer.trim() == name {
        return Ok(());
    }
    Err(Error::refused(format!("'{}' was typed, not '{name}'", answer.trim()))
        .with_remedy("nothing was written"))
}
