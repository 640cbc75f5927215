//! The control API at TCP addresses.
//!
//! - [`service`]: connections and their bounds. [`gate`]: which requests reach the endpoints.
//! - [`origin`]: names in `Host`, and requests of web pages. [`login_limit`]: failed logins per address.

pub mod gate;
pub mod login_limit;
pub mod origin;
pub mod service;

pub use service::{AdminListener, AdminService};
