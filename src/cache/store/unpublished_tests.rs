//! Writes that cannot become an entry, in both stores: cases for a store with objects of at most 1 MiB.

use super::flight::WINDOW;
use super::shared_tests::*;
use super::{NOT_STORED, TOO_LARGE, WriteLimit};
use bytes::Bytes;
use pingora_cache::storage::{HitHandler, MissHandler};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one part of a long body.
pub(super) const PART: usize = 50_000;

/// A part of a long body. Each differs from its neighbours.
pub(super) fn part(number: usize) -> Bytes {
    let start = number * 977 % (1 << 20);
    body(2 << 20).slice(start..start + PART)
}

/// The first parts of a long body.
pub(super) fn long(parts: usize) -> Vec<u8> {
    (0..parts).flat_map(part).collect()
}

/// Writes parts of a long body until the write waits for readers or has `end` parts. Returns how many it has.
pub(super) async fn fill(miss: &mut MissHandler, start: usize, end: usize) -> usize {
    for number in start..end {
        // A write that is dropped while it waits has added nothing.
        if waits(&mut miss.write_body(part(number), false)).await {
            return number;
        }
    }
    end
}

/// Reads at least `length` bytes.
pub(super) async fn read_some(hit: &mut HitHandler, length: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < length {
        read.extend_from_slice(&hit.read_body().await.unwrap().unwrap());
    }
    read
}

/// A write that was unpublished after 21 parts of a long body, with a reader that has read all of them, and one that
/// has read nothing.
async fn unpublished(store: Store, name: &str) -> (MissHandler, HitHandler, HitHandler) {
    let mut miss = store.get_miss_handler(&key(name), &meta(), &span()).await.unwrap();
    let mut fast = lookup(store, &key(name)).await.unwrap().1;
    let slow = lookup(store, &key(name)).await.unwrap().1;
    for number in 0..20 {
        miss.write_body(part(number), false).await.unwrap();
    }
    assert!(read_some(&mut fast, 20 * PART).await == long(20));
    // The 21st is the first that exceeds 1 MiB.
    assert_eq!(fill(&mut miss, 20, 21).await, 21);
    (miss, fast, slow)
}

pub(super) async fn unpublished_write_is_complete_for_its_readers_and_never_an_entry(store: Store) {
    let key = key("unpublished");
    super::shared_tests::store(store, &key, body(10)).await.unwrap();
    let mut miss = store.get_miss_handler(&key, &meta(), &span()).await.unwrap();
    let tag = miss.streaming_write_tag().map(<[u8]>::to_vec);
    let mut readers = Vec::new();
    for start in 0..5 {
        let found = store.lookup_streaming_write(&key, tag.as_deref(), &span()).await.unwrap();
        let mut reader = found.unwrap().1;
        readers.push(tokio::spawn(async move {
            let mut read = read_some(&mut reader, start * 10_000).await;
            let (more, end) = rest(&mut reader).await;
            read.extend(more);
            end.map(|()| read)
        }));
        tokio::task::yield_now().await;
    }
    for number in 0..200 {
        miss.write_body(part(number), false).await.unwrap();
    }
    assert!(store.lookup_streaming_write(&key, tag.as_deref(), &span()).await.unwrap().is_none());
    assert_eq!(miss.finish().await.err().unwrap().etype, NOT_STORED);
    for reader in readers {
        assert!(reader.await.unwrap().unwrap() == long(200));
    }
    assert!(read(store, &key).await.unwrap() == body(10), "the older entry is still there");
}

pub(super) async fn unpublished_write_waits_for_the_slowest_reader(store: Store) {
    let (mut miss, mut fast, mut slow) = unpublished(store, "slow").await;
    assert!(lookup(store, &key("slow")).await.is_none());
    let mut read = read_some(&mut slow, 10 * PART).await;
    let mut parts = fill(&mut miss, 21, 1000).await;
    let mut start = read_some(&mut fast, (parts - 20) * PART).await;
    assert!(parts < 1000, "a reader that has read everything does not count");
    // It keeps the part that it read last, and one may be added to a window that is not full. The first 20 parts may be in
    // a file.
    let limit = WINDOW as usize + 2 * PART;
    while parts < 200 {
        assert!(parts * PART <= limit + read.len().max(20 * PART), "{parts} parts, {} bytes read", read.len());
        read.extend(read_some(&mut slow, 3 * PART).await);
        parts = fill(&mut miss, parts, 200).await;
        start.extend(read_some(&mut fast, parts * PART - 20 * PART - start.len()).await);
    }
    assert!(miss.finish().await.is_err());
    read.extend(rest(&mut slow).await.0);
    start.extend(rest(&mut fast).await.0);
    assert!(read == long(200), "the slow reader");
    assert!(start == long(200)[20 * PART..], "the fast reader");
}

pub(super) async fn unpublished_write_goes_on_when_the_slowest_reader_leaves(store: Store) {
    let (mut miss, mut fast, slow) = unpublished(store, "leaves").await;
    let parts = fill(&mut miss, 21, 1000).await;
    assert!(parts < 1000);
    let mut read = read_some(&mut fast, (parts - 20) * PART).await;
    // It asks for more, so it has read everything.
    assert!(waits(&mut fast.read_body()).await);
    let mut write = miss.write_body(part(parts), false);
    assert!(waits(&mut write).await);
    drop(slow);
    write.await.unwrap();
    assert!(miss.finish().await.is_err());
    read.extend(rest(&mut fast).await.0);
    assert!(read == long(parts + 1)[20 * PART..]);
}

pub(super) async fn unpublished_write_ends_when_its_last_reader_leaves(store: Store) {
    let (mut miss, fast, slow) = unpublished(store, "alone").await;
    drop(fast);
    let parts = fill(&mut miss, 21, 1000).await;
    assert!(parts < 1000);
    let mut write = miss.write_body(part(parts), false);
    assert!(waits(&mut write).await);
    drop(slow);
    assert_eq!(write.await.unwrap_err().etype, TOO_LARGE);
    assert_eq!(miss.write_body(part(0), false).await.unwrap_err().etype, TOO_LARGE);
    assert!(miss.finish().await.is_err());
}

pub(super) async fn limit_of_a_write_replaces_a_larger_one_of_the_store(store: Store) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let on_unpublished = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut limited = meta();
    limited.extensions_mut().insert(WriteLimit { max_object_size: 4096, on_unpublished });
    for (length, stored) in [(4096, true), (4097, false)] {
        let key = key(&format!("{length}"));
        let mut miss = store.get_miss_handler(&key, &limited, &span()).await.unwrap();
        let mut reader = lookup(store, &key).await.unwrap().1;
        miss.write_body(body(length).slice(..4096), false).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        miss.write_body(body(length).slice(4096..), false).await.unwrap();
        assert_eq!(miss.finish().await.is_ok(), stored);
        assert!(rest(&mut reader).await.0 == body(length));
        assert_eq!(lookup(store, &key).await.is_some(), stored);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "only the second");
    limited.response_header_mut().insert_header("Content-Length", "4097").unwrap();
    let error = store.get_miss_handler(&key("known"), &limited, &span()).await.err().unwrap();
    assert_eq!(error.etype, TOO_LARGE);
}
