//! Simulated drives: state machines over the bytes of their commands, for tests and the self-test.

#[cfg(any(test, feature = "internals"))]
pub mod ata;
pub mod nvme;
#[cfg(any(test, feature = "internals"))]
pub mod scsi;
