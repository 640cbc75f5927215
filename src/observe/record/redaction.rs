//! Redaction: what a line must not reveal.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::escape::text_of;
use crate::base::fault::{Faults, Place};
use crate::http::target::decode_component;

/// What stands for a redacted value.
pub(super) const REDACTED: &str = "[redacted]";

/// Header fields with credentials, which are always redacted.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// Header fields with addresses of clients.
const ADDRESSES: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// Header fields with a URL.
const URLS: [&str; 3] = ["referer", "location", "content-location"];

/// Configuration of the redaction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of query parameters whose values are not logged.
    pub query: Vec<String>,
    /// Names of header fields whose values are not logged, in addition to those with credentials.
    pub headers: Vec<String>,
    /// Whether client addresses are truncated: IPv4 to /24, IPv6 to /48.
    pub client_address: bool,
}

/// Checked redaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// In lower case.
    parameters: Vec<String>,
    headers: Vec<HeaderName>,
    client_address: bool,
    /// Whether queries are logged.
    query: bool,
}

/// How the value of a header field is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    AsItIs,
    Redacted,
    /// As a URL, with a redacted query.
    Url,
}

impl Config {
    /// Checks the block. `query` is whether queries are logged.
    pub fn check(&self, query: bool, place: &Place, faults: &mut Faults) -> Redaction {
        let mut headers = Vec::new();
        for (at, name) in self.headers.iter().enumerate() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => headers.push(name),
                Err(_) => faults.add(
                    place.key("headers").index(at),
                    format!("`{name}` is not a header name"),
                    "write for example `X-Api-Key`",
                ),
            }
        }
        for (at, _) in self.query.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            faults.add(place.key("query").index(at), "the name is empty", "write for example `token`");
        }
        let parameters = self.query.iter().map(|name| name.to_lowercase()).collect();
        Redaction { parameters, headers, client_address: self.client_address, query }
    }
}

impl Redaction {
    /// The client address as it is logged.
    pub(super) fn client<'a>(&self, client: &'a str) -> Cow<'a, str> {
        if !self.client_address {
            return Cow::Borrowed(client);
        }
        if let Some((network, _)) = client.rsplit_once('.').filter(|_| !client.contains(':')) {
            // An IPv4 address, whose text is cheaper to change than its value.
            return Cow::Owned([network, ".0"].concat());
        }
        match client.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                Cow::Owned(Ipv4Addr::new(a, b, c, 0).to_string())
            }
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                Cow::Owned(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string())
            }
            Err(_) => Cow::Borrowed("-"),
        }
    }

    /// How the value of a header field is logged.
    pub(super) fn of_header(&self, name: &HeaderName) -> Treatment {
        let text = name.as_str();
        let is_address = self.client_address && ADDRESSES.contains(&text);
        if CREDENTIALS.contains(&text) || is_address || self.headers.contains(name) {
            Treatment::Redacted
        } else if URLS.contains(&text) {
            Treatment::Url
        } else {
            Treatment::AsItIs
        }
    }

    /// A header value as it is logged.
    pub(super) fn value<'a>(&self, treatment: Treatment, value: &'a [u8]) -> Cow<'a, [u8]> {
        match treatment {
            Treatment::AsItIs => Cow::Borrowed(value),
            Treatment::Redacted => Cow::Borrowed(REDACTED.as_bytes()),
            Treatment::Url => self.url(value),
        }
    }

    /// A URL without its query, or with a redacted one if queries are logged.
    fn url<'a>(&self, url: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(at) = url.iter().position(|byte| *byte == b'?') else { return Cow::Borrowed(url) };
        let (before, query) = url.split_at(at);
        if !self.query {
            return Cow::Borrowed(before);
        }
        if self.parameters.is_empty() {
            return Cow::Borrowed(url);
        }
        let query = text_of(query.get(1..).unwrap_or_default());
        let mut text = text_of(before).into_owned();
        text.push('?');
        text.push_str(&self.query(&query));
        Cow::Owned(text.into_bytes())
    }

    /// A query as it is logged. Names are compared without case, after percent-decoding.
    pub(super) fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if self.parameters.is_empty() {
            return Cow::Borrowed(query);
        }
        let (mut text, mut copied, mut start) = (String::new(), 0, 0);
        while let Some(rest) = query.get(start..).filter(|rest| !rest.is_empty()) {
            let end = start + rest.bytes().position(|byte| matches!(byte, b'&' | b';')).unwrap_or(rest.len());
            let pair = query.get(start..end).unwrap_or_default();
            if let Some((name, _)) = pair.split_once('=').filter(|(name, _)| self.is_secret(name)) {
                let value = start + name.len() + 1;
                text.extend([query.get(copied..value).unwrap_or_default(), REDACTED]);
                copied = end;
            }
            start = end + 1;
        }
        if copied == 0 {
            return Cow::Borrowed(query);
        }
        text.push_str(query.get(copied..).unwrap_or_default());
        Cow::Owned(text)
    }

    fn is_secret(&self, name: &str) -> bool {
        let is = |name: &str| self.parameters.iter().any(|known| known.eq_ignore_ascii_case(name));
        if !name.contains(['%', '+']) {
            return is(name);
        }
        is(&String::from_utf8_lossy(&decode_component(&name.replace('+', " "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction(query: bool) -> Redaction {
        let config = Config { query: vec!["Token".into()], headers: vec!["X-Api-Key".into()], client_address: true };
        let mut faults = Faults::default();
        let redaction = config.check(query, &Place::root(), &mut faults);
        assert!(faults.is_empty());
        redaction
    }

    #[test]
    fn client_addresses_are_truncated_to_their_network() {
        for (client, logged) in [
            ("203.0.113.77", "203.0.113.0"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("unknown", "-"),
        ] {
            assert_eq!(redaction(false).client(client), logged);
        }
        assert_eq!(Redaction::default().client("203.0.113.77"), "203.0.113.77");
    }

    #[test]
    fn values_of_named_parameters_are_redacted_however_the_name_is_written() {
        for (query, logged) in [
            ("a=1&token=secret&b=2", "a=1&token=[redacted]&b=2"),
            ("TOKEN=secret", "TOKEN=[redacted]"),
            ("%74oken=secret;x", "%74oken=[redacted];x"),
            ("token=a=b&token=", "token=[redacted]&token=[redacted]"),
            ("token&tokens=1", "token&tokens=1"),
            ("%zz&&=&%74%ff=1", "%zz&&=&%74%ff=1"),
            ("", ""),
        ] {
            assert_eq!(redaction(true).query(query), logged);
        }
    }

    #[test]
    fn headers_with_credentials_addresses_or_listed_names_are_redacted_and_urls_lose_secrets() {
        let value = |redaction: &Redaction, name: &'static str, value: &'static str| {
            let treatment = redaction.of_header(&HeaderName::from_static(name));
            String::from_utf8(redaction.value(treatment, value.as_bytes()).into_owned()).unwrap()
        };
        let redacting = redaction(true);
        for name in ["authorization", "cookie", "set-cookie", "x-api-key", "x-forwarded-for", "forwarded"] {
            assert_eq!(value(&redacting, name, "secret"), REDACTED, "{name}");
        }
        assert_eq!(value(&redacting, "user-agent", "curl"), "curl");
        assert_eq!(value(&redacting, "referer", "https://a/?token=s&b=1"), "https://a/?token=[redacted]&b=1");
        let without_query = Redaction::default();
        assert_eq!(value(&without_query, "referer", "https://a/?token=s&b=1"), "https://a/");
        assert_eq!(value(&without_query, "x-forwarded-for", "192.0.2.1"), "192.0.2.1");
        assert_eq!(value(&without_query, "cookie", "a=b"), REDACTED);
    }
}
