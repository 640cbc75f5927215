//! Causes: the closed list of reasons for which l7lb responds itself, ends a request, or fails an attempt.
//!
//! A cause has the same name in the access log, on error pages, in `Proxy-Status`, in `explain` and in tests of the
//! file. Its meaning never changes. `docs/causes.md` has a section for each.

use std::fmt;

use super::fault::nearest;

/// The facts about a cause.
struct Facts {
    name: &'static str,
    /// The usual status code; 0 if there is no response, or if the configuration or another service decides about it.
    status: u16,
    error: Option<ProxyError>,
    meaning: &'static str,
}

/// Makes the enum and its table from one list, so that none can be forgotten.
macro_rules! causes {
    ($($variant:ident = $name:literal, $status:literal, $error:expr, $meaning:literal;)*) => {
        /// Why l7lb responds itself, ends a request, or fails an attempt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause {
            $(#[doc = $meaning] $variant,)*
        }

        impl Cause {
            /// Every cause, by [`Cause::index`].
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$variant => Facts { name: $name, status: $status, error: $error, meaning: $meaning },)*
                }
            }
        }
    };
}

causes! {
    // Rejections.
    BadRequest = "bad_request", 400, Some(ProxyError::HttpRequestError),
        "The request violates HTTP in a way that a backend must not see.";
    AmbiguousPath = "ambiguous_path", 400, Some(ProxyError::HttpRequestError),
        "Backends may read the path as that of another route.";
    MethodNotAllowed = "method_not_allowed", 405, Some(ProxyError::HttpRequestError),
        "The method is CONNECT or TRACE, which are not allowed.";
    Misdirected = "misdirected", 421, Some(ProxyError::HttpRequestError),
        "The requested host does not belong to the server name of the TLS connection.";
    NoRoute = "no_route", 404, Some(ProxyError::DestinationNotFound),
        "No route matches the request.";
    BodyTooLarge = "body_too_large", 413, Some(ProxyError::HttpRequestError),
        "The request body is larger than the route or a filter allows.";
    TargetTooLong = "target_too_long", 414, Some(ProxyError::HttpRequestError),
        "The request target is too long.";
    HeaderTooLarge = "header_too_large", 431, Some(ProxyError::HttpRequestError),
        "The request header has too many bytes or too many fields.";
    RateLimited = "rate_limited", 429, Some(ProxyError::HttpRequestError),
        "The client has exceeded its rate limit.";
    HeaderTimeout = "header_timeout", 408, Some(ProxyError::HttpRequestError),
        "The client sent its header too slowly.";
    BodyTimeout = "body_timeout", 408, Some(ProxyError::HttpRequestError),
        "The client sent its body too slowly.";
    ExpectationFailed = "expectation_failed", 417, Some(ProxyError::HttpRequestError),
        "The expectation of the request is not `100-continue`.";
    NoHealthyBackend = "no_healthy_backend", 503, Some(ProxyError::DestinationUnavailable),
        "No backend of the pool is available.";
    CircuitOpen = "circuit_open", 503, Some(ProxyError::DestinationUnavailable),
        "The circuit breakers of all available backends are open.";
    QueueFull = "queue_full", 503, Some(ProxyError::ConnectionLimitReached),
        "The pool is at its limit of requests in flight, and its queue is full.";
    QueueTimeout = "queue_timeout", 503, Some(ProxyError::ConnectionLimitReached),
        "The request waited in the queue of the pool until the queue timeout expired.";
    Overloaded = "overloaded", 503, Some(ProxyError::ConnectionLimitReached),
        "The pool is at its adaptive limit.";
    ConnectFailed = "connect_failed", 502, Some(ProxyError::ConnectionRefused),
        "The backend did not accept a connection.";
    ConnectTimeout = "connect_timeout", 504, Some(ProxyError::ConnectionTimeout),
        "The backend did not accept a connection in time.";
    BackendFailed = "backend_failed", 502, Some(ProxyError::HttpProtocolError),
        "The backend closed the connection or violated HTTP.";
    BackendTlsFailed = "backend_tls_failed", 502, Some(ProxyError::TlsProtocolError),
        "The certificate of the backend could not be verified, or TLS failed otherwise.";
    FirstByteTimeout = "first_byte_timeout", 504, Some(ProxyError::HttpResponseTimeout),
        "The response of the backend did not start in time.";
    IdleTimeout = "idle_timeout", 504, Some(ProxyError::ConnectionReadTimeout),
        "The transfer with the backend paused for too long.";
    AttemptTimeout = "attempt_timeout", 504, Some(ProxyError::HttpResponseTimeout),
        "The attempt exceeded its timeout.";
    TotalTimeout = "total_timeout", 504, Some(ProxyError::HttpResponseTimeout),
        "The request with all its attempts exceeded its timeout.";
    BackendRemoved = "backend_removed", 504, Some(ProxyError::DestinationUnavailable),
        "The backend was removed from the configuration, and its removal timeout has expired.";
    DeadlineExpired = "deadline_expired", 504, Some(ProxyError::HttpResponseTimeout),
        "The deadline that the client has sent has expired, or cannot be met.";
    NotCached = "not_cached", 504, Some(ProxyError::InternalResponse),
        "The client accepts only a stored response, and the cache has none that it may use.";
    HttpsRequired = "https_required", 308, Some(ProxyError::InternalResponse),
        "The listener redirects to HTTPS, and the request came without TLS.";
    Flood = "flood", 0, Some(ProxyError::HttpRequestDenied),
        "The client sends HTTP/2 frames that cost work without being requests.";
    Unauthorized = "unauthorized", 401, Some(ProxyError::HttpRequestDenied),
        "A filter requires credentials, and the request has none that it accepts.";
    AccessDenied = "access_denied", 403, Some(ProxyError::HttpRequestDenied),
        "A filter does not allow the client to make the request.";
    AuthUnavailable = "auth_unavailable", 503, Some(ProxyError::HttpRequestDenied),
        "A filter cannot find out whether the client may make the request.";
    Internal = "internal", 500, Some(ProxyError::InternalError),
        "l7lb has an internal error.";
    // Responses of filters, with the name of the filter.
    Redirect = "redirect", 0, Some(ProxyError::InternalResponse),
        "The filter `redirect` sends the client to another URL.";
    Respond = "respond", 0, Some(ProxyError::InternalResponse),
        "The filter `respond` responds with a configured response.";
    Cors = "cors", 0, Some(ProxyError::InternalResponse),
        "The filter `cors` responds to a preflight.";
    Maintenance = "maintenance", 503, Some(ProxyError::InternalResponse),
        "The filter `maintenance` responds, because maintenance is on.";
    ForwardAuth = "forward_auth", 0, Some(ProxyError::HttpRequestDenied),
        "The service of the filter `forward_auth` has denied the request; the response is that of the service.";
    // Other responses of l7lb.
    Health = "health", 0, Some(ProxyError::InternalResponse),
        "The request is a health check of l7lb itself.";
    LastRecipient = "last_recipient", 200, Some(ProxyError::InternalResponse),
        "The request is OPTIONS with `Max-Forwards: 0`, which must not be forwarded.";
    // Ends without a response, or with an incomplete one.
    ClientClosed = "client_closed", 0, None,
        "The client closed the connection or cancelled the request before its end.";
    Shutdown = "shutdown", 0, None,
        "The process stopped, and the request did not end within the grace period.";
    // Attempts only.
    RefusedStream = "refused_stream", 0, Some(ProxyError::HttpProtocolError),
        "The backend refused the HTTP/2 stream without processing the request.";
    StaleConnection = "stale_connection", 0, Some(ProxyError::ConnectionTerminated),
        "The backend closed an idle connection at the moment when l7lb reused it.";
    RetriedResponse = "retried_response", 0, None,
        "The backend responded with a status for which the route retries.";
    Unresponsive = "unresponsive", 0, Some(ProxyError::HttpResponseTimeout),
        "Passive health ejected the backend as unresponsive while the request waited for it.";
    // Connections that were closed before a request.
    ConnectionLimit = "connection_limit", 0, None,
        "The client has as many connections as `connection_limits.per_client` allows.";
    ProxyProtocol = "proxy_protocol", 0, None,
        "The PROXY protocol header of the connection is missing or invalid.";
    TlsHandshake = "tls_handshake", 0, None,
        "The TLS handshake of the client failed.";
    HandshakeTimeout = "handshake_timeout", 0, None,
        "The client did not complete the PROXY protocol header and the TLS handshake in time.";
    ClosedEarly = "closed", 0, None,
        "The client closed the connection before its first request.";
}

impl Cause {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// The place in [`Cause::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The status code of a rejection; 0 if there is no response, or if the configuration or another service decides
    /// about it.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.facts().status
    }

    /// The error type in `Proxy-Status`; `None` if no response has this cause.
    #[must_use]
    pub const fn proxy_error(self) -> Option<ProxyError> {
        self.facts().error
    }

    /// The meaning in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.facts().meaning
    }

    /// The cause with this name.
    ///
    /// # Errors
    /// The name that is most similar, if one is.
    pub fn named(name: &str) -> Result<Self, Option<&'static str>> {
        let found = Self::ALL.into_iter().find(|cause| cause.as_str() == name);
        found.ok_or_else(|| nearest(name, Self::ALL.iter().map(|cause| cause.as_str())))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error type of RFC 9209 §2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9209 defines each")]
pub enum ProxyError {
    DestinationNotFound,
    DestinationUnavailable,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ConnectionReadTimeout,
    ConnectionLimitReached,
    TlsProtocolError,
    HttpRequestError,
    HttpRequestDenied,
    HttpResponseTimeout,
    HttpProtocolError,
    InternalResponse,
    InternalError,
}

impl ProxyError {
    /// The token of the registry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DestinationNotFound => "destination_not_found",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionReadTimeout => "connection_read_timeout",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::TlsProtocolError => "tls_protocol_error",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpProtocolError => "http_protocol_error",
            Self::InternalResponse => "proxy_internal_response",
            Self::InternalError => "proxy_internal_error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/causes.md");

    #[test]
    fn index_is_the_place_in_the_list_and_names_are_unique() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!((cause.index(), Cause::named(cause.as_str())), (place, Ok(cause)));
        }
        assert_eq!(Cause::named("no_rout"), Err(Some("no_route")));
    }

    /// Every cause has a section with its meaning, status and error type, what to check and what to do.
    #[test]
    fn page_of_causes_has_exactly_one_complete_section_for_each_cause() {
        let sections: Vec<(&str, &str)> =
            PAGE.split("\n### `").skip(1).map(|section| section.split_once('`').unwrap()).collect();
        let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
        let known: Vec<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(names, known, "the sections have the order of the list");
        for (cause, (name, section)) in Cause::ALL.iter().zip(&sections) {
            let section = section.split("\n## ").next().unwrap();
            let words = section.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(cause.meaning()), "{name}: the section has another meaning");
            for part in ["**Check:**", "**Do:**"] {
                let text = words.split_once(part).map(|(_, text)| text.split("**").next().unwrap_or_default().trim());
                assert!(text.is_some_and(|text| text.len() > 20), "{name}: {part} is missing");
            }
            let status = match cause.status() {
                0 => "Status —".to_owned(),
                status => format!("Status {status}"),
            };
            let error = cause.proxy_error().map_or("—".to_owned(), |error| format!("`{}`", error.as_str()));
            let facts = format!("{status}, `Proxy-Status` {error}.");
            assert!(words.contains(&facts), "{name}: `{facts}` is missing");
        }
    }
}
