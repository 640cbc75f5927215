//! Responses of l7lb itself that are no rejections: its health, and requests that must not be forwarded any further.

use http::{HeaderMap, HeaderName, Method};
use pingora_http::RequestHeader;

use crate::http::fields::single;
use crate::listener::connection::HealthPaths;

/// How many more proxies may forward a request (RFC 9110 §7.6.2).
pub const MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");

/// Why l7lb responds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnResponse {
    /// A check whether the process lives.
    Live,
    /// A check whether the process is ready.
    Ready,
    /// `OPTIONS` with `Max-Forwards: 0`.
    LastRecipient,
}

impl OwnResponse {
    /// The response to a check of l7lb itself at one of the listener's `paths`. It precedes limits and routing.
    #[must_use]
    pub fn to_health_check(paths: &HealthPaths, request: &RequestHeader) -> Option<Self> {
        let is_path = |path: &Option<String>| path.as_deref().is_some_and(|path| path == request.uri.path());
        let check = match (is_path(&paths.live), is_path(&paths.ready)) {
            (true, _) => Self::Live,
            (_, true) => Self::Ready,
            _ => return None,
        };
        matches!(request.method, Method::GET | Method::HEAD).then_some(check)
    }

    /// The response to an admitted request that must not be forwarded. TRACE, the other method with Max-Forwards, was
    /// rejected.
    #[must_use]
    pub fn to_last_recipient(request: &RequestHeader) -> Option<Self> {
        let is_last = request.method == Method::OPTIONS && max_forwards(&request.headers) == Some(0);
        is_last.then_some(Self::LastRecipient)
    }

    /// The response as part of a sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Live => "the liveness check of the listener",
            Self::Ready => "the readiness check of the listener",
            Self::LastRecipient => "`Max-Forwards: 0`",
        }
    }
}

/// The number in Max-Forwards. An invalid or repeated value is ignored.
#[must_use]
pub fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    let value = single(headers, &MAX_FORWARDS)?.as_bytes().trim_ascii();
    let digits = str::from_utf8(value).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn max_forwards_is_a_single_number() {
        let parsed = |values: &[&'static str]| {
            max_forwards(&values.iter().map(|value| (MAX_FORWARDS, HeaderValue::from_static(value))).collect())
        };
        assert_eq!((parsed(&["0"]), parsed(&[" 07 "]), parsed(&["10"])), (Some(0), Some(7), Some(10)));
        assert_eq!(parsed(&["99999999999999999999"]), Some(u64::MAX));
        for invalid in [&[][..], &[""], &["-1"], &["+1"], &["1, 2"], &["x"], &["0", "0"]] {
            assert_eq!(parsed(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn only_options_with_max_forwards_0_ends_here() {
        for (method, value, wanted) in [
            ("OPTIONS", "0", Some(OwnResponse::LastRecipient)),
            ("OPTIONS", "1", None),
            ("OPTIONS", "x", None),
            ("GET", "0", None),
        ] {
            let mut request = RequestHeader::build(method, b"/", None).unwrap();
            request.insert_header(MAX_FORWARDS, value).unwrap();
            assert_eq!(OwnResponse::to_last_recipient(&request), wanted, "{method} {value}");
        }
    }
}
