//! efface wipes Linux block devices at full device speed, and proves what it did.
//!
//! Data flow: a device is claimed ([`Claim`]), an [`Order`] becomes a [`Plan`], one job per device runs it
//! over a [`Disk`], a [`Record`] holds the claim, and its [`Verdict`] becomes the exit code.
//! [`Wipe`] is all of this in one call:
//!
//! ```
//! use efface::{Order, Unattended, Wipe};
//!
//! # fn main() -> efface::Result<()> {
//! # let image = tempfile::NamedTempFile::new().unwrap();
//! # std::fs::write(&image, vec![1; 1 << 20]).unwrap();
//! let order = Order { image: true, ..Order::default() };
//! let outcome = Wipe::new([image.path()], order).run(&mut Unattended)?;
//! assert_eq!(outcome.verdict(), efface::Verdict::Wiped);
//! # Ok(())
//! # }
//! ```
//!
//! `ARCHITECTURE.md` says which module may use which, and why. Without the feature `cli` only the
//! library is built: no command line, no terminal.

mod device;
mod digest;
mod directory;
mod engine;
mod error;
mod io;
mod journal;
mod luks;
mod parallel;
mod pattern;
mod plan;
mod printable;
#[cfg(feature = "cli")]
mod progress;
mod range;
mod record;
mod session;
mod units;
mod verdict;
#[cfg(feature = "cli")]
mod view;

/// The program's command line, for its `main` alone.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use device::guard::{Claim, Examined, Request};
pub use device::identity::{Expected, Identity};
pub use device::{DeviceNumber, Effect, Findings, Force, Layer, Refusal, Signature, Thin, Tree, select};
pub use engine::event::{Emitter, Event};
pub use engine::fleet::Parallel;
pub use engine::job::{Checkpoint, JobContext, JobReport, Resume, run as run_plan};
pub use engine::step::{ListedExtents, StepReport};
pub use engine::{Settings, Stop};
pub use error::{Error, Kind, Result};
pub use io::sim::{AliasFault, Faults, SimDisk};
pub use io::{Buf, Disk, Done, Geometry, IoPath, Op};
pub use journal::JournalStore;
pub use pattern::{Pattern, Seed};
pub use plan::{
    Device, KeyPlan, Method, OnMismatch, Operation, Pass, Plan, Policy, SCHEMES, Sample, Scheme, Scope, Step,
};
pub use range::{Extent, ExtentSet};
pub use record::certificate::{Certificate, Signed};
pub use record::claim::Category;
pub use record::destination::Destination;
pub use record::details::Details;
pub use record::evidence::Evidence;
pub use record::ledger::Ledger;
pub use record::sign::{PublicKeys, SecretKey};
pub use record::{Assignment, Record, Subject};
pub use session::outline::{Estimate, Outline};
pub use session::plan_file::{PlanFile, Plans};
pub use session::{Observer, Order, Outcome, Passes, Question, Slots, Targets, Unattended, Wipe};
pub use verdict::Verdict;

/// What the tests look into; no part of the interface.
#[doc(hidden)]
pub mod internals {
    pub mod device {
        pub use crate::device::*;
    }
    pub mod digest {
        pub use crate::digest::*;
    }
    pub mod directory {
        pub use crate::directory::*;
    }
    pub mod engine {
        pub use crate::engine::*;
    }
    pub mod io {
        pub use crate::io::*;
    }
    pub mod journal {
        pub use crate::journal::*;
    }
    pub mod luks {
        pub use crate::luks::*;
    }
    pub mod pattern {
        pub use crate::pattern::*;
    }
    pub mod plan {
        pub use crate::plan::*;
    }
    pub mod range {
        pub use crate::range::*;
    }
    pub mod record {
        pub use crate::record::*;
    }
    pub mod session {
        pub use crate::session::*;
    }
    pub mod verdict {
        pub use crate::verdict::*;
    }
    #[cfg(feature = "cli")]
    pub mod progress {
        pub use crate::progress::*;
    }
    #[cfg(feature = "cli")]
    pub mod view {
        pub use crate::view::*;
    }
}

#[cfg(test)]
#[path = "../tests/support/loops.rs"]
mod loops;
