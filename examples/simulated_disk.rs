//! A disk that loses some of its writes, wiped by the engine, and what the read-back finds.

use std::sync::mpsc::channel;

use efface::{
    Device, Emitter, Faults, JobContext, Method, Plan, Policy, Seed, Settings, SimDisk, Stop, run_plan,
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
    Ok(())
}
