//! The changes to a request that filters record. They apply when the request is forwarded.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// The prefixes that proxies have removed from the path.
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

use super::limits::Quota;
use super::mirror::Mirror;
use super::token::Claims;
use crate::base::timeouts::TimeoutsConfig;

/// A change to the header fields of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldChange {
    /// Replaces all fields of this name.
    Set(HeaderName, HeaderValue),
    /// Adds a field.
    Add(HeaderName, HeaderValue),
    /// Removes all fields of this name.
    Remove(HeaderName),
}

impl FieldChange {
    /// The name of the field.
    #[must_use]
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
        }
    }

    /// Applies the change.
    pub fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => drop(headers.insert(name, value)),
            Self::Add(name, value) => drop(headers.append(name, value)),
            Self::Remove(name) => drop(headers.remove(name)),
        }
    }
}

/// What filters change in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes to header fields, in order.
    pub fields: Vec<FieldChange>,
    /// The path and query for backends, if they differ.
    pub target: Option<PathAndQuery>,
    /// The Host for backends, if it differs.
    pub host: Option<Authority>,
    /// The prefixes that were removed from the path, joined, for `X-Forwarded-Prefix`.
    pub removed_prefix: Option<HeaderValue>,
    /// The claims of the verified token, for later filters.
    pub claims: Option<Arc<Claims>>,
    /// What is left of the limits that apply to the request.
    pub quotas: Vec<Quota>,
    /// The largest body in bytes that is received before a backend is chosen, if it is.
    pub buffer_size: Option<u64>,
    /// The largest body in bytes, if it is not that of the route.
    pub body_size: Option<u64>,
    /// The timeouts that are not those of the route.
    pub timeouts: TimeoutsConfig,
    /// The filters that send a copy of the request.
    pub mirrors: Vec<Arc<Mirror>>,
}

impl Changes {
    /// Whether the request line or Host changes.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        self.target.is_some() || self.host.is_some() || self.removed_prefix.is_some()
    }

    /// The changes that also apply to a copy of the request, whose header fields have changed.
    #[must_use]
    pub fn for_copy(&self) -> Self {
        let (target, host, removed_prefix) = (self.target.clone(), self.host.clone(), self.removed_prefix.clone());
        Self { target, host, removed_prefix, ..Self::default() }
    }

    /// Applies the changes to header fields, and forgets them.
    pub fn apply_fields(&mut self, headers: &mut HeaderMap) {
        std::mem::take(&mut self.fields).into_iter().for_each(|change| change.apply(headers));
    }

    /// Applies the changes to the URI, Host and `X-Forwarded-Prefix`.
    pub fn apply_target(&self, uri: &mut Uri, headers: &mut HeaderMap) {
        *uri = self.uri(uri);
        if let Some(host) = self.host.as_ref().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            headers.insert(header::HOST, host);
        }
        if let Some(prefix) = &self.removed_prefix {
            headers.insert(X_FORWARDED_PREFIX, prefix.clone());
        }
    }

    /// The URI for backends instead of `uri`, which is that of the client.
    #[must_use]
    pub fn uri(&self, uri: &Uri) -> Uri {
        let mut parts = uri.clone().into_parts();
        if let Some(target) = &self.target {
            parts.path_and_query = Some(target.clone());
        }
        if let (Some(host), Some(_)) = (&self.host, &parts.authority) {
            parts.authority = Some(host.clone());
        }
        // The parts come from valid URIs of the same form.
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_uri_keeps_its_form() {
        let changes = Changes {
            target: Some(PathAndQuery::from_static("/x?y")),
            host: Some(Authority::from_static("inner")),
            ..Changes::default()
        };
        assert_eq!(changes.uri(&Uri::from_static("/a")), Uri::from_static("/x?y"));
        assert_eq!(changes.uri(&Uri::from_static("https://outer/a")), Uri::from_static("https://inner/x?y"));
    }

    #[test]
    fn fields_change_in_order() {
        let (name, one, two) = (HeaderName::from_static("x-a"), HeaderValue::from(1), HeaderValue::from(2));
        let mut changes = Changes {
            fields: vec![
                FieldChange::Add(name.clone(), one.clone()),
                FieldChange::Set(name.clone(), two.clone()),
                FieldChange::Add(name.clone(), one.clone()),
            ],
            ..Changes::default()
        };
        let mut headers = HeaderMap::new();
        changes.apply_fields(&mut headers);
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), [&two, &one]);
        assert_eq!(changes, Changes::default());
        FieldChange::Remove(name.clone()).apply(&mut headers);
        assert!(headers.is_empty());
    }
}
