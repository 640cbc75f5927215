//! Backends that a reload removes: open exchanges may complete until `removal_timeout`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::streams::{begin, echo};
use super::{UNWATCHED, reloaded, replace};
use crate::lab::client::{get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};

/// A pool `a` that stays and, unless `removed` is empty, a pool `live` of backends that a test removes.
fn yaml(port: u16, stays: &Backend, removed: &[u16], keys: &str) -> String {
    let removed: String = removed.iter().map(|port| format!("{{ address: '127.0.0.1:{port}' }}, ")).collect();
    let pool = match removed.is_empty() {
        true => String::new(),
        false => format!("  live: {{ health_check: {{ type: none }}, {keys}, backends: [{removed}] }}\n"),
    };
    let to = if removed.is_empty() { "a" } else { "live" };
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\npools:\n{pool}  a: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /live, pool: {to} }}]\n{UNWATCHED}",
        stays.port
    )
}

/// Reads until the connection ends.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset ends the connection as well.
    stream.read_to_end(&mut rest).ok();
    rest
}

#[test]
fn streams_of_a_removed_pool_are_aborted_after_removal_timeout_and_logged() {
    let (stays, removed) = (Backend::start("stays"), Backend::start("removed"));
    let port = free_port();
    let keys = "removal_timeout: 1500ms";
    let lab = Lab::start(&yaml(port, &stays, &[removed.port], keys));
    let mut long = begin(port, "/live/slow-body/100000/20ms", "");
    let mut short = begin(port, "/live/slow-body/20/20ms", "");
    replace(&lab, &yaml(port, &stays, &[], keys));
    assert!(reloaded(&lab).contains("pools removed: live"));
    assert_eq!(get(port, "/live").header("x-backend"), "stays");
    let complete = rest_of_chunks(&mut short);
    assert!(complete.ends_with(b"0\r\n\r\n"), "{:?}", complete.escape_ascii().to_string());
    let aborted = rest(&mut long);
    assert!(!aborted.ends_with(b"0\r\n\r\n"), "an aborted response must not look complete");
    let line = lab.wait_for_access("path=/live/slow-body/100000");
    assert!(line.contains("status=200") && line.contains("cause=backend_removed"), "{line}");
    let line = lab.wait_for_log("backend removed");
    assert!(line.contains(&format!("pool=live backend=127.0.0.1:{} aborted=1", removed.port)), "{line}");
}

fn rest_of_chunks(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let mut space = [0; 4096];
    while !read.ends_with(b"0\r\n\r\n") {
        match stream.read(&mut space).unwrap() {
            0 => return read,
            bytes => read.extend_from_slice(&space[..bytes]),
        }
    }
    read
}

#[test]
fn websocket_is_aborted_only_if_its_backend_was_removed() {
    let stays = Backend::start("stays");
    let scripted = || {
        Scripted::start(|mut stream| {
            read_head(&mut stream);
            echo(&mut stream);
        })
    };
    let backends = [scripted(), scripted()];
    let (port, keys) = (free_port(), "balance: round_robin, removal_timeout: 1s");
    let lab = Lab::start(&yaml(port, &stays, &[backends[0].port, backends[1].port], keys));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut chats: Vec<TcpStream> = (0..2).map(|_| begin(port, "/live/chat", upgrade)).collect();
    assert!(backends.iter().all(|backend| backend.connections() == 1), "one WebSocket on each backend");
    replace(&lab, &yaml(port, &stays, &[backends[1].port], keys));
    assert!(reloaded(&lab).contains("pools changed: live"));
    for chat in &mut chats {
        chat.write_all(b"still here?").unwrap();
        chat.read_exact(&mut [0; 11]).unwrap();
    }
    let line = lab.wait_for_log("backend removed");
    assert!(line.contains(&format!("backend=127.0.0.1:{} aborted=1", backends[0].port)), "{line}");
    let mut open = 0;
    for chat in &mut chats {
        chat.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let is_open = chat.write_all(b"and now?").is_ok() && chat.read_exact(&mut [0; 8]).is_ok();
        open += u32::from(is_open);
    }
    assert_eq!(open, 1, "{}", lab.log());
    let line = lab.wait_for_access("path=/live/chat");
    assert!(line.contains("status=101") && line.contains("cause=backend_removed"), "{line}");
}

#[test]
fn stream_of_a_removed_http2_backend_is_aborted_after_removal_timeout() {
    let (stays, removed) = (Backend::start("stays"), Backend::start("removed"));
    let port = free_port();
    let keys = "protocol: h2c, removal_timeout: 500ms";
    let lab = Lab::start(&yaml(port, &stays, &[removed.port], keys));
    let mut long = begin(port, "/live/slow-body/100000/20ms", "");
    replace(&lab, &yaml(port, &stays, &[], keys));
    reloaded(&lab);
    assert!(!rest(&mut long).ends_with(b"0\r\n\r\n"));
    let line = lab.wait_for_access("path=/live/slow-body");
    assert!(line.contains("cause=backend_removed"), "{line}");
    lab.wait_for_log("aborted=1");
}

#[test]
fn backend_added_again_before_removal_timeout_keeps_its_streams() {
    let (stays, removed, third) = (Backend::start("stays"), Backend::start("removed"), Backend::start("third"));
    let port = free_port();
    let keys = "balance: round_robin, removal_timeout: 2s";
    let lab = Lab::start(&yaml(port, &stays, &[removed.port, third.port], keys));
    // Round robin: one stream on each backend.
    let mut streams: Vec<TcpStream> = (0..2).map(|_| begin(port, "/live/slow-body/180/20ms", "")).collect();
    replace(&lab, &yaml(port, &stays, &[third.port], keys));
    reloaded(&lab);
    replace(&lab, &yaml(port, &stays, &[removed.port, third.port], keys));
    reloaded(&lab);
    // The streams take longer than removal_timeout.
    for stream in &mut streams {
        assert!(rest_of_chunks(stream).ends_with(b"0\r\n\r\n"));
    }
    assert!(!lab.log().contains("backend removed"), "{}", lab.log());
}
