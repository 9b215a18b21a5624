//! Inline SVG of a job: a map of the device, and the speed over its addresses.

use maud::{Markup, html};

use crate::engine::job::JobReport;
use crate::engine::step::StepReport;
use crate::engine::survivors::Holds;
use crate::range::Extent;
use crate::units::bytes;

/// One unit is a CSS pixel at most; the picture scales with the page.
const WIDTH: u64 = 720;
const ROW: u64 = 16;
const LABELS: u64 = 96;
const PLOT_HEIGHT: f64 = 110.0;

/// A row of the map: its extents and colour.
struct Row<'a> {
    name: &'a str,
    class: &'a str,
    columns: Vec<bool>,
}

/// The device from its first byte to its last: what was written, what was read back, what was found.
pub fn device(job: &JobReport) -> Markup {
    let size = job.geometry.size;
    let row = |name, class, extents: &mut dyn Iterator<Item = Extent>| Row {
        name,
        class,
        columns: columns(extents, size),
    };
    let survivors = |kind: fn(&Holds) -> bool| {
        job.surviving.runs.iter().filter(move |run| kind(&run.holds)).map(|run| run.at)
    };
    let passes = job.steps.iter().filter(|report| report.step.writes() && !report.step.discards());
    let written: Vec<Extent> = passes.flat_map(|pass| pass.done().iter().collect::<Vec<_>>()).collect();
    let rows = [
        row("written", "written", &mut written.into_iter()),
        row("read back", "read", &mut job.places_read().iter()),
        row("residue", "residue", &mut job.residue.iter()),
        row("unreadable", "residue", &mut job.unreadable.iter().chain(job.residue_unreadable.iter())),
        row("old data", "survives", &mut survivors(|holds| matches!(holds, Holds::OldData))),
        row("zeroes", "survives", &mut survivors(|holds| matches!(holds, Holds::Zeroes))),
        row("another pass", "survives", &mut survivors(|holds| matches!(holds, Holds::Step { .. }))),
        row("misplaced", "survives", &mut survivors(|holds| matches!(holds, Holds::Elsewhere { .. }))),
        row("unknown", "survives", &mut survivors(|holds| matches!(holds, Holds::Unknown))),
    ];
    // The rows that are always drawn, and those with findings.
    let always = 2;
    let shown: Vec<&Row> = rows
        .iter()
        .enumerate()
        .filter(|(number, row)| *number < always || row.columns.contains(&true))
        .map(|(_, row)| row)
        .collect();
    let height = shown.len() as u64 * ROW;
    html! {
        figure {
            svg viewBox={ "0 0 " (LABELS + WIDTH) " " (height + 16) } role="img" aria-label="Map of the device" {
                @for (number, row) in shown.iter().enumerate() {
                    @let y = number as u64 * ROW;
                    text x="0" y=(y + 11) { (row.name) }
                    rect.none x=(LABELS) y=(y + 2) width=(WIDTH) height=(ROW - 4) {}
                    path class=(row.class) d=(path(&row.columns, y + 2, ROW - 4)) {}
                }
                text x=(LABELS) y=(height + 12) { "0" }
                text x=(LABELS + WIDTH) y=(height + 12) text-anchor="end" { (bytes(size)) }
            }
            figcaption { "The device, from its first byte to its last." }
        }
    }
}

/// Which columns of the picture hold some byte of the extents.
fn columns(extents: &mut dyn Iterator<Item = Extent>, size: u64) -> Vec<bool> {
    let mut columns = vec![false; WIDTH as usize];
    let column = |offset: u64| (u128::from(offset) * u128::from(WIDTH) / u128::from(size.max(1))) as usize;
    for extent in extents.filter(|extent| !extent.is_empty() && extent.end <= size) {
        columns[column(extent.start)..=column(extent.end - 1)].fill(true);
    }
    columns
}

/// Runs of marked columns, as rectangles.
fn path(columns: &[bool], y: u64, height: u64) -> String {
    let mut path = String::new();
    let mut x = 0;
    for run in columns.chunk_by(|one, other| one == other) {
        if run[0] {
            let (start, length) = (LABELS + x, run.len());
            path += &format!("M{start} {y}h{length}v{height}h-{length}z");
        }
        x += run.len() as u64;
    }
    path
}

/// The speed of each pass over the addresses; empty if no step was sequential.
pub fn throughput(job: &JobReport) -> Markup {
    let curves = job.steps.iter().enumerate().map(|(number, report)| (number, report, speeds(report)));
    let curves: Vec<_> = curves.filter(|(_, _, speeds)| speeds.len() > 1).collect();
    let top = curves.iter().flat_map(|(_, _, speeds)| speeds).copied().fold(0.0, f64::max);
    let size = job.geometry.size;
    if top == 0.0 {
        return html! {};
    }
    html! {
        figure {
            svg viewBox={ "0 0 " (LABELS + WIDTH) " " (PLOT_HEIGHT + 16.0) } role="img" aria-label="Throughput" {
                text x="0" y="10" { (format!("{:.0} MB/s", top / 1e6)) }
                text x="0" y=(PLOT_HEIGHT) { "0" }
                rect.none x=(LABELS) y="0" width=(WIDTH) height=(PLOT_HEIGHT) {}
                @for (number, report, speeds) in &curves {
                    polyline class={ "pass" (number % 4) } points=(points(speeds, top, span(report, size))) {}
                }
            }
            figcaption {
                "Speed over the device's addresses:"
                @for (number, ..) in &curves { span class={ "key pass" (number % 4) } { " step " (number + 1) } }
            }
        }
    }
}

/// Bytes per second in each part of the step.
fn speeds(step: &StepReport) -> Vec<f64> {
    let part_bytes = step.bytes as f64 / step.course.len().max(1) as f64;
    let mut before = 0;
    let mut waiting = 0.0;
    let mut speeds = Vec::new();
    for &now in &step.course {
        waiting += part_bytes;
        // Parts that were done at the same moment have the speed of the part after them.
        if now > before {
            let speed = waiting * 1e6 / (now - before) as f64;
            let parts = (waiting / part_bytes).round() as usize;
            speeds.extend(std::iter::repeat_n(speed, parts));
            (before, waiting) = (now, 0.0);
        }
    }
    speeds
}

/// From where to where a step went over the device, in the picture's units.
fn span(report: &StepReport, size: u64) -> [f64; 2] {
    let (first, last) = (report.covered.extents.iter().next(), report.covered.extents.iter().last());
    let [start, end] = first.zip(last).map_or([0, 0], |(first, last)| [first.start, last.end]);
    [start, end].map(|offset| WIDTH as f64 * offset as f64 / size.max(1) as f64)
}

fn points(speeds: &[f64], top: f64, [start, end]: [f64; 2]) -> String {
    let step = (end - start) / (speeds.len() - 1) as f64;
    let point = |(number, speed): (usize, &f64)| {
        let x = LABELS as f64 + start + number as f64 * step;
        format!("{x:.1},{:.1}", PLOT_HEIGHT * (1.0 - speed / top))
    };
    speeds.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_block_is_seen_however_large_the_device() {
        let size = 20 << 40;
        let marked = columns(&mut [Extent::new(size - 512, size)].into_iter(), size);
        assert!(marked[WIDTH as usize - 1] && marked.iter().filter(|marked| **marked).count() == 1);
        assert_eq!(path(&marked, 2, 12), format!("M{} 2h1v12h-1z", LABELS + WIDTH - 1));
        assert!(columns(&mut [Extent::new(0, size)].into_iter(), size).iter().all(|marked| *marked));
    }
}
