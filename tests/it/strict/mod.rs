//! Attacks on the front door, as bytes on a socket: what is answered, what becomes of the
//! connection, what the access log says, and what exactly a backend received.
//!
//! A rule is a row. A row that is refused is sent with a legal request right behind it, which must
//! never be answered nor reach a backend: that would be a smuggled one.

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

/// The legal request that follows what is refused.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// A balancer in front of one recording backend.
struct Door {
    port: u16,
    lab: Lab,
    backend: Recorder,
}

/// What came of some bytes.
#[derive(Debug)]
struct Outcome {
    /// The statuses of the answers, in order.
    statuses: Vec<u16>,
    /// Whether the last answer says that the connection ends.
    says_close: bool,
    /// All answers, as they came.
    answers: String,
    /// What the backend received.
    received: Vec<Received>,
    /// The access lines.
    lines: Vec<String>,
}

impl Door {
    /// Idle connections end soon, so that every exchange can be read to its end.
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

    /// Sends bytes at once, waits until the balancer closes, and collects what came of them.
    fn send(&self, bytes: &[u8], expected_lines: usize) -> Outcome {
        let before = self.lab.access().len();
        let mut stream = client::connect(self.port);
        // A refusal may come, and the connection end, before all is written.
        stream.write_all(bytes).ok();
        let mut answers = Vec::new();
        // A reset ends the connection, too; what came before it counts.
        stream.read_to_end(&mut answers).ok();
        drop(stream);
        eventually("the access lines are written", PATIENCE, || self.lab.access().len() >= before + expected_lines);
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let heads: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at..]).collect();
        let last = heads.last().and_then(|head| head.split("\r\n\r\n").next()).unwrap_or_default();
        Outcome {
            statuses: heads.iter().map(|head| head[9..12].parse().unwrap()).collect(),
            says_close: last.to_ascii_lowercase().contains("\r\nconnection: close"),
            received: self.backend.take(),
            lines: self.lab.access()[before..].to_vec(),
            answers,
        }
    }

    /// One request is refused: with this status, a closed connection and an access line that says
    /// why; nothing reaches the backend, and nothing behind it is answered.
    fn refuses(&self, bytes: &[u8], status: u16, detail: &str) {
        let outcome = self.send(&[bytes, SMUGGLED].concat(), 1);
        let shown = format!("{}\n{outcome:#?}", bytes[..bytes.len().min(300)].escape_ascii());
        assert_eq!(outcome.statuses, [status], "{shown}");
        assert!(outcome.says_close, "the connection ends: {shown}");
        assert!(outcome.received.is_empty(), "nothing reaches the backend: {shown}");
        let line = &outcome.lines[0];
        assert_eq!(outcome.lines.len(), 1, "{shown}");
        assert!(line.contains(&format!("status={status} ")), "{shown}");
        assert!(!line.contains("cause=-") && line.contains(detail) && line.contains("detail="), "{detail}: {shown}");
    }

    /// One request passes, the backend receives it in this brief form, and the connection is kept.
    fn passes(&self, bytes: &[u8], received: &str) {
        self.passes_all(bytes, &[received]);
    }

    /// Requests pass in this order.
    fn passes_all(&self, bytes: &[u8], received: &[&str]) {
        let outcome = self.send(bytes, received.len());
        let shown = format!("{}\n{outcome:#?}", bytes[..bytes.len().min(300)].escape_ascii());
        assert_eq!(outcome.statuses, vec![200; received.len()], "{shown}");
        assert!(!outcome.says_close, "the connection is kept: {shown}");
        let briefs: Vec<String> = outcome.received.iter().map(Received::brief).collect();
        assert_eq!(briefs, received, "{shown}");
    }

    /// Some bytes, and the one request that the backend received.
    fn forwards(&self, bytes: &[u8]) -> Received {
        let mut outcome = self.send(bytes, 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.received.len()), (&[200][..], 1), "{outcome:#?}");
        outcome.received.remove(0)
    }
}
