//! Helpers for tests of both stores.

use bytes::Bytes;
use pingora_cache::storage::{HitHandler, MissFinishType, Storage};
use pingora_cache::trace::{Span, SpanHandle};
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The tests that both stores pass: calls a macro with their names, by module.
macro_rules! of_both_stores {
    ($cases:ident) => {
        $cases!(
            cases:
            written_body_is_read_back,
            readers_follow_a_write,
            tag_finds_exactly_that_write,
            waiting_reader_wakes_when_bytes_arrive,
            truncated_write_never_looks_complete,
            reader_of_a_replaced_entry_gets_the_old_body,
            seek_selects_a_range,
            hash_collision_is_a_miss,
            variants_are_separate_entries,
            too_large_body_without_readers_ends_the_write,
            purge_removes_the_entry_and_stops_a_write,
            expired_entry_keeps_its_body,
            update_meta_changes_the_header_of_that_entry_only,
        );

        $cases!(
            unpublished:
            unpublished_write_is_complete_for_its_readers_and_never_an_entry,
            unpublished_write_waits_for_the_slowest_reader,
            unpublished_write_goes_on_when_the_slowest_reader_leaves,
            unpublished_write_ends_when_its_last_reader_leaves,
            limit_of_a_write_replaces_a_larger_one_of_the_store,
        );
    };
}
pub(super) use of_both_stores;

pub(super) fn span() -> SpanHandle {
    Span::inactive().handle()
}

pub(super) fn key(text: &str) -> CacheKey {
    CacheKey::new(text, "")
}

/// The moment of the fixed facts of `meta`.
pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)
}

pub(super) fn meta() -> CacheMeta {
    let mut header = ResponseHeader::build(200, None).unwrap();
    for (name, value) in
        [("Content-Type", "text/plain"), ("ETag", "\"1\""), ("X-Twice", "a"), ("x-twice", "b"), ("Date", "today")]
    {
        header.append_header(name, value).unwrap();
    }
    let mut meta = CacheMeta::new(epoch() + Duration::from_secs(60), epoch(), 5, 7, header);
    meta.set_epoch_override(epoch() - Duration::from_secs(3));
    meta.set_variance([9; 16]);
    meta
}

/// The longest body.
static BODY: LazyLock<Bytes> =
    LazyLock::new(|| (0..2 << 20_u32).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect::<Vec<_>>().into());

/// A body in which every position differs from its neighbours.
pub(super) fn body(length: usize) -> Bytes {
    BODY.slice(..length)
}

pub(super) type Store = &'static (dyn Storage + Sync);

pub(super) async fn store(store: Store, key: &CacheKey, body: Bytes) -> Result<MissFinishType> {
    let mut miss = store.get_miss_handler(key, &meta(), &span()).await?;
    if !body.is_empty() {
        miss.write_body(body, true).await?;
    }
    miss.finish().await
}

pub(super) async fn lookup(store: Store, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
    store.lookup(key, &span()).await.unwrap()
}

/// The rest of the body, or the error after it with what was read before.
pub(super) async fn rest(hit: &mut HitHandler) -> (Vec<u8>, Result<()>) {
    let mut body = Vec::new();
    loop {
        match hit.read_body().await {
            Ok(Some(data)) => body.extend_from_slice(&data),
            Ok(None) => return (body, Ok(())),
            Err(error) => return (body, Err(error)),
        }
    }
}

pub(super) async fn read(store: Store, key: &CacheKey) -> Option<Vec<u8>> {
    let (_, mut hit) = lookup(store, key).await?;
    let (body, end) = rest(&mut hit).await;
    end.unwrap();
    Some(body)
}

/// Whether the future is still waiting.
pub(super) async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}

/// Repeatable random numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Asserts that the facts of `meta()` were restored.
pub(super) fn assert_restored(restored: &CacheMeta) {
    let original = meta();
    assert_eq!(restored.fresh_until(), original.fresh_until());
    assert_eq!(restored.created(), original.created());
    assert_eq!(super::updated(restored), original.updated());
    assert_eq!(restored.epoch_override(), original.epoch_override());
    assert_eq!(restored.stale_while_revalidate_sec(), 5);
    assert_eq!(restored.stale_if_error_sec(), 7);
    assert_eq!(restored.variance(), Some([9; 16]));
    let wire = |meta: &CacheMeta| {
        let mut wire = Vec::new();
        meta.response_header().header_to_h1_wire(&mut wire);
        String::from_utf8(wire).unwrap()
    };
    assert_eq!(wire(restored), wire(&original));
    assert_eq!(restored.response_header().status, 200);
}
/// Cases that both stores must pass, in a store of at least 16 MiB with objects of at most 1 MiB.
pub(super) mod cases {
    use super::super::{INCOMPLETE, TOO_LARGE, complete_length};
    use super::*;
    use pingora_cache::eviction::{CacheEntryId, CacheEntryKey};
    use pingora_cache::storage::{PurgeOutcome, PurgeTarget, PurgeType};

    pub(in super::super) async fn written_body_is_read_back(store: Store) {
        for length in [0, 1, 1024, 65_535, 65_536, 65_537, 200_000, 1 << 20] {
            let key = key(&format!("length {length}"));
            super::store(store, &key, body(length)).await.unwrap();
            let (meta, mut hit) = lookup(store, &key).await.unwrap();
            assert_restored(&meta);
            assert_eq!(complete_length(&hit), Some(length as u64));
            let (read, end) = rest(&mut hit).await;
            assert!(read == body(length) && end.is_ok(), "{length}");
        }
        assert!(lookup(store, &key("absent")).await.is_none());
    }

    pub(in super::super) async fn readers_follow_a_write(store: Store) {
        let key = key("follow");
        let whole = body(300_000);
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        let mut early = lookup(store, &key).await.unwrap().1;
        assert_eq!(complete_length(&early), None);
        assert!(waits(&mut early.read_body()).await);
        miss.write_body(whole.slice(..100_000), false).await.unwrap();
        let tag = miss.streaming_write_tag().map(<[u8]>::to_vec);
        let second = store.lookup_streaming_write(&key, tag.as_deref(), &span()).await.unwrap();
        let (found, mut second) = second.unwrap();
        assert_restored(&found);
        let mut start = Vec::new();
        while start.len() < 100_000 {
            start.extend_from_slice(&second.read_body().await.unwrap().unwrap());
        }
        assert!(waits(&mut second.read_body()).await);
        miss.write_body(whole.slice(100_000..), true).await.unwrap();
        let mut late = lookup(store, &key).await.unwrap().1;
        miss.finish().await.unwrap();
        start.extend(rest(&mut second).await.0);
        assert!(start == whole, "second reader");
        assert!(rest(&mut early).await.0 == whole && rest(&mut late).await.0 == whole);
        assert_eq!(complete_length(&late), Some(300_000));
        assert!(read(store, &key).await.unwrap() == whole);
    }

    pub(in super::super) async fn tag_finds_exactly_that_write(store: Store) {
        let key = key("tags");
        let mut writes = Vec::new();
        for length in [100, 200] {
            let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
            miss.write_body(body(length), true).await.unwrap();
            writes.push((miss.streaming_write_tag().map(<[u8]>::to_vec), miss, length));
        }
        let key = &key;
        let find = |tag: Option<Vec<u8>>| async move {
            store.lookup_streaming_write(key, tag.as_deref(), &span()).await.unwrap().map(|found| found.1)
        };
        let find = &find;
        assert!(find(Some(vec![0; 8])).await.is_none() && find(Some(vec![0; 3])).await.is_none());
        let mut tags = Vec::new();
        for (tag, miss, length) in writes {
            let mut hit = find(tag.clone()).await.unwrap();
            miss.finish().await.unwrap();
            assert_eq!(rest(&mut hit).await.0.len(), length);
            assert!(find(tag.clone()).await.is_some(), "it finds the entry that the write became");
            tags.push(tag);
        }
        assert!(find(tags.remove(0)).await.is_none(), "the second write replaced the first");
        assert!(find(None).await.is_some(), "without a tag, it is an ordinary lookup");
    }

    pub(in super::super) async fn waiting_reader_wakes_when_bytes_arrive(store: Store) {
        let key = key("wake");
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        let mut hit = lookup(store, &key).await.unwrap().1;
        let reader = tokio::spawn(async move { rest(&mut hit).await.0 });
        tokio::task::yield_now().await;
        for start in (0..100_000).step_by(1000) {
            miss.write_body(body(100_000).slice(start..start + 1000), false).await.unwrap();
            tokio::task::yield_now().await;
        }
        miss.finish().await.unwrap();
        assert!(reader.await.unwrap() == body(100_000));
    }

    pub(in super::super) async fn truncated_write_never_looks_complete(store: Store) {
        let key = key("truncated");
        super::store(store, &key, body(10)).await.unwrap();
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        miss.write_body(body(5000), true).await.unwrap();
        let tag = miss.streaming_write_tag().map(<[u8]>::to_vec);
        let mut hit = store.lookup_streaming_write(&key, tag.as_deref(), &span()).await.unwrap().unwrap().1;
        drop(miss);
        let (read_before, end) = rest(&mut hit).await;
        assert_eq!(read_before.len(), 5000, "bytes before the failure arrive");
        assert_eq!(end.unwrap_err().etype, INCOMPLETE);
        assert_eq!(complete_length(&hit), None);
        assert!(read(store, &key).await.unwrap() == body(10), "the older entry is still there");
        let fresh = super::key("truncated, no older entry");
        let mut miss = store.get_miss_handler(&fresh, &meta(), &span()).await.unwrap();
        miss.write_body(body(5000), false).await.unwrap();
        drop(miss);
        assert!(lookup(store, &fresh).await.is_none());
    }

    pub(in super::super) async fn reader_of_a_replaced_entry_gets_the_old_body(store: Store) {
        let key = key("replaced");
        super::store(store, &key, body(200_000)).await.unwrap();
        let mut old = lookup(store, &key).await.unwrap().1;
        let start = old.read_body().await.unwrap().unwrap();
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        miss.write_body(body(100), false).await.unwrap();
        assert!(read(store, &key).await.unwrap() == body(200_000), "the older entry until the write finishes");
        miss.finish().await.unwrap();
        assert!(read(store, &key).await.unwrap() == body(100));
        let read = [start.to_vec(), rest(&mut old).await.0].concat();
        assert!(read == body(200_000));
    }

    pub(in super::super) async fn seek_selects_a_range(store: Store) {
        let whole = body(200_000);
        let key = key("seek");
        super::store(store, &key, whole.clone()).await.unwrap();
        let mut complete = lookup(store, &key).await.unwrap().1;
        assert!(complete.can_seek());
        let writing_key = super::key("seek in a write");
        let mut miss = store.get_miss_handler(&writing_key, &meta(), &span()).await.unwrap();
        miss.write_body(whole.slice(..130_000), false).await.unwrap();
        let mut writing = lookup(store, &writing_key).await.unwrap().1;
        miss.write_body(whole.slice(130_000..), true).await.unwrap();
        let finish = miss.finish();
        for (start, end) in
            [(0, None), (1, Some(2)), (65_535, Some(65_537)), (70_000, Some(199_999)), (199_999, Some(900_000))]
        {
            complete.seek(start, end).unwrap();
            let expected = &whole[start..end.unwrap_or(200_000).min(200_000)];
            assert!(rest(&mut complete).await.0 == expected, "{start}..{end:?}");
            writing.seek(start, Some(end.unwrap_or(200_000).min(200_000))).unwrap();
            assert!(rest(&mut writing).await.0 == expected, "{start}..{end:?} in a write");
        }
        assert!(complete.seek(200_000, None).is_err());
        finish.await.unwrap();
        assert!(writing.seek(200_001, None).is_err());
    }

    pub(in super::super) async fn hash_collision_is_a_miss(store: Store) {
        let [mut one, mut two] = [key("one"), key("two")];
        one.set_primary_bin_override([7; 16]);
        two.set_primary_bin_override([7; 16]);
        super::store(store, &one, body(1)).await.unwrap();
        assert!(lookup(store, &two).await.is_none());
        let writing = store.get_miss_handler(&two, &meta(), &span()).await.unwrap();
        assert_eq!(read(store, &one).await.unwrap().len(), 1);
        writing.finish().await.unwrap();
        assert!(lookup(store, &one).await.is_none() && lookup(store, &two).await.is_some());
    }

    pub(in super::super) async fn variants_are_separate_entries(store: Store) {
        let keys = [None, Some([1; 16]), Some([2; 16])].map(|variance| {
            let mut key = key("variants");
            variance.into_iter().for_each(|variance| key.set_variance_key(variance));
            key
        });
        for (length, key) in keys.iter().enumerate() {
            super::store(store, key, body(length)).await.unwrap();
        }
        for (length, key) in keys.iter().enumerate() {
            assert_eq!(read(store, key).await.unwrap().len(), length);
        }
        let compact = keys[1].to_compact();
        store.purge(PurgeTarget::Active(&compact), PurgeType::Invalidation, &span()).await.unwrap();
        assert!(lookup(store, &keys[1]).await.is_none() && lookup(store, &keys[2]).await.is_some());
    }

    pub(in super::super) async fn too_large_body_without_readers_ends_the_write(store: Store) {
        let key = key("large");
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        miss.write_body(body(1 << 20), false).await.unwrap();
        assert_eq!(miss.write_body(body(1), false).await.unwrap_err().etype, TOO_LARGE);
        assert!(lookup(store, &key).await.is_none());
        assert!(miss.finish().await.is_err());
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        miss.write_body(body((1 << 20) - 1), false).await.unwrap();
        assert!(miss.write_body(body(2), false).await.is_err());
        assert!(miss.write_body(body(1), false).await.is_err(), "it would fit, but the body would have a hole");
        drop(miss);
        let mut known = meta();
        known.response_header_mut().insert_header("Content-Length", "1048577").unwrap();
        let error = store.get_miss_handler(&key, &known, &span()).await.err().unwrap();
        assert_eq!(error.etype, TOO_LARGE);
    }

    pub(in super::super) async fn purge_removes_the_entry_and_stops_a_write(store: Store) {
        let key = key("purge");
        let compact = key.to_compact();
        let active = PurgeTarget::Active(&compact);
        let purge = |target| async move { store.purge(target, PurgeType::Invalidation, &span()).await.unwrap() };
        assert_eq!(purge(active).await, PurgeOutcome::NotFound);
        super::store(store, &key, body(10)).await.unwrap();
        let id = lookup(store, &key).await.unwrap().1.entry_id().unwrap();
        let other = CacheEntryKey::identified(compact.clone(), CacheEntryId::new(id.get() ^ 1));
        let outcome = store.purge(PurgeTarget::Exact(&other), PurgeType::Eviction, &span()).await.unwrap();
        assert_eq!(outcome, PurgeOutcome::NotFound);
        let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
        miss.write_body(body(20), false).await.unwrap();
        let tag = miss.streaming_write_tag().map(<[u8]>::to_vec);
        let mut hit = store.lookup_streaming_write(&key, tag.as_deref(), &span()).await.unwrap().unwrap().1;
        assert_eq!(purge(active).await, PurgeOutcome::Purged(Some(id)));
        assert!(lookup(store, &key).await.is_none());
        assert!(miss.finish().await.is_err());
        assert_eq!(rest(&mut hit).await.0.len(), 20, "its readers are not disturbed");
        assert!(lookup(store, &key).await.is_none());
    }

    pub(in super::super) async fn expired_entry_keeps_its_body(store: Store) {
        let key = key("expire");
        let mut fresh = meta();
        let now = SystemTime::now();
        fresh.update_freshness(now + Duration::from_secs(1000), 5, 7);
        store.get_miss_handler(&key, &fresh, &span()).await.unwrap().finish().await.unwrap();
        let compact = key.to_compact();
        assert!(lookup(store, &key).await.unwrap().0.is_fresh(now));
        let outcome = store.expire(PurgeTarget::Active(&compact), &span()).await.unwrap();
        assert_eq!(outcome, PurgeOutcome::Expired);
        let (meta, hit) = lookup(store, &key).await.unwrap();
        assert!(!meta.is_fresh(SystemTime::now() + Duration::from_secs(1)));
        assert_eq!((meta.stale_if_error_sec(), complete_length(&hit)), (7, Some(0)));
        assert_eq!(super::super::updated(&meta), fresh.updated());
        let absent = super::key("absent").to_compact();
        let outcome = store.expire(PurgeTarget::Active(&absent), &span()).await.unwrap();
        assert_eq!(outcome, PurgeOutcome::NotFound);
    }

    pub(in super::super) async fn update_meta_changes_the_header_of_that_entry_only(store: Store) {
        let key = key("update");
        assert!(!store.update_meta(&key, &meta(), &span()).await.unwrap());
        super::store(store, &key, body(100_000)).await.unwrap();
        let id = lookup(store, &key).await.unwrap().1.entry_id().unwrap();
        for (number, length) in [1, 10, 500, 40_000, 3].into_iter().enumerate() {
            let mut changed = meta();
            let value = "v".repeat(length);
            changed.response_header_mut().insert_header("X-New", value.as_str()).unwrap();
            changed.extensions_mut().insert(super::super::EntryId(id.get()));
            assert!(store.update_meta(&key, &changed, &span()).await.unwrap(), "update {number}");
            let (read, mut hit) = lookup(store, &key).await.unwrap();
            assert_eq!(read.headers().get("x-new").unwrap(), value.as_str());
            assert_eq!(hit.entry_id(), Some(id));
            assert!(rest(&mut hit).await.0 == body(100_000));
        }
        super::store(store, &key, body(1)).await.unwrap();
        let mut changed = meta();
        changed.extensions_mut().insert(super::super::EntryId(id.get()));
        assert!(!store.update_meta(&key, &changed, &span()).await.unwrap(), "another entry has the key now");
    }
}
