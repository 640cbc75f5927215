//! Protocol upgrades (RFC 9110 §7.8): which protocol a client may switch to.

use http::Version;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};

/// The protocol that is offered to the backend: the first one in `Upgrade` that may be offered. `None` if there is none,
/// if `Connection` does not list `upgrade`, and in HTTP/1.0.
///
/// Versions of HTTP and TLS are not offered: they would carry requests that l7lb does not see.
#[must_use]
pub fn requested(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(items);
    if version == Version::HTTP_10 || !options.any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let protocol = headers.get_all(UPGRADE).iter().flat_map(items).find(|protocol| may_be_offered(protocol))?;
    HeaderValue::from_bytes(protocol).ok()
}

/// Whether a 101 response switches to `requested`. Some servers do not name the protocol.
#[must_use]
pub fn is_switch_to(requested: &HeaderValue, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    named.all(|named| named.as_bytes().eq_ignore_ascii_case(requested.as_bytes()))
}

/// The items of a list in a header line.
fn items(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn may_be_offered(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_http = [&b"http"[..], b"h2", b"h2c", b"h3", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known));
    let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._+~!#$%&'*^`|".contains(byte);
    !name.is_empty() && !is_http && protocol.iter().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &'static str)| (name.parse().unwrap(), HeaderValue::from_static(value));
        fields.iter().map(pair).collect()
    }

    #[test]
    fn upgrade_needs_a_connection_option_and_a_protocol_that_may_be_offered() {
        for (connection, upgrade, wanted) in [
            ("Upgrade", "websocket", Some("websocket")),
            ("keep-alive, upgrade", "WebSocket", Some("WebSocket")),
            ("upgrade", "h2c, SPDY/3.1", Some("SPDY/3.1")),
            ("upgrade", "proxmox-backup-protocol-v1", Some("proxmox-backup-protocol-v1")),
            ("keep-alive", "websocket", None),
            ("upgrades", "websocket", None),
            ("upgrade, http2-settings", "h2c", None),
            ("upgrade", "HTTP/2.0, TLS/1.2, h2, H3", None),
            ("upgrade", "", None),
            ("upgrade", "a b", None),
        ] {
            let headers = headers(&[("connection", connection), ("upgrade", upgrade)]);
            let found = requested(Version::HTTP_11, &headers);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), wanted, "{connection}: {upgrade}");
            assert_eq!(requested(Version::HTTP_10, &headers), None, "HTTP/1.0");
        }
        assert_eq!(requested(Version::HTTP_11, &headers(&[("upgrade", "websocket")])), None);
    }

    #[test]
    fn switch_to_another_protocol_is_detected() {
        let requested = HeaderValue::from_static("websocket");
        for (named, same) in [
            (&[][..], true),
            (&[("upgrade", "WebSocket")], true),
            (&[("upgrade", "h2c")], false),
            (&[("upgrade", "websocket, h2c")], false),
            (&[("upgrade", "websocket"), ("upgrade", "h2c")], false),
            (&[("upgrade", "")], false),
        ] {
            assert_eq!(is_switch_to(&requested, &headers(named)), same, "{named:?}");
        }
    }
}
