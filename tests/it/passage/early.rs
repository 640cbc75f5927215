//! Answers that come while the request is still being sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{Pattern, yaml};
use crate::lab::client::{connect, connect_tls, read_answer, read_head, tls_config};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, free_port};

/// More than all the buffers in between take.
const BIG: usize = 32 << 20;

/// What a backend does behind its answer.
type Leave = fn(&mut TcpStream);

#[test]
fn an_early_answer_is_not_eaten_by_a_reset() {
    let manners: [Leave; 3] = [
        // Waits for the client to notice.
        |stream| drop(stream.read_to_end(&mut Vec::new())),
        // Says that it is done, and waits as well.
        |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).ok();
        },
        // Closes in the middle of the upload, which resets its connection.
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
        // A client that reads when it is done with writing, or cannot write any more.
        for length in [600 << 10, BIG] {
            let mut stream = connect(port);
            write!(stream, "POST /up-{length} HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n").unwrap();
            stream.write_all(&vec![b'x'; length]).ok();
            let answer = read_answer(&mut stream);
            assert_eq!((answer.status, answer.body.as_str()), (403, "enough"));
            assert!(length == BIG || answer.header("connection") == "close");
            if length < BIG {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                assert!(rest.is_empty(), "the connection ends in order");
            }
            drop(stream);
            let line = lab.wait_for_access(&format!("path=/up-{length} "));
            assert!(line.contains("status=403") && line.contains("cause=-"), "{line}");
        }
    }
}

#[test]
fn a_short_rest_of_a_request_is_read_and_the_connection_goes_on() {
    // A backend that takes the rest as well, and one that closes upon its answer.
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
                let answer = read_answer(&mut stream);
                assert_eq!((answer.status, answer.header("connection")), (401, "keep-alive"));
                stream.write_all(&vec![b'x'; 20_000 - part.len()]).unwrap();
            }
        }
        // Nobody knows how long the rest of a chunked body is.
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe").unwrap();
        assert_eq!(read_answer(&mut stream).header("connection"), "close");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_rest_that_does_not_come_ends_the_connection() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nenough").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").unwrap();
    assert_eq!(read_answer(&mut stream).status, 401);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "in order");
}

#[test]
fn what_we_refuse_before_its_short_end_costs_no_connection() {
    let backend = Scripted::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", "").replace("path: /,", "path: /here,"));
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(b"POST /there HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, answer.header("connection")), (404, "keep-alive"));
        stream.write_all(b"hello").unwrap();
    }
    lab.wait_for_access("status=404");
}

#[test]
fn our_own_early_refusal_is_not_eaten_either() {
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
    // Announced, and so refused at once; not announced, and so refused on the way.
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
    let answer = read_answer(stream);
    assert_eq!((answer.status, answer.header("connection")), (413, "close"), "{answer:?}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "the connection ends in order");
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
                // Cut off: the answer still counts.
                _ = async { drop(uploading.await); std::future::pending::<()>().await } => {}
            }
        }
    });
}

#[test]
fn a_slow_upload_takes_as_long_as_it_takes() {
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
        // In all longer than the first byte may take, which counts from the request's end.
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(b"x").unwrap();
    }
    // So may a single pause of the client's be.
    std::thread::sleep(Duration::from_millis(600));
    stream.write_all(b"x").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
}

#[test]
fn big_bodies_flow_in_both_directions_at_once() {
    let backend = Scripted::start(|mut stream| {
        let pattern = Pattern::new();
        read_head(&mut stream);
        let mut writer = stream.try_clone().unwrap();
        // Answers before it has read anything, and waits for its answer to be taken before it reads on.
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
