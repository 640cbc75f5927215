//! Registrations: backends that a deployment tool or the service itself adds through the control API.
//!
//! A registration may have a time to live. If it is not renewed in time, it ends as if it had been removed. A backend
//! whose registration ends is drained first: it stays in the list, without new requests, until its requests in flight
//! have ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{FOUND_MAX, Found, Source, list};
use crate::base::backend_address::BackendAddress;
use crate::base::units::{Period, Zone};
use crate::discovery::labels::Labels;

/// The settings of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Share of the traffic relative to the other backends, at most 1000; 0 gets none.
    #[serde(default = "weight")]
    pub weight: u32,
    /// Whether it takes traffic only when too few primary backends are available.
    #[serde(default)]
    pub backup: bool,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Labels, which operators see.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The registration ends unless it is renewed within this time; it does not end without this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
}

fn weight() -> u32 {
    1
}

impl Default for Settings {
    fn default() -> Self {
        Self { weight: weight(), backup: false, zone: None, labels: Labels::default(), ttl: None }
    }
}

/// A registration in the form in which it outlasts the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRegistration {
    /// The backend.
    pub address: BackendAddress,
    /// Its settings.
    pub settings: Settings,
    /// Its revision.
    pub revision: u64,
}

/// A registration as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its settings.
    pub settings: Settings,
    /// Changes with each change of the settings. Unique in its pool.
    pub revision: u64,
    /// Time until it ends; `None` without a time to live.
    pub remaining: Option<Duration>,
    /// Whether it has ended, and requests in flight remain.
    pub is_draining: bool,
}

/// The condition of a write, from `If-Match` and `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Any,
    /// There is no registration of this backend.
    Absent,
    /// There is one with any of these revisions; with any revision if the list is empty.
    Match(Vec<u64>),
}

/// Why a write is rejected; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The condition does not hold. The current revision, if there is a registration.
    Condition(Option<u64>),
    /// There is no such registration.
    Unknown,
    /// The pool has [`FOUND_MAX`] registrations.
    TooMany,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The backend is new.
    Added,
    /// Its settings have changed, or it was being drained.
    Changed,
    /// Its time to live begins again; nothing else changed.
    Renewed,
}

struct Entry {
    settings: Settings,
    revision: u64,
    /// When it ends, without a renewal.
    expires: Option<Instant>,
    /// When it has ended.
    ended: Option<Instant>,
}

#[derive(Default)]
struct Entries {
    by_address: BTreeMap<BackendAddress, Entry>,
    revision: u64,
}

/// The registrations of one pool.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<Entries>,
    /// Wakes the loop that keeps the list.
    changed: Notify,
    /// Wakes the loop that ends registrations.
    written: Notify,
}

impl Registry {
    /// Adds a backend, changes its settings, or renews it.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn register(
        &self,
        address: BackendAddress,
        settings: Settings,
        condition: &Condition,
        now: Instant,
    ) -> Result<Registered, Rejected> {
        let mut entries = self.entries.lock();
        entries.check(address, condition)?;
        let is_new = !entries.by_address.contains_key(&address);
        if is_new && entries.by_address.len() >= FOUND_MAX {
            return Err(Rejected::TooMany);
        }
        let expires = settings.ttl.map(|ttl| now + ttl.0);
        if let Some(entry) = entries.by_address.get_mut(&address)
            && entry.settings == settings
            && entry.ended.is_none()
        {
            entry.expires = expires;
            drop(entries);
            self.written.notify_one();
            return Ok(Registered::Renewed);
        }
        entries.revision += 1;
        let revision = entries.revision;
        entries.by_address.insert(address, Entry { settings, revision, expires, ended: None });
        drop(entries);
        self.notify();
        Ok(if is_new { Registered::Added } else { Registered::Changed })
    }

    /// Renews a registration that has not ended.
    ///
    /// # Errors
    /// If there is none.
    pub fn renew(&self, address: BackendAddress, now: Instant) -> Result<(), Rejected> {
        let mut entries = self.entries.lock();
        let entry = entries.by_address.get_mut(&address).filter(|entry| entry.ended.is_none());
        let entry = entry.ok_or(Rejected::Unknown)?;
        entry.expires = entry.settings.ttl.map(|ttl| now + ttl.0);
        Ok(())
    }

    /// Ends a registration. The backend is drained. Returns whether it had not ended before.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn remove(&self, address: BackendAddress, condition: &Condition, now: Instant) -> Result<bool, Rejected> {
        let mut entries = self.entries.lock();
        entries.check(address, condition)?;
        let entry = entries.by_address.get_mut(&address).ok_or(Rejected::Unknown)?;
        let ended = entry.ended.is_none();
        entry.ended.get_or_insert(now);
        drop(entries);
        self.notify();
        Ok(ended)
    }

    /// One registration.
    #[must_use]
    pub fn get(&self, address: BackendAddress, now: Instant) -> Option<Registration> {
        self.entries.lock().by_address.get(&address).map(|entry| entry.describe(now))
    }

    /// Ends registrations that were not renewed, and returns their backends.
    pub fn expire(&self, now: Instant) -> Vec<BackendAddress> {
        let mut expired = Vec::new();
        for (address, entry) in &mut self.entries.lock().by_address {
            if entry.ended.is_none() && entry.expires.is_some_and(|expires| expires <= now) {
                entry.ended = Some(now);
                expired.push(*address);
            }
        }
        if !expired.is_empty() {
            self.changed.notify_one();
        }
        expired
    }

    /// Forgets ended registrations whose backends have no requests in flight, or that ended at least `limit` ago.
    pub fn forget_ended(&self, limit: Duration, now: Instant, in_flight: impl Fn(BackendAddress) -> bool) {
        let mut entries = self.entries.lock();
        let before = entries.by_address.len();
        entries.by_address.retain(|address, entry| {
            entry.ended.is_none_or(|ended| now.saturating_duration_since(ended) < limit && in_flight(*address))
        });
        let forgotten = entries.by_address.len() < before;
        drop(entries);
        if forgotten {
            self.changed.notify_one();
        }
    }

    /// When the next registration ends without a renewal; `None` if none does.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let entries = self.entries.lock();
        entries.by_address.values().filter(|entry| entry.ended.is_none()).filter_map(|entry| entry.expires).min()
    }

    /// Whether a backend is being drained because its registration has ended.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.entries.lock().by_address.values().any(|entry| entry.ended.is_some())
    }

    /// The registrations that have not ended.
    #[must_use]
    pub fn saved(&self) -> Vec<SavedRegistration> {
        let entries = self.entries.lock();
        let active = entries.by_address.iter().filter(|(_, entry)| entry.ended.is_none());
        let saved = |(address, entry): (&BackendAddress, &Entry)| SavedRegistration {
            address: *address,
            settings: entry.settings.clone(),
            revision: entry.revision,
        };
        active.map(saved).collect()
    }

    /// Takes over the registrations of an earlier process: adds and changes those in `saved`, and ends others. Their time
    /// to live begins again: they could not be renewed while no process was running.
    pub fn replace(&self, saved: Vec<SavedRegistration>, now: Instant) {
        let mut entries = self.entries.lock();
        let kept: BTreeSet<BackendAddress> = saved.iter().map(|saved| saved.address).collect();
        for (_, entry) in entries.by_address.iter_mut().filter(|(address, _)| !kept.contains(address)) {
            entry.ended.get_or_insert(now);
        }
        for SavedRegistration { address, settings, revision } in saved {
            entries.revision = entries.revision.max(revision);
            let expires = settings.ttl.map(|ttl| now + ttl.0);
            entries.by_address.insert(address, Entry { settings, revision, expires, ended: None });
        }
        drop(entries);
        self.notify();
    }

    /// Waits until something was written that may change [`Registry::next_expiry`] or [`Registry::is_draining`].
    pub async fn written(&self) {
        self.written.notified().await;
    }

    fn notify(&self) {
        self.changed.notify_one();
        self.written.notify_one();
    }
}

impl Entries {
    fn check(&self, address: BackendAddress, condition: &Condition) -> Result<(), Rejected> {
        // An ended registration does not exist any more for writers.
        let entry = self.by_address.get(&address).filter(|entry| entry.ended.is_none());
        let current = entry.map(|entry| entry.revision);
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => current.is_none(),
            Condition::Match(revisions) => {
                current.is_some_and(|current| revisions.is_empty() || revisions.contains(&current))
            }
        };
        if holds { Ok(()) } else { Err(Rejected::Condition(current)) }
    }
}

impl Entry {
    fn describe(&self, now: Instant) -> Registration {
        Registration {
            settings: self.settings.clone(),
            revision: self.revision,
            remaining: self.expires.map(|expires| expires.saturating_duration_since(now)),
            is_draining: self.ended.is_some(),
        }
    }
}

#[async_trait]
impl ServiceDiscovery for Registry {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let entries = self.entries.lock();
        let found = entries.by_address.iter().map(|(address, entry)| Found {
            address: *address,
            weight: entry.settings.weight,
            backup: entry.settings.backup,
            drain: entry.ended.is_some(),
            zone: entry.settings.zone.clone(),
            labels: entry.settings.labels.clone(),
        });
        Ok((list(found), HashMap::new()))
    }
}

#[async_trait]
impl Source for Registry {
    async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
