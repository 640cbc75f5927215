//! Fetches: requests to backends whose responses may be stored.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderName, HeaderValue, Method, header};
use pingora_http::RequestHeader;
use tokio::sync::mpsc;

use super::fetch_client::{FetchClient, Part};
use super::report::Report;
use super::sink::{Event, Fetch, Sink};
use crate::cache::conditional;
use crate::decision::form::X_FORWARDED_HOST;
use crate::decision::host;
use crate::proxy::engine::OwnEngine;
use crate::proxy::exchange::Exchange;

/// The events that may wait for the client.
const WAITING: usize = 4;

/// Request fields that a backend may use for its response although they are not part of the key. A client could poison
/// the cache with them.
const UNKEYED: [&str; 15] = [
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-original-uri",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-method-override",
    "x-forwarded-scheme",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
];

impl OwnEngine {
    /// Fetches the response to `request` in a task of its own. Returns what happens.
    pub(super) fn fetch(
        self: &Arc<Self>,
        request: &RequestHeader,
        exchange: &Exchange,
        fetch: Fetch,
    ) -> mpsc::Receiver<Event> {
        let (events, receiver) = mpsc::channel(WAITING);
        self.spawn_fetch(request, exchange, fetch, Some(events));
        receiver
    }

    /// Validates or replaces a stored response while clients get the stale one.
    pub(super) fn fetch_in_background(self: &Arc<Self>, request: &RequestHeader, exchange: &Exchange, fetch: Fetch) {
        self.spawn_fetch(request, exchange, fetch, None);
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the request of the fetch starts here")]
    fn spawn_fetch(
        self: &Arc<Self>,
        request: &RequestHeader,
        exchange: &Exchange,
        fetch: Fetch,
        events: Option<mpsc::Sender<Event>>,
    ) {
        let sink = Sink::new(request.headers.clone(), events, fetch.cache.purges.stamp(SystemTime::now()));
        let mut exchange = exchange.fork(Instant::now());
        let (client, parts) = FetchClient::new(prepare(request, &fetch), exchange.connection.clone());
        let engine = Arc::clone(self);
        // Boxed: tokio copies a task several times.
        tokio::spawn(Box::pin(async move { engine.run_fetch(client, &mut exchange, (sink, fetch), parts).await }));
    }

    async fn run_fetch(
        &self,
        mut client: FetchClient,
        exchange: &mut Exchange,
        (mut sink, fetch): (Sink, Fetch),
        parts: mpsc::Receiver<Part>,
    ) {
        let mut forwarded = None;
        {
            let mut forward = pin!(async {
                let result = self.forward(&mut client, exchange).await;
                client.close();
                result
            });
            let mut run = pin!(sink.run(fetch, parts));
            // The sink ends last, unless the response is not needed any more.
            loop {
                tokio::select! {
                    result = &mut forward, if forwarded.is_none() => forwarded = Some(result),
                    () = &mut run => break,
                }
            }
        }
        let background = sink.is_in_background();
        sink.end(forwarded.and_then(Result::err), Report::of(exchange)).await;
        if background {
            exchange.cache = "background";
            // The response was stored.
            exchange.mark_end();
            self.proxy.finish(&mut client, None, exchange);
        }
    }
}

/// The request of a fetch: complete, unconditional except for the stored response, and without what could poison the
/// cache.
fn prepare(request: &RequestHeader, fetch: &Fetch) -> RequestHeader {
    let mut prepared = request.clone();
    // A HEAD request may cause a validation in the background.
    prepared.set_method(Method::GET);
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::IF_RANGE, header::EXPECT] {
        prepared.remove_header(&name);
    }
    join_lines(&mut prepared);
    let keyed = &fetch.route.spec.rules.key.headers;
    for name in UNKEYED.iter().map(|name| HeaderName::from_static(name)).filter(|name| !keyed.contains(name)) {
        prepared.remove_header(&name);
    }
    if !keyed.contains(&X_FORWARDED_HOST)
        && let Some(host) = host(request).and_then(|host| HeaderValue::from_str(host).ok())
    {
        prepared.insert_header(X_FORWARDED_HOST, host).ok();
    }
    for (name, value) in fetch.stale.iter().flat_map(|stale| conditional::validators(stale.headers())) {
        prepared.insert_header(name, value).ok();
    }
    prepared
}

/// Makes one field line of several with the same name. Vary does not distinguish them (RFC 9111 §4.1), but a backend may
/// use only one of several lines, and a client could then store its response for requests with one line.
fn join_lines(request: &mut RequestHeader) {
    if request.headers.keys_len() == request.headers.len() {
        return;
    }
    let names: Vec<HeaderName> = request.headers.keys().cloned().collect();
    for name in names {
        let lines: Vec<&[u8]> = request.headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if lines.len() > 1 {
            let separator: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
            if let Ok(joined) = HeaderValue::from_bytes(&lines.join(separator)) {
                request.insert_header(name, joined).ok();
            }
        }
    }
}
