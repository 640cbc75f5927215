//! Metadata of an entry in the form that a store keeps.

use super::entries::{self, Updated};
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;
use pingora_http::ResponseHeader;
use std::time::SystemTime;

/// Facts of a `CacheMeta`, which itself can neither be cloned nor built from parts.
#[derive(Clone, Debug)]
pub(super) struct StoredMeta {
    pub(super) fresh_until: SystemTime,
    pub(super) created: SystemTime,
    pub(super) updated: SystemTime,
    pub(super) epoch_override: Option<SystemTime>,
    pub(super) stale_while_revalidate: u32,
    pub(super) stale_if_error: u32,
    pub(super) variance: Option<HashBinary>,
    pub(super) header: ResponseHeader,
}

impl StoredMeta {
    pub(super) fn new(meta: &CacheMeta) -> Self {
        Self {
            fresh_until: meta.fresh_until(),
            created: meta.created(),
            updated: entries::updated(meta),
            epoch_override: meta.epoch_override(),
            stale_while_revalidate: meta.stale_while_revalidate_sec(),
            stale_if_error: meta.stale_if_error_sec(),
            variance: meta.variance(),
            header: super::header::compact(meta.response_header()),
        }
    }

    /// A copy for one hit.
    pub(super) fn to_meta(&self) -> CacheMeta {
        self.build(self.header.clone())
    }

    pub(super) fn into_meta(mut self) -> CacheMeta {
        let parts = http::Response::new(()).into_parts().0;
        let header = std::mem::replace(&mut self.header, parts.into());
        self.build(header)
    }

    fn build(&self, header: ResponseHeader) -> CacheMeta {
        let mut meta =
            CacheMeta::new(self.fresh_until, self.created, self.stale_while_revalidate, self.stale_if_error, header);
        if let Some(epoch) = self.epoch_override {
            meta.set_epoch_override(epoch);
        }
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        if self.updated != self.created {
            // Without an override, the epoch is the time of the last validation.
            if self.epoch_override.is_none() {
                meta.set_epoch_override(self.updated);
            }
            meta.extensions_mut().insert(Updated(self.updated));
        }
        meta
    }

    /// Ends freshness at `time`, as `CacheMeta::expire_at` does.
    pub(super) fn expire_at(&mut self, time: SystemTime) {
        self.fresh_until = self.fresh_until.min(time);
    }

    /// Memory that the header uses, approximately.
    pub(super) fn footprint(&self) -> u64 {
        let fields = self.header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 96);
        fields.sum::<usize>() as u64 + 256
    }

    /// `Content-Length`, if it has one valid value.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header.headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }
}
