//! Trailers of HTTP/1.1 messages are forwarded in both directions, except those that a header must not have from
//! there.

use std::io::{Read, Write};

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// Reads up to the end of a chunked body.
fn read_chunked(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn trailers_are_forwarded_in_both_directions() {
    if lacks_own_engine() {
        return;
    }
    let (received, requests) = std::sync::mpsc::channel();
    let received = std::sync::Mutex::new(received);
    let backend = Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            received.lock().unwrap().send(read_chunked(&mut stream)).unwrap();
            let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                3\r\nabc\r\n0\r\nX-Sum: 9\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\n";
            stream.write_all(response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..2 {
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nhi\r\n0\r\nX-Check: 7\r\nHost: evil\r\nX-Forwarded-For: 9.9.9.9\r\nX_Real_IP: 9.9.9.9\r\n\r\n";
        stream.write_all(request).unwrap();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
        assert_eq!(read_chunked(&mut stream), "3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n");
        assert_eq!(requests.recv().unwrap(), "2\r\nhi\r\n0\r\nx-check: 7\r\n\r\n");
    }
    assert_eq!(backend.connections(), 1, "the connection is reused");
}
