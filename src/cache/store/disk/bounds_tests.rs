//! Tests of what a disk store may use: threads, memory that waits for the disk, space.

use super::super::NOT_STORED;
use super::super::shared_tests::{body, key, lookup, meta, read, rest, span, store};
use super::*;

fn open(directory: &std::path::Path, size: u64) -> &'static Disk {
    let options = Options { directory: directory.to_owned(), size, max_object_size: 1 << 20 };
    let disk = Disk::open(&options).unwrap();
    while disk.stats().scanning {
        std::thread::yield_now();
    }
    disk
}

/// Keeps all threads that write busy until the sender is dropped.
fn stall(disk: &'static Disk) -> impl Sized + use<> {
    (0..WRITERS)
        .map(|_| {
            let (hold, wait) = mpsc::channel::<()>();
            drop(disk.writers.run(move || wait.recv()));
            hold
        })
        .collect::<Vec<_>>()
}

#[tokio::test]
async fn thousands_of_writes_use_few_threads_and_a_bounded_queue() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path(), 1 << 30);
    let hold = stall(disk);
    let writes: Vec<_> =
        (0..2000).map(|n| tokio::spawn(async move { store(disk, &key(&n.to_string()), body(500)).await })).collect();
    while disk.stats().write_failures < 2000 - BACKLOG_WRITES as u64 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    let mut stored = 0;
    for (number, write) in writes.into_iter().enumerate() {
        let result = write.await.unwrap();
        match &result {
            Ok(_) => stored += 1,
            Err(error) => assert_eq!(error.etype, NOT_STORED),
        }
        assert_eq!(lookup(disk, &key(&number.to_string())).await.is_some(), result.is_ok());
    }
    assert_eq!(stored, BACKLOG_WRITES, "the others are not stored");
    assert!(disk.writers.threads() <= WRITERS && disk.readers.threads() <= READERS);
    assert_eq!((disk.stats().paused, disk.flights.len()), (0, 0), "a full queue is no error of the disk");
    store(disk, &key("later"), body(500)).await.unwrap();
}

#[tokio::test]
async fn body_that_finds_the_queue_full_is_complete_for_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path(), 1 << 30);
    let full = disk.backlog.take(BACKLOG_BYTES);
    let mut miss = disk.get_miss_handler(&key("a"), &meta(), &span()).await.unwrap();
    let mut reader = lookup(disk, &key("a")).await.unwrap().1;
    let whole = body(1_000_000);
    for start in (0..1_000_000).step_by(50_000) {
        miss.write_body(whole.slice(start..start + 50_000), false).await.unwrap();
    }
    assert_eq!(miss.finish().await.err().unwrap().etype, NOT_STORED);
    assert!(rest(&mut reader).await.0 == whole);
    assert_eq!((disk.stats().write_failures, disk.stats().bytes), (1, 0));
    drop(full);
    store(disk, &key("a"), whole.clone()).await.unwrap();
    assert!(read(disk, &key("a")).await.unwrap() == whole);
}
