//! efface wipes Linux block devices at their own speed, and proves what it did.
//!
//! The way through the house: arguments ([`cli`]) become a plan ([`plan`]), [`device::guard`]
//! claims the device, [`engine::fleet`] runs one job a device over the disk's seam ([`io`]), events
//! go to the reports ([`report`]), and the [`verdict`] becomes the exit code. `ARCHITECTURE.md`
//! says who may import whom, and why.

pub mod cli;
pub mod device;
pub mod directory;
pub mod engine;
pub mod error;
pub mod io;
pub mod journal;
pub mod luks;
pub mod pattern;
pub mod plan;
pub mod printable;
pub mod range;
pub mod report;
pub mod verdict;

#[cfg(test)]
#[path = "../tests/support/loops.rs"]
mod loops;
