//! efface wipes Linux block devices at their own speed, and proves what it did.
//!
//! Data flow: an order becomes a plan ([`plan`]), [`device::guard`] claims the device,
//! [`engine::fleet`] runs one job a device over [`io::Disk`], a [`record`] says what may be claimed,
//! and its [`verdict`] becomes the exit code. [`session`] is all of this in one call:
//!
//! ```
//! use efface::session::{Order, Unattended, Wipe};
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

#[cfg(feature = "cli")]
pub mod cli;
pub mod device;
pub mod digest;
pub mod directory;
pub mod engine;
pub mod error;
pub mod io;
pub mod journal;
pub mod luks;
pub mod pattern;
pub mod plan;
pub mod printable;
#[cfg(feature = "cli")]
pub mod progress;
pub mod range;
pub mod record;
pub mod session;
pub mod units;
pub mod verdict;
#[cfg(feature = "cli")]
pub mod view;

pub use engine::event::Event;
pub use error::{Error, Result};
pub use session::Observer;
pub use verdict::Verdict;

#[cfg(test)]
#[path = "../tests/support/loops.rs"]
mod loops;
