//! Backends in Kubernetes: the EndpointSlices of a Service.
//!
//! The source lists the slices, and watches their changes after the version of the list. When the connection is lost, it
//! watches again from the last version; if the API server does not have the changes since then any more (status 410), or
//! sends something invalid, it lists again. HTTP/2 PING frames detect an API server that is stopped or unreachable; a
//! watch that stays open much longer than requested is taken for lost.
//!
//! The crate kube is not used: with k8s-openapi it adds 51 crates, and to a debug build two minutes and 13 MB.

mod api;
pub mod config;
mod kubeconfig;
mod messages;
mod slices;

use std::time::Duration;

use async_trait::async_trait;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::time::Instant;

use super::{LeftOut, Source, SourceList, failed};
use crate::tls::connection::{Ended, Lines, shorten};
use api::{Api, Failure, Known};
use config::Spec;
use messages::Event;

/// How long a watch lasts before it is renewed. A fifth of it is random, so that watches do not end at the same time.
const WATCH: Duration = Duration::from_secs(300);
/// The part of a watch's duration that it may last longer before it is taken for lost: 10 s for 300 s.
const GRACE: u32 = 30;
/// The shortest time between the starts of two watches, so that an unstable API server does not cause requests without
/// end.
const PAUSE: Duration = Duration::from_secs(1);
/// The most messages of a watch that are applied together.
const BATCH: usize = 10_000;
/// The status of a version that is too old.
const GONE: u16 = 410;

/// A Service in Kubernetes as a source of backends.
pub struct KubernetesSource {
    spec: Spec,
    /// How long a watch lasts at most.
    watch: Duration,
    /// What is known of the slices. Held by one task at a time.
    state: tokio::sync::Mutex<State>,
    /// The endpoints that the last list left out.
    rejected: LeftOut,
}

/// What is known of the slices, and the watch that keeps it current.
#[derive(Default)]
struct State {
    known: Option<Known>,
    live: Option<Live>,
    /// What was wrong with the last watch, until it is reported.
    fault: Option<String>,
}

/// A watch with its connection.
struct Live {
    api: Api,
    lines: Lines,
    started: Instant,
    /// When the watch is taken for lost.
    until: Instant,
    /// Why the watch has ended.
    ended: Option<End>,
}

/// Why a watch has ended.
#[derive(Clone, Debug)]
enum End {
    /// As requested.
    Closed,
    /// The connection has been lost.
    Lost,
    /// Changes are missing: a complete list is required.
    Gone,
    /// The API server has sent an error or something invalid.
    Fault(String),
}

impl Live {
    async fn start(mut api: Api, version: &str, watch: Duration) -> Result<Self, (Api, Failure)> {
        let limit = watch.mul_f64(0.8 + fastrand::f64() / 5.0);
        match api.watch(version, limit).await {
            Ok(lines) => {
                let started = Instant::now();
                Ok(Self { api, lines, started, until: started + limit + watch / GRACE, ended: None })
            }
            Err(failure) => Err((api, failure)),
        }
    }

    /// The next event. Nothing is lost if the future is dropped.
    async fn next(&mut self) -> Result<Event, End> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let end = match tokio::time::timeout_at(self.until, self.lines.next()).await {
            Err(_) | Ok(Err(Ended::Lost(_))) => End::Lost,
            Ok(Err(Ended::Closed)) => End::Closed,
            Ok(Err(Ended::Invalid(reason))) => End::Fault(reason),
            Ok(Ok(line)) => match messages::event(&line) {
                Ok(Event::Error(status)) if status.code == GONE => End::Gone,
                Ok(Event::Error(status)) => {
                    End::Fault(format!("the API server ended the watch: {} {}", status.code, status.message))
                }
                Ok(event) => return Ok(event),
                Err(reason) => End::Fault(reason),
            },
        };
        self.ended = Some(end.clone());
        Err(end)
    }
}

impl Known {
    /// Applies an event. Returns whether slices have changed.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Put(slice) => {
                self.version.clone_from(&slice.metadata.resource_version);
                self.slices.insert(slice.metadata.name.clone(), slice);
                true
            }
            Event::Deleted(metadata) => {
                self.version = metadata.resource_version;
                self.slices.remove(&metadata.name).is_some()
            }
            Event::Bookmark(version) => {
                self.version = version;
                false
            }
            // It ends the watch.
            Event::Error(_) => false,
        }
    }
}

impl State {
    /// Applies the events that have arrived.
    async fn catch_up(&mut self) {
        let (Some(known), Some(live)) = (&mut self.known, &mut self.live) else { return };
        for _ in 0..BATCH {
            tokio::select! {
                biased;
                // The next wait deals with the end of the watch.
                event = live.next() => match event {
                    Ok(event) => { known.apply(event); }
                    Err(_) => return,
                },
                () = std::future::ready(()) => return,
            }
        }
    }
}

impl KubernetesSource {
    /// The source of `spec`.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, watch: WATCH, state: tokio::sync::Mutex::default(), rejected: LeftOut::default() }
    }

    /// Connects, and watches from the last version, or after a new list.
    async fn connect(&self, known: &mut Option<Known>) -> Result<Live, String> {
        let mut api = Api::open(&self.spec).await?;
        if let Some(before) = known {
            match Live::start(api, &before.version, self.watch).await {
                Ok(live) => return Ok(live),
                Err((_, Failure::Other(reason))) => return Err(reason),
                Err((same, Failure::Refused(_))) => api = same,
            }
        }
        let listed = api.list().await.map_err(Failure::reason)?;
        let live = Live::start(api, &listed.version, self.watch).await.map_err(|(_, failure)| failure.reason())?;
        *known = Some(listed);
        Ok(live)
    }

    /// Continues after the end of a watch.
    async fn renew(&self, state: &mut State, end: End) {
        let State { known, live, fault } = state;
        let Some(started) = live.as_ref().map(|live| live.started) else { return };
        tokio::time::sleep_until(started + PAUSE.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
        match end {
            End::Closed => {
                let (Some(Live { api, .. }), Some(known)) = (live.take(), known) else { return };
                // Without a watch, the source connects.
                *live = Live::start(api, &known.version, self.watch).await.ok();
            }
            End::Lost => *live = None,
            End::Gone => (*live, *known) = (None, None),
            End::Fault(reason) => (*live, *known, *fault) = (None, None, Some(shorten(&reason))),
        }
    }
}

#[async_trait]
impl ServiceDiscovery for KubernetesSource {
    async fn discover(&self) -> pingora::Result<SourceList> {
        let mut state = self.state.lock().await;
        state.catch_up().await;
        // While the list cannot be used, nothing waits for changes.
        if let Some(live) = state.live.as_ref().filter(|live| live.started.elapsed() >= PAUSE)
            && let Some(end) = live.ended.clone()
        {
            self.renew(&mut state, end).await;
        }
        if let Some(reason) = state.fault.take() {
            return failed(reason);
        }
        if state.live.is_none() {
            match self.connect(&mut state.known).await {
                Ok(live) => state.live = Some(live),
                Err(reason) => return failed(reason),
            }
        }
        let Some(known) = &state.known else { return failed("the slices are not known") };
        let listed = match slices::list(&known.slices, self.spec.port.as_ref(), self.spec.family) {
            Ok(listed) => listed,
            Err(reason) => return failed(reason),
        };
        self.rejected.list(listed.found, listed.rejected, "endpoints is valid")
    }
}

#[async_trait]
impl Source for KubernetesSource {
    async fn changed(&self) {
        let mut state = self.state.lock().await;
        loop {
            let State { known: Some(known), live: Some(live), .. } = &mut *state else { return };
            match live.next().await {
                Ok(event) => {
                    if known.apply(event) {
                        return;
                    }
                }
                Err(end) => {
                    self.renew(&mut state, end).await;
                    if state.live.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn rejected(&self) -> Option<(usize, String)> {
        self.rejected.last()
    }
}

/// Whether a text is a label of DNS (RFC 1123 §2.1) in lower case, as the names of Services and namespaces.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
