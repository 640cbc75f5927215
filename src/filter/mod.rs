//! Filters: what l7lb changes in requests and responses, checks, and responds to itself.
//!
//! A chain of filters belongs to the file, a listener or a route. The chains of a request run in this order, and the
//! filters of a chain in the order in which they are written. This applies to both halves: a later filter sees what an
//! earlier one has changed, and its own change wins.
//!
//! The request half runs after strict parsing and routing, as part of [`crate::decision::decide`]; so `l7lb check`,
//! `explain`, `plan` and configuration tests run it too. It does not change the request itself, but records [`Changes`],
//! which apply when the request is forwarded: the route, the cache and the access log use the request of the client. The
//! response half runs for every final response, also for one of l7lb itself.
//!
//! - [`config`]: the item of a `filters:` list; adding a filter takes a field and a row there, and a file here.
//! - [`chain`]: chains, and how they run. [`request`], [`changes`], [`response`]: what a filter sees and changes.
//! - [`local_response`]: responses of filters. [`pending`]: what a request waits for.
//! - [`watched_file`]: files that are read again when they change.
//! - [`variables`]: texts with variables such as `${client.ip}`. [`field_names`]: which header fields filters may change.
//! - The filters: [`access`] with [`countries`]; [`basic_auth`] with [`htpasswd`], [`password_checks`] and [`failures`];
//!   [`body_limit`]; [`buffer`]; [`compress`] with [`accept_encoding`] and [`encoder`]; [`cors`]; [`error_pages`] with
//!   [`error_page_format`]; [`forward_auth`] with [`subrequests`]; [`headers`]; [`jwt`] with [`token`]; [`maintenance`];
//!   [`mirror`] with [`mirror_tally`], [`comparison`] and [`latencies`];
//!   [`rate_limit`] with [`limits`] and [`shared_state`]; [`redirect`]; [`respond`]; [`rewrite`] with [`rewrite_path`],
//!   [`rewrite_query`] and [`rewrite_back`]; [`security_headers`]; [`timeout`].
//! - [`body`]: filters of the bodies of responses.

pub mod accept_encoding;
pub mod access;
pub mod basic_auth;
pub mod body;
pub mod body_limit;
pub mod buffer;
pub mod chain;
pub mod changes;
pub mod comparison;
pub mod compress;
pub mod config;
pub mod countries;
pub mod failures;
pub mod cors;
mod cors_origin;
pub mod encoder;
pub mod error_page_format;
pub mod error_pages;
pub mod field_names;
pub mod forward_auth;
pub mod headers;
pub mod htpasswd;
pub mod jwt;
pub mod latencies;
mod limit_key;
pub mod limits;
pub mod local_response;
pub mod maintenance;
pub mod mirror;
pub mod mirror_tally;
pub mod password_checks;
pub mod pending;
pub mod rate_limit;
pub mod redirect;
pub mod request;
pub mod respond;
pub mod response;
pub mod rewrite;
mod rewrite_back;
mod rewrite_path;
pub mod rewrite_query;
pub mod security_headers;
pub mod subrequests;
pub mod shared_state;
pub mod timeout;
pub mod token;
pub mod variables;
pub mod watched_file;

use std::fmt;
use std::sync::Arc;

pub use chain::{Chain, Level};
pub use changes::Changes;
pub use local_response::LocalResponse;
pub use pending::{Pending, Resolution};
pub use request::{Facts, Request};
pub use response::Response;
pub use shared_state::SharedState;
pub use watched_file::WatchedFile;

use crate::http::rejection::DetailedRejection;

/// What follows the request half of a filter.
pub enum Step {
    /// The next filter.
    Continue,
    /// This response, without a backend.
    Respond(Box<LocalResponse>),
    /// This rejection.
    Reject(DetailedRejection),
    /// A wait, whose result decides.
    Wait(Box<dyn Pending>),
    /// The same filter again; only as the result of a wait.
    Repeat,
}

/// A filter with its checked settings.
pub trait Filter: fmt::Debug + Send + Sync {
    /// The request half: reads the request, and records changes to it.
    fn request(&self, _request: &mut Request<'_>) -> Step {
        Step::Continue
    }

    /// The response half: changes the header of a final response, and may add a filter of its body.
    fn response(&self, _response: &mut Response<'_>) {}

    /// What the filter does, in a few words for `l7lb explain`.
    fn describe(&self) -> String;

    /// Whether the request half may respond, so that a route needs no pool.
    fn may_respond(&self) -> bool {
        false
    }

    /// Takes its state, such as counts, from the previous snapshot or an equal filter, or starts it. Called once for each
    /// snapshot.
    fn share_state(&self, _shared: &mut SharedState) {}

    /// The state of a filter that sends copies of requests.
    fn mirror(&self) -> Option<&Arc<mirror::Mirror>> {
        None
    }

    /// A number that changes with the contents of the files that the filter has read. A reload keeps the filter, with its
    /// state, as long as this and the configuration are equal.
    fn files(&self) -> u64 {
        0
    }

    /// The files that are read again when they change.
    fn watched(&self) -> Vec<Arc<dyn WatchedFile>> {
        Vec::new()
    }
}
