//! Early responses: responses sent while the request is still arriving.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{Pattern, yaml};
use crate::lab::client::{connect, connect_tls, read_head, read_response, tls_config};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, free_port};

/// More bytes than all buffers in between hold.
const BIG: usize = 32 << 20;

/// What a backend does after its response.
type Leave = fn(&mut TcpStream);

#[test]
fn early_response_arrives_without_a_reset() {
    let manners: [Leave; 3] = [
        // Waits until the client reacts.
        |stream| drop(stream.read_to_end(&mut Vec::new())),
        // Shuts down its writing side, and waits as well.
        |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).ok();
        },
        // Closes during the upload, which resets the connection.
        |_| {},
    ];
    for leave in manners {
        let backend = Scripted::start(move |mut stream| {
            read_head(&mut stream);
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nenough").unwrap();
            leave(&mut stream);
        });
        let port = free_port();
        let lab = Lab::start(&yaml(port, backend.port, "", ""));
        // A client that reads once it has finished writing, or cannot write any more.
        for length in [600 << 10, BIG] {
            let mut stream = connect(port);
            write!(stream, "POST /up-{length} HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n").unwrap();
            stream.write_all(&vec![b'x'; length]).ok();
            let response = read_response(&mut stream);
            assert_eq!((response.status, response.body.as_str()), (403, "enough"));
            assert!(length == BIG || response.header("connection") == "close");
            if length < BIG {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                assert!(rest.is_empty(), "the connection is closed without a reset");
            }
            drop(stream);
            let line = lab.wait_for_access(&format!("path=/up-{length} "));
            assert!(line.contains("status=403") && line.contains("cause=-"), "{line}");
        }
    }
}

#[test]
fn short_rest_of_a_request_is_read_and_the_connection_is_kept() {
    // A backend that reads the rest as well, and one that closes after its response.
    for (takes, connection) in [(20_000, "keep-alive"), (0, "close")] {
        let backend = Scripted::start(move |mut stream| {
            while !read_head(&mut stream).is_empty() {
                let head =
                    format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\nConnection: {connection}\r\n\r\n");
                stream.write_all((head + "enough").as_bytes()).unwrap();
                if takes == 0 || stream.read_exact(&mut vec![0; takes]).is_err() {
                    return;
                }
            }
        });
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        for part in ["", "0123456789"] {
            for _ in 0..2 {
                write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n{part}").unwrap();
                let response = read_response(&mut stream);
                assert_eq!((response.status, response.header("connection")), (401, "keep-alive"));
                stream.write_all(&vec![b'x'; 20_000 - part.len()]).unwrap();
            }
        }
        // The remaining length of a chunked body is unknown.
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe").unwrap();
        assert_eq!(read_response(&mut stream).header("connection"), "close");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn missing_rest_of_a_request_closes_the_connection() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nenough").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").unwrap();
    assert_eq!(read_response(&mut stream).status, 401);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed without a reset");
}

#[test]
fn rejection_before_a_short_rest_keeps_the_connection() {
    let backend = Scripted::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", "").replace("path: /,", "path: /here,"));
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(b"POST /there HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.header("connection")), (404, "keep-alive"));
        stream.write_all(b"hello").unwrap();
    }
    lab.wait_for_access("status=404");
}

#[test]
fn early_rejection_arrives_without_a_reset() {
    let backend = Scripted::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let port = free_port();
    let tls_port = free_port();
    let yaml = yaml(port, backend.port, "", "request_limits: { body_size: 1KiB }").replacen(
        "listeners: [",
        &format!(
            "listeners: [{{ address: '127.0.0.1:{tls_port}', tls: {{ certificates: [{{ certificate: localhost.pem, key: localhost-key.pem }}] }} }}, "
        ),
        1,
    );
    let lab = Lab::start(&yaml);
    // Rejected immediately with Content-Length; rejected during the body without it.
    let announced = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BIG}\r\n\r\n").into_bytes();
    let mut chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    write!(chunked, "{BIG:x}\r\n").unwrap();
    for head in [announced, chunked] {
        upload_in_vain(&mut connect(port), &head);
        upload_in_vain(&mut connect_tls(tls_port, tls_config(lab.folder(), &["http/1.1"])), &head);
    }
}

fn upload_in_vain(stream: &mut (impl Read + Write), head: &[u8]) {
    stream.write_all(head).unwrap();
    stream.write_all(&vec![b'x'; 600 << 10]).ok();
    let response = read_response(stream);
    assert_eq!((response.status, response.header("connection")), (413, "close"), "{response:?}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "the connection is closed without a reset");
}

#[test]
fn early_answers_reach_http2_clients_and_their_connection_goes_on() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nenough").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", "request_limits: { body_size: 64MiB }"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let mut sender: h2::client::SendRequest<bytes::Bytes> = sender.clone().ready().await.unwrap();
            let request = http::Request::post("http://localhost/").body(()).unwrap();
            let (response, mut sending) = sender.send_request(request, false).unwrap();
            let uploading = crate::lab::grpc::send(&mut sending, bytes::Bytes::from(vec![b'x'; BIG]));
            let answering = async {
                let response = response.await.unwrap();
                assert_eq!(response.status(), 403);
                let mut body = response.into_body();
                let mut text = Vec::new();
                while let Some(data) = body.data().await {
                    text.extend_from_slice(&data.unwrap());
                }
                assert_eq!(text, b"enough");
            };
            tokio::select! {
                () = answering => {}
                // Aborted: the response still counts.
                _ = async { drop(uploading.await); std::future::pending::<()>().await } => {}
            }
        }
    });
}

#[test]
fn slow_upload_is_not_limited_by_backend_timeouts() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.read_exact(&mut [0; 9]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let port = free_port();
    let timeouts = "timeouts: { first_byte: 300ms, idle: 1s },";
    let _lab = Lab::start(&yaml(port, backend.port, timeouts, ""));
    let mut stream = connect(port);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").unwrap();
    for _ in 0..8 {
        // Longer in total than the first-byte timeout, which starts at the end of the request.
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(b"x").unwrap();
    }
    // A single pause of the client may also be longer.
    std::thread::sleep(Duration::from_millis(600));
    stream.write_all(b"x").unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
}

#[test]
fn large_bodies_are_forwarded_in_both_directions_at_the_same_time() {
    let backend = Scripted::start(|mut stream| {
        let pattern = Pattern::new();
        read_head(&mut stream);
        let mut writer = stream.try_clone().unwrap();
        // Responds before it has read anything, and reads on only after its response has been received.
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").unwrap();
        let answering = std::thread::spawn(move || Pattern::new().write(&mut writer, BIG).unwrap());
        pattern.check(&mut stream, BIG);
        answering.join().unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n").unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || Pattern::new().write(&mut writer, BIG).unwrap());
    assert!(read_head(&mut stream).contains(" 200 "));
    Pattern::new().check(&mut stream, BIG);
    sending.join().unwrap();
}

#[test]
fn backend_that_sends_megabytes_before_it_reads_the_request_is_no_deadlock() {
    if super::lacks_own_engine() {
        return;
    }
    const LENGTH: usize = 8 << 20;
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&vec![b'r'; LENGTH]).unwrap();
        // The balancer may end the exchange once the response is complete.
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "timeouts: { idle: 2s },", ""));
    let mut stream = connect(port);
    let mut writer = stream.try_clone().unwrap();
    let upload = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
        writer.write_all(head.as_bytes()).unwrap();
        // Fails when the balancer has closed the connection after the response.
        writer.write_all(&vec![b'q'; LENGTH]).ok();
    });
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = vec![0; LENGTH];
    stream.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'r'));
    drop(stream);
    upload.join().unwrap();
}
