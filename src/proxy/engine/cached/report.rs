//! What an exchange learns from the fetch that was made for it: for its access log line and its error response.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::cause::Cause;
use crate::decision::RequestAffinity;
use crate::http::rejection::Rejection;
use crate::pool::Endpoint;
use crate::proxy::exchange::{EarlierAttempt, Exchange, Times};

/// How the attempts of a fetch went.
pub(in crate::proxy::engine) struct Report {
    attempted: Vec<Arc<Endpoint>>,
    failed_attempts: Vec<Cause>,
    outcome: (&'static str, Option<Instant>, Option<Instant>),
    earlier_attempts: Vec<EarlierAttempt>,
    times: Times,
    upstream_latency: Option<Duration>,
    target_index: usize,
    affinity: RequestAffinity,
    detail: Cow<'static, str>,
    /// The rejection, if the fetch failed.
    pub(super) rejection: Option<Rejection>,
}

impl Report {
    /// The state of the exchange of a fetch.
    pub(super) fn of(exchange: &Exchange) -> Self {
        Self {
            attempted: exchange.attempted.clone(),
            failed_attempts: exchange.failed_attempts.clone(),
            outcome: (exchange.attempt_outcome, exchange.selected_at, exchange.attempt_ended),
            earlier_attempts: exchange.earlier_attempts.clone(),
            times: exchange.times,
            upstream_latency: exchange.upstream_latency,
            target_index: exchange.target_index,
            affinity: exchange.affinity,
            detail: exchange.detail.clone(),
            rejection: exchange.rejection,
        }
    }

    /// Stores it in the exchange of the client.
    pub(super) fn apply(self, exchange: &mut Exchange) {
        exchange.attempted = self.attempted;
        exchange.failed_attempts = self.failed_attempts;
        (exchange.attempt_outcome, exchange.selected_at, exchange.attempt_ended) = self.outcome;
        exchange.earlier_attempts = self.earlier_attempts;
        exchange.times = self.times;
        exchange.upstream_latency = self.upstream_latency;
        exchange.target_index = self.target_index;
        exchange.affinity = self.affinity;
        exchange.detail = self.detail;
        exchange.rejection = self.rejection;
    }
}
