//! Discovery of the backends of a pool: configured addresses, names that are resolved periodically, and sources.
//!
//! - [`members`]: combines them, and attaches the state of a backend to its address. [`target`]: what a configured
//!   address names.
//! - [`config`]: the sources of a pool. [`source`]: their interface, with a file or folder for each.
//! - [`kept`]: the last good list of a source. [`removal`]: how many backends disappear at once. [`address_rules`]: which
//!   addresses are accepted. [`labels`]: labels of a backend. `identity`: its address for Pingora.

pub mod address_rules;
pub mod config;
mod identity;
pub mod kept;
pub mod labels;
pub mod members;
pub mod removal;
pub mod source;
pub mod target;

pub use config::Sources;
pub use members::{Attach, Discovered, Discovery, Member, Origin, SharedDiscovery};
pub use target::Target;
