//! Tests of the store in memory.

use super::super::shared_tests::*;
use super::super::unpublished_tests::{self as unpublished, PART, fill, long, read_some};
use super::super::{Order, complete_length};
use super::*;

fn memory() -> &'static Memory {
    Memory::new(16 << 20, 1 << 20)
}

macro_rules! cases {
    ($module:ident: $($case:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let store = memory();
            $module::$case(store).await;
            assert_eq!(store.flights.len(), 0);
            let stats = store.stats();
            assert_eq!(stats.evictions, 0, "a replacement is no eviction");
            let weights: u64 = store.index.sample(1000).iter().map(|(_, entry)| entry.weight).sum();
            assert_eq!((stats.bytes, stats.entries), (weights, store.index.sample(1000).len() as u64));
        })*
    };
}

of_both_stores!(cases);

#[tokio::test]
async fn bytes_stay_within_the_size_under_a_random_workload() {
    let store = Memory::new(4 << 20, 1 << 20);
    let mut random = Random(7);
    let mut writes = std::collections::VecDeque::new();
    for _ in 0..5000 {
        let key = key(&format!("{}", random.below(500)));
        if random.below(3) == 0 {
            let mut known = meta();
            if random.below(2) == 0 {
                known.response_header_mut().insert_header("Content-Length", "300000").unwrap();
            }
            if let Ok(miss) = store.get_miss_handler(&key, &known, &span()).await {
                writes.push_back(miss);
            }
        } else if let Some((_, mut hit)) = lookup(store, &key).await
            && complete_length(&hit).is_some()
        {
            assert!(rest(&mut hit).await.1.is_ok());
        }
        for miss in &mut writes {
            // Fails when writes in progress use up their half.
            drop(miss.write_body(body(random.below(20_000) as usize), false).await);
        }
        if random.below(4) == 0
            && let Some(miss) = writes.pop_front()
            && random.below(5) > 0
        {
            drop(miss.finish().await);
        }
        let stats = store.stats();
        assert!(stats.bytes <= stats.capacity, "{stats:?}");
    }
    writes.clear();
    let stats = store.stats();
    assert!(stats.evictions > 100 && stats.write_failures > 0 && stats.incomplete > 0, "{stats:?}");
    assert_eq!(store.stats().bytes, store.index.sample(10_000).iter().map(|(_, entry)| entry.weight).sum::<u64>());
}

#[tokio::test]
async fn resize_evicts_at_once_and_allows_growth_again() {
    let store = Memory::new(8 << 20, 1 << 20);
    // Few enough for any division between two shards.
    for number in 0..40 {
        super::super::shared_tests::store(store, &key(&number.to_string()), body(100_000)).await.unwrap();
    }
    assert_eq!(store.stats().entries, 40);
    store.resize(2 << 20);
    let stats = store.stats();
    assert!(stats.bytes <= 2 << 20 && stats.entries < 21 && stats.entries > 10, "{stats:?}");
    store.resize(8 << 20);
    for number in 100..150 {
        super::super::shared_tests::store(store, &key(&number.to_string()), body(100_000)).await.unwrap();
    }
    assert!(store.stats().entries > 40);
}

#[tokio::test]
async fn often_read_entries_survive_a_scan_of_new_ones() {
    let store = Memory::new(4 << 20, 64 << 10);
    for number in 0..100 {
        super::super::shared_tests::store(store, &key(&format!("hot {number}")), body(4000)).await.unwrap();
    }
    for number in 0..4_000 {
        super::super::shared_tests::store(store, &key(&format!("scan {number}")), body(4000)).await.unwrap();
        lookup(store, &key(&format!("hot {}", number % 100))).await;
    }
    let mut kept = 0;
    for number in 0..100 {
        kept += usize::from(lookup(store, &key(&format!("hot {number}"))).await.is_some());
    }
    assert!(kept > 90, "{kept}");
}

#[tokio::test]
async fn hundred_thousand_small_entries_are_found() {
    let store = Memory::new(512 << 20, 1 << 20);
    for number in 0..100_000 {
        super::super::shared_tests::store(store, &key(&number.to_string()), body(100)).await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.entries, stats.evictions), (100_000, 0));
    for number in (0..100_000).step_by(997) {
        assert_eq!(read(store, &key(&number.to_string())).await.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn top_lists_the_most_requested_or_largest_entries() {
    let store = memory();
    for number in 0..10_usize {
        let key = key(&number.to_string());
        super::super::shared_tests::store(store, &key, body(number * 1000)).await.unwrap();
        for _ in number..10 {
            lookup(store, &key).await;
        }
    }
    let top = |order| store.top(3, order, |key, _| key != b"nothing");
    let keys = |order| top(order).into_iter().map(|entry| (entry.key, entry.hits)).collect::<Vec<_>>();
    let expected = |list: [(&str, u64); 3]| list.map(|(key, hits)| (key.as_bytes().to_vec(), hits));
    assert_eq!(keys(Order::Hits), expected([("0", 10), ("1", 9), ("2", 8)]));
    assert_eq!(keys(Order::Size), expected([("9", 1), ("8", 2), ("7", 3)]));
}

#[tokio::test]
async fn clear_removes_entries_and_stops_writes() {
    let store = memory();
    super::super::shared_tests::store(store, &key("a"), body(10)).await.unwrap();
    let miss = store.get_miss_handler(&key("b"), &meta(), &span()).await.unwrap();
    store.clear();
    assert_eq!(store.stats().entries, 0);
    assert!(miss.finish().await.is_err());
    assert!(lookup(store, &key("a")).await.is_none() && lookup(store, &key("b")).await.is_none());
    assert_eq!(store.stats().bytes, 0);
}

#[tokio::test]
async fn many_tiny_chunks_are_counted_with_their_overhead() {
    let store = Memory::new(4 << 20, 1 << 20);
    let mut miss = store.get_miss_handler(&key("tiny"), &meta(), &span()).await.unwrap();
    let mut written = 0;
    while miss.write_body(body(1), false).await.is_ok() {
        written += 1;
    }
    assert!(written < 100_000, "{written} one-byte chunks in 4 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_readers_and_writers_see_whole_bodies() {
    let store = Memory::new(2 << 20, 512 << 10);
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            tokio::spawn(async move {
                let mut random = Random(task + 1);
                for _ in 0..300 {
                    let number = random.below(20) as usize;
                    let key = key(&number.to_string());
                    if let Some((_, mut hit)) = lookup(store, &key).await {
                        let (read, end) = rest(&mut hit).await;
                        assert!(end.is_err() || read == body(number * 7000), "{number}");
                    } else if let Ok(mut miss) = store.get_miss_handler(&key, &meta(), &span()).await {
                        let whole = body(number * 7000);
                        for start in (0..whole.len()).step_by(7000) {
                            drop(miss.write_body(whole.slice(start..start + 7000), false).await);
                            tokio::task::yield_now().await;
                        }
                        if random.below(4) > 0 {
                            drop(miss.finish().await);
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = store.stats();
    assert!(stats.bytes <= stats.capacity);
}

#[tokio::test]
async fn write_for_which_there_is_no_room_is_complete_for_its_reader() {
    let store = Memory::new(4 << 20, 1 << 20);
    let mut writes = Vec::new();
    // They leave no room for a window either.
    while let Ok(miss) = store.get_miss_handler(&key(&writes.len().to_string()), &meta(), &span()).await {
        let reader = lookup(store, &key(&writes.len().to_string())).await.unwrap().1;
        writes.push((miss, reader, 0));
        for (miss, _, parts) in &mut writes {
            *parts = fill(miss, *parts, *parts + 2).await;
        }
    }
    let stats = store.stats();
    assert!(stats.write_failures > 1 && stats.bytes <= stats.capacity, "{stats:?}");
    for (mut miss, mut reader, mut parts) in writes {
        let mut read = Vec::new();
        while parts < 40 {
            read.extend(read_some(&mut reader, parts * PART - read.len()).await);
            assert!(waits(&mut reader.read_body()).await);
            parts = fill(&mut miss, parts, 40).await;
        }
        assert!(miss.finish().await.is_err());
        read.extend(rest(&mut reader).await.0);
        assert!(read == long(40));
    }
    assert_eq!(store.stats().bytes, 0);
}

#[tokio::test]
async fn memory_of_an_unpublished_write_is_counted_and_freed_while_its_reader_goes_on() {
    let store = Memory::new(64 << 20, 8 << 20);
    let mut miss = store.get_miss_handler(&key("freed"), &meta(), &span()).await.unwrap();
    let mut reader = lookup(store, &key("freed")).await.unwrap().1;
    let flight = store.flights.find(hash(&key("freed")), &key("freed")).unwrap();
    let (mut parts, mut read) = (fill(&mut miss, 0, 1000).await, Vec::new());
    assert!(parts * PART > 7 << 20 && parts < 200, "the reader has read nothing");
    while parts < 400 {
        assert!(flight.footprint() <= store.stats().bytes);
        read.extend(read_some(&mut reader, PART).await);
        parts = fill(&mut miss, parts, 400).await;
    }
    let window = super::super::flight::WINDOW;
    assert!(flight.footprint() <= window + 2 * PART as u64);
    assert!(store.stats().bytes <= window + (512 << 10), "{:?}", store.stats());
    assert!(miss.finish().await.is_err());
    read.extend(rest(&mut reader).await.0);
    assert!(read == long(400));
    assert_eq!(store.stats().bytes, 0);
}

#[tokio::test]
async fn tiny_chunks_of_an_unpublished_write_are_counted_with_their_overhead() {
    let store = memory();
    let mut miss = store.get_miss_handler(&key("tiny"), &meta(), &span()).await.unwrap();
    let mut reader = lookup(store, &key("tiny")).await.unwrap().1;
    miss.write_body(body((1 << 20) - 1), false).await.unwrap();
    read_some(&mut reader, (1 << 20) - 1).await;
    assert!(waits(&mut reader.read_body()).await);
    let mut written = 0;
    while !waits(&mut miss.write_body(body(1), false)).await {
        written += 1;
    }
    assert!(written < 20_000, "{written} one-byte chunks in 1 MiB");
}
