//! Which header fields filters may change: not those of the framing, of the connection and of the forwarding, whose values
//! backends must be able to trust.

use http::HeaderName;

use crate::base::fault::{Faults, Place};

/// Whether a message consists of the field, or it belongs to one connection (RFC 9110 §7.6.1).
fn is_of_framing(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether l7lb sets the field of a request itself.
fn is_of_l7lb(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with("x-client-cert")
        || matches!(name, "forwarded" | "x-request-id" | "max-forwards")
}

/// The message whose fields a filter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The request for backends.
    Request,
    /// The response for the client.
    Response,
}

/// Parses a field name that a filter may change; otherwise reports why not.
pub fn parse(name: &str, message: Message, place: &Place, faults: &mut Faults) -> Option<HeaderName> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        faults.add(place.clone(), format!("`{name}` is not a header name"), "write for example X-Frame-Options");
        return None;
    };
    let lower = parsed.as_str();
    let (problem, hint) = if is_of_framing(lower) {
        (format!("`{name}` belongs to the framing of a message, which l7lb decides"), "remove it")
    } else if message == Message::Request && lower == "host" {
        ("Host is changed by another filter".to_owned(), "write `rewrite: { host: NAME }`")
    } else if message == Message::Request && is_of_l7lb(lower) {
        let problem = format!("l7lb sets `{name}` itself, so that backends can trust it");
        (problem, "remove it, or use a name of your own")
    } else if lower.contains('_') {
        let problem = format!("`{name}` has an underscore, with which many servers confuse it with another name");
        (problem, "write it with a hyphen")
    } else {
        return Some(parsed);
    };
    faults.add(place.clone(), problem, hint);
    None
}
