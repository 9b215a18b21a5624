//! Progress bars on the terminal.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::output::{self, Priority};
use super::{WAITING, late, stderr_line};
use crate::engine::event::Event;

const BAR: &str = "{prefix:>9.bold} {msg:30} {wide_bar:.cyan/dim} {percent:>3} % \
                   {binary_total_bytes:>10} {decimal_bytes_per_sec:>11} {eta:>4}";

const FRAMES_PER_SECOND: u8 = 20;

/// One for the process, once there are bars: other lines go above them.
static ALL: OnceLock<MultiProgress> = OnceLock::new();

pub struct Bars {
    bars: Vec<ProgressBar>,
}

impl Bars {
    pub fn new(devices: &[String]) -> Bars {
        let frames = || ProgressDrawTarget::term_like_with_hz(Box::<Frames>::default(), FRAMES_PER_SECOND);
        let all = ALL.get_or_init(|| MultiProgress::with_draw_target(frames()));
        let style = ProgressStyle::with_template(BAR).expect("a valid template").progress_chars("━╸─");
        let bar = |device: &String| {
            let bar = all.add(ProgressBar::no_length().with_style(style.clone()));
            bar.set_prefix(device.rsplit('/').next().unwrap_or(device).to_string());
            bar
        };
        Bars { bars: devices.iter().map(bar).collect() }
    }

    pub fn watch(&mut self, job: usize, event: &Event) {
        let bar = &self.bars[job];
        match event {
            Event::StepStarted { step, steps, step_name, bytes } => {
                bar.reset();
                bar.set_length(*bytes);
                bar.set_message(format!("{}/{steps} {step_name}", step + 1));
            }
            Event::Progress { bytes, .. } => bar.set_position(*bytes),
            Event::Unusable { at, operation, error, .. } => {
                stderr_line(format_args!("{}: bytes {at}: {operation}: {error}", bar.prefix()));
            }
            Event::Waiting { .. } => {
                stderr_line(format_args!("{}: {WAITING}", bar.prefix()));
            }
            Event::Late { at, operation, seconds } => {
                stderr_line(format_args!("{}: {}", bar.prefix(), late(*at, operation, *seconds)));
            }
            Event::Started { .. } | Event::Checkpoint { .. } | Event::StepEnded { .. } => {}
        }
    }

    pub fn end(&self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Sends lines to stderr, above the bars where there are any.
pub fn above(lines: String) {
    let send = || output::stderr().send(lines, Priority::Event);
    match ALL.get() {
        Some(all) => all.suspend(send),
        None => send(),
    }
}

/// What is drawn, a frame at a time, on its way to stderr: a terminal that is paused misses some.
#[derive(Debug, Default)]
struct Frames(Mutex<String>);

impl Frames {
    fn add(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn step(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.add(&format!("\x1b[{count}{direction}")) }
    }
}

impl TermLike for Frames {
    fn width(&self) -> u16 {
        Term::stderr().size().1
    }

    fn height(&self) -> u16 {
        Term::stderr().size().0
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.step(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.step(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.step(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.step(count, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.add(line)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if !frame.is_empty() {
            output::stderr().send(frame, Priority::Progress);
        }
        Ok(())
    }
}
