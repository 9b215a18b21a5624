//! A record as text in 80 columns.

use std::fmt::{Display, Write};

use console::{Style, style};
use textwrap::WordSeparator;

use super::purge;
use crate::device::Signature;
use crate::engine::job::{JobReport, SurveyResult};
use crate::engine::step::{StepReport, Yielding};
use crate::engine::survivors::Survivors;
use crate::range::ExtentSet;
use crate::record::Record;
use crate::units::{bytes, rate, share};
use crate::verdict::Verdict;

const WIDTH: usize = 80;
const LABEL: usize = 12;
/// Longer lists are in the JSON only.
const RANGES_SHOWN: usize = 8;

pub fn render(record: &Record) -> String {
    let mut text = String::new();
    let colour = match record.verdict {
        Verdict::Wiped | Verdict::Verified | Verdict::Erased => Style::new().green().bold(),
        Verdict::Busy | Verdict::Interrupted | Verdict::Terminated | Verdict::Residue => {
            Style::new().yellow().bold()
        }
        _ => Style::new().red().bold(),
    };
    let verdict = colour.apply_to(record.verdict.word());
    let code = record.verdict.exit_code();
    writeln!(text, "{}: {verdict} (exit code {code})", style(&record.device).bold()).ok();
    if let Some(identity) = &record.identity {
        row(&mut text, "device", identity.describe());
    }
    if let Some(findings) = &record.findings {
        let found: Vec<String> = findings.signatures.iter().map(Signature::describe).collect();
        if !found.is_empty() {
            row(&mut text, "held", found.join(", "));
        }
        for forced in &findings.forced {
            row(&mut text, "forced", &forced.what);
        }
    }
    if let Some(job) = &record.job {
        render_job(&mut text, &record.method, job);
    }
    if let Some(purge) = &record.purge {
        row(&mut text, "method", &record.method);
        for (label, line) in purge::rows(purge) {
            row(&mut text, label, line);
        }
    }
    if let Some(count) = record.foreign_writes_bytes.filter(|count| *count > 0) {
        row(&mut text, "foreign", format!("{} were written by others", bytes(count)));
    }
    for device in &record.copies {
        row(&mut text, "copies", format!("on {device}"));
    }
    row(&mut text, "claim", &record.claim);
    for limitation in &record.limitations {
        row(&mut text, "limitation", limitation);
    }
    text
}

fn render_job(text: &mut String, method: &str, job: &JobReport) {
    row(text, "method", method);
    let part = if job.plan.partial { "a part" } else { "the whole device" };
    let area = job.plan.area;
    row(text, "area", format!("{part}: bytes {area} ({})", bytes(area.len())));
    for (number, step) in job.steps.iter().enumerate() {
        row(text, &format!("step {}", number + 1), describe_step(step, area.len()));
        if let Some(seed) = step.seed() {
            row(text, "", format!("seed {seed}"));
        }
    }
    if let Some(survey) = &job.survey {
        row(text, "survey", describe_survey(survey));
    }
    if let Some(check) = &job.verification
        && check.probes.is_some()
    {
        row(text, "drawn from", format!("seed {}", check.seed));
    }
    ranges(text, "residue", &job.residue);
    if !job.residue_unreadable.is_empty() {
        row(text, "", format!("{} of it cannot be read either", bytes(job.residue_unreadable.bytes())));
    }
    ranges(text, "unreadable", &job.unreadable);
    survivors(text, &job.surviving);
    let direct = if job.io_path.direct { "O_DIRECT" } else { "page cache" };
    row(text, "i/o", format!("{}, {direct}", job.io_path.backend));
    for fallback in &job.io_path.fallbacks {
        row(text, "", fallback);
    }
}

pub fn describe_survey(survey: &SurveyResult) -> String {
    let share = |part: u64| share(part, survey.read_bytes);
    format!(
        "of {} read, {} was zero, and {} was already what the check expects",
        bytes(survey.read_bytes),
        share(survey.zero_bytes),
        share(survey.expected_bytes)
    )
}

fn describe_step(report: &StepReport, area_bytes: u64) -> String {
    let StepReport { step, covered, milliseconds, .. } = report;
    let cut_short = step.writes() && step.covers_area() && covered.bytes < area_bytes;
    let of = if cut_short { format!(" of {}", bytes(area_bytes)) } else { String::new() };
    let done = covered.bytes.saturating_sub(report.unusable.bytes());
    let mut text = format!(
        "{step}: {}{of} in {:.1} s, {}",
        bytes(done),
        *milliseconds as f64 / 1000.0,
        rate(report.bytes, *milliseconds)
    );
    if step.writes() {
        text += if report.flushed { ", flushed" } else { ", NOT FLUSHED" };
    }
    if report.errors > 0 {
        write!(text, ", {} I/Os failed", report.errors).ok();
    }
    if let Some(yielding) = report.yielding.filter(|yielding| *yielding != Yielding::default()) {
        text += &describe_yielding(yielding);
    }
    text
}

fn describe_yielding(yielding: Yielding) -> String {
    let Yielding { beside_ms, floor_ms, unmeasured_ms, waited_ms } = yielding;
    let parts = [
        (beside_ms, "beside other users of the disk"),
        (floor_ms, "of this at the lowest rate, beyond what they may lose"),
        (unmeasured_ms, "of this without a measure of what they lose"),
        (waited_ms, "waiting for another efface"),
    ];
    let shown = parts.iter().filter(|(ms, _)| *ms > 0);
    shown.map(|(ms, what)| format!(", {:.1} s {what}", *ms as f64 / 1000.0)).collect()
}

fn ranges(text: &mut String, label: &str, set: &ExtentSet) {
    if set.is_empty() {
        return;
    }
    row(text, label, places(set));
}

fn places(set: &ExtentSet) -> String {
    let shown: Vec<String> = set.iter().take(RANGES_SHOWN).map(|extent| extent.to_string()).collect();
    format!("{} in bytes {}{}", bytes(set.bytes()), shown.join(", "), rest(set.len(), false))
}

/// A line with the residue, unreadable blocks and survivors of a job, for `--quiet`.
pub fn shortfall(record: &Record) -> Option<String> {
    let job = record.job.as_ref()?;
    let sets = [("residue", &job.residue), ("unreadable", &job.unreadable)];
    let mut left: Vec<String> = sets
        .into_iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(what, set)| format!("{what}: {}", places(set)))
        .collect();
    if let Some(first) = job.surviving.runs.first() {
        let all = bytes(job.surviving.bytes);
        left.push(format!("surviving: {all}, first at bytes {}: {}", first.at, first.holds));
    }
    (!left.is_empty()).then(|| format!("{}: {}; {}", record.device, record.verdict.word(), left.join("; ")))
}

fn survivors(text: &mut String, surviving: &Survivors) {
    if surviving.is_empty() {
        return;
    }
    let kinds: Vec<String> =
        surviving.kinds().into_iter().map(|(kind, count)| format!("{} {kind}", bytes(count))).collect();
    row(text, "surviving", format!("{}: {}", bytes(surviving.bytes), kinds.join(", ")));
    for run in surviving.runs.iter().take(RANGES_SHOWN) {
        row(text, "", format!("bytes {}: {}", run.at, run.holds));
    }
    let rest = rest(surviving.runs.len(), surviving.more);
    if !rest.is_empty() {
        row(text, "", rest.trim_start());
    }
}

fn rest(listed: usize, more: bool) -> String {
    match (listed.saturating_sub(RANGES_SHOWN), more) {
        (0, false) => String::new(),
        (rest, false) => format!(" and {rest} more (--json lists them)"),
        (rest, true) => format!(" and {rest} or more (--json lists 4096)"),
    }
}

pub(super) fn row(text: &mut String, label: &str, value: impl Display) {
    let first = format!("  {label:LABEL$}");
    let next = " ".repeat(first.len());
    let options = textwrap::Options::new(WIDTH)
        .word_separator(WordSeparator::AsciiSpace)
        .initial_indent(&first)
        .subsequent_indent(&next);
    writeln!(text, "{}", textwrap::fill(&value.to_string(), options)).ok();
}
