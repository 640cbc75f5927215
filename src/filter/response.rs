//! What the response half of a filter sees and changes: the header of a final response, and its body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora_http::RequestHeader;

use super::body::{BodyFilter, BodyFilters, Replacement};
use super::request::Facts;
use crate::base::cause::Cause;

/// Fields about the bytes of the body, which do not hold for other bytes (RFC 9530; Content-MD5 and Digest precede it).
const OF_THE_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// Fields about the representation that a replaced body was.
const OF_THE_REPRESENTATION: [HeaderName; 7] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::CONTENT_LOCATION,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// Who responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A backend, perhaps earlier: the response may come from the cache.
    Backend,
    /// l7lb rejects the request for this cause.
    Rejection(Cause),
    /// A filter responds, with this cause.
    Filter(Cause),
}

impl Source {
    /// Whether a backend made the response, now or when it was stored.
    #[must_use]
    pub const fn is_backend(self) -> bool {
        matches!(self, Self::Backend)
    }

    /// The cause if l7lb responds itself.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Self::Backend => None,
            Self::Rejection(cause) | Self::Filter(cause) => Some(cause),
        }
    }
}

/// The header of a response as a filter sees it.
pub struct Response<'a> {
    /// The status code.
    pub status: &'a mut StatusCode,
    /// The fields.
    pub headers: &'a mut HeaderMap,
    /// What transforms the body.
    pub body: &'a mut BodyFilters,
    /// The request. Its target and Host are those for backends; [`Facts`] and [`Response::path_and_query`] have those of
    /// the client.
    pub request: &'a RequestHeader,
    /// Header fields in which Accept and Accept-Encoding are those of the client.
    pub accepted: &'a HeaderMap,
    /// The path and query that the client requested.
    pub path_and_query: &'a str,
    /// The facts about the request.
    pub facts: &'a Facts<'a>,
    /// Who responds.
    pub source: Source,
    /// The backend that responded; empty if l7lb responds itself.
    pub upstream: &'a str,
    /// The pool of the request; empty if it has none.
    pub pool: &'a str,
}

impl Response<'_> {
    /// Whether the response may have a body: its status code has one, and it is not a part of a representation. The
    /// response to HEAD counts, because it has the fields of the response to GET.
    #[must_use]
    pub fn has_whole_body(&self) -> bool {
        let without = matches!(
            *self.status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
        !self.status.is_informational() && !without && !self.headers.contains_key(header::CONTENT_RANGE)
    }

    /// The length of the body in bytes, if it is known.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Transforms the body, whose length is then unknown. The caller ensures [`Self::has_whole_body`].
    pub fn transform_body(&mut self, filter: Box<dyn BodyFilter>) {
        for name in OF_THE_BYTES {
            self.headers.remove(name);
        }
        self.body.push(filter);
    }

    /// Replaces the body, and removes the fields about the old one. The caller ensures [`Self::has_whole_body`].
    pub fn replace_body(&mut self, body: Bytes) {
        for name in OF_THE_REPRESENTATION {
            self.headers.remove(name);
        }
        let length = body.len();
        self.transform_body(Box::new(Replacement(body)));
        self.headers.insert(header::CONTENT_LENGTH, length.into());
    }
}
