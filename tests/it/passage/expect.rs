//! `Expect: 100-continue` and interim responses (RFC 9110 §10.1.1, §15.2).

use std::io::{Read, Write};

use super::{answering, yaml};
use crate::lab::client::{connect, read_head, read_response};
use crate::lab::frames::{Frames, HEADERS};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

const EXPECTING: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

/// A backend that sends 100, reads the body, and responds with it.
fn continuing() -> Scripted {
    Scripted::start(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            assert!(head.to_ascii_lowercase().contains("expect: 100-continue\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
    })
}

#[test]
fn backend_100_continue_is_forwarded_to_the_client() {
    let backend = continuing();
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for body in ["first", "again"] {
        stream.write_all(EXPECTING).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
        stream.write_all(body.as_bytes()).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, body));
    }
    // A client that does not wait for 100 is served as well, and the connection stays usable.
    for body in ["third", "forth"] {
        stream.write_all(&[EXPECTING, body.as_bytes()].concat()).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, body));
    }
}

#[test]
fn backend_may_respond_before_the_body_is_sent() {
    for status in ["413 Content Too Large", "417 Expectation Failed", "401 Unauthorized"] {
        let backend = Scripted::start(move |mut stream| {
            read_head(&mut stream);
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").unwrap();
            // The backend ignores bytes from here on.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        stream.write_all(EXPECTING).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status.to_string(), response.body.as_str()), (status[..3].to_owned(), "no"));
        assert_eq!(response.header("connection"), "close", "the client may or may not send the body: {response:?}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}

#[test]
fn early_hints_are_forwarded_to_http2_clients() {
    if super::lacks_own_engine() {
        return;
    }
    let backend = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut frames = Frames::connect(port);
    frames.get(1, "/");
    for status in [103, 200] {
        let head = frames.find(|frame| frame.kind == HEADERS).unwrap();
        assert_eq!((head.stream, head.status()), (1, status));
    }
}

#[test]
fn early_hints_are_forwarded_before_the_response() {
    let backend = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
          HTTP/1.1 103 Early Hints\r\nLink: </b.js>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        for hint in ["/a.css", "/b.js"] {
            let head = read_head(&mut stream);
            assert!(head.starts_with("HTTP/1.1 103 ") && head.contains(hint), "{head}");
        }
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }
    // HTTP/1.0 has no interim responses.
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    assert!(head.contains(" 200 "), "{head}");
}
