//! The `tests:` list: requests with their expected outcome.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Checked;
use crate::base::cause::Cause;
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
    /// The status code of a response by l7lb itself: a rejection, or the response of a filter.
    pub status: Option<u16>,
    /// The cause of the response by l7lb itself, such as `no_route` or `redirect`.
    pub cause: Option<String>,
    /// The target of the redirect.
    pub location: Option<String>,
    /// The body of the response by a filter.
    pub body: Option<String>,
    /// Header fields of the response, as far as l7lb and its filters set them.
    pub response_headers: BTreeMap<String, String>,
    /// The path and query that the backend gets.
    pub path: Option<String>,
    /// The host that the backend gets.
    pub host: Option<String>,
    /// Header fields that the backend gets.
    pub request_headers: BTreeMap<String, String>,
}

impl Config {
    /// Reports tests without expectation or with unknown names.
    pub(super) fn check(&self, place: &Place, checked: &Checked, faults: &mut Faults) {
        let routes = &checked.routes;
        let place = place.key("expect");
        let Expect { route, pool, status, .. } = &self.expect;
        if self.expect == Expect::default() {
            faults.add(
                place,
                "no outcome is expected",
                "give for example `route`, `pool`, `status`, `location` or `path`",
            );
            return;
        }
        if let Some(route) = route {
            named(route.as_str(), routes.iter().map(|spec| spec.name.as_str()), &place.key("route"), faults);
        }
        if let Some(pool) = pool {
            let known = routes.iter().flat_map(|spec| &spec.targets).map(|target| target.pool.as_str());
            named(pool.as_str(), known, &place.key("pool"), faults);
        }
        if let Some(Err(near)) = self.expect.cause.as_deref().map(Cause::named) {
            let cause = self.expect.cause.as_deref().unwrap_or_default();
            let hint = near.map_or_else(
                || "docs/causes.md lists them, such as `no_route`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            faults.add(place.key("cause"), format!("`{cause}` is not a cause"), hint);
        }
        let lowest = if checked.has_filters() { 200 } else { 300 };
        if status.is_some_and(|status| !(lowest..600).contains(&status)) {
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
