//! What the sample backend answers to each path.
//!
//! The special paths are told by their last segments, so they also work below
//! a prefix (`/apiA/status/503`), as they arrive through a proxy that does not
//! strip it.

use std::future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::json;

use super::Settings;
use super::bodies::{self, AnswerBody};
use super::mood::{Conduct, Mood};
use super::tape::Taped;

type Answer = Response<AnswerBody>;

/// Answers the requests of all connections of one backend.
pub(super) struct Answers {
    settings: Settings,
    name: Option<HeaderValue>,
    healthy: AtomicBool,
    count: AtomicU64,
    conduct: Conduct,
}

impl Answers {
    /// A healthy backend that has answered nothing yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            // A name that no header can hold leaves the header out.
            name: HeaderValue::from_str(&settings.name).ok(),
            healthy: AtomicBool::new(true),
            count: AtomicU64::new(0),
            conduct: Conduct::new(settings.service_time, settings.cold),
            settings,
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    ///
    /// When the connection is to be closed without an answer: `/close` asks for
    /// it, and so does a request body that breaks off.
    pub(super) async fn answer(&self, request: Request<Incoming>, tape: &Taped) -> io::Result<Answer> {
        let (parts, body) = request.into_parts();
        // The tape moves on with every request, not only with those that are
        // echoed, or an earlier request of the same target would be found.
        let head = head_as_received(&parts, tape);
        let segments: Vec<&str> = parts.uri.path().split('/').collect();
        let mut answer = match self.control(&parts.method, &segments) {
            Some(answer) => answer,
            None => self.ordinary(&parts, &segments, head, body).await?,
        };
        if let Some(name) = &self.name {
            answer.headers_mut().insert("x-backend", name.clone());
        }
        if parts.method == Method::HEAD {
            answer = without_body(answer);
        }
        Ok(answer)
    }

    /// The paths that steer and observe the backend. They are not counted and
    /// neither latency nor errors touch them, so that they stay dependable.
    fn control(&self, method: &Method, segments: &[&str]) -> Option<Answer> {
        let answer = match segments {
            [.., "health"] if self.healthy.load(Ordering::SeqCst) => text(StatusCode::OK, "healthy\n"),
            [.., "health"] => text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n"),
            [.., "health", "up" | "down"] if method != Method::POST => {
                text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
            }
            [.., "health", direction] if matches!(*direction, "up" | "down") => {
                self.healthy.store(*direction == "up", Ordering::SeqCst);
                text(StatusCode::OK, format!("now {direction}\n"))
            }
            ["", "mood", ..] if method != Method::POST => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
            ["", "mood", words @ ..] => match Mood::parse(words) {
                Some(mood) => {
                    self.conduct.set(mood);
                    text(StatusCode::OK, "as you wish\n")
                }
                None => misread("/mood takes normal, slow/10, hang, fail or pause/300ms/2s"),
            },
            [.., "count"] => {
                let count = self.count.load(Ordering::SeqCst);
                text(StatusCode::OK, format!("{count}\n"))
            }
            _ => return None,
        };
        Some(answer)
    }

    /// Every other path: counted, delayed and failed as the settings say.
    async fn ordinary(
        &self,
        parts: &Parts,
        segments: &[&str],
        head: Option<String>,
        body: Incoming,
    ) -> io::Result<Answer> {
        self.count.fetch_add(1, Ordering::SeqCst);
        match segments {
            [.., "hang"] => future::pending::<()>().await,
            [.., "close"] => return Err(io::Error::other("closed as asked")),
            _ => {}
        }
        // The body is read whole before the answer: hyper closes a connection
        // whose request body was left unread, and that would look like a fault.
        let length = count_bytes(body).await?;
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency).await;
        }
        let worked = self.conduct.work().await;
        // fastrand::f64 is below 1, so a rate of 1 always fails and 0 never.
        if !worked || fastrand::f64() < self.settings.error_rate {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(text(status, "failed on purpose\n"));
        }
        Ok(match segments {
            [.., "status", code] => status(code),
            [.., "delay", pause] => delay(pause).await,
            [.., "bytes", length] => match length.parse() {
                Ok(length) => streamed("application/octet-stream", bodies::alphabet(length)),
                Err(_) => misread("/bytes/N needs a number of bytes"),
            },
            [.., "slow-body", chunks, pause] => match (chunks.parse(), humantime::parse_duration(pause)) {
                (Ok(chunks), Ok(pause)) => streamed("text/plain", bodies::slow(chunks, pause)),
                _ => misread("/slow-body/N/50ms needs a number of chunks and a pause"),
            },
            [.., "upload"] => text(StatusCode::OK, format!("{length}\n")),
            [.., "echo"] => echo(parts, head, length),
            _ => text(StatusCode::OK, self.greeting()),
        })
    }

    fn greeting(&self) -> String {
        match &self.settings.response {
            Some(response) => response.clone(),
            None => format!("Hello from {}\n", self.settings.name),
        }
    }
}

/// The head of an HTTP/1 request as it was on the wire.
fn head_as_received(parts: &Parts, tape: &Taped) -> Option<String> {
    if parts.version == Version::HTTP_2 {
        tape.forget();
        return None;
    }
    tape.take_head(parts.method.as_str(), &parts.uri.to_string())
}

async fn count_bytes(mut body: Incoming) -> io::Result<u64> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(io::Error::other)?.data_ref() {
            length += data.len() as u64;
        }
    }
    Ok(length)
}

fn status(code: &str) -> Answer {
    // Below 200 an answer is not final: hyper would refuse to send it alone.
    let wanted = code.parse().ok().filter(|code| *code >= 200);
    match wanted.map(StatusCode::from_u16) {
        Some(Ok(status)) if matches!(status.as_u16(), 204 | 304) => {
            let mut answer = Response::new(Empty::new().boxed());
            *answer.status_mut() = status;
            answer
        }
        Some(Ok(status)) => text(status, format!("status {code}\n")),
        _ => misread("/status/NNN needs a number from 200 to 999"),
    }
}

async fn delay(pause: &str) -> Answer {
    let pause: Duration = match humantime::parse_duration(pause) {
        Ok(pause) => pause,
        Err(_) => return misread("/delay/250ms needs a duration"),
    };
    tokio::time::sleep(pause).await;
    text(StatusCode::OK, format!("after {}\n", humantime::format_duration(pause)))
}

/// What arrived, as JSON. The headers of HTTP/1 are exactly those of the wire;
/// those of HTTP/2 are in order too, but repeated names come grouped.
fn echo(parts: &Parts, head: Option<String>, length: u64) -> Answer {
    let headers: Vec<(String, String)> = match &head {
        Some(head) => head.split("\r\n").skip(1).map(split_header).collect(),
        None => parts
            .headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.to_string(), value)
            })
            .collect(),
    };
    // Where HTTP/1 has the Host header, HTTP/2 has the authority in the target.
    let authority = match parts.uri.authority() {
        Some(authority) => Some(authority.to_string()),
        None => parts.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
    };
    let target = match parts.uri.path_and_query() {
        Some(target) if parts.version == Version::HTTP_2 => target.to_string(),
        _ => parts.uri.to_string(),
    };
    let body = json!({
        "method": parts.method.as_str(),
        "target": target,
        "authority": authority,
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body_length": length,
    });
    let mut answer = text(StatusCode::OK, format!("{body}\n"));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

fn split_header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

fn misread(message: &'static str) -> Answer {
    text(StatusCode::BAD_REQUEST, format!("{message}\n"))
}

fn text(status: StatusCode, content: impl Into<Bytes>) -> Answer {
    let mut answer = streamed("text/plain", Full::new(content.into()).boxed());
    *answer.status_mut() = status;
    answer
}

fn streamed(kind: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// The answer to HEAD: the same head with the length that the body would have.
fn without_body(mut answer: Answer) -> Answer {
    if let Some(length) = answer.body().size_hint().exact() {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer.map(|_| Empty::new().boxed())
}
