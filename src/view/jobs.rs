//! The table of a host's wipes.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use jiff::tz::TimeZone;

use crate::journal::{ListedJob, LiveStatus, Summary};
use crate::printable::printable_path;
use crate::units::bytes;

/// One row per wipe.
pub fn jobs_table(jobs: &[ListedJob]) -> String {
    if jobs.is_empty() {
        return "No wipes found.\n".into();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let head = ["DEVICE", "STATE", "PROGRESS", "STARTED"];
    table.set_header(head.into_iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    for job in jobs {
        let state = Cell::new(job.state());
        table.add_row(match job {
            ListedJob::Running(live) => [
                Cell::new(&live.device),
                state.fg(Color::Cyan),
                Cell::new(how_far(live)),
                Cell::new(format!("{} s ago", live.seconds)),
            ],
            ListedJob::Waiting(summary) => row(summary, state.fg(Color::Cyan)),
            ListedJob::Queued { device, size_bytes } => {
                let size = size_bytes.map_or("size unknown".to_string(), bytes);
                [Cell::new(device), state, Cell::new(size), Cell::new("")]
            }
            ListedJob::Resumable(summary) => row(summary, state.fg(Color::Yellow)),
            ListedJob::Ended(summary) => {
                row(summary, summary.verdict.map_or(state, |verdict| Cell::new(verdict.word())))
            }
            ListedJob::Damaged { file } => [
                Cell::new(printable_path(file)),
                state.fg(Color::Red),
                Cell::new("will restart"),
                Cell::new(""),
            ],
        });
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

fn how_far(live: &LiveStatus) -> String {
    let percent = u128::from(live.done_bytes) * 100 / u128::from(live.total_bytes.max(1));
    let left = live.seconds_left.map_or(String::new(), |seconds| format!(", {seconds} s left"));
    format!("step {} of {}, {}: {percent} % of all{left}", live.step, live.steps, live.step_name)
}

fn row(summary: &Summary, state: Cell) -> [Cell; 4] {
    let begun = summary.begun.to_zoned(TimeZone::system()).strftime("%F %T").to_string();
    [
        Cell::new(&summary.device),
        state,
        Cell::new(match &summary.progress {
            Some(progress) => format!("{}: {progress}", summary.method),
            None => summary.method.clone(),
        }),
        Cell::new(begun),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_volume_of_unknown_size_has_no_size() {
        let queued = |size_bytes| {
            let device = "/dev/mapper/vg-efface--deleted--1".to_string();
            jobs_table(&[ListedJob::Queued { device, size_bytes }])
        };
        assert!(queued(Some(1 << 30)).contains("1.00 GiB"), "{}", queued(Some(1 << 30)));
        assert!(queued(None).contains("size unknown"), "{}", queued(None));
    }
}
