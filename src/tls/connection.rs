//! A connection to the HTTP API of a service, and the stream of lines in a response.
//!
//! A connection uses HTTP/2 if the TLS settings offer it and the service accepts it, otherwise HTTP/1.1. Over HTTP/2,
//! PING frames detect a service that is stopped or unreachable, even while a watch is silent.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::endpoint::Endpoint;

/// The largest response in bytes.
const RESPONSE_MAX: usize = 64 << 20;
/// The longest wait for a TCP connection. A lost packet is sent again after 1 s, as late as by the next attempt. So a
/// service that can be reached again is noticed within this time and the longest pause after a failure, 2 s in all.
const CONNECT_MAX: Duration = Duration::from_millis(900);
/// The interval of PING frames over HTTP/2.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause within a line of a stream.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reason in characters. A reason may quote a part of a response.
pub const REASON_MAX: usize = 200;

/// A connection.
pub struct Connection {
    sender: Sender,
    authority: String,
    timeout: Duration,
    _task: Task,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// The task of a connection, which ends with it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects to `endpoint`; `tls` has the settings, and the name of the certificate if that is not the host.
    ///
    /// # Errors
    /// Why this is not possible within `timeout`.
    pub async fn open(
        endpoint: &Endpoint,
        tls: Option<(&Arc<ClientConfig>, Option<ServerName<'static>>)>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let tcp = within(timeout.min(CONNECT_MAX), "connection", tcp).await?;
        keep_alive(&tcp).map_err(|e| e.to_string())?;
        let (sender, task) = match tls {
            None => return Self::over(tcp, endpoint.authority(), timeout).await,
            Some((config, name)) => {
                let host = || ServerName::try_from(endpoint.host.clone()).map_err(|e| e.to_string());
                let name = name.map_or_else(host, Ok)?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = within(timeout, "TLS handshake", connector.connect(name, tcp)).await?;
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => handshake2(stream, timeout).await?,
                    _ => handshake(stream).await?,
                }
            }
        };
        Ok(Self { sender, authority: endpoint.authority(), timeout, _task: task })
    }

    /// A connection by HTTP/1.1 over a stream. Requests name `authority` as the host.
    ///
    /// # Errors
    /// Why this is not possible.
    pub async fn over<S>(stream: S, authority: String, timeout: Duration) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, task) = handshake(stream).await?;
        Ok(Self { sender, authority, timeout, _task: task })
    }

    /// The longest wait for a response.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A request for a path, in the form of the protocol.
    pub fn request(&self, method: Method, path: &str) -> request::Builder {
        let builder = Request::builder().method(method);
        match self.sender {
            Sender::Http1(_) => builder.uri(path).header(header::HOST, &self.authority),
            Sender::Http2(_) => builder.uri(format!("https://{}{path}", self.authority)),
        }
    }

    /// Sends a request, and reads its response.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn fetch(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        self.fetch_at_most(request, RESPONSE_MAX).await
    }

    /// Like [`Connection::fetch`], with a body of at most `max` bytes.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn fetch_at_most(
        &mut self,
        request: Request<Full<Bytes>>,
        max: usize,
    ) -> Result<Response<Bytes>, String> {
        let (timeout, path) = (self.timeout, request.uri().path().to_owned());
        let fetch = async {
            let (head, body) = self.send(request).await?.into_parts();
            Ok(Response::from_parts(head, read(body, max).await?))
        };
        tokio::time::timeout(timeout, fetch).await.map_err(|_| format!("no response to {path} within {timeout:?}"))?
    }

    /// Sends a request whose response is a stream of lines. Returns the body of another response with its status.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn stream(
        &mut self,
        request: Request<Full<Bytes>>,
        line_max: usize,
    ) -> Result<Result<Lines, (StatusCode, Bytes)>, String> {
        let timeout = self.timeout;
        let start = async {
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK => Ok(Ok(Lines::new(response.into_body(), line_max))),
                status => Ok(Err((status, read(response.into_body(), RESPONSE_MAX).await?))),
            }
        };
        tokio::time::timeout(timeout, start).await.map_err(|_| format!("the watch did not start within {timeout:?}"))?
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|e| describe(&e))?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|e| describe(&e))?;
                sender.send_request(request).await
            }
        };
        response.map_err(|e| describe(&e))
    }
}

/// The lines of a response. They end with the connection.
pub struct Lines {
    body: Incoming,
    /// What has been received of the next lines.
    buffer: BytesMut,
    /// How many bytes of `buffer` contain no line end.
    searched: usize,
    /// The longest line in bytes.
    max: usize,
}

/// Why there are no further lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The service ended its response.
    Closed,
    /// The connection has been lost.
    Lost(String),
    /// What the service sends is invalid.
    Invalid(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the service closed the watch"),
            Self::Lost(reason) | Self::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl Lines {
    fn new(body: Incoming, max: usize) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, max }
    }

    /// The next line, with its end. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Why there are no further lines.
    pub async fn next(&mut self) -> Result<BytesMut, Ended> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > self.max {
                return Err(Ended::Invalid(format!("a message of the watch has more than {} bytes", self.max)));
            }
            let frame = if self.buffer.is_empty() {
                self.body.frame().await
            } else {
                let stopped = |_| Ended::Invalid(format!("a message of the watch stopped for {LINE_TIMEOUT:?}"));
                tokio::time::timeout(LINE_TIMEOUT, self.body.frame()).await.map_err(stopped)?
            };
            match frame {
                None => return Err(Ended::Closed),
                Some(Err(e)) => return Err(Ended::Lost(describe(&e))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Detects a dead connection within 4 s, even while nothing is sent.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let second = Duration::from_secs(1);
    SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3))
}

async fn handshake<S>(stream: S) -> Result<(Sender, Task), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| describe(&e))?;
    Ok((Sender::Http1(sender), run(connection)))
}

async fn handshake2<S>(stream: S, timeout: Duration) -> Result<(Sender, Task), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(timeout);
    builder.keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| describe(&e))?;
    Ok((Sender::Http2(sender), run(connection)))
}

fn run(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Task {
    Task(tokio::spawn(async {
        // The request or the body reports the error.
        connection.await.ok();
    }))
}

async fn read(body: Incoming, max: usize) -> Result<Bytes, String> {
    let limited = Limited::new(body, max).collect().await;
    Ok(limited.map_err(|e| format!("the response is not complete within {max} bytes: {e}"))?.to_bytes())
}

/// The result of `work`, if it ends in time.
///
/// # Errors
/// Its error, or that there is no `what` in time.
pub async fn within<T>(timeout: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no {what} within {timeout:?}")),
    }
}

/// The error with its cause.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A value of a query, with escapes for all but letters, digits, `-`, `_`, `.` and `~` (RFC 3986 §2.3).
pub fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// The start of a reason that quotes a response or a value.
pub fn shorten(reason: &str) -> String {
    match reason.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_of_a_query_is_encoded_except_for_unreserved_characters() {
        assert_eq!(encode("a-b_c.d~E9"), "a-b_c.d~E9");
        assert_eq!(encode("a/b=c &é"), "a%2Fb%3Dc%20%26%C3%A9");
    }
}
