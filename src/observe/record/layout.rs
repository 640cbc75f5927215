//! The layout of lines: format, further fields and redaction, checked.

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::redaction::{Redaction, Treatment};
use super::template::Template;
use crate::base::fault::{Faults, Place};

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// The combined format of Apache.
    Combined,
}

/// What a line consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Combined,
    Template(Template),
}

/// A header field that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedField {
    pub(super) name: HeaderName,
    /// What precedes the value in text.
    pub(super) text: String,
    /// What precedes the value in its JSON object, without the comma.
    pub(super) json: String,
    pub(super) treatment: Treatment,
}

/// The field of one side: `request` or `response`.
fn logged(side: &str, name: HeaderName, redaction: &Redaction) -> LoggedField {
    let (text, json) = (format!(" {side}.header.{name}="), format!("\"{name}\":"));
    let treatment = redaction.of_header(&name);
    LoggedField { name, text, json, treatment }
}

/// The layout of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(super) form: Form,
    pub(super) query: bool,
    pub(super) redaction: Redaction,
    pub(super) request_headers: Vec<LoggedField>,
    pub(super) response_headers: Vec<LoggedField>,
}

/// The keys of the configuration from which a layout is made.
pub struct Keys<'a> {
    /// The format.
    pub format: Format,
    /// The template, which replaces the format.
    pub template: Option<&'a str>,
    /// Whether the query is logged.
    pub query: bool,
    /// The redaction.
    pub redact: &'a super::redaction::Config,
    /// Names of further header fields of requests, and of responses.
    pub headers: [&'a [String]; 2],
}

impl Default for Layout {
    fn default() -> Self {
        let redaction = Redaction::default();
        Self { form: Form::Text, query: false, redaction, request_headers: Vec::new(), response_headers: Vec::new() }
    }
}

impl Layout {
    /// Checks the keys of the block at `place`.
    pub fn check(keys: &Keys<'_>, place: &Place, faults: &mut Faults) -> Self {
        let template = keys.template.and_then(|text| Template::check(text, &place.key("template"), faults));
        if keys.format != Format::Text && keys.template.is_some() {
            faults.add(place.key("template"), "there is a `format` too", "remove one of them");
        }
        let fixed = keys.template.is_some() || keys.format == Format::Combined;
        let query = keys.query || template.as_ref().is_some_and(Template::has_query);
        let redaction = keys.redact.check(query, &place.key("redact"), faults);
        let sides = ["request", "response"];
        let [request_headers, response_headers] = [0, 1].map(|at| {
            let side = sides.get(at).copied().unwrap_or_default();
            let key = place.key(&format!("{side}_headers"));
            let names = keys.headers.get(at).copied().unwrap_or_default();
            if fixed && !names.is_empty() {
                let problem = "only the formats `text` and `json` have these fields";
                faults.add(key.clone(), problem, format!("write `${{{side}.header.NAME}}` in the `template`"));
            }
            let mut fields = Vec::new();
            for (index, name) in names.iter().enumerate() {
                match HeaderName::from_bytes(name.as_bytes()) {
                    Ok(name) => fields.push(logged(side, name, &redaction)),
                    Err(_) => faults.add(
                        key.index(index),
                        format!("`{name}` is not a header name"),
                        "write for example `User-Agent`",
                    ),
                }
            }
            fields
        });
        let form = match (template, keys.format) {
            (Some(template), _) => Form::Template(template),
            (None, Format::Text) => Form::Text,
            (None, Format::Json) => Form::Json,
            (None, Format::Combined) => Form::Combined,
        };
        Self { form, query, redaction, request_headers, response_headers }
    }

    /// The header fields of responses that lines have, each once.
    #[must_use]
    pub fn of_responses(&self) -> Vec<HeaderName> {
        let mut names: Vec<HeaderName> = self.response_headers.iter().map(|field| field.name.clone()).collect();
        if let Form::Template(template) = &self.form {
            names.extend(template.response_headers().cloned());
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    }
}
