//! `respond`: a fixed response, without a backend.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::field_names::Message;
use super::headers::{check_fields, render_into};
use super::variables::Value;
use super::watched_file::content_hash;
use super::{Filter, LocalResponse, Request, Step};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};

/// The largest body in bytes.
pub const BODY_MAX: usize = 65_536;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The status code, 200 to 599.
    pub status: Option<u16>,
    /// The fields, with variables.
    pub headers: BTreeMap<String, String>,
    /// The body as text, at most 64 KiB.
    pub body: Option<String>,
    /// A file with the body, at most 64 KiB. It is read at the start and at a reload.
    pub file: Option<PathBuf>,
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let code = self.status.unwrap_or(200);
        let status = StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code));
        if status.is_none() {
            let problem = format!("{code} is not the status code of a final response");
            faults.add(place.key("status"), problem, "write 200 to 599");
        }
        if self.body.is_some() && self.file.is_some() {
            faults.add(place.key("file"), "there is a `body`, too", "remove one of the two");
        }
        let body = match (&self.body, &self.file) {
            (Some(text), _) => Some(Bytes::from(text.clone())),
            (None, Some(file)) => read(file, &place.key("file"), faults),
            (None, None) => Some(Bytes::new()),
        }?;
        if body.len() > BODY_MAX {
            faults.add(place.key("body"), "the body is larger than 64 KiB", "let a backend serve it");
        }
        let mut fields = check_fields(&self.headers, Message::Response, &place.key("headers"), faults);
        if !body.is_empty() && !fields.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
            let media_type = self.file.as_deref().map_or(TEXT, media_type);
            fields.push((header::CONTENT_TYPE, Value::Constant(HeaderValue::from_static(media_type))));
        }
        Some(Arc::new(Respond { status: status?, fields, body }))
    }
}

/// Reads a file with at most [`BODY_MAX`] bytes; otherwise reports why not.
pub(super) fn read(file: &PathBuf, place: &Place, faults: &mut Faults) -> Option<Bytes> {
    let hint = "give a readable file of at most 64 KiB";
    match read_start(file) {
        Ok(contents) if contents.len() <= BODY_MAX => Some(Bytes::from(contents)),
        Ok(_) => {
            let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
            faults.add(place.clone(), format!("{} has {length} bytes, more than 64 KiB", file.display()), hint);
            None
        }
        Err(e) => {
            faults.add(place.clone(), format!("cannot read {}: {e}", file.display()), hint);
            None
        }
    }
}

/// The start of a file: one byte more than a body may have, if it is longer.
fn read_start(file: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    std::fs::File::open(file)?.take(BODY_MAX as u64 + 1).read_to_end(&mut contents)?;
    Ok(contents)
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The media type of a file, by its name.
pub(super) fn media_type(file: &std::path::Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("svg") => "image/svg+xml",
        _ => TEXT,
    }
}

#[derive(Debug)]
struct Respond {
    status: StatusCode,
    fields: Vec<(HeaderName, Value)>,
    body: Bytes,
}

impl Filter for Respond {
    fn request(&self, request: &mut Request<'_>) -> Step {
        let mut headers = http::HeaderMap::with_capacity(self.fields.len());
        render_into(&self.fields, request, &mut headers);
        let (status, body) = (self.status, self.body.clone());
        Step::Respond(Box::new(LocalResponse { cause: Cause::Respond, status, headers, body }))
    }

    fn describe(&self) -> String {
        format!("{} with {} bytes", self.status.as_u16(), self.body.len())
    }

    fn may_respond(&self) -> bool {
        true
    }

    fn files(&self) -> u64 {
        content_hash(&self.body)
    }
}
