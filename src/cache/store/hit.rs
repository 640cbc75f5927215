//! The reader that both stores give to lookups: the position in the body, and what a store adds to it.

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::CacheKey;
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::storage::{HandleHit, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_error::Result;

use super::entries::check_seek;

/// Where a reader finds the body: an entry, or a write in progress.
pub(super) trait Source: Send + Sync + 'static {
    /// The next bytes from `start` on, at most to `end`. `None` if there are none.
    fn read(&mut self, start: u64, end: u64) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Length of the body if it is complete.
    fn complete_length(&self) -> Option<u64>;

    /// Bytes that the entry counts for in its store; 0 for a write in progress.
    fn weight(&self) -> u64;

    /// Identity of the entry or write.
    fn id(&self) -> u64;

    /// Undoes the count of the hit.
    fn uncount(&self);
}

/// Reader of an entry, or of a write in progress.
pub(super) struct Hit<S> {
    source: S,
    position: u64,
    /// Exclusive.
    end: u64,
}

impl<S: Source> Hit<S> {
    /// A reader of the whole body.
    pub(super) fn boxed(source: S) -> Box<Self> {
        Box::new(Self { source, position: 0, end: u64::MAX })
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }
}

#[async_trait]
impl<S: Source> HandleHit for Hit<S> {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let data = self.source.read(self.position, self.end).await?;
        self.position += data.as_ref().map_or(0, |data| data.len() as u64);
        Ok(data)
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    /// `end` is exclusive. In a write in progress, a range beyond its end is empty.
    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        check_seek(start as u64, self.source.complete_length())?;
        (self.position, self.end) = (start as u64, end.map_or(u64::MAX, |end| end as u64));
        Ok(())
    }

    fn get_eviction_weight(&self) -> usize {
        self.source.weight() as usize
    }

    fn entry_id(&self) -> Option<CacheEntryId> {
        Some(CacheEntryId::new(self.source.id()))
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
