//! Two hundred reloads, and nothing that is open notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{UNWATCHED, replace};
use crate::lab::client::{connect, read_head};
use crate::lab::load::Load;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};

const RELOADS: usize = 200;
/// A look at the open streams after so many reloads.
const STRIDE: usize = 20;
/// A part of a download: more than is gathered before it goes out.
static PART: [u8; 100_000] = [b'x'; 100_000];
/// Bytes of a download, of which one part comes at first and one after each stride.
const DOWNLOAD: usize = (1 + RELOADS / STRIDE) * PART.len();

/// A backend with a WebSocket that repeats what it hears, and with events and a download that go on
/// when told.
fn backend() -> (Scripted, Sender<()>, Sender<()>) {
    let (next_event, events) = channel();
    let (next_part, parts) = channel();
    let (events, parts) = (Mutex::new(events), Mutex::new(parts));
    let scripted = Scripted::start(move |mut stream| {
        let head = read_head(&mut stream);
        match head.split(' ').nth(1) {
            Some("/live/chat") => echo(&mut stream),
            Some("/live/events") => {
                let told = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                follow(&mut stream, told, b"data: x\n\n", &events);
            }
            Some("/live/download") => {
                let told = format!("HTTP/1.1 200 OK\r\nContent-Length: {DOWNLOAD}\r\n\r\n");
                follow(&mut stream, &told, &PART, &parts);
            }
            _ => {}
        }
    });
    (scripted, next_event, next_part)
}

pub(super) fn echo(stream: &mut TcpStream) {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(agreed.as_bytes()).unwrap();
    let mut space = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut space) {
        stream.write_all(&space[..read]).unwrap();
    }
}

fn follow(stream: &mut TcpStream, head: &str, part: &[u8], told: &Mutex<Receiver<()>>) {
    stream.write_all(head.as_bytes()).unwrap();
    while told.lock().unwrap().recv().is_ok() {
        if stream.write_all(part).is_err() {
            return;
        }
    }
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

pub(super) fn begin(port: u16, path: &str, more: &str) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 101"), "{path}: {head}");
    stream
}

/// Bytes of memory that the process has in use.
fn memory(lab: &Lab) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", lab.pid())).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn two_hundred_reloads_close_nothing_fail_nothing_and_leave_nothing() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (live, next_event, next_part) = backend();
    let port = free_port();
    // Each reload changes a pool, a route and a setting; the streams' own pool comes and goes.
    let yaml = |number: usize| {
        let (second, gone) = (two.port, number % 3 == 2);
        let more =
            if number.is_multiple_of(2) { format!(", {{ address: '127.0.0.1:{second}' }}") } else { String::new() };
        let pool = format!(
            "  live: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n",
            live.port
        );
        let route = format!("{{ path: /live, pool: {} }}, ", if gone { "a" } else { "live" });
        format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\npools:\n{}  a: {{ health_check: {{ type: http, path: /health, interval: 1h }}, \
             backends: [{{ address: '127.0.0.1:{}' }}{more}] }}\nroutes: [{route}{{ path: /apiA, pool: a }}, {{ path: /r{number}, pool: a }}]\n\
             request_limits: {{ header_count: {} }}\n{UNWATCHED}",
            if gone { "" } else { pool.as_str() },
            one.port,
            100 + number % 7
        )
    };
    let lab = Lab::start(&yaml(0));
    let process = l7lb::admin::Client::new(lab.folder().join("control.sock"));
    let mut chat = begin(port, "/live/chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    // The head of an answer goes out with the first of its bytes.
    next_event.send(()).unwrap();
    let mut events = begin(port, "/live/events", "");
    expect(&mut events, b"9\r\ndata: x\n\n\r\n");
    next_part.send(()).unwrap();
    let mut download = begin(port, "/live/download", "");
    expect(&mut download, &PART);
    let load = Load::start(port, "/apiA", 4, 2);
    load.wait_for_more(200);
    let mut warm = 0;
    for number in 1..=RELOADS {
        replace(&lab, &yaml(number));
        let changes: l7lb::plan::changes::Changes = process.post("/reload").unwrap();
        assert_eq!(changes.needs_upgrade, Vec::<String>::new());
        if number.is_multiple_of(STRIDE) {
            chat.write_all(b"still here?").unwrap();
            expect(&mut chat, b"still here?");
            next_event.send(()).unwrap();
            expect(&mut events, b"9\r\ndata: x\n\n\r\n");
            next_part.send(()).unwrap();
            expect(&mut download, &PART);
        }
        if number == RELOADS / 4 {
            warm = memory(&lab);
        }
    }
    let grown = memory(&lab).saturating_sub(warm);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
    assert!(grown < 24 << 20, "{grown} bytes more after {RELOADS} reloads");
    drop(chat);
    let line = lab.wait_for_access("path=/live/chat");
    assert!(line.contains("status=101"), "{line}");
}
