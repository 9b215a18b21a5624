//! The host-wide queue of `--slots N`: at most N efface processes work, the others wait in FIFO order.
//!
//! Each takes a ticket: a file with the next number, locked by its holder, so that the lock dies with
//! it. A process with fewer than N live tickets before its own may work. A ticket is locked when it appears,
//! so that no other lock is needed.

use std::io;
use std::thread;
use std::time::Duration;

use super::{Observer, Slots};
use crate::directory::{self, Directory, Lock, MODE_OF_RUNTIME_FOLDER};
use crate::engine::Stop;
use crate::error::{Error, Result};

const RETRY: Duration = Duration::from_millis(100);

/// The place in the queue; given back when it is dropped, or the process ends.
pub struct Ticket {
    directory: Directory,
    number: u64,
    _lock: Lock,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.directory.remove(name(self.number)).ok();
    }
}

/// Waits for a slot; `None` if a stop ended the wait.
pub fn take(slots: Slots, stop: &Stop, observer: &mut dyn Observer) -> Result<Option<Ticket>> {
    let Slots { count: slots, wait } = slots;
    let folder = directory::runtime_folder();
    let failed = |error| {
        Error::usage("--slots: no place can be taken")
            .because(error)
            .with_remedy("run it as one who may write there, or leave the option out")
            .on(&folder)
    };
    let directory = Directory::make_all(&folder, MODE_OF_RUNTIME_FOLDER).map_err(failed)?;
    let ticket = draw(directory).map_err(failed)?;
    let mut reported = None;
    loop {
        let before = before(&ticket).map_err(failed)?;
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
        if reported != Some(before) {
            reported = Some(before);
            observer.queued(before, slots);
        }
        thread::sleep(RETRY);
    }
}

/// The numbers of the tickets that are there.
fn numbers(directory: &Directory) -> io::Result<Vec<u64>> {
    let names = directory.names()?;
    Ok(names.iter().filter_map(|name| name.strip_prefix("ticket-")?.parse().ok()).collect())
}

fn name(number: u64) -> String {
    format!("ticket-{number}")
}

fn draw(directory: Directory) -> io::Result<Ticket> {
    loop {
        let last = numbers(&directory)?.into_iter().max().unwrap_or(0);
        let number = last.checked_add(1).ok_or_else(|| io::Error::other("no number is left"))?;
        if let Some(ticket) = take_number(&directory, number)? {
            return Ok(ticket);
        }
    }
}

/// The ticket with this number; `None` where another process has it, or a higher one.
fn take_number(directory: &Directory, number: u64) -> io::Result<Option<Ticket>> {
    let draft = directory.draft()?;
    let lock = draft.lock()?;
    match draft.link(name(number)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        linked => linked?,
    }
    let ticket = Ticket { directory: directory.clone(), number, _lock: lock };
    // One with a higher number may have looked before this one was there, and not have counted it.
    let highest = numbers(directory)?.into_iter().max();
    Ok((highest == Some(number)).then_some(ticket))
}

/// How many living tickets have a lower number; those of the dead are taken away.
fn before(ticket: &Ticket) -> io::Result<usize> {
    let mut living = 0;
    for number in numbers(&ticket.directory)?.into_iter().filter(|number| *number < ticket.number) {
        if ticket.directory.is_locked(&name(number))? {
            living += 1;
        } else if let Err(error) = ticket.directory.remove(name(number))
            // It may have been given back in between.
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(living)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn of_many_processes_that_queue_at_once_one_works_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::trusted(folder.path()).unwrap();
        let at_work = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let ticket = draw(directory.clone()).unwrap();
                        while before(&ticket).unwrap() > 0 {
                            thread::yield_now();
                        }
                        assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        at_work.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(numbers(&directory).unwrap().is_empty(), "every ticket was given back");
    }

    /// As where the number was free at the first look, and its holder left before it was taken.
    #[test]
    fn no_ticket_is_taken_below_one_that_may_be_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::trusted(folder.path()).unwrap();
        let at_work = take_number(&directory, 2).unwrap().unwrap();
        assert_eq!(before(&at_work).unwrap(), 0);
        assert!(take_number(&directory, 1).unwrap().is_none(), "the second look");
        assert!(take_number(&directory, 2).unwrap().is_none(), "the name is taken");
        assert_eq!(numbers(&directory).unwrap(), [2]);
        assert_eq!(take_number(&directory, 3).unwrap().map(|ticket| ticket.number), Some(3));
    }

    #[test]
    fn a_ticket_of_a_process_that_died_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ticket-7"), "").unwrap();
        let directory = Directory::trusted(folder.path()).unwrap();
        let first = draw(directory.clone()).unwrap();
        let second = draw(directory.clone()).unwrap();
        assert_eq!((first.number, second.number), (8, 9));
        assert_eq!((before(&first).unwrap(), before(&second).unwrap()), (0, 1));
        assert_eq!(numbers(&directory).unwrap().len(), 2);
        std::fs::write(folder.path().join(name(u64::MAX)), "").unwrap();
        assert!(draw(directory).err().unwrap().to_string().contains("no number is left"));
    }
}
