//! Responses that filters make without a backend.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::base::cause::Cause;

/// A complete response of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// The cause.
    pub cause: Cause,
    /// The status code.
    pub status: StatusCode,
    /// The fields, without Content-Length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl LocalResponse {
    /// The response as part of a sentence, such as `308 redirect to https://example.com/`.
    #[must_use]
    pub fn words(&self) -> String {
        let location = self.headers.get(http::header::LOCATION);
        let location =
            location.map_or_else(String::new, |to| format!(" to {}", String::from_utf8_lossy(to.as_bytes())));
        format!("{} {}{location}", self.status.as_u16(), self.cause)
    }
}
