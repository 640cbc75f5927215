//! Test clients without retries: raw bytes on a socket, and HTTP/2 with the h2 crate.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;

/// One HTTP/1.1 response.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Sends bytes on a new connection and reads one response.
pub fn exchange(port: u16, request: &[u8]) -> Response {
    let mut stream = connect(port);
    stream.write_all(request).unwrap();
    read_response(&mut stream)
}

/// A GET on a new connection.
pub fn get(port: u16, path: &str) -> Response {
    get_with(port, path, "")
}

/// A GET with further header lines, each ended by CRLF.
pub fn get_with(port: u16, path: &str, headers: &str) -> Response {
    exchange(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n").as_bytes())
}

/// Reads a head up to its empty line and not one byte more. `None` if the other side closed the connection.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return String::new();
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Reads one response to a request other than HEAD, and leaves the connection open.
pub fn read_response(stream: &mut impl Read) -> Response {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("the response ended early ({other:?}): {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let fields = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    if (100..200).contains(&status) && status != 101 {
        return read_response(stream);
    }
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        read_chunks(stream, &mut body);
    } else if headers.get("connection").is_some_and(|word| word == "close") {
        stream.read_to_end(&mut body).ok();
    }
    Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
}

fn read_chunks(stream: &mut impl Read, body: &mut Vec<u8>) {
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).unwrap();
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return;
        }
    }
}

/// TLS settings that trust the certificate in `folder` and offer `protocols`.
pub fn tls_config(folder: &Path, protocols: &[&str]) -> Arc<rustls::ClientConfig> {
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(folder.join("localhost.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS connection to localhost.
pub fn connect_tls(
    port: u16,
    config: Arc<rustls::ClientConfig>,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), connect(port))
}

/// A GET over HTTP/2 on any connection: status and body.
pub async fn get_h2<S>(stream: S, uri: &str) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender = sender.ready().await.unwrap();
    let request = http::Request::get(uri).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    (status, String::from_utf8(text).unwrap())
}
