//! Reload: replaces the active configuration without affecting requests in flight.
//!
//! The file is read, checked and built as at the start, and only then parts are replaced: a faulty file changes
//! nothing. Requests keep the [`Snapshot`] of their start, so no connection is closed. Equal parts are reused
//! ([`Snapshot::build`]); the backends of new pools are discovered and checked before the pools become active.
//!
//! - [`active`]: the active configuration. [`source`]: its file.
//! - [`requests`]: requests to the reloader and their results. [`candidate`]: a new configuration before it is
//!   active. [`reloader`]: the background service.
//! - [`runtime_state`]: the parts of the process that a reload replaces.
//!
//! [`crate::control::plan::changes`] lists the differences.
//!
//! [`Snapshot`]: crate::decision::snapshot::Snapshot
//! [`Snapshot::build`]: crate::decision::snapshot::Snapshot::build

pub mod active;
mod candidate;
pub mod reloader;
pub mod requests;
pub mod runtime_state;
pub mod source;

pub use active::ActiveConfiguration;
pub use reloader::Reloader;
pub use requests::{Draft, Outcome, PlanOutcome, ReloadHandle, ReloadOptions, UpgradeHandle, UpgradeRequest};
pub use runtime_state::{RuntimeState, rules};
pub use source::Source;
