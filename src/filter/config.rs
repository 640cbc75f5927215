//! The items of `filters:` lists, and the named chains.
//!
//! To add a filter: a field of [`Config`] and its row in [`Config::filters`].

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::chain::{Chain, Item};
use super::countries::CountryFiles;
use super::{
    Filter, access, basic_auth, body_limit, buffer, compress, cors, error_pages, forward_auth, headers, jwt,
    maintenance, mirror, rate_limit, redirect, respond, rewrite, security_headers,
};
use crate::base::fault::{Faults, Place, nearest};
use crate::base::timeouts::TimeoutsConfig;
use crate::base::units::PoolName;

/// One item of a `filters:` list: exactly one filter, or the name of a chain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The filters of a chain under `chains`, at this position.
    pub chain: Option<String>,
    /// Sets, adds and removes header fields.
    pub headers: Option<headers::Config>,
    /// Response fields that browsers use to protect a site; those of the backend are kept.
    pub security_headers: Option<security_headers::Config>,
    /// Sends the client to another URL.
    pub redirect: Option<redirect::Config>,
    /// Responds without a backend.
    pub respond: Option<respond::Config>,
    /// Changes the path, the query and the Host that backends get.
    pub rewrite: Option<rewrite::Config>,
    /// Allows or denies clients by network, client certificate and country.
    pub access: Option<access::Config>,
    /// Requires a user and a password.
    pub basic_auth: Option<basic_auth::Config>,
    /// Lets another service decide whether a request may continue.
    pub forward_auth: Option<forward_auth::Config>,
    /// Which pages of other origins may read responses.
    pub cors: Option<cors::Config>,
    /// Requests need a signed token.
    pub jwt: Option<jwt::Config>,
    /// Limits requests by parts of the request.
    pub rate_limit: Option<rate_limit::Config>,
    /// Limits the size of request bodies.
    pub body_limit: Option<body_limit::Config>,
    /// Receives request bodies before a backend is chosen.
    pub buffer: Option<buffer::Config>,
    /// Compresses the bodies of responses.
    pub compress: Option<compress::Config>,
    /// Pages for errors.
    pub error_pages: Option<error_pages::Config>,
    /// Responds 503 during maintenance.
    pub maintenance: Option<maintenance::Config>,
    /// Sends copies of requests to another pool.
    pub mirror: Option<mirror::Config>,
    /// Timeouts instead of those of the route.
    pub timeout: Option<TimeoutsConfig>,
}

/// The configuration of one kind of filter.
pub trait Configuration {
    /// Checks it and reads its files. Without faults, there is a filter.
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>>;
}

/// What a filter is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The names of the pools.
    pub pools: &'a [&'a PoolName],
    /// Whether the engine makes no requests for filters.
    pub lacks_subrequests: bool,
    /// The files with countries that were read already.
    pub country_files: Option<&'a CountryFiles>,
    /// The named chains.
    pub chains: Option<&'a BTreeMap<String, Vec<Config>>>,
}

impl Surroundings<'_> {
    /// Checks the pool to which a filter sends requests.
    pub(super) fn check_subrequests(&self, pool: &PoolName, place: &Place, faults: &mut Faults) {
        if self.lacks_subrequests {
            let problem = "`server.engine: pingora` makes no requests for filters";
            faults.add(place.clone(), problem, "remove `server.engine`, or the filter");
        }
        if !self.pools.contains(&pool) {
            let near = nearest(pool.as_str(), self.pools.iter().map(|pool| pool.as_str()));
            let hint = near.map_or("define it under `pools`".to_owned(), |near| format!("did you mean `{near}`?"));
            faults.add(place.key("pool"), format!("there is no pool `{pool}`"), hint);
        }
    }
}

type Row<'a> = (&'static str, Option<&'a dyn Configuration>);

fn row<C: Configuration>(config: Option<&C>) -> Option<&dyn Configuration> {
    config.map(|config| config as &dyn Configuration)
}

impl Config {
    /// The filters, each with its key and its configuration if it has one.
    fn filters(&self) -> [Row<'_>; 18] {
        [
            ("headers", row(self.headers.as_ref())),
            ("security_headers", row(self.security_headers.as_ref())),
            ("redirect", row(self.redirect.as_ref())),
            ("respond", row(self.respond.as_ref())),
            ("rewrite", row(self.rewrite.as_ref())),
            ("access", row(self.access.as_ref())),
            ("basic_auth", row(self.basic_auth.as_ref())),
            ("forward_auth", row(self.forward_auth.as_ref())),
            ("cors", row(self.cors.as_ref())),
            ("jwt", row(self.jwt.as_ref())),
            ("rate_limit", row(self.rate_limit.as_ref())),
            ("body_limit", row(self.body_limit.as_ref())),
            (buffer::NAME, row(self.buffer.as_ref())),
            ("compress", row(self.compress.as_ref())),
            ("error_pages", row(self.error_pages.as_ref())),
            ("maintenance", row(self.maintenance.as_ref())),
            ("mirror", row(self.mirror.as_ref())),
            ("timeout", row(self.timeout.as_ref())),
        ]
    }

    /// The filter of an item that is not the name of a chain.
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<Item> {
        let filters = self.filters();
        let mut given = filters.iter().filter_map(|(name, config)| Some((*name, (*config)?)));
        match (given.next(), given.next()) {
            (Some((name, config)), None) => {
                let filter = config.check(&place.key(name), around, faults)?;
                Some(Item { name, config: self.clone(), filter })
            }
            (Some(_), Some((second, _))) => {
                faults.add(place.key(second), "an item has one filter", "make it an item of its own");
                None
            }
            (None, _) => {
                let names = filters.map(|(name, _)| name).join(", ");
                faults.add(place.clone(), "the filter is missing", format!("write one of chain, {names} in each item"));
                None
            }
        }
    }
}

/// Checks a `filters:` list.
pub fn check(configs: &[Config], place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Chain {
    let mut items = Vec::with_capacity(configs.len());
    for (index, config) in configs.iter().enumerate() {
        let place = place.index(index);
        match &config.chain {
            None => items.extend(config.check(&place, around, faults)),
            Some(name) => items.extend(of_chain(name, config, &place, (around, faults))),
        }
    }
    Chain(items)
}

/// The filters of a named chain. Their faults are reported where the chain is defined.
fn of_chain(
    name: &str,
    config: &Config,
    place: &Place,
    (around, faults): (&Surroundings<'_>, &mut Faults),
) -> Vec<Item> {
    if config.filters().iter().any(|(_, config)| config.is_some()) {
        faults.add(place.clone(), "an item has one filter", "make `chain` an item of its own");
    }
    let known = || around.chains.into_iter().flatten().map(|(name, _)| name.as_str());
    match around.chains.and_then(|chains| chains.get(name)) {
        None => {
            let near = nearest(name, known());
            let hint = near.map_or("define it under `chains`".to_owned(), |near| format!("did you mean `{near}`?"));
            faults.add(place.key("chain"), format!("there is no chain `{name}`"), hint);
            Vec::new()
        }
        Some(configs) => {
            let mut known_faults = Faults::default();
            configs.iter().filter_map(|config| config.check(&Place::root(), around, &mut known_faults)).collect()
        }
    }
}

/// Checks the `chains:` block.
pub fn check_chains(chains: &BTreeMap<String, Vec<Config>>, around: &Surroundings<'_>, faults: &mut Faults) {
    for (name, configs) in chains {
        let place = Place::root().key("chains").key(name);
        for (index, config) in configs.iter().enumerate() {
            if config.chain.is_some() {
                let hint = "write the filters of the other chain here";
                faults.add(place.index(index).key("chain"), "a chain has no other chains", hint);
            } else {
                config.check(&place.index(index), around, faults);
            }
        }
    }
}
