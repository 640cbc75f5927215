//! The session affinity of a request, and the pool that it selects.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

use crate::base::backend_address::BackendAddress;
use crate::decision::snapshot::Route;
use crate::routing::affinity::cookie::AffinityCookie;
use crate::routing::affinity::{self, AffinityMethod};

/// The session affinity of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestAffinity {
    /// None: any backend may serve it.
    None,
    /// The backend in its affinity cookie.
    Cookie(AffinityCookie),
    /// The backend with the highest score for its hash.
    Hash(u64),
}

impl RequestAffinity {
    /// The affinity of a request on `route`; `now` is in seconds since 1970. A cookie for a pool that gets no
    /// traffic from the route any more is ignored.
    #[must_use]
    pub fn of(route: &Route, headers: &HeaderMap, client: IpAddr, now: u64) -> Self {
        match route.sticky.as_ref().map(|sticky| &sticky.method) {
            None => Self::None,
            Some(AffinityMethod::Hash(source)) => source.hash(headers, client).map_or(Self::None, Self::Hash),
            Some(AffinityMethod::Cookie(cookie)) => {
                let value = affinity::cookie_value(headers, &cookie.name).and_then(|value| cookie.keys.open(value));
                let valid =
                    value.filter(|value| age(value, now) <= cookie.lifetime && position(route, value.pool).is_some());
                valid.map_or(Self::None, Self::Cookie)
            }
        }
    }

    /// The index of the pool among the pools of the route; `None` if the shares decide at random.
    #[must_use]
    pub fn share(self, route: &Route) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Cookie(cookie) => position(route, cookie.pool),
            Self::Hash(number) => route.targets.of(number).map(|(index, _)| index),
        }
    }

    /// The score of the backend at `address`, higher is better; `None` without affinity to it.
    #[must_use]
    pub fn score(self, address: BackendAddress) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Cookie(cookie) => (address == cookie.backend).then_some(0),
            Self::Hash(number) => Some(affinity::score(number, address)),
        }
    }
}

/// The index of the pool with the cookie id `pool`, if it gets traffic from the route.
#[must_use]
pub fn position(route: &Route, pool: u64) -> Option<usize> {
    route.targets.position(|target| target.id == pool)
}

/// The age of a cookie; `now` is in seconds since 1970.
#[must_use]
pub fn age(cookie: &AffinityCookie, now: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(cookie.issued_at))
}
