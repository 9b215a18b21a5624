//! The io_uring backend: one ring per disk, with registered file and buffers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::{Buf, Disk, Done, Geometry, IoPath, Op, Target};

/// The target's place in the ring's table of files.
const FILE: Fixed = Fixed(0);
/// How long a disk may take to finish what is in flight before its buffers are left to it.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Optional ways of a ring: fewer locks and interrupts for one that a single thread uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RingFlags {
    single_issuer: bool,
    deferred: bool,
}

/// From the best, with what is lost below it.
const FLAG_LEVELS: [(RingFlags, &str); 3] = [
    (
        RingFlags { single_issuer: true, deferred: true },
        "io_uring without deferred task run (kernel before 6.1)",
    ),
    (
        RingFlags { single_issuer: true, deferred: false },
        "io_uring without single issuer (kernel before 6.0)",
    ),
    (RingFlags { single_issuer: false, deferred: false }, ""),
];

/// Why there is no ring.
enum RingError {
    /// This kernel or user may have none: another backend will do.
    Denied(io::Error),
    Failed(io::Error),
}

/// The best ring that the kernel gives, and what it would not give. `set_up` asks the kernel.
fn negotiate<T>(mut set_up: impl FnMut(RingFlags) -> io::Result<T>) -> Result<(T, Vec<String>), RingError> {
    let mut lost = Vec::new();
    for (flags, without) in FLAG_LEVELS {
        match set_up(flags) {
            Ok(ring) => return Ok((ring, lost)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) if !without.is_empty() => lost.push(format!("{without}: {error}")),
                // ENOMEM: an ordinary user may lock no memory for it (ulimit -l).
                Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOMEM) => {
                    return Err(RingError::Denied(error));
                }
                _ => return Err(RingError::Failed(error)),
            },
        }
    }
    unreachable!("the lowest rung gives a ring or fails")
}

fn set_up(flags: RingFlags, entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if flags.single_issuer {
        builder.setup_single_issuer();
    }
    if flags.deferred {
        builder.setup_defer_taskrun();
    }
    builder.dontfork().build(entries)
}

pub(crate) struct UringDisk {
    ring: IoUring,
    target: Target,
    io_path: IoPath,
    depth: usize,
    /// By user_data; a place is free where there is none.
    in_flight: Vec<Option<Op>>,
    free: Vec<usize>,
    /// What was done without the ring: commands, and what must not reach the kernel.
    done: VecDeque<Done>,
    registered: bool,
}

/// A ring, or the target back with the reason why there may be none.
pub(crate) type RingOrTarget = Result<UringDisk, (Target, String)>;

impl UringDisk {
    pub(crate) fn open(target: Target, depth: usize) -> io::Result<RingOrTarget> {
        let entries = depth.next_power_of_two() as u32;
        let (ring, fallbacks) = match negotiate(|flags| set_up(flags, entries)) {
            Ok(climbed) => climbed,
            Err(RingError::Denied(error)) => {
                let reason = format!("no io_uring, one I/O at a time instead: {error}");
                return Ok(Err((target, reason)));
            }
            Err(RingError::Failed(error)) => return Err(error),
        };
        ring.submitter().register_files(&[target.as_fd().as_raw_fd()])?;
        let io_path = IoPath::new("io_uring", target.is_direct(), fallbacks);
        Ok(Ok(UringDisk {
            ring,
            target,
            io_path,
            depth,
            in_flight: (0..depth).map(|_| None).collect(),
            free: (0..depth).collect(),
            done: VecDeque::new(),
            registered: false,
        }))
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.depth
    }

    /// Registers the buffers with the kernel, so that it need not look up their pages each time.
    fn register(&mut self, bufs: &mut [Buf]) -> io::Result<()> {
        let vectors: Vec<libc::iovec> = bufs
            .iter_mut()
            .map(|buf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.capacity() })
            .collect();
        // SAFETY: each vector spans one Buf. The kernel pins the pages: a Buf that is freed before
        // it is unregistered leaves them to the kernel, and no operation uses a slot without its Buf.
        unsafe { self.ring.submitter().register_buffers(&vectors) }?;
        self.registered = true;
        bufs.iter_mut().zip(0..).for_each(|(buf, slot)| buf.set_slot(slot));
        Ok(())
    }

    fn unregister(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.registered) {
            self.ring.submitter().unregister_buffers()?;
        }
        Ok(())
    }

    fn entry(op: &mut Op) -> squeue::Entry {
        let length = |buf: &Buf| u32::try_from(buf.len()).expect("a buffer below 4 GiB");
        match op {
            Op::Write { at, buf } => match buf.slot() {
                Some(slot) => {
                    opcode::WriteFixed::new(FILE, buf.as_ptr(), length(buf), slot).offset(*at).build()
                }
                None => opcode::Write::new(FILE, buf.as_ptr(), length(buf)).offset(*at).build(),
            },
            Op::Read { at, buf } => match buf.slot() {
                Some(slot) => {
                    opcode::ReadFixed::new(FILE, buf.as_mut_ptr(), length(buf), slot).offset(*at).build()
                }
                None => opcode::Read::new(FILE, buf.as_mut_ptr(), length(buf)).offset(*at).build(),
            },
            Op::Zero { .. } | Op::Discard { .. } => unreachable!("commands are not for the ring"),
        }
    }

    fn collect(&mut self, out: &mut Vec<Done>) {
        out.extend(self.done.drain(..));
        let completed: Vec<(usize, i32)> =
            self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        for (place, result) in completed {
            let op = self.in_flight[place].take().expect("each operation completes once");
            self.free.push(place);
            let result =
                if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u64) };
            out.push(Done { op, result });
        }
    }

    /// Enters the kernel: hands over what is queued, and waits for `want` completions or the time.
    fn enter(&mut self, want: usize, until: Option<Instant>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let entered = match until {
            None => submitter.submit_and_wait(want),
            Some(until) => {
                let timespec = Timespec::from(until.saturating_duration_since(Instant::now()));
                submitter.submit_with_args(want, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match entered.map_err(|error| error.raw_os_error()) {
            // The time came, a signal came, or the kernel wants completions collected first.
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
        }
    }

    /// Waits for everything in flight; says whether it came.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_MAX;
        let mut drained = Vec::new();
        while !self.is_idle() && Instant::now() < deadline {
            if self.enter(1, Some(deadline)).is_err() {
                break;
            }
            self.collect(&mut drained);
        }
        self.is_idle()
    }
}

impl Disk for UringDisk {
    fn geometry(&self) -> Geometry {
        self.target.geometry()
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        assert!(self.is_idle(), "buffers are asked for when the disk is idle");
        self.unregister()?;
        let align = self.target.geometry().memory_align as usize;
        let mut bufs: Vec<Buf> = (0..count).map(|_| Buf::new(len, align)).collect();
        if bufs.is_empty() {
            return Ok(bufs);
        }
        match self.register(&mut bufs) {
            // An ordinary user may lock 8 MiB: the ring does without.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                let fallback = format!("io_uring without registered buffers (ulimit -l): {error}");
                if !self.io_path.fallbacks.contains(&fallback) {
                    self.io_path.fallbacks.push(fallback);
                }
            }
            registered => registered?,
        }
        Ok(bufs)
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if self.free.is_empty() || self.done.len() >= self.depth {
            return Err(op);
        }
        let refused = self.target.check(op.at(), op.bytes());
        if refused.is_err() || matches!(op, Op::Zero { .. } | Op::Discard { .. }) {
            let result = refused.and_then(|()| self.target.perform(&mut op));
            self.done.push_back(Done { op, result });
            return Ok(());
        }
        let place = self.free.pop().expect("a free place, as seen above");
        let entry = UringDisk::entry(&mut op).user_data(place as u64);
        // SAFETY: the file is registered for as long as the ring lives, and the buffer stays in
        // `in_flight` until its completion has been collected (or is leaked by `drop`).
        unsafe { self.ring.submission().push(&entry) }.expect("as many entries as places");
        self.in_flight[place] = Some(op);
        // At once, so that the device works while the next buffer is filled. What the kernel does
        // not take now stays queued, and is handed over at the next wait.
        self.ring.submit().ok();
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Done>, until: Option<Instant>) -> io::Result<()> {
        let before = out.len();
        self.collect(out);
        if !self.is_idle() {
            // Waking for each completion costs a quarter of the CPU; the rest keeps the device busy.
            let some = ((self.depth - self.free.len()) / 4).max(1);
            let want = if out.len() == before { some } else { 0 };
            self.enter(want, until)?;
            self.collect(out);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        assert!(self.is_idle(), "a flush covers only what has completed");
        self.target.flush()
    }

    fn unchanged(&self, _since: Instant) -> io::Result<()> {
        self.target.unchanged()
    }
}

impl Drop for UringDisk {
    /// A ring that is closed lets go of its file only later, and a device would stay busy for the
    /// next opener: so all that was registered is taken back before.
    fn drop(&mut self) {
        if self.drain() {
            self.unregister().ok();
        } else {
            // The device may still write to these buffers or read them: they are never freed.
            self.in_flight.drain(..).for_each(std::mem::forget);
        }
        self.ring.submitter().unregister_files().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that answers each setup in turn: 0 gives a ring, an errno refuses it.
    fn kernel(answers: &[i32]) -> (Result<(RingFlags, Vec<String>), RingError>, usize) {
        let mut asked = 0;
        let climbed = negotiate(|flags| {
            asked += 1;
            match answers[asked - 1] {
                0 => Ok(flags),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        });
        (climbed, asked)
    }

    #[test]
    fn a_new_kernel_gives_all_ring_flags() {
        let (Ok((flags, lost)), 1) = kernel(&[0]) else { panic!("asked once, answered well") };
        assert!(flags.single_issuer && flags.deferred && lost.is_empty());
    }

    #[test]
    fn older_kernels_get_fewer_ring_flags_and_each_fallback_is_recorded() {
        let (Ok((flags, lost)), 2) = kernel(&[libc::EINVAL, 0]) else { panic!("6.0") };
        assert!(flags.single_issuer && !flags.deferred);
        assert!(lost.len() == 1 && lost[0].contains("deferred task run"), "{lost:?}");
        let (Ok((flags, lost)), 3) = kernel(&[libc::EINVAL, libc::EINVAL, 0]) else { panic!("5.11") };
        assert!(!flags.single_issuer && !flags.deferred);
        assert!(lost.len() == 2 && lost[1].contains("single issuer"), "{lost:?}");
    }

    #[test]
    fn only_a_denied_ring_falls_back_to_the_synchronous_backend() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENOMEM] {
            assert!(matches!(kernel(&[errno]), (Err(RingError::Denied(_)), 1)));
            assert!(matches!(kernel(&[libc::EINVAL, errno]), (Err(RingError::Denied(_)), 2)));
        }
        assert!(matches!(kernel(&[libc::EMFILE]), (Err(RingError::Failed(_)), 1)));
        let einval = libc::EINVAL;
        assert!(matches!(kernel(&[einval, einval, einval]), (Err(RingError::Failed(_)), 3)));
    }
}
