//! Backends in etcd: one key for each, below a prefix.
//!
//! The source reads all keys at a revision, and watches the changes after it. When the watch ends, for whatever reason
//! (lost connection, compaction, expired token), it reads all keys again, at the next endpoint if necessary. Once a
//! second a request for the number of keys detects an etcd that is stopped, unreachable, or without a leader: it is
//! linearizable, so a member without a quorum does not respond to it. Every fifth request asks for newer keys instead,
//! which detects a watch that is silent although its connection is open.
//!
//! It uses etcd's JSON gateway, because the crate etcd-client needs protoc at build time.

pub mod config;
mod entry;
mod gateway;
mod messages;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::task::JoinSet;

use super::item::Item;
use super::{FOUND_MAX, Found, LeftOut, Source, SourceList, failed};
use crate::base::backend_address::BackendAddress;
use crate::base::text_file;
use crate::discovery::target::{RESOLVE_INTERVAL, Target};
use crate::tls::connection::shorten;
use crate::tls::endpoint::Endpoint;
use config::Spec;
use gateway::{Gateway, Watch};
use messages::{
    AuthenticateRequest, AuthenticateResponse, CreateRequest, Event, RangeRequest, RangeResponse, WatchMessage,
    WatchRequest, encode, range_end,
};

/// The interval of the requests that detect a stopped or unreachable etcd.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How many of these requests there are for each request for newer keys, which costs etcd a scan of the range.
const PROBES: u32 = 5;
/// The pause after a watch that ended before it was of any use, so that it does not cause reads without end.
const PAUSE: Duration = Duration::from_secs(1);
/// The most messages of a watch that are applied together.
const BATCH: usize = 10_000;

/// The backend of each key, or why it has none.
type Entries = BTreeMap<Vec<u8>, Result<Item, String>>;

/// etcd as a source of backends.
pub struct EtcdSource {
    spec: Spec,
    /// The endpoint to use next.
    next: AtomicUsize,
    /// The connections, while etcd works. Held by one task at a time.
    session: tokio::sync::Mutex<Option<Session>>,
    /// The last known addresses of names.
    resolved: Mutex<HashMap<Target, Vec<BackendAddress>>>,
    /// The keys that the last list left out.
    rejected: LeftOut,
}

/// All keys, and the watch that keeps them current.
struct Session {
    entries: Entries,
    /// The revision of the entries.
    revision: u64,
    watch: Watch,
    probes: Gateway,
    token: Option<String>,
    /// Whether it has been of use since its first read.
    is_proven: bool,
}

impl Session {
    /// Reads all keys from `endpoint`, and starts to watch them.
    async fn open(endpoint: &Endpoint, spec: &Spec) -> Result<Self, String> {
        let mut connection = Gateway::open(endpoint, spec).await?;
        let token = authenticate(&mut connection, spec).await?;
        let request = RangeRequest { limit: FOUND_MAX + 1, ..range(spec) };
        let range: RangeResponse = connection.call(RANGE, token.as_deref(), &request).await?;
        if range.kvs.len() > FOUND_MAX {
            return Err(format!("there are {} keys, more than {FOUND_MAX}", range.count));
        }
        let entries = range.kvs.into_iter().map(|kv| (entry::parse(&kv.key, &kv.value), kv.key));
        let entries = entries.map(|(item, key)| (key, item)).collect();
        let (key, range_end) = (request.key, request.range_end);
        let revision = range.header.revision;
        let start_revision = (revision + 1).to_string();
        let request = WatchRequest { create_request: CreateRequest { key, range_end, start_revision } };
        let watch = connection.watch(token.as_deref(), &request).await?;
        let probes = Gateway::open(endpoint, spec).await?;
        Ok(Self { entries, revision, watch, probes, token, is_proven: false })
    }

    fn apply(&mut self, events: Vec<Event>, revision: u64) {
        self.is_proven = true;
        self.revision = self.revision.max(revision);
        for event in events {
            if event.is_deletion() {
                self.entries.remove(&event.kv.key);
            } else {
                let item = entry::parse(&event.kv.key, &event.kv.value);
                self.entries.insert(event.kv.key, item);
            }
        }
    }

    /// Applies the messages that have arrived.
    ///
    /// # Errors
    /// Why the watch has ended.
    async fn catch_up(&mut self) -> Result<(), String> {
        for _ in 0..BATCH {
            tokio::select! {
                biased;
                message = self.watch.next() => if let WatchMessage::Events(events, revision) = message? {
                    self.apply(events, revision);
                },
                () = std::future::ready(()) => break,
            }
        }
        Ok(())
    }

    /// Waits for changes, and applies them.
    ///
    /// # Errors
    /// Why there will be none.
    async fn wait(&mut self, spec: &Spec) -> Result<(), String> {
        let mut differs = false;
        for number in 1_u32.. {
            tokio::select! {
                message = self.watch.next() => match message? {
                    WatchMessage::Events(events, revision) if !events.is_empty() => {
                        self.apply(events, revision);
                        return Ok(());
                    }
                    _ => {}
                },
                () = tokio::time::sleep(PROBE_INTERVAL) => {
                    let request = if number.is_multiple_of(PROBES) {
                        let min_mod_revision = (self.revision + 1).to_string();
                        RangeRequest { keys_only: true, limit: 1, min_mod_revision, ..range(spec) }
                    } else {
                        RangeRequest { count_only: true, ..range(spec) }
                    };
                    let probe: RangeResponse = self.probes.call(RANGE, self.token.as_deref(), &request).await?;
                    if !probe.kvs.is_empty() {
                        return Err(MISSED.to_owned());
                    }
                    // The change may be on its way once, but not twice.
                    let differed = std::mem::replace(&mut differs, probe.count != self.entries.len() as u64);
                    if differed && differs {
                        return Err(MISSED.to_owned());
                    }
                    self.is_proven = true;
                }
            }
        }
        Ok(())
    }
}

const RANGE: &str = "/v3/kv/range";
const MISSED: &str = "the watch has missed a change";

/// The request for the keys of the prefix.
fn range(spec: &Spec) -> RangeRequest {
    let prefix = spec.prefix.as_bytes();
    RangeRequest { key: encode(prefix), range_end: encode(&range_end(prefix)), ..RangeRequest::default() }
}

/// The token of the user, if there is one.
async fn authenticate(connection: &mut Gateway, spec: &Spec) -> Result<Option<String>, String> {
    let Some(credentials) = &spec.credentials else { return Ok(None) };
    let path = credentials.password_file.clone();
    let read = tokio::task::spawn_blocking(move || text_file::read(&path)).await.map_err(|e| e.to_string())?;
    let password = read.map_err(|e| format!("the password is unknown: {e}"))?;
    let password = text_file::without_mark(&password).trim_end_matches(['\r', '\n']);
    let request = AuthenticateRequest { name: &credentials.user, password };
    let response: AuthenticateResponse = connection.call("/v3/auth/authenticate", None, &request).await?;
    Ok(Some(response.token))
}

impl EtcdSource {
    /// The source of `spec`.
    #[must_use]
    pub fn new(mut spec: Spec) -> Self {
        if let Some(credentials) = &mut spec.credentials
            && let Ok(path) = std::path::absolute(&credentials.password_file)
        {
            // A daemon may change its folder.
            credentials.password_file = path;
        }
        Self {
            spec,
            next: AtomicUsize::new(0),
            session: tokio::sync::Mutex::default(),
            resolved: Mutex::default(),
            rejected: LeftOut::default(),
        }
    }

    /// A session with the first endpoint that works, beginning with the last one that did.
    async fn connect(&self) -> Result<Session, String> {
        let mut reasons = Vec::new();
        for _ in 0..self.spec.endpoints.len() {
            // If the caller gives up meanwhile, the next attempt begins with the next endpoint.
            let index = self.next.fetch_add(1, Ordering::Relaxed) % self.spec.endpoints.len();
            let Some(endpoint) = self.spec.endpoints.get(index) else { break };
            match Session::open(endpoint, &self.spec).await {
                Ok(session) => {
                    self.next.store(index, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(reason) => reasons.push(format!("{endpoint}: {}", shorten(&reason))),
            }
        }
        Err(reasons.join("; "))
    }

    /// The entries that etcd has now.
    async fn entries(&self) -> Result<Entries, String> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_mut()
            && session.catch_up().await.is_err()
        {
            *slot = None;
        }
        let session = match slot.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        Ok(slot.insert(session).entries.clone())
    }

    /// The addresses of all names among `items`. A name that has no address now keeps those that it had.
    async fn resolve(&self, items: &[Item]) -> HashMap<Target, Result<Vec<BackendAddress>, String>> {
        let names: BTreeSet<&Target> =
            items.iter().map(|item| &item.target).filter(|target| target.is_name()).collect();
        let mut running = JoinSet::new();
        for name in names.into_iter().cloned() {
            running.spawn(async move { (name.resolve().await, name) });
        }
        let mut answers = HashMap::new();
        while let Some(answer) = running.join_next().await {
            answers.extend(answer.map(|(addresses, name)| (name, addresses)));
        }
        let mut resolved = self.resolved.lock();
        for (name, addresses) in &mut answers {
            if let (Err(_), Some(before)) = (&addresses, resolved.get(name)) {
                *addresses = Ok(before.clone());
            }
        }
        let known = answers.iter().filter_map(|(name, answer)| Some((name.clone(), answer.clone().ok()?)));
        *resolved = known.collect();
        answers
    }

    /// The backends of the entries; the number of invalid ones with the reason for one of them.
    async fn found(&self, entries: Entries) -> (Vec<Found>, Option<(usize, String)>) {
        let (mut items, mut reasons) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in entries.into_values() {
            match entry {
                Ok(item) => items.push(item),
                Err(reason) => reasons.push(reason),
            }
        }
        let names = self.resolve(&items).await;
        let mut found = Vec::with_capacity(items.len());
        for item in &items {
            let addresses = match &item.target {
                Target::Address(address) => Ok(vec![*address]),
                name => names.get(name).cloned().unwrap_or_else(|| Err("it was not resolved".to_owned())),
            };
            match addresses {
                Ok(addresses) => found.extend(item.found(addresses)),
                Err(reason) => reasons.push(format!("`{}` has no address: {reason}", item.target)),
            }
        }
        let count = reasons.len();
        (found, reasons.into_iter().next().map(|reason| (count, reason)))
    }
}

#[async_trait]
impl ServiceDiscovery for EtcdSource {
    async fn discover(&self) -> pingora::Result<SourceList> {
        let entries = match self.entries().await {
            Ok(entries) => entries,
            Err(reason) => return failed(reason),
        };
        let (found, rejected) = self.found(entries).await;
        self.rejected.list(found, rejected, "keys is valid")
    }
}

#[async_trait]
impl Source for EtcdSource {
    async fn changed(&self) {
        let mut slot = self.session.lock().await;
        let Some(session) = slot.as_mut() else { return };
        let has_names = session.entries.values().flatten().any(|item| item.target.is_name());
        let wait = session.wait(&self.spec);
        let ended = if has_names {
            // The end of the wait is not the end of the session.
            tokio::time::timeout(RESOLVE_INTERVAL, wait).await.unwrap_or(Ok(()))
        } else {
            wait.await
        };
        if ended.is_err() {
            let was_of_use = session.is_proven;
            *slot = None;
            if !was_of_use {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn rejected(&self) -> Option<(usize, String)> {
        self.rejected.last()
    }
}
