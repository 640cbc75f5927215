//! Asking a process at its control socket, for the commands of the command line.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::Problem;

/// How long an answer is waited for: new pools are given 5 s to settle, and files may be on slow disks.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A process's control socket, from outside. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// A name as a part of a path or query.
#[must_use]
pub fn segment(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody is at the socket, or they left.
    NoProcess {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The process says no.
    Problem(Problem),
    /// The answer is not what this version understands.
    NotUnderstood(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess { socket, error } => write!(f, "no process responds at {}: {error}", socket.display()),
            Self::Problem(problem) => problem.fmt(f),
            Self::NotUnderstood(answer) => write!(f, "an answer that is not understood: {answer}"),
        }
    }
}

impl Client {
    /// Asks at `socket`, which need not be there yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, patience: ANSWER_LIMIT }
    }

    /// Waits so long for an answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Unanswered> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Has done what is at `path`, by what `body` says.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Unanswered> {
        let body = serde_json::to_vec(body).map_err(|e| Unanswered::NotUnderstood(e.to_string()))?;
        self.ask(method, path, body.into())
    }

    /// Has done what is at `path`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn post<A: DeserializeOwned>(&self, path: &str) -> Result<A, Unanswered> {
        self.ask(Method::POST, path, Bytes::new())
    }

    /// Has undone what is at `path`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A, Unanswered> {
        self.ask(Method::DELETE, path, Bytes::new())
    }

    fn ask<A: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<A, Unanswered> {
        let (status, answer) = self
            .exchange(method, path, body)
            .map_err(|error| Unanswered::NoProcess { socket: self.socket.clone(), error })?;
        let not_understood = || Unanswered::NotUnderstood(String::from_utf8_lossy(&answer).into_owned());
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(|_| not_understood())
        } else {
            Err(serde_json::from_slice(&answer).map_or_else(|_| not_understood(), Unanswered::Problem))
        }
    }

    /// One request and its answer as it came.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn exchange(&self, method: Method, path: &str, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "l7lb");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let exchange = async {
            let stream = TokioIo::new(UnixStream::connect(&self.socket).await?);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { timeout(self.patience, exchange).await.unwrap_or_else(|late| Err(late.into())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(segment("api-a"), "api-a");
        assert_eq!(segment("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(segment("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
