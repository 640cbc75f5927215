//! A connection to the Docker Engine: its version, its containers and its events.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::container::Container;
use crate::tls::connection::{Connection, Ended, Lines, encode, within};

/// The longest wait for a connection, a response to a ping, or the start of the events.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait for a list, which an engine under load makes slowly.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest event in bytes. It has all labels of its container.
const EVENT_MAX: usize = 4 << 20;
/// The events that may change which containers are backends, or how. Those of health checks are too many to ask for all.
const EVENTS: [&str; 7] = ["start", "die", "kill", "pause", "unpause", "destroy", "health_status"];
/// The signals that end a container gracefully, by number; images choose one of them. The last one is RTMIN+3.
const STOP_SIGNALS: [&str; 6] = ["2", "3", "9", "15", "28", "37"];

/// A connection.
pub(super) struct Engine(Connection);

/// The lines of the events, with their connection.
pub(super) struct Events {
    lines: Lines,
    _connection: Engine,
}

/// The path of a version, such as `/v1.47`; empty for paths without a version.
#[derive(Clone)]
pub(super) struct Version(String);

/// The labels that a container must have, as the engine expects them.
pub(super) struct Filter(pub(super) Vec<String>);

/// What an event says about a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is going to stop.
    Stopping(String),
    /// It has started, or has ended.
    Settled(String),
    /// It has changed.
    Changed,
}

#[derive(Deserialize)]
struct EventLine {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, rename = "Attributes")]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    signal: String,
}

impl Engine {
    /// Connects to the engine.
    ///
    /// # Errors
    /// Why this is not possible.
    pub(super) async fn connect(socket: &Path) -> Result<Self, String> {
        let stream = within(TIMEOUT, "connection", UnixStream::connect(socket)).await?;
        // The engine requires the header `Host`, and ignores its value.
        Connection::over(stream, "docker".to_owned(), LIST_TIMEOUT).await.map(Self)
    }

    /// The version to use: the newest one of the engine. A proxy in front of it may reject the question, and then the
    /// paths have no version.
    ///
    /// # Errors
    /// There is no response.
    pub(super) async fn ping(&mut self) -> Result<Version, String> {
        let ping = async {
            let response = self.0.fetch(self.get("/_ping")?).await?;
            let version = response.headers().get("api-version").and_then(|value| value.to_str().ok());
            let is_version = |text: &&str| text.split('.').count() == 2 && text.split('.').all(is_number);
            Ok(Version(version.filter(is_version).map_or_else(String::new, |version| format!("/v{version}"))))
        };
        tokio::time::timeout(TIMEOUT, ping).await.map_err(|_| format!("no response to a ping within {TIMEOUT:?}"))?
    }

    /// The running containers with these labels.
    ///
    /// # Errors
    /// Why there is no valid list.
    pub(super) async fn containers(&mut self, version: &Version, filter: &Filter) -> Result<Vec<Container>, String> {
        let filters = json!({ "label": filter.0, "status": ["running"], "health": ["healthy", "none"] });
        let response = self.0.fetch(self.get(&version.path("/containers/json", &filters))?).await?;
        if response.status() != StatusCode::OK {
            return Err(problem(response.status(), response.body()));
        }
        serde_json::from_slice(response.body()).map_err(|e| format!("the list of containers is invalid: {e}"))
    }

    /// Starts to read the events of containers with these labels.
    ///
    /// # Errors
    /// Why this is not possible.
    pub(super) async fn events(mut self, version: &Version, filter: &Filter) -> Result<Events, String> {
        let filters = json!({ "label": filter.0, "type": ["container"], "event": EVENTS });
        let request = self.get(&version.path("/events", &filters))?;
        let events = tokio::time::timeout(TIMEOUT, self.0.stream(request, EVENT_MAX)).await;
        match events.map_err(|_| format!("no events within {TIMEOUT:?}"))?? {
            Ok(lines) => Ok(Events { lines, _connection: self }),
            Err((status, body)) => Err(problem(status, &body)),
        }
    }

    fn get(&self, target: &str) -> Result<Request<Full<Bytes>>, String> {
        self.0.request(Method::GET, target).body(Full::default()).map_err(|e| e.to_string())
    }
}

impl Events {
    /// The next line. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Why there are no further events.
    pub(super) async fn next(&mut self) -> Result<BytesMut, Ended> {
        self.lines.next().await
    }
}

impl Version {
    /// The target of a request with filters.
    fn path(&self, path: &str, filters: &Value) -> String {
        format!("{}{path}?filters={}", self.0, encode(&filters.to_string()))
    }
}

/// Reads a line of the events. `None` for an empty one.
///
/// # Errors
/// It is not an event.
pub(super) fn event(line: &[u8]) -> Result<Option<Event>, String> {
    // Some servers separate messages by the character RS (RFC 7464).
    let line = line.strip_prefix(b"\x1e").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let line: EventLine = serde_json::from_slice(line).map_err(|e| format!("an event is invalid: {e}"))?;
    let id = line.actor.id;
    Ok(Some(match line.action.as_str() {
        "kill" if STOP_SIGNALS.contains(&line.actor.attributes.signal.as_str()) => Event::Stopping(id),
        "start" | "die" | "destroy" => Event::Settled(id),
        _ => Event::Changed,
    }))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The problem in a response with an error.
fn problem(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { message }) => format!("{status}: {}", message.escape_debug()),
        Err(_) => format!("the response has the status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_says_whether_its_container_stops() {
        let line = |action: &str, signal: &str| {
            format!(
                "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"a\",\"Attributes\":{{\"signal\":\"{signal}\",\"x\":\"y\"}}}}}}\r\n"
            )
        };
        let stopping = || Event::Stopping("a".to_owned());
        let settled = || Event::Settled("a".to_owned());
        for (action, signal, expected) in [
            ("kill", "15", stopping()),
            ("kill", "3", stopping()),
            ("kill", "1", Event::Changed),
            ("kill", "12", Event::Changed),
            ("die", "", settled()),
            ("start", "", settled()),
            ("health_status: unhealthy", "", Event::Changed),
        ] {
            assert_eq!(event(line(action, signal).as_bytes()), Ok(Some(expected)), "{action} {signal}");
        }
        assert_eq!(event(b"\x1e{\"Action\":\"die\",\"Actor\":{\"ID\":\"a\"}}\n"), Ok(Some(settled())));
        assert_eq!(event(b" \r\n"), Ok(None));
        for invalid in [&b"<html>\n"[..], b"{}\n", b"{\"Action\":\"die\"}\n", b"[1]\n", b"\xff\n"] {
            assert!(event(invalid).unwrap_err().starts_with("an event is invalid"), "{invalid:?}");
        }
    }

    #[test]
    fn filters_are_encoded_in_the_target() {
        let target = Version("/v1.47".to_owned()).path("/events", &json!({ "label": ["a=b é"] }));
        assert_eq!(target, "/v1.47/events?filters=%7B%22label%22%3A%5B%22a%3Db%20%C3%A9%22%5D%7D");
    }

    #[test]
    fn error_of_the_engine_has_its_message() {
        assert_eq!(problem(StatusCode::FORBIDDEN, b"<html>"), "the response has the status 403 Forbidden");
        let body = br#"{"message":"client version 9.9\n is too new"}"#;
        assert_eq!(problem(StatusCode::BAD_REQUEST, body), "400 Bad Request: client version 9.9\\n is too new");
    }
}
