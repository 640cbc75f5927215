//! How session affinity identifies a client: by an affinity cookie, or by the hash of a client value.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::cookie::CookieKeys;
use crate::base::backend_address::BackendAddress;

/// How a client is identified.
#[derive(Debug)]
pub enum AffinityMethod {
    /// By an affinity cookie.
    Cookie(CookieSpec),
    /// By the hash of a client value.
    Hash(HashSource),
}

/// The affinity cookie.
#[derive(Debug)]
pub struct CookieSpec {
    /// Its name.
    pub name: String,
    /// How long a client keeps it. It is renewed after half of that time.
    pub lifetime: Duration,
    /// The attributes after the value: path, lifetime, `HttpOnly`, `SameSite`.
    pub attributes: String,
    /// Whether browsers send it over TLS only.
    pub secure: Secure,
    /// The keys that encrypt it.
    pub keys: CookieKeys,
}

/// Whether the cookie has the attribute `Secure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secure {
    /// If the client uses TLS.
    #[default]
    Auto,
    /// Always, for TLS that is terminated in front of l7lb.
    Always,
    /// Never.
    Never,
}

/// The source of the hashed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    /// A cookie of the application.
    Cookie(String),
    /// A header.
    Header(HeaderName),
    /// The client's address.
    ClientIp,
}

impl HashSource {
    /// The hash of the client's value; `None` if it has none.
    #[must_use]
    pub fn hash(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        match self {
            Self::Cookie(name) => cookie_value(headers, name).map(hash),
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Self::ClientIp => Some(hash(client)),
        }
    }
}

/// The score of the backend at `address` for a client with this hash; the highest wins.
#[must_use]
pub fn score(client: u64, address: BackendAddress) -> u64 {
    hash((client, address))
}

/// The same in every process, so that machines with the same binary agree. A client that finds values with
/// equal hashes gains nothing: such sessions may share a backend in any case.
fn hash(value: impl Hash) -> u64 {
    ahash::RandomState::with_seeds(0x6c37_6c62, 0x7374_6963, 0x6b79_2d31, 0x7365_6564).hash_one(value)
}

/// The value of the first cookie with that name (RFC 6265 §5.4).
#[must_use]
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn cookie_is_found_by_its_exact_name() {
        let headers = headers(&[("cookie", "xl7lb=1; l7lbx=2;l7lb=a=b ; l7lb=second"), ("cookie", "other=3")]);
        assert_eq!(cookie_value(&headers, "l7lb"), Some("a=b"));
        assert_eq!(cookie_value(&headers, "other"), Some("3"));
        assert_eq!(cookie_value(&headers, "L7LB"), None);
        assert_eq!(cookie_value(&HeaderMap::new(), "l7lb"), None);
    }

    #[test]
    fn equal_values_have_equal_hashes_and_missing_values_have_none() {
        let client = "192.0.2.1".parse().unwrap();
        let (one, two) = (headers(&[("x-user", "one"), ("cookie", "s=one")]), headers(&[("x-user", "two")]));
        let header = HashSource::Header(HeaderName::from_static("x-user"));
        assert_eq!(header.hash(&one, client), header.hash(&one, "192.0.2.2".parse().unwrap()));
        assert_ne!(header.hash(&one, client), header.hash(&two, client));
        assert!(HashSource::Cookie("s".to_owned()).hash(&one, client).is_some());
        assert_eq!(HashSource::Cookie("s".to_owned()).hash(&two, client), None);
        assert_eq!(HashSource::ClientIp.hash(&one, client), HashSource::ClientIp.hash(&two, client));
    }

    #[test]
    fn clients_are_spread_evenly_and_only_those_of_a_removed_backend_move() {
        let backends: Vec<BackendAddress> = (1..=5).map(|n| format!("192.0.2.{n}:80").parse().unwrap()).collect();
        let best = |client: u64, among: &[BackendAddress]| *among.iter().max_by_key(|a| score(client, **a)).unwrap();
        let clients: Vec<u64> = (0..10_000_u64).map(hash).collect();
        for backend in &backends {
            let own = clients.iter().filter(|client| best(**client, &backends) == *backend).count();
            assert!((1800..=2200).contains(&own), "{own} of 10,000");
        }
        for client in clients {
            let before = best(client, &backends);
            let after = best(client, &backends[1..]);
            assert!(before == after || before == backends[0]);
        }
    }
}
