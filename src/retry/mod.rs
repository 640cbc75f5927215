//! May a failed try be repeated at another backend?
//!
//! Two questions, both pure. The [`Policy`] of a route says whether repeating does no harm: a
//! connection that never came about carried nothing, and a refused stream says that nothing was done
//! (RFC 9113 §8.7), so any request may go again; what may have reached a backend goes again only if it
//! is idempotent (RFC 9110 §9.2.2) and its body can still be sent. The [`Budget`] of a pool says
//! whether the pool can bear it: when every backend fails, retries are what turns an incident into an
//! outage, and no single request can see that.

mod budget;
mod config;

use std::time::Duration;

use crate::http::grpc_status::GrpcStatus;

pub use budget::Budget;
pub use config::{Config, Repeats};

/// What went wrong with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about.
    Connect,
    /// The connection ended, or broke HTTP's rules, before an answer began.
    Reset,
    /// The backend said that it did nothing.
    RefusedStream,
    /// The backend did not answer in time.
    Timeout,
    /// The backend answers nobody while its peers do, and was ejected for it.
    Unresponsive,
    /// The backend answered with this status.
    Status(u16),
    /// The backend answered a call of gRPC's without a message, and with this status.
    Grpc(GrpcStatus),
}

impl Failure {
    /// Whether it may be the request that is at fault, and not the backend: a status that is none of a
    /// gateway's. A second backend that says the same settles it.
    fn may_be_the_requests(self) -> bool {
        let status = match self {
            Self::Status(status) => status,
            Self::Grpc(status) => status.http(),
            _ => return false,
        };
        !matches!(status, 502..=504)
    }

    /// Whether the backend may have acted on the request.
    #[must_use]
    pub fn may_have_acted(self) -> bool {
        !matches!(self, Self::Connect | Self::RefusedStream)
    }
}

/// What matters about the request whose try failed.
#[derive(Clone, Copy, Debug)]
pub struct AttemptState {
    /// How many backends were asked.
    pub attempts: usize,
    /// Since the request arrived.
    pub elapsed: Duration,
    /// Whether its method is idempotent.
    pub idempotent: bool,
    /// Whether it has an `Idempotency-Key`.
    pub keyed: bool,
    /// Whether the whole body that was received so far can be sent again.
    pub replayable: bool,
}

/// Which failures of a route's requests are repeated, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many backends a request is sent to at most.
    pub attempts: usize,
    /// The failures that are repeated.
    pub on: Vec<Failure>,
    /// The methods that are repeated although the backend may have acted.
    pub methods: Repeats,
    /// Whether an `Idempotency-Key` makes a request idempotent.
    pub idempotency_key: bool,
    /// Since the request's arrival; no retry begins later.
    pub total: Duration,
}

/// Why a failure is not repeated, in words for the log.
pub mod refusal {
    /// The backend may have acted on a request that does harm twice.
    pub const NOT_IDEMPOTENT: &str = "not retried: the method is not idempotent";
    /// The body is larger than what is kept of it.
    pub const BODY_TOO_LARGE: &str = "not retried: the body is larger than 64 KiB";
    /// A second backend answered with an error of its own, so that the fault is the request's.
    pub const SAME_ANSWER: &str = "not retried: another backend gave the same response";
    /// As many backends were asked as the policy allows.
    pub const ATTEMPTS: &str = "not retried: no attempts left";
    /// It took too long already.
    pub const TOTAL: &str = "not retried: no time left";
    /// The pool has had its share of retries.
    pub const BUDGET: &str = "not retried: the pool's retry budget is exhausted";
    /// Every backend that may take requests was tried.
    pub const NO_OTHER: &str = "not retried: no other backend";
}

impl Policy {
    /// Whether `failure` is one that this policy repeats at all.
    #[must_use]
    pub fn covers(&self, failure: Failure) -> bool {
        self.attempts > 1 && self.on.contains(&failure)
    }

    /// Whether the request may go to another backend.
    ///
    /// # Errors
    /// Why it may not; empty where the failure is not one that is repeated.
    pub fn permits(&self, failure: Failure, attempt: AttemptState) -> Result<(), &'static str> {
        if !self.covers(failure) {
            return Err("");
        }
        if attempt.attempts >= self.attempts {
            return Err(refusal::ATTEMPTS);
        }
        if failure.may_be_the_requests() && attempt.attempts > 1 {
            return Err(refusal::SAME_ANSWER);
        }
        // Every call of gRPC's is a POST, so who names a status of gRPC's says that repeating does no harm.
        let harmless = attempt.idempotent
            || matches!(failure, Failure::Grpc(_))
            || self.methods == Repeats::Any
            || (self.idempotency_key && attempt.keyed)
            || !failure.may_have_acted();
        if !harmless {
            return Err(refusal::NOT_IDEMPOTENT);
        }
        if !attempt.replayable {
            return Err(refusal::BODY_TOO_LARGE);
        }
        if attempt.elapsed >= self.total {
            return Err(refusal::TOTAL);
        }
        Ok(())
    }
}

/// The shortest and the longest pause before a retry, in milliseconds. Jitter, because what failed
/// for many at once would otherwise come back as one wave.
const PAUSE: std::ops::RangeInclusive<u64> = 10..=50;

/// How long to wait before the next try; `random` is any number. A first connection that failed is
/// repeated at once: another machine has nothing to recover from.
#[must_use]
pub fn pause(failure: Failure, attempts: usize, random: u64) -> Duration {
    let at_once = !failure.may_have_acted() && attempts <= 1;
    let milliseconds = if at_once { 0 } else { PAUSE.start() + random % (PAUSE.end() - PAUSE.start() + 1) };
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: AttemptState =
        AttemptState { attempts: 1, elapsed: Duration::ZERO, idempotent: true, keyed: false, replayable: true };
    const POST: AttemptState = AttemptState { idempotent: false, ..GET };

    fn default() -> Policy {
        Config::default().policy()
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_that_does_no_harm() {
        use refusal::*;
        let large = AttemptState { replayable: false, ..GET };
        for (failure, attempt, expected) in [
            (Failure::Connect, GET, Ok(())),
            (Failure::Connect, POST, Ok(())),
            (Failure::RefusedStream, POST, Ok(())),
            (Failure::Reset, GET, Ok(())),
            (Failure::Reset, POST, Err(NOT_IDEMPOTENT)),
            (Failure::Reset, AttemptState { keyed: true, ..POST }, Err(NOT_IDEMPOTENT)),
            (Failure::Status(503), GET, Ok(())),
            (Failure::Status(503), POST, Err(NOT_IDEMPOTENT)),
            (Failure::Status(500), GET, Ok(())),
            (Failure::Status(500), POST, Err(NOT_IDEMPOTENT)),
            (Failure::Status(500), AttemptState { attempts: 2, ..GET }, Err(SAME_ANSWER)),
            (Failure::Status(503), AttemptState { attempts: 2, ..GET }, Ok(())),
            (Failure::Status(501), GET, Err("")),
            (Failure::Status(200), GET, Err("")),
            (Failure::Timeout, GET, Err("")),
            (Failure::Unresponsive, GET, Ok(())),
            (Failure::Unresponsive, POST, Err(NOT_IDEMPOTENT)),
            (Failure::Reset, large, Err(BODY_TOO_LARGE)),
            (Failure::Connect, large, Err(BODY_TOO_LARGE)),
            (Failure::Reset, AttemptState { attempts: 2, ..GET }, Ok(())),
            (Failure::Reset, AttemptState { attempts: 3, ..GET }, Err(ATTEMPTS)),
            (Failure::Connect, AttemptState { elapsed: Duration::from_secs(10), ..GET }, Err(TOTAL)),
        ] {
            assert_eq!(default().permits(failure, attempt), expected, "{failure:?} {attempt:?}");
        }
    }

    #[test]
    fn what_is_repeated_is_the_operators_choice() {
        let keyed = Policy { idempotency_key: true, ..default() };
        assert_eq!(keyed.permits(Failure::Reset, AttemptState { keyed: true, ..POST }), Ok(()));
        assert_eq!(keyed.permits(Failure::Reset, POST), Err(refusal::NOT_IDEMPOTENT));
        let any = Policy { methods: Repeats::Any, ..default() };
        assert_eq!(any.permits(Failure::Reset, POST), Ok(()));
        let late = Policy { on: vec![Failure::Timeout], ..default() };
        assert_eq!(late.permits(Failure::Timeout, GET), Ok(()));
        assert_eq!(late.permits(Failure::Connect, GET), Err(""));
        let grpc = Policy { on: vec![Failure::Grpc(GrpcStatus::UNAVAILABLE)], ..default() };
        assert_eq!(grpc.permits(Failure::Grpc(GrpcStatus::UNAVAILABLE), POST), Ok(()));
        assert_eq!(grpc.permits(Failure::Grpc(GrpcStatus::INTERNAL), POST), Err(""));
        assert_eq!(grpc.permits(Failure::Status(503), GET), Err(""));
        let internal = Policy { on: vec![Failure::Grpc(GrpcStatus::INTERNAL)], ..default() };
        let second = AttemptState { attempts: 2, ..POST };
        assert_eq!(internal.permits(Failure::Grpc(GrpcStatus::INTERNAL), second), Err(refusal::SAME_ANSWER));
        let never = Policy { attempts: 1, ..default() };
        assert_eq!(never.permits(Failure::Connect, GET), Err(""));
    }

    #[test]
    fn only_a_first_failed_connection_is_repeated_at_once() {
        for random in [0, 1, 40, 41, u64::MAX] {
            assert_eq!(pause(Failure::Connect, 1, random), Duration::ZERO);
            for (failure, attempts) in [(Failure::Connect, 2), (Failure::Reset, 1), (Failure::Status(503), 1)] {
                let pause = pause(failure, attempts, random).as_millis();
                assert!((10..=50).contains(&pause), "{pause}");
            }
        }
    }
}
