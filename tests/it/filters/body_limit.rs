//! The filter `body_limit`.

use crate::lab::client::exchange;
use crate::lab::frames::{DATA, END_STREAM, Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::{Lab, free_port, yaml};

#[test]
fn body_limit_applies_to_announced_and_to_chunked_bodies() {
    let (backend, port) = (Recorder::start(), free_port());
    let small = yaml(port, backend.port, "", "filters: [{ body_limit: { size: 10 } }]\n");
    let _lab = Lab::start(&small.replace(
        "pool: a }]",
        "pool: a }, { path: /large, pool: a, body_size: 5, filters: [{ headers: { request: { set: { X-A: b } } } }, { body_limit: { size: 20 } }] }]",
    ));
    for (path, length, status) in [("/", 10, 200), ("/", 11, 413), ("/large", 20, 200), ("/large", 21, 413)] {
        let body = "x".repeat(length);
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let announced = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        assert_eq!(exchange(port, announced.as_bytes()).status, status, "{path} {length}");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        assert_eq!(exchange(port, chunked.as_bytes()).status, status, "{path} {length}, chunked");
        let mut frames = Frames::connect(port);
        frames.headers(1, false, &request(b"POST", path.as_bytes()));
        frames.send(DATA, END_STREAM, 1, body.as_bytes());
        assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), status, "{path} {length}, HTTP/2");
    }
}
