//! The endpoint for Prometheus. Its response is no JSON, so it is not in the table of endpoints.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

use super::context::Api;
use crate::control::metrics::collect;
use crate::observe::metrics::exposition::Format;

/// The path of the endpoint.
pub const PATH: &str = "/metrics";

/// All metrics, in the format that the client accepts.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::for_accept(accept);
    match collect(&api.live, &api.log).encode(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
