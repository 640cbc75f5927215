//! What a route binds a client to, and so which of its pools takes a request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderMap;

use crate::decision::snapshot::Route;
use crate::routing::affinity::ticket::Ticket;
use crate::routing::affinity::{self, Means};

/// What a request's client is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// Nothing: any backend serves it as well.
    None,
    /// The backend that its cookie says.
    Ticket(Ticket),
    /// The backend that wants its value most.
    Hash(u64),
}

impl Bond {
    /// What `route` binds the client of a request to; `now` is in seconds since 1970. A cookie for a pool
    /// that takes nothing of the route's any more binds to nothing.
    #[must_use]
    pub fn of(route: &Route, headers: &HeaderMap, client: IpAddr, now: u64) -> Self {
        match route.sticky.as_ref().map(|sticky| &sticky.means) {
            None => Self::None,
            Some(Means::Hash(source)) => source.hash(headers, client).map_or(Self::None, Self::Hash),
            Some(Means::Ticket(cookie)) => {
                let ticket = affinity::cookie(headers, &cookie.name).and_then(|value| cookie.tickets.open(value));
                let good = ticket
                    .filter(|ticket| age(ticket, now) <= cookie.lifetime && position(route, ticket.pool).is_some());
                good.map_or(Self::None, Self::Ticket)
            }
        }
    }

    /// The position among the route's pools of the one that takes the request; `None` where chance decides,
    /// by their shares.
    #[must_use]
    pub fn share(self, route: &Route) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Ticket(ticket) => position(route, ticket.pool),
            Self::Hash(number) => route.targets.of(number).map(|(index, _)| index),
        }
    }

    /// How much the client wants the backend at `address`, the highest most; none where it does not.
    #[must_use]
    pub fn wants(self, address: SocketAddr) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Ticket(ticket) => (address == ticket.backend).then_some(0),
            Self::Hash(number) => Some(affinity::score(number, address)),
        }
    }
}

/// The position of the pool that cookies call `pool`, where it takes anything of the route's.
#[must_use]
pub fn position(route: &Route, pool: u64) -> Option<usize> {
    route.targets.position(|target| target.id == pool)
}

/// How old a ticket is; `now` is in seconds since 1970.
#[must_use]
pub fn age(ticket: &Ticket, now: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(ticket.given))
}
