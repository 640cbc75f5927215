//! The formats of error pages: their choice by Accept, and their variables.

use crate::base::fault::{Faults, Place, nearest};

/// The format of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// HTML.
    Html,
    /// JSON.
    Json,
    /// Text.
    Text,
}

impl Format {
    /// The media type, with the character encoding.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// How well a media range matches: 3 for the type itself, 1 for any type.
    fn matches(self, range: &[u8]) -> Option<u8> {
        let is = |known: &[u8]| range.eq_ignore_ascii_case(known);
        let exact = match self {
            Self::Html => is(b"text/html") || is(b"application/xhtml+xml"),
            Self::Json => is(b"application/json") || is(b"application/problem+json"),
            Self::Text => is(b"text/plain"),
        };
        let same_type = is(if self == Self::Json { b"application/*" } else { b"text/*" });
        exact.then_some(3).or(same_type.then_some(2)).or(is(b"*/*").then_some(1))
    }
}

/// The offered format that the client prefers (RFC 9110 §12.5.1), the first of equally preferred ones. An error has a body even if
/// the client accepts none of them: then the first one.
pub(super) fn choose<'a>(accepted: impl Iterator<Item = &'a [u8]>, offered: &[Format]) -> Option<Format> {
    let ranges: Vec<(&[u8], u16)> = accepted.flat_map(|value| value.split(|byte| *byte == b',')).map(range).collect();
    // Of equal weights, that of the more specific range counts: many clients add `*/*` to what they want.
    let rank = |format: Format| {
        let matching = ranges.iter().filter_map(|(range, weight)| Some((format.matches(range)?, *weight)));
        let best = matching.max_by_key(|(specific, _)| *specific).filter(|(_, weight)| *weight > 0);
        best.map_or((0, 0), |(specific, weight)| (weight, specific))
    };
    let mut best: Option<(Format, (u16, u8))> = None;
    for format in offered {
        let rank = rank(*format);
        if best.is_none_or(|(_, highest)| rank > highest) {
            best = Some((*format, rank));
        }
    }
    best.map(|(format, _)| format)
}

/// A media range without its parameters, and its weight in thousandths. An invalid weight counts as 0.
fn range(item: &[u8]) -> (&[u8], u16) {
    let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let weight = weight.map_or(Some(1000), super::accept_encoding::thousandths).unwrap_or(0);
    (name, weight)
}

/// A page with variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Status,
    Cause,
    RequestId,
}

/// The variables. Nothing else of a request gets into a page.
const VARIABLES: [(&str, Part); 3] =
    [("status", Part::Status), ("cause", Part::Cause), ("request.id", Part::RequestId)];

impl Template {
    /// Reads `${status}`, `${cause}` and `${request.id}`; `$${` stands for the text `${`.
    pub(super) fn check(text: &str, place: &Place, faults: &mut Faults) -> Option<Self> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                plain.push_str(before);
                plain.push_str("${");
                rest = after;
                continue;
            }
            plain.push_str(before);
            let name = after.split_once('}').map_or("", |(name, _)| name);
            let Some((_, part)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                let name: String = name.chars().take(40).collect();
                let near = nearest(&name, VARIABLES.iter().map(|(known, _)| *known));
                let hint = near.map_or_else(
                    || "write ${status}, ${cause} or ${request.id}; or $${ for the text ${".to_owned(),
                    |near| format!("did you mean ${{{near}}}? Write $${{ for the text ${{"),
                );
                faults.add(place.clone(), format!("the page has no variable `{name}`"), hint);
                return None;
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(part.clone());
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Some(Self(parts))
    }

    /// The page with the values of one response, escaped for its format.
    pub(super) fn render(&self, format: Format, status: u16, cause: &str, request_id: &str) -> String {
        let mut page = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => page.push_str(text),
                Part::Status => page.push_str(itoa::Buffer::new().format(status)),
                Part::Cause => escape(cause, format, &mut page),
                Part::RequestId => escape(request_id, format, &mut page),
            }
        }
        page
    }
}

/// Adds a value so that it cannot be more than text in its format.
fn escape(value: &str, format: Format, page: &mut String) {
    for c in value.chars() {
        match (format, c) {
            (Format::Html, '&' | '<' | '>' | '"' | '\'' | '`' | '=') | (Format::Html, '\0'..='\x1f') => {
                page.push_str(&format!("&#{};", u32::from(c)));
            }
            (Format::Json, '"' | '\\' | '<' | '\0'..='\x1f') => page.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{Html, Json, Text};
    use super::*;

    #[test]
    fn format_is_chosen_by_accept() {
        for (accept, chosen) in [
            ("", Html),
            ("*/*", Html),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Html),
            ("application/json", Json),
            ("application/json, text/plain, */*", Json),
            ("text/plain", Text),
            ("text/plain;q=0.5, application/*", Json),
            ("text/*, text/html;q=0.1", Text),
            ("text/html;q=0, */*", Json),
            ("TEXT/PLAIN; charset=utf-8; q=0.9, application/problem+json;q=0.8", Text),
            ("text/plain;q=0", Html),
            ("image/png", Html),
            ("application/json;q=9, text/plain;q=x, text/html;q=nan", Html),
            (",;q=,;;", Html),
        ] {
            assert_eq!(choose([accept.as_bytes()].into_iter(), &[Html, Json, Text]), Some(chosen), "{accept:?}");
        }
        assert_eq!(choose([&b"text/html"[..]].into_iter(), &[Json]), Some(Json), "the only one");
        assert_eq!(choose([].into_iter(), &[]), None);
    }

    fn template(text: &str) -> Result<Template, String> {
        let mut faults = Faults::default();
        let template = Template::check(text, &Place::root(), &mut faults);
        template.ok_or_else(|| faults.into_vec().remove(0).hint)
    }

    #[test]
    fn variables_are_replaced_and_other_dollars_stay() {
        let page = template("$1 ${status}${cause} $${status} {${request.id}} $").unwrap();
        assert_eq!(page.render(Text, 502, "connect_failed", "id"), "$1 502connect_failed ${status} {id} $");
        for text in ["${statsu}", "${", "a ${unclosed", "${}", "${client.ip}"] {
            assert!(template(text).is_err(), "{text}");
        }
        assert_eq!(template("${statsu}").unwrap_err(), "did you mean ${status}? Write $${ for the text ${");
    }

    #[test]
    fn values_cannot_leave_their_place_in_html_or_json() {
        let page = template("${request.id}").unwrap();
        let evil = "</script>\"'&\\\n";
        assert_eq!(page.render(Html, 404, "", evil), "&#60;/script&#62;&#34;&#39;&#38;\\&#10;");
        let json = page.render(Json, 404, "", evil);
        assert_eq!(json, "\\u003c/script>\\u0022'&\\u005c\\u000a");
        assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap(), evil);
    }
}
