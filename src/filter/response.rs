//! What the response half of a filter sees and changes: the header of a final response.

use http::{HeaderMap, StatusCode};
use pingora_http::RequestHeader;

use super::request::Facts;

/// The header of a response as a filter sees it.
pub struct Response<'a> {
    /// The status code.
    pub status: &'a mut StatusCode,
    /// The fields.
    pub headers: &'a mut HeaderMap,
    /// The request. Its target and Host are those for backends; [`Facts`] and [`Response::path_and_query`] have those of
    /// the client.
    pub request: &'a RequestHeader,
    /// The path and query that the client requested.
    pub path_and_query: &'a str,
    /// The facts about the request.
    pub facts: &'a Facts<'a>,
    /// Whether a backend made the response, now or when it was stored.
    pub is_of_backend: bool,
    /// The backend that responded; empty if l7lb responds itself.
    pub upstream: &'a str,
    /// The pool of the request; empty if it has none.
    pub pool: &'a str,
}
