//! Deadlines of a request and its attempts: the `total` and `attempt` timeouts of the route, and the deadline
//! that the client sets.
//!
//! Clients set a deadline in `grpc-timeout` (gRPC over HTTP/2, "Requests") or `X-Request-Timeout`. An attempt
//! that cannot finish in time is not started. A client's deadline can only shorten the timeouts of the route,
//! and its expiry does not count as a failure of the backend.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use pingora::{Error, ErrorType};
use pingora_core::upstreams::peer::HttpPeer;

use super::exchange::{Exchange, RequestDeadline};
use crate::http::rejection::Rejection;

/// The deadline of a gRPC client.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The deadline of another client.
const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// No backend responds faster than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// How much later than the client's deadline a request ends, so that a backend that enforces the deadline,
/// or the client, acts first.
const GRACE: Duration = Duration::from_millis(100);

/// How early Pingora's timers may fire.
const TIMER: Duration = Duration::from_millis(10);

impl Exchange {
    /// Sets the deadline of the request.
    ///
    /// # Errors
    /// If the client's deadline cannot be met.
    pub(super) fn set_deadlines(&mut self, headers: &HeaderMap, total: Option<Duration>) -> Result<(), Rejection> {
        let began = self.began();
        if let Some(at) = total.and_then(|total| began.checked_add(total)) {
            self.request_deadline = Some(RequestDeadline { at, rejection: Rejection::TotalTimeout });
        }
        let Some(deadline) = client_deadline(headers) else { return Ok(()) };
        if deadline.saturating_sub(began.elapsed()) < SHORTEST {
            return Err(Rejection::DeadlineExpired);
        }
        if let Some(at) = began.checked_add(deadline.saturating_add(GRACE)) {
            let own = RequestDeadline { at, rejection: Rejection::DeadlineExpired };
            self.request_deadline = earlier(self.request_deadline, Some(own));
        }
        Ok(())
    }

    /// Sets the deadline of the next attempt, and limits each of its steps.
    ///
    /// # Errors
    /// If no time is left for it.
    pub(super) fn set_attempt_deadline(
        &mut self,
        peer: &mut HttpPeer,
        limit: Option<Duration>,
        now: Instant,
    ) -> pingora::Result<()> {
        let own = limit.and_then(|limit| now.checked_add(limit));
        let own = own.map(|at| RequestDeadline { at, rejection: Rejection::AttemptTimeout });
        self.attempt_deadline = earlier(self.request_deadline, own);
        let Some(end) = self.attempt_deadline else { return Ok(()) };
        let left = end.at.saturating_duration_since(now);
        if left.is_zero() {
            return Err(self.reject(end.rejection));
        }
        let options = &mut peer.options;
        for timeout in [&mut options.connection_timeout, &mut options.total_connection_timeout] {
            *timeout = timeout.map(|timeout| timeout.min(left));
        }
        options.read_timeout = options.read_timeout.map(|timeout| timeout.min(left));
        Ok(())
    }

    /// The rejection if the attempt has run for too long.
    #[expect(clippy::disallowed_methods, reason = "called after a timer has fired, or without a timer")]
    pub(super) fn expired_deadline(&self) -> Option<Rejection> {
        let end = self.attempt_deadline?;
        (end.at <= Instant::now() + TIMER).then_some(end.rejection)
    }

    /// Ends a response that takes too long despite progress: over HTTP/2, where the connection cannot be shut
    /// down for one stream, and where a connection that was shut down looks like the end of the response.
    pub(super) fn end_in_time(&mut self) -> pingora::Result<()> {
        let late = if self.deadline.is_some() { self.expired_timeout() } else { self.late() };
        match late {
            Some(rejection) => {
                self.rejection = Some(rejection);
                Err(Error::explain(ErrorType::ReadTimedout, rejection.cause().as_str()).into_up())
            }
            None => Ok(()),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "called only for removed backends")]
    fn late(&self) -> Option<Rejection> {
        if self.lease.as_ref().is_some_and(|lease| lease.endpoint().must_abort(Instant::now)) {
            return Some(Rejection::BackendRemoved);
        }
        self.expired_deadline()
    }
}

fn earlier(one: Option<RequestDeadline>, other: Option<RequestDeadline>) -> Option<RequestDeadline> {
    match (one, other) {
        (Some(one), Some(other)) if other.at < one.at => Some(other),
        (one, other) => one.or(other),
    }
}

/// The client's deadline; the shorter one if there are two. An invalid value is forwarded and ignored.
fn client_deadline(headers: &HeaderMap) -> Option<Duration> {
    let (mut grpc, mut plain) = (None, None);
    // One pass that finds nothing, as usual, costs less than a lookup for each name.
    for (name, value) in headers {
        if *name == GRPC_TIMEOUT {
            grpc = grpc.or(Some(value));
        } else if *name == X_REQUEST_TIMEOUT {
            plain = plain.or(Some(value));
        }
    }
    let grpc = grpc.and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    let plain = plain.and_then(|value| value.to_str().ok()).and_then(request_timeout);
    match (grpc, plain) {
        (Some(grpc), Some(plain)) => Some(grpc.min(plain)),
        (grpc, plain) => grpc.or(plain),
    }
}

/// At most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = whole_number(digits).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// `1500ms`, `2s`, or whole seconds without a unit. A client that means milliseconds gets too much time, which
/// is harmless; too little would not be.
fn request_timeout(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(digits) => whole_number(digits).map(Duration::from_millis),
        None => whole_number(text.strip_suffix('s').unwrap_or(text)).map(Duration::from_secs),
    }
}

fn whole_number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_deadline_is_parsed_strictly() {
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        for (name, value, expected) in [
            ("grpc-timeout", "1H", Some(seconds(3600))),
            ("grpc-timeout", "2M", Some(seconds(120))),
            ("grpc-timeout", "00000003S", Some(seconds(3))),
            ("grpc-timeout", "250m", Some(millis(250))),
            ("grpc-timeout", "99999999u", Some(Duration::from_micros(99_999_999))),
            ("grpc-timeout", "0n", Some(Duration::ZERO)),
            ("grpc-timeout", "000000003S", None),
            ("grpc-timeout", "S", None),
            ("grpc-timeout", "", None),
            ("grpc-timeout", "1s", None),
            ("grpc-timeout", "-1S", None),
            ("grpc-timeout", "+1S", None),
            ("x-request-timeout", "2", Some(seconds(2))),
            ("x-request-timeout", "2s", Some(seconds(2))),
            ("x-request-timeout", "1500ms", Some(millis(1500))),
            ("x-request-timeout", "0", Some(Duration::ZERO)),
            ("x-request-timeout", "", None),
            ("x-request-timeout", "ms", None),
            ("x-request-timeout", "1.5", None),
            ("x-request-timeout", "99999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(client_deadline(&headers), expected, "{name}: {value}");
        }
        let mut both = HeaderMap::new();
        both.insert("grpc-timeout", "1S".parse().unwrap());
        both.insert("x-request-timeout", "5".parse().unwrap());
        assert_eq!(client_deadline(&both), Some(seconds(1)));
        assert_eq!(client_deadline(&HeaderMap::new()), None);
    }
}
