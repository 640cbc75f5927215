//! Containers of a Docker Engine as backends, selected by their labels.
//!
//! The source subscribes to the events of containers, then reads the list, so that no change between the two is lost.
//! An event that may change the list causes it to be read again. Once a second a ping detects an engine that is
//! stopped; twice a minute the list is read without an event, because an address may change without one.
//!
//! - `config`: the keys. `engine`: the Engine API over its Unix domain socket. `container`: what a container says.

mod config;
mod container;
mod engine;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::time::{Instant, sleep, sleep_until};

use self::container::{Container, POOL};
use self::engine::{Engine, Event, Events, Filter, Version};
use super::{FOUND_MAX, LeftOut, Source, SourceList, failed};
use crate::base::units::PoolName;
use crate::tls::connection::{Ended, shorten};

pub use self::config::{Config, Spec};

/// The interval of pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How often the list is read without an event.
const LIST_INTERVAL: Duration = Duration::from_secs(30);
/// How long events are collected before the list is read.
const QUIET: Duration = Duration::from_millis(30);
/// The pause after events that ended before they were of any use, so that they do not cause reads without end.
const PAUSE: Duration = Duration::from_secs(1);
/// The most events that are applied together.
const BATCH: usize = 10_000;

/// Containers as a source of backends.
pub struct DockerSource {
    spec: Spec,
    filter: Filter,
    /// The connections, while the engine works. Held by one task at a time.
    session: tokio::sync::Mutex<Option<Session>>,
    /// The containers that the last list left out.
    rejected: LeftOut,
}

/// A connection for requests, and one for events.
struct Session {
    engine: Engine,
    version: Version,
    events: Events,
    /// The ids of containers that got the signal to stop, until they end.
    stopping: BTreeSet<String>,
    /// Whether the events have been of use.
    is_proven: bool,
}

impl Session {
    async fn open(spec: &Spec, filter: &Filter) -> Result<Self, String> {
        let mut engine = Engine::connect(&spec.socket).await?;
        let version = engine.ping().await?;
        let events = Engine::connect(&spec.socket).await?.events(&version, filter).await?;
        Ok(Self { engine, version, events, stopping: BTreeSet::new(), is_proven: false })
    }

    /// The containers now.
    ///
    /// # Errors
    /// Why the session has ended.
    async fn list(&mut self, filter: &Filter) -> Result<Vec<Container>, String> {
        for _ in 0..BATCH {
            tokio::select! {
                biased;
                line = self.events.next() => {
                    self.apply(line)?;
                }
                () = std::future::ready(()) => break,
            }
        }
        self.engine.containers(&self.version, filter).await
    }

    /// Applies a line of the events. Returns whether it is an event.
    ///
    /// # Errors
    /// Why there are no further events.
    fn apply(&mut self, line: Result<BytesMut, Ended>) -> Result<bool, String> {
        let line = line.map_err(|ended| ended.to_string())?;
        let Some(event) = engine::event(&line)? else { return Ok(false) };
        self.is_proven = true;
        match event {
            Event::Changed => {}
            Event::Settled(id) => {
                self.stopping.remove(&id);
            }
            Event::Stopping(id) if self.stopping.len() < FOUND_MAX => {
                self.stopping.insert(id);
            }
            Event::Stopping(_) => return Err(format!("more than {FOUND_MAX} containers stop at the same time")),
        }
        Ok(true)
    }

    /// Waits until reading the list again is worth it.
    ///
    /// # Errors
    /// Why the session has ended.
    async fn wait(&mut self) -> Result<(), String> {
        let end = Instant::now() + LIST_INTERVAL;
        let mut next_ping = Instant::now() + PING_INTERVAL;
        loop {
            tokio::select! {
                line = self.events.next() => if self.apply(line)? {
                    sleep(QUIET).await;
                    return Ok(());
                },
                () = sleep_until(end) => return Ok(()),
                () = sleep_until(next_ping) => {
                    self.engine.ping().await?;
                    next_ping = Instant::now() + PING_INTERVAL;
                    self.is_proven = true;
                }
            }
        }
    }
}

impl DockerSource {
    /// The containers that `spec` selects for `pool`.
    #[must_use]
    pub fn new(spec: Spec, pool: &PoolName) -> Self {
        let labels = if spec.labels.is_empty() { vec![format!("{POOL}={pool}")] } else { spec.labels.clone() };
        Self { spec, filter: Filter(labels), session: tokio::sync::Mutex::default(), rejected: LeftOut::default() }
    }

    /// The containers, and the ids of those that stop.
    async fn read(&self) -> Result<(Vec<Container>, BTreeSet<String>), String> {
        let mut slot = self.session.lock().await;
        // It is taken, because a dropped future leaves its connection in an unknown state.
        if let Some(mut session) = slot.take()
            && let Ok(containers) = session.list(&self.filter).await
        {
            return Ok((containers, slot.insert(session).stopping.clone()));
        }
        let mut session = Session::open(&self.spec, &self.filter).await?;
        let containers = session.list(&self.filter).await?;
        Ok((containers, slot.insert(session).stopping.clone()))
    }
}

#[async_trait]
impl ServiceDiscovery for DockerSource {
    async fn discover(&self) -> pingora::Result<SourceList> {
        let (containers, stopping) = match self.read().await {
            Ok(read) => read,
            Err(reason) => return failed(format!("{}: {}", self.spec.socket.display(), shorten(&reason))),
        };
        let (mut found, mut reasons) = (Vec::with_capacity(containers.len()), Vec::new());
        for container in containers.iter().filter(|container| container.is_ready()) {
            match container.found(&self.spec, stopping.contains(&container.id)) {
                Ok(backend) => found.push(backend),
                Err(reason) => reasons.push(reason),
            }
        }
        let rejected = reasons.first().map(|reason| (reasons.len(), reason.clone()));
        self.rejected.list(found, rejected, "containers is usable")
    }
}

#[async_trait]
impl Source for DockerSource {
    async fn changed(&self) {
        let mut slot = self.session.lock().await;
        let Some(session) = slot.as_mut() else { return };
        if session.wait().await.is_err() {
            let was_of_use = session.is_proven;
            *slot = None;
            if !was_of_use {
                sleep(PAUSE).await;
            }
        }
    }

    fn rejected(&self) -> Option<(usize, String)> {
        self.rejected.last()
    }
}
