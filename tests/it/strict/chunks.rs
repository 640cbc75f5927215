//! Chunked bodies: sizes, extensions and trailers are parsed strictly.

use super::{Fixture, SMUGGLED};

/// A chunked POST with these bytes as its body.
fn post(body: &[u8]) -> Vec<u8> {
    [b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat()
}

#[test]
fn malformed_chunk_is_rejected_and_no_request_behind_it_is_served() {
    let fixture = Fixture::open();
    let long_extension = [b"1;", "e".repeat(300).as_bytes(), b"\r\nx\r\n0\r\n\r\n"].concat();
    let long_trailer = [b"1\r\nx\r\n0\r\nX: ", "y".repeat(9000).as_bytes(), b"\r\n\r\n"].concat();
    for (body, detail) in [
        (&b"+1\r\nx\r\n0\r\n\r\n"[..], "a chunk without a size"),
        (b"-1\r\nx\r\n0\r\n\r\n", "a chunk without a size"),
        (b" 1\r\nx\r\n0\r\n\r\n", "a chunk without a size"),
        (b"\r\nx\r\n0\r\n\r\n", "a chunk without a size"),
        (b";a=b\r\nx\r\n0\r\n\r\n", "a chunk without a size"),
        (b"0x1\r\nx\r\n0\r\n\r\n", "not hexadecimal"),
        (b"1_0\r\nx\r\n0\r\n\r\n", "not hexadecimal"),
        (b"1g\r\nx\r\n0\r\n\r\n", "not hexadecimal"),
        (b"1,1\r\nx\r\n0\r\n\r\n", "not hexadecimal"),
        (b"00000000000000001\r\nx\r\n0\r\n\r\n", "too many digits"),
        (b"10000000000000000\r\nx\r\n0\r\n\r\n", "too many digits"),
        (b"1\nx\r\n0\r\n\r\n", "a"),
        (b"1\rx\r\n0\r\n\r\n", "without CRLF"),
        (b"1\r\nx\n0\r\n\r\n", "chunk data that does not match the chunk size"),
        (b"1\r\nx0\r\n\r\n", "chunk data that does not match the chunk size"),
        (b"1\r\nxx\r\n0\r\n\r\n", "chunk data that does not match the chunk size"),
        (b"2\r\nx\r\n0\r\n\r\n", "chunk data that does not match the chunk size"),
        (b"1 1\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1 \r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;a=\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;a=\"b\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;a\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;a\x00\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (b"1;a=\"\n\"\r\nx\r\n0\r\n\r\n", "malformed chunk extension"),
        (&long_extension, "extensions that are too long"),
        (b"0\n\r\n", "a"),
        (b"0\r\n\n", "a"),
        (b"1\r\nx\r\n0\r\nX : y\r\n\r\n", "space before the colon"),
        (b"1\r\nx\r\n0\r\nX: y\r\n z\r\n\r\n", "folded"),
        (b"1\r\nx\r\n0\r\nX: y\n\r\n", "bare LF"),
        (b"1\r\nx\r\n0\r\nX: \x00\r\n\r\n", "control character"),
        (b"1\r\nx\r\n0\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", "space before the colon"),
        (&long_trailer, "trailers that are too long"),
    ] {
        let outcome = fixture.send(&[&post(body), SMUGGLED].concat(), 1);
        let shown = format!("{}\n{outcome:#?}", body[..body.len().min(100)].escape_ascii());
        // The head was legal, so the request may already have been sent to a backend. The backend receives the
        // beginning of a body without an end, and its connection is closed.
        assert_eq!((outcome.statuses.as_slice(), outcome.has_close), (&[400][..], true), "{shown}");
        assert!(outcome.received.iter().all(|received| received.head.starts_with("POST /x ")), "{shown}");
        assert_eq!(outcome.lines.len(), 1, "{shown}");
        assert!(outcome.lines[0].contains("cause=bad_request") && outcome.lines[0].contains(detail), "{shown}");
    }
}

#[test]
fn legal_chunked_body_is_forwarded_without_extensions() {
    let fixture = Fixture::open();
    for body in [
        &b"3\r\nabc\r\n0\r\n\r\n"[..],
        b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"0000000000000003\r\nabc\r\n000\r\n\r\n",
        b"3;a=b\r\nabc\r\n0;c\r\n\r\n",
        b"3 ; a = \"b;\\\"c\" ; d\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n",
    ] {
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let outcome = fixture.send(&[&post(body), &next[..]].concat(), 2);
        let shown = format!("{}\n{outcome:#?}", body.escape_ascii());
        let briefs: Vec<String> = outcome.received.iter().map(super::Received::brief).collect();
        assert_eq!(briefs, ["POST /x|abc", "GET /next"], "{shown}");
        assert_eq!(outcome.received[0].values("transfer-encoding"), ["chunked"], "{shown}");
        assert!(outcome.received[0].values("content-length").is_empty(), "{shown}");
        assert_eq!(outcome.received[0].values("host"), ["a"], "{shown}");
        assert_eq!(outcome.statuses, [200, 200], "{shown}");
    }
}

/// Splits a legal body between two packets at every position.
#[test]
fn chunked_body_is_read_when_packets_end_at_any_byte() {
    use std::io::{Read, Write};
    let fixture = Fixture::open();
    let bytes = post(b"3;a=\"b\"\r\nabc\r\n0\r\nX: y\r\n\r\n");
    for cut in 1..bytes.len() {
        let mut stream = crate::lab::client::connect(fixture.port);
        stream.set_nodelay(true).unwrap();
        stream.write_all(&bytes[..cut]).unwrap();
        stream.flush().unwrap();
        std::thread::yield_now();
        stream
            .write_all(&[&bytes[cut..], b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat())
            .unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "cut at {cut}: {answers}");
        let briefs: Vec<String> = fixture.backend.take().iter().map(super::Received::brief).collect();
        assert_eq!(briefs, ["POST /x|abc", "GET /end"], "cut at {cut}");
    }
}
