//! One client connection that sends requests one after the other.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy::Proxy;

/// An error that can leave its task.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The response body of a measured request, in bytes.
const BODY: usize = 1024;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 over TLS.
    TlsHttp1,
    /// HTTP/2 over TLS.
    TlsHttp2,
}

/// All protocols.
pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Http1, Protocol::TlsHttp1, Protocol::TlsHttp2];

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::TlsHttp1 => "tls_h1",
            Self::TlsHttp2 => "tls_h2",
        }
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to the proxy.
pub(crate) enum Client {
    Http1(Box<dyn Stream>, Vec<u8>),
    Http2(h2::client::SendRequest<Bytes>),
}

/// Opens connections of one protocol to the proxy.
pub(crate) struct Connector {
    protocol: Protocol,
    address: SocketAddr,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(protocol: Protocol, proxy: &Proxy) -> Result<Self, BoxError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(proxy.certificate())?)?;
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let alpn = if protocol == Protocol::TlsHttp2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        // Every connection does a full handshake.
        config.resumption = Resumption::disabled();
        let address = if protocol == Protocol::Http1 { proxy.plain } else { proxy.tls };
        Ok(Self { protocol, address, tls: TlsConnector::from(Arc::new(config)) })
    }

    pub(crate) async fn connect(&self) -> Result<Client, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        if self.protocol == Protocol::Http1 {
            return Ok(Client::Http1(Box::new(stream), Vec::new()));
        }
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        if self.protocol == Protocol::TlsHttp1 {
            return Ok(Client::Http1(Box::new(stream), Vec::new()));
        }
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(async move { connection.await.ok() });
        Ok(Client::Http2(client))
    }
}

impl Client {
    /// Sends `count` requests one after the other.
    pub(crate) async fn requests(&mut self, count: u32) -> Result<(), BoxError> {
        for _ in 0..count {
            self.request(BODY).await?;
        }
        Ok(())
    }

    /// Sends a request for a body of `body` bytes, and reads the response.
    pub(crate) async fn request(&mut self, body: usize) -> Result<(), BoxError> {
        let path = format!("/bytes/{body}");
        match self {
            Self::Http1(stream, buffer) => exchange(stream, buffer, &path, body).await?,
            Self::Http2(client) => {
                let request = http::Request::get(format!("https://localhost{path}"))
                    .header("user-agent", "cost/1")
                    .header("accept", "*/*")
                    .body(())?;
                let mut ready = client.clone().ready().await?;
                let (response, _) = ready.send_request(request, true)?;
                let mut stream = response.await?.into_body();
                let mut received = 0;
                while let Some(data) = stream.data().await {
                    let data = data?;
                    received += data.len();
                    stream.flow_control().release_capacity(data.len())?;
                }
                if received != body {
                    return Err(format!("a response of {received} bytes instead of {body}").into());
                }
            }
        }
        Ok(())
    }
}

async fn exchange(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>, path: &str, body: usize) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cost/1\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let head = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if !buffer.starts_with(b"HTTP/1.1 200 ".get(..buffer.len().min(13)).unwrap_or_default()) {
            return Err(io::Error::other("a response without status 200"));
        }
        if head.is_some_and(|head| buffer.len() >= head + 4 + body) {
            return Ok(());
        }
    }
}
