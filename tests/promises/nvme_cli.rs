//! The real `nvme` sends a drive what efface sends, and reads from its answers what efface reads: over a simulated
//! drive that answers its ioctls, and over pages of random numbers.

use efface::internals::io::passthrough::sim::nvme::{ControllerSetup, NamespaceSetup, Setup};

mod answers;
mod commands;
mod tool;

/// FLBAS and DPS: all that a format has to keep, indexes of the table beyond 15 among them.
const FORMATS: [(u8, u8); 6] = [(0x00, 0x0), (0x01, 0x0), (0x12, 0x1), (0x02, 0xa), (0x31, 0x3), (0x23, 0xb)];

/// The namespaces 1, 2 and 5, all but the last attached to this controller, and all to another one.
fn setup() -> Setup {
    let mut setup = Setup::of(vec![0xab; 1 << 16]);
    for (nsid, write_protected) in [(2, true), (5, false)] {
        let other = NamespaceSetup { nsid, write_protected, ..setup.namespaces[0].clone() };
        setup.namespaces.push(other);
    }
    setup.controllers[0].attached = vec![1, 2];
    setup.controllers.push(ControllerSetup { id: 0x1234, attached: vec![1, 2, 5] });
    setup
}
