//! Tests of the store on disk.

use super::super::shared_tests::{self as testing, *};
use super::super::unpublished_tests::{self as unpublished, PART, fill, long, part, read_some};
use super::super::{CORRUPT, NOT_STORED, PAUSED};
use super::*;
use pingora_cache::storage::MissFinishType;
use rustix::io::Errno;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

fn open_with(directory: &Path, size: u64) -> &'static Disk {
    let options = Options { directory: directory.to_owned(), size, max_object_size: 1 << 20 };
    let disk = Disk::open(&options).unwrap();
    std::iter::repeat_with(std::thread::yield_now).take_while(|()| disk.stats().scanning).for_each(drop);
    disk
}

fn open(directory: &Path) -> &'static Disk {
    open_with(directory, 64 << 20)
}

/// Waits until the threads of the store have done their work.
fn flush(disk: &'static Disk) {
    let (done, wait) = mpsc::channel();
    disk.janitor.send(Task::Flush(done)).unwrap();
    wait.recv().unwrap();
    disk.writers.settle();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

/// The files after the last task of a write has ended.
fn settled(disk: &'static Disk, directory: &Path) -> Vec<PathBuf> {
    loop {
        flush(disk);
        let stored = files(directory);
        if !stored.iter().any(|path| Volume::is_temporary(&path.file_name().unwrap_or_default().to_string_lossy())) {
            return stored;
        }
        std::thread::yield_now();
    }
}

fn file_of(directory: &Path, key: &CacheKey) -> PathBuf {
    directory.join(volume::name(hash(key)))
}

async fn put(disk: &'static Disk, key: &CacheKey, body: bytes::Bytes) -> Result<MissFinishType> {
    testing::store(disk, key, body).await
}

macro_rules! cases {
    ($module:ident: $($case:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            $module::$case(store).await;
            assert_eq!(store.flights.len(), 0);
            let stored = settled(store, directory.path());
            let bytes: u64 = stored.iter().map(|path| occupied(path.metadata().unwrap().len())).sum();
            let stats = store.stats();
            assert_eq!((stats.bytes, stats.entries), (bytes, stored.len() as u64), "{stored:?}");
            assert_eq!((stats.corrupt, stats.evictions), (0, 0), "a replacement is no eviction");
        })*
    };
}

of_both_stores!(cases);

#[tokio::test]
async fn restart_finds_entries_and_updated_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for number in 0..50 {
        put(disk, &key(&number.to_string()), body(number * 5000)).await.unwrap();
    }
    let mut changed = meta();
    changed.response_header_mut().insert_header("X-New", "value").unwrap();
    assert!(disk.update_meta(&key("7"), &changed, &span()).await.unwrap());
    let compact = key("8").to_compact();
    disk.purge(PurgeTarget::Active(&compact), PurgeType::Invalidation, &span()).await.unwrap();
    let restarted = open(directory.path());
    assert_eq!(restarted.stats().entries, 49);
    assert_eq!(restarted.stats().bytes, disk.stats().bytes);
    for number in (0..50).filter(|number| *number != 8) {
        let (found, mut hit) = lookup(restarted, &key(&number.to_string())).await.unwrap();
        assert!(rest(&mut hit).await.0 == body(number * 5000), "{number}");
        assert_eq!(found.headers().contains_key("x-new"), number == 7);
    }
    assert!(lookup(restarted, &key("8")).await.is_none());
}

#[tokio::test]
async fn directory_and_files_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/cache");
    let disk = open(&directory);
    put(disk, &key("a"), body(10)).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&file_of(&directory, &key("a"))), 0o600);
}

#[tokio::test]
async fn two_stores_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = [open(directory.path()), open(directory.path())];
    put(old, &key("a"), body(70_000)).await.unwrap();
    assert!(read(new, &key("a")).await.unwrap() == body(70_000), "a lookup finds a file that the scan did not see");
    assert_eq!(new.stats().entries, 1, "and counts it");
    put(new, &key("a"), body(200)).await.unwrap();
    assert!(read(old, &key("a")).await.unwrap() == body(200), "a file that was replaced is read");
    put(old, &key("a"), body(300_000)).await.unwrap();
    assert!(read(new, &key("a")).await.unwrap() == body(300_000));
    let compact = key("a").to_compact();
    new.purge(PurgeTarget::Active(&compact), PurgeType::Invalidation, &span()).await.unwrap();
    assert!(lookup(old, &key("a")).await.is_none());
    assert_eq!((old.stats().entries, old.stats().corrupt + new.stats().corrupt), (0, 0));
    put(old, &key("late"), body(10)).await.unwrap();
    new.janitor.send(Task::EndAdoption).unwrap();
    while new.adopting.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    assert_eq!(new.stats().entries, 1, "the second scan counts what is left");
    put(old, &key("too late"), body(10)).await.unwrap();
    assert!(lookup(new, &key("too late")).await.is_none());
}

#[tokio::test]
async fn damaged_file_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    let key = key("damaged");
    let path = file_of(directory.path(), &key);
    let mut corrupt = 0;
    for length in [1000_u64, 200_000] {
        put(disk, &key, body(length as usize)).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let end = whole.len() as u64;
        let cuts = [0, 1, 63, 64, 100, end / 2, end - 1];
        let flips = [0, 20, 70, end - length / 2, end - 1];
        for (damage, cut) in cuts.map(|at| (at, true)).into_iter().chain(flips.map(|at| (at, false))) {
            std::fs::write(&path, &whole).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            if cut {
                file.set_len(damage).unwrap();
            } else {
                file.write_all_at(&[whole[damage as usize] ^ 1], damage).unwrap();
            }
            disk.index.insert(hash(&key), DiskEntry::new(end));
            if let Some((_, mut hit)) = lookup(disk, &key).await {
                let (read, result) = rest(&mut hit).await;
                assert_eq!(result.unwrap_err().etype, CORRUPT, "{length} {damage} {cut}");
                assert!(body(length as usize).starts_with(&read), "only verified blocks are handed out");
            }
            corrupt += 1;
            assert_eq!(disk.stats().corrupt, corrupt, "{length} {damage} {cut}");
            assert!(!path.exists() && lookup(disk, &key).await.is_none());
        }
    }
    std::fs::write(&path, body(10_000)).unwrap();
    assert!(lookup(disk, &key).await.is_none());
    assert!(!path.exists(), "garbage is removed");
}

#[tokio::test]
async fn leftover_temporary_files_are_removed_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let leaf = directory.path().join("0/00");
    std::fs::create_dir_all(&leaf).unwrap();
    let own = std::process::id();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let old = SystemTime::now() - Duration::from_secs(4000);
    let recent = SystemTime::now() - Duration::from_secs(60);
    for (name, changed, removed) in [
        (format!("tmp.{dead}.1"), SystemTime::now(), true),
        ("tmp.1.1".to_owned(), recent, false),
        ("tmp.1.2".to_owned(), old, true),
        (format!("tmp.{own}.1"), recent, true),
        ("tmp.garbage".to_owned(), recent, false),
        ("tmp.garbage.1".to_owned(), recent, true),
        ("other".to_owned(), old, false),
    ] {
        let path = leaf.join(&name);
        std::fs::File::create(&path).unwrap().set_modified(changed).unwrap();
        open(directory.path());
        assert_eq!(!path.exists(), removed, "{name}");
        drop(std::fs::remove_file(path));
    }
}

#[tokio::test]
async fn unfinished_write_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    let mut miss = disk.get_miss_handler(&key("a"), &meta(), &span()).await.unwrap();
    miss.write_body(body(300_000), false).await.unwrap();
    while files(directory.path()).is_empty() {
        tokio::task::yield_now().await;
    }
    drop(miss);
    while !files(directory.path()).is_empty() {
        flush(disk);
    }
    assert_eq!((disk.stats().bytes, disk.stats().incomplete), (0, 1));
}

#[tokio::test]
async fn reader_gets_spilled_blocks_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    let key = key("spill");
    let whole = body(1 << 20);
    let mut miss = disk.get_miss_handler(&key, &meta(), &span()).await.unwrap();
    let mut early = lookup(disk, &key).await.unwrap().1;
    for start in (0..1 << 20).step_by(10_000) {
        miss.write_body(whole.slice(start..(start + 10_000).min(1 << 20)), false).await.unwrap();
    }
    let flight = disk.flights.find(hash(&key), &key).unwrap();
    while flight.from(0).len() > 60 {
        miss.write_body(bytes::Bytes::new(), false).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut late = lookup(disk, &key).await.unwrap().1;
    late.seek(100_000, Some(900_000)).unwrap();
    assert!(rest(&mut late).await.0 == whole[100_000..900_000]);
    miss.finish().await.unwrap();
    assert!(rest(&mut early).await.0 == whole && read(disk, &key).await.unwrap() == whole);
}

#[tokio::test]
async fn file_of_an_unpublished_write_is_removed_while_its_reader_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    let mut miss = disk.get_miss_handler(&key("a"), &meta(), &span()).await.unwrap();
    let mut reader = lookup(disk, &key("a")).await.unwrap().1;
    let flight = disk.flights.find(hash(&key("a")), &key("a")).unwrap();
    for number in 0..20 {
        miss.write_body(part(number), false).await.unwrap();
    }
    while !flight.is_spilled() {
        miss.write_body(bytes::Bytes::new(), false).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut parts = fill(&mut miss, 20, 1000).await;
    assert!(parts > 21 && parts < 100, "what is in the file needs no memory: {parts}");
    assert_eq!(settled(disk, directory.path()).len(), 0);
    assert!(disk.stats().bytes > 0, "the file still uses space");
    let mut read = Vec::new();
    while parts < 100 {
        read.extend(read_some(&mut reader, PART).await);
        parts = fill(&mut miss, parts, 100).await;
    }
    assert_eq!((flight.is_spilled(), disk.stats().bytes), (false, 0));
    assert!(miss.finish().await.is_err());
    read.extend(rest(&mut reader).await.0);
    assert!(read == long(100));
    assert_eq!((disk.stats().too_large, disk.stats().write_failures), (1, 0));
}

/// Writes a body of 900 KiB to a store that fails, and checks that a reader gets all of it.
async fn assert_readers_survive(disk: &'static Disk, start_failing: impl FnOnce()) {
    let key = key("survive");
    let whole = body(900_000);
    let mut miss = disk.get_miss_handler(&key, &meta(), &span()).await.unwrap();
    let mut early = lookup(disk, &key).await.unwrap().1;
    miss.write_body(whole.slice(..400_000), false).await.unwrap();
    let mut late = lookup(disk, &key).await.unwrap().1;
    start_failing();
    for start in (400_000..900_000).step_by(20_000) {
        miss.write_body(whole.slice(start..start + 20_000), false).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(miss.finish().await.err().unwrap().etype, NOT_STORED);
    assert!(rest(&mut early).await.0 == whole && rest(&mut late).await.0 == whole);
    assert!(lookup(disk, &key).await.is_none());
    settled(disk, disk.volume.path());
}

#[tokio::test]
async fn failing_disk_does_not_disturb_readers_and_pauses_writes() {
    for errno in [Errno::NOSPC, Errno::ROFS, Errno::IO, Errno::MFILE] {
        let directory = tempfile::tempdir().unwrap();
        let disk = open(directory.path());
        put(disk, &key("before"), body(10)).await.unwrap();
        assert_readers_survive(disk, || disk.volume.fault.store(errno.raw_os_error(), Ordering::Relaxed)).await;
        let stats = disk.stats();
        assert_eq!((stats.write_failures, stats.entries), (1, 1), "{errno}");
        let refused = disk.get_miss_handler(&key("b"), &meta(), &span()).await.err().unwrap();
        assert_eq!((refused.etype, disk.stats().paused), (PAUSED, 1));
        assert_eq!(read(disk, &key("before")).await.unwrap().len(), 10, "reads continue");
        disk.volume.fault.store(0, Ordering::Relaxed);
        disk.health.end_pause();
        put(disk, &key("b"), body(10)).await.unwrap();
        assert_eq!(files(directory.path()).len(), 2, "no temporary file is left");
    }
}

#[tokio::test]
async fn entry_is_purged_if_it_cannot_be_expired() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    put(disk, &key("a"), body(10)).await.unwrap();
    disk.volume.fault.store(Errno::NOSPC.raw_os_error(), Ordering::Relaxed);
    let compact = key("a").to_compact();
    let outcome = disk.expire(PurgeTarget::Active(&compact), &span()).await.unwrap();
    assert!(matches!(outcome, PurgeOutcome::Purged(Some(_))));
    assert!(lookup(disk, &key("a")).await.is_none());
}

/// A file system in memory of 1 MiB, if this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let this = Self(directory);
        this.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).then_some(this)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let status = std::process::Command::new(program).args(arguments).arg(self.0.path()).output();
        status.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

#[tokio::test]
async fn full_file_system_does_not_disturb_readers() {
    let Some(tmpfs) = Tmpfs::mount() else { return };
    let disk = open(tmpfs.0.path());
    put(disk, &key("before"), body(300_000)).await.unwrap();
    std::fs::write(tmpfs.0.path().join("ballast"), body(500_000)).unwrap();
    assert_readers_survive(disk, || ()).await;
    assert_eq!((disk.stats().write_failures, disk.stats().entries), (1, 1));
    assert!(read(disk, &key("before")).await.unwrap() == body(300_000));
    disk.health.end_pause();
    put(disk, &key("small"), body(1000)).await.unwrap();
}

#[tokio::test]
async fn read_only_file_system_serves_entries_and_refuses_writes() {
    let Some(tmpfs) = Tmpfs::mount() else { return };
    put(open(tmpfs.0.path()), &key("before"), body(1000)).await.unwrap();
    if !tmpfs.run("mount", &["-o", "remount,ro"]) {
        return;
    }
    let disk = open(tmpfs.0.path());
    assert!(read(disk, &key("before")).await.unwrap() == body(1000));
    assert_eq!(put(disk, &key("new"), body(10)).await.err().unwrap().etype, NOT_STORED);
    assert_eq!(put(disk, &key("new"), body(10)).await.err().unwrap().etype, PAUSED);
}

#[tokio::test]
async fn bytes_stay_within_the_size_under_a_random_workload() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_with(directory.path(), 8 << 20);
    let mut random = Random(3);
    for _ in 0..1500 {
        let key = key(&random.below(200).to_string());
        if random.below(2) == 0 {
            put(disk, &key, body(random.below(300_000) as usize)).await.unwrap();
        } else if let Some((_, mut hit)) = lookup(disk, &key).await {
            rest(&mut hit).await.1.unwrap();
        }
        assert!(disk.stats().bytes <= disk.stats().capacity);
    }
    flush(disk);
    let stored: u64 = files(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    let stats = disk.stats();
    assert!(stored <= stats.bytes && stats.bytes <= 8 << 20 && stats.evictions > 50, "{stored} {stats:?}");
    let smaller = open_with(directory.path(), 2 << 20);
    flush(smaller);
    let stored: u64 = files(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(stored <= 2 << 20, "a start with a smaller size removes files");
    smaller.clear().await.unwrap();
    assert_eq!((files(directory.path()).len(), smaller.stats().bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_readers_and_writers_see_whole_bodies() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_with(directory.path(), 4 << 20);
    let tasks: Vec<_> = (0..6_u64)
        .map(|task| {
            tokio::spawn(async move {
                let mut random = Random(task + 1);
                for _ in 0..100 {
                    let number = random.below(15) as usize;
                    let (key, whole) = (key(&number.to_string()), body(number * 40_000));
                    if random.below(10) == 0 {
                        let compact = key.to_compact();
                        disk.purge(PurgeTarget::Active(&compact), PurgeType::Invalidation, &span()).await.unwrap();
                    } else if let Some((_, mut hit)) = lookup(disk, &key).await {
                        let (read, end) = rest(&mut hit).await;
                        assert!(whole.starts_with(&read) && (end.is_err() || read == whole), "{number}");
                    } else if let Ok(mut miss) = disk.get_miss_handler(&key, &meta(), &span()).await {
                        // Without room and without readers, a write ends early.
                        let (mut written, mut parts) = (true, (0..whole.len()).step_by(40_000));
                        while let (true, Some(at)) = (written, parts.next()) {
                            written = miss.write_body(whole.slice(at..at + 40_000), false).await.is_ok();
                        }
                        if written && random.below(4) > 0 {
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
    let stored = settled(disk, directory.path());
    assert_eq!(disk.stats().corrupt, 0);
    assert_eq!(disk.stats().entries, stored.len() as u64, "the index and the directory agree");
}

#[tokio::test]
async fn top_reads_the_keys_from_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for (name, length, hits) in [("a", 100_000, 1), ("b", 10, 3), ("c", 50_000, 0)] {
        put(disk, &key(name), body(length)).await.unwrap();
        for _ in 0..hits {
            lookup(disk, &key(name)).await;
        }
    }
    let keys = |list: Vec<TopEntry>| list.into_iter().map(|entry| (entry.key, entry.hits)).collect::<Vec<_>>();
    assert_eq!(keys(disk.top(2, Order::Hits, |_, _| true).await.unwrap()), [(b"b".to_vec(), 3), (b"a".to_vec(), 1)]);
    assert_eq!(
        keys(disk.top(2, Order::Size, |key, _| key != b"b").await.unwrap()),
        [(b"a".to_vec(), 1), (b"c".to_vec(), 0)]
    );
}

async fn many(entries: usize) {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_with(directory.path(), 4 << 30);
    for number in 0..entries {
        put(disk, &key(&number.to_string()), body(100)).await.unwrap();
    }
    let restarted = open_with(directory.path(), 4 << 30);
    let stats = restarted.stats();
    assert_eq!((stats.entries, stats.evictions), (entries as u64, 0));
    for number in (0..entries).step_by(97) {
        assert_eq!(read(restarted, &key(&number.to_string())).await.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn small_entries_are_found_after_a_restart() {
    many(2000).await;
}

#[tokio::test]
#[ignore = "writes 100,000 files"]
async fn hundred_thousand_small_entries_are_found_after_a_restart() {
    many(100_000).await;
}
