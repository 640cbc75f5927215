//! `headers`: sets, adds and removes header fields of requests and responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::Surroundings;
use super::field_names::{self, Message};
use super::variables::{Scope, Value, Values};
use super::{Filter, Request, Response, Step};
use crate::base::fault::{Faults, Place};

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Changes to requests for backends.
    pub request: FieldsConfig,
    /// Changes to responses for clients.
    pub response: FieldsConfig,
}

/// Changes to the header fields of one kind of message, applied in this order: remove, set, set_if_absent, add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldsConfig {
    /// Names of fields to remove.
    pub remove: Vec<String>,
    /// Fields that replace all fields of the same name.
    pub set: BTreeMap<String, String>,
    /// Fields that are set if there is none of the same name.
    pub set_if_absent: BTreeMap<String, String>,
    /// Fields that are added to those of the same name.
    pub add: BTreeMap<String, String>,
}

/// The checked changes to one kind of message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    set_if_absent: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

/// The filter.
#[derive(Clone, Debug)]
struct Headers {
    request: Fields,
    response: Fields,
}

impl FieldsConfig {
    fn check(&self, message: Message, place: &Place, faults: &mut Faults) -> Fields {
        let place_of_remove = place.key("remove");
        let remove = self.remove.iter().enumerate();
        let remove =
            remove.filter_map(|(at, name)| field_names::parse(name, message, &place_of_remove.index(at), faults));
        let remove = remove.collect();
        let mut fields =
            |key: &str, fields: &BTreeMap<String, String>| check_fields(fields, message, &place.key(key), faults);
        let set = fields("set", &self.set);
        let set_if_absent = fields("set_if_absent", &self.set_if_absent);
        Fields { remove, set, set_if_absent, add: fields("add", &self.add) }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Checks a map of names to values.
pub(super) fn check_fields(
    fields: &BTreeMap<String, String>,
    message: Message,
    place: &Place,
    faults: &mut Faults,
) -> Vec<(HeaderName, Value)> {
    let scope = if message == Message::Request { Scope::Request } else { Scope::Response };
    let parsed = fields.iter().filter_map(|(name, value)| {
        let place = place.key(name);
        let name = field_names::parse(name, message, &place, faults);
        let value = Value::check(value, scope, &place, faults);
        Some((name?, value?))
    });
    parsed.collect()
}

impl super::config::Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        if self.request.is_empty() && self.response.is_empty() {
            faults.add(
                place.clone(),
                "nothing changes",
                "write for example `response: { set: { X-Frame-Options: DENY } }`",
            );
        }
        let request = self.request.check(Message::Request, &place.key("request"), faults);
        let response = self.response.check(Message::Response, &place.key("response"), faults);
        Some(Arc::new(Headers { request, response }))
    }
}

impl Fields {
    /// A few words, such as `sets X-A, removes X-B`.
    fn words(&self) -> String {
        let names = |fields: &[(HeaderName, Value)]| {
            fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let removed = self.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let parts = [
            ("removes", removed),
            ("sets", names(&self.set)),
            ("sets if absent", names(&self.set_if_absent)),
            ("adds", names(&self.add)),
        ];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
        parts.collect::<Vec<_>>().join("; ")
    }

    fn change_response(&self, response: &mut Response<'_>) {
        for name in &self.remove {
            response.headers.remove(name);
        }
        let render = |response: &Response<'_>, value: &Value| match value {
            Value::Constant(value) => value.clone(),
            Value::Template(_) => value.render(&Values::of_response(response)),
        };
        for (name, value) in &self.set {
            let value = render(response, value);
            response.headers.insert(name.clone(), value);
        }
        for (name, value) in &self.set_if_absent {
            if !response.headers.contains_key(name) {
                let value = render(response, value);
                response.headers.insert(name.clone(), value);
            }
        }
        for (name, value) in &self.add {
            let value = render(response, value);
            response.headers.append(name.clone(), value);
        }
    }
}

/// Adds fields to the header of a response that l7lb makes for `request`.
pub(super) fn render_into(fields: &[(HeaderName, Value)], request: &Request<'_>, headers: &mut HeaderMap) {
    for (name, value) in fields {
        headers.insert(name.clone(), value.render(&Values::of_request(request)));
    }
}

impl Filter for Headers {
    fn request(&self, request: &mut Request<'_>) -> Step {
        for name in &self.request.remove {
            if request.has_field(name) {
                request.remove_field(name.clone());
            }
        }
        for (name, value) in &self.request.set {
            let value = value.render(&Values::of_request(request));
            request.set_field(name.clone(), value);
        }
        for (name, value) in &self.request.set_if_absent {
            if !request.has_field(name) {
                let value = value.render(&Values::of_request(request));
                request.set_field(name.clone(), value);
            }
        }
        for (name, value) in &self.request.add {
            let value = value.render(&Values::of_request(request));
            request.add_field(name.clone(), value);
        }
        Step::Continue
    }

    fn response(&self, response: &mut Response<'_>) {
        self.response.change_response(response);
    }

    fn describe(&self) -> String {
        let parts = [("request", self.request.words()), ("response", self.response.words())];
        let parts = parts.iter().filter(|(_, words)| !words.is_empty()).map(|(of, words)| format!("{of}: {words}"));
        parts.collect::<Vec<_>>().join("; ")
    }
}
