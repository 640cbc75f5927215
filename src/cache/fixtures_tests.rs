//! What several tests of the rules start from.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::rules::{KeyRules, QueryRule, Rules, SetCookie};

/// A header with these field lines.
pub(super) fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Rules that add nothing to what a response says, for bodies of at most 1000 bytes.
pub(super) fn rules() -> Rules {
    Rules {
        default_ttl: None,
        max_ttl: None,
        statuses: vec![200],
        negative_ttl: None,
        heuristic: false,
        set_cookie: SetCookie::Reject,
        stale_while_revalidate: None,
        stale_if_error: None,
        client_directives: true,
        max_object_size: 1000,
        key: key_rules(),
    }
}

/// A key of host, path and query.
pub(super) fn key_rules() -> KeyRules {
    KeyRules { host: true, query: QueryRule::Whole, headers: vec![], cookies: vec![] }
}
