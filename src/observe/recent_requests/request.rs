//! A recorded request.

use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderName, HeaderValue};

/// The recorded part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey<'a> {
    /// When it arrived.
    pub at: Instant,
    /// The client address: the peer, or the client named by a trusted proxy.
    pub client: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// The requested host.
    pub host: Option<&'a str>,
    /// Its normalised path.
    pub path: &'a str,
    /// Its Content-Length in bytes.
    pub content_length: Option<u64>,
    /// The cookie id of the pool in its affinity cookie.
    pub bound: Option<u64>,
    /// Whether its host did not belong to its TLS connection.
    pub misdirected: bool,
    /// Whether its listener redirects to HTTPS.
    pub https_required: bool,
}

/// A recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest<'a> {
    /// Its key.
    pub key: RequestKey<'a>,
    /// Its recorded headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether its path was truncated.
    pub path_truncated: bool,
}
