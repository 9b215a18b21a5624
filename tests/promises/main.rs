//! What efface promises, a file each; `jobs` and `loops` are what the tests work with.

mod faults;
mod house;
mod interrupts;
mod jobs;
mod loop_devices;
mod loops;
mod power_cut;
mod refusals;
