//! What an operator sees of a pool's backends while the process runs, and changes about them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::base::event::Event;
use crate::base::units::Timestamp;
use crate::discovery::Target;
use crate::pool::config::{WEIGHT_MAX, WEIGHTS_MAX};
use crate::pool::endpoint::Endpoint;
use crate::pool::live::Pool;
use crate::pool::operator::administration::Change;

/// A backend, and what the file calls it.
pub struct Found {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// What the file says of where it is.
    pub target: Target,
}

/// Why a backend was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The pool has none there.
    Unknown,
    /// The weight is more than one may have.
    TooHeavy(u32),
    /// With it the weights would add up to so much.
    TooMuch(u32),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the pool has no such backend"),
            Self::TooHeavy(weight) => write!(f, "a weight of {weight} is more than {WEIGHT_MAX}"),
            Self::TooMuch(total) => write!(f, "the weights would add up to {total}, more than {WEIGHTS_MAX}"),
        }
    }
}

impl Pool {
    /// Every backend that was found, in the order of the file, also those without weight.
    #[must_use]
    pub fn backends(&self) -> Vec<Found> {
        let origin = |endpoint: Arc<Endpoint>| {
            let address = endpoint.address();
            let (place, target) = self.discovery.origin(address).unwrap_or((usize::MAX, Target::Address(address)));
            ((place, address), Found { endpoint, target })
        };
        let mut found: Vec<_> = self.discovery.attached().into_iter().map(origin).collect();
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, found)| found).collect()
    }

    /// An operator says something of a backend. It holds from the next request on, for all workers.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn change(&self, address: SocketAddr, change: Change, since: Timestamp, now: Instant) -> Result<(), Refused> {
        let all = self.discovery.attached();
        let endpoint = all.iter().find(|endpoint| endpoint.address() == address).ok_or(Refused::Unknown)?;
        if let Change::Weight(weight) = change {
            if weight > WEIGHT_MAX {
                return Err(Refused::TooHeavy(weight));
            }
            let others = all.iter().filter(|other| other.address() != address);
            let total = others.fold(weight, |total, other| total.saturating_add(other.weight()));
            if total > WEIGHTS_MAX {
                return Err(Refused::TooMuch(total));
            }
        }
        let before = (endpoint.state(), endpoint.weight());
        endpoint.change(change, since, now);
        let after = (endpoint.state(), endpoint.weight());
        if before.1 != after.1 {
            self.balancer.reweigh();
        }
        if before != after {
            let (state, weight) = (after.0.to_string(), after.1);
            Event::BackendOverridden { pool: self.name.clone(), backend: address, state, weight }.announce();
        }
        Ok(())
    }
}
