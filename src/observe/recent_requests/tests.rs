//! Recorded requests are returned unchanged and in order, within the memory limit.

use super::*;
use http::{HeaderName, HeaderValue};

impl<'a> RequestKey<'a> {
    /// A plain GET of example.com, for tests.
    pub(crate) fn example(at: Instant, path: &'a str) -> Self {
        Self {
            at,
            client: "192.0.2.1".parse().unwrap(),
            method: "GET",
            host: Some("example.com"),
            path,
            content_length: None,
            bound: None,
            misdirected: false,
            https_required: false,
        }
    }
}

fn key(at: Instant, path: &str) -> RequestKey<'_> {
    RequestKey::example(at, path)
}

fn spec(count: usize, headers: &[&str]) -> Spec {
    let headers = headers.iter().map(ToString::to_string).collect();
    Config { count, headers }.check(&crate::base::fault::Place::root(), &mut crate::base::fault::Faults::default())
}

fn paths(recent: &Recent) -> Vec<String> {
    recent.iter().map(|recorded| recorded.key.path.to_owned()).collect()
}

#[test]
fn recorded_request_is_returned_unchanged() {
    let epoch = Instant::now();
    let recent = Arc::new(RecentRequests::new(epoch));
    let recorder = recent.recorder(1);
    let spec = spec(10, &["x-user", "x-none", "x-long"]);
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("alice"));
    headers.insert("authorization", HeaderValue::from_static("secret"));
    headers.insert("x-long", HeaderValue::from_str(&"l".repeat(257)).unwrap());
    let long = format!("/{}", "p".repeat(300));
    let full = RequestKey {
        client: "2001:db8::1".parse().unwrap(),
        method: "POST",
        host: None,
        content_length: Some(7),
        bound: Some(9),
        misdirected: true,
        https_required: true,
        ..key(epoch + Duration::from_secs(1), "/a")
    };
    recorder.note(&spec, &full, &headers);
    recorder.note(&spec, &key(epoch + Duration::from_secs(2), &long), &HeaderMap::new());
    let all = recent.recent(10);
    let returned: Vec<RecordedRequest<'_>> = all.iter().collect();
    let user = (HeaderName::from_static("x-user"), HeaderValue::from_static("alice"));
    assert_eq!(returned[0], RecordedRequest { key: full, headers: vec![user], path_truncated: false });
    assert_eq!((returned[1].key.path, returned[1].path_truncated), (&long[..256], true));
    assert_eq!((returned.len(), all.span()), (2, Duration::from_secs(1)));
}

#[test]
fn last_requests_of_all_workers_are_kept_in_order() {
    let epoch = Instant::now();
    let recent = Arc::new(RecentRequests::new(epoch));
    // The second worker is almost idle.
    let (busy, idle) = (recent.recorder(1), recent.recorder(1));
    let spec = spec(1000, &[]);
    let at = |n: u64| epoch + Duration::from_millis(n);
    for n in 0..5000 {
        let path = format!("/{n}");
        let recorder = if n % 1000 == 500 { &idle } else { &busy };
        recorder.note(&spec, &key(at(n), &path), &HeaderMap::new());
    }
    let all = recent.recent(1000);
    assert_eq!(paths(&all), (4000..5000).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert_eq!(paths(&recent.recent(2)), ["/4998", "/4999"]);
    // Requests of the idle worker older than those dropped by others are omitted.
    let everything = paths(&recent.recent(usize::MAX));
    assert!(everything.len() < 1300 && !everything.contains(&"/500".to_owned()), "{}", everything.len());
}

#[test]
fn memory_is_bounded_for_any_requests() {
    let epoch = Instant::now();
    let recent = Arc::new(RecentRequests::new(epoch));
    let recorder = recent.recorder(1);
    let spec = spec(5000, &["a", "b", "c", "d", "e", "f", "g", "h"]);
    let path = format!("/{}", "p".repeat(300));
    let mut headers = HeaderMap::new();
    for name in &*spec.headers {
        headers.insert(name, HeaderValue::from_str(&"v".repeat(256)).unwrap());
    }
    let held = || recent.full.lock().segments.iter().map(|segment| segment.size_bytes()).sum::<usize>();
    assert_eq!(held(), 0, "memory grows with use");
    for n in 0..20_000 {
        recorder.note(&spec, &key(epoch + Duration::from_millis(n), &path), &headers);
    }
    assert!(held() <= RecentRequests::size_bytes_max(5000), "{}", held());
    let kept = recent.recent(5000);
    assert!(kept.len() > 300 && kept.len() < 5000, "{} long ones", kept.len());
    assert!(kept.iter().all(|recorded| recorded.headers.len() == 8));
}

#[test]
fn changed_settings_drop_requests_that_are_no_longer_kept() {
    let epoch = Instant::now();
    let recent = Arc::new(RecentRequests::new(epoch));
    let recorder = recent.recorder(4);
    let (before, fewer, other, off) = (spec(2000, &["a"]), spec(500, &["a"]), spec(500, &["b"]), spec(0, &["b"]));
    let fill = |spec: &Spec| {
        (0..2000).for_each(|n| recorder.note(spec, &key(epoch + Duration::from_millis(n), "/"), &HeaderMap::new()));
    };
    fill(&before);
    recent.configure(&before, &fewer);
    // The buffers hold up to one segment each in addition.
    let full = recent.full.lock().requests;
    assert!(full < 500 + segment::REQUESTS, "{full}");
    let last: Vec<_> = recent.recent(500).iter().map(|recorded| recorded.key.at).collect();
    assert_eq!(last, (1500..2000).map(|n| epoch + Duration::from_millis(n)).collect::<Vec<_>>());
    recent.configure(&fewer, &other);
    assert!(recent.recent(usize::MAX).is_empty());
    recorder.note(&fewer, &key(epoch, "/"), &HeaderMap::new());
    assert!(recent.recent(usize::MAX).is_empty(), "a request from before the change is not recorded");
    fill(&other);
    recorder.note(&fewer, &key(epoch, "/"), &HeaderMap::new());
    assert_eq!(recent.recent(usize::MAX).iter().filter(|recorded| recorded.key.at == epoch).count(), 0);
    recent.configure(&other, &off);
    recorder.note(&off, &key(epoch, "/"), &HeaderMap::new());
    recorder.note(&other, &key(epoch, "/"), &HeaderMap::new());
    assert!(recent.recent(usize::MAX).is_empty());
}

#[test]
fn concurrent_readers_and_writers_lose_and_duplicate_nothing() {
    let epoch = Instant::now();
    let recent = Arc::new(RecentRequests::new(epoch));
    let recorder = Arc::new(recent.recorder(2));
    let spec = spec(100_000, &[]);
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (recorder, spec) = (Arc::clone(&recorder), spec.clone());
            std::thread::spawn(move || {
                for n in 0..5000 {
                    let path = format!("/{writer}/{n}");
                    recorder.note(&spec, &key(epoch + Duration::from_nanos(n), &path), &HeaderMap::new());
                }
            })
        })
        .collect();
    let distinct = |paths: &[String]| paths.iter().collect::<std::collections::HashSet<_>>().len();
    while !writers.iter().all(std::thread::JoinHandle::is_finished) {
        let seen = paths(&recent.recent(usize::MAX));
        assert_eq!(distinct(&seen), seen.len());
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let seen = paths(&recent.recent(usize::MAX));
    assert_eq!((seen.len(), distinct(&seen)), (20_000, 20_000));
}

#[test]
fn long_path_is_truncated_outside_a_percent_encoding() {
    let epoch = Instant::now();
    for (filler, kept) in [(253, 256), (254, 254), (255, 255), (256, 256)] {
        let recent = Arc::new(RecentRequests::new(epoch));
        let path = format!("/{}%20x", "p".repeat(filler - 1));
        recent.recorder(1).note(&spec(1, &[]), &key(epoch, &path), &HeaderMap::new());
        let all = recent.recent(1);
        let recorded = all.iter().next().unwrap();
        assert_eq!((recorded.key.path, recorded.path_truncated), (&path[..kept], true), "{filler}");
    }
}
