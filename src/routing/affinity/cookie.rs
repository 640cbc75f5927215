//! The content of the affinity cookie: pool, backend and time.
//!
//! Encrypted with AES-256-GCM-SIV (RFC 8452), which tolerates a repeated nonce: a key from a file may be used
//! for more cookies than random 96-bit nonces allow. The cookie name is authenticated, so a cookie is not valid
//! under another name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::base::backend_address::{BackendAddress, NAME_MAX, UNIX};
use crate::base::text_file;

/// Bytes of a key.
const SECRET: usize = 32;

/// A random key of this process for all its cookies, which become invalid with a restart.
pub struct ProcessKey([u8; SECRET]);

impl ProcessKey {
    /// A random key.
    ///
    /// # Errors
    /// If the system returns no random bytes.
    pub fn random() -> Result<Self, String> {
        let mut secret = [0; SECRET];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| "the system returns no random bytes".to_owned())?;
        Ok(Self(secret))
    }
}

const TAG: usize = 16;
/// Pool, time, address, port. The path of a socket follows; its IP address and port are zero.
const PLAIN: usize = 8 + 8 + 16 + 2;
/// The longest cookie value in bytes before base64.
const SEALED_MAX: usize = NONCE_LEN + PLAIN + NAME_MAX + TAG;

/// The decrypted content of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityCookie {
    /// The pool, by [`pool_id`].
    pub pool: u64,
    /// The backend.
    pub backend: BackendAddress,
    /// When it was issued, in seconds since 1970.
    pub issued_at: u64,
}

/// The id of a pool in cookies: the same on all machines with the same configuration.
#[must_use]
pub fn pool_id(name: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The keys for one cookie name: the first one encrypts, all of them decrypt.
pub struct CookieKeys {
    name: String,
    keys: Vec<LessSafeKey>,
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cookie keys", self.keys.len())
    }
}

impl CookieKeys {
    /// The key of this process.
    ///
    /// # Errors
    /// If the library rejects the key.
    pub fn of_process(name: &str, key: &ProcessKey) -> Result<Self, String> {
        let key = cipher(&key.0).ok_or("the key cannot be created")?;
        Ok(Self { name: name.to_owned(), keys: vec![key] })
    }

    /// The keys of a file.
    ///
    /// # Errors
    /// The problem with the file, without any part of a key.
    pub fn read(name: &str, path: &Path) -> Result<Self, String> {
        Self::parse(name, text_file::without_mark(&text_file::read(path)?))
    }

    /// Parses keys from lines of base64; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The number of the invalid line, or that there is no key.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') {
                let secret = STANDARD.decode(line).ok();
                let key = secret.and_then(|secret| cipher(&secret));
                keys.push(key.ok_or_else(|| format!("line {number} is not 32 bytes in base64"))?);
            }
        }
        if keys.is_empty() {
            return Err("the file contains no key".to_owned());
        }
        Ok(Self { name: name.to_owned(), keys })
    }

    /// The value of a cookie; `None` if the system returns no random bytes.
    #[must_use]
    pub fn seal(&self, cookie: &AffinityCookie) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(SEALED_MAX);
        sealed.extend_from_slice(&cookie.pool.to_be_bytes());
        sealed.extend_from_slice(&cookie.issued_at.to_be_bytes());
        let inet = cookie.backend.inet().unwrap_or(NO_ADDRESS);
        sealed.extend_from_slice(&address(inet.ip()).octets());
        sealed.extend_from_slice(&inet.port().to_be_bytes());
        if let BackendAddress::Unix(path) = &cookie.backend {
            sealed.extend_from_slice(path.as_str().as_bytes());
        }
        let once = Nonce::assume_unique_for_key(nonce);
        self.keys.first()?.seal_in_place_append_tag(once, self.associated_data(), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// The content of a cookie value; `None` if these keys did not encrypt it.
    #[must_use]
    pub fn open(&self, value: &str) -> Option<AffinityCookie> {
        let mut bytes = [0; SEALED_MAX];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
        let (nonce, sealed) = bytes.get(..length)?.split_first_chunk::<NONCE_LEN>()?;
        self.keys.iter().find_map(|key| {
            let mut copy = [0; SEALED_MAX];
            let copy = copy.get_mut(..sealed.len())?;
            copy.copy_from_slice(sealed);
            let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), self.associated_data(), copy).ok()?;
            parse(opened)
        })
    }

    fn associated_data(&self) -> Aad<&[u8]> {
        Aad::from(self.name.as_bytes())
    }
}

fn cipher(secret: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM_SIV, secret).map(LessSafeKey::new).ok()
}

/// Instead of the address of a socket.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// A fixed length for both families. An IPv4 address is restored as one.
fn address(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn parse(plain: &[u8]) -> Option<AffinityCookie> {
    let (pool, rest) = plain.split_first_chunk()?;
    let (issued_at, rest) = rest.split_first_chunk()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    let (port, path) = rest.split_first_chunk()?;
    let backend = match (u16::from_be_bytes(*port), std::str::from_utf8(path).ok()?) {
        (0, path) => format!("{UNIX}{path}").parse().ok()?,
        (port, "") => SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port).into(),
        (_, _) => return None,
    };
    Some(AffinityCookie { pool: u64::from_be_bytes(*pool), backend, issued_at: u64::from_be_bytes(*issued_at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8) -> String {
        STANDARD.encode([byte; SECRET])
    }

    fn keys(name: &str, keys: &[u8]) -> CookieKeys {
        CookieKeys::parse(name, &keys.iter().map(|byte| line(*byte) + "\n").collect::<String>()).unwrap()
    }

    fn cookie(backend: &str) -> AffinityCookie {
        AffinityCookie { pool: pool_id("a"), backend: backend.parse().unwrap(), issued_at: 1_700_000_000 }
    }

    #[test]
    fn encrypted_cookie_is_decrypted_and_reveals_nothing() {
        let keys = keys("l7lb", &[1]);
        for backend in ["127.0.0.1:8081", "[2001:db8::1]:443", "unix:/run/app.sock", "unix:@app"] {
            let value = keys.seal(&cookie(backend)).unwrap();
            assert_eq!(keys.open(&value), Some(cookie(backend)));
            assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{value}");
            assert_ne!(keys.seal(&cookie(backend)), Some(value), "equal backends have different cookies");
        }
    }

    #[test]
    fn truncated_or_foreign_cookie_is_rejected() {
        let ours = keys("l7lb", &[1]);
        let value = ours.seal(&cookie("127.0.0.1:8081")).unwrap();
        assert_eq!(keys("other", &[1]).open(&value), None);
        assert_eq!(keys("l7lb", &[2]).open(&value), None);
        assert_eq!(keys("l7lb", &[2, 1]).open(&value), Some(cookie("127.0.0.1:8081")), "keys can be rotated");
        for length in 0..value.len() {
            assert_eq!(ours.open(&value[..length]), None, "{length}");
        }
        let longest = cookie(&format!("unix:/{}", "x".repeat(NAME_MAX - 1)));
        assert_eq!(ours.open(&ours.seal(&longest).unwrap()), Some(longest));
        for index in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(ours.open(&String::from_utf8(forged).unwrap()), None, "{index}");
        }
        for forged in ["", "é", "127.0.0.1:8081", &"A".repeat(10_000), &format!("{value}A")] {
            assert_eq!(ours.open(forged), None);
        }
        assert!(CookieKeys::of_process("l7lb", &ProcessKey::random().unwrap()).unwrap().open(&value).is_none());
    }

    #[test]
    fn key_file_is_parsed_strictly_and_never_quoted() {
        assert_eq!(
            format!("{:?}", CookieKeys::parse("n", &format!("# ours\n\n {} \r\n{}\n", line(1), line(2))).unwrap()),
            "2 cookie keys"
        );
        for (text, problem) in [
            (String::new(), "the file contains no key"),
            ("# none\n".to_owned(), "the file contains no key"),
            (format!("{}\nsecret!", line(1)), "line 2 is not 32 bytes in base64"),
            (STANDARD.encode([1; 31]), "line 1 is not 32 bytes in base64"),
            (STANDARD.encode([1; 48]), "line 1 is not 32 bytes in base64"),
        ] {
            assert_eq!(CookieKeys::parse("n", &text).unwrap_err(), problem);
        }
    }
}
