//! The site of conf/examples/production.yaml with its backends, and clients over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::filters::examples;
use crate::filters::h2_client::exchange;
use crate::lab::grpc::GrpcBackend;
use crate::lab::recorder::{Received, Recorder};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// The versions of HTTP of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Both.
pub(super) const VERSIONS: [Version; 2] = [Version::One, Version::Two];

/// A complete response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// All values of a field, with commas between them.
    pub(super) fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// The backends of the file, in its order.
pub(super) struct Backends {
    pub(super) shop: Recorder,
    pub(super) api: Recorder,
    live: Scripted,
    pub(super) orders: GrpcBackend,
    pub(super) legacy: [Recorder; 2],
    magazine: Recorder,
    canary: Recorder,
}

/// The page of the shop: longer than the smallest body that is compressed.
pub(super) fn page() -> String {
    "<p>The shop has many things.</p>\n".repeat(200)
}

/// A response with a body.
fn response(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn is_for(received: &Received, path: &str) -> bool {
    received.head.lines().next().unwrap_or_default().split(' ').nth(1) == Some(path)
}

/// Responds to health checks with 200.
fn backend(respond: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Recorder {
    Recorder::responding(
        move |received| {
            if is_for(received, "/health") { response("200 OK", "", "ok") } else { respond(received) }
        },
    )
}

impl Backends {
    fn start() -> Self {
        let named = |name: &'static str| backend(move |_| response("200 OK", "Content-Type: text/plain\r\n", name));
        let legacy = |name: &'static str| {
            backend(move |_| {
                let fields = format!("Location: /login\r\nSet-Cookie: session={name}; Path=/\r\nX-Backend: {name}\r\n");
                response("302 Found", &fields, "")
            })
        };
        let hidden = "Content-Type: text/html\r\nServer: inner/1.0\r\nX-Powered-By: inner\r\n";
        let shop = move |received: &Received| {
            if is_for(received, "/broken") {
                return response("500 Oops", "Content-Type: text/plain\r\n", "a trace of the application");
            }
            response("200 OK", hidden, &page())
        };
        Self {
            shop: backend(shop),
            api: named("items"),
            live: super::websocket_backend(),
            orders: GrpcBackend::start(false),
            legacy: [legacy("one"), legacy("two")],
            magazine: named("stable"),
            canary: named("canary"),
        }
    }
}

/// The running site.
pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) backends: Backends,
    pub(super) port: u16,
    pub(super) plain: u16,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    /// Serves the file as it is, except for the addresses of listeners and backends, and the folder of the switch file.
    /// The certificates and pages are where the file expects them.
    pub(super) fn start() -> Self {
        let (backends, port, plain) = (Backends::start(), free_port(), free_port());
        let folder = examples::folder();
        let text = std::fs::read_to_string(folder.path().join("conf/examples/production.yaml")).unwrap();
        let local = |port: u16| format!("127.0.0.1:{port}");
        let replacements = [
            ("\"[::]:443\"", local(port)),
            ("\"[::]:80\"", local(plain)),
            ("10.0.0.11:8080", local(backends.shop.port)),
            ("10.0.0.21:8080", local(backends.api.port)),
            ("10.0.0.31:8080", local(backends.live.port)),
            ("10.0.0.41:9090", local(backends.orders.port)),
            ("10.0.0.51:8080", local(backends.legacy[0].port)),
            ("10.0.0.52:8080", local(backends.legacy[1].port)),
            ("10.0.0.61:8080", local(backends.magazine.port)),
            ("10.0.0.71:8080", local(backends.canary.port)),
            ("/run/l7lb/", "{folder}/".to_owned()),
        ];
        let text = replacements.iter().fold(text, |text, (old, new)| {
            assert_eq!(text.matches(old).count(), 1, "{old} is in the file once");
            text.replace(old, new)
        });
        let lab = Lab::start_in(folder, &text);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { lab, backends, port, plain, runtime }
    }

    /// TLS settings of a client that trusts the certificates of the site.
    pub(super) fn tls(&self, protocol: &str) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for domain in ["example.com", "example.org"] {
            let file = self.lab.folder().join("certs").join(format!("{domain}.pem"));
            roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// Runs a client.
    pub(super) fn run<T>(&self, client: impl Future<Output = T>) -> T {
        self.runtime.block_on(client)
    }

    /// A connection of a client at `from`.
    pub(super) async fn connect(
        &self,
        (host, protocol): (&str, &str),
        from: Ipv4Addr,
    ) -> TlsStream<tokio::net::TcpStream> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connected = tokio_rustls::TlsConnector::from(self.tls(protocol)).connect(name, stream).await.unwrap();
        assert_eq!(connected.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        connected
    }

    /// Sends `METHOD https://HOST/PATH` on a new connection.
    pub(super) fn send(&self, version: Version, request: &str, fields: &[(&str, &str)]) -> Reply {
        self.send_from(Ipv4Addr::LOCALHOST, version, request, fields)
    }

    /// Sends it as the client at this address.
    pub(super) fn send_from(&self, from: Ipv4Addr, version: Version, request: &str, fields: &[(&str, &str)]) -> Reply {
        let (method, url) = request.split_once(' ').unwrap();
        let url: Uri = url.parse().unwrap();
        let host = url.host().unwrap().to_owned();
        self.run(async {
            match version {
                Version::One => one(self.connect((&host, "http/1.1"), from).await, method, &url, fields).await,
                Version::Two => {
                    let mut connection = Http2::over(self.connect((&host, "h2"), from).await).await;
                    connection.send(method, &url, fields).await
                }
            }
        })
    }

    /// A connection over HTTP/2 for many requests.
    pub(super) async fn http2(&self, host: &str) -> Http2 {
        Http2::over(self.connect((host, "h2"), Ipv4Addr::LOCALHOST).await).await
    }
}

/// A connection over HTTP/2.
pub(super) struct Http2(h2::client::SendRequest<Bytes>);

impl Http2 {
    async fn over(stream: TlsStream<tokio::net::TcpStream>) -> Self {
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(super) async fn send(&mut self, method: &str, url: &Uri, fields: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut sender = self.0.clone().ready().await.unwrap();
        let (parts, body) = exchange(&mut sender, request.body(()).unwrap()).await;
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// A request over HTTP/1.1 on a connection of its own.
async fn one(mut stream: TlsStream<tokio::net::TcpStream>, method: &str, url: &Uri, fields: &[(&str, &str)]) -> Reply {
    let (host, target) = (url.host().unwrap(), url.path_and_query().unwrap());
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().skip(1).map(|line| line.split_once(": ").unwrap()) {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    }
    let rest = &all[end + 4..];
    let body = if headers.contains_key("transfer-encoding") { unchunked(rest) } else { rest.to_vec() };
    Reply { status: head.split(' ').nth(1).unwrap().parse().unwrap(), headers, body }
}

/// The body without its chunks. It must be complete.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
