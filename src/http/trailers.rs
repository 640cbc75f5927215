//! Which fields may be forwarded in a trailer section (RFC 9110 §6.5.1).
//!
//! Some servers merge trailers into the header. A trailer could then set what the header must not: the end of the
//! message, its target, the client's identity or its credentials.

use http::{HeaderMap, HeaderName};

/// The trailers that may be forwarded; `None` if there are none.
#[must_use]
pub fn allowed(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let denied: Vec<HeaderName> = trailers.keys().filter(|name| !is_allowed(name.as_str())).cloned().collect();
    for name in denied {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn is_allowed(name: &str) -> bool {
    const PREFIXES: [&str; 7] =
        ["access-control-", "client-cert", "if-", "proxy-", "sec-", "x-client-cert", "x-forwarded-"];
    // Many servers read `x_real_ip` as `x-real-ip`.
    if name.contains('_') || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    !matches!(
        name,
        // Framing and the connection.
        "connection" | "content-length" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        // Routing and the client's identity.
        | "forwarded" | "host" | "x-real-ip" | "x-request-id"
        // Credentials.
        | "authorization" | "cookie" | "set-cookie" | "www-authenticate"
        // How a message is processed.
        | "age" | "cache-control" | "content-encoding" | "content-range" | "content-type" | "date" | "expect"
        | "expires" | "location" | "max-forwards" | "pragma" | "range" | "retry-after" | "vary" | "warning"
        | "strict-transport-security"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_without_influence_on_the_message_are_allowed() {
        let map = |names: &[&'static str]| -> HeaderMap {
            names.iter().map(|name| (HeaderName::from_static(name), "x".parse().unwrap())).collect()
        };
        let kept = allowed(map(&["grpc-status", "grpc-message", "digest", "server-timing", "x-checksum", "host"]));
        assert_eq!(kept, Some(map(&["grpc-status", "grpc-message", "digest", "server-timing", "x-checksum"])));
        let names = ["content-length", "transfer-encoding", "host", "authorization", "x-forwarded-for", "x_real_ip"];
        assert_eq!(allowed(map(&names)), None);
        assert_eq!(allowed(map(&["x-client-cert-verified", "proxy-authorization", "set-cookie", "if-match"])), None);
    }
}
