//! `mirror`: sends copies of requests to another pool, and discards the responses.
//!
//! The filter selects requests. The copy of a request is sent beside it, once the request is forwarded, so that the client
//! never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderName, Method, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::comparison::{Observed, Pair};
use super::config::{Configuration, Surroundings};
use super::mirror_tally::{Dropped, Outcome, Tallies, Tally};
use super::{Filter, Request, SharedState, Step};
use crate::base::fault::{Faults, Place};
use crate::base::units::{Percent, Period, PoolName, Size};
use crate::http::connection_fields::named_by_connection;
use crate::http::upgrade;

/// Marks a copy.
pub const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored");

/// The default of `body`.
const BODY: Size = Size::kib(64);
/// The largest `body`, because bodies are in memory.
const BODY_MAX: Size = Size::mib(1);
/// The default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest timeout, which bounds how long a copy keeps its configuration after a reload.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The default of `max_concurrent`.
const CONCURRENT: usize = 100;
/// The largest `max_concurrent`.
const CONCURRENT_MAX: usize = 10_000;

/// Configuration of the filter.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The pool that gets the copies.
    pub pool: PoolName,
    /// The share of requests that are copied; 100% by default.
    #[serde(default)]
    pub share: Option<Percent>,
    /// The largest request body that is copied; 64KiB by default. A request with a larger one is not copied.
    #[serde(default)]
    pub body: Option<Size>,
    /// The most copies at the same time; 100 by default. Further requests are not copied.
    #[serde(default)]
    pub max_concurrent: Option<usize>,
    /// How long a copy may take; 5s by default.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// Whether the status codes and latencies of the responses are compared with those of the requests.
    #[serde(default)]
    pub compare: bool,
}

impl Configuration for Config {
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        around.check_subrequests(&self.pool, place, faults);
        let body = self.body.unwrap_or(BODY);
        if body > BODY_MAX {
            let problem = format!("{body} is larger than {BODY_MAX}");
            faults.add(
                place.key("body"),
                problem,
                "write for example `body: 64KiB`; the bodies of copies are in memory",
            );
        }
        let max_concurrent = self.max_concurrent.unwrap_or(CONCURRENT);
        if !(1..=CONCURRENT_MAX).contains(&max_concurrent) {
            let problem = format!("{max_concurrent} is not between 1 and {CONCURRENT_MAX}");
            faults.add(place.key("max_concurrent"), problem, "write for example 100");
        }
        let timeout = self.timeout.unwrap_or(Period(TIMEOUT));
        if timeout.0.is_zero() || timeout.0 > TIMEOUT_MAX {
            let problem = format!("{timeout} is not a time up to {}", Period(TIMEOUT_MAX));
            faults.add(place.key("timeout"), problem, "write for example 5s");
        }
        let mirror = Mirror {
            pool: self.pool.clone(),
            share: self.share,
            body_max: usize::try_from(body.0).unwrap_or(usize::MAX),
            timeout: timeout.0,
            max_concurrent,
            in_flight: AtomicUsize::new(0),
            tallies: Tallies::new(self.compare),
        };
        Some(Arc::new(MirrorFilter(Arc::new(mirror))))
    }
}

/// A filter with its state.
#[derive(Debug)]
pub struct Mirror {
    /// The pool that gets the copies.
    pub pool: PoolName,
    /// The share of requests that are copied; all without it.
    share: Option<Percent>,
    /// The largest request body that is copied, in bytes.
    pub body_max: usize,
    /// How long a copy may take.
    pub timeout: Duration,
    max_concurrent: usize,
    in_flight: AtomicUsize,
    /// What happened to the copies of each route.
    pub tallies: Tallies,
}

/// Each filter is equal to itself only.
impl PartialEq for Mirror {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Mirror {}

impl Mirror {
    /// Begins to copy a request on `route`. `None` if there are too many copies already.
    #[must_use]
    pub fn copy(self: &Arc<Self>, route: &str) -> Option<RequestCopy> {
        let tally = self.tallies.of(route);
        let one_more = |copies: usize| (copies < self.max_concurrent).then(|| copies.saturating_add(1));
        if self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            tally.dropped(Dropped::TooMany);
            return None;
        }
        let pair = tally.compares().then(|| Arc::new(Pair::new(route.into(), self.pool.clone(), Arc::clone(&tally))));
        Some(RequestCopy { mirror: Arc::clone(self), tally, pair })
    }

    /// The share of requests that are copied, as text.
    #[must_use]
    pub fn share_text(&self) -> String {
        self.share.map_or_else(|| "100%".to_owned(), |share| share.to_string())
    }

    /// The copies at this moment.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What it does to a request that it may select, in a few words.
    #[must_use]
    pub fn effect(&self) -> String {
        let share = self.share.filter(|share| share.share() < 1.0);
        let share = share.map_or_else(String::new, |share| format!(" of {share} of such requests"));
        format!("sends a copy{share} to pool {}", self.pool)
    }

    fn selects(&self, request_id: &str) -> bool {
        self.share.is_none_or(|share| point(request_id) < share.share())
    }
}

/// A copy of a request. Dropping it makes room for another one.
#[derive(Debug)]
pub struct RequestCopy {
    mirror: Arc<Mirror>,
    tally: Arc<Tally>,
    pair: Option<Arc<Pair>>,
}

impl RequestCopy {
    /// The request and this copy, if they are compared.
    #[must_use]
    pub fn pair(&self) -> Option<Arc<Pair>> {
        self.pair.clone()
    }

    /// The filter.
    #[must_use]
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// The copy is not sent.
    pub fn dropped(self, reason: Dropped) {
        self.tally.dropped(reason);
    }

    /// The copy is sent now.
    pub fn sent(&self) {
        self.tally.sent();
    }

    /// The copy has ended at `now`. A response arrived after `latency`.
    pub fn ended(self, outcome: Outcome, latency: Option<Duration>, now: Instant) {
        self.tally.ended(outcome);
        if let (Some(pair), Outcome::Response { status, .. }) = (&self.pair, outcome) {
            pair.copy(Observed { status, latency }, now);
        }
    }
}

impl Drop for RequestCopy {
    fn drop(&mut self) {
        self.mirror.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number from 0 to 1 that follows from the request id: the same on every machine, so that shares of several filters
/// and of several balancers select the same requests.
fn point(request_id: &str) -> f64 {
    // FNV-1a (draft-eastlake-fnv), then the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which spreads
    // ids that differ at their end only.
    let hash = request_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // 53 bits are exact in this type.
    ((hash ^ (hash >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[derive(Debug)]
struct MirrorFilter(Arc<Mirror>);

impl Filter for MirrorFilter {
    fn request(&self, request: &mut Request<'_>) -> Step {
        remove_mark(request);
        let header = request.header;
        let is_tunnel =
            header.method == Method::CONNECT || upgrade::requested(header.version, &header.headers).is_some();
        if !is_tunnel && (request.facts.is_example || self.0.selects(request.facts.request_id)) {
            request.changes.mirrors.push(Arc::clone(&self.0));
        }
        Step::Continue
    }

    fn describe(&self) -> String {
        let Mirror { pool, body_max, timeout, max_concurrent, .. } = &*self.0;
        let (share, timeout) = (self.0.share_text(), Period(*timeout));
        let compares = if self.0.tallies.compares() { "; compares" } else { "" };
        let bounds = format!("bodies up to {body_max} bytes, {max_concurrent} at a time, timeout {timeout}");
        format!("{share} to pool {pool}, {bounds}{compares}")
    }

    fn share_state(&self, shared: &mut SharedState) {
        self.0.tallies.keep(|route| shared.has_route(route));
    }

    fn mirror(&self) -> Option<&Arc<Mirror>> {
        Some(&self.0)
    }
}

/// Removes the mark of a client that imitates a copy: backends may treat copies differently.
fn remove_mark(request: &mut Request<'_>) {
    if request.facts.is_from_trusted_proxy {
        return;
    }
    let fields = request.fields();
    // A field that `Connection` names would be removed from the copy.
    let is_named = || fields.contains_key(header::CONNECTION) && named_by_connection(fields).contains(&X_MIRRORED);
    if fields.contains_key(&X_MIRRORED) || is_named() {
        request.remove_field(X_MIRRORED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Changes;
    use crate::filter::variables::tests::{facts, request};

    fn mirror(keys: &str) -> Arc<dyn Filter> {
        let config: Config = serde_yaml::from_str(&format!("{{ pool: shadow, {keys} }}")).unwrap();
        let pool = PoolName::from("shadow");
        let around = Surroundings { pools: &[&pool], ..Surroundings::default() };
        let mut faults = Faults::default();
        let filter = config.check(&Place::root(), &around, &mut faults).unwrap();
        assert!(faults.is_empty());
        filter
    }

    #[test]
    fn share_selects_as_many_requests_and_always_the_same() {
        let select = |keys: &str| -> Vec<usize> {
            let filter = mirror(keys);
            let mirror = filter.mirror().unwrap();
            (0..100_000).filter(|number| mirror.selects(&format!("{number:032x}"))).collect()
        };
        for (share, low, high) in [
            ("0%", 0, 0),
            ("0.1%", 60, 140),
            ("10%", 9_500, 10_500),
            ("99.9%", 99_860, 99_940),
            ("100%", 100_000, 100_000),
        ] {
            let selected = select(&format!("share: '{share}'"));
            assert!((low..=high).contains(&selected.len()), "{share}: {}", selected.len());
            assert_eq!(selected, select(&format!("share: '{share}'")));
        }
        let (few, many) = (select("share: 5%"), select("share: 20%"));
        assert!(
            few.iter().all(|one| many.binary_search(one).is_ok()),
            "a larger share has the requests of a smaller one"
        );
        assert_eq!(select("").len(), 100_000);
    }

    #[test]
    fn copies_beyond_the_bound_are_dropped_and_counted() {
        let filter = mirror("max_concurrent: 2");
        let mirror = filter.mirror().unwrap();
        let first = mirror.copy("r").unwrap();
        let second = mirror.copy("r").unwrap();
        assert!(mirror.copy("r").is_none());
        first.dropped(Dropped::BodyTooLarge);
        let third = mirror.copy("other").unwrap();
        assert_eq!(mirror.in_flight(), 2);
        drop((second, third));
        assert_eq!(mirror.in_flight(), 0);
        let all = mirror.tallies.all();
        let counts = |route: &str| all.iter().find(|(known, _)| known.as_str() == route).unwrap().1.counts();
        assert_eq!((counts("r").too_many, counts("r").body_too_large), (1, 1));
        assert_eq!(counts("other").too_many, 0);
        mirror.tallies.keep(|route| route.as_str() == "r");
        assert_eq!(mirror.tallies.all().len(), 1);
    }

    #[test]
    fn tunnels_are_not_copied_and_a_forged_mark_is_removed() {
        let filter = mirror("");
        let run = |method: &str, fields: &[(&'static str, &'static str)]| {
            let mut header = request("/", fields);
            header.set_method(method.parse().unwrap());
            let (facts, mut changes) = (facts("a", "http"), Changes::default());
            filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
            (changes.mirrors.len(), changes.fields.len())
        };
        assert_eq!(run("GET", &[]), (1, 0));
        assert_eq!(run("POST", &[]), (1, 0));
        assert_eq!(run("CONNECT", &[]), (0, 0));
        assert_eq!(run("GET", &[("connection", "upgrade"), ("upgrade", "websocket")]), (0, 0));
        // HTTP/2 without TLS is not offered to backends, so that this is an ordinary request.
        assert_eq!(run("GET", &[("connection", "upgrade"), ("upgrade", "h2c")]), (1, 0));
        assert_eq!(run("GET", &[("x-mirrored", "1")]), (1, 1));
        assert_eq!(run("GET", &[("connection", "close, X-Mirrored")]), (1, 1));
    }
}
