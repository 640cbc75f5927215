//! The key of a request, for policies that send equal keys to the same backend.

use std::net::IpAddr;

use http::HeaderName;
use http::header::COOKIE;
use http::request::Parts;

/// The hashed key of a request. The hash has no random seed, so that several l7lb processes choose the same
/// backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub(in crate::pool) u64);

impl Key {
    /// A request without a key.
    pub const NONE: Self = Self(0);

    /// The key of some bytes: FNV-1a, then mixed.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let hash = text
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mix(hash).max(1))
    }
}

/// Mixes all bits (the finalizer of SplitMix64, Steele et al. 2014).
pub(in crate::pool) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The source of a request's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The client's address.
    ClientIp,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The path.
    Path,
    /// The value of a query parameter, not decoded.
    Query(String),
}

impl KeySource {
    /// The key of a request; [`Key::NONE`] if the request does not have the header, cookie or parameter, or it is
    /// empty.
    #[must_use]
    pub fn key(&self, client: IpAddr, request: &Parts) -> Key {
        let text = match self {
            Self::ClientIp => {
                return match client.to_canonical() {
                    IpAddr::V4(address) => Key::of(&address.octets()),
                    IpAddr::V6(address) => Key::of(&address.octets()),
                };
            }
            Self::Header(name) => request.headers.get(name).map(|value| value.as_bytes()),
            Self::Cookie(name) => request
                .headers
                .get_all(COOKIE)
                .iter()
                .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
                .find_map(|pair| value_of(pair.trim_ascii(), name)),
            Self::Path => Some(request.uri.path().as_bytes()),
            Self::Query(name) => request
                .uri
                .query()
                .and_then(|query| query.as_bytes().split(|b| *b == b'&').find_map(|p| value_of(p, name))),
        };
        text.filter(|text| !text.is_empty()).map_or(Key::NONE, Key::of)
    }
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_read_from_its_source() {
        let request = http::Request::get("/a?user=b&users=c").header("x-user", "d").header("cookie", "sid2=e; sid=f");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let client = "192.0.2.1".parse().unwrap();
        let key = |source: KeySource| source.key(client, &parts);
        assert_eq!(key(KeySource::Path), Key::of(b"/a"));
        assert_eq!(key(KeySource::Query("user".into())), Key::of(b"b"));
        assert_eq!(key(KeySource::Header(HeaderName::from_static("x-user"))), Key::of(b"d"));
        assert_eq!(key(KeySource::Header(HeaderName::from_static("x-none"))), Key::NONE);
        assert_eq!(key(KeySource::Cookie("sid".into())), Key::of(b"f"));
        assert_eq!(key(KeySource::Cookie("id".into())), Key::NONE);
        assert_eq!(key(KeySource::ClientIp), KeySource::ClientIp.key("::ffff:192.0.2.1".parse().unwrap(), &parts));
    }
}
