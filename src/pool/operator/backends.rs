//! Lists the backends of a pool for operators, and applies and restores their overrides.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::Timestamp;
use crate::discovery::source::SourceName;
use crate::discovery::{Discovered, Origin, Sources, Target};
use crate::pool::config::{WEIGHT_MAX, WEIGHTS_MAX};
use crate::pool::endpoint::Endpoint;
use crate::pool::live::Pool;
use crate::pool::operator::overrides::Change;
use crate::pool::operator::saved::SavedOverride;

/// A backend, and where it comes from.
pub struct ListedBackend {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// Its origin and settings.
    pub discovered: Discovered,
}

impl ListedBackend {
    /// The address or name in the configuration; the address, if a source found it.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.discovered.member.target
    }

    /// The source that found it; `None` if the configuration names it.
    #[must_use]
    pub fn source(&self) -> Option<&SourceName> {
        match &self.discovered.origin {
            Origin::Configured(_) => None,
            Origin::Source(name) => Some(name),
        }
    }
}

/// Why an override is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideRejected {
    /// The pool has no backend with this address.
    UnknownBackend,
    /// The weight exceeds the maximum.
    WeightTooLarge(u32),
    /// The sum of all weights would exceed the maximum.
    TotalWeightTooLarge(u32),
}

impl fmt::Display for OverrideRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownBackend => f.write_str("the pool has no such backend"),
            Self::WeightTooLarge(weight) => write!(f, "a weight of {weight} exceeds {WEIGHT_MAX}"),
            Self::TotalWeightTooLarge(total) => {
                write!(f, "the weights would add up to {total}, more than {WEIGHTS_MAX}")
            }
        }
    }
}

impl Pool {
    /// Every discovered backend in the order of the configuration, including those with weight 0.
    #[must_use]
    pub fn backends(&self) -> Vec<ListedBackend> {
        let listed = |(discovered, endpoint)| ListedBackend { endpoint, discovered };
        self.discovery.listed().into_iter().map(listed).collect()
    }

    /// One discovered backend.
    #[must_use]
    pub fn backend(&self, address: BackendAddress) -> Option<ListedBackend> {
        let (discovered, endpoint) = self.discovery.listed_at(address)?;
        Some(ListedBackend { endpoint, discovered })
    }

    /// The sources of its backends.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        self.discovery.sources()
    }

    /// Applies a change by an operator. It takes effect with the next request, on all workers.
    ///
    /// # Errors
    /// The reason for the rejection. In that case nothing changes.
    pub fn change(
        &self,
        address: BackendAddress,
        change: Change,
        since: Timestamp,
        now: Instant,
    ) -> Result<(), OverrideRejected> {
        let all = self.discovery.attached();
        let endpoint =
            all.iter().find(|endpoint| endpoint.address() == address).ok_or(OverrideRejected::UnknownBackend)?;
        if let Change::Weight(weight) = change {
            if weight > WEIGHT_MAX {
                return Err(OverrideRejected::WeightTooLarge(weight));
            }
            let others = all.iter().filter(|other| other.address() != address);
            let total = others.fold(weight, |total, other| total.saturating_add(other.weight()));
            if total > WEIGHTS_MAX {
                return Err(OverrideRejected::TotalWeightTooLarge(total));
            }
        }
        let before = (endpoint.state(), endpoint.weight());
        endpoint.change(change, since, now);
        let after = (endpoint.state(), endpoint.weight());
        if before.1 != after.1 {
            self.balancer.update_weights();
        }
        if before != after {
            let (state, weight) = (after.0.to_string(), after.1);
            Event::BackendOverridden { pool: self.name.clone(), backend: address, state, weight }.announce();
        }
        Ok(())
    }
}

impl Pool {
    /// Restores an override: now, or when discovery finds the backend. Returns whether the configuration has such a
    /// backend, or a name that may resolve to it.
    pub fn restore(&self, saved: SavedOverride, now: Instant) -> bool {
        let address = saved.backend;
        if !self.may_find(address) {
            return false;
        }
        self.replaced.pending.add(saved);
        let found = self.discovery.attached().into_iter().find(|endpoint| endpoint.address() == address);
        if let Some(endpoint) = found {
            self.replaced.pending.apply_to(&endpoint, now);
            self.balancer.update_weights();
        }
        true
    }

    fn may_find(&self, address: BackendAddress) -> bool {
        let members = &self.spec.members;
        // A source may find any address.
        !self.spec.sources.is_empty()
            || members.iter().any(|member| member.target.is_name() || member.target == Target::Address(address))
    }

    /// All overrides, in the order of addresses, including those of backends that discovery has not found yet.
    #[must_use]
    pub fn saved_overrides(&self) -> Vec<SavedOverride> {
        let of = |endpoint: &Arc<Endpoint>| {
            Some(SavedOverride {
                pool: self.name.clone(),
                backend: endpoint.address(),
                configured: endpoint.configured(),
                overridden: endpoint.active_override()?,
            })
        };
        let mut saved: Vec<_> = self.discovery.attached().iter().filter_map(of).collect();
        saved.extend(self.replaced.pending.all().into_iter().filter(|saved| self.may_find(saved.backend)));
        saved.sort_by_key(|saved| saved.backend);
        saved
    }
}
