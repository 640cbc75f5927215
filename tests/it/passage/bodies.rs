//! Bodies are forwarded byte for byte with every combination of framing.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Pattern, answering, yaml};
use crate::lab::client::{connect, read_head, read_response};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

const LARGE: usize = 64 << 20;

/// Reads a chunked body and its end through `take`.
fn dechunk(stream: &mut impl Read, mut take: impl FnMut(&[u8])) {
    let line = |stream: &mut dyn Read| {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    loop {
        let size = line(stream);
        let size = usize::from_str_radix(size.trim().split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            while line(stream) != "\r\n" {}
            return;
        }
        let mut chunk = vec![0; size];
        stream.read_exact(&mut chunk).unwrap();
        take(&chunk);
        assert_eq!(line(stream), "\r\n");
    }
}

#[test]
fn response_without_a_body_keeps_the_connection_usable() {
    let backend = Scripted::start(|mut stream: TcpStream| {
        loop {
            let head = read_head(&mut stream);
            let response: &[u8] = match head.split(' ').nth(1) {
                Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"e\"\r\n\r\n",
                Some("/head-chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some("/204") => b"HTTP/1.1 204 No Content\r\nX-Here: yes\r\n\r\n",
                Some("/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\n",
                Some("/empty") => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Some(_) => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend",
                None => return,
            };
            stream.write_all(response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    let mut ask = |method: &str, path: &str| {
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        read_head(&mut stream).to_ascii_lowercase()
    };
    let head = ask("HEAD", "/head");
    assert!(head.contains("content-length: 12345\r\n") && head.contains("etag: \"e\""), "{head}");
    assert!(ask("HEAD", "/head-chunked").starts_with("http/1.1 200 "));
    let head = ask("GET", "/204");
    assert!(head.starts_with("http/1.1 204 ") && head.contains("x-here: yes"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "RFC 9110 §8.6: {head}");
    let head = ask("GET", "/304");
    assert!(head.starts_with("http/1.1 304 ") && head.contains("etag: \"e\""), "{head}");
    assert!(ask("GET", "/empty").contains("content-length: 0\r\n"));
    assert!(ask("GET", "/").starts_with("http/1.1 200 "));
    let mut body = [0; 3];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"end");
}

#[test]
fn clients_of_http_1_0_are_never_sent_chunks() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    // Keep-alive does not apply: the body ends when the connection ends.
    stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(head.contains(" 200 ") && !head.contains("transfer-encoding"), "{head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    assert_eq!(body, "onetwo");
}

#[test]
fn response_ended_by_connection_close_is_forwarded_in_chunks() {
    for version in ["1.0", "1.1"] {
        let backend = Scripted::start(move |mut stream| {
            let head = read_head(&mut stream);
            write!(stream, "HTTP/{version} 200 OK\r\n\r\n").unwrap();
            if head.starts_with("GET /some ") {
                stream.write_all(b"until the end").unwrap();
            }
        });
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        for (path, expected) in [("/some", "until the end"), ("/none", ""), ("/some", "until the end")] {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let response = read_response(&mut stream);
            assert_eq!((response.status, response.body.as_str()), (200, expected));
            assert_eq!(response.header("transfer-encoding"), "chunked", "{response:?}");
        }
        let mut stream = connect(port);
        stream.write_all(b"GET /some HTTP/1.0\r\n\r\n").unwrap();
        let head = read_head(&mut stream).to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        assert_eq!(body, "until the end");
    }
}

#[test]
fn chunks_of_every_size_are_forwarded_in_both_directions() {
    let backend = Scripted::start(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let mut body = Vec::new();
            dechunk(&mut stream, |chunk| body.extend_from_slice(chunk));
            let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in body.chunks(2) {
                write!(response, "{:x};note=\"x\"\r\n", piece.len()).unwrap();
                response.extend_from_slice(piece);
                response.extend_from_slice(b"\r\n");
            }
            response.extend_from_slice(b"0\r\nX-Trailer: dropped\r\n\r\n");
            stream.write_all(&response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    let sent = &Pattern::new().0[..20_000];
    for _ in 0..2 {
        let mut request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in sent.chunks(3) {
            write!(request, "{:X}\r\n", piece.len()).unwrap();
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&request).unwrap();
        assert!(read_head(&mut stream).to_ascii_lowercase().contains("transfer-encoding: chunked"));
        let mut received = Vec::new();
        dechunk(&mut stream, |chunk| received.extend_from_slice(chunk));
        assert!(received == sent);
    }
}

#[test]
fn large_bodies_are_forwarded_unchanged() {
    let backend = Scripted::start(|mut stream| {
        let pattern = Pattern::new();
        loop {
            let head = read_head(&mut stream);
            if head.starts_with("POST") {
                pattern.check(&mut stream, LARGE);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            } else if head.starts_with("GET") {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
                pattern.write(&mut stream, LARGE).unwrap();
            } else {
                return;
            }
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let pattern = Pattern::new();
    let mut stream = connect(port);
    write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
    pattern.write(&mut stream, LARGE).unwrap();
    assert_eq!(read_response(&mut stream).body, "ok");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).contains(" 200 "));
    pattern.check(&mut stream, LARGE);
}

#[test]
fn content_encoding_and_ranges_are_forwarded_unchanged() {
    let backend = Scripted::start(|mut stream| {
        loop {
            let head = read_head(&mut stream).to_ascii_lowercase();
            let response: &[u8] = if head.contains("range: bytes=2-5") && head.contains("if-range: \"e\"") {
                b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\n2345"
            } else if head.contains("accept-encoding: gzip, br") {
                // The first bytes of a gzip file; a proxy must not decode it.
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
            } else {
                return;
            };
            stream.write_all(response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=2-5\r\nIf-Range: \"e\"\r\n\r\n").unwrap();
    let response = read_response(&mut stream);
    assert_eq!((response.status, response.body.as_str()), (206, "2345"));
    assert_eq!(response.header("content-range"), "bytes 2-5/10");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let mut body = [0; 4];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(body, *b"\x1f\x8b\x08\x00");
}
