//! A connection to etcd's JSON gateway: requests with one response, and the stream of a watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::config::{Endpoint, Spec};
use super::messages::{WatchMessage, error_message, watch_message};

/// The largest response in bytes.
const RESPONSE_MAX: usize = 64 << 20;
/// The longest message of a watch in bytes. Longer ones cause a complete read.
const LINE_MAX: usize = 16 << 20;
/// The longest wait for a TCP connection. A lost packet delays it by 1 s.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    timeout: Duration,
    task: Task,
}

/// The task of a connection, which ends with it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects to an endpoint.
    ///
    /// # Errors
    /// Why this is not possible.
    pub(super) async fn open(endpoint: &Endpoint, spec: &Spec) -> Result<Self, String> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let tcp = within(spec.timeout.min(CONNECT_MAX), "connection", tcp).await?;
        keep_alive(&tcp).map_err(|e| e.to_string())?;
        let (host, timeout) = (endpoint.authority(), spec.timeout);
        let (sender, task) = match spec.tls.as_ref().filter(|_| endpoint.tls) {
            None => handshake(tcp).await?,
            Some(tls) => {
                let host = || ServerName::try_from(endpoint.host.clone()).map_err(|e| e.to_string());
                let name = tls.server_name.clone().map_or_else(host, Ok)?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
                handshake(within(timeout, "TLS handshake", connector.connect(name, tcp)).await?).await?
            }
        };
        Ok(Self { sender, host, timeout, task })
    }

    /// Sends a request, and reads its response.
    ///
    /// # Errors
    /// Why there is no valid response.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        token: Option<&str>,
        request: &impl Serialize,
    ) -> Result<T, String> {
        let timeout = self.timeout;
        let call = async {
            let response = self.send(path, token, request).await?;
            let body = read(response).await?;
            serde_json::from_slice(&body).map_err(|e| format!("the response to {path} is invalid: {e}"))
        };
        tokio::time::timeout(timeout, call).await.map_err(|_| format!("no response to {path} within {timeout:?}"))?
    }

    /// Starts a watch, which ends the use of this connection for anything else.
    ///
    /// # Errors
    /// Why the watch did not start.
    pub(super) async fn watch(mut self, token: Option<&str>, request: &impl Serialize) -> Result<Watch, String> {
        let timeout = self.timeout;
        let start = async {
            let response = self.send("/v3/watch", token, request).await?;
            if !response.status().is_success() {
                return Err(read(response).await.err().unwrap_or_default());
            }
            let mut watch =
                Watch { body: response.into_body(), line: BytesMut::new(), searched: 0, _connection: self.task };
            match watch.next().await? {
                WatchMessage::Created => Ok(watch),
                WatchMessage::Events(..) => Err("the watch started without a confirmation".to_owned()),
            }
        };
        tokio::time::timeout(timeout, start).await.map_err(|_| format!("the watch did not start within {timeout:?}"))?
    }

    async fn send(
        &mut self,
        path: &str,
        token: Option<&str>,
        request: &impl Serialize,
    ) -> Result<Response<Incoming>, String> {
        let body = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        let mut request = Request::post(path).header(header::HOST, &self.host);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
        self.sender.ready().await.map_err(|e| describe(&e))?;
        self.sender.send_request(request).await.map_err(|e| describe(&e))
    }
}

/// The stream of a watch.
pub(super) struct Watch {
    body: Incoming,
    /// What has been received of the next messages.
    line: BytesMut,
    /// How many bytes of `line` contain no line end.
    searched: usize,
    _connection: Task,
}

impl Watch {
    /// The next message. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Why there are no further messages.
    pub(super) async fn next(&mut self) -> Result<WatchMessage, String> {
        loop {
            let unsearched = self.line.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let line = self.line.split_to(self.searched + end + 1);
                self.searched = 0;
                return watch_message(&line);
            }
            self.searched = self.line.len();
            if self.searched > LINE_MAX {
                return Err(format!("a message of the watch has more than {LINE_MAX} bytes"));
            }
            match self.body.frame().await {
                None => return Err("etcd closed the watch".to_owned()),
                Some(Err(e)) => return Err(describe(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.line.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Detects a dead connection within 4 s, even while nothing is sent.
fn keep_alive(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let second = Duration::from_secs(1);
    SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3))
}

async fn handshake<S>(stream: S) -> Result<(http1::SendRequest<Full<Bytes>>, Task), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| describe(&e))?;
    let task = tokio::spawn(async {
        // The request or the body reports the error.
        connection.await.ok();
    });
    Ok((sender, Task(task)))
}

/// The body of a response with a status of success.
async fn read(response: Response<Incoming>) -> Result<Bytes, String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), RESPONSE_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    Err(error_message(&body).unwrap_or_else(|| format!("the response has the status {status}")))
}

async fn within<T>(timeout: Duration, what: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
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
