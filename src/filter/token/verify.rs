//! Verifies tokens in compact form (RFC 7515 §5.2, RFC 8725).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::claims::Claims;
use super::key::{Key, KeySet};

/// The longest token in bytes.
pub const TOKEN_MAX: usize = 16_384;
/// The most keys that are tried for a token without a key id.
const TRIED_MAX: usize = 10;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is longer than [`TOKEN_MAX`].
    TooLong,
    /// It is not a signed token.
    Malformed,
    /// It has an extension that must be understood.
    Critical,
    /// No key has its key id.
    UnknownKey,
    /// The key has another algorithm.
    Algorithm,
    /// The signature does not match.
    Signature,
    /// It has no time of expiry.
    NoExpiry,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// Another issuer has issued it.
    Issuer,
    /// It is for another audience.
    Audience,
}

impl Refusal {
    /// The reason for logs, without any part of the token.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::TooLong => "the token is longer than 16 KiB",
            Self::Malformed => "the token is malformed",
            Self::Critical => "the token has an unknown critical extension",
            Self::UnknownKey => "no key has the key id of the token",
            Self::Algorithm => "the key of the token has another algorithm",
            Self::Signature => "the signature of the token does not match",
            Self::NoExpiry => "the token has no time of expiry",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Issuer => "the token has another issuer",
            Self::Audience => "the token has another audience",
        }
    }
}

/// The header of a token. A field that occurs twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that the recipient must understand; l7lb knows none.
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    b64: Option<serde::de::IgnoredAny>,
}

/// Verifies the signature of a token, and returns its claims.
///
/// # Errors
/// Why the token is not accepted.
pub fn verify(token: &str, keys: &KeySet) -> Result<Claims, Refusal> {
    if token.len() > TOKEN_MAX {
        return Err(Refusal::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed)?;
    // It accepts neither padding nor characters outside of the alphabet, such as a further dot.
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed)?;
    if header.crit.is_some() || header.b64.is_some() {
        return Err(Refusal::Critical);
    }
    let signature = decode(signature)?;
    let mut candidates = candidates(keys, &header)?;
    if !candidates.any(|key| key.verifies(message.as_bytes(), &signature)) {
        return Err(Refusal::Signature);
    }
    serde_json::from_slice(&decode(payload)?).map(Claims).map_err(|_| Refusal::Malformed)
}

/// The keys that may have signed a token: those with its key id, if it has one, and its algorithm.
fn candidates<'a>(keys: &'a KeySet, header: &'a Header) -> Result<impl Iterator<Item = &'a Key>, Refusal> {
    let has_id = |key: &&Key| match (&header.kid, &key.id) {
        (Some(wanted), Some(id)) => wanted == id,
        // Keys in PEM and secrets have no id.
        _ => true,
    };
    let has_algorithm = |key: &&Key| key.algorithm.name() == header.alg;
    if !keys.0.iter().any(|key| has_id(&key)) {
        return Err(Refusal::UnknownKey);
    }
    let mut matching = keys.0.iter().filter(has_id).filter(has_algorithm).take(TRIED_MAX).peekable();
    if matching.peek().is_none() { Err(Refusal::Algorithm) } else { Ok(matching) }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
