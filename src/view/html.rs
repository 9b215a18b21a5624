//! Records as a self-contained HTML page, without scripts, printable on A4.
//!
//! All text from disks and people is escaped by maud where it is inserted.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::map;
use super::purge;
use super::text::describe_survey;
use crate::device::identity::Identity;
use crate::engine::job::JobReport;
use crate::engine::sampling::Bound;
use crate::record::Record;
use crate::record::certificate::Signed;
use crate::record::details::Person;
use crate::record::purge::PurgeRecord;
use crate::units::{bytes, percent, rate};
use crate::verdict::Verdict;

const STYLE: &str = include_str!("page.css");

/// One certificate, or a batch with an overview before them.
pub fn page(records: &[(Record, Signed)]) -> String {
    let title = match records {
        [(record, _)] => format!("Certificate {}", record.id),
        _ => format!("{} certificates", records.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if records.len() > 1 { (overview(records)) }
                @for (record, signed) in records { (certificate(record, signed)) }
            }
        }
    };
    page.into_string()
}

fn overview(records: &[(Record, Signed)]) -> Markup {
    let wiped = records.iter().filter(|(record, _)| good(record.verdict)).count();
    let all = records.len();
    html! {
        article.overview {
            header class=(if wiped == all { "good" } else { "bad" }) {
                h1 { (wiped) " of " (all) " devices successful" }
                p { (when(records.iter().map(|(record, _)| record.ended).max().unwrap_or_default())) }
            }
            table.list {
                thead { tr { th { "Device" } th { "Model" } th { "Serial" } th { "Size" } th { "Method" } th { "Verdict" } th { "Certificate" } } }
                tbody {
                    @for (record, _) in records {
                        @let identity = record.identity.as_ref();
                        tr {
                            td { (record.device) }
                            td { (identity.and_then(|identity| identity.model.as_deref()).unwrap_or("–")) }
                            td { (identity.and_then(|identity| identity.serial.as_deref()).unwrap_or("–")) }
                            td { @if let Some(identity) = identity { (bytes(identity.size_bytes)) } @else { "–" } }
                            td { (record.method) }
                            td class=(if good(record.verdict) { "good" } else { "bad" }) { (record.verdict.word()) }
                            td { a href={ "#" (record.id) } { (&record.id[..8.min(record.id.len())]) } }
                        }
                    }
                }
            }
        }
    }
}

fn good(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Wiped | Verdict::Verified | Verdict::Erased)
}

fn certificate(record: &Record, signed: &Signed) -> Markup {
    let identity = record.identity.as_ref();
    html! {
        article id=(record.id) {
            header class=(if good(record.verdict) { "good" } else { "bad" }) {
                h1 { (plain_words(record)) }
                p.device {
                    (record.device)
                    @if let Some(identity) = identity { " · " (identity.describe()) }
                }
            }
            p.claim { (record.claim) }
            @if let Some(error) = &record.error { p.error { (error) } }
            @if let Some(job) = &record.job {
                (map::device(job))
                (map::throughput(job))
                (passes(job))
                (verification(job))
            }
            @if let Some(purge) = &record.purge { (rungs(purge)) }
            section.not {
                h2 { "Limitations" }
                ul { @for limitation in &record.limitations { li { (limitation) } } }
            }
            div.columns {
                (media(record, identity))
                (work(record))
            }
            (people(record))
            (signature(record, signed))
        }
    }
}

/// The verdict as a heading.
fn plain_words(record: &Record) -> String {
    let unusable = |job: &JobReport| bytes(job.residue.bytes() + job.unreadable.bytes());
    match (record.verdict, &record.job) {
        (Verdict::Wiped, Some(job)) if job.verification.is_some() => {
            "Wiped, and the data read back matches".into()
        }
        (Verdict::Wiped, _) => "Wiped; nothing was read back".into(),
        (Verdict::Erased, _) => "Erased by the drive itself; no known block is left".into(),
        (Verdict::Verified, _) => "The expected data was found".into(),
        (Verdict::Residue, Some(job)) => format!("Wiped but for {} that may hold old data", unusable(job)),
        (Verdict::Surviving, Some(job)) => {
            format!("DATA SURVIVES: {} does not match", bytes(job.surviving.bytes))
        }
        (Verdict::Residue, None) => "Erased but for blocks that could not be read".into(),
        (Verdict::Surviving, None) => "DATA SURVIVES: known blocks hold what they held".into(),
        (Verdict::Interrupted | Verdict::Terminated, _) => "Interrupted: nothing is claimed".into(),
        (Verdict::Refused | Verdict::Unsupported | Verdict::Busy | Verdict::Usage, _) => {
            format!("Not done ({}): nothing was written", record.verdict.word().to_lowercase())
        }
        _ => "FAILED: nothing is claimed".into(),
    }
}

fn passes(job: &JobReport) -> Markup {
    html! {
        table.list {
            thead { tr { th { "Step" } th { "What" } th { "Bytes" } th { "From" } th { "To" } th { "Speed" } th { "Flushed" } th { "Errors" } } }
            tbody {
                @for (number, report) in job.steps.iter().enumerate() {
                    tr {
                        td { (number + 1) }
                        td {
                            (report.step)
                            @if let Some(seed) = report.seed() { div.seed { "seed " (seed) } }
                        }
                        td { (bytes(report.covered.bytes.saturating_sub(report.unusable.bytes()))) }
                        td.time { (time(report.started)) }
                        td.time { (time(report.ended)) }
                        td { (rate(report.bytes, report.milliseconds)) }
                        td { @if report.step.writes() { (if report.flushed { "yes" } else { "NO" }) } @else { "–" } }
                        td { (report.errors) }
                    }
                }
            }
        }
    }
}

fn rungs(purge: &PurgeRecord) -> Markup {
    let rows = purge::rows(purge).into_iter().map(|(label, line)| (label, Some(line)));
    facts("Purge", rows.collect())
}

fn verification(job: &JobReport) -> Markup {
    let checked = job.verification.as_ref().map(|check| {
        let bound = check.bound.map(|Bound { confidence_ppm, differ_per_billion }| {
            let (confidence, differ) = (percent(confidence_ppm * 1_000), percent(differ_per_billion));
            format!("with {confidence} confidence at most {differ} of the blocks differ")
        });
        let places = check.sample.map_or("all of it".into(), |sample| sample.to_string());
        [
            ("Read back", Some(format!("{places}, {}", bytes(check.bytes_read)))),
            ("Proves", bound),
            ("Drawn", Some(format!("{}, from seed {}", when(check.drawn), check.seed))),
        ]
    });
    let survey = job.survey.as_ref().map(|survey| ("Survey", Some(describe_survey(survey))));
    let io = format!(
        "{}, {}",
        job.io_path.backend,
        if job.io_path.direct { "O_DIRECT" } else { "through the page cache" }
    );
    let rows = survey.into_iter().chain(checked.into_iter().flatten()).chain([("I/O", Some(io))]);
    facts("Verification", rows.collect())
}

/// A heading and its rows; unknown values are left out.
fn facts(title: &str, rows: Vec<(&str, Option<String>)>) -> Markup {
    html! {
        section {
            h2 { (title) }
            table.facts {
                @for (name, value) in rows {
                    @if let Some(value) = value { tr { th { (name) } td { (value) } } }
                }
            }
        }
    }
}

fn media(record: &Record, identity: Option<&Identity>) -> Markup {
    let details = &record.details.media;
    let of = |get: fn(&Identity) -> Option<String>| identity.and_then(get);
    facts(
        "Media",
        vec![
            ("Manufacturer", details.manufacturer.clone().or_else(|| of(|identity| identity.vendor.clone()))),
            ("Model", of(|identity| identity.model.clone())),
            ("Serial", of(|identity| identity.serial.clone())),
            ("WWN", of(|identity| identity.wwn.clone())),
            ("Firmware", of(|identity| identity.firmware.clone())),
            ("Type", of(|identity| Some(identity.medium_type()))),
            ("Size", of(|identity| Some(format!("{} bytes", identity.size_bytes)))),
            (
                "Blocks",
                of(|identity| {
                    Some(format!(
                        "{} logical, {} physical",
                        identity.logical_block?, identity.physical_block?
                    ))
                }),
            ),
            ("Property number", details.property_number.clone()),
            ("Source", details.source.clone()),
            ("Destination", details.destination.clone()),
            ("Categorization", details.categorization.clone()),
        ],
    )
}

fn work(record: &Record) -> Markup {
    let job = &record.details.job;
    let area = record.job.as_ref().map(|job| format!("bytes {}", job.plan.area));
    facts(
        "Work",
        vec![
            ("Method", Some(record.method.clone())),
            ("Area", area),
            ("Asked for", record.asked.map(|category| category.word().into())),
            ("Achieved", Some(record.achieved.describe().into())),
            ("Started", Some(when(record.started))),
            ("Ended", Some(when(record.ended))),
            ("Request", job.request_id.clone()),
            ("Volume", job.volume_id.clone()),
            ("Tenant", job.tenant.clone()),
            (
                "Host",
                Some(format!("{} ({}, {})", record.host.name, record.host.kernel, record.host.architecture)),
            ),
            (
                "Tool",
                Some(format!("{} {}, commit {}", record.tool.name, record.tool.version, record.tool.commit)),
            ),
            ("Program", record.tool.sha256.as_ref().map(|hash| format!("SHA-256 {hash}"))),
        ],
    )
}

fn people(record: &Record) -> Markup {
    let details = &record.details;
    let all =
        [("Operator", &details.operator), ("Witness", &details.witness), ("Validator", &details.validator)];
    html! {
        div.people {
            @for (role, person) in all {
                @if let Some(person) = person { (signature_block(role, person)) }
            }
        }
    }
}

fn signature_block(role: &str, person: &Person) -> Markup {
    let Person { name, title, organization, location, contact } = person;
    html! {
        div {
            h2 { (role) }
            p { strong { (name) } }
            @for line in [title, organization, location, contact].into_iter().flatten() { p { (line) } }
            p.line { "Date, signature" }
        }
    }
}

fn signature(record: &Record, signed: &Signed) -> Markup {
    html! {
        footer {
            p { "Certificate " (record.id) ": " (signed) "." }
            @if let Some(unchecked) = record.unchecked() { p { (unchecked) } }
            @if let Some(chain) = &record.chain {
                p {
                    "Record " (chain.sequence) " of its ledger"
                    @if let Some(previous) = &chain.previous { ", after " (previous) }
                    "."
                }
            }
            p { "Check it: efface certificate verify FILE --public-key KEY; efface verify DEVICE --certificate FILE" }
        }
    }
}

/// The time of a step: without the year, which the job shows.
fn time(time: Timestamp) -> String {
    time.strftime("%m-%d %H:%M:%S").to_string()
}

/// To the second: `2026-11-21 05:10:20 UTC`.
fn when(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
