//! Sticky sessions: who comes again is served by the same backend, as long as it is up.
//!
//! There are two ways. [`ticket`]: a cookie of our own says which backend it was. It is sealed, so that
//! it tells nothing about what is behind the balancer and nobody can choose a backend by hand. Or a
//! value that the client has anyway (a cookie or a header of the application's, or its address) is
//! hashed, and the backend with the highest [`score`] for it serves: rendezvous hashing, in which the
//! end of one backend moves that one's clients and nobody else's. The ticket survives changes of the
//! pool; the hash needs no answer to have passed, and works for clients that keep no cookies.
//!
//! Stickiness costs evenness: who has many requests brings them all to one place. Choose it for
//! backends that keep sessions in memory, and no longer than they do.

mod config;
pub mod ticket;

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use config::{Config, Keep};
use http::{HeaderMap, HeaderName, header};
use ticket::Tickets;

/// What sticks, and to what.
#[derive(Debug)]
pub struct Sticky {
    /// Whether the backend sticks, or only the pool.
    pub keep: Keep,
    /// How a client is known again.
    pub means: Means,
    /// What was written, by which it is known again itself when a file is read anew.
    pub written: Config,
}

/// How a client is known again.
#[derive(Debug)]
pub enum Means {
    /// To what a cookie of ours says.
    Ticket(CookieSpec),
    /// To where a value of the client's is hashed to.
    Hash(Source),
}

/// The cookie that the balancer sets.
#[derive(Debug)]
pub struct CookieSpec {
    /// Its name.
    pub name: String,
    /// How long a client keeps it. It is given anew after half of that.
    pub lifetime: Duration,
    /// What stands behind the value: path, lifetime, `HttpOnly`, `SameSite`.
    pub attributes: String,
    /// Whether it is sent over TLS only.
    pub secure: Secure,
    /// What seals it.
    pub tickets: Tickets,
}

/// Whether a cookie has the attribute `Secure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secure {
    /// Where the client came over TLS.
    #[default]
    Auto,
    /// Always, for TLS that ends in front of us.
    Always,
    /// Never.
    Never,
}

/// Where the value that is hashed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A cookie of the application's.
    Cookie(String),
    /// A header field.
    Header(HeaderName),
    /// The client's address.
    ClientIp,
}

impl Source {
    /// The hash of the client's value; none where it has none.
    #[must_use]
    pub fn hash(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        match self {
            Self::Cookie(name) => cookie(headers, name).map(hash),
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Self::ClientIp => Some(hash(client)),
        }
    }
}

/// How much the backend at `address` wants the client with this hash; the highest score wins.
#[must_use]
pub fn score(client: u64, address: SocketAddr) -> u64 {
    hash((client, address))
}

/// The same in every process, so that machines side by side with the same binary agree. Whoever finds values with a common
/// hash has found sessions that share a backend, which they may anyway.
fn hash(value: impl Hash) -> u64 {
    ahash::RandomState::with_seeds(0x6c37_6c62, 0x7374_6963, 0x6b79_2d31, 0x7365_6564).hash_one(value)
}

/// The value of the first cookie of that name (RFC 6265 §5.4).
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
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
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&[("cookie", "xl7lb=1; l7lbx=2;l7lb=a=b ; l7lb=second"), ("cookie", "other=3")]);
        assert_eq!(cookie(&headers, "l7lb"), Some("a=b"));
        assert_eq!(cookie(&headers, "other"), Some("3"));
        assert_eq!(cookie(&headers, "L7LB"), None);
        assert_eq!(cookie(&HeaderMap::new(), "l7lb"), None);
    }

    #[test]
    fn the_same_value_has_the_same_hash_and_none_has_none() {
        let client = "192.0.2.1".parse().unwrap();
        let (one, two) = (headers(&[("x-user", "one"), ("cookie", "s=one")]), headers(&[("x-user", "two")]));
        let header = Source::Header(HeaderName::from_static("x-user"));
        assert_eq!(header.hash(&one, client), header.hash(&one, "192.0.2.2".parse().unwrap()));
        assert_ne!(header.hash(&one, client), header.hash(&two, client));
        assert!(Source::Cookie("s".to_owned()).hash(&one, client).is_some());
        assert_eq!(Source::Cookie("s".to_owned()).hash(&two, client), None);
        assert_eq!(Source::ClientIp.hash(&one, client), Source::ClientIp.hash(&two, client));
    }

    #[test]
    fn clients_spread_and_only_those_of_a_lost_backend_move() {
        let backends: Vec<SocketAddr> = (1..=5).map(|n| format!("192.0.2.{n}:80").parse().unwrap()).collect();
        let best = |client: u64, among: &[SocketAddr]| *among.iter().max_by_key(|a| score(client, **a)).unwrap();
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
