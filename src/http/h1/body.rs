//! How the end of a request body is determined (RFC 9112 §6.3).

/// How the end of a request body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is no body.
    None,
    /// This many bytes; may be zero.
    Length(u64),
    /// [`super::Chunked`] determines it.
    Chunked,
}
