//! Slow clients: every pause has a timeout, and other clients are not affected.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::lab::frames::{
    DATA, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, client, free_port};

/// Far longer than each timeout below, so that a busy machine does not fail the test.
const AT_LAST: Duration = Duration::from_secs(12);
/// All timeouts in these tests are longer.
const AT_ONCE: Duration = Duration::from_millis(500);

const TIMEOUTS: &str = "client_timeouts: { handshake: 1s, header: 1s, body: 1s, write: 1s, keepalive: 1s }";

fn lab(port: u16, backend: u16, more: &str) -> Lab {
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n{more}\n"
    ))
}

/// A backend whose response is larger than all buffers in between.
pub(super) fn large() -> Scripted {
    Scripted::start(|mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n").ok();
        let part = vec![b'x'; 1 << 16];
        for _ in 0..1024 {
            if stream.write_all(&part).is_err() {
                return;
            }
        }
    })
}

/// Reads to the end of the stream, and checks that this took neither too short nor too long.
fn ends(stream: &mut impl Read, began: Instant) -> String {
    let mut all = Vec::new();
    // A reset also counts as the end.
    stream.read_to_end(&mut all).ok();
    let took = began.elapsed();
    assert!(took > AT_ONCE && took < AT_LAST, "{took:?}: {}", String::from_utf8_lossy(&all));
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends single bytes at intervals until the connection is closed.
fn dribble(stream: &TcpStream, bytes: impl Iterator<Item = u8> + Send + 'static) {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn slow_head_is_rejected_and_idle_connection_is_closed() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = lab(port, backend.port, TIMEOUTS);

    let mut stream = client::connect(port);
    let head = b"GET /dribble HTTP/1.1\r\nHost: a\r\nX: ".iter().copied().chain(std::iter::repeat(b'y'));
    dribble(&stream, head.take(1000));
    let response = ends(&mut stream, Instant::now());
    assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("Connection: close"), "{response}");
    let line = lab.wait_for_access("path=/dribble");
    assert!(line.contains("status=408") && line.contains("cause=header_timeout") && line.contains("detail="), "{line}");

    for started in [&b""[..], b"P", b"PRI", b"\r\n"] {
        let mut stream = client::connect(port);
        stream.write_all(started).unwrap();
        let response = ends(&mut stream, Instant::now());
        assert!(response.is_empty() || started == b"\r\n" && response.contains(" 408 "), "{response}");
    }

    // An idle connection is closed without a response.
    let mut stream = client::connect(port);
    stream.write_all(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client::read_response(&mut stream).status, 200);
    assert_eq!(ends(&mut stream, Instant::now()), "");
    lab.wait_for_access("path=/idle");
    assert_eq!(lab.access().len(), 3, "{:#?}", lab.access());
    assert_eq!(backend.take().len(), 1, "no other request reached the backend");
}

#[test]
fn body_that_pauses_too_long_is_rejected() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = lab(port, backend.port, TIMEOUTS);
    for (path, framing, part) in [
        ("/length", "Content-Length: 100", "x"),
        ("/none", "Content-Length: 100", ""),
        ("/chunked", "Transfer-Encoding: chunked", "5\r\nx"),
    ] {
        let mut stream = client::connect(port);
        write!(stream, "POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}").unwrap();
        let response = ends(&mut stream, Instant::now());
        assert!(response.starts_with("HTTP/1.1 408 "), "{path}: {response}");
        let line = lab.wait_for_access(&format!("path={path}"));
        assert!(line.contains("cause=body_timeout") && line.contains("detail="), "{line}");
    }
}

/// A body that never pauses long, but arrives too slowly.
#[test]
fn body_below_the_minimum_rate_is_rejected() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = lab(port, backend.port, "client_timeouts: { minimum_rate: 1KiB, minimum_rate_period: 1s }");
    let mut stream = client::connect(port);
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    dribble(&stream, std::iter::repeat_n(b'x', 1000));
    let response = ends(&mut stream, Instant::now());
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(lab.wait_for_access("path=/x").contains("cause=body_timeout"));
}

/// A client that reads without pauses, but too slowly.
#[test]
fn client_that_reads_below_the_minimum_rate_is_disconnected() {
    let backend = large();
    let port = free_port();
    let lab = lab(port, backend.port, "client_timeouts: { minimum_rate: 16MiB, minimum_rate_period: 1s }");
    let mut stream = client::connect(port);
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut part = vec![0; 256 << 10];
    while lab.access().iter().all(|line| !line.contains("path=/slow")) {
        assert!(stream.read(&mut part).unwrap() > 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let line = lab.wait_for_access("path=/slow");
    assert!(line.contains("cause=client_closed"), "{line}");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok();
    assert!(all.len() < 64 << 20, "{}", all.len());
}

#[test]
fn http2_body_below_the_minimum_rate_is_rejected_but_not_a_grpc_stream() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend = Recorder::start();
    let port = free_port();
    let lab = lab(port, backend.port, "client_timeouts: { minimum_rate: 1KiB, minimum_rate_period: 1s }");
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &request(b"POST", b"/slow"));
    frames.headers(3, false, &[&request(b"POST", b"/grpc")[..], &[(b"content-type", b"application/grpc")]].concat());
    while lab.access().iter().all(|line| !line.contains("path=/slow")) {
        frames.send(DATA, 0, 1, b"x");
        frames.send(DATA, 0, 3, b"x");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(lab.wait_for_access("path=/slow").contains("cause=body_timeout"));
    frames.send(DATA, END_STREAM, 3, b"x");
    let response = frames.find(|frame| frame.stream == 3).unwrap();
    assert_eq!(response.status(), 200);
}

/// The timeout for the first byte of a response starts at the end of the request.
#[test]
fn slow_upload_does_not_count_as_a_slow_backend() {
    let backend = Recorder::start();
    let port = free_port();
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ health_check: {{ type: none }}, timeouts: {{ first_byte: 600ms }}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n",
        backend.port
    ));
    let mut stream = client::connect(port);
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").unwrap();
    for part in [b"a", b"b", b"c", b"d"] {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(part).unwrap();
    }
    assert_eq!(client::read_response(&mut stream).status, 200);
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &request(b"POST", b"/x"));
    for last in [0, 0, 0, 1] {
        std::thread::sleep(Duration::from_millis(300));
        frames.send(DATA, last, 1, b"x");
    }
    let response = frames.find(|frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
    assert!(response.kind == HEADERS && response.status() == 200, "{response:?}");
}

#[test]
fn client_that_does_not_read_its_response_is_disconnected() {
    let backend = large();
    let port = free_port();
    let lab = lab(port, backend.port, TIMEOUTS);
    let mut stream = client::connect(port);
    let began = Instant::now();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // The access log line is written when the balancer gives up; only then the client reads.
    lab.wait_for_access("path=/large");
    assert!(began.elapsed() > AT_ONCE && began.elapsed() < AT_LAST, "{:?}", began.elapsed());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok();
    assert!(all.len() < 64 << 20, "{}", all.len());
}

#[test]
fn slow_tls_and_http2_handshakes_time_out() {
    let backend = Recorder::start();
    let (port, plain) = (free_port(), free_port());
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}', tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}] }} }}, {{ address: '127.0.0.1:{plain}' }}]\n\
         pools: {{ p: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\nroutes: [{{ path: /, pool: p }}]\n{TIMEOUTS}\n",
        backend.port
    ));
    // TLS: a record of 512 bytes that arrives byte by byte, or not at all.
    let mut stream = client::connect(port);
    dribble(&stream, [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain(std::iter::repeat_n(7, 1000)));
    ends(&mut stream, Instant::now());
    ends(&mut client::connect(port), Instant::now());
    // The HTTP/2 preface and SETTINGS.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut stream = client::connect(plain);
    dribble(&stream, preface.iter().copied());
    ends(&mut stream, Instant::now());
    for begun in [&preface[..8], &preface[..], &[&preface[..], &frame(SETTINGS, 0, 0, &[])[..5]].concat()] {
        let mut stream = client::connect(plain);
        stream.write_all(begun).unwrap();
        ends(&mut stream, Instant::now());
    }
}

#[test]
fn http2_connections_and_streams_do_not_stall_for_ever() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = lab(port, backend.port, TIMEOUTS);

    // An idle connection gets GOAWAY, with or without pings.
    let mut idle = Frames::connect(port);
    idle.get(1, "/idle");
    let began = Instant::now();
    assert!(idle.find(|frame| frame.kind == GOAWAY).is_some_and(|frame| frame.code() == 0));
    ends(&mut idle.0, began);

    // A header block without an end is not a request, so the connection counts as idle.
    let mut stuck = Frames::connect(port);
    stuck.send(HEADERS, 0, 1, &block(&request(b"GET", b"/stuck")));
    ends(&mut stuck.0, Instant::now());

    // A body that never arrives.
    let mut silent = Frames::connect(port);
    silent.headers(1, false, &request(b"POST", b"/silent"));
    silent.send(DATA, 0, 1, b"x");
    let began = Instant::now();
    let response = silent.find(|frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
    assert!(response.kind == HEADERS && response.status() == 408, "{response:?}");
    assert!(began.elapsed() > AT_ONCE && began.elapsed() < AT_LAST, "{:?}", began.elapsed());
    assert!(lab.wait_for_access("path=/silent").contains("cause=body_timeout"));
}

#[test]
fn http2_client_that_does_not_read_its_response_is_disconnected() {
    let backend = large();
    let port = free_port();
    let lab = lab(port, backend.port, TIMEOUTS);
    // The client never opens its windows although the connection is alive, or does not read the socket.
    for read in [true, false] {
        let mut frames = Frames::connect(port);
        let path = if read { "/window" } else { "/socket" };
        if !read {
            frames.send(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
            frames.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        }
        let began = Instant::now();
        frames.get(1, path);
        if read {
            let response = frames.find(|frame| frame.kind == RST_STREAM || frame.kind == GOAWAY);
            assert!(response.is_some_and(|frame| frame.kind == RST_STREAM), "only the stream is reset");
        }
        lab.wait_for_access(&format!("path={path}"));
        assert!(began.elapsed() > AT_ONCE && began.elapsed() < AT_LAST, "{path}: {:?}", began.elapsed());
    }
}
