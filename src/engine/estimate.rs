//! Estimate of a job's duration from a short read.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::{Disk, Op};
use crate::plan::Plan;
use crate::range::{Extent, align_down};

/// Reads for no longer than this, and no more than this.
const TIME_MAX: Duration = Duration::from_millis(500);
const READ_MAX: u64 = 256 << 20;
const CHUNK_BYTES: u64 = 1 << 20;
const DEPTH: usize = 8;

/// Bytes a second that this disk reads, in order from the start of the area; `None` if the area is
/// too small to measure. A disk may write at another speed.
pub fn read_rate(disk: &mut dyn Disk, area: Extent) -> Result<Option<u64>> {
    let block = disk.geometry().logical_block;
    let end = align_down(area.end, block).min(area.start + READ_MAX);
    let mut chunks = Extent::new(area.start, end.max(area.start)).chunks(CHUNK_BYTES);
    let failed = |error| Error::failed("it cannot be read").because(error);
    let mut idle = disk.buffers(DEPTH, CHUNK_BYTES as usize).map_err(failed)?;
    let (started, mut read, mut in_flight, mut done) = (disk.clock().now(), 0, 0, Vec::new());
    loop {
        while disk.clock().now() - started < TIME_MAX
            && let Some(mut buf) = idle.pop()
        {
            let Some(chunk) = chunks.next() else { break };
            buf.set_len(chunk.len() as usize);
            disk.submit(Op::Read { at: chunk.start, buf })
                .map_err(|_| failed(std::io::ErrorKind::Other.into()))?;
            in_flight += 1;
        }
        if in_flight == 0 {
            break;
        }
        disk.reap(&mut done, None).map_err(failed)?;
        for each in done.drain(..) {
            in_flight -= 1;
            // A bad block is the wipe's business: here it only counts for nothing.
            read += each.result.unwrap_or(0);
            idle.extend(each.op.into_buf());
        }
    }
    let enough = read >= 8 * CHUNK_BYTES;
    Ok(enough.then(|| (read as f64 / (disk.clock().now() - started).as_secs_f64()) as u64))
}

/// The seconds that a plan takes at this many bytes a second; commands are not counted.
pub fn seconds(plan: &Plan, bytes_per_second: u64) -> u64 {
    let transferred = plan.steps.iter().filter(|step| step.transfers());
    let total = transferred.map(|step| step.bytes_max(plan.area.len())).fold(0, u64::saturating_add);
    total.div_ceil(bytes_per_second.max(1))
}

/// The bytes that the steps of a plan are about, added up.
pub fn plan_bytes(plan: &Plan) -> u64 {
    plan.steps.iter().map(|step| step.bytes_max(plan.area.len())).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::plan::{Device, Method, Policy};

    #[test]
    fn the_estimate_measures_a_rate_and_writes_nothing() {
        let content = vec![7; 16 << 20];
        let operation_time = Duration::from_millis(10);
        let faults = Faults { operation_time, ..Faults::default() };
        let mut disk = SimDisk::new(content.clone(), 512, 4096, 1, faults);
        assert_eq!(read_rate(&mut disk, Extent::new(0, 16 << 20)).unwrap(), Some(100 << 20));
        assert!(disk.live() == content);
        assert_eq!(read_rate(&mut disk, Extent::new(0, 4096)).unwrap(), None);
    }

    #[test]
    fn an_estimate_counts_every_pass() {
        let device = Device { size: 1 << 30, logical_block: 512, physical_block: 4096 };
        let time = |method, policy| {
            let area = device.area(None, None).unwrap();
            let mut draw = || Ok(crate::pattern::Seed([1; 32]));
            let plan = Plan::new(&Method::named(method).unwrap(), policy, area, &device, &mut draw).unwrap();
            seconds(&plan, 1 << 20)
        };
        assert_eq!(time("zero", Policy::None), 1024);
        assert_eq!(time("shred", Policy::Full), 4096 + 18);
        assert_eq!(time("zero", Policy::Standard), 1024 + 2 * 18);
    }
}
