//! Hundreds of reloads while a WebSocket, an event stream and a download are open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::{UNWATCHED, replace};
use crate::lab::client::{connect, read_head};
use crate::lab::load::Load;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};

/// The open streams are checked after this number of reloads.
const STRIDE: usize = 20;
/// A part of a download. It is larger than the buffer that collects data before it is sent.
static PART: [u8; 100_000] = [b'x'; 100_000];

/// Size of the download in bytes: one part before the reloads, and one after each stride.
fn download_size(reloads: usize) -> usize {
    (1 + reloads / STRIDE) * PART.len()
}

/// A backend with a WebSocket that echoes, and with an event stream and a download. Each message on the returned
/// senders makes the backend send the next event and the next part of the download.
fn backend(download: usize) -> (Scripted, Sender<()>, Sender<()>) {
    let (next_event, events) = channel();
    let (next_part, parts) = channel();
    let (events, parts) = (Mutex::new(events), Mutex::new(parts));
    let scripted = Scripted::start(move |mut stream| {
        let head = read_head(&mut stream);
        match head.split(' ').nth(1) {
            Some("/live/chat") => echo(&mut stream),
            Some("/live/events") => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                follow(&mut stream, head, b"data: x\n\n", &events);
            }
            Some("/live/download") => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {download}\r\n\r\n");
                follow(&mut stream, &head, &PART, &parts);
            }
            _ => {}
        }
    });
    (scripted, next_event, next_part)
}

pub(super) fn echo(stream: &mut TcpStream) {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(switching.as_bytes()).unwrap();
    let mut space = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut space) {
        stream.write_all(&space[..read]).unwrap();
    }
}

fn follow(stream: &mut TcpStream, head: &str, part: &[u8], next: &Mutex<Receiver<()>>) {
    stream.write_all(head.as_bytes()).unwrap();
    while next.lock().unwrap().recv().is_ok() {
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

/// Resident memory of the process in bytes.
fn memory(lab: &Lab) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", lab.pid())).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn two_hundred_reloads_close_no_connection_fail_no_request_and_leak_no_memory() {
    let grown = reloads(200, Duration::ZERO, |port| {
        let load = Load::start(port, "/apiA", 4, 2);
        load.wait_for_more(200);
        move || {
            let report = load.stop();
            assert_eq!(report.failed, Vec::<String>::new());
            assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
        }
    });
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
}

/// The full-size version; docs/performance.md has the command and the figures.
#[test]
#[ignore = "takes a minute, and needs h2load"]
fn thousand_reloads_in_a_minute_under_h2load() {
    let (began, number) = (Instant::now(), 1000);
    let grown = reloads(number, Duration::from_millis(58), |port| {
        let load = |arguments: &str| {
            let mut command = Command::new("h2load");
            command.args(arguments.split(' ')).arg(format!("http://127.0.0.1:{port}/apiA"));
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        // HTTP/2 and HTTP/1.1, for longer than the reloads take.
        let loads = [load("-D 70 -c 4 -m 8 --rps 250"), load("--h1 -D 70 -c 8 --rps 125")];
        move || {
            eprintln!("{number} reloads took {:?}", began.elapsed());
            for load in loads {
                let stdout = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
                let lines =
                    stdout.lines().filter(|line| line.starts_with("requests:") || line.starts_with("status codes:"));
                let lines: Vec<&str> = lines.collect();
                eprintln!("{}", lines.join("\n"));
                assert!(lines[0].contains(" 0 failed, 0 errored, 0 timeout"), "{stdout}");
                assert!(lines[1].contains(" 0 3xx, 0 4xx, 0 5xx"), "{stdout}");
            }
        }
    });
    eprintln!("{grown} bytes more in use after {number} reloads than after {}", number / 4);
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
}

/// Reloads `number` times, at most once per `pace`, while streams are open and the load that `begin_load` starts is
/// running. Stops the load with the function that `begin_load` returns. Returns the growth of resident memory in
/// bytes since the first quarter of the reloads.
fn reloads<End: FnOnce()>(number: usize, pace: Duration, begin_load: impl FnOnce(u16) -> End) -> usize {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (live, next_event, next_part) = backend(download_size(number));
    let port = free_port();
    // Each reload changes a pool, a route and a setting. The pool of the streams is removed and added again.
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
             connection_limits: {{ requests: 100000000 }}\nrequest_limits: {{ header_count: {} }}\n{UNWATCHED}",
            if gone { "" } else { pool.as_str() },
            one.port,
            100 + number % 7
        )
    };
    let lab = Lab::start(&yaml(0));
    let process = l7lb::control::api::Client::new(lab.folder().join("control.sock"));
    let mut chat = begin(port, "/live/chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    // The response header is sent together with the first bytes of the body.
    next_event.send(()).unwrap();
    let mut events = begin(port, "/live/events", "");
    expect(&mut events, b"9\r\ndata: x\n\n\r\n");
    next_part.send(()).unwrap();
    let mut download = begin(port, "/live/download", "");
    expect(&mut download, &PART);
    let end_load = begin_load(port);
    let (mut warm, began) = (0, Instant::now());
    for reload in 1..=number {
        replace(&lab, &yaml(reload));
        let changes: l7lb::control::plan::changes::Changes = process.post("/reload").unwrap();
        assert_eq!(changes.needs_upgrade, Vec::<String>::new());
        if reload.is_multiple_of(STRIDE) {
            chat.write_all(b"still here?").unwrap();
            expect(&mut chat, b"still here?");
            next_event.send(()).unwrap();
            expect(&mut events, b"9\r\ndata: x\n\n\r\n");
            next_part.send(()).unwrap();
            expect(&mut download, &PART);
        }
        if reload == number / 4 {
            warm = memory(&lab);
        }
        let due = pace * u32::try_from(reload).unwrap();
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let grown = memory(&lab).saturating_sub(warm);
    end_load();
    drop(chat);
    let line = lab.wait_for_access("path=/live/chat");
    assert!(line.contains("status=101"), "{line}");
    grown
}
