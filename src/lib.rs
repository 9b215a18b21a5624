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

// The feature makes every module reachable, and with it what is no part of the interface.
#![cfg_attr(not(feature = "internals"), deny(missing_docs, unnameable_types, clippy::missing_errors_doc))]
// What the program alone uses is a part of the library all the same, so that it is checked with it.
#![cfg_attr(not(any(feature = "cli", feature = "internals")), allow(dead_code, unused_imports))]

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
#[allow(missing_docs, unnameable_types, clippy::missing_errors_doc)]
pub mod cli;

pub use device::guard::{Claim, Examined, Request};
pub use device::identity::{DeviceKind, Expected, Identity, Inode};
pub use device::{
    DeviceNumber, Effect, Findings, Force, Layer, Proof, Refusal, Signature, Thin, Tree, WriteCounter, select,
};
pub use engine::event::{Emitter, Event};
pub use engine::fleet::Parallel;
pub use engine::job::{
    Checkpoint, JobContext, JobProcess, JobReport, Resume, Resumption, SurveyResult, Verification,
    run as run_plan,
};
pub use engine::sampling::Bound;
pub use engine::step::{ListedExtents, StepReport, Yielding};
pub use engine::survivors::{Holds, Survivor, Survivors};
pub use engine::{Settings, Stop, Yield};
pub use error::{Error, Kind, Result};
pub use io::clock::SimClock;
pub use io::sim::{AliasFault, Faults, SimDisk};
pub use io::{Buf, Clock, Disk, Done, Geometry, IoPath, IoStats, Medium, Op, SystemClock, Traffic, Turn};
pub use journal::{JournalStore, ListedJob, LiveStatus, Summary};
pub use luks::data::DataSample;
pub use luks::{KeyArea, Keyslot, KeyslotKind};
pub use pattern::{Pattern, Seed};
pub use plan::{
    Device, EarlierCheck, KeyPlan, Method, OnMismatch, Operation, Pass, Plan, Policy, SCHEMES, Sample,
    Scheme, Scope, Step,
};
pub use range::{Extent, ExtentSet};
pub use record::certificate::{Certificate, Signed};
pub use record::claim::Category;
pub use record::destination::Destination;
pub use record::details::{Details, JobDetails, MediaDetails, Person};
pub use record::evidence::Evidence;
pub use record::ledger::Ledger;
pub use record::sign::{Envelope, EnvelopeSignature, PublicKey, PublicKeys, SecretKey};
pub use record::{Assignment, Host, Link, Record, Subject, Tool};
pub use session::outline::{Estimate, Outline};
pub use session::plan_file::{PlanFile, Plans};
pub use session::{Observer, Order, Outcome, Passes, Question, Slots, Targets, Unattended, Wipe};
pub use verdict::Verdict;

/// Purges: drives that erase themselves, and what is recorded of it.
pub mod purge {
    pub use crate::device::purge_scope::{
        PurgeScope, Reach, ScopedController, ScopedNamespace, ScopedNode, SubsystemKey,
    };
    pub use crate::engine::purge::conclusion::{
        Canaries, Conclusion, DriveStatus, FormatEvidence, Proof, SanitizeEvidence, Settled, Unproven,
    };
    pub use crate::engine::purge::known::BlockClasses;
    pub use crate::engine::purge::report::{Evidence, NamespaceReport, PurgeReport, RungReport, SentCommand};
    pub use crate::engine::purge::whole::Change;
    pub use crate::io::passthrough::nvme::Unknown;
    pub use crate::io::passthrough::nvme::identify::{
        BlockFormat, IndependentNamespace, Namespace, NamespaceNames,
    };
    pub use crate::io::passthrough::nvme::logs::{
        Phase, SanitizeEstimates, SanitizeLog, SanitizeState, SanitizeStatus,
    };
    pub use crate::io::passthrough::nvme::probe::NamespaceFacts;
    pub use crate::io::passthrough::nvme::status::{Answer, Meaning, Status, WriteProtection};
    pub use crate::io::passthrough::{Outcome, Reply};
    pub use crate::plan::{Attempt, Choice, Grade, PurgePolicy, Rung, WhyNot};
    pub use crate::record::purge::PurgeRecord;
    pub use crate::session::purge::{
        Purge, PurgeOrder, PurgeOutline, PurgeQuestion, PurgeTargets, read_plan,
    };
}

/// What the tests look into: only with the feature that they alone ask for.
#[cfg(feature = "internals")]
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
