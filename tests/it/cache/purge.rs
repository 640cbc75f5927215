//! Purges by `l7lb cache purge`: what they concern, and that they outlast the process.

use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::control::call;
use crate::control::commands::{json_of, run_command, stdout_of};
use crate::lab::client::{get, get_with, read_head, read_response};
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, PATIENCE, client, eventually, free_port, lacks_own_engine};

/// A backend whose responses to `/a/…` have the tags `a` and `all`, and so on, and count the requests in their body.
pub struct Origin {
    pub port: u16,
    _backend: Scripted,
}

impl Origin {
    /// `fields`: further fields of responses, each ended by CRLF.
    pub fn start(fields: &'static str) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let backend = Scripted::start(move |mut stream| {
            stream.set_nodelay(true).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let head = read_head(&mut reader);
                let Some(path) = head.split(' ').nth(1) else { return };
                let tag = path.split(['/', '?']).nth(1).unwrap_or_default().to_owned();
                let body = count.fetch_add(1, Ordering::SeqCst).to_string();
                let response = format!(
                    "HTTP/1.1 200 OK\r\nCache-Tag: {tag}, all\r\nContent-Length: {}\r\n{fields}\r\n{body}",
                    body.len()
                );
                if stream.write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { port: backend.port, _backend: backend }
    }
}

/// Fields of a response that is fresh for an hour.
pub const FRESH: &str = "Cache-Control: max-age=3600\r\n";

/// Routes `/memory` and `/` with caches in memory, and `/disk` on disk, in the folder of the lab.
pub fn yaml(port: u16, backend: u16) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         cache: {{ disk: {{ path: '{{folder}}/cache', size: 64MiB }} }}\n\
         pools:\n  a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n\
         routes:\n\
         \x20 - {{ path: /, pool: a, name: main, cache: {{}} }}\n\
         \x20 - {{ path: /disk, pool: a, name: disk, cache: {{ store: disk }} }}\n\
         \x20 - {{ path: /pages, pool: a, name: pages, cache: {{ key: {{ query: only, parameters: [page] }} }} }}\n"
    )
}

/// Whether the response to `path` is from the cache.
fn is_hit(port: u16, path: &str) -> bool {
    let response = get(port, path);
    assert_eq!(response.status, 200);
    response.header("cache-status").contains("; hit")
}

/// Stores the responses to these paths.
fn fill(port: u16, paths: &[&str]) {
    for path in paths {
        get(port, path);
        eventually("the response is stored", PATIENCE, || is_hit(port, path));
    }
}

/// The paths whose responses are from the cache.
fn hits<'a>(port: u16, paths: &[&'a str]) -> Vec<&'a str> {
    paths.iter().copied().filter(|path| is_hit(port, path)).collect()
}

#[test]
fn purge_removes_the_responses_of_a_url_a_prefix_a_tag_or_all() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    let paths = ["/a/1", "/a/1?x", "/a/2", "/ab", "/b/1", "/disk/1", "/disk/2"];
    let url = format!("localhost:{port}");
    get(port, "/a/1");
    for (arguments, gone) in [
        // The host of the requests is `localhost`.
        (vec!["--url", "http://localhost/a/1"], vec!["/a/1"]),
        (vec!["--url", "localhost/a/%31?x"], vec!["/a/1?x"]),
        (vec!["--url", "https://localhost/a/1"], vec![]),
        (vec!["--url", &url], vec![]),
        (vec!["--url", "http://LOCALHOST:80/disk/1"], vec!["/disk/1"]),
        (vec!["--prefix", "/a"], vec!["/a/1", "/a/1?x", "/a/2", "/ab"]),
        (vec!["--prefix", "localhost/a/"], vec!["/a/1", "/a/1?x", "/a/2"]),
        (vec!["--prefix", "https://other/a/"], vec![]),
        (vec!["--prefix", "/disk/", "--store", "memory"], vec![]),
        (vec!["--tag", "a"], vec!["/a/1", "/a/1?x", "/a/2"]),
        (vec!["--tag", "disk", "--store", "disk"], vec!["/disk/1", "/disk/2"]),
        (vec!["--all", "--store", "disk"], vec!["/disk/1", "/disk/2"]),
        (vec!["--all"], paths.to_vec()),
    ] {
        fill(port, &paths);
        stdout_of(&lab, &[&["cache", "purge"], &arguments[..]].concat());
        let kept: Vec<&str> = paths.iter().copied().filter(|path| !gone.contains(path)).collect();
        assert_eq!(hits(port, &paths), kept, "{arguments:?}");
    }
}

#[test]
fn purge_of_a_url_concerns_all_variants_and_the_key_of_its_route() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start("Cache-Control: max-age=3600\r\nVary: Accept-Language\r\n"), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    let is_hit = |path: &str, language: &str| {
        let response = get_with(port, path, &format!("Accept-Language: {language}\r\n"));
        response.header("cache-status").contains("; hit")
    };
    for path in ["/pages?page=1&other=2", "/pages?page=2"] {
        for language in ["de", "en"] {
            is_hit(path, language);
            eventually("the response is stored", PATIENCE, || is_hit(path, language));
        }
    }
    let purged = json_of(&lab, &["cache", "purge", "--url", "http://localhost/pages?page=1&yet=3"]);
    // The route at `/` has another key for the URL.
    assert_eq!(purged["purged"].as_array().unwrap().len(), 2, "{purged}");
    assert!(!is_hit("/pages?page=1", "de") && !is_hit("/pages?page=1", "en"));
    assert!(is_hit("/pages?page=2", "de") && is_hit("/pages?page=2", "en"));
}

#[test]
fn soft_purge_makes_responses_stale_and_a_failed_validation_sends_them() {
    if lacks_own_engine() {
        return;
    }
    let port = free_port();
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&fails);
    let backend = Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let response: &[u8] = match failing.load(Ordering::SeqCst) {
                0 => {
                    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600, stale-if-error=60\r\nContent-Length: 2\r\n\r\nok"
                }
                _ => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            };
            stream.write_all(response).unwrap();
        }
    });
    let lab = Lab::start(&yaml(port, backend.port));
    fill(port, &["/a"]);
    let text = stdout_of(&lab, &["cache", "purge", "--tag", "none", "--soft"]);
    assert!(text.starts_with("purged softly: tag none\n"), "{text}");
    assert!(is_hit(port, "/a"));
    stdout_of(&lab, &["cache", "purge", "--url", "localhost/a", "--soft"]);
    let only_if_cached = client::get_with(port, "/a", "Cache-Control: only-if-cached\r\n");
    assert_eq!(only_if_cached.status, 504, "it needs a validation");
    fails.store(1, Ordering::SeqCst);
    let response = get(port, "/a");
    assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    fails.store(0, Ordering::SeqCst);
    assert!(!is_hit(port, "/a"), "it is fetched again");
    stdout_of(&lab, &["cache", "purge", "--all"]);
    fails.store(1, Ordering::SeqCst);
    assert_eq!(get(port, "/a").status, 503, "after a hard purge nothing is left");
    lab.wait_for_log("cache purged: what=\"tag none\" kind=soft stores=memory,disk saved=true");
}

#[test]
fn response_that_is_on_its_way_during_a_purge_is_not_reused() {
    if lacks_own_engine() {
        return;
    }
    let port = free_port();
    let backend = Held::start_with(|mut stream, hold| {
        while !read_head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\no").unwrap();
            hold();
            stream.write_all(b"k").unwrap();
        }
    });
    let lab = Lab::start(&yaml(port, backend.port));
    for path in ["/a", "/disk/a"] {
        let mut stream = client::connect(port);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        backend.arrived();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        stdout_of(&lab, &["cache", "purge", "--all"]);
        backend.release();
        let rest = read_response(&mut std::io::Cursor::new(first).chain(&mut stream));
        assert_eq!(rest.body, "ok", "the client of the fetch gets the whole response");
        backend.release();
        assert!(!is_hit(port, path), "{path}");
        backend.arrived();
        eventually("the later response is stored", PATIENCE, || {
            backend.release();
            is_hit(port, path)
        });
        backend.forget_arrived();
    }
}

/// A response to HEAD makes a stored response fresh again, unless the backend sent it before the purge.
#[test]
fn response_to_head_that_is_on_its_way_during_a_soft_purge_does_not_undo_it() {
    if lacks_own_engine() {
        return;
    }
    let port = free_port();
    let backend = Held::start_with(|mut stream, hold| {
        loop {
            let head = read_head(&mut stream);
            let body = match head.get(..4) {
                Some("GET ") => "ok",
                Some(_) => {
                    hold();
                    ""
                }
                None => return,
            };
            let response = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\n{body}"
            );
            stream.write_all(response.as_bytes()).unwrap();
        }
    });
    let lab = Lab::start(&yaml(port, backend.port));
    for path in ["/a", "/disk/a"] {
        fill(port, &[path]);
        let mut stream = client::connect(port);
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nCache-Control: no-cache\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        backend.arrived();
        stdout_of(&lab, &["cache", "purge", "--url", &format!("localhost{path}"), "--soft"]);
        backend.release();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
        // The stored response is updated after the response to HEAD.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!is_hit(port, path), "{path}");
    }
}

#[test]
fn purge_of_the_store_on_disk_survives_kill_and_restart() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let yaml = yaml(port, origin.port);
    let paths = ["/disk/1", "/disk/2", "/disk/3", "/disk/4"];
    let mut kept = paths.to_vec();
    for (number, purge) in [["--url", "http://localhost/disk/1"], ["--prefix", "localhost/disk/2"]].iter().enumerate() {
        let mut lab = Lab::start_in(Arc::clone(&folder), &yaml);
        if number == 0 {
            fill(port, &paths);
        }
        let purged = json_of(&lab, &[&["cache", "purge"], &purge[..]].concat());
        assert_eq!(purged["stores"][1]["problem"], json!(null), "{purged}");
        kept.remove(0);
        lab.signal(Signal::SIGKILL);
        lab.wait_exit(PATIENCE);
        let mut lab = Lab::start_in(Arc::clone(&folder), &yaml);
        let (_, route) = call(&lab, Method::GET, "/cache", "");
        assert_eq!(route["stores"][1]["purges"], number + 1, "{route}");
        if number == 1 {
            assert_eq!(hits(port, &paths), kept);
        }
        lab.signal(Signal::SIGTERM);
        lab.wait_exit(PATIENCE);
    }
    // What was stored after the purges stays.
    let mut lab = Lab::start_in(Arc::clone(&folder), &yaml);
    assert_eq!(hits(port, &paths), paths);
    // A response to an unsafe method makes the stored one invalid, also for the next process.
    let post = b"POST /disk/4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(client::exchange(port, post).status, 200);
    let journal = folder.path().join("cache/purges");
    let lines = || std::fs::read_to_string(&journal).unwrap().lines().count();
    eventually("the invalidation is in the journal", PATIENCE, || lines() == 3);
    lab.signal(Signal::SIGKILL);
    lab.wait_exit(PATIENCE);
    let _lab = Lab::start_in(folder, &yaml);
    assert_eq!(hits(port, &paths), paths[..3]);
}

#[test]
fn purge_by_another_process_in_the_same_folder_applies() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    fill(port, &["/disk/1", "/disk/2"]);
    // A connection that stays with the old process.
    let mut old = client::connect(port);
    let mut ask = |path: &str| {
        old.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        read_response(&mut old)
    };
    assert!(ask("/disk/1").header("cache-status").contains("; hit"));
    let purges = folder_journal(&lab);
    // The line of another process, as the successor would write it.
    let now = std::time::SystemTime::now();
    let scope = l7lb::cache::purge::Scope::Tag("disk".to_owned());
    let line = l7lb::cache::purge::Purge { scope, kind: l7lb::cache::purge::Kind::Hard, at: now }.to_line();
    std::fs::OpenOptions::new().create(true).append(true).open(purges).unwrap().write_all(line.as_bytes()).unwrap();
    eventually("the process sees the purge of the other one", PATIENCE, || {
        call(&lab, Method::GET, "/cache", "").1["stores"][1]["purges"] == 1
    });
    assert!(!ask("/disk/1").header("cache-status").contains("; hit"));
}

fn folder_journal(lab: &Lab) -> std::path::PathBuf {
    lab.folder().join("cache/purges")
}

#[test]
fn purge_that_cannot_be_saved_applies_and_reports_that() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    fill(port, &["/disk/1", "/a/1"]);
    std::os::unix::fs::symlink("/dev/full", folder_journal(&lab)).unwrap();
    let text = stdout_of(&lab, &["cache", "purge", "--all"]);
    assert!(text.contains("this does not survive a restart: No space left on device"), "{text}");
    assert_eq!(hits(port, &["/disk/1", "/a/1"]), [""; 0]);
    lab.wait_for_log("purge journal: ");
    lab.wait_for_log("cache purged: what=\"all\" kind=hard stores=memory,disk saved=false");
}

/// `one_purge_of_a_tag_concerns_each_of_many_responses_with_it_and_no_other` does this with more responses, without HTTP.
#[test]
fn thousands_of_responses_are_purged_by_one_tag() {
    if lacks_own_engine() {
        return;
    }
    const COUNT: usize = 4_000;
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    let connections: Vec<_> = (0..4)
        .map(|part| {
            std::thread::spawn(move || {
                for numbers in (part..COUNT).step_by(4).collect::<Vec<_>>().chunks(100) {
                    let mut stream = client::connect(port);
                    let requests: String = numbers
                        .iter()
                        .map(|number| format!("GET /many/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                        .collect();
                    stream.write_all(requests.as_bytes()).unwrap();
                    let mut reader = BufReader::new(stream);
                    for _ in numbers {
                        assert_eq!(read_response(&mut reader).status, 200);
                    }
                }
            })
        })
        .collect();
    connections.into_iter().for_each(|connection| connection.join().unwrap());
    let entries = || call(&lab, Method::GET, "/cache", "").1["stores"][0]["entries"].as_u64();
    eventually("all are stored", PATIENCE, || entries() == Some(COUNT as u64));
    fill(port, &["/other/1"]);
    let (status, purged) = call(&lab, Method::POST, "/cache/purge", r#"{"tag":"many"}"#);
    assert_eq!(status, StatusCode::OK, "{purged}");
    for number in 0..COUNT {
        assert!(!is_hit(port, &format!("/many/{number}")), "{number}");
    }
    assert!(is_hit(port, "/other/1"));
}

#[test]
fn invalid_purge_is_rejected_with_the_reason() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port).replace("path: /,", "host: a.example, path: /,"));
    for (body, cause, detail) in [
        ("{}", "malformed", "name one of `url`, `prefix`, `tag` and `all`"),
        (r#"{"url":"http://a.example/","all":true}"#, "malformed", "name one of"),
        (r#"{"url":"/a"}"#, "malformed", "`/a` has no host"),
        (r#"{"url":"a.example/%zz"}"#, "malformed", "is not a valid URL"),
        (r#"{"url":"a.example/.."}"#, "malformed", "is not a valid URL"),
        (r#"{"prefix":"/a?b"}"#, "malformed", "a prefix has no query"),
        (r#"{"tag":"a,b"}"#, "malformed", "is not a tag"),
        (r#"{"url":"b.example/"}"#, "no_cache", "no route with a cache matches b.example/"),
        (r#"{"urls":"b.example/"}"#, "malformed", "unknown field"),
    ] {
        let (status, problem) = call(&lab, Method::POST, "/cache/purge", body);
        assert!(status.is_client_error(), "{body}: {problem}");
        assert_eq!(problem["cause"], cause, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{body}: {problem}");
    }
    let output = run_command(&lab, &["cache", "purge", "--url", "b.example/"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(run_command(&lab, &["cache", "purge"]).status.code(), Some(2));
}
