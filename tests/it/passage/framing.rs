//! How backends mark the end of a response: what is simplified, and what is ambiguous and becomes a 502.

use std::io::Write;

use super::{answering, yaml};
use crate::lab::client::{connect, read_head, read_response};
use crate::lab::frames::{Frames, HEADERS, request};
use crate::lab::{Lab, free_port};

#[test]
fn equal_content_lengths_of_a_backend_are_forwarded_as_one() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nX: y\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        let (backend, port) = (answering(answer), free_port());
        let _lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let head = read_head(&mut stream).to_ascii_lowercase();
            let lengths: Vec<&str> = head.lines().filter(|line| line.starts_with("content-length")).collect();
            assert_eq!(lengths, ["content-length: 3"], "{head}");
            let mut body = [0; 3];
            std::io::Read::read_exact(&mut stream, &mut body).unwrap();
            assert_eq!(&body, b"abc");
        }
        assert_eq!(backend.connections(), 1, "the connection is kept");
    }
}

#[test]
fn response_with_ambiguous_framing_is_a_502() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"[..],
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let (backend, port) = (answering(answer), free_port());
        let lab = Lab::start(&yaml(port, backend.port, "", ""));
        let shown = answer.escape_ascii();
        for method in ["GET", "HEAD", "POST"] {
            let mut stream = connect(port);
            let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
            stream.write_all(format!("{method} / HTTP/1.1\r\nHost: x\r\n{length}\r\n").as_bytes()).unwrap();
            let head = read_head(&mut stream);
            assert!(head.starts_with("HTTP/1.1 502 "), "{method}: {shown}: {head}");
        }
        lab.wait_for_access("cause=backend_failed");
        let mut frames = Frames::connect(port);
        frames.headers(1, true, &request(b"GET", b"/x"));
        assert_eq!(frames.find(|frame| frame.kind == HEADERS).unwrap().status(), 502, "{shown} on HTTP/2");
    }
    let backend = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut stream).status, 200, "a single chunked is no fault");
}
