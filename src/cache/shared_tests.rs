//! Purges of many responses, without a network. `L7LB_CACHE_OBJECTS` sets their number.

use std::time::UNIX_EPOCH;

use super::*;
use crate::base::units::Size;

fn memory(size: Size) -> Arc<Cache> {
    let mut config = StoresConfig::default();
    config.memory.size = size;
    let caches = Caches::default();
    caches.open(&config, [StoreKind::Memory]).unwrap();
    caches.get(StoreKind::Memory).unwrap()
}

fn key(cache: &Cache, number: usize) -> CacheKey {
    let mut key = CacheKey::new(format!("h1:ap8:/{number:07}N-"), "");
    cache.identify(&mut key);
    key
}

/// Stores a response with this tag.
async fn store(cache: &Arc<Cache>, number: usize, tag: &str) {
    let now = cache.purges.stamp(UNIX_EPOCH + Duration::from_secs(1_000_000));
    let mut head = ResponseHeader::build(StatusCode::OK, Some(1)).unwrap();
    head.insert_header("cache-tag", tag).unwrap();
    let meta = CacheMeta::new(now + Duration::from_secs(3600), now, 0, 0, head);
    let Ok(mut writing) = cache.store(&mut key(cache, number), &HeaderMap::new(), meta, 1 << 20).await else {
        panic!("response {number} cannot be stored")
    };
    writing.writer.write_body(Bytes::from_static(b"body"), true).await.unwrap();
    writing.writer.finish().await.unwrap();
}

#[tokio::test]
async fn one_purge_of_a_tag_concerns_each_of_many_responses_with_it_and_no_other() {
    let count = std::env::var("L7LB_CACHE_OBJECTS").map_or(100_000, |text| text.parse().unwrap());
    let cache = memory(Size::mib(1024 + count as u64 / 512));
    for number in 0..count {
        store(&cache, number, if number % 100 == 0 { "other" } else { "some, many" }).await;
    }
    assert_eq!(cache.stats().entries, count as u64);
    let start = Instant::now();
    let purged = cache.purge([Scope::Tag("many".to_owned())], Kind::Hard, UNIX_EPOCH);
    let duration = start.elapsed();
    assert_eq!(
        (purged.saved, cache.purges.len()),
        (Ok(()), 1),
        "it records one time, whatever the number of responses"
    );
    for number in 0..count {
        let found = cache.lookup(&mut key(&cache, number), &HeaderMap::new()).await.unwrap();
        assert_eq!(found.is_some(), number % 100 == 0, "{number}");
    }
    eprintln!("purge of a tag of {count} responses: {duration:?}");
}
