//! What the client requested, if filters have rewritten it for backends.

use std::borrow::Cow;

use http::{HeaderValue, Uri, header};
use pingora_http::RequestHeader;

use crate::decision::form;

/// What the client requested, if filters have rewritten it for backends.
#[derive(Debug)]
pub(super) struct RequestedTarget {
    /// The URI.
    pub(super) uri: Uri,
    /// The field Host.
    host: Option<HeaderValue>,
}

impl RequestedTarget {
    /// That of a request that is not rewritten yet.
    pub(super) fn of(request: &RequestHeader) -> Self {
        Self { uri: request.uri.clone(), host: form::host_field(&request.headers).cloned() }
    }

    /// The host, as in [`host`](crate::decision::host).
    pub(super) fn host(&self) -> Option<&str> {
        let authority = self.uri.authority().map(http::uri::Authority::as_str);
        authority.or_else(|| self.host.as_ref()?.to_str().ok())
    }
}

/// The request with the target and Host of the client, which the cache knows it by.
pub(super) fn as_requested<'a>(
    request: &'a RequestHeader,
    requested: Option<&RequestedTarget>,
) -> Cow<'a, RequestHeader> {
    let Some(requested) = requested else { return Cow::Borrowed(request) };
    let mut request = request.clone();
    request.set_uri(requested.uri.clone());
    if let Some(host) = &requested.host {
        // The name and the value are legal.
        request.insert_header(header::HOST, host).ok();
    }
    Cow::Owned(request)
}
