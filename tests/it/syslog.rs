//! The access log over syslog: real receivers over UDP, TCP and Unix sockets, which are down, come back, or never read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::client::{connect, exchange, get, read_response};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

/// A configuration with syslog at `address`.
fn yaml(port: u16, backend: &Backend, address: &str, more: &str) -> String {
    let syslog = format!("access_log: {{ syslog: {{ address: '{address}', hostname: lb1, app_name: edge }}{more} }}");
    one_pool(port, &[backend], &syslog)
}

/// The next message of a TCP stream with octet counting.
fn counted(stream: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).unwrap();
    let length: usize = str::from_utf8(&length).unwrap().trim_end().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

/// A message for a line about this path.
fn is_about(message: &str, path: &str) -> bool {
    let header =
        message.starts_with("<190>1 20") && message.contains("Z lb1 edge ") && message.contains(" access - time=");
    assert!(header && !message.contains(['\n', '\r', '\0']), "{message:?}");
    message.contains(&format!(" path={path} "))
}

#[test]
fn each_line_is_one_datagram_over_udp_and_refused_ones_are_counted() {
    let (backend, port) = (Backend::start("one"), free_port());
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("udp:{}", receiver.local_addr().unwrap());
    let lab = Lab::start(&yaml(port, &backend, &address, ""));
    let mut buffer = [0; 4096];
    for number in 0..3 {
        get(port, &format!("/apiA/{number}"));
        let length = receiver.recv(&mut buffer).unwrap();
        assert!(is_about(str::from_utf8(&buffer[..length]).unwrap(), &format!("/apiA/{number}")));
    }
    drop(receiver);
    eventually("a lost line is reported", PATIENCE, || {
        assert_eq!(get(port, "/apiA/lost").status, 200);
        lab.log().contains("access log lines lost: lines=")
    });
}

#[test]
fn hostile_request_is_one_message_over_tcp_with_octet_counting() {
    let (backend, port) = (Backend::start("one"), free_port());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let more = ", request_headers: [User-Agent], query: true";
    let _lab = Lab::start(&yaml(port, &backend, &address, more));
    let forged =
        b"GET /apiA/%0A%0D?a=%0A<190>1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\" 99 <190>1 \xff\xc2\x85\\\r\n\r\n";
    assert_eq!(exchange(port, forged).status, 200);
    let mut stream = accept(&listener);
    let message = counted(&mut stream);
    get(port, "/apiA/next");
    assert!(is_about(&message, "/apiA/%0A%0D"), "{message}");
    assert!(message.ends_with("request.header.user-agent=\"x\\\" 99 <190>1 \u{fffd}\\u0085\\\\\""), "{message}");
    assert!(is_about(&counted(&mut stream), "/apiA/next"), "the framing is intact");
}

#[test]
fn lines_wait_while_a_tcp_receiver_is_down_and_arrive_in_order_when_it_is_back() {
    let (backend, port, receiver) = (Backend::start("one"), free_port(), free_port());
    let lab = Lab::start(&yaml(port, &backend, &format!("tcp:127.0.0.1:{receiver}"), ""));
    // On one connection, whose lines have the order of its requests.
    let mut client = connect(port);
    let mut send = |numbers: Range<usize>| {
        for number in numbers {
            let request = format!("GET /apiA/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            assert_eq!(read_response(&mut client).status, 200);
        }
    };
    send(0..5);
    lab.wait_for_log("the access log cannot reach syslog at tcp:127.0.0.1:");
    let listener = TcpListener::bind(("127.0.0.1", receiver)).unwrap();
    let mut stream = accept(&listener);
    for number in 0..5 {
        assert!(is_about(&counted(&mut stream), &format!("/apiA/{number}")));
    }
    lab.wait_for_log("the access log reaches syslog at");
    // The receiver restarts between two lines.
    drop(stream);
    send(5..8);
    let mut stream = accept(&listener);
    for number in 5..8 {
        assert!(is_about(&counted(&mut stream), &format!("/apiA/{number}")));
    }
    assert!(!lab.log().contains("lines lost"), "{}", lab.log());
}

#[test]
fn receiver_that_never_reads_delays_no_request_and_lost_lines_are_counted_at_the_end() {
    let (backend, port) = (Backend::start("one"), free_port());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let mut lab = Lab::start(&yaml(port, &backend, &address, ", request_headers: [X-Long]"));
    get(port, "/apiA");
    let (never_read, _) = listener.accept().unwrap();
    let long = "x".repeat(30_000);
    let mut client = connect(port);
    // More than the buffers of the kernel hold.
    for number in 0..600 {
        let request = format!("GET /apiA/{number} HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_response(&mut client).status, 200, "{number}");
    }
    lab.wait_for_log("the receiver does not read; its lines wait");
    lab.signal(Signal::SIGTERM);
    lab.wait_for_log("access log lines lost: lines=");
    lab.wait_exit(Duration::from_secs(20));
    drop(never_read);
}

#[test]
fn unix_sockets_of_both_types_get_messages_and_a_restarted_receiver_loses_none() {
    let (backend, folder) = (Backend::start("one"), tempfile::tempdir().unwrap());
    let (path, port) = (folder.path().join("log"), free_port());
    let address = format!("unix:{}", path.display());
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let lab = Lab::start(&yaml(port, &backend, &address, ""));
    let mut buffer = [0; 4096];
    let mut next = |receiver: &UnixDatagram| {
        let length = receiver.recv(&mut buffer).unwrap();
        str::from_utf8(&buffer[..length]).unwrap().to_owned()
    };
    get(port, "/apiA/0");
    assert!(is_about(&next(&receiver), "/apiA/0"));
    drop(receiver);
    std::fs::remove_file(&path).unwrap();
    get(port, "/apiA/1");
    lab.wait_for_log("the access log cannot reach syslog at unix:");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_about(&next(&receiver), "/apiA/1"));
    drop(receiver);
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    get(port, "/apiA/2");
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(is_about(line.trim_end_matches('\n'), "/apiA/2"));
    assert!(!lab.log().contains("lines lost"), "{}", lab.log());
}
