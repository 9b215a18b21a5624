//! Purges as text: what would be done to a drive, and what was done.

use crate::device::purge_scope::{PurgeScope, Reach};
use crate::engine::purge::known::BlockClasses;
use crate::engine::purge::report::{NamespaceReport, RungReport};
use crate::plan::{Attempt, Rung};
use crate::record::purge::PurgeRecord;
use crate::session::purge::PurgeOutline;

/// What is tried, what is not, and all that is reached, each with its label.
pub fn outline_rows(outline: &PurgeOutline) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if outline.resumes {
        rows.push((
            "resumes",
            "a purge that ended early: the drive is looked at, and no command is sent".into(),
        ));
    }
    for (number, attempt) in outline.attempts.iter().enumerate() {
        let label = if number == 0 { "erases by" } else { "or by" };
        rows.push((label, attempt_words(attempt)));
    }
    for (rung, why) in &outline.others {
        rows.push(("not by", format!("{rung}: {why}")));
    }
    let sanitizes = |attempt: &Attempt| {
        attempt
            .rungs()
            .iter()
            .any(|rung| matches!(rung, Rung::SanitizeBlock | Rung::SanitizeCrypto | Rung::SanitizeOverwrite))
    };
    if !outline.order.policy.unrestricted_exit && outline.attempts.first().is_some_and(sanitizes) {
        let warning = "should the sanitize fail, the drive takes nothing but another one \
                       (--unrestricted-exit allows to leave that)";
        rows.push(("warning", warning.into()));
    }
    rows.extend(scope_rows(&outline.scope, outline.reach));
    rows.extend(outline.limitations.iter().map(|limitation| ("warning", limitation.clone())));
    rows
}

fn attempt_words(attempt: &Attempt) -> String {
    let rungs: Vec<String> =
        attempt.rungs().iter().map(|rung| format!("{rung} ({})", rung.grade())).collect();
    rungs.join(", then ")
}

fn scope_rows(scope: &PurgeScope, reach: Reach) -> Vec<(&'static str, String)> {
    let mut rows: Vec<(&'static str, String)> = Vec::new();
    let key = &scope.key;
    rows.push(("drive", format!("{} {}", key.model, key.serial)));
    rows.extend(scope.reached(reach).map(|namespace| ("reaches", namespace.to_string())));
    let controllers: Vec<String> = scope
        .controllers
        .iter()
        .map(|controller| {
            controller.name.clone().unwrap_or_else(|| format!("controller {} elsewhere", controller.id))
        })
        .collect();
    rows.push(("controllers", controllers.join(", ")));
    rows
}

/// What was done, as rows of a record.
pub fn rows(purge: &PurgeRecord) -> Vec<(&'static str, String)> {
    let mut rows = scope_rows(&purge.scope, purge.reach);
    for rung in &purge.report.rungs {
        rows.push(("rung", rung_words(rung)));
        rows.extend(rung.namespaces.iter().map(|namespace| ("known", known_words(namespace))));
    }
    rows.extend(purge.report.others.iter().map(|(rung, why)| ("not by", format!("{rung}: {why}"))));
    rows
}

fn rung_words(rung: &RungReport) -> String {
    let commands: Vec<String> = rung
        .commands
        .iter()
        .map(|command| format!("{:02x}h with dword 10 {:08x}h", command.opcode, command.dword_10))
        .collect();
    let seconds = rung.milliseconds as f64 / 1000.0;
    format!("{} (admin command {}) in {seconds:.1} s: it {}", rung.rung, commands.join(", "), rung.conclusion)
}

fn known_words(namespace: &NamespaceReport) -> String {
    let NamespaceReport { nsid, canaries, after, .. } = namespace;
    let BlockClasses { zeroes, ones, uniform, random, old, other, unreadable } = *after;
    let classes = [
        (zeroes, "zeroes"),
        (ones, "FFh"),
        (uniform, "of one byte"),
        (random, "random"),
        (old, "AS BEFORE"),
        (other, "something else"),
        (unreadable, "unreadable"),
    ];
    let read: Vec<String> = classes
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let read = if read.is_empty() { "not read".into() } else { read.join(", ") };
    format!(
        "namespace {nsid}: of {} known blocks {} are gone; read: {read}",
        namespace.known_blocks(),
        canaries.gone
    )
}
