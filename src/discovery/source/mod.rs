//! Sources of backends: what a source is, and its list once it has been validated.
//!
//! A source is Pingora's [`ServiceDiscovery`], which reads the complete list, and says when reading it again is worth
//! it. It does not decide what its list does to the pool: `discovery::kept` keeps the last good list, limits how many
//! backends disappear at once, and reports failures. So a source may simply fail.

pub mod api;
pub mod dns;
pub mod docker;
pub mod etcd;
pub mod file;
mod item;
pub mod kubernetes;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::units::Zone;
use crate::discovery::identity::identity;
use crate::discovery::labels::Labels;

/// The largest weight of a backend. Pingora uses one slot for each unit of weight.
pub const WEIGHT_MAX: u32 = 1000;

/// The most backends of one source. Longer lists are rejected as a whole.
pub const FOUND_MAX: usize = 20_000;

/// A backend that a source found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Found {
    /// Its address.
    pub address: BackendAddress,
    /// Its share of the traffic relative to the other backends of the pool; 0 gets none.
    pub weight: u32,
    /// Takes traffic only when too few primary backends are available.
    pub backup: bool,
    /// Gets no new requests.
    pub drain: bool,
    /// Its zone, if the source knows it.
    pub zone: Option<Zone>,
    /// Its labels, for operators.
    pub labels: Labels,
}

impl Found {
    /// A primary backend with weight 1 and without labels.
    #[must_use]
    pub fn at(address: BackendAddress) -> Self {
        Self { address, weight: 1, backup: false, drain: false, zone: None, labels: Labels::default() }
    }
}

/// Which addresses of a source are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// All addresses.
    #[default]
    Any,
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
}

/// The name of a source in events and commands, such as `dns api.internal:8080`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(pub Arc<str>);

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A source of backends.
///
/// `discover` reads the complete list. Each backend in its result carries a [`Found`] as an extension
/// ([`list`] makes such a result). An error means that the list is not known; an empty list means that there are no
/// backends. It is called again after an error, so it connects when it needs to.
#[async_trait]
pub trait Source: ServiceDiscovery {
    /// Waits until reading the list again is worth it: the source has reported a change, its answer has expired, or
    /// the connection has been lost. It may return without a change. It is called only after `discover` has succeeded,
    /// and may be dropped before it returns.
    async fn changed(&self);

    /// How many entries `discover` left out of its last list because they are invalid, and the reason for one of them.
    fn rejected(&self) -> Option<(usize, String)> {
        None
    }
}

/// The result of [`ServiceDiscovery::discover`].
pub(super) type SourceList = (BTreeSet<Backend>, HashMap<u64, bool>);

/// The list in the result of [`ServiceDiscovery::discover`] with these backends. Of backends with the same address, the first
/// counts.
#[must_use]
pub fn list(found: impl IntoIterator<Item = Found>) -> BTreeSet<Backend> {
    let backend = |found: Found| {
        let mut ext = Extensions::new();
        let addr = identity(found.address);
        ext.insert(found);
        // Pingora's weight is part of the identity of a backend, so it is the same for all here.
        Backend { addr, weight: 1, ext }
    };
    let mut list = BTreeSet::new();
    for backend in found.into_iter().map(backend) {
        if !list.contains(&backend) {
            list.insert(backend);
        }
    }
    list
}

/// The entries that a source left out of its last list because they are invalid: their number, and the reason for one of
/// them.
#[derive(Default)]
pub(super) struct LeftOut(Mutex<Option<(usize, String)>>);

impl LeftOut {
    /// The result of [`ServiceDiscovery::discover`] with what is left of a list. It fails if nothing is: a list that is
    /// empty because of faults is no reason to remove backends. `valid` ends a sentence, such as `keys is valid`.
    pub(super) fn list(
        &self,
        found: Vec<Found>,
        rejected: Option<(usize, String)>,
        valid: &str,
    ) -> pingora::Result<SourceList> {
        if let (true, Some((count, reason))) = (found.is_empty(), &rejected) {
            return failed(format!("none of the {count} {valid}; {reason}"));
        }
        *self.0.lock() = rejected;
        Ok((list(found), HashMap::new()))
    }

    /// Those of the last list.
    pub(super) fn last(&self) -> Option<(usize, String)> {
        self.0.lock().clone()
    }
}

/// The backends in a result of [`list`].
pub(super) fn found(list: &BTreeSet<Backend>) -> Vec<Found> {
    list.iter().filter_map(|backend| backend.ext.get::<Found>().cloned()).collect()
}

/// A failure of a source with a sentence for operators.
pub fn failed<T>(reason: impl Into<String>) -> pingora::Result<T> {
    pingora::Error::e_explain(pingora::ErrorType::Custom("discovery failed"), reason.into())
}

/// The sentence for operators in an error of a source.
pub(super) fn reason(error: &pingora::Error) -> String {
    error.context.as_ref().map_or_else(|| error.to_string(), ToString::to_string)
}
