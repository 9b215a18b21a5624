//! What the engine itself costs: filling patterns, and the loop over a disk that does nothing.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use efface::internals::engine::event::Emitter;
use efface::internals::engine::{Settings, Stop, job};
use efface::internals::io::{Buf, Disk, Done, Geometry, IoPath, Op};
use efface::internals::pattern::{Pattern, Seed, chacha};
use efface::internals::plan::{Device, Method, Plan, Policy};

const CHUNK: usize = 1 << 20;
const DISK_BYTES: u64 = 4 << 30;

/// Answers every operation well, at once, and touches no byte.
struct NullDisk {
    io_path: IoPath,
    done: VecDeque<Op>,
}

impl Disk for NullDisk {
    fn geometry(&self) -> Geometry {
        Geometry { size: DISK_BYTES, logical_block: 512, physical_block: 4096, memory_align: 512 }
    }

    fn io_path(&self) -> &IoPath {
        &self.io_path
    }

    fn buffers(&mut self, count: usize, len: usize) -> io::Result<Vec<Buf>> {
        Ok((0..count).map(|_| Buf::new(len, 512)).collect())
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.done.push_back(op);
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Done>, _until: Option<Instant>) -> io::Result<()> {
        out.extend(self.done.drain(..).map(|op| {
            let result = Ok(op.bytes());
            Done { op, result }
        }));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn unchanged(&self, _since: Instant) -> io::Result<()> {
        Ok(())
    }
}

fn patterns(c: &mut Criterion) {
    let mut group = c.benchmark_group("pattern fill of 1 MiB");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let patterns = [
        ("zero", Pattern::zero()),
        ("3 bytes", Pattern::constant(&[0x92, 0x49, 0x24])),
        ("random", Pattern::Random { seed: Seed([1; 32]) }),
    ];
    for (name, pattern) in patterns {
        let mut out = vec![0; CHUNK];
        group.bench_function(name, |b| b.iter(|| pattern.fill(black_box(CHUNK as u64 * 3), &mut out)));
    }
    for (name, fill) in chacha::ways() {
        let mut out = vec![0; CHUNK];
        let seed = Seed([1; 32]);
        let at = black_box(CHUNK as u64 * 3);
        group.bench_function(format!("random by {name}"), |b| b.iter(|| fill(&seed, at, &mut out)));
        // As a job does it where one thread is slower than the device.
        group.bench_function(format!("random by {name} and two threads"), |b| {
            b.iter(|| {
                let (first, second) = out.split_at_mut(CHUNK / 2);
                thread::scope(|scope| {
                    scope.spawn(|| fill(&seed, at + CHUNK as u64 / 2, second));
                    fill(&seed, at, first);
                });
            })
        });
    }
    group.finish();
}

fn cover(c: &mut Criterion) {
    let mut group = c.benchmark_group("the loop over 4 GiB that cost nothing");
    group.throughput(Throughput::Bytes(DISK_BYTES)).sample_size(10);
    let device = Device { size: DISK_BYTES, logical_block: 512, physical_block: 4096 };
    for (name, fill_threads) in [("zero", 1), ("random", 1), ("random", 2)] {
        let method = Method::named(name).unwrap();
        let area = device.area(None, None).unwrap();
        let plan = Plan::new(&method, Policy::None, area, &device, &mut || Ok(Seed([1; 32]))).unwrap();
        group.bench_function(format!("{name}, {fill_threads} to fill"), |b| {
            b.iter(|| {
                let io_path = IoPath::new("null", true, Vec::new());
                let mut disk = NullDisk { io_path, done: VecDeque::new() };
                let (to, _unread) = channel();
                let emitter = Emitter::new(0, to);
                let settings = Settings { fill_threads, ..Settings::default() };
                let stop = Stop::default();
                {
                    let (draw, keep) = (&mut Seed::from_kernel, &mut |_: &job::Checkpoint| {});
                    let context =
                        job::JobContext { settings: &settings, stop: &stop, emitter: &emitter, draw, keep };
                    job::run(&mut disk, plan.clone(), None, context)
                }
            })
        });
    }
    group.finish();
}

criterion_group!(benches, patterns, cover);
criterion_main!(benches);
