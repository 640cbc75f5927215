//! Retries: whether a failed attempt may be repeated on another backend.
//!
//! Two pure decisions. The [`Policy`] of a route decides whether a retry is safe. A failed connection carried
//! no request and a refused stream was not processed (RFC 9113 §8.7), so any request may be retried. A request
//! that may have reached a backend is retried only if it is idempotent (RFC 9110 §9.2.2) and its body can be
//! sent again. The [`Budget`] of a pool limits retries: when every backend fails, retries turn an incident into
//! an outage, and a single request cannot see that.

mod budget;
mod config;
mod policy;

pub use budget::Budget;
pub use config::Config;
pub use policy::{AttemptOutcome, AttemptState, Policy, RetryableMethods, not_retried, pause};
