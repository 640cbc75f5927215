//! WebSocket over HTTP/2 (RFC 8441), in all pairings of HTTP versions that it adds.

use std::io::{Read, Write};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, read_head};
use crate::lab::frames::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, request};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// The pseudo-header fields of an extended CONNECT.
const CONNECT: [(&[u8], &[u8]); 5] = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/chat"),
];

/// An HTTP/1.1 backend: switches on `/chat`, and echoes; `/refused` gets 403, other paths get 200.
fn http1_backend() -> Scripted {
    Scripted::start(|mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        if !head.starts_with("get /chat ") {
            let status = if head.starts_with("get /refused ") { "403 Forbidden" } else { "200 OK" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").ok();
            return;
        }
        for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", "sec-websocket-key: "] {
            assert!(head.contains(line), "{line}: {head}");
        }
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: p\r\n\r\nwelcome",
            )
            .unwrap();
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut part) {
            stream.write_all(&part[..length]).ok();
        }
    })
}

/// An HTTP/2 backend that echoes extended CONNECT requests for WebSocket, and responds 400 to others.
fn http2_backend() -> Scripted {
    async fn echo(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        let wanted = request.extensions().get::<h2::ext::Protocol>().is_some_and(|name| name.as_str() == "websocket");
        let clean =
            ["upgrade", "connection", "sec-websocket-key"].iter().all(|name| !request.headers().contains_key(*name));
        let status = if wanted && clean { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        let response = Response::builder().status(status).header("sec-websocket-protocol", "p").body(()).unwrap();
        let mut stream = respond.send_response(response, !wanted).unwrap();
        if !wanted {
            return;
        }
        stream.send_data(Bytes::from("welcome"), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            stream.send_data(data, false).unwrap();
        }
    }
    Scripted::start_http2(|_, _, (request, respond)| drop(tokio::spawn(echo(request, respond))))
}

/// The status of the response on `stream`.
fn status(frames: &mut Frames, stream: u32) -> u16 {
    let frame = frames.find(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
    assert_eq!(frame.kind, HEADERS, "{frame:?}");
    frame.status()
}

/// Reads DATA of `stream` until `expected` has arrived.
fn expect(frames: &mut Frames, stream: u32, expected: &str) {
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.extend(frames.find(|frame| frame.stream == stream && frame.kind == DATA).unwrap().payload);
    }
    assert_eq!(String::from_utf8(received).unwrap(), expected);
}

fn talk(lab: &Lab, port: u16) {
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &CONNECT);
    assert_eq!(status(&mut frames, 1), 200);
    expect(&mut frames, 1, "welcome");
    for word in ["one", "two"] {
        frames.send(DATA, 0, 1, word.as_bytes());
        expect(&mut frames, 1, word);
    }
    frames.send(DATA, END_STREAM, 1, b"");
    let line = lab.wait_for_access("path=/chat");
    assert!(line.contains("protocol=HTTP/2 status=200") && line.contains("cause=-"), "{line}");
}

#[test]
fn websocket_of_an_http2_client_reaches_an_http1_backend() {
    if lacks_own_engine() {
        return;
    }
    let backend = http1_backend();
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut frames = Frames::connect(port);
    let settings = frames.find(|frame| frame.kind == SETTINGS).unwrap();
    // SETTINGS_ENABLE_CONNECT_PROTOCOL
    assert!(settings.payload.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{settings:?}");
    talk(&lab, port);
}

#[test]
fn websocket_of_an_http2_client_reaches_an_http2_backend() {
    if lacks_own_engine() {
        return;
    }
    let backend = http2_backend();
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "protocol: h2c,", ""));
    talk(&lab, port);
}

#[test]
fn websocket_of_an_http1_client_reaches_an_http2_backend() {
    if lacks_own_engine() {
        return;
    }
    let backend = http2_backend();
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "protocol: h2c,", ""));
    let mut stream = connect(port);
    stream
        .write_all(
            b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="] {
        assert!(head.contains(line), "{line}: {head}");
    }
    stream.write_all(b"one").unwrap();
    let mut received = [0; 10];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"welcomeone");
    drop(stream);
    assert!(lab.wait_for_access("path=/chat").contains("status=101"));
}

#[test]
fn refused_websocket_over_http2_gets_the_response_of_the_backend_and_success_without_a_switch_gets_502() {
    if lacks_own_engine() {
        return;
    }
    let backend = http1_backend();
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    for (path, expected) in [(&b"/refused"[..], 403), (b"/other", 502)] {
        let mut frames = Frames::connect(port);
        frames.headers(1, false, &[&CONNECT[..4], &[(b":path", path)]].concat());
        assert_eq!(status(&mut frames, 1), expected);
    }
}

#[test]
fn extended_connect_for_another_protocol_is_rejected() {
    if lacks_own_engine() {
        return;
    }
    let backend = http1_backend();
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &[&CONNECT[..1], &[(b":protocol", b"connect-udp")], &CONNECT[2..]].concat());
    assert_eq!(status(&mut frames, 1), 405);
}

#[test]
fn other_streams_are_served_beside_a_websocket_and_an_idle_websocket_is_closed() {
    if lacks_own_engine() {
        return;
    }
    let backend = http1_backend();
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", "client_timeouts: { tunnel: 1s }"));
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &CONNECT);
    assert_eq!(status(&mut frames, 1), 200);
    expect(&mut frames, 1, "welcome");
    frames.headers(3, true, &request(b"GET", b"/other"));
    assert_eq!(status(&mut frames, 3), 200);
    // Nothing is sent until the tunnel is closed.
    let end = frames.find(|frame| frame.stream == 1 && (frame.kind == RST_STREAM || frame.ends_stream()));
    assert!(end.is_some());
    assert!(lab.wait_for_access("path=/chat").contains("cause=idle_timeout"));
    frames.headers(5, true, &request(b"GET", b"/other"));
    assert_eq!(status(&mut frames, 5), 200);
}
