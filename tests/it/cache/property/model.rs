//! What RFC 9111 permits: "may this response of the origin be sent for this request?" It shares no code with the cache.
//!
//! Times are one-sided: a response counts as stale only if it is stale at the earliest possible time of its use, so
//! that the speed of the machine does not matter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::wire::Message;
use super::Exchange;
use super::generator::{SEQUENCE, hash};
use super::operator::Purged;

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: String,
    pub method: &'static str,
    pub target: String,
    pub fields: Vec<(&'static str, String)>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_unsafe(&self) -> bool {
        self.method == "POST"
    }

    fn has(&self, directive: &str) -> bool {
        self.field("cache-control").is_some_and(|value| value == directive)
    }
}

/// A response of the origin.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: String,
    pub target: String,
    /// The request as the origin received it.
    pub request: Vec<(String, String)>,
    pub status: u16,
    pub truncated: bool,
    pub length: usize,
    /// Its fields: at first, and after each 304.
    pub states: Vec<State>,
}

/// The fields of a stored response from a point in time.
#[derive(Clone, Debug)]
pub struct State {
    pub fields: Vec<(String, String)>,
    pub sent: Instant,
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl State {
    /// The arguments of directives are numbers here, with or without quotes.
    fn directive(&self, name: &str) -> Option<String> {
        let control = value(&self.fields, "cache-control")?.to_lowercase();
        control.split(", ").find_map(|directive| {
            let (known, argument) = directive.split_once('=').unwrap_or((directive, ""));
            (known == name).then(|| argument.trim_matches('"').to_owned())
        })
    }

    fn seconds(&self, name: &str) -> Option<u64> {
        self.directive(name)?.parse().ok()
    }

    fn must_revalidate(&self) -> bool {
        self.directive("must-revalidate").is_some() || self.directive("s-maxage").is_some() || self.no_cache()
    }

    /// Without field names.
    fn no_cache(&self) -> bool {
        self.directive("no-cache").is_some_and(|names| names.is_empty())
    }

    /// The earliest possible age at this time.
    fn age(&self, now: Instant) -> Duration {
        let stated = value(&self.fields, "age").and_then(|age| age.parse().ok()).unwrap_or(0);
        now.saturating_duration_since(self.sent) + Duration::from_secs(stated)
    }
}

impl Record {
    /// A 304 replaces the fields that it has.
    pub fn update(&mut self, fields: &[(String, String)]) {
        let mut merged: Vec<(String, String)> =
            self.states.last().map(|state| state.fields.clone()).unwrap_or_default();
        merged.retain(|(name, _)| name != "Age" && !fields.iter().any(|(new, _)| new == name));
        merged.extend(fields.iter().cloned());
        self.states.push(State { fields: merged, sent: Instant::now() });
    }

    /// Whether its own fields permit to store it, which never changes.
    pub fn is_for_everyone(&self) -> bool {
        self.why_not_storable().is_none()
    }

    fn why_not_storable(&self) -> Option<&'static str> {
        let first = &self.states[0];
        let control = value(&self.request, "cache-control").unwrap_or_default();
        let is_authorized = value(&self.request, "authorization").is_some();
        let permits = ["public", "s-maxage", "must-revalidate"].iter().any(|name| first.directive(name).is_some());
        let faults = [
            (first.directive("no-store").is_some(), "no-store"),
            (first.directive("private").is_some(), "private"),
            (control == "no-store", "no-store of its request"),
            (is_authorized && !permits, "its request has Authorization"),
            (value(&first.fields, "set-cookie").is_some(), "it has Set-Cookie"),
            (value(&first.fields, "vary") == Some("*"), "it varies on everything"),
            (self.truncated, "it is truncated"),
            ([206, 304].contains(&self.status), "its status"),
        ];
        faults.into_iter().find_map(|(applies, why)| applies.then_some(why))
    }

    /// The field of Vary whose value differs.
    fn differing_field(&self, request: &Request) -> Option<String> {
        let vary = value(&self.states[0].fields, "vary")?;
        let mut names = vary.split(", ");
        names.find(|name| request.field(name) != value(&self.request, name)).map(ToOwned::to_owned)
    }
}

/// Checks a response. `Ok(true)`: it was made for another request, and may be reused for this one. `purged`: what purges
/// and successful unsafe requests before this request concern.
pub fn check(exchange: &Exchange, records: &HashMap<String, Record>, purged: Purged) -> Result<bool, String> {
    let (request, response) = (&exchange.request, &exchange.response);
    if response.status() == 504 && request.has("only-if-cached") {
        return Ok(false);
    }
    let Some(id) = id(response) else { return check_without_id(exchange) };
    let record = records.get(&id).ok_or_else(|| format!("response {id} does not exist: {response:?}"))?;
    check_body(exchange, record)?;
    let is_shared_cut = record.truncated && !response.is_complete;
    let is_own = value(&record.request, SEQUENCE) == Some(request.id.as_str());
    if is_own && request.has("only-if-cached") && !request.is_unsafe() {
        return Err(format!("response {id} is not from the cache"));
    }
    if is_own || is_shared_cut {
        return Ok(false);
    }
    if response.status() == 304 {
        if request.field("if-none-match") != response.field("etag").as_deref() {
            return Err(format!("a 304 for {id}, which the request does not name"));
        }
        // The origin decided.
        if !response.is_hit() {
            return Ok(false);
        }
    }
    // The origin failed, and the stored response replaces its response.
    let mut own = records.values().filter(|own| value(&own.request, SEQUENCE) == Some(request.id.as_str()));
    let after_error = own.any(|own| own.status >= 500);
    check_reuse(exchange, record, purged, after_error)
        .map_err(|why| format!("response {id} must not be reused: {why}"))?;
    Ok(true)
}

/// The id in the body, or in the ETag of a response without a body.
fn id(response: &Message) -> Option<String> {
    let text = response.text();
    let tag = response.field("etag").map(|tag| tag.trim_matches('"').to_owned());
    let is_whole = response.status() != 206 && text.contains('|');
    if is_whole { Some(text.split('|').next()?.to_owned()) } else { tag }
}

/// Errors of l7lb itself, and responses to HEAD or parts without an ETag.
fn check_without_id(exchange: &Exchange) -> Result<bool, String> {
    let identity = exchange.response.field("set-cookie");
    if identity.is_some() && exchange.response.is_hit() { Err("a hit has Set-Cookie".to_owned()) } else { Ok(false) }
}

/// Body, length, target and identity.
fn check_body(exchange: &Exchange, record: &Record) -> Result<(), String> {
    let (request, response) = (&exchange.request, &exchange.response);
    if record.target != request.target {
        return Err(format!("response {} is of {}, not {}", record.id, record.target, request.target));
    }
    if response.is_hit() && response.field("set-cookie").is_some() {
        return Err(format!("response {} from the cache has Set-Cookie", record.id));
    }
    if request.method == "HEAD" || [304, 206].contains(&response.status()) {
        return Ok(());
    }
    let text = response.text();
    if !response.is_complete {
        return if record.truncated { Ok(()) } else { Err(format!("response {} is cut", record.id)) };
    }
    let (content, digest) = text.rsplit_once('|').unwrap_or((&text, ""));
    if format!("{:016x}", hash(content)) != digest || text.len() != record.length {
        return Err(format!("response {} has a wrong body: {} bytes", record.id, text.len()));
    }
    let owner = content.split('|').nth(2).unwrap_or_default();
    let is_owner = owner == "-" || [request.field("authorization"), request.field("cookie")].contains(&Some(owner));
    if is_owner { Ok(()) } else { Err(format!("response {} of {owner} reached {:?}", record.id, request.fields)) }
}

fn check_reuse(exchange: &Exchange, record: &Record, purged: Purged, after_error: bool) -> Result<(), String> {
    let request = &exchange.request;
    if let Some(why) = record.why_not_storable() {
        return Err(why.to_owned());
    }
    if request.is_unsafe() {
        return Err("the method is unsafe".to_owned());
    }
    if let Some(name) = record.differing_field(request) {
        return Err(format!("{name} differs"));
    }
    let last = record.states.last().ok_or("it has no state")?;
    if purged.hard.is_some_and(|purged| last.sent < purged) {
        return Err("it was purged, or an unsafe request invalidated it".to_owned());
    }
    // Sent after the request of this exchange: validated for it, or shared with a concurrent request.
    if last.sent >= exchange.sent {
        return Ok(());
    }
    // The stored response may have an earlier state: a 304 may have been for a client and not for the cache.
    let mut states =
        record.states.iter().rev().take(4).map(|state| check_freshness(exchange, state, purged, after_error));
    if states.any(|fresh| fresh.is_ok()) { Ok(()) } else { check_freshness(exchange, last, purged, after_error) }
}

/// Freshness at the earliest possible time, and the directives of the request.
fn check_freshness(exchange: &Exchange, state: &State, purged: Purged, after_error: bool) -> Result<(), String> {
    let request = &exchange.request;
    if state.no_cache() {
        return Err("no-cache".to_owned());
    }
    if state.directive("no-store").is_some() || state.directive("private").is_some() {
        return Err("a 304 forbids to store it".to_owned());
    }
    let is_ttl = request.target.starts_with("/ttl/");
    let default = is_ttl.then_some(60);
    let lifetime = state.seconds("s-maxage").or(state.seconds("max-age")).or(default).unwrap_or(0);
    let age = state.age(exchange.sent);
    let lifetime = Duration::from_secs(lifetime);
    let is_too_old = request.has("max-age=0") || (request.has("max-age=30") && age.as_secs() > 30);
    if request.has("no-cache") || (is_too_old && !after_error) {
        return Err(format!("the request demands a validation, age {age:?}"));
    }
    if request.has("min-fresh=40") && age + Duration::from_secs(40) > lifetime && !after_error {
        return Err(format!("it is not fresh for 40 s, age {age:?}"));
    }
    // After a soft purge, only a response that replaces an error may be used without validation.
    let is_purged = purged.soft.is_some_and(|purged| state.sent < purged);
    if is_purged && !after_error {
        return Err("it was purged softly, and not validated since".to_owned());
    }
    if age < lifetime && !is_purged {
        return Ok(());
    }
    let if_error = state.seconds("stale-if-error").unwrap_or(if is_ttl { 5 } else { 60 });
    let revalidating = state.seconds("stale-while-revalidate").unwrap_or(if is_ttl { 1 } else { 0 });
    let window = if after_error { if_error.max(revalidating) } else { revalidating };
    let accepts_stale = request.has("max-stale") && !is_purged;
    let may_be_stale = !state.must_revalidate() && (accepts_stale || age <= lifetime + Duration::from_secs(window));
    if may_be_stale { Ok(()) } else { Err(format!("it is stale: age {age:?}, lifetime {lifetime:?}")) }
}

/// The model itself: what it must refuse, and what it must accept.
#[test]
fn model_refuses_private_stale_varying_and_purged_responses() {
    let now = Instant::now();
    let purged_verdict = |control: &str, vary: &str, request_control: &str, purged: Purged| {
        let text = "1|/default/1|-|";
        let body = format!("{text}|{:016x}", hash(text));
        let fields = vec![("Cache-Control".to_owned(), control.to_owned()), ("Vary".to_owned(), vary.to_owned())];
        let record = Record {
            id: "1".to_owned(),
            target: "/default/1".to_owned(),
            request: vec![("X-Variant".to_owned(), "1".to_owned())],
            status: 200,
            truncated: false,
            length: body.len(),
            states: vec![State { fields, sent: now }],
        };
        let fields = vec![("X-Variant", "2".to_owned()), ("Cache-Control", request_control.to_owned())];
        let request = Request { id: "2".to_owned(), method: "GET", target: record.target.clone(), fields };
        let response =
            Message { start: "HTTP/1.1 200 OK".to_owned(), body: body.into(), is_complete: true, ..Message::default() };
        let sent = now + Duration::from_secs(10);
        let exchange = Exchange { request, sent, response };
        check(&exchange, &HashMap::from([("1".to_owned(), record)]), purged)
    };
    let verdict = |control: &str, vary: &str, request: &str| purged_verdict(control, vary, request, Purged::default());
    let (before, after) = (now - Duration::from_secs(1), now + Duration::from_secs(1));
    for (purged, expected) in [
        (Purged::hard(before), true),
        (Purged::hard(after), false),
        (Purged { hard: None, soft: Some(before) }, true),
        (Purged { hard: None, soft: Some(after) }, false),
    ] {
        assert_eq!(purged_verdict("max-age=60", "X-Other", "", purged).is_ok(), expected, "{purged:?}");
    }
    assert_eq!(verdict("max-age=60", "X-Other", ""), Ok(true));
    for (control, vary, request) in [
        ("private, max-age=60", "X-Other", ""),
        ("no-store", "X-Other", ""),
        ("max-age=60", "X-Variant", ""),
        ("max-age=60", "*", ""),
        ("max-age=5", "X-Other", ""),
        ("no-cache, max-age=60", "X-Other", ""),
        ("max-age=60", "X-Other", "no-cache"),
        ("max-age=5, must-revalidate", "X-Other", "max-stale"),
    ] {
        assert!(verdict(control, vary, request).is_err(), "{control} {vary} {request}");
    }
}
