//! The real tools of sg3_utils (1.46 where this was written) send a drive what efface sends, and read from its answers
//! what efface reads. Of those that erase: what they send, and what they make of a drive that fails; docs/purge.md
//! has it.

use efface::internals::io::passthrough::PassThrough;
use efface::internals::io::passthrough::sim::scsi::Setup;

use crate::preloaded::{ScsiRun, Tool};

mod answers;
mod commands;

const PACKAGE: &str = "sg3-utils";

struct Sg3Utils;

impl Sg3Utils {
    /// `None` where the test is skipped.
    fn find() -> Option<Sg3Utils> {
        Tool::find("sg_sanitize", PACKAGE).map(|_| Sg3Utils)
    }

    /// Runs one of them to its end, on a device that is this drive.
    fn run(&self, drive: &mut dyn PassThrough, name: &str, arguments: &[&str]) -> ScsiRun {
        Tool::find(name, PACKAGE).expect("all are in one package").run_scsi(drive, arguments)
    }

    /// What one prints where it succeeds.
    fn printed(&self, drive: &mut dyn PassThrough, name: &str, arguments: &[&str]) -> String {
        let ScsiRun { commands, output } = self.run(drive, name, arguments);
        assert!(output.status.success() && !commands.is_empty(), "{name} {arguments:?}: {output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

fn setup() -> Setup {
    Setup::of(vec![b'o'; 8192])
}
