//! The contract of `Disk`, tested on every backend: simulated, synchronous, io_uring; on images and,
//! as root, on loop devices with both sizes of logical block.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Instant;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use tempfile::NamedTempFile;

use super::passthrough::sim::nvme::{NvmeSim, Setup};
use super::sim::{Faults, SimDisk};
use super::sync::SyncDisk;
use super::uring::UringDisk;
use super::{Access, Disk, Done, Op, Target, open_disk};
use crate::loops::Loop;

const SIZE: u64 = 1 << 20;
const DEPTH: usize = 8;
const OLD: u8 = b'o';

type Promise = fn(&mut dyn Disk, &str);

const PROMISES: [Promise; 8] = [
    what_was_written_reads_back_there_and_nowhere_else,
    every_operation_comes_back_once_with_its_own_buffer,
    a_full_queue_hands_the_operation_back,
    nothing_and_beyond_the_end_are_errors,
    reaping_an_idle_disk_returns_at_once,
    zeroed_is_zero_and_the_neighbours_are_not,
    the_last_block_is_reached,
    buffers_can_be_asked_for_again,
];

fn image(size: u64) -> NamedTempFile {
    let image = NamedTempFile::with_prefix("efface-test-").unwrap();
    std::fs::write(image.path(), vec![OLD; size as usize]).unwrap();
    image
}

fn ring(path: &Path) -> UringDisk {
    let target = Target::open(path, Access::WriteAlone).unwrap();
    UringDisk::open(target, DEPTH).unwrap().unwrap_or_else(|(_, reason)| panic!("{reason}"))
}

fn synchronous(path: &Path) -> SyncDisk {
    SyncDisk::new(Target::open(path, Access::WriteAlone).unwrap(), "asked for".into())
}

/// Each promise over a fresh disk of each kind.
#[test]
fn every_disk_keeps_every_promise() {
    for promise in PROMISES {
        for block in [512, 4096] {
            let content = vec![OLD; SIZE as usize];
            promise(&mut SimDisk::new(content.clone(), block, 4096, block, Faults::default()), "simulated");
            let mut setup = Setup::of(content);
            setup.namespaces[0].flbas = u8::from(block == 4096);
            promise(&mut NvmeSim::new(setup).disk(1), "simulated NVMe namespace");
        }
        let file = image(SIZE);
        promise(&mut synchronous(file.path()), "sync on an image");
        let file = image(SIZE);
        promise(&mut ring(file.path()), "io_uring on an image");
        for sector in ["512", "4096"] {
            let content = vec![OLD; SIZE as usize];
            let Some(device) = Loop::new(&content, &["--sector-size", sector]) else { continue };
            promise(&mut ring(&device.node), &format!("io_uring on a loop device, {sector}"));
            let Some(device) = Loop::new(&content, &["--sector-size", sector]) else { continue };
            promise(&mut synchronous(&device.node), &format!("sync on a loop device, {sector}"));
        }
    }
}

/// Carries operations out, as many at once as the disk takes.
fn carry_out(disk: &mut dyn Disk, ops: Vec<Op>) -> Vec<Done> {
    let (count, mut done) = (ops.len(), Vec::new());
    for mut op in ops {
        while let Err(back) = disk.submit(op) {
            op = back;
            disk.reap(&mut done, None).unwrap();
        }
    }
    while done.len() < count {
        disk.reap(&mut done, None).unwrap();
    }
    done
}

fn write(disk: &mut dyn Disk, at: u64, byte: u8, len: usize) -> io::Result<u64> {
    let mut buf = disk.buffers(1, len).unwrap().remove(0);
    buf.fill(byte);
    carry_out(disk, vec![Op::Write { at, buf }]).remove(0).result
}

fn read(disk: &mut dyn Disk, at: u64, len: usize) -> Vec<u8> {
    let buf = disk.buffers(1, len).unwrap().remove(0);
    let done = carry_out(disk, vec![Op::Read { at, buf }]).remove(0);
    assert_eq!(done.result.unwrap(), len as u64);
    done.op.into_buf().unwrap().to_vec()
}

fn what_was_written_reads_back_there_and_nowhere_else(disk: &mut dyn Disk, name: &str) {
    assert_eq!(write(disk, 8192, b'n', 12288).unwrap(), 12288, "{name}");
    disk.flush().unwrap();
    let all = read(disk, 0, SIZE as usize);
    for (at, byte) in all.iter().enumerate() {
        let wanted = if (8192..8192 + 12288).contains(&at) { b'n' } else { OLD };
        assert_eq!(*byte, wanted, "{name}: byte {at}");
    }
}

fn every_operation_comes_back_once_with_its_own_buffer(disk: &mut dyn Disk, name: &str) {
    let bufs = disk.buffers(64, 8192).unwrap();
    let ops = bufs.into_iter().enumerate().map(|(number, mut buf)| {
        buf.fill(number as u8);
        Op::Write { at: number as u64 * 8192, buf }
    });
    let done = carry_out(disk, ops.collect());
    let offsets: BTreeSet<u64> = done.iter().map(|done| done.op.at()).collect();
    assert_eq!((done.len(), offsets.len()), (64, 64), "{name}");
    for Done { op, result } in done {
        assert_eq!(result.unwrap(), 8192, "{name}");
        let number = (op.at() / 8192) as u8;
        assert!(op.into_buf().unwrap().iter().all(|byte| *byte == number), "{name}: another's buffer");
    }
    let back = read(disk, 0, 64 * 8192);
    assert!(
        back.chunks(8192).enumerate().all(|(number, part)| part.iter().all(|byte| *byte == number as u8))
    );
}

fn a_full_queue_hands_the_operation_back(disk: &mut dyn Disk, name: &str) {
    let mut accepted = BTreeMap::new();
    for (number, mut buf) in disk.buffers(4 * DEPTH, 4096).unwrap().into_iter().enumerate() {
        buf.fill(number as u8);
        let at = number as u64 * 4096;
        match disk.submit(Op::Write { at, buf }) {
            Ok(()) => drop(accepted.insert(at, ())),
            Err(op) => {
                assert_eq!((op.at(), op.bytes(), op.name()), (at, 4096, "write"), "{name}");
                assert!(op.into_buf().unwrap().iter().all(|byte| *byte == number as u8), "{name}");
            }
        }
    }
    assert!((1..4 * DEPTH).contains(&accepted.len()), "{name}: {} accepted", accepted.len());
    let mut done = Vec::new();
    while done.len() < accepted.len() {
        disk.reap(&mut done, None).unwrap();
    }
    assert!(done.iter().all(|done| accepted.contains_key(&done.op.at())), "{name}");
}

fn nothing_and_beyond_the_end_are_errors(disk: &mut dyn Disk, name: &str) {
    let mut bufs = disk.buffers(3, 8192).unwrap();
    let mut empty = bufs.remove(0);
    empty.set_len(0);
    let (over, far) = (bufs.remove(0), bufs.remove(0));
    let ops = vec![
        Op::Write { at: 0, buf: empty },
        Op::Write { at: SIZE - 4096, buf: over },
        Op::Read { at: u64::MAX - 4095, buf: far },
        Op::Zero { at: SIZE, len: 4096 },
    ];
    for done in carry_out(disk, ops) {
        let errno = done.result.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::EINVAL), "{name}: {:?}", done.op);
    }
    assert!(read(disk, SIZE - 8192, 8192).iter().all(|byte| *byte == OLD), "{name}");
}

fn reaping_an_idle_disk_returns_at_once(disk: &mut dyn Disk, name: &str) {
    let mut done = Vec::new();
    disk.reap(&mut done, None).unwrap();
    assert!(done.is_empty(), "{name}");
    // With something in flight and the time come, it returns too, with what there is.
    let buf = disk.buffers(1, 4096).unwrap().remove(0);
    disk.submit(Op::Read { at: 0, buf }).unwrap();
    while done.is_empty() {
        disk.reap(&mut done, Some(Instant::now())).unwrap();
    }
    assert_eq!(done.len(), 1, "{name}");
}

fn zeroed_is_zero_and_the_neighbours_are_not(disk: &mut dyn Disk, name: &str) {
    let done = carry_out(disk, vec![Op::Zero { at: 65536, len: 131072 }]).remove(0);
    assert_eq!(done.result.unwrap(), 131072, "{name}");
    disk.flush().unwrap();
    let all = read(disk, 0, SIZE as usize);
    assert!(all[65536..65536 + 131072].iter().all(|byte| *byte == 0), "{name}");
    assert!(all[65535] == OLD && all[65536 + 131072] == OLD, "{name}");
}

fn the_last_block_is_reached(disk: &mut dyn Disk, name: &str) {
    let block = disk.geometry().logical_block;
    assert_eq!(disk.geometry().size, SIZE, "{name}");
    assert_eq!(write(disk, SIZE - block, b'n', block as usize).unwrap(), block, "{name}");
    let tail = read(disk, SIZE - 8192, 8192);
    let old = 8192 - block as usize;
    assert!(tail[..old].iter().all(|byte| *byte == OLD), "{name}");
    assert!(tail[old..].iter().all(|byte| *byte == b'n'), "{name}");
}

fn buffers_can_be_asked_for_again(disk: &mut dyn Disk, name: &str) {
    for (count, len) in [(4, 4096), (0, 4096), (1, 65536), (16, 8192)] {
        let bufs = disk.buffers(count, len).unwrap();
        assert_eq!((bufs.len(), bufs.iter().all(|buf| buf.len() == len)), (count, true), "{name}");
        let ops = bufs.into_iter().zip(0..).map(|(buf, number)| Op::Write { at: number * len as u64, buf });
        let done = carry_out(disk, ops.collect());
        assert!(done.iter().all(|done| matches!(done.result, Ok(bytes) if bytes == len as u64)), "{name}");
    }
}

#[test]
fn a_read_only_target_gives_errors_and_keeps_its_bytes() {
    let file = image(SIZE);
    let mut disk = open_disk(Target::open(file.path(), Access::Read).unwrap(), DEPTH).unwrap();
    assert!(write(&mut *disk, 0, b'n', 4096).is_err());
    drop(disk);
    assert!(std::fs::read(file.path()).unwrap() == vec![OLD; SIZE as usize]);
}

#[test]
fn the_odd_tail_of_an_image_is_written_and_the_image_does_not_grow() {
    for size in [1, 4096 + 1, 10_000] {
        let file = image(size);
        let mut disk = ring(file.path());
        assert!(!disk.io_path().direct, "an odd size goes through the page cache");
        assert_eq!(write(&mut disk, 0, b'n', size as usize).unwrap(), size);
        disk.flush().unwrap();
        drop(disk);
        assert_eq!(std::fs::read(file.path()).unwrap(), vec![b'n'; size as usize]);
    }
}

#[test]
fn a_ring_lets_go_of_its_device_at_once() {
    let Some(device) = Loop::new(&vec![OLD; SIZE as usize], &[]) else { return };
    for round in 0..100 {
        let target = Target::open(&device.node, Access::WriteAlone);
        let target = target.unwrap_or_else(|error| panic!("reopen {round}: {error}"));
        let mut disk =
            UringDisk::open(target, DEPTH).unwrap().unwrap_or_else(|(_, reason)| panic!("{reason}"));
        write(&mut disk, 0, round as u8, 65536).unwrap();
    }
}

/// On a thread of its own, where this syscall (only with this second argument, if one is given)
/// answers with this errno.
fn where_refused(syscall: i64, argument: Option<u64>, errno: i32, then: impl FnOnce() + Send) {
    let refuse = || {
        let rules = argument.map(|value| {
            let condition =
                SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
            SeccompRule::new(vec![condition]).unwrap()
        });
        let rules = [(syscall, rules.into_iter().collect())].into_iter().collect();
        let (pass, answer) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
        let filter = SeccompFilter::new(rules, pass, answer, std::env::consts::ARCH.try_into().unwrap());
        seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
        then()
    };
    thread::scope(|scope| scope.spawn(refuse).join().unwrap())
}

#[test]
fn without_a_ring_one_io_at_a_time_is_used_and_recorded() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
        let file = image(SIZE);
        where_refused(libc::SYS_io_uring_setup, None, errno, || {
            let mut disk = open_disk(Target::open(file.path(), Access::WriteAlone).unwrap(), DEPTH).unwrap();
            assert_eq!(disk.io_path().backend, "sync");
            let reason = io::Error::from_raw_os_error(errno).to_string();
            assert!(disk.io_path().fallbacks[0].contains(&reason), "{:?}", disk.io_path());
            what_was_written_reads_back_there_and_nowhere_else(&mut *disk, "sync");
        });
    }
}

#[test]
fn buffers_that_cannot_be_registered_are_used_all_the_same() {
    const REGISTER_BUFFERS: u64 = 0;
    let file = image(SIZE);
    where_refused(libc::SYS_io_uring_register, Some(REGISTER_BUFFERS), libc::ENOMEM, || {
        let mut disk = ring(file.path());
        what_was_written_reads_back_there_and_nowhere_else(&mut disk, "without registered buffers");
        assert!(disk.buffers(1, 4096).unwrap()[0].slot().is_none());
        let fallbacks = &disk.io_path().fallbacks;
        assert!(fallbacks.len() == 1 && fallbacks[0].contains("without registered buffers"), "{fallbacks:?}");
    });
}
