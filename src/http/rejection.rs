//! Why the balancer itself said no: one stable word for each cause, with its status.
//!
//! The word goes to the access log and to the client's error page; it is an interface, so it never
//! changes its meaning. Only [`crate::proxy`] knows how a rejection becomes bytes.

use std::time::Duration;

/// A request that the balancer answered itself instead of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request breaks HTTP's rules in a way that a backend must not see.
    BadRequest,
    /// CONNECT and TRACE are refused.
    MethodNotAllowed,
    /// The host asked for does not belong to the server name of the TLS connection.
    Misdirected,
    /// No route takes the request.
    NoRoute,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The request target is too long.
    TargetTooLong,
    /// The header has too many bytes or too many fields.
    HeaderTooLarge,
    /// The client sent more requests than its limit.
    RateLimited {
        /// When a further request would pass.
        retry_after: Duration,
    },
    /// The client was too slow in sending its header.
    HeaderTimeout,
    /// The client was too slow in sending its body.
    BodyTimeout,
    /// The request expects something else than `100-continue`.
    ExpectationFailed,
    /// No backend of the pool may take requests.
    NoHealthyBackend {
        /// When the next health check could change that.
        retry_after: Duration,
    },
    /// The circuit breakers of all backends that could be asked are open.
    CircuitOpen {
        /// When the next probe may pass.
        retry_after: Duration,
    },
    /// The pool works on as much as it may, and as many wait as may wait.
    QueueFull {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// The request waited for its turn as long as it may.
    QueueTimeout {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// The pool works on as much as it can without getting slower.
    Overloaded {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// No backend accepted a connection.
    ConnectFailed,
    /// No backend accepted a connection in time.
    ConnectTimeout,
    /// The backend closed the connection or broke HTTP's rules.
    BackendFailed,
    /// The backend's certificate could not be verified, or TLS failed otherwise.
    BackendTlsFailed,
    /// The backend did not begin its answer in time.
    FirstByteTimeout,
    /// The backend stopped in the middle of its answer for too long.
    IdleTimeout,
    /// One backend took longer than a try may.
    AttemptTimeout,
    /// All tries took longer than the request may.
    TotalTimeout,
    /// The backend was removed from the configuration, and the request took too long after that.
    BackendRemoved,
    /// The deadline that the client set has passed, or cannot be met.
    DeadlineExpired,
    /// The listener serves HTTPS only, and this came without.
    HttpsRequired,
    /// The client sends frames of HTTP/2 that cost work and ask for nothing.
    Flood,
    /// A fault of the balancer itself.
    Internal,
}

impl Rejection {
    /// The stable word for logs, error pages and metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeaderTooLarge => "header_too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::ExpectationFailed => "expectation_failed",
            Self::NoHealthyBackend { .. } => "no_healthy_backend",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::BackendFailed => "backend_failed",
            Self::BackendTlsFailed => "backend_tls_failed",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::AttemptTimeout => "attempt_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::BackendRemoved => "backend_removed",
            Self::DeadlineExpired => "deadline_expired",
            Self::HttpsRequired => "https_required",
            Self::Flood => "flood",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::HttpsRequired => 308,
            Self::BadRequest => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::HeaderTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::RateLimited { .. } => 429,
            Self::Misdirected => 421,
            Self::HeaderTooLarge => 431,
            // Nobody is answered: the connection ends.
            Self::Flood => 0,
            Self::Internal => 500,
            Self::ConnectFailed | Self::BackendFailed | Self::BackendTlsFailed => 502,
            Self::NoHealthyBackend { .. }
            | Self::CircuitOpen { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Overloaded { .. } => 503,
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::AttemptTimeout
            | Self::TotalTimeout
            | Self::BackendRemoved
            | Self::DeadlineExpired => 504,
        }
    }

    /// The status that a gRPC client is told, by
    /// <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>. Where gRPC has a mapping of HTTP's
    /// statuses this is it, but for limits: they are RESOURCE_EXHAUSTED, which says more than UNAVAILABLE.
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        match self {
            // DEADLINE_EXCEEDED: another try would be too late.
            Self::TotalTimeout | Self::DeadlineExpired => 4,
            Self::BodyTooLarge
            | Self::TargetTooLong
            | Self::HeaderTooLarge
            | Self::RateLimited { .. }
            | Self::Flood => 8,
            // FAILED_PRECONDITION: nothing but another address helps.
            Self::HttpsRequired => 9,
            Self::NoRoute | Self::MethodNotAllowed => 12,
            Self::BadRequest | Self::ExpectationFailed | Self::Internal => 13,
            Self::Misdirected
            | Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::NoHealthyBackend { .. }
            | Self::CircuitOpen { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Overloaded { .. }
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::BackendFailed
            | Self::BackendTlsFailed
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::BackendRemoved
            | Self::AttemptTimeout => 14,
        }
    }

    /// What the client is told, as a sentence. It says nothing about what is behind the balancer.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed.",
            Self::MethodNotAllowed => "The method is not allowed.",
            Self::Misdirected => "This host is not served on this connection.",
            Self::NoRoute => "Nothing is served at this address.",
            Self::BodyTooLarge => "The request body is too large.",
            Self::TargetTooLong => "The request target is too long.",
            Self::HeaderTooLarge => "The request header is too large.",
            Self::RateLimited { .. } => "Too many requests.",
            Self::HeaderTimeout => "The request header was sent too slowly.",
            Self::BodyTimeout => "The request body was sent too slowly.",
            Self::ExpectationFailed => "The expectation cannot be met.",
            Self::NoHealthyBackend { .. } | Self::CircuitOpen { .. } => "The service is not available at the moment.",
            Self::QueueFull { .. } | Self::QueueTimeout { .. } | Self::Overloaded { .. } => {
                "The service is overloaded at the moment."
            }
            Self::ConnectFailed | Self::BackendFailed | Self::BackendTlsFailed => "The service failed to answer.",
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::AttemptTimeout
            | Self::TotalTimeout
            | Self::BackendRemoved
            | Self::DeadlineExpired => "The service did not answer in time.",
            Self::HttpsRequired => "This is served over HTTPS only.",
            Self::Flood => "Too many frames.",
            Self::Internal => "Something went wrong.",
        }
    }

    /// The value of `Retry-After`, where the client can do something with it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::NoHealthyBackend { retry_after }
            | Self::CircuitOpen { retry_after }
            | Self::QueueFull { retry_after }
            | Self::QueueTimeout { retry_after }
            | Self::Overloaded { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The body of the answer with its media type: JSON where the client asks for it, else text.
    #[must_use]
    pub fn page(&self, json: bool, request_id: &str) -> (&'static str, String) {
        let (status, cause, message) = (self.status(), self.cause(), self.message());
        if json {
            let body = format!(
                "{{\"status\":{status},\"cause\":\"{cause}\",\"message\":\"{message}\",\"request_id\":\"{request_id}\"}}\n"
            );
            return ("application/json", body);
        }
        ("text/plain; charset=utf-8", format!("{status} {cause}\n{message}\nRequest id: {request_id}\n"))
    }

    /// Whether the connection's framing can still be trusted, so that it may stay open.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        !matches!(
            self,
            Self::BadRequest
                | Self::MethodNotAllowed
                | Self::BodyTooLarge
                | Self::TargetTooLong
                | Self::HeaderTooLarge
                | Self::HeaderTimeout
                | Self::BodyTimeout
                | Self::ExpectationFailed
        )
    }
}

/// A rejection with what exactly was wrong, for logs. The client is told the rejection alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer.
    pub rejection: Rejection,
    /// What was wrong, in a few words without anything that the client sent.
    pub detail: &'static str,
}

impl Refusal {
    /// A refusal with status 400.
    #[must_use]
    pub const fn bad_request(detail: &'static str) -> Self {
        Self { rejection: Rejection::BadRequest, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_clients_may_try_again_only_where_that_can_help() {
        let second = Duration::from_secs(1);
        let retry_elsewhere = [
            Rejection::NoHealthyBackend { retry_after: second },
            Rejection::CircuitOpen { retry_after: second },
            Rejection::QueueFull { retry_after: second },
            Rejection::QueueTimeout { retry_after: second },
            Rejection::Overloaded { retry_after: second },
            Rejection::ConnectFailed,
            Rejection::BackendFailed,
            Rejection::FirstByteTimeout,
        ];
        // 14 is the one status that gRPC libraries repeat a call for by themselves.
        assert!(retry_elsewhere.iter().all(|rejection| rejection.grpc_status() == 14));
        let limits = [Rejection::RateLimited { retry_after: second }, Rejection::BodyTooLarge];
        assert!(limits.iter().all(|rejection| rejection.grpc_status() == 8));
        assert_eq!(Rejection::NoRoute.grpc_status(), 12);
        assert_eq!(Rejection::BadRequest.grpc_status(), 13);
    }
}
