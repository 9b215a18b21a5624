//! Interactive confirmation: the device is shown, and its name has to be typed.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::Instant;

use crate::device::{Findings, Tree};
use crate::error::{Error, Result};
use crate::progress::output::{self, READER_MAX};
use crate::session::{PurgeQuestion, Question};
use crate::view::purge;

/// An error unless the device's name was typed on a terminal.
pub fn confirm(tree: &Tree, &Question { identity, findings, plan }: &Question) -> Result<()> {
    require_terminal("the wipe of this device was not confirmed")?;
    eprintln!("{}", identity.describe());
    show_findings(identity.contents(tree, &findings.signatures), findings);
    if plan.keys.is_some() {
        eprintln!(
            "  its keys will be destroyed: bytes {}; its data cannot be decrypted after that",
            plan.area
        );
    } else {
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        eprintln!("  will be wiped: bytes {}, {}", plan.area, steps.join(", "));
    }
    require_name(&identity.name())
}

/// The same, for a drive with all that its commands reach.
pub fn confirm_purge(tree: &Tree, question: &PurgeQuestion) -> Result<()> {
    require_terminal("the purge of this drive was not confirmed")?;
    for (identity, findings) in &question.claimed {
        eprintln!("{}", identity.describe());
        show_findings(identity.contents(tree, &findings.signatures), findings);
    }
    for (label, line) in purge::outline_rows(question.outline) {
        eprintln!("  {label}: {line}");
    }
    require_name(&question.outline.identity.name())
}

fn require_terminal(otherwise: &str) -> Result<()> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Error::refused(otherwise).with_remedy("run it on a terminal, or add --yes"));
    }
    // Earlier messages are printed before the question.
    output::stderr().wait_drained(Instant::now() + READER_MAX);
    Ok(())
}

fn show_findings(contents: Vec<String>, findings: &Findings) {
    for line in contents {
        eprintln!("  {line}");
    }
    for forced in &findings.forced {
        eprintln!("  forced: {}", forced.what);
    }
}

fn require_name(name: &str) -> Result<()> {
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
