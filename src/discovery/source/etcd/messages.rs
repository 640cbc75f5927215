//! The messages of etcd's JSON gateway. Keys and values are in Base64, and 64-bit numbers are texts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

/// A range of keys to read.
#[derive(Default, Serialize)]
pub(super) struct RangeRequest {
    pub(super) key: String,
    pub(super) range_end: String,
    pub(super) limit: usize,
    pub(super) count_only: bool,
    pub(super) keys_only: bool,
    /// Keys that changed before this revision are left out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) min_mod_revision: String,
}

/// The keys of a range.
#[derive(Deserialize)]
pub(super) struct RangeResponse {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    /// How many keys the range has; there may be more than in `kvs`.
    #[serde(default, deserialize_with = "number")]
    pub(super) count: u64,
}

/// The state of the store.
#[derive(Default, Deserialize)]
pub(super) struct Header {
    /// Incremented by each change.
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: u64,
}

/// A key with its value.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "base64")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "base64")]
    pub(super) value: Vec<u8>,
}

/// The start of a watch.
#[derive(Serialize)]
pub(super) struct WatchRequest {
    pub(super) create_request: CreateRequest,
}

/// The range to watch.
#[derive(Serialize)]
pub(super) struct CreateRequest {
    pub(super) key: String,
    pub(super) range_end: String,
    /// The first revision to report.
    pub(super) start_revision: String,
}

/// A line of a watch.
#[derive(Deserialize)]
struct WatchLine {
    result: Option<WatchResult>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    #[serde(default, deserialize_with = "number")]
    compact_revision: u64,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default)]
    events: Vec<Event>,
}

/// A change of a key.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    pub(super) kv: KeyValue,
}

impl Event {
    /// Whether the key was deleted, by a client or by the end of its lease.
    pub(super) fn is_deletion(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// A message of a watch.
#[derive(Debug)]
pub(super) enum WatchMessage {
    /// The watch has started.
    Created,
    /// Changes since the last message, possibly none; and the revision after them.
    Events(Vec<Event>, u64),
}

/// Reads a line of a watch.
///
/// # Errors
/// Why the watch has ended.
pub(super) fn watch_message(line: &[u8]) -> Result<WatchMessage, String> {
    let line: WatchLine =
        serde_json::from_slice(line).map_err(|e| format!("a message of the watch is invalid: {e}"))?;
    if let Some(error) = line.error {
        let message = error.get("message").and_then(serde_json::Value::as_str);
        return Err(message.unwrap_or("etcd ended the watch").to_owned());
    }
    let result = line.result.ok_or("a message of the watch has no result")?;
    if result.compact_revision > 0 {
        return Err("etcd has compacted the revision of the watch".to_owned());
    }
    if result.canceled {
        return Err(format!("etcd canceled the watch: {}", result.cancel_reason));
    }
    Ok(if result.created { WatchMessage::Created } else { WatchMessage::Events(result.events, result.header.revision) })
}

/// The credentials of a user.
#[derive(Serialize)]
pub(super) struct AuthenticateRequest<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

/// The token of a user.
#[derive(Deserialize)]
pub(super) struct AuthenticateResponse {
    pub(super) token: String,
}

/// The sentence in the body of an error.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    ["message", "error"].into_iter().find_map(|key| body.get(key)?.as_str().map(str::to_owned))
}

/// Bytes for a message.
pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The end of the range of all keys with this prefix.
pub(super) fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// A number, or a text with a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(u64),
        Text(String),
    }
    match Number::deserialize(deserializer)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_watch_are_read_and_its_end_is_an_error() {
        let created = br#"{"result":{"header":{"revision":"3"},"created":true}}"#;
        assert!(matches!(watch_message(created), Ok(WatchMessage::Created)));
        let events = br#"{"result":{"header":{"revision":"5"},"events":[{"kv":{"key":"L3AvYw==","value":"eA=="}},{"type":"DELETE","kv":{"key":"L3AvYw==","mod_revision":"5"}}]}}"#;
        let Ok(WatchMessage::Events(events, 5)) = watch_message(events) else { panic!("no events") };
        assert_eq!((events[0].kv.key.as_slice(), events[0].kv.value.as_slice()), (&b"/p/c"[..], &b"x"[..]));
        assert_eq!((events[0].is_deletion(), events[1].is_deletion()), (false, true));
        assert!(events[1].kv.value.is_empty());
        let progress = br#"{"result":{"header":{"revision":"9"}}}"#;
        assert!(matches!(watch_message(progress), Ok(WatchMessage::Events(events, 9)) if events.is_empty()));
        for (line, reason) in [
            (&br#"{"result":{"canceled":true,"compact_revision":"5"}}"#[..], "compacted"),
            (br#"{"result":{"canceled":true,"cancel_reason":"permission denied"}}"#, "permission denied"),
            (br#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#, "no leader"),
            (b"{}", "has no result"),
            (b"<html>", "is invalid"),
            (br#"{"result":{"events":[{"kv":{"key":"!"}}]}}"#, "is invalid"),
        ] {
            let error = watch_message(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn range_of_a_prefix_ends_after_its_last_key() {
        assert_eq!(range_end(b"/p/"), b"/p0");
        assert_eq!(range_end(b"a\xff"), b"b");
        assert_eq!(range_end(b"\xff"), [0]);
        let response: RangeResponse = serde_json::from_str(r#"{"header":{"revision":7},"count":"2"}"#).unwrap();
        assert_eq!((response.header.revision, response.count, response.kvs.len()), (7, 2, 0));
        let body = br#"{"error":"a","message":"etcdserver: b","code":9}"#;
        assert_eq!(error_message(body).as_deref(), Some("etcdserver: b"));
        assert_eq!(error_message(b"<html>"), None);
    }
}
