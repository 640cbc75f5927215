//! Streaming responses: no timeout limits the total duration while data flows.

use std::io::{Read, Write};
use std::time::Duration;

use super::yaml;
use crate::lab::client::{connect, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// Each timeout of the pool is shorter than the whole stream and longer than each pause.
const QUICK: &str = "timeouts: { connect: 300ms, first_byte: 300ms, idle: 300ms },";

#[test]
fn server_sent_events_are_forwarded_without_delay_or_total_timeout() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n")
            .unwrap();
        for number in 0..12 {
            stream.write_all(format!("data: {number}\n\n").as_bytes()).unwrap();
            // Events are sent at intervals.
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let port = free_port();
    let _lab =
        Lab::start(&yaml(port, backend.port, QUICK, "client_timeouts: { body: 300ms, write: 300ms, header: 300ms }"));
    let mut stream = connect(port);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    for number in 0..12 {
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:X}\r\n{event}\r\n", event.len());
        let mut received = vec![0; chunk.len()];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), chunk, "each event arrives separately");
    }
    let mut end = [0; 5];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}
