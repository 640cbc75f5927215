//! The target of a request, as far as it belongs to the key.

use std::borrow::Cow;

/// The target of a request, as far as it belongs to the key.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Separates responses of routes that share nothing, for example if their keys have no host. Empty: shared.
    pub space: &'a str,
    /// `http` or `https`, in lower case.
    pub scheme: &'a str,
    /// Whether the scheme belongs to the key. If not, `http` and `https` share responses.
    pub scheme_in_key: bool,
    /// Host and port as the client sent them.
    pub host: &'a str,
    /// The path as forwarded.
    pub path: &'a str,
    /// The query as forwarded, without `?`.
    pub query: Option<&'a str>,
}

/// A host in lower case, without the default port of the scheme (RFC 9110 §4.2.3).
#[must_use]
pub fn normal_host<'a>(host: &'a str, scheme: &str) -> Cow<'a, str> {
    let colon = memchr::memrchr(b':', host.as_bytes());
    let host = match colon.and_then(|colon| Some((host.get(..colon)?, host.get(colon + 1..)?))) {
        Some((name, port)) if is_default_port(port, scheme) => name,
        _ => host,
    };
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(host.to_ascii_lowercase());
    }
    Cow::Borrowed(host)
}

fn is_default_port(port: &str, scheme: &str) -> bool {
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse() == Ok(default))
}
