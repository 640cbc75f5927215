//! Requests that filters make to pools, on behalf of the request that waits.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora_http::RequestHeader;

use crate::base::units::PoolName;

/// A request of a filter.
pub struct Subrequest {
    /// The pool.
    pub pool: PoolName,
    /// The head; there is no body.
    pub head: RequestHeader,
    /// How long it may take with all its attempts.
    pub timeout: Duration,
    /// The largest body of a response in bytes.
    pub body_max: usize,
}

/// The response to a request of a filter.
pub struct SubResponse {
    /// The status code.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body, at most as large as the request allows.
    pub body: Bytes,
}

/// Makes requests with the balancing, health, TLS and idle connections of pools.
#[async_trait]
pub trait Subrequests: Send + Sync {
    /// Sends a request and waits for its whole response.
    ///
    /// # Errors
    /// Why there is no response, in a few words.
    async fn send(&self, request: Subrequest) -> Result<SubResponse, &'static str>;
}
