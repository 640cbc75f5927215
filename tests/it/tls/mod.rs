//! TLS towards clients: versions, protocols, resumption, choice of the certificate.

mod backends;
mod certificates;
mod client_auth;
mod system_authorities;
mod tickets;

use std::io::{Read, Write};

use rustls::pki_types::ServerName;

use crate::lab::client::{connect, connect_tls, get_h2, read_response, tls_config};
use crate::lab::{Backend, Lab, free_port, run};
use crate::one_pool;

/// A configuration with this `tls:` block in its listener and one backend. It returns the YAML instead of a running
/// lab, so that a test can write its files first.
fn with_tls(port: u16, backend: &Backend, tls: &str) -> String {
    let plain = format!("127.0.0.1:{port}' }}]\n");
    one_pool(port, &[backend], "").replace(&plain, &format!("127.0.0.1:{port}', tls: {tls} }}]\n"))
}

fn lab(port: u16, backend: &Backend) -> Lab {
    let yaml = one_pool(port, &[backend], "");
    let tls = format!(
        "127.0.0.1:{port}', tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}] }} }}]\n"
    );
    Lab::start(&yaml.replace(&format!("127.0.0.1:{port}' }}]\n"), &tls))
}

#[test]
fn http1_and_http2_are_served_over_tls() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = lab(port, &backend);
    let mut stream = connect_tls(port, tls_config(lab.folder(), &["http/1.1"]));
    stream.write_all(b"GET /apiA/echo HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let response = read_response(&mut stream);
    assert!(response.body.contains("\"https\""), "X-Forwarded-Proto is https: {response:?}");
    assert_eq!(stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768, "post-quantum key exchange is preferred");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let response = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls_config(lab.folder(), &["h2", "http/1.1"]));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        get_h2(stream, &format!("https://localhost:{port}/apiA")).await
    });
    assert_eq!(response, (200, "Hello from one\n".to_owned()));
    assert!(lab.wait_for_access("protocol=HTTP/2").contains("host=localhost"));
}

#[test]
fn tls_session_is_resumed() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = lab(port, &backend);
    let config = tls_config(lab.folder(), &["http/1.1"]);
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect_tls(port, config.clone());
            stream.write_all(b"GET /apiA HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            stream.read_to_end(&mut Vec::new()).ok();
            stream.conn.handshake_kind().unwrap()
        })
        .collect();
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}

#[test]
fn certificate_is_chosen_by_server_name() {
    let backend = Backend::start("one");
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().display().to_string();
    assert!(run(&["cert", "--folder", &other, "--name", "other.test"]).status.success());
    let yaml = one_pool(port, &[&backend], "");
    let tls = format!(
        "127.0.0.1:{port}', tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}, {{ certificate: '{other}/other.test.pem', key: '{other}/other.test-key.pem' }}] }} }}]\n"
    );
    let lab = Lab::start(&yaml.replace(&format!("127.0.0.1:{port}' }}]\n"), &tls));
    // The client trusts only the lab's certificate, so its handshake for localhost proves which one the listener
    // presents.
    connect_tls(port, tls_config(lab.folder(), &[])).write_all(b"x").unwrap();
    let name = ServerName::try_from("other.test").unwrap();
    let connection = rustls::ClientConnection::new(tls_config(lab.folder(), &[]), name).unwrap();
    let error = rustls::StreamOwned::new(connection, connect(port)).write_all(b"x").unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("invalid peer certificate"), "{error}");
}
