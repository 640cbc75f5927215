//! The field Proxy-Status (RFC 9209): why l7lb responds itself, or how it obtained a response after failed attempts.

use std::fmt::Write;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::structured_field::push_string;
use crate::base::cause::Cause;

/// The name of the field.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The name of this proxy in the field.
const PROXY: &str = "l7lb";

/// Which clients get the field from l7lb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Clients whose peer is a trusted proxy.
    #[default]
    Trusted,
    /// All clients; those that are not trusted get neither addresses nor details.
    All,
    /// No client.
    Off,
}

/// What a client may learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disclosure {
    /// Everything.
    Full,
    /// The cause only.
    Cause,
}

impl Audience {
    /// What a client gets; `None` if it does not get the field.
    #[must_use]
    pub const fn disclosure(self, trusted: bool) -> Option<Disclosure> {
        match (self, trusted) {
            (Self::Trusted | Self::All, true) => Some(Disclosure::Full),
            (Self::All, false) => Some(Disclosure::Cause),
            (Self::Trusted, false) | (Self::Off, _) => None,
        }
    }
}

/// The member that l7lb adds to the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyStatus<'a> {
    /// Why l7lb responds itself; `None` if it forwards a response.
    pub cause: Option<Cause>,
    /// The detail of the access log; empty if there is none.
    pub detail: &'a str,
    /// The backend of the last attempt.
    pub next_hop: Option<&'a str>,
    /// The status code of the response of the backend.
    pub received_status: Option<u16>,
}

impl ProxyStatus<'_> {
    /// The member for a client that may learn this much; `None` if there is nothing that it may learn.
    #[must_use]
    pub fn value(&self, disclosure: Disclosure) -> Option<HeaderValue> {
        let full = disclosure == Disclosure::Full;
        if !full && self.cause.is_none() {
            return None;
        }
        let mut text = String::with_capacity(96);
        text.push_str(PROXY);
        if let Some(cause) = self.cause {
            if let Some(error) = cause.proxy_error() {
                text.push_str("; error=");
                text.push_str(error.as_str());
            }
            text.push_str("; details=");
            if full && !self.detail.is_empty() {
                push_string(&mut text, &format!("{cause}: {}", self.detail));
            } else {
                push_string(&mut text, cause.as_str());
            }
        }
        if let (true, Some(next_hop)) = (full, self.next_hop) {
            text.push_str("; next-hop=");
            push_string(&mut text, next_hop);
        }
        if let (true, Some(status)) = (full, self.received_status) {
            // Writing to a string does not fail.
            write!(text, "; received-status={status}").unwrap_or_default();
        }
        HeaderValue::try_from(text).ok()
    }

    /// Adds the member after those of proxies behind l7lb (§2).
    pub fn append_to(&self, headers: &mut HeaderMap, disclosure: Disclosure) {
        if let Some(value) = self.value(disclosure) {
            headers.append(PROXY_STATUS, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECTED: ProxyStatus<'_> = ProxyStatus {
        cause: Some(Cause::ConnectFailed),
        detail: "no other backend",
        next_hop: Some("10.0.0.1:8080"),
        received_status: None,
    };

    #[test]
    fn only_trusted_clients_learn_details_and_the_backend() {
        let full =
            r#"l7lb; error=connection_refused; details="connect_failed: no other backend"; next-hop="10.0.0.1:8080""#;
        assert_eq!(REJECTED.value(Disclosure::Full).unwrap(), full);
        let cause = r#"l7lb; error=connection_refused; details="connect_failed""#;
        assert_eq!(REJECTED.value(Disclosure::Cause).unwrap(), cause);
        let forwarded = ProxyStatus { cause: None, detail: "", received_status: Some(200), ..REJECTED };
        let full = r#"l7lb; next-hop="10.0.0.1:8080"; received-status=200"#;
        assert_eq!(forwarded.value(Disclosure::Full).unwrap(), full);
        assert_eq!(forwarded.value(Disclosure::Cause), None);
    }

    #[test]
    fn any_detail_is_a_valid_string_of_structured_fields() {
        let status = ProxyStatus { detail: "route \"ü\"\r\nx: \\ \u{7f}", ..REJECTED };
        let value = status.value(Disclosure::Full).unwrap();
        let text = value.to_str().unwrap();
        assert!(text.contains(r#"details="connect_failed: route \"%C3%BC\"%0D%0Ax: \\ %7F""#), "{text}");
    }

    #[test]
    fn audience_decides_who_gets_the_field() {
        let both = |audience: Audience| [true, false].map(|trusted| audience.disclosure(trusted));
        assert_eq!(both(Audience::Trusted), [Some(Disclosure::Full), None]);
        assert_eq!(both(Audience::All), [Some(Disclosure::Full), Some(Disclosure::Cause)]);
        assert_eq!(both(Audience::Off), [None, None]);
    }

    #[test]
    fn members_of_proxies_behind_come_first() {
        let mut headers = HeaderMap::new();
        headers.insert(PROXY_STATUS, HeaderValue::from_static("inner; error=dns_error"));
        REJECTED.append_to(&mut headers, Disclosure::Cause);
        let names =
            headers.get_all(PROXY_STATUS).iter().map(|value| value.to_str().unwrap().split(';').next().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["inner", "l7lb"]);
    }
}
