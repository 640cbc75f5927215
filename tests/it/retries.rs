//! Retries: which requests are retried on another backend, the logged reason if not, and the retry budget.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::client::{self, exchange, get};
use crate::lab::free_port;
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::unchecked;

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown";

fn post(port: u16, headers: &str, body: usize) -> client::Response {
    let body = "x".repeat(body);
    let head =
        format!("POST /x HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    exchange(port, format!("{head}{body}").as_bytes())
}

/// A backend that reads each request and closes the connection without a response. Also returns the number of
/// requests that it has read.
fn closing_backend() -> (Scripted, Arc<AtomicUsize>) {
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    let backend = Scripted::start(move |mut stream| {
        let head = client::read_head(&mut stream).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).ok();
        counter.fetch_add(1, Ordering::Relaxed);
    });
    (backend, received)
}

#[test]
fn gets_are_retried_after_a_503_and_posts_are_not() {
    let (failing, healthy) = (Recorder::answering(UNAVAILABLE), Recorder::start());
    let port = free_port();
    let lab = unchecked(port, &[failing.port, healthy.port], "");
    for _ in 0..10 {
        let response = get(port, "/x");
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }
    assert!(!failing.take().is_empty(), "the failing backend got a request");
    assert!(lab.wait_for_access("attempts=2").contains("status=200"));
    let before = healthy.take().len();
    assert_eq!(before, 10);
    // Each POST is sent to one backend only, and its response is passed on.
    let statuses: Vec<(u16, String)> = (0..6).map(|_| post(port, "", 3)).map(|a| (a.status, a.body)).collect();
    assert!(statuses.contains(&(503, "down".to_owned())), "{statuses:?}");
    assert_eq!(failing.take().len() + healthy.take().len(), 6);
    let line = lab.wait_for_access("status=503");
    assert!(line.contains("attempts=1 ") && line.contains("cause=- ") && line.contains("not idempotent"), "{line}");
}

#[test]
fn post_with_an_idempotency_key_is_retried_only_if_the_route_allows_it() {
    let ((closing, received), healthy) = (closing_backend(), Recorder::start());
    for (route, retried) in [("", false), (", retry: { idempotency_key: true }", true)] {
        let port = free_port();
        let _lab = unchecked(port, &[closing.port, healthy.port], route);
        let before = received.load(Ordering::Relaxed);
        let responses: Vec<client::Response> = (0..4).map(|_| post(port, "Idempotency-Key: 1\r\n", 100)).collect();
        assert!(received.load(Ordering::Relaxed) > before, "the failing backend got a request");
        assert_eq!(responses.iter().all(|response| response.status == 200), retried, "{responses:?}");
    }
    assert!(healthy.take().iter().all(|request| request.body == vec![b'x'; 100]), "retries send the whole body");
}

#[test]
fn request_with_a_body_larger_than_the_buffer_is_not_retried_and_the_reason_is_logged() {
    let ((closing, _), healthy) = (closing_backend(), Recorder::start());
    let port = free_port();
    let lab = unchecked(port, &[closing.port, healthy.port], ", retry: { methods: any }");
    assert!((0..4).all(|_| post(port, "", 60_000).status == 200), "60,000 bytes fit the buffer");
    assert!(healthy.take().iter().all(|request| request.body.len() == 60_000));
    let statuses: Vec<u16> = (0..4).map(|_| post(port, "", 70_000).status).collect();
    assert!(statuses.contains(&502), "{statuses:?}");
    assert!(lab.wait_for_access("status=502").contains("larger than 64 KiB"));
}

#[test]
fn last_response_is_passed_on_if_no_other_backend_is_left() {
    let (one, two) = (Recorder::answering(UNAVAILABLE), Recorder::answering(UNAVAILABLE));
    let port = free_port();
    let lab = unchecked(port, &[one.port, two.port], "");
    let response = get(port, "/x");
    assert_eq!((response.status, response.body.as_str()), (503, "down"));
    let line = lab.wait_for_access("status=503");
    assert!(line.contains("attempts=2 ") && line.contains("no other backend"), "{line}");
    assert_eq!(one.take().len() + two.take().len(), 2);
}

#[test]
fn failed_connections_are_retried_for_every_method_up_to_the_attempt_limit() {
    let healthy = Recorder::start();
    let port = free_port();
    let closed: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let lab_one = unchecked(port, &[closed[0], closed[1], healthy.port], "");
    assert!((0..9).all(|_| post(port, "", 10).status == 200));
    assert_eq!(healthy.take().len(), 9);
    drop(lab_one);
    let port = free_port();
    let lab = unchecked(port, &[closed[0], closed[1], closed[2], healthy.port], ", retry: { attempts: 2 }");
    let statuses: Vec<u16> = (0..8).map(|_| get(port, "/x").status).collect();
    assert!(statuses.contains(&502), "two of four backends refuse connections: {statuses:?}");
    assert!(lab.wait_for_access("status=502").contains("no attempts left"));
}

#[test]
fn retry_budget_limits_retries_during_an_outage() {
    let failing: Vec<Recorder> = (0..4).map(|_| Recorder::answering(UNAVAILABLE)).collect();
    let ports: Vec<u16> = failing.iter().map(|backend| backend.port).collect();
    let port = free_port();
    let lab = unchecked(port, &ports, "");
    let mut stream = client::connect(port);
    let requests = 400;
    for _ in 0..requests {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(client::read_response(&mut stream).status, 503);
    }
    let attempts: usize = failing.iter().map(|backend| backend.take().len()).sum();
    // The floor of three retries per second may allow a few more if this takes longer than expected.
    assert!(attempts > requests && attempts <= requests * 13 / 10, "{attempts} attempts for {requests} requests");
    lab.wait_for_access("budget is exhausted");
}

#[test]
fn retry_on_selects_the_statuses_that_are_retried() {
    let (failing, healthy) =
        (Recorder::answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"), Recorder::start());
    let port = free_port();
    let lab_default = unchecked(port, &[failing.port, healthy.port], "");
    assert!((0..4).all(|_| get(port, "/x").status == 200), "a 500 is retried by default");
    drop(lab_default);
    let port = free_port();
    let lab_chosen = unchecked(port, &[failing.port, healthy.port], ", retry: { on: [503] }");
    assert!((0..4).any(|_| get(port, "/x").status == 500));
    drop(lab_chosen);
}

#[test]
fn error_from_two_backends_is_passed_on_without_a_third_attempt() {
    let failing = || Recorder::answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let all = [failing(), failing(), failing()];
    let port = free_port();
    let lab = unchecked(port, &all.each_ref().map(|backend| backend.port), "");
    assert_eq!(get(port, "/x").status, 500);
    assert_eq!(all.iter().map(|backend| backend.take().len()).sum::<usize>(), 2, "the third backend gets no request");
    lab.wait_for_access("another backend gave the same response");
}

#[test]
fn retry_without_budget_does_not_advance_round_robin() {
    let (failing, healthy) = (Recorder::answering(UNAVAILABLE), Recorder::start());
    let port = free_port();
    let _lab = unchecked(port, &[failing.port, healthy.port], "");
    let statuses: Vec<u16> = (0..120).map(|_| get(port, "/x").status).collect();
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!(failed <= 60, "at most the requests whose turn is the failing backend: {statuses:?}");
}
