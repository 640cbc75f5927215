//! Floods of HTTP/2 frames on one connection: the connection is closed, memory use stays small, and other
//! clients are not affected.

use std::time::Duration;

use crate::lab::client::get;
use crate::lab::frames::{
    CANCEL, CONTINUATION, DATA, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, request,
};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, yaml};
use crate::one_pool;

/// Frames in one flood.
const MANY: u32 = 20_000;
/// The most that the memory of the process may grow during a flood, in KiB.
const GROWTH_MAX: u64 = 20 << 10;

/// The process's memory in KiB.
fn resident(lab: &Lab) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends the frame that `make` returns for each number, until the balancer closes the connection.
fn flood(port: u16, open: fn(&mut Frames) -> bool, make: fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut frames = Frames::connect(port);
    open(&mut frames);
    let mut reader = Frames(frames.0.try_clone().unwrap());
    // Reads meanwhile, so that the balancer can always send.
    let goaway = std::thread::spawn(move || reader.find(|frame| frame.kind == GOAWAY && frame.code() != 0));
    for start in (0..MANY).step_by(100) {
        let batch: Vec<u8> = (start..start + 100).flat_map(make).collect();
        if !frames.bytes(&batch) {
            break;
        }
    }
    goaway.join().unwrap().map(|frame| frame.code())
}

fn request_frame(stream: u32, end: bool) -> Vec<u8> {
    frame(HEADERS, 4 | u8::from(end), stream, &block(&request(b"GET", b"/apiA/x")))
}

/// Name, opening frames, and the frames of the flood.
type Attack = (&'static str, fn(&mut Frames) -> bool, fn(u32) -> Vec<u8>);

/// WINDOW_UPDATE frames have a high limit, so this flood sends ten at a time.
const ATTACKS: [Attack; 11] = [
    (
        "rapid reset",
        |_| true,
        |n| [request_frame(2 * n + 1, true), frame(RST_STREAM, 0, 2 * n + 1, &CANCEL.to_be_bytes())].concat(),
    ),
    (
        "made you reset",
        |_| true,
        |n| [request_frame(2 * n + 1, false), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0x7f, 0xff, 0xff, 0xff])].concat(),
    ),
    (
        "continuations",
        |frames| frames.send(HEADERS, 0, 1, &block(&request(b"GET", b"/"))),
        |_| frame(CONTINUATION, 0, 1, &block(&[(b"x", b"y")])),
    ),
    ("empty continuations", |frames| frames.send(HEADERS, 0, 1, &[]), |_| frame(CONTINUATION, 0, 1, &[])),
    ("pings", |_| true, |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
    ("settings", |_| true, |n| frame(SETTINGS, 0, 0, &[&[0, 4][..], &(65_535 + n).to_be_bytes()].concat())),
    ("empty data", |frames| frames.bytes(&request_frame(1, false)), |_| frame(DATA, 0, 1, &[])),
    ("priorities", |_| true, |n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 16])),
    (
        "window updates",
        |frames| frames.bytes(&request_frame(1, false)),
        |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(10),
    ),
    ("unknown frames", |_| true, |_| frame(0x42, 0, 0, b"?")),
    ("malformed requests", |_| true, |n| frame(HEADERS, 5, 2 * n + 1, &block(&[(b":method", b"GET")]))),
];

#[test]
fn http2_flood_closes_its_connection_and_affects_no_other_client() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    get(port, "/apiA");
    let load = Load::start(port, "/apiA", 1, 1);
    load.wait_for_more(20);
    let before = resident(&lab);
    for (name, open, make) in ATTACKS {
        let before_lines = lab.access().len();
        let goaway = flood(port, open, make);
        assert_eq!(goaway, Some(ENHANCE_YOUR_CALM), "{name}");
        eventually(name, PATIENCE, || {
            let lines = lab.access();
            lines[before_lines..].iter().any(|line| line.contains("protocol=HTTP/2") && line.contains("cause=flood"))
        });
        load.wait_for_more(20);
    }
    let report = load.stop();
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.statuses.keys().collect::<Vec<_>>(), [&200], "{report:?}");
    let growth = resident(&lab).saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} KiB more");
}

/// The client opens every stream that it may, with huge windows, and reads nothing.
#[test]
fn http2_client_that_reads_nothing_costs_a_bounded_amount_of_memory() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend = super::slow::large();
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    let before = resident(&lab);
    let mut frames = Frames::connect(port);
    frames.send(SETTINGS, 0, 0, &[&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat());
    frames.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    for stream in 0..100 {
        frames.get(2 * stream + 1, "/large");
    }
    eventually("every request is at the backend", PATIENCE, || backend.connections() >= 100);
    let mut last = 0;
    // The memory has stopped growing.
    eventually("the buffers are full", PATIENCE, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = resident(&lab);
        std::mem::replace(&mut last, now) == now
    });
    let growth = last.saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} KiB more");
}

/// At the total limit further connections wait. At the limit per client the next connection is closed.
#[test]
fn connections_beyond_the_total_wait_and_beyond_the_client_limit_are_closed() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], "connection_limits: { total: 4, per_client: 100 }"));
    let open: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = crate::lab::client::connect(port);
            std::io::Write::write_all(&mut stream, b"GET /apiA HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(crate::lab::client::read_response(&mut stream).status, 200);
            stream
        })
        .collect();
    let waiting = std::thread::spawn(move || get(port, "/apiA").status);
    // Open connections are served meanwhile.
    for mut stream in &open {
        std::io::Write::write_all(&mut stream, b"GET /apiA HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(crate::lab::client::read_response(&mut stream).status, 200);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "the connection waits while the limit is reached");
    drop(open);
    assert_eq!(waiting.join().unwrap(), 200, "the waiting connection is accepted when another one closes");

    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], "connection_limits: { per_client: 2 }"));
    let ask = |stream: &mut std::net::TcpStream| {
        use std::io::{Read, Write};
        stream.write_all(b"GET /apiA HTTP/1.1\r\nHost: a\r\n\r\n").ok();
        let mut response = [0; 12];
        stream.read_exact(&mut response).map(|()| response).ok()
    };
    let mut first = crate::lab::client::connect(port);
    let mut second = crate::lab::client::connect(port);
    assert!(ask(&mut first).is_some() && ask(&mut second).is_some());
    assert_eq!(ask(&mut crate::lab::client::connect(port)), None, "the third connection is closed immediately");
    drop((first, second));
    eventually("a new connection is accepted", PATIENCE, || ask(&mut crate::lab::client::connect(port)).is_some());
}
