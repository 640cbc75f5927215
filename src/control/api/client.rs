//! The client of the control API, for the command line.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::problem::Problem;
use super::remote::{self, Remote, Stream};

/// The longest wait for a response: new pools have 5 s to settle, and files may be on slow disks.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait for a connection over TCP, with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A process, at its control socket or at an address of its admin API. Each request uses a new connection.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    timeout_after: Duration,
}

#[derive(Clone, Debug)]
enum Target {
    Socket(PathBuf),
    Remote(Box<Remote>),
}

/// A name encoded for a path or query.
#[must_use]
pub fn segment(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// No process listens at the socket, or it has stopped.
    NoProcess {
        /// The socket.
        socket: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The server cannot be called.
    NoServer {
        /// Its URL.
        server: String,
        /// The reason.
        reason: String,
    },
    /// The process returned a problem.
    Problem(Problem),
    /// The response is not valid for this version.
    InvalidResponse(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess { socket, error } => write!(f, "no process responds at {}: {error}", socket.display()),
            Self::NoServer { server, reason } => write!(f, "cannot call {server}: {reason}"),
            Self::Problem(problem) => problem.fmt(f),
            Self::InvalidResponse(response) => write!(f, "invalid response: {response}"),
        }
    }
}

impl Client {
    /// A client for `socket`, which need not exist yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { target: Target::Socket(socket), timeout_after: RESPONSE_TIMEOUT }
    }

    /// A client for the admin API of a process.
    #[must_use]
    pub fn remote(remote: Remote) -> Self {
        Self { target: Target::Remote(Box::new(remote)), timeout_after: RESPONSE_TIMEOUT }
    }

    /// Sets the timeout for a response.
    #[must_use]
    pub fn with_timeout(self, timeout_after: Duration) -> Self {
        Self { timeout_after, ..self }
    }

    /// Sends GET to `path`.
    ///
    /// # Errors
    /// Why the call failed.
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallError> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    /// Why the call failed.
    pub fn send<A: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<A, CallError> {
        let body = serde_json::to_vec(body).map_err(|e| CallError::InvalidResponse(e.to_string()))?;
        self.call(method, path, body.into())
    }

    /// Sends POST to `path`.
    ///
    /// # Errors
    /// Why the call failed.
    pub fn post<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallError> {
        self.call(Method::POST, path, Bytes::new())
    }

    /// Sends DELETE to `path`.
    ///
    /// # Errors
    /// Why the call failed.
    pub fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallError> {
        self.call(Method::DELETE, path, Bytes::new())
    }

    fn call<A: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<A, CallError> {
        let (status, response) = self.exchange(method, path, body).map_err(|error| self.failed(error))?;
        if !status.is_success() {
            return Err(problem_of(&response));
        }
        serde_json::from_slice(&response)
            .map_err(|_| CallError::InvalidResponse(String::from_utf8_lossy(&response).into_owned()))
    }

    fn failed(&self, error: io::Error) -> CallError {
        match &self.target {
            Target::Socket(socket) => CallError::NoProcess { socket: socket.clone(), error },
            Target::Remote(remote) => {
                CallError::NoServer { server: remote.to_string(), reason: remote::explain(&error) }
            }
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.target {
            Target::Socket(socket) => Ok(Box::new(UnixStream::connect(socket).await?)),
            Target::Remote(remote) => timeout(CONNECT_TIMEOUT, remote.connect()).await?,
        }
    }

    /// Sends GET to `path`, and gives each line of the response to `on_line`, until that returns false or the response
    /// ends.
    ///
    /// # Errors
    /// Why the call failed.
    pub fn lines(&self, path: &str, mut on_line: impl FnMut(&[u8]) -> bool) -> Result<(), CallError> {
        let request = self.request(Method::GET, path, Bytes::new()).map_err(|error| self.failed(error))?;
        let exchange = async {
            let response = self.response(request).await?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                return Ok(Some(body.collect().await.map_err(io::Error::other)?.to_bytes()));
            }
            let mut unread = BytesMut::new();
            while let Some(frame) = body.frame().await {
                unread.extend_from_slice(&frame.map_err(io::Error::other)?.into_data().unwrap_or_default());
                while let Some(end) = memchr::memchr(b'\n', &unread) {
                    let line = unread.split_to(end + 1);
                    if !on_line(line.trim_ascii_end()) {
                        return Ok(None);
                    }
                }
            }
            Ok(None)
        };
        match runtime().and_then(|runtime| runtime.block_on(exchange)).map_err(|error| self.failed(error))? {
            None => Ok(()),
            Some(problem) => Err(problem_of(&problem)),
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path);
        match &self.target {
            Target::Socket(_) => request = request.header(header::HOST, "l7lb"),
            Target::Remote(remote) => {
                request = request.header(header::HOST, remote.authority());
                if let Some(token) = remote.token() {
                    request = request.header(header::AUTHORIZATION, token);
                }
            }
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(io::Error::other)
    }

    async fn response(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(io::Error::other)
    }

    /// Sends one request and returns the raw response.
    ///
    /// # Errors
    /// If there is no response.
    pub fn exchange(&self, method: Method, path: &str, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.response(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        runtime()?
            .block_on(async { timeout(self.timeout_after, exchange).await.unwrap_or_else(|late| Err(late.into())) })
    }
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// The problem in the body of a response.
fn problem_of(body: &[u8]) -> CallError {
    serde_json::from_slice(body)
        .map_or_else(|_| CallError::InvalidResponse(String::from_utf8_lossy(body).into_owned()), CallError::Problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_paths() {
        assert_eq!(segment("api-a"), "api-a");
        assert_eq!(segment("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(segment("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
