//! Requests sent before the answers of those ahead of them.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::{Door, Received};
use crate::lab::{PATIENCE, client, eventually};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let door = Door::open();
    let ten: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let expected: Vec<String> = (0..10).map(|n| format!("GET /{n}")).collect();
    door.passes_all(ten.as_bytes(), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    door.passes_all(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["POST /1|abc", "GET /2", "POST /3|d", "GET /4"],
    );
}

/// More than is read ahead while an answer is made.
#[test]
fn a_long_pipeline_is_answered_to_its_end() {
    let door = Door::open();
    let padding = "p".repeat(1000);
    let many: String = (0..60).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\nX: {padding}\r\n\r\n")).collect();
    let expected: Vec<String> = (0..60).map(|n| format!("GET /{n}")).collect();
    door.passes_all(many.as_bytes(), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn an_illegal_request_behind_legal_ones_is_refused_and_ends_the_connection() {
    let door = Door::open();
    let outcome = door.send(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost : a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        3,
    );
    assert_eq!(outcome.statuses, [200, 200, 400], "{outcome:#?}");
    assert!(outcome.says_close, "{outcome:#?}");
    let briefs: Vec<String> = outcome.received.iter().map(Received::brief).collect();
    assert_eq!(briefs, ["GET /1", "GET /2"], "{outcome:#?}");
    assert!(outcome.lines[2].contains("path=/3") && outcome.lines[2].contains("cause=bad_request"), "{outcome:#?}");
}

#[test]
fn nothing_behind_connection_close_is_a_request() {
    let door = Door::open();
    for first in [
        "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
        "HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n",
        "HTTP/1.0\r\nHost: a\r\n",
    ] {
        let outcome = door.send(format!("GET /1 {first}\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.says_close), (&[200][..], true), "{outcome:#?}");
        assert_eq!(outcome.received.len(), 1, "{outcome:#?}");
    }
}

/// The end of the client's bytes behind a request counts as its leaving, as with most proxies: it
/// cannot be told from a client that closed. What is ahead of the last request is answered.
#[test]
fn a_client_that_half_closes_gets_the_answers_ahead_of_its_last_request() {
    let door = Door::open();
    for count in [1, 2, 5] {
        let sent: Vec<String> = (0..count).map(|n| format!("GET /{count}/{n}")).collect();
        let requests: String = sent.iter().map(|request| format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        let before = door.lab.access().len();
        let mut stream = client::connect(door.port);
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).ok();
        let answered = answers.matches("HTTP/1.1 200").count();
        // The last answer may have been quicker than the end.
        assert!(answered + 1 >= count && answered <= count, "{count}: {answers}");
        eventually("each has its line", PATIENCE, || door.lab.access().len() == before + count);
        let mut received: Vec<String> = door.backend.take().iter().map(Received::brief).collect();
        // The last request of the turn before may arrive after its client has gone.
        received.retain(|request| request.starts_with(&format!("GET /{count}/")));
        assert!(sent.starts_with(&received), "{count}: {received:?}");
    }
}

/// A request with half a body, or half a head, is no request.
#[test]
fn what_is_cut_off_is_never_forwarded_as_whole() {
    let door = Door::open();
    for bytes in [
        &b"GET /x HTTP/1.1\r\nHost: a\r\n"[..],
        b"GET /x HTT",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let mut stream = client::connect(door.port);
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).ok();
        assert!(!answers.contains("HTTP/1.1 200"), "{}: {answers}", bytes.escape_ascii());
    }
}
