//! Pipelining: requests sent before the responses to earlier requests.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::{Fixture, Received};
use crate::lab::{PATIENCE, client, eventually};

#[test]
fn pipelined_requests_get_responses_in_order() {
    let fixture = Fixture::open();
    let ten: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let expected: Vec<String> = (0..10).map(|n| format!("GET /{n}")).collect();
    fixture.passes_all(ten.as_bytes(), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.passes_all(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["POST /1|abc", "GET /2", "POST /3|d", "GET /4"],
    );
}

/// More bytes than the listener reads ahead during a response.
#[test]
fn pipeline_longer_than_the_read_ahead_buffer_gets_every_response() {
    let fixture = Fixture::open();
    let padding = "p".repeat(1000);
    let many: String = (0..60).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\nX: {padding}\r\n\r\n")).collect();
    let expected: Vec<String> = (0..60).map(|n| format!("GET /{n}")).collect();
    fixture.passes_all(many.as_bytes(), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn illegal_pipelined_request_is_rejected_and_closes_the_connection() {
    let fixture = Fixture::open();
    let outcome = fixture.send(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost : a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        3,
    );
    assert_eq!(outcome.statuses, [200, 200, 400], "{outcome:#?}");
    assert!(outcome.has_close, "{outcome:#?}");
    let briefs: Vec<String> = outcome.received.iter().map(Received::brief).collect();
    assert_eq!(briefs, ["GET /1", "GET /2"], "{outcome:#?}");
    assert!(outcome.lines[2].contains("path=/3") && outcome.lines[2].contains("cause=bad_request"), "{outcome:#?}");
}

#[test]
fn bytes_after_a_request_with_connection_close_are_ignored() {
    let fixture = Fixture::open();
    for first in [
        "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
        "HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n",
        "HTTP/1.0\r\nHost: a\r\n",
    ] {
        let outcome = fixture.send(format!("GET /1 {first}\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.has_close), (&[200][..], true), "{outcome:#?}");
        assert_eq!(outcome.received.len(), 1, "{outcome:#?}");
    }
}

/// End of stream after a request counts as a client that has gone, as in most proxies: it cannot be
/// distinguished from a closed connection. Requests before the last one get their responses.
#[test]
fn half_closed_client_gets_the_responses_before_its_last_request() {
    let fixture = Fixture::open();
    for count in [1, 2, 5] {
        let sent: Vec<String> = (0..count).map(|n| format!("GET /{count}/{n}")).collect();
        let requests: String = sent.iter().map(|request| format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        let before = fixture.lab.access().len();
        let mut stream = client::connect(fixture.port);
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).ok();
        let answered = answers.matches("HTTP/1.1 200").count();
        // The last response may have been sent before the end of stream was seen.
        assert!(answered + 1 >= count && answered <= count, "{count}: {answers}");
        eventually("each request has its access log line", PATIENCE, || fixture.lab.access().len() == before + count);
        let mut received: Vec<String> = fixture.backend.take().iter().map(Received::brief).collect();
        // The last request of the previous round may arrive after its client has gone.
        received.retain(|request| request.starts_with(&format!("GET /{count}/")));
        assert!(sent.starts_with(&received), "{count}: {received:?}");
    }
}

/// A request with an incomplete head or body is not forwarded as complete.
#[test]
fn truncated_request_is_never_forwarded_as_complete() {
    let fixture = Fixture::open();
    for bytes in [
        &b"GET /x HTTP/1.1\r\nHost: a\r\n"[..],
        b"GET /x HTT",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let mut stream = client::connect(fixture.port);
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).ok();
        assert!(!answers.contains("HTTP/1.1 200"), "{}: {answers}", bytes.escape_ascii());
    }
}
