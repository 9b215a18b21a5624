//! How the registers of a simulated drive come back: as sense data, in the layouts of kernels and bridges.

use super::commands::{Ended, Taskfile};
use crate::io::passthrough::{Data, Outcome, Reply};

/// How the registers come back. Of a success Linux makes a descriptor always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SenseLayout {
    /// Linux, where descriptors are asked for (D_SENSE).
    Descriptor,
    /// Linux 6.1.
    Fixed6_1,
    /// Linux 6.12, as SAT has it.
    Fixed6_12,
    /// They do not come back, nor does a failure.
    Absent,
    /// They are zeroes.
    Zero,
}

const CHECK_CONDITION: u16 = 2;

/// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
pub(super) fn refused_on_the_way(layout: SenseLayout) -> Reply {
    let sense = match layout {
        SenseLayout::Descriptor => vec![0x72, 5, 0x20, 0, 0, 0, 0, 0],
        _ => vec![0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0],
    };
    Reply { sense, ..Reply::of(Outcome::Status(CHECK_CONDITION)) }
}

pub(super) fn reply(layout: SenseLayout, taskfile: &Taskfile, ended: Ended) -> Reply {
    let failed = ended.status & 1 != 0;
    if layout == SenseLayout::Absent || !(failed || taskfile.wants_registers) {
        let data = if failed { Vec::new() } else { cut(ended.data, &taskfile.data) };
        return Reply { data, ..Reply::of(Outcome::Status(0)) };
    }
    let sense = match layout {
        SenseLayout::Fixed6_1 if failed => {
            let mut sense = start(0x70, taskfile, &ended);
            sense[8..12].copy_from_slice(&[ended.error, ended.status, 0x40, ended.count as u8]);
            sense[16] = sense[15];
            sense[15] = 0;
            sense[17..20].copy_from_slice(&ended.lba.to_le_bytes()[..3]);
            sense
        }
        SenseLayout::Fixed6_12 if failed => {
            let mut sense = start(0xf0, taskfile, &ended);
            sense[3..7].copy_from_slice(&[ended.error, ended.status, 0x40, ended.count as u8]);
            sense[8] = sense[15];
            sense[15] = 0;
            sense[9..12].copy_from_slice(&ended.lba.to_le_bytes()[..3]);
            sense
        }
        SenseLayout::Zero => vec![0; 32],
        _ => descriptor(taskfile, &ended),
    };
    Reply { sense, ..Reply::of(Outcome::Status(CHECK_CONDITION)) }
}

/// The fixed format with its sense key, and in byte 15, for now, the flags of what has no place.
fn start(code: u8, taskfile: &Taskfile, ended: &Ended) -> Vec<u8> {
    let mut sense = vec![0; 32];
    (sense[0], sense[2], sense[7]) = (code, 0x0b, 10);
    if taskfile.extended {
        let upper = [ended.count >> 8 != 0, ended.lba >> 24 != 0].map(u8::from);
        sense[15] = 0x80 | upper[0] << 6 | upper[1] << 5;
    }
    sense
}

fn descriptor(taskfile: &Taskfile, ended: &Ended) -> Vec<u8> {
    let failed = ended.status & 1 != 0;
    let (key, qualifier) = if failed { (0x0b, 0) } else { (0x01, 0x1d) };
    let mut sense = vec![0x72, key, 0, qualifier, 0, 0, 0, 14, 9, 12];
    let ([count_high, count], lba) = (ended.count.to_be_bytes(), ended.lba.to_le_bytes());
    let upper = |byte: u8| if taskfile.extended { byte } else { 0 };
    sense.extend([u8::from(taskfile.extended), ended.error, upper(count_high), count]);
    sense.extend([upper(lba[3]), lba[0], upper(lba[4]), lba[1], upper(lba[5]), lba[2]]);
    sense.extend([0x40, ended.status]);
    sense.resize(32, 0);
    sense
}

/// As many bytes as the host has memory for.
fn cut(mut data: Vec<u8>, asked: &Data) -> Vec<u8> {
    let Data::In(bytes) = asked else { return Vec::new() };
    data.resize(*bytes, 0);
    data
}
