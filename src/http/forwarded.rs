//! The `Forwarded` header (RFC 7239): what it says about the client, and the element that l7lb adds.
//!
//! The header is read from right to left, as `X-Forwarded-For` is (see [`super::client_address`]): what proxies have
//! added follows the grammar, and stands right of whatever a client has sent, such as an open quote.

use std::net::IpAddr;

use http::HeaderValue;

/// The elements of a line from right to left. A comma in a quoted string is not a separator.
pub fn elements(line: &[u8]) -> impl Iterator<Item = Element<'_>> {
    parts_from_right(line, b',').map(Element)
}

/// What one proxy has added: pairs of a name and a value.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a>(&'a [u8]);

impl<'a> Element<'a> {
    /// The address in `for`. `None` if it is missing, hidden (`unknown`, `_name`), or not an address.
    #[must_use]
    pub fn client(self) -> Option<IpAddr> {
        parse_hop(self.value("for")?)
    }

    /// The scheme in `proto`, if it is `http` or `https`.
    #[must_use]
    pub fn scheme(self) -> Option<&'static str> {
        let value = self.value("proto")?;
        ["http", "https"].into_iter().find(|scheme| value.eq_ignore_ascii_case(scheme))
    }

    /// The value of a pair that occurs once, without its quotes.
    fn value(self, name: &str) -> Option<&'a str> {
        let mut values = parts_from_right(self.0, b';').filter_map(|pair| {
            let (key, value) = str::from_utf8(pair).ok()?.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let value = values.next().filter(|_| values.next().is_none())?;
        match value.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"'),
            None => Some(value),
        }
    }
}

/// Parses the address of a hop, here or in `X-Forwarded-For`: an address, an IPv4 address with a port, or an IPv6
/// address in brackets, with or without a port.
pub(super) fn parse_hop(part: &str) -> Option<IpAddr> {
    let part = part.trim();
    part.parse().ok().or_else(|| {
        let (host, port) = match part.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => part.rsplit_once(':')?,
        };
        let is_port = port.is_empty() || port.starts_with(':') || !part.starts_with('[');
        host.parse().ok().filter(|_| is_port)
    })
}

/// The parts of `text` between separators that are not in quoted strings, from right to left.
fn parts_from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let start = (0..text.len()).rev().find(|at| {
            let byte = text.get(*at).copied();
            quoted ^= byte == Some(b'"') && !is_escaped(text, *at);
            byte == Some(separator) && !quoted
        });
        rest = start.and_then(|at| text.get(..at));
        text.get(start.map_or(0, |at| at + 1)..)
    })
}

/// Whether an odd number of backslashes precedes the byte at `at`.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The element about a request from `client`: its address, and if known the host and the scheme that it has used.
#[must_use]
pub fn element(client: IpAddr, host: Option<&HeaderValue>, scheme: Option<&str>) -> String {
    let mut element = match client {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    // A host that was checked has no quotes, but a trusted proxy may send any X-Forwarded-Host.
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        let is_token = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let quote = if is_token && !host.is_empty() { "" } else { "\"" };
        element.push_str(&format!(";host={quote}{host}{quote}"));
    }
    if let Some(scheme) = scheme {
        element.push_str(&format!(";proto={scheme}"));
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(line: &str) -> Vec<Option<String>> {
        elements(line.as_bytes()).map(|element| Some(element.client()?.to_string())).collect()
    }

    fn some(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    #[test]
    fn addresses_are_read_from_right_to_left() {
        for (line, wanted) in [
            ("for=192.0.2.1", vec![some("192.0.2.1")]),
            ("FOR = \"192.0.2.1:4711\" ; proto=https", vec![some("192.0.2.1")]),
            ("proto=http;by=203.0.113.9;for=\"[2001:db8::9]:443\"", vec![some("2001:db8::9")]),
            ("for=\"[2001:db8::9]\"", vec![some("2001:db8::9")]),
            ("for=\"[2001:db8::9]:_port\"", vec![some("2001:db8::9")]),
            ("for=192.0.2.1, for=198.51.100.2", vec![some("198.51.100.2"), some("192.0.2.1")]),
            ("for=\"_a,for=1.1.1.1\";proto=http, for=192.0.2.2", vec![some("192.0.2.2"), None]),
            ("host=\"a\\\",for=1.1.1.1\", for=192.0.2.2", vec![some("192.0.2.2"), None]),
        ] {
            assert_eq!(clients(line), wanted, "{line}");
        }
        for hidden in ["", "for=", "for", "for=unknown", "for=_hidden", "for=\"_SEVKISEK:1\"", "proto=https", "for=\""]
        {
            assert_eq!(clients(hidden), [None], "{hidden}");
        }
        assert_eq!(clients("for=192.0.2.1;for=192.0.2.2"), [None], "two values");
        assert_eq!(clients("for=\"192.0.2.1"), [None], "an open quote");
    }

    /// What a client sends before the element of a trusted proxy cannot hide that element.
    #[test]
    fn element_of_the_last_proxy_is_read_whatever_precedes_it() {
        for sent in ["\"", "for=\"", "for=6.6.6.6;x=\"", "\\", "\\\"", "for=\"a\\", ";;=,,", "for=6.6.6.6, \""] {
            for own in ["for=192.0.2.7", "for=\"[2001:db8::7]:80\"", "host=\"a:1\";for=\"192.0.2.7:1\""] {
                let line = format!("{sent}, {own}");
                assert_eq!(clients(&line)[0], clients(own)[0], "{line}");
            }
        }
    }

    #[test]
    fn scheme_is_http_or_https() {
        let scheme = |line: &'static str| elements(line.as_bytes()).next().unwrap().scheme();
        assert_eq!(scheme("for=192.0.2.1;Proto=HTTPS"), Some("https"));
        assert_eq!(scheme("proto=\"http\""), Some("http"));
        assert_eq!((scheme("proto=ftp"), scheme("for=192.0.2.1")), (None, None));
    }

    #[test]
    fn written_element_is_read_back() {
        let host = HeaderValue::from_static("a.example:8080");
        for address in ["192.0.2.1", "2001:db8::1"] {
            let text = element(address.parse().unwrap(), Some(&host), Some("https"));
            assert_eq!(clients(&text), [some(address)], "{text}");
            assert!(text.ends_with(";host=\"a.example:8080\";proto=https"), "{text}");
        }
        let plain =
            |host: &'static str| element("192.0.2.1".parse().unwrap(), Some(&HeaderValue::from_static(host)), None);
        assert_eq!(plain("a.example"), "for=192.0.2.1;host=a.example");
        assert_eq!(plain("a\"b"), "for=192.0.2.1");
    }
}
