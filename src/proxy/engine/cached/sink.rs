//! Where the response of a fetch goes: into the store, or to the client that caused the fetch.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::Error;
use pingora_cache::key::CacheHashKey;
use pingora_cache::lock::LockStatus;
use pingora_cache::storage::{HitHandler, MissHandler};
use pingora_cache::{CacheKey, CacheMeta};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;

use super::fetch_client::Part;
use super::report::Report;
use crate::cache::freshness::Times;
use crate::cache::policy::{self, Validated};
use crate::cache::remembered::Concerns;
use crate::cache::{Cache, FetchPermit, RouteCache};

/// What a fetch is for.
pub(super) struct Fetch {
    /// The settings of the route.
    pub(super) route: Arc<RouteCache>,
    /// The store.
    pub(super) cache: Arc<Cache>,
    /// The key of the response.
    pub(super) key: CacheKey,
    /// The right to fetch it; `None` if other requests do not wait for it.
    pub(super) permit: Option<FetchPermit>,
    /// The stored response to validate, if there is one.
    pub(super) stale: Option<CacheMeta>,
}

impl Fetch {
    /// Whether the response was requested often enough to be stored.
    #[expect(clippy::disallowed_methods, reason = "the response has arrived now")]
    fn is_used_enough(&self) -> bool {
        let minimum = self.route.spec.minimum_uses;
        minimum <= 1 || self.cache.uses.count(&self.key.primary_bin(), Instant::now()) >= minimum
    }

    /// Remembers that the response cannot be stored.
    #[expect(clippy::disallowed_methods, reason = "the response has arrived now")]
    fn remember_unstorable(&self, concerns: Concerns) {
        self.cache.unstorable.remember(&self.key.primary_bin(), concerns, Instant::now());
    }

    /// Ends the wait of other requests.
    fn release(&mut self, status: LockStatus) {
        if let Some(permit) = self.permit.take() {
            permit.release(status);
        }
    }
}

/// What happens to a fetch, for the client that caused it.
pub(super) enum Event {
    /// An interim response.
    Interim(ResponseHeader),
    /// The response is being stored and can be read.
    Stored(Box<(CacheMeta, HitHandler, Report)>),
    /// The stored response is valid; its header was updated.
    Validated(Box<(CacheMeta, Report)>),
    /// The backend says that another response than the stored one is valid.
    Unrelated,
    /// The response is not stored, for this reason: its head, followed by its body.
    Passed(Box<(ResponseHeader, Report, &'static str)>),
    /// A part of the body of a response that is not stored.
    Data(Bytes),
    /// The end of a response. The trailers of one that is stored are only for this client, and arrive before the end of
    /// its body in the store.
    End(Option<HeaderMap>),
    /// There is no response, or its rest is missing. Without an error l7lb rejected the request.
    Failed(Box<(Option<Box<Error>>, Report)>),
}

/// Takes the response of a fetch.
pub(super) struct Sink {
    /// The request of the client: its headers select a variant.
    request: HeaderMap,
    requested_at: SystemTime,
    /// The client; `None` in the background.
    client: Option<mpsc::Sender<Event>>,
    state: State,
}

enum State {
    /// The head has not arrived.
    Waiting,
    /// The body goes to the store, where the clients read it.
    Storing(MissHandler),
    /// The body goes to the client only.
    Passing,
    Complete,
}

impl Sink {
    pub(super) fn new(request: HeaderMap, client: Option<mpsc::Sender<Event>>, now: SystemTime) -> Self {
        Self { request, requested_at: now, client, state: State::Waiting }
    }

    /// Whether no client waits for it.
    pub(super) fn is_in_background(&self) -> bool {
        self.client.is_none()
    }

    /// Takes the parts of the response until its end, or until it is not needed any more.
    pub(super) async fn run(&mut self, fetch: Fetch, mut parts: mpsc::Receiver<Part>) {
        let mut fetch = Some(fetch);
        while let Some(part) = parts.recv().await {
            let wanted = match part {
                Part::Interim(head) => {
                    self.send(Event::Interim(head)).await;
                    true
                }
                Part::Head(head) => match fetch.take() {
                    Some(fetch) => self.decide(fetch, *head).await,
                    None => false,
                },
                Part::Data(data) => self.write(data).await,
                Part::End(trailers) => {
                    self.finish(trailers).await;
                    false
                }
            };
            if !wanted {
                return;
            }
        }
    }

    /// Reports a failure, if the response is not complete.
    pub(super) async fn end(mut self, error: Option<Box<Error>>, report: Report) {
        if !matches!(self.state, State::Complete) {
            self.send(Event::Failed(Box::new((error, report)))).await;
        }
    }

    /// Decides about the response by its head. Returns whether the rest is wanted.
    async fn decide(&mut self, mut fetch: Fetch, (head, report): (ResponseHeader, Report)) -> bool {
        let rules = &fetch.route.spec.rules;
        let times = Times { request: self.requested_at, response: SystemTime::now() };
        if let (StatusCode::NOT_MODIFIED, Some(stale)) = (head.status, &fetch.stale) {
            return match policy::update(stale, &head, &self.request, rules, times) {
                Some(validated) => self.validated(fetch, validated, report).await,
                None => {
                    self.state = State::Complete;
                    self.send(Event::Unrelated).await
                }
            };
        }
        let stale_is_better = head.status.is_server_error() && fetch.stale.is_some();
        let reason = match policy::storable(&head, &self.request, rules, times) {
            Ok(_) if stale_is_better => "failure",
            Ok(_) if !fetch.is_used_enough() => "minimum_uses",
            Ok(meta) => match fetch.cache.store(&mut fetch.key, &self.request, meta, rules.max_object_size).await {
                Ok(mut writing) => {
                    fetch.release(LockStatus::Done);
                    // This client also gets the fields that are not stored, such as a cookie for it.
                    *writing.meta.response_header_mut() = head;
                    self.state = State::Storing(writing.writer);
                    self.send(Event::Stored(Box::new((writing.meta, writing.body, report)))).await;
                    return true;
                }
                Err(e) => {
                    log::debug!("cannot store a response: {e}");
                    "storage_error"
                }
            },
            Err(refused) => {
                if let Some(concerns) = refused.concerns {
                    fetch.remember_unstorable(concerns);
                }
                refused.reason
            }
        };
        fetch.release(if stale_is_better { LockStatus::TransientError } else { LockStatus::GiveUp });
        self.state = State::Passing;
        self.send(Event::Passed(Box::new((head, report, reason)))).await
    }

    /// The stored response is valid.
    async fn validated(&mut self, mut fetch: Fetch, validated: Validated, report: Report) -> bool {
        let stored = match validated.refused {
            None => fetch.cache.update(&fetch.key, &validated.meta).await.map(drop),
            Some(_) => fetch.cache.remove(&fetch.key, &validated.meta).await,
        };
        if let Err(e) = stored {
            log::debug!("cannot update a stored response: {e}");
        }
        fetch.release(LockStatus::Done);
        self.send(Event::Validated(Box::new((validated.meta, report)))).await;
        self.state = State::Complete;
        // The end of the 304 may still arrive.
        true
    }

    /// Takes a part of the body. Returns whether more is wanted.
    async fn write(&mut self, data: Bytes) -> bool {
        match &mut self.state {
            State::Storing(writer) => {
                let written = writer.write_body(data, false).await;
                written.inspect_err(|e| log::debug!("a response cannot be stored, and no client reads it: {e}")).is_ok()
            }
            State::Passing => self.send(Event::Data(data)).await,
            State::Waiting | State::Complete => true,
        }
    }

    async fn finish(&mut self, trailers: Option<HeaderMap>) {
        match std::mem::replace(&mut self.state, State::Complete) {
            State::Storing(writer) => {
                // The client may be slow, or be gone.
                if let (Some(client), Some(trailers)) = (&self.client, trailers) {
                    client.try_send(Event::End(Some(trailers))).ok();
                }
                if let Err(e) = writer.finish().await {
                    log::debug!("a response was not stored: {e}");
                }
            }
            State::Passing => drop(self.send(Event::End(trailers)).await),
            State::Waiting | State::Complete => {}
        }
    }

    /// Sends an event to the client. Returns whether it listens.
    async fn send(&mut self, event: Event) -> bool {
        match &self.client {
            Some(client) => client.send(event).await.is_ok(),
            None => false,
        }
    }
}
