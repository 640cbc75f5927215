//! What happened to one request: who sent it, where it went, and when each step was.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::cause::Cause;
use crate::base::units::Timestamp;
use crate::observe::record::Record;

/// The longest host, path, id or detail that is kept, in bytes.
const TEXT_MAX: usize = 512;

/// Why a request was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It failed: l7lb rejected it, an attempt at the end failed, or the status code is 5xx.
    Failed,
    /// It belongs to the slowest 1 % of its route.
    Slow,
    /// It belongs to the sample.
    Sampled,
    /// A reader of live requests wants it.
    Live,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The response was complete.
    Response,
    /// The client closed the connection or reset the stream.
    Client,
    /// L7lb rejected it or responded itself.
    L7lb,
    /// The backend failed.
    Backend,
}

/// The connection of the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineConnection {
    /// How long it had been open when the request arrived, in milliseconds.
    pub age_ms: f64,
    /// The version of TLS, such as `1.3`; missing without TLS.
    pub tls: Option<String>,
    /// The time of the TLS handshake in milliseconds; missing without TLS.
    pub handshake_ms: Option<f64>,
}

/// An attempt at a backend. Times are in milliseconds since the arrival of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineAttempt {
    /// The address of the backend.
    pub backend: String,
    /// When it was chosen.
    pub chosen_ms: f64,
    /// When the new connection was established; missing if an idle one was used, or there was none.
    pub connected_ms: Option<f64>,
    /// The class of the status code, such as `2xx`, or the cause of the failure.
    pub outcome: String,
    /// When the header of the response arrived, or the attempt failed; missing if the request ended before.
    pub outcome_ms: Option<f64>,
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// The request id.
    pub request_id: String,
    /// When it arrived.
    pub time: Timestamp,
    /// Why it was kept.
    pub kept: Kept,
    /// The name of its listener.
    pub listener: String,
    /// The client address.
    pub client: String,
    /// The method.
    pub method: String,
    /// The requested host; empty if there is none.
    pub host: String,
    /// The path without the query, which may contain secrets.
    pub path: String,
    /// The protocol version.
    pub protocol: String,
    /// The status code; 0 if no response was sent.
    pub status: u16,
    /// The cause of a rejection or failure; empty otherwise.
    pub cause: String,
    /// The detail of the cause; empty if the cause is sufficient.
    pub detail: String,
    /// The route; missing without one.
    pub route: Option<String>,
    /// The pool; missing without one.
    pub pool: Option<String>,
    /// How the cache of the route was used; empty if it has none.
    pub cache: String,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// From its arrival to its end, in milliseconds.
    pub duration_ms: f64,
    /// The wait in the queue of the pool in milliseconds; missing if the pool has no queue.
    pub queued_ms: Option<f64>,
    /// Bytes of the request body.
    pub received: u64,
    /// Bytes of the response body.
    pub sent: u64,
    /// The connection of the client; missing if the listener has rejected the request.
    pub connection: Option<TimelineConnection>,
    /// The attempts at backends.
    pub attempts: Vec<TimelineAttempt>,
}

impl Timeline {
    /// What the access log line of a request says. Times of steps are missing.
    #[must_use]
    pub fn of(listener: &str, record: &Record<'_>, kept: Kept) -> Self {
        Self {
            request_id: shortened(record.request_id),
            time: Timestamp(record.time),
            kept,
            listener: listener.to_owned(),
            client: record.client.to_owned(),
            method: shortened(record.method),
            host: shortened(record.host),
            path: shortened(record.path),
            protocol: record.protocol.to_owned(),
            status: record.status,
            cause: record.cause_text().to_owned(),
            detail: shortened(record.detail),
            route: record.route.map(str::to_owned),
            pool: record.pool.map(str::to_owned),
            cache: record.cache.to_owned(),
            ended_by: EndedBy::of(record),
            duration_ms: record.latency.as_secs_f64() * 1e3,
            queued_ms: None,
            received: 0,
            sent: record.bytes,
            connection: None,
            attempts: Vec::new(),
        }
    }
}

impl EndedBy {
    fn of(record: &Record<'_>) -> Self {
        match record.cause {
            None => Self::Response,
            Some(Cause::ClientClosed) => Self::Client,
            Some(
                Cause::ConnectFailed
                | Cause::ConnectTimeout
                | Cause::BackendFailed
                | Cause::BackendTlsFailed
                | Cause::FirstByteTimeout
                | Cause::IdleTimeout
                | Cause::AttemptTimeout,
            ) => Self::Backend,
            Some(_) => Self::L7lb,
        }
    }
}

/// At most [`TEXT_MAX`] bytes of a text.
fn shortened(text: &str) -> String {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = format!("{}ü", "a".repeat(TEXT_MAX - 1));
        assert_eq!(shortened(&text).len(), TEXT_MAX - 1);
        assert_eq!(shortened("ü"), "ü");
    }
}
