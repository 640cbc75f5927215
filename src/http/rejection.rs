//! Rejections: requests that l7lb itself responds to with an error, with the message and gRPC status for each cause.
//!
//! Only [`crate::proxy`] turns a rejection into a response.

use std::time::Duration;

use crate::base::cause::Cause;

/// A request that l7lb responds to instead of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request violates HTTP in a way that a backend must not see.
    BadRequest,
    /// Backends may read the path as that of another route.
    AmbiguousPath,
    /// CONNECT and TRACE are not allowed.
    MethodNotAllowed,
    /// The requested host does not belong to the server name of the TLS connection.
    Misdirected,
    /// No route matches the request.
    NoRoute,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The request target is too long.
    TargetTooLong,
    /// The header has too many bytes or too many fields.
    HeaderTooLarge,
    /// The client has exceeded its rate limit.
    RateLimited {
        /// When a further request would be admitted.
        retry_after: Duration,
    },
    /// The client sent its header too slowly.
    HeaderTimeout,
    /// The client sent its body too slowly.
    BodyTimeout,
    /// The expectation is not `100-continue`.
    ExpectationFailed,
    /// No backend of the pool is available.
    NoHealthyBackend {
        /// When the next health check may change that.
        retry_after: Duration,
    },
    /// The circuit breakers of all available backends are open.
    CircuitOpen {
        /// When the next probe may pass.
        retry_after: Duration,
    },
    /// The pool is at its limit of requests in flight, and its queue is full.
    QueueFull {
        /// When a retry is reasonable.
        retry_after: Duration,
    },
    /// The queue timeout has expired.
    QueueTimeout {
        /// When a retry is reasonable.
        retry_after: Duration,
    },
    /// The pool is at its adaptive limit.
    Overloaded {
        /// When a retry is reasonable.
        retry_after: Duration,
    },
    /// No backend accepted a connection.
    ConnectFailed,
    /// No backend accepted a connection in time.
    ConnectTimeout,
    /// The backend closed the connection or violated HTTP.
    BackendFailed,
    /// The certificate of the backend could not be verified, or TLS failed otherwise.
    BackendTlsFailed,
    /// The response did not start in time.
    FirstByteTimeout,
    /// The response paused for too long.
    IdleTimeout,
    /// The attempt exceeded its timeout.
    AttemptTimeout,
    /// The request with all its attempts exceeded its timeout.
    TotalTimeout,
    /// The backend was removed from the configuration, and its removal timeout has expired.
    BackendRemoved,
    /// The client's deadline has expired, or cannot be met.
    DeadlineExpired,
    /// The client wants a stored response, and the cache has none that it may use.
    NotCached,
    /// The listener serves HTTPS only, and the request came without TLS.
    HttpsRequired,
    /// The client sends HTTP/2 frames that cost work without being requests.
    Flood,
    /// A filter requires credentials, and the request has none that it accepts.
    Unauthorized,
    /// A filter does not allow the client to make the request.
    AccessDenied,
    /// A filter cannot find out whether the client may make the request.
    AuthUnavailable,
    /// An internal error of l7lb.
    Internal,
}

impl Rejection {
    /// The cause, for logs, error pages and metrics.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self {
            Self::BadRequest => Cause::BadRequest,
            Self::AmbiguousPath => Cause::AmbiguousPath,
            Self::MethodNotAllowed => Cause::MethodNotAllowed,
            Self::Misdirected => Cause::Misdirected,
            Self::NoRoute => Cause::NoRoute,
            Self::BodyTooLarge => Cause::BodyTooLarge,
            Self::TargetTooLong => Cause::TargetTooLong,
            Self::HeaderTooLarge => Cause::HeaderTooLarge,
            Self::RateLimited { .. } => Cause::RateLimited,
            Self::HeaderTimeout => Cause::HeaderTimeout,
            Self::BodyTimeout => Cause::BodyTimeout,
            Self::ExpectationFailed => Cause::ExpectationFailed,
            Self::NoHealthyBackend { .. } => Cause::NoHealthyBackend,
            Self::CircuitOpen { .. } => Cause::CircuitOpen,
            Self::QueueFull { .. } => Cause::QueueFull,
            Self::QueueTimeout { .. } => Cause::QueueTimeout,
            Self::Overloaded { .. } => Cause::Overloaded,
            Self::ConnectFailed => Cause::ConnectFailed,
            Self::ConnectTimeout => Cause::ConnectTimeout,
            Self::BackendFailed => Cause::BackendFailed,
            Self::BackendTlsFailed => Cause::BackendTlsFailed,
            Self::FirstByteTimeout => Cause::FirstByteTimeout,
            Self::IdleTimeout => Cause::IdleTimeout,
            Self::AttemptTimeout => Cause::AttemptTimeout,
            Self::TotalTimeout => Cause::TotalTimeout,
            Self::BackendRemoved => Cause::BackendRemoved,
            Self::DeadlineExpired => Cause::DeadlineExpired,
            Self::NotCached => Cause::NotCached,
            Self::HttpsRequired => Cause::HttpsRequired,
            Self::Flood => Cause::Flood,
            Self::Unauthorized => Cause::Unauthorized,
            Self::AccessDenied => Cause::AccessDenied,
            Self::AuthUnavailable => Cause::AuthUnavailable,
            Self::Internal => Cause::Internal,
        }
    }

    /// The HTTP status code of the response; 0 if there is none, and the connection is closed.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.cause().status()
    }

    /// The gRPC status, by <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>. This is gRPC's own
    /// mapping of HTTP status codes, except for limits, which are RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        match self {
            // DEADLINE_EXCEEDED: a retry would be too late.
            Self::TotalTimeout | Self::DeadlineExpired => 4,
            // PERMISSION_DENIED.
            Self::AccessDenied => 7,
            Self::BodyTooLarge
            | Self::TargetTooLong
            | Self::HeaderTooLarge
            | Self::RateLimited { .. }
            | Self::Flood => 8,
            // FAILED_PRECONDITION: only another URL helps.
            Self::HttpsRequired => 9,
            Self::NoRoute | Self::MethodNotAllowed => 12,
            Self::BadRequest | Self::AmbiguousPath | Self::ExpectationFailed | Self::Internal => 13,
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
            | Self::NotCached
            | Self::AuthUnavailable
            | Self::AttemptTimeout => 14,
            // UNAUTHENTICATED.
            Self::Unauthorized => 16,
        }
    }

    /// The message for the client. It reveals nothing about backends.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed.",
            Self::AmbiguousPath => "The path is ambiguous.",
            Self::MethodNotAllowed => "The method is not allowed.",
            Self::Misdirected => "This host is not served on this connection.",
            Self::NoRoute => "No resource is available at this URL.",
            Self::BodyTooLarge => "The request body is too large.",
            Self::TargetTooLong => "The request target is too long.",
            Self::HeaderTooLarge => "The request header is too large.",
            Self::RateLimited { .. } => "Too many requests.",
            Self::HeaderTimeout => "The request header was sent too slowly.",
            Self::BodyTimeout => "The request body was sent too slowly.",
            Self::ExpectationFailed => "The expectation cannot be met.",
            Self::NoHealthyBackend { .. } | Self::CircuitOpen { .. } => "The service is temporarily unavailable.",
            Self::QueueFull { .. } | Self::QueueTimeout { .. } | Self::Overloaded { .. } => {
                "The service is temporarily overloaded."
            }
            Self::ConnectFailed | Self::BackendFailed | Self::BackendTlsFailed => "The service failed to respond.",
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::AttemptTimeout
            | Self::TotalTimeout
            | Self::BackendRemoved
            | Self::DeadlineExpired => "The service did not respond in time.",
            Self::NotCached => "The cache has no response that it may use.",
            Self::HttpsRequired => "HTTPS is required.",
            Self::Unauthorized => "Credentials are required.",
            Self::AccessDenied => "Access is denied.",
            Self::AuthUnavailable => "Access cannot be checked at the moment.",
            Self::Flood => "Too many frames.",
            Self::Internal => "An internal error occurred.",
        }
    }

    /// The value of `Retry-After`, if a retry may help.
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

    /// The response body with its media type: JSON if the client accepts it, otherwise text.
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

    /// Whether the framing of the connection is intact, so that it may be kept.
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

/// A rejection with a detail for logs. The client gets only the rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetailedRejection {
    /// The rejection.
    pub rejection: Rejection,
    /// The detail in a few words, without anything that the client sent.
    pub detail: &'static str,
}

impl DetailedRejection {
    /// A rejection with status code 400.
    #[must_use]
    pub const fn bad_request(detail: &'static str) -> Self {
        Self { rejection: Rejection::BadRequest, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_status_allows_retries_only_if_they_can_help() {
        let second = Duration::from_secs(1);
        let retryable = [
            Rejection::NoHealthyBackend { retry_after: second },
            Rejection::CircuitOpen { retry_after: second },
            Rejection::QueueFull { retry_after: second },
            Rejection::QueueTimeout { retry_after: second },
            Rejection::Overloaded { retry_after: second },
            Rejection::ConnectFailed,
            Rejection::BackendFailed,
            Rejection::FirstByteTimeout,
        ];
        // 14 is the only status for which gRPC libraries retry by themselves.
        assert!(retryable.iter().all(|rejection| rejection.grpc_status() == 14));
        let limits = [Rejection::RateLimited { retry_after: second }, Rejection::BodyTooLarge];
        assert!(limits.iter().all(|rejection| rejection.grpc_status() == 8));
        assert_eq!(Rejection::NoRoute.grpc_status(), 12);
        assert_eq!(Rejection::BadRequest.grpc_status(), 13);
    }
}
