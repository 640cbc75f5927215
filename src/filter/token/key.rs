//! Keys that verify signatures, each with one algorithm.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::{self, SectionKind};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::{Algorithm, Scheme};

/// The most keys of a set.
const KEYS_MAX: usize = 100;
/// The shortest RSA key in bits (RFC 7518 §3.3).
const RSA_MIN_BITS: usize = 2048;

/// A key.
pub struct Key {
    /// Its name in tokens.
    pub(super) id: Option<String>,
    /// Its only algorithm.
    pub(super) algorithm: Algorithm,
    verifier: Verifier,
}

enum Verifier {
    Secret(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
}

impl fmt::Debug for Key {
    /// Without the key, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// A secret; `None` if it is too short.
    fn secret(id: Option<String>, algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        let Scheme::Secret(hash) = algorithm.scheme() else { return None };
        let verifier = Verifier::Secret(Box::new(hmac::Key::new(hash, secret)));
        (secret.len() >= algorithm.secret_min()).then_some(Self { id, algorithm, verifier })
    }

    /// A public key in the encoding of its kind: a point, a raw Ed25519 key, or DER.
    fn public(id: Option<String>, algorithm: Algorithm, encoded: &[u8]) -> Option<Self> {
        let parsed = match algorithm.scheme() {
            Scheme::Secret(_) => return None,
            Scheme::Rsa(parameters) => ParsedPublicKey::new(parameters, encoded),
            Scheme::Public(kind) => ParsedPublicKey::new(kind, encoded),
        };
        Some(Self { id, algorithm, verifier: Verifier::Public(Box::new(parsed.ok()?)) })
    }

    /// An RSA key from its modulus and exponent, big-endian.
    fn rsa(id: Option<String>, algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Self> {
        let Scheme::Rsa(parameters) = algorithm.scheme() else { return None };
        let start = n.iter().position(|byte| *byte != 0)?;
        let n = n.get(start..)?;
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()?;
        let verifier = Verifier::Public(Box::new(parsed));
        (n.len() * 8 >= RSA_MIN_BITS).then_some(Self { id, algorithm, verifier })
    }

    /// Whether it signed the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            // It compares in constant time.
            Verifier::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// Keys of one issuer.
#[derive(Debug)]
pub struct KeySet(pub(super) Vec<Key>);

/// Where a set of keys comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, which may contain secrets.
    File,
    /// A URL, where a secret would be public.
    Url,
}

impl KeySet {
    /// The keys in a file: a JWK set or a JWK in JSON, or public keys and certificates in PEM. `allowed` has the
    /// algorithms; an empty list stands for all.
    ///
    /// # Errors
    /// Why there is no key.
    pub fn read(bytes: &[u8], allowed: &[Algorithm]) -> Result<Self, String> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            return Self::from_json(bytes, allowed, Origin::File);
        }
        let mut rest = bytes;
        let mut keys = Vec::new();
        while let Some((kind, der)) = pem::from_buf(&mut rest).map_err(|e| format!("it is not in PEM: {e}"))? {
            let key = match kind {
                SectionKind::PublicKey => of_public_key(&der, allowed)?,
                SectionKind::Certificate => {
                    let (_, certificate) =
                        X509Certificate::from_der(&der).map_err(|e| format!("a certificate is invalid: {e}"))?;
                    of_public_key(certificate.public_key().raw, allowed)?
                }
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    return Err("it contains a private key, which only the issuer of tokens needs".to_owned());
                }
                _ => return Err("it contains something that is no public key".to_owned()),
            };
            keys.push(key);
        }
        Self::of(keys, "no public key in PEM and no JWK set")
    }

    /// The keys of a JWK set, or one JWK. Keys for other purposes and of unknown kinds are left out (RFC 7517 §5).
    ///
    /// # Errors
    /// Why there is no key.
    pub fn from_json(bytes: &[u8], allowed: &[Algorithm], origin: Origin) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(bytes).map_err(|e| format!("it is not JSON: {e}"))?;
        let keys = match json.get("keys") {
            Some(Value::Array(keys)) => keys.as_slice(),
            _ if json.get("kty").is_some() => std::slice::from_ref(&json),
            _ => return Err("it is no JWK set: `keys` is missing".to_owned()),
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys, more than {KEYS_MAX}", keys.len()));
        }
        let keys = keys.iter().filter_map(|jwk| of_jwk(jwk, allowed, origin));
        Self::of(keys.collect(), "no key of the JWK set can verify a signature with an allowed algorithm")
    }

    /// A secret.
    ///
    /// # Errors
    /// If it is too short.
    pub fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, String> {
        let key = Key::secret(None, algorithm, secret);
        let (length, least) = (secret.len(), algorithm.secret_min());
        Ok(Self(vec![key.ok_or_else(|| format!("it has {length} bytes; {algorithm} needs at least {least}"))?]))
    }

    fn of(keys: Vec<Key>, problem: &str) -> Result<Self, String> {
        if keys.is_empty() { Err(problem.to_owned()) } else { Ok(Self(keys)) }
    }

    /// The algorithms of the keys.
    #[must_use]
    pub fn algorithms(&self) -> String {
        let mut names: Vec<&str> = self.0.iter().map(|key| key.algorithm.name()).collect();
        names.dedup();
        names.join(", ")
    }
}

/// The key with a SubjectPublicKeyInfo in DER. The first allowed algorithm of its kind is that of the key.
fn of_public_key(der: &[u8], allowed: &[Algorithm]) -> Result<Key, String> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|e| format!("a public key is invalid: {e}"))?;
    if let Ok(PublicKey::RSA(rsa)) = info.parsed()
        && rsa.key_size() < RSA_MIN_BITS
    {
        return Err(format!("an RSA key has {} bits, fewer than {RSA_MIN_BITS}", rsa.key_size()));
    }
    let candidates = if allowed.is_empty() { &Algorithm::PUBLIC[..] } else { allowed };
    let key = candidates.iter().find_map(|algorithm| Key::public(None, *algorithm, der));
    key.ok_or_else(|| "a public key fits no allowed algorithm".to_owned())
}

/// A key of a set; `None` if it cannot be used.
fn of_jwk(jwk: &Value, allowed: &[Algorithm], origin: Origin) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|word| word != "sig") {
        return None;
    }
    if jwk.get("key_ops").and_then(Value::as_array).is_some_and(|words| !words.iter().any(|word| word == "verify")) {
        return None;
    }
    let id = text("kid").map(str::to_owned);
    let kind = (text("kty")?, text("crv"));
    let of_kind = |algorithm: Algorithm| match kind {
        ("RSA", _) => matches!(algorithm.scheme(), Scheme::Rsa(_)),
        ("oct", _) => algorithm.is_secret() && origin == Origin::File,
        ("EC", Some("P-256")) => algorithm == Algorithm::ES256,
        ("EC", Some("P-384")) => algorithm == Algorithm::ES384,
        ("EC", Some("P-521")) => algorithm == Algorithm::ES512,
        ("OKP", Some("Ed25519")) => algorithm == Algorithm::EdDsa,
        _ => false,
    };
    let is_allowed = |algorithm: &Algorithm| allowed.is_empty() || allowed.contains(algorithm);
    let algorithm = match text("alg") {
        Some(name) => Algorithm::named(name).filter(is_allowed)?,
        // The first one that is allowed for keys of this kind.
        None if allowed.is_empty() => {
            Algorithm::PUBLIC.into_iter().chain(Algorithm::SECRET).find(|algorithm| of_kind(*algorithm))?
        }
        None => allowed.iter().copied().find(|algorithm| of_kind(*algorithm))?,
    };
    if !of_kind(algorithm) {
        return None;
    }
    match kind {
        ("RSA", _) => Key::rsa(id, algorithm, &bytes("n")?, &bytes("e")?),
        ("oct", _) => Key::secret(id, algorithm, &bytes("k")?),
        ("EC", _) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // An uncompressed point (SEC 1 §2.3.3), whose coordinates have equal lengths.
            (x.len() == y.len()).then(|| Key::public(id, algorithm, &[&[4][..], &x, &y].concat())).flatten()
        }
        _ => Key::public(id, algorithm, &bytes("x")?).filter(|_| bytes("x").is_some_and(|x| x.len() == 32)),
    }
}
