//! The endpoint for what happened to copies of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::problem::Problem;
use crate::base::units::{PoolName, RouteName};
use crate::filter::mirror_tally::Counts;

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
        routes: mirror.tallies.all().into_iter().map(|(route, tally)| of_route(route, tally.counts())).collect(),
    });
    Ok(Mirrors { mirrors: shown.collect() })
}

fn of_route(route: RouteName, counts: Counts) -> MirroredRoute {
    let Counts { sent, too_many, body_too_large, body_incomplete, statuses, incomplete, failures } = counts;
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
    }
}
