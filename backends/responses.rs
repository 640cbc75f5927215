//! The response of the sample backend for each path.
//!
//! Special paths are matched by their last segments, so they also work below a
//! prefix (`/apiA/status/503`), which a proxy may forward without stripping it.

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
use super::bodies::{self, ResponseBody};
use super::fault_injection::{FaultInjector, InjectedFault};
use super::recording::Recording;

/// Responds to the requests of all connections of one backend.
pub(super) struct Responder {
    settings: Settings,
    name: Option<HeaderValue>,
    healthy: AtomicBool,
    count: AtomicU64,
    faults: FaultInjector,
}

impl Responder {
    /// A healthy backend with a request count of 0.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            // `x-backend` is omitted if the name is not a legal field value.
            name: HeaderValue::from_str(&settings.name).ok(),
            healthy: AtomicBool::new(true),
            count: AtomicU64::new(0),
            faults: FaultInjector::new(settings.service_time, settings.cold),
            settings,
        }
    }

    /// Responds to one request.
    ///
    /// # Errors
    ///
    /// If the connection must be closed without a response: for `/close`, and
    /// for a truncated request body.
    pub(super) async fn respond(
        &self,
        request: Request<Incoming>,
        recording: &Recording,
    ) -> io::Result<Response<ResponseBody>> {
        let (parts, body) = request.into_parts();
        // Every request consumes its bytes from the recording, not only `/echo`.
        // Otherwise `/echo` would find an earlier request with the same target.
        let head = head_as_received(&parts, recording);
        let segments: Vec<&str> = parts.uri.path().split('/').collect();
        let mut response = match self.control(&parts.method, &segments) {
            Some(response) => response,
            None => self.ordinary(&parts, &segments, head, body).await?,
        };
        if let Some(name) = &self.name {
            response.headers_mut().insert("x-backend", name.clone());
        }
        if parts.method == Method::HEAD {
            response = without_body(response);
        }
        Ok(response)
    }

    /// The paths that control and observe the backend. They are not counted, and
    /// injected latency, errors and faults do not apply to them.
    fn control(&self, method: &Method, segments: &[&str]) -> Option<Response<ResponseBody>> {
        let response = match segments {
            [.., "health"] if self.healthy.load(Ordering::SeqCst) => text(StatusCode::OK, "healthy\n"),
            [.., "health"] => text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n"),
            [.., "health", "up" | "down"] if method != Method::POST => {
                text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
            }
            [.., "health", direction] if matches!(*direction, "up" | "down") => {
                self.healthy.store(*direction == "up", Ordering::SeqCst);
                text(StatusCode::OK, format!("now {direction}\n"))
            }
            ["", "fault", ..] if method != Method::POST => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
            ["", "fault", segments @ ..] => match InjectedFault::parse(segments) {
                Some(fault) => {
                    self.faults.set(fault);
                    text(StatusCode::OK, "fault set\n")
                }
                None => bad_request("/fault takes none, slow/10, delay/200ms, hang, fail or pause/300ms/2s"),
            },
            [.., "count"] => {
                let count = self.count.load(Ordering::SeqCst);
                text(StatusCode::OK, format!("{count}\n"))
            }
            _ => return None,
        };
        Some(response)
    }

    /// Every other path: counted, delayed and failed according to the settings.
    async fn ordinary(
        &self,
        parts: &Parts,
        segments: &[&str],
        head: Option<String>,
        body: Incoming,
    ) -> io::Result<Response<ResponseBody>> {
        self.count.fetch_add(1, Ordering::SeqCst);
        match segments {
            [.., "hang"] => future::pending::<()>().await,
            [.., "close"] => return Err(io::Error::other("closed by /close")),
            _ => {}
        }
        // The body is read to its end before the response: hyper closes a
        // connection with an unread request body, which would look like a fault.
        let length = count_bytes(body).await?;
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency).await;
        }
        let succeeded = self.faults.run_service_time().await;
        // fastrand::f64 is below 1, so a rate of 1 always fails and 0 never.
        if !succeeded || fastrand::f64() < self.settings.error_rate {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(text(status, "injected failure\n"));
        }
        Ok(match segments {
            [.., "status", code] => status(code),
            [.., "delay", pause] => delay(pause).await,
            [.., "bytes", length] => match length.parse() {
                Ok(length) => streamed("application/octet-stream", bodies::alphabet(length)),
                Err(_) => bad_request("/bytes/N needs a number of bytes"),
            },
            [.., "slow-body", chunks, pause] => match (chunks.parse(), humantime::parse_duration(pause)) {
                (Ok(chunks), Ok(pause)) => streamed("text/plain", bodies::slow(chunks, pause)),
                _ => bad_request("/slow-body/N/50ms needs a number of chunks and a duration"),
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

/// The head of an HTTP/1 request as received; none for HTTP/2.
fn head_as_received(parts: &Parts, recording: &Recording) -> Option<String> {
    if parts.version == Version::HTTP_2 {
        recording.clear();
        return None;
    }
    recording.take_head(parts.method.as_str(), &parts.uri.to_string())
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

fn status(code: &str) -> Response<ResponseBody> {
    // A 1xx response is not final; hyper does not send it alone.
    let code_number = code.parse().ok().filter(|code| *code >= 200);
    match code_number.map(StatusCode::from_u16) {
        Some(Ok(status)) if matches!(status.as_u16(), 204 | 304) => {
            let mut response = Response::new(Empty::new().boxed());
            *response.status_mut() = status;
            response
        }
        Some(Ok(status)) => text(status, format!("status {code}\n")),
        _ => bad_request("/status/NNN needs a number from 200 to 999"),
    }
}

async fn delay(pause: &str) -> Response<ResponseBody> {
    let pause: Duration = match humantime::parse_duration(pause) {
        Ok(pause) => pause,
        Err(_) => return bad_request("/delay/250ms needs a duration"),
    };
    tokio::time::sleep(pause).await;
    text(StatusCode::OK, format!("after {}\n", humantime::format_duration(pause)))
}

/// The received request as JSON. HTTP/1 header fields keep their order and
/// spelling. HTTP/2 header fields keep their order, except that repeated names
/// are grouped.
fn echo(parts: &Parts, head: Option<String>, length: u64) -> Response<ResponseBody> {
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
    // HTTP/2 has the authority in the request target, HTTP/1 in the Host field.
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
    let mut response = text(StatusCode::OK, format!("{body}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn split_header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

fn bad_request(message: &'static str) -> Response<ResponseBody> {
    text(StatusCode::BAD_REQUEST, format!("{message}\n"))
}

fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = streamed("text/plain", Full::new(content.into()).boxed());
    *response.status_mut() = status;
    response
}

fn streamed(content_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The response to HEAD: the same header section, with the length of the omitted body.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.map(|_| Empty::new().boxed())
}
