//! The `tests:` list: requests, and what must become of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::RouteSpec;
use crate::base::fault::{Faults, Place, nearest};
use crate::base::units::{PoolName, RouteName};

/// One test, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The request: a method and a URL, such as `GET https://example.com/api`.
    pub request: String,
    /// Header fields of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The address of the peer that sends it; 192.0.2.1 unless told.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// What must become of it.
    pub expect: Expect,
}

/// What must become of a request; what is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The name of the route that takes it.
    pub route: Option<RouteName>,
    /// The pool that answers.
    pub pool: Option<PoolName>,
    /// The status with which it is refused.
    pub status: Option<u16>,
    /// The cause for which it is refused, such as `no_route`.
    pub cause: Option<String>,
}

impl Config {
    /// Refuses tests that say nothing or name what does not exist.
    pub(super) fn check(&self, place: &Place, routes: &[RouteSpec], faults: &mut Faults) {
        let place = place.key("expect");
        let Expect { route, pool, status, .. } = &self.expect;
        if self.expect == Expect::default() {
            faults.add(place, "nothing is expected", "give `route`, `pool`, `status` or `cause`");
            return;
        }
        if let Some(route) = route {
            named(route.as_str(), routes.iter().map(|spec| spec.name.as_str()), &place.key("route"), faults);
        }
        if let Some(pool) = pool {
            let known = routes.iter().flat_map(|spec| &spec.targets).map(|target| target.pool.as_str());
            named(pool.as_str(), known, &place.key("pool"), faults);
        }
        if status.is_some_and(|status| !(300..600).contains(&status)) {
            faults.add(
                place.key("status"),
                "l7lb itself refuses with 308 or 400 to 599; other answers are the backend's",
                "expect the `route` or the `pool` instead",
            );
        }
    }
}

/// Notes a name that no route has.
fn named<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone, place: &Place, faults: &mut Faults) {
    if known.clone().all(|known| known != name) {
        let near = nearest(name, known).map_or_else(String::new, |near| format!("did you mean `{near}`?"));
        faults.add(place.clone(), format!("no route has `{name}`"), near);
    }
}
