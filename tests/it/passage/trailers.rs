//! Trailers of HTTP/1.1 messages are forwarded in both directions, except those that a header must not have from
//! there.

use std::io::{Read, Write};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// Reads up to the end of a chunked body.
fn read_chunked(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn trailers_are_forwarded_in_both_directions() {
    if lacks_own_engine() {
        return;
    }
    let (received, requests) = std::sync::mpsc::channel();
    let received = std::sync::Mutex::new(received);
    let backend = Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            received.lock().unwrap().send(read_chunked(&mut stream)).unwrap();
            let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                3\r\nabc\r\n0\r\nX-Sum: 9\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\n";
            stream.write_all(response).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..2 {
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nhi\r\n0\r\nX-Check: 7\r\nHost: evil\r\nX-Forwarded-For: 9.9.9.9\r\nX_Real_IP: 9.9.9.9\r\n\r\n";
        stream.write_all(request).unwrap();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
        assert_eq!(read_chunked(&mut stream), "3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n");
        assert_eq!(requests.recv().unwrap(), "2\r\nhi\r\n0\r\nx-check: 7\r\n\r\n");
    }
    assert_eq!(backend.connections(), 1, "the connection is reused");
}

/// A backend that requires the trailer `x-check: 7`, and sends `x-sum: 9`; in the version of HTTP that the test wants.
fn backend(http2: bool) -> Scripted {
    if http2 { http2_backend() } else { http1_backend() }
}

fn http1_backend() -> Scripted {
    Scripted::start(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let body = read_chunked(&mut stream).to_lowercase();
            let status = if body.contains("\r\n0\r\nx-check: 7\r\n") { "200 OK" } else { "400 Bad Request" };
            write!(stream, "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")
                .unwrap();
        }
    })
}

fn trailer(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
}

fn http2_backend() -> Scripted {
    Scripted::start_http2(|_, _, (request, mut respond)| {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let complete = body.trailers().await.unwrap() == Some(trailer("x-check", "7"));
            let response = Response::builder().status(if complete { 200 } else { 400 });
            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from("abc"), false).unwrap();
            stream.send_trailers(trailer("x-sum", "9")).unwrap();
        });
    })
}

/// Status and trailers of the response to an HTTP/1.1 client.
fn http1_client(port: u16) -> (u16, String) {
    let mut stream = connect(port);
    let request =
        b"POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 7\r\n\r\n";
    stream.write_all(request).unwrap();
    let status = read_head(&mut stream)[9..12].parse().unwrap();
    let body = read_chunked(&mut stream);
    (status, body.split_once("\r\n0\r\n").unwrap().1.trim().to_owned())
}

/// The same for an HTTP/2 client.
fn http2_client(port: u16) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await.unwrap();
        let request = Request::post("http://x/").header("te", "trailers").body(()).unwrap();
        let (response, mut sending) = sender.send_request(request, false).unwrap();
        sending.send_data(Bytes::from("hi"), false).unwrap();
        sending.send_trailers(trailer("x-check", "7")).unwrap();
        let response = response.await.unwrap();
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while body.data().await.is_some() {}
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let lines = trailers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        (status, lines.collect::<Vec<_>>().join(", "))
    })
}

#[test]
fn trailers_pass_in_every_pairing_of_http_versions() {
    if lacks_own_engine() {
        return;
    }
    for http2 in [false, true] {
        let backend = backend(http2);
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, if http2 { "protocol: h2c," } else { "" }, ""));
        assert_eq!(http1_client(port), (200, "x-sum: 9".to_owned()), "HTTP/1.1 client, HTTP/2 backend: {http2}");
        assert_eq!(http2_client(port), (200, "x-sum: 9".to_owned()), "HTTP/2 client, HTTP/2 backend: {http2}");
    }
}
