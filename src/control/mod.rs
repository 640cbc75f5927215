//! Changes while the process runs, and the API through which operators see and make them.
//!
//! - [`plan`]: what a new configuration would change, as text and for recent requests.
//! - [`reload`]: replaces the running configuration without affecting requests in flight.
//! - [`state_file`]: keeps operator overrides, registered backends and discovered lists for the next process, in files of
//!   [`checked_file`]. [`list_keeper`]: writes the lists.
//! - [`filter_files`]: reads changed files of filters again. [`metrics`]: collects metrics. [`periodic`]: the service that does
//!   such work from time to time.
//! - [`access`]: who may call the control API over TCP.
//! - [`api`]: the control API, and its client.

pub mod access;
pub mod checked_file;
mod filter_files;
mod list_keeper;
pub mod metrics;
pub mod periodic;
pub mod plan;
pub mod state_file;
pub mod reload;
pub mod api;
