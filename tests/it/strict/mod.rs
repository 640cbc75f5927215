//! Attacks on the listener as raw bytes: the response, the connection, the access log, and the exact bytes that
//! a backend receives.
//!
//! Each rule is a table row. A rejected request is sent together with a legal request behind it, which must
//! neither get a response nor reach a backend: it would be smuggled.

mod chunks;
mod crowd;
mod fields;
mod floods;
mod framing;
mod hosts;
mod http2;
mod pipelines;
mod sizes;
mod slow;
mod syntax;
mod targets;

use std::io::{Read, Write};

use crate::lab::client;
use crate::lab::recorder::{Received, Recorder};
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// The legal request behind a rejected one.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// A balancer in front of one recording backend.
struct Fixture {
    port: u16,
    lab: Lab,
    backend: Recorder,
}

/// The result of sending some bytes.
#[derive(Debug)]
struct Outcome {
    /// The status codes of the responses, in order.
    statuses: Vec<u16>,
    /// Whether the last response has `Connection: close`.
    has_close: bool,
    /// All responses as received.
    answers: String,
    /// The requests that the backend received.
    received: Vec<Received>,
    /// The access log lines.
    lines: Vec<String>,
}

impl Fixture {
    /// The idle timeout is short, so that every connection can be read to its end.
    fn open() -> Self {
        Self::with("routes: [{ path: /, pool: p }]\n", Recorder::start())
    }

    fn with(more: &str, backend: Recorder) -> Self {
        let port = free_port();
        let lab = Lab::start(&format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             client_timeouts: {{ keepalive: 300ms, header: 1s, body: 1s, write: 2s }}\n\
             pools: {{ p: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\n{more}",
            backend.port
        ));
        Self { port, lab, backend }
    }

    /// Sends all bytes in one write, waits until the balancer closes the connection, and returns the outcome.
    fn send(&self, bytes: &[u8], expected_lines: usize) -> Outcome {
        let before = self.lab.access().len();
        let mut stream = client::connect(self.port);
        // The balancer may reject and close before everything is written.
        stream.write_all(bytes).ok();
        let mut answers = Vec::new();
        // A reset also ends the connection; the bytes before it count.
        stream.read_to_end(&mut answers).ok();
        drop(stream);
        eventually("the access lines are written", PATIENCE, || self.lab.access().len() >= before + expected_lines);
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let heads: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at..]).collect();
        let last = heads.last().and_then(|head| head.split("\r\n\r\n").next()).unwrap_or_default();
        Outcome {
            statuses: heads.iter().map(|head| head[9..12].parse().unwrap()).collect(),
            has_close: last.to_ascii_lowercase().contains("\r\nconnection: close"),
            received: self.backend.take(),
            lines: self.lab.access()[before..].to_vec(),
            answers,
        }
    }

    /// Expects one rejection: this status code, a closed connection and an access log line with this detail.
    /// Nothing reaches the backend, and the request behind it gets no response.
    fn rejects(&self, bytes: &[u8], status: u16, detail: &str) {
        let outcome = self.send(&[bytes, SMUGGLED].concat(), 1);
        let shown = format!("{}\n{outcome:#?}", bytes[..bytes.len().min(300)].escape_ascii());
        assert_eq!(outcome.statuses, [status], "{shown}");
        assert!(outcome.has_close, "the connection is closed: {shown}");
        assert!(outcome.received.is_empty(), "nothing reaches the backend: {shown}");
        let line = &outcome.lines[0];
        assert_eq!(outcome.lines.len(), 1, "{shown}");
        assert!(line.contains(&format!("status={status} ")), "{shown}");
        assert!(!line.contains("cause=-") && line.contains(detail) && line.contains("detail="), "{detail}: {shown}");
    }

    /// Expects that one request is forwarded, in this brief form, and that the connection is kept.
    fn passes(&self, bytes: &[u8], received: &str) {
        self.passes_all(bytes, &[received]);
    }

    /// Expects that requests are forwarded in this order.
    fn passes_all(&self, bytes: &[u8], received: &[&str]) {
        let outcome = self.send(bytes, received.len());
        let shown = format!("{}\n{outcome:#?}", bytes[..bytes.len().min(300)].escape_ascii());
        assert_eq!(outcome.statuses, vec![200; received.len()], "{shown}");
        assert!(!outcome.has_close, "the connection is kept: {shown}");
        let briefs: Vec<String> = outcome.received.iter().map(Received::brief).collect();
        assert_eq!(briefs, received, "{shown}");
    }

    /// Sends bytes and returns the one request that the backend received.
    fn forwards(&self, bytes: &[u8]) -> Received {
        let mut outcome = self.send(bytes, 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.received.len()), (&[200][..], 1), "{outcome:#?}");
        outcome.received.remove(0)
    }
}
