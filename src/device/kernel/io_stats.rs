//! I/O counters of a disk and of the devices below it, over all users
//! (Documentation/admin-guide/iostats.rst).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::graph::read::Stack;
use super::super::place::Place;
use super::super::{DeviceNumber, Tree};
use super::sysfs::SECTOR_BYTES;
use crate::io::{IoStats, Traffic};

#[derive(Debug)]
struct CounterFile {
    number: DeviceNumber,
    folder: PathBuf,
    below: bool,
}

/// The counters that our neighbours on a disk show in.
#[derive(Debug, Default)]
pub(in crate::device) struct StackCounters(Vec<CounterFile>);

impl StackCounters {
    /// Of a device and the disk that it lies on, and of all below: what device-mapper and md stand
    /// on, and the disk of the file system that a loop device's file, or an image, lies in.
    pub fn of(tree: &Tree, stack: &Stack, place: Place) -> StackCounters {
        let mut counters = StackCounters::default();
        counters.add(tree, stack, place, false);
        counters
    }

    fn add(&mut self, tree: &Tree, stack: &Stack, place: Place, below: bool) {
        let (number, below) = match place {
            Place::Device(number) => (number, below),
            Place::File(inode) => (DeviceNumber(inode.device), true),
        };
        // A file system without a device of its own (tmpfs, btrfs) shows nothing.
        let Ok(block) = tree.block(number) else { return };
        if self.0.iter().any(|gauge| gauge.number == number) {
            return;
        }
        self.0.push(CounterFile { number, folder: block.folder().to_path_buf(), below });
        for edge in stack.graph.edges_below(Place::Device(number)) {
            // A partition shows what its disk does, in the same shapes.
            self.add(tree, stack, edge.lower, below || !edge.view);
        }
    }

    /// All devices whose counters these are.
    pub fn numbers(&self) -> impl Iterator<Item = DeviceNumber> {
        self.0.iter().map(|counter| counter.number)
    }

    pub fn read(&self) -> Vec<IoStats> {
        self.0.iter().map(CounterFile::read).collect()
    }
}

impl CounterFile {
    /// Nothing, where the device is gone or does not count.
    fn read(&self) -> IoStats {
        let (stat, in_flight) = (self.numbers("stat"), self.numbers("inflight"));
        let field = |number: usize| stat.get(number).copied().unwrap_or_default();
        let reads = Traffic {
            bytes: field(2) * SECTOR_BYTES,
            ended: field(0),
            ended_in: Duration::from_millis(field(3)),
            in_flight: in_flight.first().copied().unwrap_or_default(),
        };
        let writes = Traffic {
            bytes: (field(6) + field(13)) * SECTOR_BYTES,
            ended: field(4),
            ended_in: Duration::from_millis(field(7)),
            in_flight: in_flight.get(1).copied().unwrap_or_default(),
        };
        let flushes =
            Traffic { ended: field(15), ended_in: Duration::from_millis(field(16)), ..Traffic::default() };
        IoStats { below: self.below, reads, writes, flushes }
    }

    fn numbers(&self, file: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.split_whitespace().map_while(|number| number.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{FakeTree, SDA};
    use super::*;

    #[test]
    fn a_volume_has_its_own_load_and_that_of_all_it_stands_on() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        fake.partition(SDA, "8:1");
        let volume = fake.device("virtual/block/dm-3", "253:3");
        fake.hold(&format!("{SDA}/sda1"), "virtual/block/dm-3");
        fake.write(&format!("sys/devices/{SDA}/stat"), "  10 1 16 30  20 2 32 40  3 50 60  5 0 64 7 8 9\n");
        fake.write(&format!("sys/devices/{SDA}/inflight"), "       3        0\n");
        let counters =
            StackCounters::of(&fake.tree, &Stack::read(&fake.tree).unwrap(), Place::Device(volume));
        let numbers: Vec<String> = counters.0.iter().map(|gauge| gauge.number.to_string()).collect();
        assert_eq!(numbers, ["253:3", "8:1", "8:0"]);
        let ms = Duration::from_millis;
        let reads = Traffic { bytes: 16 * 512, ended: 10, ended_in: ms(30), in_flight: 3 };
        let writes = Traffic { bytes: (32 + 64) * 512, ended: 20, ended_in: ms(40), in_flight: 0 };
        let flushes = Traffic { ended: 8, ended_in: ms(9), ..Traffic::default() };
        let disk = IoStats { below: true, reads, writes, flushes };
        let silent = IoStats { below: true, ..IoStats::default() };
        assert_eq!(counters.read(), [IoStats::default(), silent, disk]);
    }

    #[test]
    fn a_partition_and_its_disk_show_our_bytes_as_they_are() {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        let partition = fake.partition(SDA, "8:1");
        let counters =
            StackCounters::of(&fake.tree, &Stack::read(&fake.tree).unwrap(), Place::Device(partition));
        assert_eq!(counters.0.len(), 2);
        assert!(counters.read().iter().all(|load| !load.below));
    }
}
