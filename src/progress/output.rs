//! Non-blocking output: a queue and a thread per reader, so that a full pipe or a paused terminal stops only
//! its own thread.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the last lines wait for their reader.
pub const READER_MAX: Duration = Duration::from_secs(30);

/// Priorities of lines, lowest first: lower ones are dropped when the reader is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// The next one says more.
    Progress,
    Event,
    /// Never dropped.
    Result,
}

impl Priority {
    /// The queue length up to which a line is accepted.
    fn waiting_max(self) -> usize {
        match self {
            Priority::Progress => 64,
            Priority::Event => 4096,
            Priority::Result => usize::MAX,
        }
    }
}

/// One reader.
#[derive(Clone)]
pub struct Output(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<String>,
    writing: bool,
    /// The reader is closed or counts as closed: nothing more is written.
    closed: bool,
    lost: Option<io::Error>,
}

impl QueueState {
    fn close(&mut self, error: io::Error) {
        self.closed = true;
        self.waiting.clear();
        self.lost = Some(error);
    }
}

impl Output {
    pub fn new(to: impl Write + Send + 'static) -> Output {
        let queue = Arc::new(Queue::default());
        let served = queue.clone();
        thread::spawn(move || served.serve(to));
        Output(queue)
    }

    /// Never blocks.
    pub fn send(&self, text: String, priority: Priority) {
        let mut state = self.0.lock();
        if !state.closed && state.waiting.len() < priority.waiting_max() {
            state.waiting.push_back(text);
            self.0.changed.notify_all();
        }
    }

    /// Waits until all is written, but no longer than this; then the reader counts as closed.
    pub fn finish(&self, until: Instant) {
        if !self.wait_drained(until) {
            let seconds = READER_MAX.as_secs();
            let slow = io::Error::new(io::ErrorKind::TimedOut, format!("it was not read for {seconds} s"));
            self.0.lock().close(slow);
        }
    }

    /// Waits until all is written, but no longer than this; returns whether it is.
    pub fn wait_drained(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let busy = |state: &mut QueueState| !state.closed && (state.writing || !state.waiting.is_empty());
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), left, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Why nothing more is written, once.
    pub fn take_lost(&self) -> Option<io::Error> {
        self.0.lock().lost.take()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut to: impl Write) {
        loop {
            let idle = |state: &mut QueueState| !state.closed && state.waiting.is_empty();
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(text) = state.waiting.pop_front() else { return };
            state.writing = true;
            drop(state);
            let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
            let mut state = self.lock();
            state.writing = false;
            if let Err(error) = written {
                state.close(error);
            }
            self.changed.notify_all();
        }
    }
}

pub fn stdout() -> &'static Output {
    static STDOUT: LazyLock<Output> = LazyLock::new(|| Output::new(io::stdout()));
    &STDOUT
}

pub fn stderr() -> &'static Output {
    static STDERR: LazyLock<Output> = LazyLock::new(|| Output::new(io::stderr()));
    &STDERR
}

/// Call last before the process ends.
pub fn end() {
    stderr().finish(Instant::now() + READER_MAX);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes a line only when it may.
    struct Reader {
        may: Receiver<()>,
        taken: Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.taken.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Sender<()>, Receiver<String>) {
        let ((go, may), (taken, lines)) = (channel(), channel());
        (Output::new(Reader { may, taken }), go, lines)
    }

    #[test]
    fn a_full_queue_drops_progress_first_and_a_result_never() {
        let (output, go, lines) = output();
        for line in 0..10_000 {
            output.send(format!("event {line}"), Priority::Event);
            output.send(format!("progress {line}"), Priority::Progress);
        }
        output.send("result".into(), Priority::Result);
        drop((0..10_000).map(|_| go.send(()).unwrap()).collect::<Vec<()>>());
        assert!(output.wait_drained(Instant::now() + READER_MAX), "all is read now");
        let lines: Vec<String> = lines.try_iter().collect();
        let count = |kind: &str| lines.iter().filter(|line| line.starts_with(kind)).count();
        assert_eq!(lines.last().map(String::as_str), Some("result"));
        assert!((4000..4200).contains(&count("event")), "{}", count("event"));
        assert!((20..80).contains(&count("progress")), "{}", count("progress"));
    }

    #[test]
    fn a_reader_that_does_not_read_counts_as_gone_after_its_time() {
        let (output, _go, _lines) = output();
        output.send("result".into(), Priority::Result);
        output.finish(Instant::now() + Duration::from_millis(50));
        let lost = output.take_lost().map(|error| error.kind());
        assert_eq!((lost, output.take_lost().is_none()), (Some(io::ErrorKind::TimedOut), true));
        assert!(output.wait_drained(Instant::now()), "nothing waits any more");
    }

    #[test]
    fn a_closed_reader_is_reported_once_and_no_longer_waited_for() {
        let (output, go, _lines) = output();
        drop(go);
        output.send("progress".into(), Priority::Progress);
        assert!(output.wait_drained(Instant::now() + READER_MAX));
        output.send("result".into(), Priority::Result);
        assert!(output.wait_drained(Instant::now()));
        assert_eq!(output.take_lost().map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
    }
}
