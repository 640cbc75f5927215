//! Explains the filters of a request: what each does to it, and the header of the response that results.

use std::fmt;

use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::snapshot::Snapshot;
use super::{Decision, Origin, host};
use crate::filter::body::BodyFilters;
use crate::filter::chain::Item;
use crate::filter::changes::FieldChange;
use crate::filter::response::Source;
use crate::filter::{Changes, Level, Response, Step, timeout};
use crate::http::rejection::Rejection;

/// What a filter does to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterEffect {
    /// Where it is configured.
    pub level: Level,
    /// Its key.
    pub filter: String,
    /// What it is configured to do.
    pub settings: String,
    /// What it does to this request.
    pub effect: String,
}

/// Writes the filters as a table; nothing if there are none.
pub(super) fn write_filters(filters: &[FilterEffect], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if filters.is_empty() {
        return Ok(());
    }
    writeln!(f, "filters")?;
    let width = filters.iter().map(|filter| filter.filter.len()).max().unwrap_or_default();
    for FilterEffect { level, filter, settings, effect } in filters {
        writeln!(f, "  {:8}  {filter:width$}  {effect}  ({settings})", level.to_string())?;
    }
    Ok(())
}

/// Collects the effects of filters while they run.
#[derive(Default)]
pub(super) struct FilterEffects {
    before: Changes,
    pub(super) list: Vec<FilterEffect>,
}

impl FilterEffects {
    /// Adds a filter that has run.
    pub(super) fn add(&mut self, level: Level, item: &Item, step: &Step, changes: &Changes) {
        let effect = match step {
            Step::Continue => differences(&self.before, changes),
            Step::Respond(response) => format!("responds with {}", response.words()),
            Step::Reject(rejected) => {
                format!("rejects it with {} {}", rejected.rejection.status(), rejected.rejection.cause())
            }
            Step::Wait(pending) => format!("waits: {}", pending.describe()),
            Step::Repeat => "runs again".to_owned(),
        };
        self.before.clone_from(changes);
        let (filter, settings) = (item.name.to_owned(), item.filter.describe());
        self.list.push(FilterEffect { level, filter, settings, effect });
    }
}

/// The changes of one filter.
fn differences(before: &Changes, after: &Changes) -> String {
    let mut words = Vec::new();
    if let (true, Some(target)) = (before.target != after.target, &after.target) {
        words.push(format!("path {target}"));
    }
    if let (true, Some(host)) = (before.host != after.host, &after.host) {
        words.push(format!("host {host}"));
    }
    if let (true, Some(prefix)) = (before.removed_prefix != after.removed_prefix, &after.removed_prefix) {
        words.push(format!("prefix {}", String::from_utf8_lossy(prefix.as_bytes())));
    }
    if before.buffer_size != after.buffer_size {
        words.push("waits for the body".to_owned());
    }
    if let (true, Some(size)) = (before.body_size != after.body_size, after.body_size) {
        words.push(format!("body of at most {size} bytes"));
    }
    if before.timeouts != after.timeouts {
        words.push(format!("timeouts {}", timeout::words(&after.timeouts)));
    }
    words.extend(after.mirrors.iter().skip(before.mirrors.len()).map(|mirror| mirror.effect()));
    let new = after.fields.iter().skip(before.fields.len());
    words.extend(new.map(|change| match change {
        FieldChange::Set(name, value) => format!("sets {name}: {}", shown(name, value)),
        FieldChange::Add(name, value) => format!("adds {name}: {}", shown(name, value)),
        FieldChange::Remove(name) => format!("removes {name}"),
    }));
    if words.is_empty() { "passes".to_owned() } else { words.join("; ") }
}

/// The value of a field, unless it may be a secret.
fn shown(name: &HeaderName, value: &http::HeaderValue) -> String {
    let is_secret = ["authorization", "cookie", "token", "secret", "key", "password"];
    if is_secret.iter().any(|word| name.as_str().contains(word)) {
        return "(hidden)".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The fields with their names and values.
pub(super) fn shown_fields(fields: &HeaderMap) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), shown(name, value))).collect()
}

/// The header of the response as far as filters determine it: that of a response by l7lb itself, or what they set in an
/// empty response of a backend.
pub(super) fn response(
    snapshot: &Snapshot,
    request: &RequestHeader,
    origin: &Origin<'_>,
    decision: &Decision,
) -> Option<(StatusCode, HeaderMap)> {
    let local = decision.filtered.as_ref().and_then(|filtered| filtered.response.as_ref());
    let (mut status, mut headers) = match (&decision.rejection, local) {
        (Some(rejection), _) => (StatusCode::from_u16(rejection.rejection.status()).ok()?, HeaderMap::new()),
        (None, Some(local)) => (local.status, local.headers.clone()),
        (None, None) => (StatusCode::OK, HeaderMap::new()),
    };
    if decision.rejection.is_some_and(|rejection| rejection.rejection == Rejection::Flood) {
        return None;
    }
    let Some(chains) = snapshot.chains(origin.listener, decision.route.as_ref()) else {
        return Some((status, headers));
    };
    let facts = origin.facts(snapshot, request, host(request).unwrap_or_default(), decision.route.as_ref());
    let (source, length) = match (&decision.rejection, local) {
        (Some(rejection), _) => (Source::Rejection(rejection.rejection.cause()), None),
        (None, Some(local)) => (Source::Filter(local.cause), Some(local.body.len())),
        (None, None) => (Source::Backend, None),
    };
    headers.extend(length.map(|length| (header::CONTENT_LENGTH, length.into())));
    chains.change_response(&mut Response {
        status: &mut status,
        headers: &mut headers,
        body: &mut BodyFilters::default(),
        request,
        accepted: &request.headers,
        path_and_query: request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        facts: &facts,
        source,
        upstream: "",
        pool: "",
    });
    headers.remove(header::CONTENT_LENGTH);
    Some((status, headers))
}
