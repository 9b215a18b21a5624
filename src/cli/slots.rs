//! `--slots N`: so many efface processes at work on a host, and the others wait in the order in which
//! they came.
//!
//! Each takes a ticket: a file with the next number, locked by its holder, so that the lock dies with
//! it. Whoever has fewer than N living tickets before its own may go.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::engine::Stop;
use crate::error::{Error, Result};
use crate::report::tell;

const RETRY: Duration = Duration::from_millis(100);

/// The place in the queue; given back when it is dropped, or the process ends.
pub struct Ticket {
    path: PathBuf,
    number: u64,
    _lock: Flock<File>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// Waits until fewer than `slots` others are at work; none where the wait was ended by a signal.
pub fn take(slots: u16, wait: bool, stop: &Stop) -> Result<Option<Ticket>> {
    let folder = folder();
    let failed = |error| {
        Error::usage("--slots: no place can be taken")
            .because(error)
            .way_out("run it as one who may write there, or leave the option out")
            .on(&folder)
    };
    let ticket = draw(&folder).map_err(failed)?;
    let mut told = None;
    loop {
        let before = before(&folder, &ticket).map_err(failed)?;
        if before < slots.into() {
            return Ok(Some(ticket));
        }
        if !wait {
            let what = format!("{before} others are at work or wait, and {slots} may work at once");
            return Err(Error::busy(what));
        }
        if stop.verdict().is_some() {
            return Ok(None);
        }
        if told != Some(before) {
            told = Some(before);
            tell(format_args!("efface: waiting: {before} others came before, and {slots} may work at once"));
        }
        thread::sleep(RETRY);
    }
}

/// The host's own, or the user's.
fn folder() -> PathBuf {
    let root = nix::unistd::geteuid().is_root();
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = user.filter(|_| !root).unwrap_or_else(|| "/run".into());
    base.join("efface")
}

/// The numbers of the tickets that are there.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_prefix("ticket-")?.parse().ok()).collect())
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("ticket-{number}"))
}

fn draw(folder: &Path) -> io::Result<Ticket> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // One at a time: a ticket is not seen before it is locked.
    let desk = File::create(folder.join("desk"))?;
    let _desk = Flock::lock(desk, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    let number = numbers(folder)?.into_iter().max().map_or(1, |last| last + 1);
    let path = path(folder, number);
    let lock = Flock::lock(File::create_new(&path)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| io::Error::from(errno))?;
    Ok(Ticket { path, number, _lock: lock })
}

/// How many living tickets have a lower number; those of the dead are taken away.
fn before(folder: &Path, ticket: &Ticket) -> io::Result<usize> {
    let desk = File::create(folder.join("desk"))?;
    let _desk = Flock::lock(desk, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    let mut living = 0;
    for number in numbers(folder)?.into_iter().filter(|number| *number < ticket.number) {
        let path = path(folder, number);
        // It may have been given back in between.
        let Ok(file) = File::open(&path) else { continue };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => living += 1,
        }
    }
    Ok(living)
}
