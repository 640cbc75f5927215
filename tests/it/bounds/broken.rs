//! Answers that begin well and break off.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::{Moody, pool_without_retries};
use crate::lab::client::{connect, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

const UNCHECKED: &str = "health_check: { type: none }";

/// A backend that begins each answer, and then does this.
fn beginning(then: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfour").unwrap();
            then(&mut stream);
        }
    })
}

/// Asks without caring for the answer.
fn ask(port: u16) {
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).ok();
}

#[test]
fn a_backend_that_breaks_its_answers_off_is_ejected() {
    let short = beginning(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let silent = beginning(|stream| drop(stream.read(&mut [0])));
    for (bad, keys) in [(short, ""), (silent, ", timeouts: { idle: 200ms }")] {
        let good: Vec<Moody> = (0..3).map(|_| Moody::start(200)).collect();
        let mut ports: Vec<u16> = good.iter().map(Moody::port).collect();
        ports.push(bad.port);
        let port = free_port();
        let lab = Lab::start(&pool_without_retries(port, &ports, &format!("{UNCHECKED}{keys}")));
        let line = format!("backend ejected: pool=a backend=127.0.0.1:{} reason=\"5 failures in a row\"", bad.port);
        eventually("it is ejected", PATIENCE, || {
            ask(port);
            lab.log().contains(&line)
        });
        assert!((0..12).all(|_| get(port, "/").status == 200));
    }
}

/// An HTTP/2 backend whose answers break off behind their header, or do not.
fn streaming(breaks_off: bool) -> Scripted {
    Scripted::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(Bytes::from("four"), !breaks_off).unwrap();
                tokio::spawn(async move {
                    // Behind the header, not in its place.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    body.send_reset(h2::Reason::INTERNAL_ERROR);
                });
            }
        });
    })
}

#[test]
fn a_backend_that_resets_streams_in_the_middle_is_ejected() {
    let (good, bad) = (streaming(false), streaming(true));
    let port = free_port();
    let lab = Lab::start(&pool_without_retries(port, &[good.port, bad.port], &format!("{UNCHECKED}, protocol: h2c")));
    eventually("it is ejected", PATIENCE, || {
        ask(port);
        lab.log().contains(&format!("backend=127.0.0.1:{} reason=\"5 failures in a row\"", bad.port))
    });
    assert!((0..6).all(|_| get(port, "/").body == "four"));
}

#[test]
fn clients_that_leave_in_the_middle_condemn_nobody() {
    let endless = beginning(|stream| while stream.write_all(&[b'x'; 1000]).is_ok() {});
    let good = Moody::start(200);
    let port = free_port();
    let lab = Lab::start(&pool_without_retries(port, &[endless.port, good.port()], UNCHECKED));
    let left = || lab.access().iter().filter(|line| line.contains("cause=client_closed")).count();
    eventually("ten have left", PATIENCE, || {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read_head(&mut stream).contains(" 200 "));
        drop(stream);
        left() >= 10
    });
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}
