//! Retries: what goes to another backend, what does not and why, and how many there may be.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::client::{self, exchange, get};
use crate::lab::free_port;
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::unchecked;

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick";

fn post(port: u16, headers: &str, body: usize) -> client::Answer {
    let body = "x".repeat(body);
    let head =
        format!("POST /x HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    exchange(port, format!("{head}{body}").as_bytes())
}

/// A backend that takes whole requests and closes without an answer, and how many it took.
fn closes() -> (Scripted, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let backend = Scripted::start(move |mut stream| {
        let head = client::read_head(&mut stream).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).ok();
        counter.fetch_add(1, Ordering::Relaxed);
    });
    (backend, taken)
}

#[test]
fn a_backend_that_answers_503_costs_gets_no_failure_and_posts_are_not_repeated() {
    let (sick, well) = (Recorder::answering(UNAVAILABLE), Recorder::start());
    let port = free_port();
    let lab = unchecked(port, &[sick.port, well.port], "");
    for _ in 0..10 {
        let answer = get(port, "/x");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }
    assert!(!sick.take().is_empty(), "it was asked");
    assert!(lab.wait_for_access("tries=2").contains("status=200"));
    let before = well.take().len();
    assert_eq!(before, 10);
    // Each POST reaches one backend, whose answer comes back as it is.
    let statuses: Vec<(u16, String)> = (0..6).map(|_| post(port, "", 3)).map(|a| (a.status, a.body)).collect();
    assert!(statuses.contains(&(503, "sick".to_owned())), "{statuses:?}");
    assert_eq!(sick.take().len() + well.take().len(), 6);
    let line = lab.wait_for_access("status=503");
    assert!(line.contains("tries=1 ") && line.contains("cause=- ") && line.contains("not idempotent"), "{line}");
}

#[test]
fn an_idempotency_key_counts_where_the_route_says_so() {
    let ((closes, taken), well) = (closes(), Recorder::start());
    for (route, all_well) in [("", false), (", retry: { idempotency_key: true }", true)] {
        let port = free_port();
        let _lab = unchecked(port, &[closes.port, well.port], route);
        let before = taken.load(Ordering::Relaxed);
        let answers: Vec<client::Answer> = (0..4).map(|_| post(port, "Idempotency-Key: 1\r\n", 100)).collect();
        assert!(taken.load(Ordering::Relaxed) > before, "it was asked");
        assert_eq!(answers.iter().all(|answer| answer.status == 200), all_well, "{answers:?}");
    }
    assert!(well.take().iter().all(|request| request.body == vec![b'x'; 100]), "bodies are replayed whole");
}

#[test]
fn a_body_that_is_not_kept_whole_is_not_sent_again_and_the_log_says_so() {
    let ((closes, _), well) = (closes(), Recorder::start());
    let port = free_port();
    let lab = unchecked(port, &[closes.port, well.port], ", retry: { methods: any }");
    assert!((0..4).all(|_| post(port, "", 60_000).status == 200), "60,000 bytes are kept");
    assert!(well.take().iter().all(|request| request.body.len() == 60_000));
    let statuses: Vec<u16> = (0..4).map(|_| post(port, "", 70_000).status).collect();
    assert!(statuses.contains(&502), "{statuses:?}");
    assert!(lab.wait_for_access("status=502").contains("larger than 64 KiB"));
}

#[test]
fn who_has_no_other_backend_is_told_what_the_last_one_said() {
    let (one, two) = (Recorder::answering(UNAVAILABLE), Recorder::answering(UNAVAILABLE));
    let port = free_port();
    let lab = unchecked(port, &[one.port, two.port], "");
    let answer = get(port, "/x");
    assert_eq!((answer.status, answer.body.as_str()), (503, "sick"));
    let line = lab.wait_for_access("status=503");
    assert!(line.contains("tries=2 ") && line.contains("no other backend"), "{line}");
    assert_eq!(one.take().len() + two.take().len(), 2);
}

#[test]
fn connections_that_fail_are_repeated_for_every_method_at_most_twice() {
    let well = Recorder::start();
    let port = free_port();
    let nobody: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let lab_one = unchecked(port, &[nobody[0], nobody[1], well.port], "");
    assert!((0..9).all(|_| post(port, "", 10).status == 200));
    assert_eq!(well.take().len(), 9);
    drop(lab_one);
    let port = free_port();
    let lab = unchecked(port, &[nobody[0], nobody[1], nobody[2], well.port], ", retry: { tries: 2 }");
    let statuses: Vec<u16> = (0..8).map(|_| get(port, "/x").status).collect();
    assert!(statuses.contains(&502), "two of four tries find nobody: {statuses:?}");
    assert!(lab.wait_for_access("status=502").contains("no tries left"));
}

#[test]
fn retries_cannot_make_an_outage_much_worse() {
    let failing: Vec<Recorder> = (0..4).map(|_| Recorder::answering(UNAVAILABLE)).collect();
    let ports: Vec<u16> = failing.iter().map(|backend| backend.port).collect();
    let port = free_port();
    let lab = unchecked(port, &ports, "");
    let mut stream = client::connect(port);
    let requests = 400;
    for _ in 0..requests {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(client::read_answer(&mut stream).status, 503);
    }
    let seen: usize = failing.iter().map(|backend| backend.take().len()).sum();
    // The floor of three a second may allow a few more, should this take longer than expected.
    assert!(seen > requests && seen <= requests * 13 / 10, "{seen} for {requests}");
    lab.wait_for_access("budget is exhausted");
}

#[test]
fn what_is_repeated_can_be_chosen() {
    let (wrong, well) = (Recorder::answering(b"HTTP/1.1 500 Wrong\r\nContent-Length: 0\r\n\r\n"), Recorder::start());
    let port = free_port();
    let lab_default = unchecked(port, &[wrong.port, well.port], "");
    assert!((0..4).all(|_| get(port, "/x").status == 200), "500 may be this backend's own fault");
    drop(lab_default);
    let port = free_port();
    let lab_chosen = unchecked(port, &[wrong.port, well.port], ", retry: { on: [503] }");
    assert!((0..4).any(|_| get(port, "/x").status == 500));
    drop(lab_chosen);
}

#[test]
fn an_error_that_two_backends_agree_on_is_the_answer() {
    let wrong = || Recorder::answering(b"HTTP/1.1 500 Wrong\r\nContent-Length: 0\r\n\r\n");
    let all = [wrong(), wrong(), wrong()];
    let port = free_port();
    let lab = unchecked(port, &all.each_ref().map(|backend| backend.port), "");
    assert_eq!(get(port, "/x").status, 500);
    assert_eq!(all.iter().map(|backend| backend.take().len()).sum::<usize>(), 2, "the third is not bothered");
    lab.wait_for_access("another backend answered likewise");
}

#[test]
fn a_retry_that_the_budget_refuses_takes_nobodys_turn() {
    let (sick, well) = (Recorder::answering(UNAVAILABLE), Recorder::start());
    let port = free_port();
    let _lab = unchecked(port, &[sick.port, well.port], "");
    let statuses: Vec<u16> = (0..120).map(|_| get(port, "/x").status).collect();
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!(failed <= 60, "at most the turns of the sick one: {statuses:?}");
}
