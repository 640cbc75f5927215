//! The `routes:` list: which requests go to which pool.

use std::collections::BTreeMap;

use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Faults, Place, nearest};
use crate::limit;
use crate::pool;
use crate::pool::peer::{Timeouts, TimeoutsConfig};
use crate::request_limits::RequestLimits;
use crate::route::{HostPattern, Matcher, Methods, PathPattern, Table};
use crate::target::{self, Encoded};
use crate::units::{PoolName, RouteName, Size};

/// One route, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name in logs; the matcher's text unless told.
    #[serde(default)]
    pub name: Option<RouteName>,
    /// The path prefix, on whole segments.
    pub path: String,
    /// Whether only that very path matches.
    #[serde(default)]
    pub exact: bool,
    /// The host, exact or `*.example.com`; any unless told.
    #[serde(default)]
    pub host: Option<String>,
    /// The methods; any unless told.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// The pool that answers.
    pub pool: PoolName,
    /// A limit of this route's own, counted apart from the one over everything.
    #[serde(default)]
    pub rate_limit: limit::Config,
    /// Timeouts that differ from the pool's.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// The largest body, where it differs from `request_limits.body_size`.
    #[serde(default)]
    pub body_size: Option<Size>,
    /// Characters that paths may have escaped; others are refused.
    #[serde(default)]
    pub allow_encoded: Vec<EncodedCharacter>,
}

/// A character whose escape backends disagree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedCharacter {
    /// `%2F`.
    Slash,
    /// `%5C`.
    Backslash,
    /// `%00`.
    Nul,
}

/// A checked route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// What it takes.
    pub matcher: Matcher,
    /// The pool that answers.
    pub pool: PoolName,
    /// A limit of its own.
    pub rate_limit: Option<limit::Spec>,
    /// How long the steps of a request may take.
    pub timeouts: Timeouts,
    /// Bytes of the largest body.
    pub body_size: u64,
    /// Escapes that paths may have; see [`Encoded::permits`].
    pub allow_encoded: Encoded,
}

/// Proves the routes consistent with each other and with the pools.
pub fn check(
    routes: &[Config],
    pools: &BTreeMap<PoolName, pool::Spec>,
    limits: RequestLimits,
    faults: &mut Faults,
) -> Vec<RouteSpec> {
    let place = Place::root().key("routes");
    if routes.is_empty() {
        faults.add(place.clone(), "there is no route", "add for example `routes: [{ path: /, pool: NAME }]`");
    }
    let check =
        |(index, route): (usize, &Config)| Some((index, route.check(&place.index(index), pools, limits, faults)?));
    let specs: Vec<(usize, RouteSpec)> = routes.iter().enumerate().filter_map(check).collect();
    if let Err(duplicates) = Table::build(specs.iter().map(|(index, spec)| (spec.matcher.clone(), *index))) {
        for duplicate in duplicates {
            let index_of = |position: usize| specs.get(position).map_or(position, |(index, _)| *index);
            faults.add(
                place.index(index_of(duplicate.second)),
                format!("takes the same requests as routes[{}] ({})", index_of(duplicate.first), duplicate.matcher),
                "remove one, or give them different hosts, paths or methods",
            );
        }
    }
    specs.into_iter().map(|(_, spec)| spec).collect()
}

impl Config {
    fn check(
        &self,
        place: &Place,
        pools: &BTreeMap<PoolName, pool::Spec>,
        limits: RequestLimits,
        faults: &mut Faults,
    ) -> Option<RouteSpec> {
        let pool = pools.get(&self.pool);
        if pool.is_none() {
            let near = nearest(self.pool.as_str(), pools.keys().map(PoolName::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "define it under `pools`; known: {}",
                    pools.keys().map(PoolName::as_str).collect::<Vec<_>>().join(", ")
                ),
            };
            faults.add(place.key("pool"), format!("there is no pool `{}`", self.pool), hint);
        }
        let base = pool.map_or_else(Timeouts::default, |pool| pool.template.timeouts);
        let timeouts = self.timeouts.check(base, &place.key("timeouts"), faults);
        let rate_limit = self.rate_limit.check(&place.key("rate_limit"), faults);
        let matcher = self.matcher(place, faults)?;
        let name = self.name.clone().unwrap_or_else(|| matcher.to_string().into());
        let body_size = self.body_size.map_or(limits.body_size, |size| size.0);
        let allow_encoded = self.allow_encoded();
        Some(RouteSpec { name, matcher, pool: self.pool.clone(), rate_limit, timeouts, body_size, allow_encoded })
    }

    fn allow_encoded(&self) -> Encoded {
        Encoded {
            slash: self.allow_encoded.contains(&EncodedCharacter::Slash),
            backslash: self.allow_encoded.contains(&EncodedCharacter::Backslash),
            nul: self.allow_encoded.contains(&EncodedCharacter::Nul),
        }
    }

    fn matcher(&self, place: &Place, faults: &mut Faults) -> Option<Matcher> {
        let path = self.path(&place.key("path"), faults);
        let host = match self.host.as_deref().map(str::parse::<HostPattern>) {
            None => Some(HostPattern::Any),
            Some(parsed) => parsed
                .map_err(|e| {
                    faults.add(place.key("host"), e.to_string(), "write for example www.example.com or *.example.com")
                })
                .ok(),
        };
        let methods = self.methods(&place.key("methods"), faults);
        Some(Matcher { host: host?, path: path?, methods: methods? })
    }

    /// The path, in the form to which requests are brought: another would never match.
    fn path(&self, place: &Place, faults: &mut Faults) -> Option<PathPattern> {
        let pattern = PathPattern::new(self.path.as_str(), self.exact)
            .map_err(|e| faults.add(place.clone(), e.to_string(), "write for example /api"))
            .ok()?;
        match target::normalise(&self.path) {
            Err(refusal) => {
                let problem = format!("no request has the path {:?}: {}", self.path, refusal.detail);
                faults.add(place.clone(), problem, "write it percent-encoded, as requests have it");
            }
            Ok(normalised) if normalised.path != self.path => {
                let problem = format!("requests for `{}` are normalised before they are routed", self.path);
                faults.add(place.clone(), problem, format!("write {}", normalised.path));
            }
            Ok(normalised) if !self.allow_encoded().permits(normalised.encoded) => {
                let problem = format!("requests for `{}` are refused for an escape in it", self.path);
                faults.add(place.clone(), problem, "name the character in `allow_encoded`: slash, backslash or nul");
            }
            Ok(_) => return Some(pattern),
        }
        None
    }

    fn methods(&self, place: &Place, faults: &mut Faults) -> Option<Methods> {
        let Some(names) = &self.methods else {
            return Some(Methods::any());
        };
        let mut methods = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match Method::from_bytes(name.as_bytes()) {
                Ok(Method::CONNECT | Method::TRACE) => {
                    faults.add(place.index(index), format!("{name} is never served"), "remove it")
                }
                Ok(method) if name.bytes().any(|b| b.is_ascii_lowercase()) => {
                    faults.add(
                        place.index(index),
                        format!("`{method}` is not a method; methods are upper case"),
                        format!("write {}", name.to_uppercase()),
                    );
                }
                Ok(method) => methods.push(method),
                Err(_) => faults.add(place.index(index), format!("`{name}` is not a method"), "write for example GET"),
            }
        }
        if methods.len() < names.len() {
            return None;
        }
        let hint = "remove the key to take every method";
        Methods::of(methods).map_err(|e| faults.add(place.clone(), e.to_string(), hint)).ok()
    }
}
