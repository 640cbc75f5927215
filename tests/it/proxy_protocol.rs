//! PROXY protocol to backends: the bytes before the first request, and no connection shared by two clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use l7lb::http::proxy_protocol::{Header, encode_local, encode_v2, parse};
use l7lb::tls::development;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::lab::client::{connect, read_response};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// The header of each connection in bytes, and the number of requests after it.
type Connections = Arc<Mutex<Vec<(Header, Vec<u8>, usize)>>>;

/// Reads the header and not one byte more.
fn read_header(stream: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        match parse(&bytes) {
            Ok(Some((header, length))) if length == bytes.len() => return Some((header, bytes)),
            Ok(None) if stream.read(&mut byte).unwrap_or(0) == 1 => bytes.push(byte[0]),
            other => {
                assert!(bytes.is_empty(), "no header: {other:?} in {}", bytes.escape_ascii());
                return None;
            }
        }
    }
}

/// Responds to requests until the client closes, and counts them.
fn response(stream: &mut (impl Read + Write), mut count: impl FnMut()) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            count();
            head.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    }
}

/// A backend that reads a header, and passes the connection to `serve`.
fn backend(serve: impl Fn(TcpStream, &mut dyn FnMut()) + Send + Sync + 'static) -> (Scripted, Connections) {
    let connections = Connections::default();
    let seen = Arc::clone(&connections);
    let scripted = Scripted::start(move |mut stream| {
        let Some((header, bytes)) = read_header(&mut stream) else { return };
        let index = {
            let mut seen = seen.lock();
            seen.push((header, bytes, 0));
            seen.len() - 1
        };
        serve(stream, &mut || seen.lock()[index].2 += 1);
    });
    (scripted, connections)
}

fn yaml(port: u16, backend: u16, pool: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ proxy_protocol: v2, {pool}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n\
         routes: [{{ path: /, pool: a }}]\n{more}"
    )
}

const UNCHECKED: &str = "health_check: { type: none }";

/// Sends `count` requests on one connection and returns the client's stream. With more clients than threads,
/// which have separate connection pools, two clients could share a connection.
fn requests(port: u16, count: usize) -> SocketAddr {
    let mut stream = connect(port);
    for _ in 0..count {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
    }
    stream.local_addr().unwrap()
}

/// The connections that a backend should have seen from clients with these numbers of requests.
fn expected(port: u16, clients: &[(SocketAddr, usize)]) -> Vec<(Header, Vec<u8>, usize)> {
    let destination = SocketAddr::from(([127, 0, 0, 1], port));
    let connection = |(source, requests): &(SocketAddr, usize)| {
        let header = Header { source: Some(*source), destination: Some(destination) };
        (header, encode_v2(*source, destination), *requests)
    };
    clients.iter().map(connection).collect()
}

#[test]
fn proxy_protocol_sends_the_client_address_and_separates_connections_by_client() {
    let (backend, connections) = backend(|mut stream, count| response(&mut stream, count));
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, UNCHECKED, ""));
    let clients: Vec<(SocketAddr, usize)> = [3, 1, 2].map(|count| (requests(port, count), count)).to_vec();
    assert_eq!(*connections.lock(), expected(port, &clients), "one connection per client, reused by that client");
}

#[test]
fn concurrent_clients_never_share_a_proxy_protocol_connection() {
    let (backend, connections) = backend(|mut stream, count| response(&mut stream, count));
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, UNCHECKED, ""));
    let mut clients: Vec<(SocketAddr, usize)> = std::thread::scope(|threads| {
        let running: Vec<_> = (1..=12).map(|count| threads.spawn(move || (requests(port, count), count))).collect();
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut seen = connections.lock().clone();
    seen.sort_by_key(|(header, ..)| header.source);
    clients.sort();
    assert_eq!(seen, expected(port, &clients));
}

#[test]
fn proxy_protocol_sends_the_client_named_by_a_trusted_proxy() {
    let (backend, connections) = backend(|mut stream, count| response(&mut stream, count));
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, UNCHECKED, "trusted_proxies: [127.0.0.1/32]"));
    let mut stream = connect(port);
    for client in ["203.0.113.7", "203.0.113.8", "203.0.113.7"] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
    }
    let at = |client: &str| format!("{client}:0").parse().unwrap();
    let clients = [(at("203.0.113.7"), 2), (at("203.0.113.8"), 1)];
    assert_eq!(*connections.lock(), expected(port, &clients));
}

#[test]
fn health_checks_send_a_local_proxy_protocol_header() {
    for check in ["type: http, path: /health", "type: tcp"] {
        let (backend, connections) = backend(|mut stream, count| response(&mut stream, count));
        let port = free_port();
        let _lab = Lab::start(&yaml(port, backend.port, &format!("health_check: {{ {check}, interval: 200ms }}"), ""));
        let client = requests(port, 1);
        eventually("another check", PATIENCE, || connections.lock().len() >= 3);
        let (checks, clients): (Vec<_>, Vec<_>) =
            connections.lock().iter().cloned().partition(|(header, ..)| header.source.is_none());
        assert_eq!(clients, expected(port, &[(client, 1)]), "{check}");
        assert!(checks.iter().all(|(header, bytes, _)| *header == Header::default() && *bytes == encode_local()));
    }
}

#[test]
fn proxy_protocol_header_is_sent_before_tls() {
    let (pem, _) = development::certificate(&["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let (backend, connections) = backend(move |stream, count| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        response(&mut rustls::StreamOwned::new(session, stream), count);
    });
    let port = free_port();
    let pool = format!("{UNCHECKED}, tls: {{ server_name: localhost, verify: false }}");
    let _lab = Lab::start(&yaml(port, backend.port, &pool, ""));
    let clients: Vec<(SocketAddr, usize)> = [2, 1, 3].map(|count| (requests(port, count), count)).to_vec();
    assert_eq!(*connections.lock(), expected(port, &clients));
}

#[test]
fn proxy_protocol_header_is_sent_before_http2() {
    let (backend, connections) = backend(|stream, count| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count();
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        });
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, &format!("{UNCHECKED}, protocol: h2c"), ""));
    let clients: Vec<(SocketAddr, usize)> = [2, 1, 3].map(|count| (requests(port, count), count)).to_vec();
    assert_eq!(*connections.lock(), expected(port, &clients));
}
