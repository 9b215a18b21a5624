//! Purging: the drive erases itself, and what it says of that is weighed.
//!
//! "Purged" needs four things: the drive accepted our command; its status says that it is done, and is about
//! that command; no known block is left; the drive is the same and whole.

pub mod conclusion;
pub mod job;
pub mod known;
pub mod orders;
pub mod report;
pub mod whole;
