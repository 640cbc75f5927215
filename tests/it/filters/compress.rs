//! The filter `compress`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::lab::client::{connect, get_with, read_head};
use crate::lab::frames::{DATA, Frames, HEADERS, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, free_port, run, yaml};
use crate::reload::{UNWATCHED, reloaded, replace};

const FILTER: &str = "filters: [{ compress: {} }]\n";

pub(super) fn decode(coding: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(data).read_to_end(&mut out).map(drop),
        "br" => brotli::Decompressor::new(data, 4096).read_to_end(&mut out).map(drop),
        "zstd" => zstd::stream::read::Decoder::new(data).unwrap().read_to_end(&mut out).map(drop),
        other => panic!("{other:?}"),
    }
    .unwrap();
    out
}

/// A response with its body as bytes: the head, the body without the chunked coding, and whether it is complete.
struct Raw {
    head: String,
    body: Vec<u8>,
    complete: bool,
}

impl Raw {
    fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn read(stream: &mut TcpStream) -> Self {
        let head = read_head(stream);
        let (mut body, mut complete) = (Vec::new(), false);
        while let Some(chunk) = chunk(stream) {
            complete = chunk.is_empty();
            if complete {
                break;
            }
            body.extend(chunk);
        }
        Self { head, body, complete }
    }
}

/// The next chunk; empty at the end. `None` if the connection ends.
fn chunk(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
    let mut data = vec![0; size + 2];
    stream.read_exact(&mut data).ok()?;
    data.truncate(size);
    Some(data)
}

fn fetch(port: u16, method: &str, fields: &str) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes()).unwrap();
    stream
}

/// A long text with its head.
fn page(more: &str) -> &'static [u8] {
    let text = "hello, world. ".repeat(5000);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"v1\"\r\n{more}Content-Length: {}\r\n\r\n",
        text.len()
    );
    Box::leak((head + &text).into_bytes().into_boxed_slice())
}

fn text() -> Vec<u8> {
    "hello, world. ".repeat(5000).into_bytes()
}

#[test]
fn compressed_response_is_decoded_to_itself_over_both_versions_of_http() {
    let (backend, port) = (Recorder::answering(page("")), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
    for (accepted, coding) in [("gzip, br, zstd", "zstd"), ("gzip, br;q=0.9", "gzip"), ("br", "br")] {
        let mut stream = fetch(port, "GET", &format!("Accept-Encoding: {accepted}\r\n"));
        let response = Raw::read(&mut stream);
        assert!(response.complete && response.body.len() < 5000, "{} {}", response.head, response.body.len());
        assert_eq!(response.values("content-encoding"), [coding]);
        assert_eq!((response.values("etag"), response.values("vary")), (vec!["W/\"v1\""], vec!["Accept-Encoding"]));
        assert_eq!(response.values("transfer-encoding"), ["chunked"]);
        assert!(response.values("content-length").is_empty());
        assert!(decode(coding, &response.body) == text());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n").unwrap();
        assert!(decode("br", &Raw::read(&mut stream).body) == text(), "the connection stays open");
        let mut frames = Frames::connect(port);
        let fields: [(&[u8], &[u8]); 1] = [(b"accept-encoding", accepted.as_bytes())];
        frames.headers(1, true, &[&request(b"GET", b"/")[..], &fields[..]].concat());
        let mut body = Vec::new();
        let mut ended = false;
        while !ended {
            let frame = frames.find(|frame| frame.stream == 1).unwrap();
            ended = frame.ends_stream();
            match frame.kind {
                HEADERS => assert_eq!(frame.status(), 200),
                DATA => body.extend(frame.payload),
                _ => {}
            }
        }
        assert!(decode(coding, &body) == text());
    }
    let plain = get_with(port, "/", "Accept-Encoding: identity\r\n");
    assert_eq!((plain.header("content-length"), plain.header("etag")), ("70000", "\"v1\""));
    assert_eq!((plain.header("vary"), plain.body.len()), ("Accept-Encoding", 70_000));
}

#[test]
fn response_to_head_has_the_fields_of_the_response_to_get() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"v1\"\r\nContent-Length: 70000\r\n\r\n";
    let (backend, port) = (Recorder::answering(head), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
    let mut stream = fetch(port, "HEAD", "Accept-Encoding: gzip\r\n");
    for _ in 0..2 {
        let head = read_head(&mut stream).to_lowercase();
        for field in ["content-encoding: gzip", "etag: w/\"v1\"", "vary: accept-encoding", "transfer-encoding: chunked"]
        {
            assert!(head.contains(field) && !head.contains("content-length"), "{field}: {head}");
        }
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    }
    let mut frames = Frames::connect(port);
    let fields: [(&[u8], &[u8]); 1] = [(b"accept-encoding", b"gzip")];
    frames.headers(1, true, &[&request(b"HEAD", b"/")[..], &fields[..]].concat());
    let mut length = 0;
    loop {
        let frame = frames.find(|frame| frame.stream == 1).unwrap();
        length += if frame.kind == DATA { frame.payload.len() } else { 0 };
        if frame.ends_stream() {
            break;
        }
    }
    assert_eq!(length, 0);
}

#[test]
fn client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let (backend, port) = (Recorder::answering(page("")), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_lowercase();
    assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert!(decode("gzip", &body) == text());
}

#[test]
fn each_event_of_a_stream_reaches_the_client_at_once() {
    let backend = Held::start_with(|mut stream, wait| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).unwrap();
        for _ in 0..3 {
            stream.write_all(b"b\r\ndata: one\n\n\r\n").unwrap();
            wait();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
    let mut stream = fetch(port, "GET", "Accept-Encoding: gzip\r\n");
    let head = read_head(&mut stream);
    assert!(head.to_lowercase().contains("content-encoding: gzip"), "{head}");
    let (mut decoder, mut seen) = (flate2::write::GzDecoder::new(Vec::new()), 0);
    for _ in 0..3 {
        seen += 11;
        while decoder.get_ref().len() < seen {
            decoder.write_all(&chunk(&mut stream).unwrap()).unwrap();
            decoder.flush().unwrap();
        }
        backend.release();
    }
    while let Some(rest) = chunk(&mut stream).filter(|rest| !rest.is_empty()) {
        decoder.write_all(&rest).unwrap();
    }
    assert_eq!(decoder.finish().unwrap(), b"data: one\n\n".repeat(3));
}

#[test]
fn encoded_partial_and_untransformable_responses_pass_unchanged() {
    for more in ["Content-Encoding: x\r\n", "Cache-Control: no-transform\r\n", "Content-Range: bytes 0-69999/80000\r\n"]
    {
        let (backend, port) = (Recorder::answering(page(more)), free_port());
        let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
        let response = get_with(port, "/", "Accept-Encoding: gzip\r\n");
        assert_eq!((response.header("content-length"), response.body.len()), ("70000", 70_000), "{more}");
        assert_eq!((response.header("etag"), response.header("vary")), ("\"v1\"", ""), "{more}");
    }
}

#[test]
fn broken_backend_leaves_a_compressed_response_incomplete() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        let all = page("");
        stream.write_all(&all[..all.len() - 1]).unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", FILTER));
    let response = Raw::read(&mut fetch(port, "GET", "Accept-Encoding: gzip\r\n"));
    assert!(response.head.starts_with("HTTP/1.1 200") && !response.complete, "{}", response.head);
    let mut out = Vec::new();
    assert!(flate2::read::GzDecoder::new(&response.body[..]).read_to_end(&mut out).is_err());
}

#[test]
fn accept_encoding_of_the_client_counts_if_filters_remove_it_for_backends() {
    let (backend, port) = (Recorder::answering(page("")), free_port());
    let filters = "filters: [{ headers: { request: { remove: Accept-Encoding } } }, { compress: {} }]\n";
    let _lab = Lab::start(&yaml(port, backend.port, "", filters));
    let response = Raw::read(&mut fetch(port, "GET", "Accept-Encoding: gzip\r\n"));
    assert_eq!(response.values("content-encoding"), ["gzip"]);
    assert!(backend.take()[0].values("accept-encoding").is_empty());
}

#[test]
fn stored_response_is_compressed_for_clients_that_accept_it() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::answering(page("Cache-Control: max-age=60\r\n")), free_port());
    let text_of = yaml(port, backend.port, "", FILTER).replace("pool: a }]", "pool: a, cache: {} }]");
    let _lab = Lab::start(&text_of);
    for coding in ["gzip", "zstd", "br", "gzip"] {
        let response = Raw::read(&mut fetch(port, "GET", &format!("Accept-Encoding: {coding}\r\n")));
        assert!(response.complete, "{}", response.head);
        assert_eq!((response.values("content-encoding"), response.values("etag")), (vec![coding], vec!["W/\"v1\""]));
        assert!(decode(coding, &response.body) == text());
    }
    assert_eq!(get_with(port, "/", "").body.len(), 70_000);
    let part = get_with(port, "/", "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n");
    assert_eq!((part.status, part.body.as_str()), (206, "hello, wor"));
    let unchanged = get_with(port, "/", "Accept-Encoding: gzip\r\nIf-None-Match: W/\"v1\"\r\n");
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, "W/\"v1\""));
    let head = read_head(&mut fetch(port, "HEAD", "Accept-Encoding: gzip\r\n")).to_lowercase();
    assert!(head.contains("content-encoding: gzip") && !head.contains("content-length"), "{head}");
    let received: Vec<_> = backend.take().iter().map(|received| received.brief()).collect();
    assert_eq!(received, ["GET /"], "all of them were served from the store");
}

#[test]
fn response_of_l7lb_itself_is_compressed_with_a_length_and_explain_agrees() {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nroutes:\n\
         - {{ path: /, filters: [{{ respond: {{ body: '{}' }} }}, {{ compress: {{}} }}] }}\n\
         tests: [{{ request: 'http://a:{port}/', headers: {{ Accept-Encoding: br }}, expect: {{ response_headers: {{ Content-Encoding: br }} }} }}]\n",
        "x".repeat(2000)
    ));
    let mut stream = fetch(port, "GET", "Accept-Encoding: br\r\n");
    let head = read_head(&mut stream).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    assert!(head.contains("content-encoding: br"), "{head}");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    assert!(decode("br", &body) == [b'x'; 2000]);
    let file = lab.folder().join("l7lb.yaml");
    let output = run(&["explain", &format!("http://a:{port}/"), "--conf", file.to_str().unwrap()]);
    let explained = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(explained.contains("respond") && output.status.success(), "{explained}");
}

#[test]
fn response_keeps_its_coding_when_a_reload_removes_the_filter_meanwhile() {
    let backend = Held::start_with(|mut stream, wait| {
        while !read_head(&mut stream).is_empty() {
            let all = page("");
            stream.write_all(&all[..1000]).unwrap();
            wait();
            stream.write_all(&all[1000..]).unwrap();
        }
    });
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", &format!("{FILTER}{UNWATCHED}")));
    let mut stream = fetch(port, "GET", "Accept-Encoding: gzip\r\n");
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, "", UNWATCHED));
    reloaded(&lab);
    backend.release();
    assert!(decode("gzip", &Raw::read(&mut stream).body) == text());
    backend.release();
    assert_eq!(get_with(port, "/", "Accept-Encoding: gzip\r\n").header("content-encoding"), "");
}
