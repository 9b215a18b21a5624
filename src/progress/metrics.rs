//! Metrics textfile for node_exporter's collector, replaced atomically.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Record, stderr_line};
use crate::device::Tree;
use crate::directory::Directory;
use crate::engine::status::JobStatus;
use crate::error::{Error, Result};
use crate::journal::ListedJob;
use crate::printable::printable_path;

/// Prometheus asks every 15 seconds, usually.
const UPDATE_INTERVAL: Duration = Duration::from_secs(5);
/// Its collector is another user.
const MODE: u32 = 0o644;
/// What has ended is left out: of that, only the newest are kept.
const STATES: [&str; 5] = ["running", "waiting", "queued", "resumable", "damaged"];
/// Held while the states are written: more than one process may list the jobs of a host.
const LOCK: &str = ".efface-metrics.lock";
const LOCK_WAIT: Duration = Duration::from_secs(5);

pub struct Metrics {
    directory: Directory,
    name: OsString,
    written: Option<Instant>,
    broken: bool,
}

/// A metric of a running job, per device.
type Metric = (&'static str, &'static str, fn(&JobStatus) -> f64);

const GAUGES: [Metric; 6] = [
    ("efface_step", "The step that runs, from 1; 0 before the first.", |state| state.step as f64),
    ("efface_steps", "The steps of the plan.", |state| state.steps as f64),
    ("efface_step_bytes", "The bytes of the step that runs.", |state| state.bytes as f64),
    ("efface_step_done_bytes", "What is done of them.", |state| state.done as f64),
    ("efface_unusable_bytes", "Blocks that could not be written or read.", |state| state.unusable as f64),
    ("efface_rate_bytes_per_second", "Bytes written and read a second, from the start on.", |state| {
        let done = (state.done_before + state.done) as f64;
        done / state.started.elapsed().as_secs_f64().max(1e-3)
    }),
];

impl Metrics {
    /// Refuses an existing file that is not regular: replacing a device node would remove it.
    pub fn open(path: &Path) -> Result<Metrics> {
        let open = || {
            let (directory, name) = Directory::of_file(path)?;
            match path.as_os_str().as_bytes().ends_with(b"/") {
                true => Err(std::io::ErrorKind::IsADirectory.into()),
                false => directory.has(&name).map(|_| (directory, name)),
            }
        };
        let (directory, name) = open().map_err(|error| {
            Error::usage("--metrics: this file cannot be kept")
                .because(error)
                .with_remedy("name a regular file, or one that is not there, in a folder that is")
                .on(path)
        })?;
        Ok(Metrics { directory, name, written: None, broken: false })
    }

    pub fn update_if_due(&mut self, states: &[JobStatus]) {
        if self.written.is_none_or(|written| written.elapsed() >= UPDATE_INTERVAL) {
            self.written = Some(Instant::now());
            self.write(&running(states));
        }
    }

    /// The final metrics: how each job ended.
    pub fn end(&mut self, states: &[JobStatus], records: &[Record]) {
        let mut text = running(states);
        let rows = |get: fn(&Record) -> f64| {
            records.iter().map(move |record| (record.device.clone(), get(record))).collect()
        };
        gauge(
            &mut text,
            "efface_exit_code",
            "How it ended, as the exit code.",
            "device",
            rows(|record| record.exit_code.into()),
        );
        gauge(
            &mut text,
            "efface_duration_seconds",
            "From start to end.",
            "device",
            rows(|record| record.ended.duration_since(record.started).as_secs_f64()),
        );
        gauge(
            &mut text,
            "efface_residue_bytes",
            "What no pass could write.",
            "device",
            rows(|record| record.job.as_ref().map_or(0.0, |job| job.residue.bytes() as f64)),
        );
        self.write(&text);
    }

    /// How many wipes there are in each state, and the bytes of their devices.
    pub fn write_jobs(&self, jobs: &[ListedJob], tree: &Tree) -> Result<()> {
        let write = || {
            let lock = self.directory.lock_until(LOCK, Instant::now() + LOCK_WAIT, || false)?;
            // Removed while it is held, so that only a process that is killed leaves it.
            let _lock = lock.ok_or(std::io::ErrorKind::WouldBlock)?;
            let replaced = self.directory.replace(&self.name, by_state(jobs, tree).as_bytes(), MODE);
            self.directory.remove(LOCK).and(replaced)
        };
        let path = self.directory.path_of(&self.name);
        write().map_err(|error| Error::failed("the metrics cannot be written").because(error).on(&path))
    }

    /// A write error is reported once, and does not stop the work.
    fn write(&mut self, text: &str) {
        if let Err(error) = self.directory.replace(&self.name, text.as_bytes(), MODE)
            && !std::mem::replace(&mut self.broken, true)
        {
            let path = printable_path(&self.directory.path_of(&self.name));
            stderr_line(format_args!("efface: no metrics: {path}: {error}; the work goes on"));
        }
    }
}

fn running(states: &[JobStatus]) -> String {
    let mut text = String::new();
    for (name, help, get) in GAUGES {
        let rows = states.iter().map(|state| (state.device.clone(), get(state))).collect();
        gauge(&mut text, name, help, "device", rows);
    }
    text
}

fn by_state(jobs: &[ListedJob], tree: &Tree) -> String {
    let sums = |of: &dyn Fn(&ListedJob) -> u64| {
        let sum = |state: &str| jobs.iter().filter(|job| job.state() == state).map(of).sum::<u64>() as f64;
        STATES.map(|state| (state.to_string(), sum(state))).to_vec()
    };
    let size = |job: &ListedJob| job.device().and_then(|device| tree.size_bytes(Path::new(device)));
    let mut text = String::new();
    gauge(&mut text, "efface_jobs", "Wipes that have not ended.", "state", sums(&|_| 1));
    let bytes = sums(&|job| size(job).unwrap_or(0));
    gauge(&mut text, "efface_jobs_bytes", "The size of their devices, where it can be read.", "state", bytes);
    text
}

fn gauge(text: &mut String, name: &str, help: &str, label: &str, rows: Vec<(String, f64)>) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
    for (of, value) in rows {
        let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        writeln!(text, "{name}{{{label}=\"{of}\"}} {value}").ok();
    }
}
