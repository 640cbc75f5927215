//! The retry policy of a route: whether a failed attempt may be repeated on another backend.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::http::grpc_status::GrpcStatus;

/// The failure of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// No connection could be established.
    Connect,
    /// The connection was closed, or violated HTTP, before the response started.
    Reset,
    /// The backend refused the stream without processing it.
    RefusedStream,
    /// The backend did not respond in time.
    Timeout,
    /// The backend was ejected as unresponsive while the request waited.
    Unresponsive,
    /// The backend responded with this status code.
    Status(u16),
    /// The backend responded to a gRPC call with this status and no message.
    Grpc(GrpcStatus),
}

impl AttemptOutcome {
    /// Whether the request rather than the backend may be at fault: every status code except those of gateways.
    /// An equal response of a second backend confirms it.
    fn may_be_caused_by_the_request(self) -> bool {
        let status = match self {
            Self::Status(status) => status,
            Self::Grpc(status) => status.http(),
            _ => return false,
        };
        !matches!(status, 502..=504)
    }

    /// Whether the backend may have processed the request.
    #[must_use]
    pub fn may_have_been_processed(self) -> bool {
        !matches!(self, Self::Connect | Self::RefusedStream)
    }
}

/// The state of a request after a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptState {
    /// The number of attempts.
    pub attempts: usize,
    /// The time since the request arrived.
    pub elapsed: Duration,
    /// Whether its method is idempotent.
    pub idempotent: bool,
    /// Whether it has an `Idempotency-Key`.
    pub has_idempotency_key: bool,
    /// Whether the whole received body can be sent again.
    pub replayable: bool,
}

/// The retry policy of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The largest number of attempts per request.
    pub attempts: usize,
    /// The failures that are retried.
    pub on: Vec<AttemptOutcome>,
    /// The methods that are retried even if the backend may have processed the request.
    pub methods: RetryableMethods,
    /// Whether an `Idempotency-Key` makes a request idempotent.
    pub idempotency_key: bool,
    /// Time since the arrival of the request after which no retry starts.
    pub total: Duration,
}

/// The methods that are retried even if a backend may have processed the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryableMethods {
    /// Idempotent methods (RFC 9110 §9.2.2).
    #[default]
    Idempotent,
    /// All methods, for backends that detect repeated requests themselves.
    Any,
}

/// Why a failure is not retried, for the access log.
pub mod not_retried {
    /// The backend may have processed a request that is not idempotent.
    pub const NOT_IDEMPOTENT: &str = "not retried: the method is not idempotent";
    /// The body is larger than the retry buffer.
    pub const BODY_TOO_LARGE: &str = "not retried: the body is larger than 64 KiB";
    /// A second backend gave the same error response, so the request is at fault.
    pub const SAME_RESPONSE: &str = "not retried: another backend gave the same response";
    /// The number of attempts is used up.
    pub const ATTEMPTS: &str = "not retried: no attempts left";
    /// The total time is used up.
    pub const TOTAL: &str = "not retried: no time left";
    /// The retry budget of the pool is used up.
    pub const BUDGET: &str = "not retried: the pool's retry budget is exhausted";
    /// Every available backend was attempted.
    pub const NO_OTHER: &str = "not retried: no other backend";
}

impl Policy {
    /// Whether this policy retries `failure` at all.
    #[must_use]
    pub fn covers(&self, failure: AttemptOutcome) -> bool {
        self.attempts > 1 && self.on.contains(&failure)
    }

    /// Whether the request may be retried.
    ///
    /// # Errors
    /// Why not; empty if the failure is not one that is retried.
    pub fn permits(&self, failure: AttemptOutcome, attempt: AttemptState) -> Result<(), &'static str> {
        if !self.covers(failure) {
            return Err("");
        }
        if attempt.attempts >= self.attempts {
            return Err(not_retried::ATTEMPTS);
        }
        if failure.may_be_caused_by_the_request() && attempt.attempts > 1 {
            return Err(not_retried::SAME_RESPONSE);
        }
        // Every gRPC call is a POST, so configuring a gRPC status declares that a retry is safe.
        let is_safe = self.may_repeat(attempt)
            || matches!(failure, AttemptOutcome::Grpc(_))
            || !failure.may_have_been_processed();
        if !is_safe {
            return Err(not_retried::NOT_IDEMPOTENT);
        }
        if !attempt.replayable {
            return Err(not_retried::BODY_TOO_LARGE);
        }
        if attempt.elapsed >= self.total {
            return Err(not_retried::TOTAL);
        }
        Ok(())
    }

    /// Whether the request may be the trial of an ejected backend, and repeated after any failure of it. The route must
    /// allow retries.
    #[must_use]
    pub fn permits_trial(&self, attempt: AttemptState) -> bool {
        self.attempts > 1 && !self.on.is_empty() && self.may_repeat(attempt) && attempt.replayable
    }

    /// Whether the request may be repeated after a backend has processed it.
    fn may_repeat(&self, attempt: AttemptState) -> bool {
        attempt.idempotent
            || self.methods == RetryableMethods::Any
            || (self.idempotency_key && attempt.has_idempotency_key)
    }
}

/// The shortest and longest pause before a retry in milliseconds. Jitter keeps requests that failed together
/// from being retried together.
const PAUSE: std::ops::RangeInclusive<u64> = 10..=50;

/// The pause before the next attempt; `random` is any number. The first failed connection is retried
/// immediately: another backend needs no time to recover.
#[must_use]
pub fn pause(failure: AttemptOutcome, attempts: usize, random: u64) -> Duration {
    let immediately = !failure.may_have_been_processed() && attempts <= 1;
    let milliseconds = if immediately { 0 } else { PAUSE.start() + random % (PAUSE.end() - PAUSE.start() + 1) };
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Config;

    const GET: AttemptState = AttemptState {
        attempts: 1,
        elapsed: Duration::ZERO,
        idempotent: true,
        has_idempotency_key: false,
        replayable: true,
    };
    const POST: AttemptState = AttemptState { idempotent: false, ..GET };

    fn default() -> Policy {
        Config::default().policy()
    }

    #[test]
    fn request_that_may_have_been_processed_is_retried_only_if_safe() {
        use not_retried::*;
        let large = AttemptState { replayable: false, ..GET };
        for (failure, attempt, expected) in [
            (AttemptOutcome::Connect, GET, Ok(())),
            (AttemptOutcome::Connect, POST, Ok(())),
            (AttemptOutcome::RefusedStream, POST, Ok(())),
            (AttemptOutcome::Reset, GET, Ok(())),
            (AttemptOutcome::Reset, POST, Err(NOT_IDEMPOTENT)),
            (AttemptOutcome::Reset, AttemptState { has_idempotency_key: true, ..POST }, Err(NOT_IDEMPOTENT)),
            (AttemptOutcome::Status(503), GET, Ok(())),
            (AttemptOutcome::Status(503), POST, Err(NOT_IDEMPOTENT)),
            (AttemptOutcome::Status(500), GET, Ok(())),
            (AttemptOutcome::Status(500), POST, Err(NOT_IDEMPOTENT)),
            (AttemptOutcome::Status(500), AttemptState { attempts: 2, ..GET }, Err(SAME_RESPONSE)),
            (AttemptOutcome::Status(503), AttemptState { attempts: 2, ..GET }, Ok(())),
            (AttemptOutcome::Status(501), GET, Err("")),
            (AttemptOutcome::Status(200), GET, Err("")),
            (AttemptOutcome::Timeout, GET, Err("")),
            (AttemptOutcome::Unresponsive, GET, Ok(())),
            (AttemptOutcome::Unresponsive, POST, Err(NOT_IDEMPOTENT)),
            (AttemptOutcome::Reset, large, Err(BODY_TOO_LARGE)),
            (AttemptOutcome::Connect, large, Err(BODY_TOO_LARGE)),
            (AttemptOutcome::Reset, AttemptState { attempts: 2, ..GET }, Ok(())),
            (AttemptOutcome::Reset, AttemptState { attempts: 3, ..GET }, Err(ATTEMPTS)),
            (AttemptOutcome::Connect, AttemptState { elapsed: Duration::from_secs(10), ..GET }, Err(TOTAL)),
        ] {
            assert_eq!(default().permits(failure, attempt), expected, "{failure:?} {attempt:?}");
        }
    }

    #[test]
    fn configured_failures_and_methods_are_retried() {
        let keyed = Policy { idempotency_key: true, ..default() };
        assert_eq!(keyed.permits(AttemptOutcome::Reset, AttemptState { has_idempotency_key: true, ..POST }), Ok(()));
        assert_eq!(keyed.permits(AttemptOutcome::Reset, POST), Err(not_retried::NOT_IDEMPOTENT));
        let any = Policy { methods: RetryableMethods::Any, ..default() };
        assert_eq!(any.permits(AttemptOutcome::Reset, POST), Ok(()));
        let late = Policy { on: vec![AttemptOutcome::Timeout], ..default() };
        assert_eq!(late.permits(AttemptOutcome::Timeout, GET), Ok(()));
        assert_eq!(late.permits(AttemptOutcome::Connect, GET), Err(""));
        let grpc = Policy { on: vec![AttemptOutcome::Grpc(GrpcStatus::UNAVAILABLE)], ..default() };
        assert_eq!(grpc.permits(AttemptOutcome::Grpc(GrpcStatus::UNAVAILABLE), POST), Ok(()));
        assert_eq!(grpc.permits(AttemptOutcome::Grpc(GrpcStatus::INTERNAL), POST), Err(""));
        assert_eq!(grpc.permits(AttemptOutcome::Status(503), GET), Err(""));
        let internal = Policy { on: vec![AttemptOutcome::Grpc(GrpcStatus::INTERNAL)], ..default() };
        let second = AttemptState { attempts: 2, ..POST };
        assert_eq!(
            internal.permits(AttemptOutcome::Grpc(GrpcStatus::INTERNAL), second),
            Err(not_retried::SAME_RESPONSE)
        );
        let never = Policy { attempts: 1, ..default() };
        assert_eq!(never.permits(AttemptOutcome::Connect, GET), Err(""));
    }

    #[test]
    fn only_the_first_failed_connection_is_retried_immediately() {
        for random in [0, 1, 40, 41, u64::MAX] {
            assert_eq!(pause(AttemptOutcome::Connect, 1, random), Duration::ZERO);
            for (failure, attempts) in
                [(AttemptOutcome::Connect, 2), (AttemptOutcome::Reset, 1), (AttemptOutcome::Status(503), 1)]
            {
                let pause = pause(failure, attempts, random).as_millis();
                assert!((10..=50).contains(&pause), "{pause}");
            }
        }
    }

    #[test]
    fn trial_needs_a_request_that_may_be_repeated_and_a_route_with_retries() {
        let policy = default();
        assert!(policy.permits_trial(GET));
        assert!(!policy.permits_trial(AttemptState { idempotent: false, ..GET }));
        assert!(!policy.permits_trial(AttemptState { replayable: false, ..GET }));
        assert!(!Policy { attempts: 1, ..default() }.permits_trial(GET));
        assert!(!Policy { on: Vec::new(), ..default() }.permits_trial(GET));
    }
}
