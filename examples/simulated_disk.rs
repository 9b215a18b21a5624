//! A disk that loses some of its writes, wiped by the engine, and what the read-back finds.

use std::sync::mpsc::channel;

use efface::{
    Device, Emitter, Faults, Holds, JobContext, Method, Plan, Policy, Seed, Settings, SimDisk, Stop, Verdict,
    run_plan,
};

fn main() -> efface::Result<()> {
    let device = Device { size: 64 << 20, logical_block: 512, physical_block: 4096 };
    let area = device.area(None, None)?;
    let plan = Plan::new(&Method::named("random")?, Policy::Full, area, &device, &mut Seed::from_kernel)?;
    let faults = Faults { lose: 50, ..Faults::default() };
    let mut disk = SimDisk::new(vec![b'x'; device.size as usize], 512, 4096, 7, faults);
    let (to, events) = channel();
    let context = JobContext {
        settings: &Settings::default(),
        stop: &Stop::default(),
        emitter: &Emitter::new(0, to),
        draw: &mut Seed::from_kernel,
        keep: &mut |_| {},
    };
    let report = run_plan(&mut disk, plan, None, context);
    println!("{}: {} bytes survive", report.verdict.word(), report.surviving.bytes);
    for (kind, bytes) in report.surviving.kinds() {
        println!("  {bytes} bytes of {kind}");
    }
    drop(events);

    // What the read-back found is what the disk still holds: it answered each lost write as done.
    assert_eq!(report.verdict, Verdict::Surviving);
    for survivor in &report.surviving.runs {
        assert_eq!(survivor.holds, Holds::OldData);
        let (start, end) = (survivor.at.start as usize, survivor.at.end as usize);
        assert!(disk.live()[start..end].iter().all(|byte| *byte == b'x'));
    }
    assert!(report.steps.iter().all(|step| step.errors == 0), "no write was answered with an error");
    let all_old = disk.live().chunks(4096).filter(|block| block.iter().all(|byte| *byte == b'x')).count();
    assert_eq!(report.surviving.bytes, all_old as u64 * 4096, "every lost block was found");
    Ok(())
}
