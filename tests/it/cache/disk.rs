//! The store on disk across processes: an upgrade while both processes use the folder, and a folder that is read-only.

use std::io::Write;
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::purge::{FRESH, Origin, yaml};
use crate::control::commands::stdout_of;
use crate::lab::client::{self, get, read_head, read_response};
use crate::lab::scripted::Held;
use crate::lab::{Lab, PATIENCE, can_mount, eventually, free_port, lacks_own_engine};

fn is_hit(port: u16, path: &str) -> bool {
    let response = get(port, path);
    assert_eq!(response.status, 200, "{path}");
    response.header("cache-status").contains("; hit")
}

fn fill(port: u16, path: &str) {
    get(port, path);
    eventually("the response is stored", PATIENCE, || is_hit(port, path));
}

/// A backend whose responses to requests with `slow` end when the test releases them.
fn slow_origin() -> Held {
    Held::start_with(|mut stream, hold| {
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            if head.contains("slow") {
                hold();
            }
            let response = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(response.as_bytes()).unwrap();
        }
    })
}

/// Sends a request through a new connection, and waits until it is at the backend.
fn send(origin: &Held, port: u16, request: &str) -> std::net::TcpStream {
    let mut stream = client::connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    origin.arrived();
    stream
}

#[test]
fn purges_and_invalidations_of_both_processes_apply_during_an_upgrade() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (slow_origin(), free_port());
    let mut old = Lab::start(&yaml(port, origin.port));
    for path in ["/disk/1", "/disk/2", "/disk/3", "/disk/4"] {
        fill(port, path);
    }
    // Requests that stay with the old process: one that is stored, and one that makes a stored response invalid.
    let mut fetch = send(&origin, port, "GET /disk/slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST /disk/3 HTTP/1.1\r\nHost: localhost\r\nX-Is: slow\r\nContent-Length: 0\r\n\r\n";
    let mut post = send(&origin, port, post);
    let new = old.successor();
    stdout_of(&old, &["cache", "purge", "--url", "localhost/disk/1"]);
    old.signal(Signal::SIGQUIT);
    new.wait_until_ready();
    assert!(!is_hit(port, "/disk/1"), "the old process purged it");
    assert!(is_hit(port, "/disk/2") && is_hit(port, "/disk/3"), "the new process uses what the old one stored");
    stdout_of(&new, &["cache", "purge", "--url", "localhost/disk/2"]);
    stdout_of(&new, &["cache", "purge", "--url", "localhost/disk/slow"]);
    assert!(!is_hit(port, "/disk/2"), "the new process purged it");
    assert!(old.is_running());
    // The old process stores a response that it requested before the purge, and invalidates another one.
    (0..2).for_each(|_| origin.release());
    assert_eq!((read_response(&mut fetch).status, read_response(&mut post).status), (200, 200));
    assert!(old.wait_exit(PATIENCE).success());
    eventually("the invalidation by the old process applies", PATIENCE, || !is_hit(port, "/disk/3"));
    origin.release();
    assert!(!is_hit(port, "/disk/slow"), "the old process requested it before the purge");
    assert!(is_hit(port, "/disk/4"));
    assert!(!new.log().contains("purge journal"), "{}", new.log());
}

#[test]
fn read_only_folder_serves_stored_responses_and_the_rest_from_the_backend() {
    if lacks_own_engine() {
        return;
    }
    if !can_mount() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let yaml = yaml(port, origin.port);
    let mut lab = Lab::start_in(Arc::clone(&folder), &yaml);
    fill(port, "/disk/1");
    lab.signal(Signal::SIGTERM);
    assert!(lab.wait_exit(PATIENCE).success());
    let cache = folder.path().join("cache");
    let cache = cache.display();
    let script = format!("mount --bind {cache} {cache} && mount -o remount,bind,ro {cache} && exec \"$0\" \"$@\"");
    let mut lab = Lab::start_in_own_mounts(folder, &yaml, &script);
    assert!(is_hit(port, "/disk/1"), "{}", lab.log());
    for _ in 0..3 {
        for number in 2..20 {
            assert!(!is_hit(port, &format!("/disk/{number}")));
        }
    }
    // Purges apply, but only to this process.
    let text = stdout_of(&lab, &["cache", "purge", "--url", "localhost/disk/1"]);
    assert!(text.contains("does not survive a restart"), "{text}");
    assert!(!is_hit(port, "/disk/1"));
    let count = |text: &str| lab.log().lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("cannot store responses: "), 1, "{}", lab.log());
    assert_eq!(count("purge journal: "), 1, "{}", lab.log());
    assert!(lab.is_running());
}
