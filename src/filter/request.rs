//! What the request half of a filter sees: the request of the client, facts about it, and the changes so far.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pingora_http::RequestHeader;

use super::changes::{Changes, FieldChange};
use crate::tls::ClientIdentity;

/// Facts about a request that its header does not have.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address: the peer, or the client named by a trusted proxy.
    pub client: IpAddr,
    /// The request id.
    pub request_id: &'a str,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// The requested host, with its port if it has one; empty if there is none.
    pub host: &'a str,
    /// The name of the route; empty if none matches.
    pub route: &'a str,
    /// The server name of the TLS connection.
    pub server_name: Option<&'a str>,
    /// The verified client certificate.
    pub client_certificate: Option<&'a ClientIdentity>,
    /// Whether the peer is a trusted proxy, whose forwarding fields are used.
    pub is_from_trusted_proxy: bool,
    /// Whether the request is only an example: nothing is counted.
    pub is_example: bool,
}

/// A request as a filter sees it.
pub struct Request<'a> {
    /// The header as the client sent it, with its normalised path.
    pub header: &'a RequestHeader,
    /// The facts.
    pub facts: &'a Facts<'a>,
    /// The changes for backends.
    pub changes: &'a mut Changes,
}

impl Request<'_> {
    /// The URI of the client.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.header.uri
    }

    /// The path for backends, after earlier filters.
    #[must_use]
    pub fn path(&self) -> &str {
        self.changes.target.as_ref().map_or_else(|| self.header.uri.path(), |target| target.path())
    }

    /// The query for backends, after earlier filters.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.changes.target.as_ref().map_or_else(|| self.header.uri.query(), |target| target.query())
    }

    /// Whether backends get a field of this name, after earlier filters.
    #[must_use]
    pub fn has_field(&self, name: &HeaderName) -> bool {
        let change = self.changes.fields.iter().rev().find(|change| change.name() == name);
        change
            .map_or_else(|| self.header.headers.contains_key(name), |change| !matches!(change, FieldChange::Remove(_)))
    }

    /// The fields that the client sent.
    #[must_use]
    pub fn fields(&self) -> &HeaderMap {
        &self.header.headers
    }

    /// Replaces a field for backends.
    pub fn set_field(&mut self, name: HeaderName, value: HeaderValue) {
        self.changes.fields.push(FieldChange::Set(name, value));
    }

    /// Adds a field for backends.
    pub fn add_field(&mut self, name: HeaderName, value: HeaderValue) {
        self.changes.fields.push(FieldChange::Add(name, value));
    }

    /// Removes all fields of this name for backends.
    pub fn remove_field(&mut self, name: HeaderName) {
        self.changes.fields.push(FieldChange::Remove(name));
    }
}
