//! Listeners: PROXY protocol, Unix-domain sockets, several addresses, HTTPS redirection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use l7lb::http::proxy_protocol::encode_v2;
use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;

use crate::lab::client::{connect, exchange, get, get_with, read_response, tls_config};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, free_port};
use crate::one_pool;

const TLS: &str =
    "tls: { certificates: [{ certificate: '{folder}/localhost.pem', key: '{folder}/localhost-key.pem' }] }";

/// One pool behind the given listeners.
fn lab(backend: &Backend, listeners: &str) -> Lab {
    let yaml = one_pool(0, &[backend], "");
    let rest = yaml.split_once('\n').unwrap().1;
    Lab::start(&format!("listeners: [{listeners}]\n{rest}"))
}

fn behind(header: &[u8], request: &str) -> Vec<u8> {
    [header, request.as_bytes()].concat()
}

const ECHO: &str = "GET /apiA/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn proxy_protocol_header_of_a_trusted_peer_sets_the_client_address() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab =
        lab(&backend, &format!("{{ address: '127.0.0.1:{port}', proxy_protocol: {{ trusted: [127.0.0.0/8] }} }}"));
    let v2 = encode_v2("192.0.2.7:1234".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.9 198.51.100.1 4321 443\r\n".to_vec(), "192.0.2.9"),
        (v2, "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4321 443\r\n".to_vec(), "2001:db8::1"),
    ] {
        let response = exchange(port, &behind(&header, ECHO));
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.body.contains(&format!("\"{client}\"")), "{client}: {}", response.body);
        lab.wait_for_access(&format!("client={client} "));
    }
    // The header may arrive byte by byte; bytes after it belong to the request.
    let mut stream = connect(port);
    for byte in behind(b"PROXY TCP4 192.0.2.9 198.51.100.1 4321 443\r\n", ECHO) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_response(&mut stream).status, 200);
    // A missing or malformed header closes the connection without a response.
    for broken in [ECHO.as_bytes(), b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"] {
        let mut stream = connect(port);
        stream.write_all(broken).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or_default(), 0, "{broken:?}");
    }
}

#[test]
fn proxy_protocol_header_is_read_before_tls_and_rejected_from_untrusted_peers() {
    let backend = Backend::start("one");
    let (port, other) = (free_port(), free_port());
    let lab = lab(
        &backend,
        &format!(
            "{{ address: '127.0.0.1:{port}', {TLS}, proxy_protocol: {{ trusted: [127.0.0.0/8] }} }}, \
             {{ address: '127.0.0.1:{other}', proxy_protocol: {{ trusted: [192.0.2.0/24] }} }}"
        ),
    );
    let mut tcp = connect(port);
    tcp.write_all(b"PROXY TCP4 192.0.2.9 198.51.100.1 4321 443\r\n").unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(tls_config(lab.folder(), &["http/1.1"]), name).unwrap();
    let mut stream = rustls::StreamOwned::new(client, tcp);
    stream.write_all(ECHO.as_bytes()).unwrap();
    let response = read_response(&mut stream);
    assert!(response.body.contains("\"192.0.2.9\""), "{}", response.body);
    // The test is not in the trusted network of the other listener: the PROXY header is an illegal request.
    assert_eq!(get(other, "/apiA").status, 200);
    let response = exchange(other, &behind(b"PROXY TCP4 192.0.2.9 198.51.100.1 4321 443\r\n", ECHO));
    assert_eq!(response.status, 400);
    lab.wait_for_access("client=127.0.0.1 method=PROXY");
}

#[test]
fn listener_serves_unix_sockets_and_several_addresses() {
    let backend = Backend::start("one");
    let (one, two) = (free_port(), free_port());
    let lab =
        lab(&backend, &format!("{{ address: ['127.0.0.1:{one}', '[::1]:{two}', 'unix:{{folder}}/front.sock'] }}"));
    assert_eq!(get(one, "/apiA").status, 200);
    let mut six = std::net::TcpStream::connect(("::1", two)).unwrap();
    six.write_all(ECHO.as_bytes()).unwrap();
    assert!(read_response(&mut six).body.contains("\"::1\""));
    let mut unix = UnixStream::connect(lab.folder().join("front.sock")).unwrap();
    unix.write_all(ECHO.as_bytes()).unwrap();
    assert_eq!(read_response(&mut unix).status, 200);
    lab.wait_for_access("client=::1 ");
}

#[test]
fn plain_requests_are_redirected_to_https_with_hsts() {
    let backend = Backend::start("one");
    let (plain, tls) = (free_port(), free_port());
    let lab = lab(
        &backend,
        &format!(
            "{{ address: '127.0.0.1:{plain}', redirect_to_https: {tls} }}, {{ address: '127.0.0.1:{tls}', {TLS}, \
             strict_transport_security: {{ max_age: 365d, include_subdomains: true }} }}"
        ),
    );
    let response =
        exchange(plain, b"POST /apiA?q=%20x HTTP/1.1\r\nHost: example.com:8080\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(response.status, 308, "308 keeps the method");
    assert_eq!(response.header("location"), format!("https://example.com:{tls}/apiA?q=%20x"));
    assert_eq!(response.header("strict-transport-security"), "", "browsers ignore it without TLS");
    assert_eq!(get(plain, "/elsewhere").status, 308, "every request is redirected");
    assert_eq!(get_with(plain, "/x/../apiA", "").header("location"), format!("https://localhost:{tls}/x/../apiA"));
    lab.wait_for_access("cause=https_required");
    let mut stream = crate::lab::client::connect_tls(tls, tls_config(lab.folder(), &["http/1.1"]));
    stream.write_all(b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let response = read_response(&mut stream);
    assert_eq!(
        (response.status, response.header("strict-transport-security")),
        (404, "max-age=31536000; includeSubDomains")
    );
}

#[test]
fn upgrade_hands_over_forty_listeners_with_one_socket_per_worker() {
    let backend = Backend::start("one");
    let ports: Vec<u16> = (0..40).map(|_| free_port()).collect();
    let addresses: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    // A private upgrade socket, not the default one of the machine.
    let server = "server: { threads: 3, upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid' }";
    let yaml = one_pool(0, &[&backend], server);
    let rest = yaml.split_once('\n').unwrap().1;
    let mut lab = Lab::start(&format!("listeners: [{{ address: [{}] }}]\n{rest}", addresses.join(", ")));
    let loads: Vec<Load> = ports.iter().step_by(13).map(|port| Load::start(*port, "/apiA", 2, 1)).collect();
    for load in &loads {
        load.wait_for_more(50);
    }
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    assert!(lab.wait_exit(PATIENCE).success());
    assert!(lab.log().contains("handing over 120 sockets"), "{}", lab.log());
    assert!(ports.iter().all(|port| get(*port, "/apiA").status == 200));
    for load in loads {
        load.wait_for_more(50);
        let report = load.stop();
        assert_eq!(report.failed, Vec::<String>::new());
        assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200]);
    }
}
