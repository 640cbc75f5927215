//! The messages of the Kubernetes API: lists of EndpointSlices, and the lines of a watch.

use serde::{Deserialize, Deserializer};

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) items: Vec<Slice>,
}

/// The state that a list shows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    /// Asks for the next page; empty on the last one.
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

/// An EndpointSlice of `discovery.k8s.io/v1`. Only what l7lb uses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) address_type: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) ports: Vec<SlicePort>,
}

/// The name and the version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) resource_version: String,
}

/// One endpoint, usually a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    /// Kubernetes uses only the first one.
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) conditions: Option<Conditions>,
    #[serde(default)]
    pub(super) target_ref: Option<TargetRef>,
    #[serde(default)]
    pub(super) node_name: Option<String>,
    #[serde(default)]
    pub(super) zone: Option<String>,
}

/// The state of an endpoint. A condition that is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

/// The object behind an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct TargetRef {
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct SlicePort {
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) name: String,
    /// Absent for all ports, which is no port of a backend.
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) protocol: String,
}

/// The body of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) message: String,
}

/// A message of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The slice is new or has changed.
    Put(Slice),
    /// The slice with this name does not exist any more, as of this version.
    Deleted(Metadata),
    /// Nothing has changed up to this version.
    Bookmark(String),
    /// The watch has ended.
    Error(Status),
}

/// Reads a line of a watch.
///
/// # Errors
/// Why it is invalid.
pub(super) fn event(line: &[u8]) -> Result<Event, String> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct Of<T> {
        object: T,
    }
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    let invalid = |e: serde_json::Error| format!("a message of the watch is invalid: {e}");
    let Kind { kind } = serde_json::from_slice(line).map_err(invalid)?;
    let event = match &*kind {
        "ADDED" | "MODIFIED" => Event::Put(serde_json::from_slice::<Of<Slice>>(line).map_err(invalid)?.object),
        "DELETED" => Event::Deleted(serde_json::from_slice::<Of<Named>>(line).map_err(invalid)?.object.metadata),
        "BOOKMARK" => {
            let named = serde_json::from_slice::<Of<Named>>(line).map_err(invalid)?;
            Event::Bookmark(named.object.metadata.resource_version)
        }
        "ERROR" => Event::Error(serde_json::from_slice::<Of<Status>>(line).map_err(invalid)?.object),
        other => return Err(format!("a message of the watch has the unknown type `{other}`")),
    };
    let version = match &event {
        Event::Put(slice) => &slice.metadata.resource_version,
        Event::Deleted(metadata) => &metadata.resource_version,
        Event::Bookmark(version) => version,
        Event::Error(_) => return Ok(event),
    };
    if version.is_empty() {
        return Err("a message of the watch has no resourceVersion".to_owned());
    }
    Ok(event)
}

/// A value, or the default for `null`: Kubernetes writes empty lists as `null`.
fn or_empty<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_watch_are_read_and_invalid_ones_are_errors() {
        let read = |text: &str| event(text.as_bytes());
        let added = r#"{"type":"ADDED","object":{"kind":"EndpointSlice","metadata":{"name":"a","resourceVersion":"7"},
            "addressType":"IPv4","endpoints":null,"ports":[{"name":"","port":80,"protocol":"TCP","appProtocol":"x"}]}}"#;
        let Ok(Event::Put(slice)) = read(added) else { panic!("not read") };
        assert_eq!((slice.metadata.name.as_str(), slice.endpoints.len(), slice.ports[0].port), ("a", 0, Some(80)));
        let deleted = read(r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"8"}}}"#);
        assert_eq!(deleted, Ok(Event::Deleted(Metadata { name: "a".to_owned(), resource_version: "8".to_owned() })));
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","creationTimestamp":null},"endpoints":null}}"#;
        assert_eq!(read(bookmark), Ok(Event::Bookmark("9".to_owned())));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old","reason":"Expired"}}"#;
        assert_eq!(read(gone), Ok(Event::Error(Status { code: 410, message: "too old".to_owned() })));
        for (line, reason) in [
            ("<html>", "is invalid"),
            ("{}", "missing field `type`"),
            (r#"{"type":"SYNC","object":{}}"#, "unknown type `SYNC`"),
            (r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#, "has no resourceVersion"),
            (r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"1"},"endpoints":7}}"#, "is invalid"),
            (r#"{"type":"BOOKMARK","object":{"metadata":{}}}"#, "has no resourceVersion"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
