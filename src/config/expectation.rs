//! The `tests:` list: requests with their expected outcome.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::RouteSpec;
use crate::base::fault::{Faults, Place, nearest};
use crate::base::units::{PoolName, RouteName};

/// Configuration of one test.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The request: a method and a URL, such as `GET https://example.com/api`.
    pub request: String,
    /// The headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The address of the peer; default 192.0.2.1.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// The expected outcome.
    pub expect: Expect,
}

/// The expected outcome of a request; missing keys match anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The name of the matching route.
    pub route: Option<RouteName>,
    /// The pool that gets the request.
    pub pool: Option<PoolName>,
    /// The status code of the rejection.
    pub status: Option<u16>,
    /// The cause of the rejection, such as `no_route`.
    pub cause: Option<String>,
}

impl Config {
    /// Reports tests without expectation or with unknown names.
    pub(super) fn check(&self, place: &Place, routes: &[RouteSpec], faults: &mut Faults) {
        let place = place.key("expect");
        let Expect { route, pool, status, .. } = &self.expect;
        if self.expect == Expect::default() {
            faults.add(place, "no outcome is expected", "give `route`, `pool`, `status` or `cause`");
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
                "l7lb itself responds with 308 or 400 to 599; other status codes come from backends",
                "expect the `route` or the `pool` instead",
            );
        }
    }
}

/// Reports an unknown name.
fn named<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone, place: &Place, faults: &mut Faults) {
    if known.clone().all(|known| known != name) {
        let (problem, hint) = unused(name, known);
        faults.add(place.clone(), problem, hint);
    }
}

/// The problem with a name that is not among the `used` ones, and the hint.
pub(super) fn unused<'a>(name: &str, used: impl Iterator<Item = &'a str>) -> (String, String) {
    let near = nearest(name, used).map_or_else(String::new, |near| format!("did you mean `{near}`?"));
    (format!("`{name}` is not used by any route"), near)
}
