//! Rendering of records, plans and lists as text, tables, HTML and SVG.

mod capabilities;
pub mod html;
mod inventory;
mod jobs;
pub mod map;
pub mod outline;
pub mod purge;
pub mod text;

pub use inventory::inventory_table;
pub use jobs::jobs_table;
