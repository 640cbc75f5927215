//! HTTP/2 to backends: connections that end during use, and streams that are refused or reset.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpStream;

use crate::lab::client::{connect, exchange, get, read_head, read_response};
use crate::lab::frames::{DATA, Frames, RST_STREAM, request};
use crate::lab::scripted::{Scripted, Stream};
use crate::lab::{Lab, free_port};

/// A balancer in front of these HTTP/2 backends.
fn lab(port: u16, backends: &[&Scripted]) -> Lab {
    let backends: Vec<String> =
        backends.iter().map(|backend| format!("{{ address: '127.0.0.1:{}' }}", backend.port)).collect();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ protocol: h2c, health_check: {{ type: none }}, backends: [{}] }}\n\
         routes: [{{ path: /, pool: a }}]\n",
        backends.join(", ")
    ))
}

/// Echoes the request body.
fn echo((request, mut respond): Stream) {
    tokio::spawn(async move {
        let mut body = request.into_body();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            stream.send_data(data, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
}

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

#[test]
fn refused_http2_stream_is_retried_for_every_method() {
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    // Every second stream is refused, which means that it was not processed (RFC 9113 §8.7).
    let backend = Scripted::start_http2(move |number, _, (request, mut respond)| {
        if number % 2 == 1 {
            counter.fetch_add(1, Ordering::Relaxed);
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        } else {
            echo((request, respond));
        }
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    for _ in 0..4 {
        let response = exchange(port, POST);
        assert_eq!((response.status, response.body.as_str()), (200, "hello"), "{response:?}");
    }
    assert_eq!(refused.load(Ordering::Relaxed), 4);
}

#[test]
fn reset_http2_stream_is_retried_only_if_idempotent() {
    let streams = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&streams);
    let backend = Scripted::start_http2(move |_, _, (_, mut respond)| {
        counter.fetch_add(1, Ordering::Relaxed);
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    let response = exchange(port, POST);
    assert_eq!(response.status, 502, "{response:?}");
    assert_eq!(streams.load(Ordering::Relaxed), 1);
}

#[test]
fn backend_goaway_fails_no_request() {
    // Each connection takes three requests and then sends GOAWAY, as servers with an age limit do.
    let backend = Scripted::start_http2(|number, connection, stream| {
        if number == 3 {
            connection.graceful_shutdown();
        }
        echo(stream);
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    let statuses: Vec<u16> = std::thread::scope(|threads| {
        let client = || (0..20).map(|_| exchange(port, POST).status).collect::<Vec<_>>();
        let running: Vec<_> = (0..4).map(|_| threads.spawn(client)).collect();
        running.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(backend.connections() > 3, "connections were replaced");
}

#[test]
fn started_response_completes_after_backend_goaway() {
    let backend = Scripted::start_http2(|_, connection, (_, mut respond)| {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from("before "), false).unwrap();
        connection.graceful_shutdown();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            stream.send_data(Bytes::from("after"), true).unwrap();
        });
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    for _ in 0..3 {
        let response = get(port, "/");
        assert_eq!((response.status, response.body.as_str()), (200, "before after"));
    }
}

#[test]
fn reset_after_the_announced_length_keeps_the_clients_connection() {
    let backend = Scripted::start_http2(|_, _, (_, mut respond)| {
        let response = Response::builder().header("content-length", 2).body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from("ok"), false).unwrap();
        tokio::spawn(async move {
            // What was sent must leave before the reset discards it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        });
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    let mut client = connect(port);
    for _ in 0..2 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let response = read_response(&mut client);
        assert_eq!((response.status, response.body.as_str()), (200, "ok"), "{response:?}");
    }
}

#[test]
fn http2_response_that_differs_from_content_length_is_never_complete() {
    let backend = Scripted::start_http2(|_, _, (request, mut respond)| {
        let length = request.uri().path().trim_start_matches('/').to_owned();
        let response = Response::builder().header("content-length", length).body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from("abc"), true).unwrap();
    });
    let port = free_port();
    let lab = lab(port, &[&backend]);
    for length in ["2", "4", "40"] {
        let mut client = connect(port);
        write!(client, "POST /{length} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        let complete = received.starts_with("HTTP/1.1 200") && received.ends_with("\r\n\r\nabc") && length == "3";
        assert!(!complete, "{length}: {received}");
        assert!(lab.wait_for_access(&format!("path=/{length} ")).contains("cause=backend_failed"), "{length}");
        // An HTTP/2 client gets a response of l7lb, or a reset.
        let mut frames = Frames::connect(port);
        frames.headers(1, true, &request(b"POST", format!("/{length}").as_bytes()));
        let end = frames.find(|frame| frame.stream == 1 && (frame.kind == RST_STREAM || frame.ends_stream())).unwrap();
        assert!(end.kind == RST_STREAM || end.kind == DATA && end.payload != b"abc", "{length}: {end:?}");
    }
}

#[test]
fn expect_100_continue_is_answered_for_http2_backends() {
    let backend = Scripted::start_http2(|_, _, stream| echo(stream));
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    // The backend may start its response before or after it has the whole request.
    let mut stream = connect(port);
    for body in ["first", "again", "third", "forth"] {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
        stream.write_all(body.as_bytes()).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, body));
    }
    // A client that did not wait gets 100 as well, before the response.
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhasty").unwrap();
    assert_eq!(read_response(&mut stream).body, "hasty");
}

/// A backend that sends no window update for the request body, responds, and ends the stream.
fn without_window_updates(body_bytes: &'static str) -> Scripted {
    Scripted::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            let mut connection =
                h2::server::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let head = Response::builder().status(401).header("content-length", body_bytes.len());
                let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                body.send_data(Bytes::from(body_bytes), true).unwrap();
                // The rest of the request is refused (RFC 9113 §8.1).
                drop(request);
            }
        });
    })
}

#[test]
fn client_connection_is_kept_if_its_request_was_read_completely() {
    let backend = without_window_updates("enough");
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    let mut stream = connect(port);
    for _ in 0..5 {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (401, "enough"));
        assert_eq!(response.header("connection"), "keep-alive");
    }
}

#[test]
fn early_response_of_an_http2_backend_reaches_the_client() {
    let backend = without_window_updates("enough");
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    // A short rest is read, and the connection is kept.
    let mut stream = connect(port);
    for _ in 0..5 {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.body.as_str(), response.header("connection")), ("enough", "keep-alive"));
        stream.write_all(b"llo").unwrap();
    }
    // A long rest is not read. A client that reads only after it has written all it can still gets the response.
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; 600 << 10]).unwrap();
    let response = read_response(&mut stream);
    assert_eq!((response.status, response.body.as_str(), response.header("connection")), (401, "enough", "close"));
    stream.write_all(&vec![b'x'; 600 << 10]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the connection is closed without a reset");
    assert!(rest.is_empty());
}

#[test]
fn response_trailers_are_forwarded_from_http2_to_http2() {
    let backend = Scripted::start_http2(|_, _, (_, mut respond)| {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from("body"), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-checksum", "42".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    let port = free_port();
    let _lab = lab(port, &[&backend]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(Request::get("http://localhost/").body(()).unwrap(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "body");
        assert_eq!(body.trailers().await.unwrap().unwrap()["x-checksum"], "42");
    });
    // An HTTP/1.1 client gets the body without trailers.
    assert_eq!(get(port, "/").body, "body");
}

#[test]
fn http2_head_response_ends_with_its_header() {
    let backend = Scripted::start_http2(|_, _, (_, mut respond)| {
        respond.send_response(Response::builder().header("content-length", "12345").body(()).unwrap(), true).unwrap();
    });
    let port = free_port();
    let refusing = free_port();
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ protocol: h2c, health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n  \
         b: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{refusing}' }}] }}\n\
         routes: [{{ path: /a, pool: a }}, {{ path: /b, pool: b }}]\n",
        backend.port
    ));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (path, status) in [("/a", 200), ("/b", 502), ("/nowhere", 404)] {
            let mut sender: h2::client::SendRequest<Bytes> = sender.clone().ready().await.unwrap();
            let request = Request::head(format!("http://localhost{path}")).body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.headers().contains_key("content-length"), "{response:?}");
            let mut body = response.into_body();
            while let Some(data) = body.data().await {
                assert!(data.unwrap().is_empty(), "{path}");
            }
        }
    });
}
