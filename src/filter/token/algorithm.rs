//! The algorithms of signatures (RFC 7518 §3, RFC 8037).

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// An algorithm. There is none for unsigned tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What verifies the signatures of an algorithm.
pub(super) enum Scheme {
    /// A secret; the signature is a tag.
    Secret(hmac::Algorithm),
    /// A public RSA key.
    Rsa(&'static RsaParameters),
    /// Another public key.
    Public(&'static dyn VerificationAlgorithm),
}

impl Algorithm {
    /// Those of public keys, in the order in which a key without an algorithm is tried.
    pub(super) const PUBLIC: [Self; 10] = [
        Self::RS256,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDsa,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
    ];

    /// Those of secrets.
    pub(super) const SECRET: [Self; 3] = [Self::HS256, Self::HS384, Self::HS512];

    /// The name in tokens and keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with this name in a key. `Ed25519` is the name of RFC 9864.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = Self::PUBLIC.into_iter().chain(Self::SECRET);
        if name == "Ed25519" { Some(Self::EdDsa) } else { all.into_iter().find(|algorithm| algorithm.name() == name) }
    }

    /// Whether its keys are secrets.
    #[must_use]
    pub fn is_secret(self) -> bool {
        Self::SECRET.contains(&self)
    }

    pub(super) fn scheme(self) -> Scheme {
        match self {
            Self::HS256 => Scheme::Secret(hmac::HMAC_SHA256),
            Self::HS384 => Scheme::Secret(hmac::HMAC_SHA384),
            Self::HS512 => Scheme::Secret(hmac::HMAC_SHA512),
            Self::RS256 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Scheme::Public(&ECDSA_P256_SHA256_FIXED),
            Self::ES384 => Scheme::Public(&ECDSA_P384_SHA384_FIXED),
            Self::ES512 => Scheme::Public(&ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Scheme::Public(&ED25519),
        }
    }

    /// The shortest secret in bytes: that of the hash (RFC 7518 §3.2).
    #[must_use]
    pub fn secret_min(self) -> usize {
        match self {
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 32,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
