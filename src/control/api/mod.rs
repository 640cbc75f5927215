//! The control API: HTTP with JSON on a Unix-domain socket in a private folder, and at TCP addresses.
//!
//! [`endpoints()`] is the table of all endpoints. The API has its own thread, so that calls do not delay
//! requests.
//!
//! - [`socket`]: access control and the service. [`endpoint`], [`input`], [`description`], [`problem`]: one
//!   endpoint, its input, its description and its errors. [`context`]: the state that endpoints use.
//! - [`caller`]: who calls, the role that an endpoint requires, and the record of changes. [`admin`]: TCP addresses, with
//!   authentication.
//! - [`process`]: version, readiness, reload. [`configuration`]: the active configuration. [`log`]: events and
//!   log level. [`pools`]: the state of backends. [`registrations`]: registered backends. [`overrides`]: operator overrides; [`override_transfer`]:
//!   copies them from the old process in an upgrade.
//! - [`metrics`]: for Prometheus; [`scrape`]: at addresses of their own. [`requests`]: single requests, kept and live. [`mirrors`]: copies of requests.
//! - [`cache_state`]: what the caches did. [`cache_purge`]: purges of stored responses. [`evaluation`]: explain and plan.
//! - [`client`]: the client; [`remote`]: its connection to a TCP address. [`openapi`]: the OpenAPI document.

pub mod admin;
pub mod cache_purge;
pub mod cache_state;
pub mod caller;
pub mod client;
pub mod configuration;
pub mod context;
pub mod description;
mod evaluation;
pub mod endpoint;
pub mod endpoints;
pub mod input;
pub mod log;
pub mod mirrors;
pub mod openapi;
mod override_transfer;
pub mod overrides;
pub mod pools;
pub mod problem;
pub mod registrations;
pub mod metrics;
pub mod process;
pub mod remote;
pub mod requests;
pub mod scrape;
pub mod socket;

pub use client::Client;
pub use context::Api;
pub use endpoint::Endpoint;
pub use endpoints::endpoints;
pub use problem::{Cause, Problem};
pub use socket::{ControlService, ControlSocket, socket_path};

#[cfg(test)]
mod openapi_tests;
