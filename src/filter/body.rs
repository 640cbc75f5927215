//! Filters of the body of a response.
//!
//! The response half of a filter adds them with [`Response::transform_body`](super::Response::transform_body) or
//! [`Response::replace_body`](super::Response::replace_body). The engines pass each part of the body through them.

use bytes::Bytes;

/// Transforms the body of one response, part by part.
pub trait BodyFilter: Send + Sync {
    /// Takes the next part and returns what is sent instead, which may be empty. `end` if nothing follows; the part may
    /// then be empty.
    ///
    /// # Errors
    /// If the body cannot be transformed. The response is then truncated.
    fn transform(&mut self, data: Bytes, end: bool) -> pingora::Result<Bytes>;
}

/// The body filters of one response, in the order in which they were added.
#[derive(Default)]
pub struct BodyFilters(Vec<Box<dyn BodyFilter>>);

impl BodyFilters {
    /// Adds a filter, which gets the body as the earlier ones have transformed it.
    pub fn push(&mut self, filter: Box<dyn BodyFilter>) {
        self.0.push(filter);
    }

    /// Whether the body stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Transforms the next part; `end` if nothing follows.
    ///
    /// # Errors
    /// If the body cannot be transformed.
    pub fn transform(&mut self, data: Bytes, end: bool) -> pingora::Result<Bytes> {
        self.0.iter_mut().try_fold(data, |data, filter| filter.transform(data, end))
    }
}

/// Sends another body, and drops the one that arrives.
pub(super) struct Replacement(pub(super) Bytes);

impl BodyFilter for Replacement {
    /// All of it replaces the first part, so that a client does not wait for the end of what is dropped.
    fn transform(&mut self, _data: Bytes, _end: bool) -> pingora::Result<Bytes> {
        Ok(std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Upper;

    impl BodyFilter for Upper {
        fn transform(&mut self, data: Bytes, end: bool) -> pingora::Result<Bytes> {
            let mut text = data.to_ascii_uppercase();
            text.extend_from_slice(if end { b"!" } else { b"" });
            Ok(text.into())
        }
    }

    #[test]
    fn later_body_filter_gets_what_the_earlier_one_returns() {
        let mut filters = BodyFilters::default();
        assert!(filters.is_empty());
        filters.push(Box::new(Replacement(Bytes::from_static(b"page"))));
        filters.push(Box::new(Upper));
        assert_eq!(filters.transform(Bytes::from_static(b"dropped"), false).unwrap(), "PAGE");
        assert_eq!(filters.transform(Bytes::new(), true).unwrap(), "!");
    }
}
