//! WebSocket and other protocol upgrades (RFC 9110 §7.8): after 101 bytes are forwarded without inspection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Pattern, yaml};
use crate::lab::client::{connect, connect_tls, read_head, read_response, tls_config};
use crate::lab::scripted::Scripted;
use crate::lab::server_config;
use crate::lab::{Lab, PATIENCE, free_port};

const HANDSHAKE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A backend that accepts the upgrade, sends `greeting` in the same packet, and echoes.
fn echoing(greeting: &'static [u8]) -> Scripted {
    Scripted::start(move |mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        if head.is_empty() {
            return;
        }
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{head}");
        stream.write_all(&[AGREED, greeting].concat()).unwrap();
        // Reads on while it writes, as WebSocket servers do (see the known limits).
        let (heard, say) = std::sync::mpsc::channel::<Vec<u8>>();
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            while let Ok(bytes) = say.recv() {
                if writer.write_all(&bytes).is_err() {
                    return;
                }
            }
            writer.shutdown(Shutdown::Both).ok();
        });
        let mut space = [0; 16 << 10];
        while let Ok(bytes @ 1..) = stream.read(&mut space) {
            heard.send(space[..bytes].to_vec()).ok();
        }
        drop(heard);
        writing.join().unwrap();
    })
}

fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

fn switched(stream: &mut impl Read) {
    let head = read_head(stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
}

#[test]
fn websocket_forwards_bytes_in_both_directions() {
    let backend = echoing(b"welcome");
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    // The backend sends first, then the client.
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    expect(&mut stream, b"welcome");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).unwrap();
        expect(&mut stream, word.as_bytes());
    }
    drop(stream);
    let line = lab.wait_for_access("path=/chat");
    assert!(line.contains("status=101") && line.contains("cause=-"), "{line}");
    // The client sends data in the same packet as its handshake.
    let mut stream = connect(port);
    stream.write_all(&[HANDSHAKE, b"hasty"].concat()).unwrap();
    switched(&mut stream);
    expect(&mut stream, b"welcomehasty");
    stream.write_all(b"then patient").unwrap();
    expect(&mut stream, b"then patient");
}

#[test]
fn websocket_forwards_large_frames_in_both_directions_at_the_same_time() {
    const LARGE: usize = 8 << 20;
    let backend = echoing(b"");
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", "request_limits: { body_size: 1KiB }"));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || Pattern::new().write(&mut writer, LARGE).unwrap());
    Pattern::new().check(&mut stream, LARGE);
    sending.join().unwrap();
}

#[test]
fn websocket_works_over_tls() {
    let backend = echoing(b"");
    let port = free_port();
    let tls = "', tls: { certificates: [{ certificate: localhost.pem, key: localhost-key.pem }] } }]\n";
    let lab = Lab::start(&yaml(port, backend.port, "", "").replacen("' }]\n", tls, 1));
    let mut stream = connect_tls(port, tls_config(lab.folder(), &["http/1.1"]));
    stream.write_all(&[HANDSHAKE, b"hasty"].concat()).unwrap();
    switched(&mut stream);
    expect(&mut stream, b"hasty");
    stream.write_all(b"more").unwrap();
    expect(&mut stream, b"more");
}

#[test]
fn a_backend_that_also_speaks_http2_is_asked_for_upgrades_by_http1() {
    let config = server_config(&["h2", "http/1.1"]);
    let backend = Scripted::start(move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        if read_head(&mut stream).is_empty() {
            return;
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.write_all(AGREED).unwrap();
        let mut space = [0; 64];
        while let Ok(bytes @ 1..) = stream.read(&mut space) {
            stream.write_all(&space[..bytes]).unwrap();
        }
    });
    let port = free_port();
    let pool = "protocol: auto, tls: { server_name: localhost, verify: false },";
    let _lab = Lab::start(&yaml(port, backend.port, pool, ""));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    stream.write_all(b"hello").unwrap();
    expect(&mut stream, b"hello");
}

#[test]
fn tunnel_is_closed_when_either_side_closes() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Scripted::start(move |mut stream| {
        if read_head(&mut stream).contains("/leaves ") {
            stream.write_all(&[AGREED, b"bye"].concat()).unwrap();
            return;
        }
        stream.write_all(AGREED).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        tell.lock().unwrap().send(heard).unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(&String::from_utf8_lossy(HANDSHAKE).replace("/chat", "/leaves").into_bytes()).unwrap();
    switched(&mut stream);
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"bye");
    // The client's last bytes before it closed its writing side arrive, followed by the end of the stream.
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"last words");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a half-closed tunnel is closed");
}

#[test]
fn response_to_a_declined_upgrade_is_forwarded() {
    let backend = Scripted::start(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            let response: &[u8] = match head.split(' ').nth(1) {
                Some("/chat") => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
                Some(_) => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes",
                None => return,
            };
            stream.write_all(response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(HANDSHAKE).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (403, "no"), "{response:?}");
        assert_eq!(response.header("connection"), "keep-alive");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut stream).body, "yes");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn idle_tunnel_is_limited_by_the_tunnel_timeout_only() {
    let backend = echoing(b"");
    let port = free_port();
    let quick = "timeouts: { first_byte: 200ms, idle: 200ms },";
    let lab = Lab::start(&yaml(
        port,
        backend.port,
        quick,
        "client_timeouts: { body: 200ms, header: 200ms, keepalive: 200ms, tunnel: 1s }",
    ));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    // Three times as long as every other timeout than the tunnel's.
    std::thread::sleep(Duration::from_millis(600));
    stream.write_all(b"still here").unwrap();
    expect(&mut stream, b"still here");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a tunnel idle for longer than `tunnel` is closed");
    let line = lab.wait_for_access("path=/chat");
    assert!(line.contains("status=101") && line.contains("cause=idle_timeout"), "{line}");
}

#[test]
fn upgrade_without_a_response_times_out() {
    for timeouts in ["first_byte: 200ms, idle: 1s", "first_byte: 300ms, idle: 200ms"] {
        let backend = Scripted::start(|mut stream| {
            read_head(&mut stream);
            stream.read_exact(&mut [0]).ok();
        });
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, &format!("timeouts: {{ {timeouts} }},"), ""));
        let mut stream = connect(port);
        stream.write_all(HANDSHAKE).unwrap();
        let response = read_response(&mut stream);
        assert_eq!(response.status, 504, "{response:?}");
        assert!(response.body.contains("first_byte_timeout"), "{response:?}");
    }
}

#[test]
fn tunnel_continues_while_the_process_drains() {
    let backend = echoing(b"");
    let port = free_port();
    let server = "server: { threads: 2, grace_period_seconds: 20, upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid' }";
    let mut lab = Lab::start(&yaml(port, backend.port, "", server));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    lab.signal(Signal::SIGTERM);
    crate::lab::eventually("the port is closed", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    // Longer than idle connections are left open.
    std::thread::sleep(Duration::from_millis(800));
    stream.write_all(b"still here").unwrap();
    expect(&mut stream, b"still here");
    assert!(lab.is_running());
    drop(stream);
    assert!(lab.wait_exit(PATIENCE).success());
}

#[test]
fn tunnel_stays_in_the_old_process_during_an_upgrade() {
    let backend = echoing(b"");
    let port = free_port();
    let mut lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_for_log("the new process is ready");
    let mut newcomer = connect(port);
    newcomer.write_all(HANDSHAKE).unwrap();
    switched(&mut newcomer);
    for stream in [&mut stream, &mut newcomer] {
        stream.write_all(b"still here").unwrap();
        expect(stream, b"still here");
    }
    assert!(lab.is_running());
    // A connection made at this moment may be served by either process.
    drop((stream, newcomer));
    assert!(lab.wait_exit(PATIENCE).success());
    let mut late = connect(port);
    late.write_all(HANDSHAKE).unwrap();
    switched(&mut late);
}

#[test]
fn tunnel_is_closed_at_the_end_of_the_grace_period() {
    let backend = echoing(b"");
    let port = free_port();
    let server = "server: { threads: 2, grace_period_seconds: 1, upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid' }";
    let mut lab = Lab::start(&yaml(port, backend.port, "", server));
    let mut stream = connect(port);
    stream.write_all(HANDSHAKE).unwrap();
    switched(&mut stream);
    lab.signal(Signal::SIGTERM);
    let end = stream.read(&mut [0]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    lab.wait_exit(PATIENCE);
}
