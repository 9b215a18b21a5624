//! Tests of efface's promises, a file each; `jobs`, `loops`, `preloaded` and `program` are helpers.

mod covered;
mod documents;
mod evidence;
mod faults;
mod file_systems;
mod foreign_text;
mod fuzz;
mod hdparm;
mod interrupts;
mod jobs;
mod kept_files;
mod keys;
mod ledgers;
mod loop_devices;
#[path = "../support/loops.rs"]
mod loops;
mod mismatches;
mod nvme_cli;
mod page;
mod passthrough;
mod plan_files;
mod power_cut;
mod preloaded;
mod program;
mod purge;
mod purge_loop;
mod purge_record;
mod refusals;
mod resume;
mod scenarios;
mod sharing;
mod shred;
mod source_tree;
mod survive;
mod thin;
mod yielding;
