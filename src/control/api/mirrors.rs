//! The endpoint for what happened to copies of requests.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::problem::Problem;
use crate::base::units::{PoolName, RouteName};
use crate::filter::comparison::Comparison;
use crate::filter::latencies::Latencies;
use crate::filter::mirror_tally::{Counts, Tally};

/// The `mirror` filters.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Mirrors {
    /// The filters: of the file, of listeners and of routes.
    pub mirrors: Vec<Mirror>,
}

/// One filter.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Mirror {
    /// Where it is configured: `file`, `listener ADDRESS` or `route NAME`.
    pub place: String,
    /// The pool that gets the copies.
    pub pool: PoolName,
    /// The share of requests that are copied.
    pub share: String,
    /// The copies at this moment.
    pub in_flight: usize,
    /// The routes whose requests were selected, by name.
    pub routes: Vec<MirroredRoute>,
}

/// What happened to the copies of a route since the filter exists in its present form.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirroredRoute {
    /// The route.
    pub route: RouteName,
    /// Copies that were sent.
    pub sent: u64,
    /// Selected requests that were not copied.
    pub dropped: MirrorDropped,
    /// The responses to copies.
    pub statuses: Vec<MirrorStatus>,
    /// Responses whose body did not arrive completely.
    pub incomplete: u64,
    /// Copies without a response.
    pub failures: Vec<MirrorFailure>,
    /// The comparison with the responses to clients; missing without `compare`.
    pub comparison: Option<MirrorComparison>,
}

/// Responses to requests compared with those to their copies.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorComparison {
    /// Pairs with the same status code.
    pub equal: u64,
    /// Pairs with different status codes.
    pub different: u64,
    /// Responses without a counterpart: the copy failed, or the client got none.
    pub unpaired: u64,
    /// The pairs by both status codes, the most frequent first.
    pub pairs: Vec<MirrorPair>,
    /// Pairs of further status codes: more than 64 are only counted together.
    pub other_pairs: u64,
    /// The latencies of the backends of clients.
    pub original: MirrorLatency,
    /// The latencies of the backends of copies, for the same requests.
    pub copy: MirrorLatency,
}

/// A pair of status codes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorPair {
    /// The status code for the client.
    pub status: u16,
    /// The status code of the copy.
    pub copy_status: u16,
    /// The requests.
    pub requests: u64,
}

/// Latencies from the selection of a backend to its response, in milliseconds; at most an eighth too large.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorLatency {
    /// The median; missing without responses.
    pub p50_ms: Option<f64>,
    /// The latency that 99 % do not exceed; missing without responses.
    pub p99_ms: Option<f64>,
}

/// Selected requests that were not copied, by reason.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorDropped {
    /// There were as many copies as `max_concurrent` allows.
    pub too_many: u64,
    /// The body is larger than `body`.
    pub body_too_large: u64,
    /// The body did not arrive completely.
    pub body_incomplete: u64,
}

impl MirrorDropped {
    /// For all reasons.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.too_many.saturating_add(self.body_too_large).saturating_add(self.body_incomplete)
    }
}

/// A status code of responses to copies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorStatus {
    /// The status code.
    pub status: u16,
    /// The copies.
    pub copies: u64,
}

/// A cause for which copies have no response.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MirrorFailure {
    /// The cause, as in the access log.
    pub cause: String,
    /// The copies.
    pub copies: u64,
}

pub(super) async fn all(api: Api, (): ()) -> Result<Mirrors, Problem> {
    let snapshot = api.live.snapshot.load();
    let shown = snapshot.mirrors().map(|(place, mirror)| Mirror {
        place,
        pool: mirror.pool.clone(),
        share: mirror.share_text(),
        in_flight: mirror.in_flight(),
        routes: mirror.tallies.all().into_iter().map(|(route, tally)| of_route(route, &tally)).collect(),
    });
    Ok(Mirrors { mirrors: shown.collect() })
}

fn of_route(route: RouteName, tally: &Tally) -> MirroredRoute {
    let Counts { sent, too_many, body_too_large, body_incomplete, statuses, incomplete, failures } = tally.counts();
    MirroredRoute {
        route,
        sent,
        dropped: MirrorDropped { too_many, body_too_large, body_incomplete },
        statuses: statuses.into_iter().map(|(status, copies)| MirrorStatus { status, copies }).collect(),
        incomplete,
        failures: failures
            .into_iter()
            .map(|(cause, copies)| MirrorFailure { cause: cause.to_owned(), copies })
            .collect(),
        comparison: tally.comparison().map(|comparison| compared(&comparison)),
    }
}

fn compared(comparison: &Comparison) -> MirrorComparison {
    let pair = |(&(status, copy_status), &requests): (&(u16, u16), &u64)| MirrorPair { status, copy_status, requests };
    let mut pairs: Vec<MirrorPair> = comparison.pairs.iter().map(pair).collect();
    pairs.sort_by_key(|pair| Reverse(pair.requests));
    let Comparison { equal, different, unpaired, other_pairs, .. } = *comparison;
    let (original, copy) = (latency(&comparison.original), latency(&comparison.copy));
    MirrorComparison { equal, different, unpaired, pairs, other_pairs, original, copy }
}

fn latency(latencies: &Latencies) -> MirrorLatency {
    let millis = |quantile| latencies.quantile(quantile).map(|latency| latency.as_secs_f64() * 1000.0);
    MirrorLatency { p50_ms: millis(0.5), p99_ms: millis(0.99) }
}
