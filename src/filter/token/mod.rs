//! Signed tokens: JSON Web Tokens (RFC 7519) in compact form (RFC 7515), without I/O except in [`remote`].
//!
//! A key has one algorithm, which the configuration or the key itself determines. The algorithm that a token names only
//! selects among the keys, so that a token can neither be unsigned (`alg: none`) nor use a public key as a secret.
//!
//! The signatures are those of aws-lc-rs, the provider of TLS. `jsonwebtoken` is not used: it parses a key again for each
//! token, and takes the algorithm and the key separately.
//!
//! - [`algorithm`], [`key`]: keys from PEM, JWK sets (RFC 7517) and secrets. [`remote`]: JWK sets of a URL.
//! - [`mod@verify`]: verifies a token. [`claims`]: rules about its claims.

pub mod algorithm;
pub mod claims;
pub mod key;
pub mod remote;
pub mod verify;

pub use algorithm::Algorithm;
pub use claims::{ClaimRules, Claims};
pub use key::KeySet;
pub use remote::Remote;
pub use verify::{Refusal, TOKEN_MAX, verify};
