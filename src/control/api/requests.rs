//! Endpoints for single requests that the recorder has kept, and for live ones.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use http_body_util::channel::Channel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::context::Api;
use super::input::{Path, Query};
use super::problem::{Cause, Problem};
use crate::base::units::{Period, Timestamp};
use crate::decision::example::ExampleQuery;
use crate::decision::explanation::Explanation;
use crate::decision::live::{self, Moment};
use crate::observe::recorder::{Filter, Kept, Tap, Timeline};

/// The path of live requests. Its response is a line of JSON for each request, so it is not in the table of endpoints.
pub const TAP: &str = "/requests/live";

/// The most requests that a call lists.
const LIST_MAX: usize = 1000;

/// A selection of requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestQuery {
    /// Why they were kept; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Their route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Their status code or its class, such as `503` or `5xx`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Their cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Their client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Requests that took longer, such as `200ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower: Option<Period>,
    /// Requests that arrived in this last period, such as `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Period>,
    /// Whether the slowest come first; by default the newest do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub slowest: bool,
    /// How many, at most 1000; by default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
}

/// Requests that the recorder has kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Requests {
    /// The requests.
    pub requests: Vec<Timeline>,
}

/// The id of a request in a path.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RequestPath {
    /// The request id.
    pub id: String,
}

/// What happened to a request, and what would happen now.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RequestStory {
    /// What happened.
    pub timeline: Timeline,
    /// The configuration that is active now.
    pub generation: u64,
    /// Since when it is active.
    pub applied: Timestamp,
    /// Whether it was not active yet when the request arrived.
    pub replaced: bool,
    /// What would happen now; missing if the request cannot be repeated as an example.
    pub now: Option<Explanation>,
}

impl RequestQuery {
    /// Whether a request belongs to the selection at `now`.
    fn filter(&self, now: SystemTime) -> Result<Filter, Problem> {
        let wanted = self.clone();
        let status = self.status.as_deref().map(StatusPattern::parse).transpose()?;
        let earliest = self.since.and_then(|since| now.checked_sub(since.0));
        let client = self.client.map(|client| client.to_string());
        let slower_ms = self.slower.map(|slower| slower.0.as_secs_f64() * 1e3);
        Ok(Box::new(move |timeline: &Timeline| {
            wanted.kept.is_none_or(|kept| timeline.kept == kept)
                && wanted.route.as_ref().is_none_or(|route| timeline.route.as_ref() == Some(route))
                && status.is_none_or(|status| status.matches(timeline.status))
                && wanted.cause.as_ref().is_none_or(|cause| timeline.cause == *cause)
                && client.as_ref().is_none_or(|client| timeline.client == *client)
                && slower_ms.is_none_or(|slower| timeline.duration_ms > slower)
                && earliest.is_none_or(|earliest| timeline.time.0 >= earliest)
        }))
    }
}

/// A status code, or the class of one.
#[derive(Clone, Copy)]
enum StatusPattern {
    Code(u16),
    Class(u16),
}

impl StatusPattern {
    fn parse(text: &str) -> Result<Self, Problem> {
        let class =
            text.strip_suffix("xx").and_then(|class| class.parse().ok()).filter(|class| (1..=5).contains(class));
        let code = text.parse().ok().filter(|code| *code == 0 || (100..=599).contains(code));
        class.map(Self::Class).or(code.map(Self::Code)).ok_or_else(|| {
            Problem::new(Cause::Malformed, format!("`{text}` is not a status; write for example `503` or `5xx`"))
        })
    }

    fn matches(self, status: u16) -> bool {
        match self {
            Self::Code(code) => status == code,
            Self::Class(class) => status / 100 == class,
        }
    }
}

pub(super) async fn list(api: Api, Query(wanted): Query<RequestQuery>) -> Result<Requests, Problem> {
    let n = wanted.n.unwrap_or(50);
    if n > LIST_MAX {
        return Err(Problem::new(Cause::Malformed, format!("`n` is {n}; at most {LIST_MAX} requests are listed")));
    }
    let mut found = api.live.recorder.find(wanted.filter(SystemTime::now())?);
    if wanted.slowest {
        found.sort_by(|one, other| other.duration_ms.total_cmp(&one.duration_ms));
    }
    Ok(Requests { requests: found.iter().take(n).map(|timeline| Timeline::clone(timeline)).collect() })
}

#[expect(clippy::disallowed_methods, reason = "limits and backends are looked at as they are now")]
pub(super) async fn one(api: Api, Path(RequestPath { id }): Path<RequestPath>) -> Result<RequestStory, Problem> {
    let found = api.live.recorder.find(|timeline| timeline.request_id == id);
    // A client may have repeated a request with its id; the newest counts.
    let Some(timeline) = found.first().map(|timeline| Timeline::clone(timeline)) else {
        let detail = format!(
            "no request with the id `{id}` is kept; all failures are kept for a while, of other requests the slowest and a sample"
        );
        return Err(Problem::new(Cause::UnknownRequest, detail));
    };
    let now = match question(&timeline).example() {
        Ok(example) => {
            let at = Moment { now: Instant::now(), time: SystemTime::now() };
            Some(live::explain(&example, &api.live.snapshot.load_full(), &api.live.listeners, at).await)
        }
        Err(_) => None,
    };
    let active = api.live.active.load();
    let replaced = active.applied > timeline.time;
    Ok(RequestStory { timeline, generation: active.generation, applied: active.applied, replaced, now })
}

/// The request as an example. Its query and its headers are not kept.
fn question(timeline: &Timeline) -> ExampleQuery {
    let is_tls = timeline.connection.as_ref().is_some_and(|connection| connection.tls.is_some());
    let scheme = if is_tls { "https" } else { "http" };
    ExampleQuery {
        request: format!("{} {scheme}://{}{}", timeline.method, timeline.host, timeline.path),
        headers: Vec::new(),
        from: timeline.client.parse().ok(),
    }
}

/// A line of the response for live requests.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LiveRequest {
    /// The request.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// Requests that were lost before it because the reader was slow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Lines that wait for the connection.
const LINES_MAX: usize = 16;

/// How often an empty line shows that the connection works, and notices a reader that has left.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Live requests, one line of JSON each, until the client closes the connection.
pub(super) async fn tap(State(api): State<Api>, Query(wanted): Query<RequestQuery>) -> Result<Response, Problem> {
    let mut tap = api.live.recorder.tap(wanted.filter(SystemTime::now())?);
    let (mut lines, body) = Channel::<Bytes>::new(LINES_MAX);
    tokio::spawn(async move {
        // Sending fails once the client has left.
        while let Some(line) = next_line(&mut tap).await
            && lines.send_data(line).await.is_ok()
        {}
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// The next line: a request, or an empty line after a while without one. `None` if the process ends.
async fn next_line(tap: &mut Tap) -> Option<Bytes> {
    let mut line = Vec::new();
    if let Ok(next) = timeout(HEARTBEAT, tap.next()).await {
        let (timeline, lost) = next?;
        let request = LiveRequest { timeline: Arc::unwrap_or_clone(timeline), lost };
        line = serde_json::to_vec(&request).unwrap_or_default();
    }
    line.push(b'\n');
    Some(line.into())
}
