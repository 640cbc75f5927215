//! `compress`: encodes response bodies with a content coding that the client accepts.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::accept_encoding::{self, Coding};
use super::config::{Configuration, Surroundings};
use super::encoder::{Encoder, Level};
use super::{Filter, Response};
use crate::base::fault::{Faults, Place};
use crate::base::units::Size;

/// Configuration of the filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The codings that are offered. If a client accepts several equally, the first one is used.
    pub encodings: Vec<Coding>,
    /// The media types that are compressed, such as `text/html`, `text/*` or `*+json`.
    pub media_types: Vec<String>,
    /// Smaller bodies stay as they are. A body of unknown length is compressed.
    pub minimum_size: Size,
    /// How much work goes into a smaller body.
    pub level: Level,
}

/// The media types of texts, which are much smaller when compressed.
const TEXTS: [&str; 14] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/xml",
    "application/javascript",
    "application/ecmascript",
    "application/x-ndjson",
    "application/graphql",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "image/bmp",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            encodings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            media_types: TEXTS.map(str::to_owned).to_vec(),
            minimum_size: Size::kib(1),
            level: Level::Balanced,
        }
    }
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        if self.encodings.is_empty() {
            faults.add(place.key("encodings"), "no encoding is offered", "write for example `[br, gzip]`");
        }
        for (at, coding) in self.encodings.iter().enumerate() {
            if self.encodings.iter().take(at).any(|before| before == coding) {
                faults.add(place.key("encodings").index(at), "it is in the list already", "remove it");
            }
        }
        if self.media_types.is_empty() {
            faults.add(place.key("media_types"), "nothing is compressed", "write for example `[text/*]`");
        }
        let mut patterns = Vec::with_capacity(self.media_types.len());
        for (at, text) in self.media_types.iter().enumerate() {
            match Pattern::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => {
                    let problem = format!("`{text}` is not a media type");
                    let hint = "write `text/html`, `text/*` or `*+json`, without parameters";
                    faults.add(place.key("media_types").index(at), problem, hint);
                }
            }
        }
        let (codings, minimum, level) = (self.encodings.clone(), self.minimum_size.0, self.level);
        Some(Arc::new(Compress { codings, patterns, minimum, level }))
    }
}

/// The media types that are meant, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// This one.
    One(String),
    /// All that start so, with the slash.
    Type(String),
    /// All with this structured syntax suffix, with the plus.
    Suffix(String),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let is_token = |text: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
            !text.is_empty() && text.bytes().all(is_allowed)
        };
        if let Some(suffix) = text.strip_prefix("*+") {
            return is_token(suffix).then(|| Self::Suffix(format!("+{suffix}")));
        }
        let (kind, subtype) = text.split_once('/')?;
        match subtype {
            _ if !is_token(kind) => None,
            "*" => Some(Self::Type(format!("{kind}/"))),
            _ => is_token(subtype).then_some(Self::One(text)),
        }
    }

    fn matches(&self, media_type: &str) -> bool {
        match self {
            Self::One(name) => media_type.eq_ignore_ascii_case(name),
            Self::Type(start) => media_type.get(..start.len()).is_some_and(|given| given.eq_ignore_ascii_case(start)),
            Self::Suffix(end) => {
                let at = media_type.len().checked_sub(end.len());
                at.and_then(|at| media_type.get(at..)).is_some_and(|given| given.eq_ignore_ascii_case(end))
            }
        }
    }
}

#[derive(Debug)]
struct Compress {
    codings: Vec<Coding>,
    patterns: Vec<Pattern>,
    minimum: u64,
    level: Level,
}

impl Compress {
    /// Whether a client that accepts a coding gets the response with it.
    fn is_compressible(&self, response: &Response<'_>) -> bool {
        let headers = &*response.headers;
        let encoded = headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity");
        let short = response.content_length().is_some_and(|length| length < self.minimum);
        if encoded || short || !response.has_whole_body() {
            return false;
        }
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        self.patterns.iter().any(|pattern| pattern.matches(media_type)) && !forbids_transform(headers)
    }

    fn choose(&self, accepted: &HeaderMap) -> Option<Coding> {
        let values = accepted.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
        accept_encoding::choose(values, &self.codings)
    }
}

impl Filter for Compress {
    fn response(&self, response: &mut Response<'_>) {
        if *response.status == http::StatusCode::NOT_MODIFIED {
            if has_only_weak_tag(response) && self.choose(response.accepted).is_some() {
                weaken(response.headers);
                vary(response.headers);
            }
            return;
        }
        if !self.is_compressible(response) {
            return;
        }
        vary(response.headers);
        let Some(coding) = self.choose(response.accepted) else { return };
        // A stream has no length; its client waits for each part.
        let flushes = response.content_length().is_none();
        let Ok(encoder) = Encoder::new(coding, self.level, flushes) else { return };
        response.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        weaken(response.headers);
        response.transform_body(Box::new(encoder));
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.codings.iter().map(|coding| coding.name()).collect();
        format!("{} from {} bytes, {} media types", names.join(", "), self.minimum, self.patterns.len())
    }
}

/// Whether Cache-Control has `no-transform` (RFC 9110 §7.7).
fn forbids_transform(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::as_bytes);
    let mut directives = values.flat_map(|value| value.split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Adds Accept-Encoding to Vary.
fn vary(headers: &mut HeaderMap) {
    let values = headers.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
    let mut names = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if !names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Makes a strong ETag weak: other bytes have it, too (RFC 9110 §8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    // A legal value stays legal.
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

/// Whether the condition of the client has the weakened form of the ETag of a 304, and not the ETag itself: it then has
/// the compressed body.
fn has_only_weak_tag(response: &Response<'_>) -> bool {
    let Some(tag) = response.headers.get(header::ETAG).map(HeaderValue::as_bytes) else { return false };
    let values = response.request.headers.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
    let (mut weak, mut strong) = (false, false);
    for given in values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        strong |= given == tag;
        weak |= given.strip_prefix(b"W/") == Some(tag);
    }
    weak && !strong
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
