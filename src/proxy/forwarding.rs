//! Forwarding headers: what backends receive about the client, and about the proxies between.

use bytes::Bytes;
use http::header::FORWARDED;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::exchange::Exchange;
use crate::decision::form::{self, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::http::client_address::X_FORWARDED_FOR;
use crate::http::forwarded::element;
use crate::listener::connection::Connection;

/// Adds the forwarding headers. Those of a trusted proxy are kept and extended.
pub(super) fn add(request: &mut Parts, exchange: &Exchange, connection: &Connection) {
    let (authority, headers) = (request.uri.authority(), &mut request.headers);
    // As in `TrustedProxies::client`.
    let by_forwarded = exchange.trusted && !headers.contains_key(X_FORWARDED_FOR) && headers.contains_key(FORWARDED);
    let proxies = &exchange.snapshot.trusted_proxies;
    let new_scheme = form::new_scheme(proxies, (connection.peer.ip(), exchange.trusted), headers, scheme(connection));
    let mut forwarded_for = connection.peer_text.clone();
    if exchange.trusted && headers.contains_key(X_FORWARDED_FOR) {
        forwarded_for = extend(headers, &X_FORWARDED_FOR, forwarded_for);
    } else if by_forwarded && exchange.client != connection.peer.ip() {
        let both = format!("{}, {}", exchange.client, connection.peer_text());
        forwarded_for = HeaderValue::try_from(both).unwrap_or(forwarded_for);
    }
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    if let Some(scheme) = new_scheme {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    let requested = host(authority, headers);
    let has_host = requested.is_some();
    if !(exchange.trusted && headers.contains_key(X_FORWARDED_HOST)) {
        match requested {
            Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
    }
    if !has_host {
        // HTTP/1.0 may lack Host, but is forwarded as HTTP/1.1, which requires it: the address that the client
        // connected to is the best value (RFC 9112 §3.3).
        let local = connection.local.and_then(|local| HeaderValue::try_from(local.to_string()).ok());
        headers.insert(header::HOST, local.unwrap_or(HeaderValue::from_static("")));
    }
    if exchange.snapshot.send_forwarded {
        let own = element(connection.peer.ip(), host(authority, headers).as_ref(), Some(scheme(connection)));
        add_forwarded(headers, exchange, (connection, own), by_forwarded);
    }
}

/// Adds `Forwarded` with the element `own` of the connection. If the client was not named by `Forwarded`, an element for
/// it comes first: an unused `Forwarded` may be forged.
fn add_forwarded(
    headers: &mut HeaderMap,
    exchange: &Exchange,
    (connection, own): (&Connection, String),
    by_forwarded: bool,
) {
    let Ok(last) = HeaderValue::try_from(&own) else { return };
    let value = if by_forwarded {
        extend(headers, &FORWARDED, last)
    } else if exchange.client == connection.peer.ip() {
        last
    } else {
        let scheme = headers.get(X_FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok());
        let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https"));
        let client = element(exchange.client, headers.get(X_FORWARDED_HOST), scheme);
        HeaderValue::try_from(format!("{client}, {own}")).unwrap_or(last)
    };
    headers.insert(FORWARDED, value);
}

/// The scheme of the connection.
fn scheme(connection: &Connection) -> &'static str {
    if connection.is_tls() { "https" } else { "http" }
}

/// The hops in the lines of `name`, from a trusted proxy, followed by `last`.
fn extend(headers: &HeaderMap, name: &HeaderName, last: HeaderValue) -> HeaderValue {
    let mut hops = Vec::new();
    for hop in headers.get_all(name).iter().chain([&last]).filter(|hop| !hop.is_empty()) {
        if !hops.is_empty() {
            hops.extend_from_slice(b", ");
        }
        hops.extend_from_slice(hop.as_bytes());
    }
    // Legal values joined by commas are a legal value.
    HeaderValue::from_maybe_shared(Bytes::from(hops)).unwrap_or(last)
}

/// The requested host; a clone without copying if it is in `Host`.
fn host(authority: Option<&Authority>, headers: &HeaderMap) -> Option<HeaderValue> {
    match authority {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => form::host_field(headers).cloned(),
    }
}
