//! The turn of jobs that back off: a lock file for each device that their I/O goes through.
//!
//! A job that backs off takes the I/O of another one for a neighbour's: two of them would both leave most of
//! the disk unused. So one works and the others wait, which ends the first sooner and the last no later. It
//! also makes the lowest rate (`--yield-min`) one of the disk, not of the job.

use std::collections::BTreeSet;
use std::io;

use super::super::DeviceNumber;
use crate::directory::{self, Directory, Lock, MODE_OF_RUNTIME_FOLDER};
use crate::io::Turn;

/// `None` where another job has one of these devices. Without a folder for locks, the turn is anyone's.
pub fn take(devices: impl Iterator<Item = DeviceNumber>) -> Option<Turn> {
    // In one order, or two jobs could each wait for the other.
    let devices: BTreeSet<DeviceNumber> = devices.collect();
    let taken = lock_all(&devices).unwrap_or_else(|error| {
        let folder = directory::runtime_folder();
        tracing::debug!("{}: jobs that back off take no turns: {error}", folder.display());
        Some(Vec::new())
    });
    taken.map(|locks| Turn { _locks: locks })
}

fn lock_all(devices: &BTreeSet<DeviceNumber>) -> io::Result<Option<Vec<Lock>>> {
    let directory = Directory::make_all(&directory::runtime_folder(), MODE_OF_RUNTIME_FOLDER)?;
    devices.iter().map(|device| directory.lock(format!("turn-{device}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_jobs_over_one_device_has_the_turn() {
        // No kernel gives such numbers.
        let [shared, one, other]: [DeviceNumber; 3] =
            ["4000:1", "4000:2", "4000:3"].map(|number| number.parse().unwrap());
        let first = take([one, shared].into_iter()).expect("no other job");
        assert!(take([other, shared].into_iter()).is_none());
        let apart = take([other].into_iter());
        assert!(apart.is_some(), "it shares nothing with the first, and the vain try holds nothing");
        drop((first, apart));
        assert!(take([other, shared].into_iter()).is_some());
    }
}
