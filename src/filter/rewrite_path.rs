//! Rewritten paths: prefixes, regular expressions, and what a result must be.
//!
//! A result is normalised like the path of a request ([`crate::http::target`]). Beyond that, values of clients are not
//! trusted: a dot segment, also one that a backend sees only after decoding `%2F` or `%5C`, rejects the request instead of
//! leaving the folder that the configuration names. The path of a request cannot have one, because it is normalised.

use std::fmt;

use regex::{Captures, Regex};

use super::variables::{Scope, Template};
use crate::base::fault::{Faults, Place};
use crate::base::regular_expression;
use crate::http::rejection::DetailedRejection;
use crate::http::target;
use crate::routing::PathPattern;

/// Checks a prefix and returns it without a slash at its end; `None` with a fault.
pub(super) fn check_prefix(text: &str, place: &Place, faults: &mut Faults) -> Option<String> {
    if let Err(e) = PathPattern::new(text, false) {
        faults.add(place.clone(), e.to_string(), "write for example /api");
        return None;
    }
    match target::normalise(text) {
        Ok(normalised) if normalised.path == text && text != "/" => Some(text.trim_end_matches('/').to_owned()),
        Ok(_) if text == "/" => {
            faults.add(place.clone(), "the prefix `/` changes nothing", "write for example /api");
            None
        }
        Ok(normalised) => {
            let problem = format!("the path `{text}` is not normalised");
            faults.add(place.clone(), problem, format!("write {}", normalised.path));
            None
        }
        Err(rejection) => {
            faults.add(place.clone(), format!("`{text}` has {}", rejection.detail), "write it percent-encoded");
            None
        }
    }
}

/// Checks a path with variables.
pub(super) fn check_template(text: &str, place: &Place, faults: &mut Faults) -> Option<Template> {
    let template = Template::check(text, Scope::Request, place, faults)?;
    let first = template.literals().next().unwrap_or_default();
    let starts_with_path = ["${request.path}", "/"].iter().any(|start| text.starts_with(start));
    if !starts_with_path {
        faults.add(place.clone(), format!("`{text}` is not a path"), "start it with a slash");
    } else if template.literals().any(|literal| literal.contains(['?', '#'])) || text.contains("${request.uri}") {
        faults.add(
            place.clone(),
            "a path has no query",
            "use `query: { set: { NAME: VALUE } }`, and `${request.path}`",
        );
    } else if template.literal().is_some() && normalise(&encode(first.as_bytes()), "").is_err() {
        let problem = format!("`{text}` never is a valid path");
        faults.add(place.clone(), problem, "remove dot segments, controls and incomplete percent-encodings");
    } else {
        return Some(template);
    }
    None
}

/// The rest of a path below a prefix of whole segments: empty, or with a slash at its start.
pub(super) fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path in which each byte is percent-encoded that a path must not have. Escapes are kept.
pub(super) fn encode(path: &[u8]) -> String {
    path.split(|byte| *byte == b'?').map(target::encode).collect::<Vec<_>>().join("%3F")
}

/// The normal form of a rewritten path, which starts with one slash. `requested` is the path of the client.
///
/// # Errors
/// If it is invalid, has a dot segment, or has `%00` although the requested one has not.
pub(super) fn normalise(path: &str, requested: &str) -> Result<String, DetailedRejection> {
    // Some servers read a path that starts with several slashes as one of another host.
    let path = format!("/{}", path.trim_start_matches('/'));
    if has_dot_segment(&path) {
        return Err(DetailedRejection::bad_request("the rewritten path has a dot segment"));
    }
    let invalid = || DetailedRejection::bad_request("the rewritten path is invalid");
    let normalised = target::normalise(&path).map_err(|_| invalid())?;
    if normalised.encoded.nul && !requested.contains("%00") {
        return Err(DetailedRejection::bad_request("the rewritten path has %00"));
    }
    Ok(normalised.path.into_owned())
}

/// Whether a segment is `.` or `..` for a server that decodes `%2E`, `%2F` and `%5C`, and ignores what follows a semicolon.
fn has_dot_segment(path: &str) -> bool {
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if !path.contains('%') {
        return path.split('/').any(is_dots);
    }
    let decoded = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    decoded.split('/').any(is_dots)
}

/// A regular expression with its replacement.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    replacement: Vec<Part>,
    text: String,
}

/// A part of a replacement.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Pattern {
    /// Compiles a regular expression and parses its replacement.
    pub(super) fn check((pattern, replace): (&str, &str), place: &Place, faults: &mut Faults) -> Option<Self> {
        let regex = regular_expression::compile(pattern, &place.key("match"), faults);
        if replace.contains(['?', '#']) {
            let hint = "use `query: { set: { NAME: VALUE } }`";
            faults.add(place.key("replace"), "a path has no query", hint);
            return None;
        }
        let regex = regex?;
        match parts(replace, &regex) {
            Ok(replacement) => Some(Self { text: format!("{pattern} to {replace}"), regex, replacement }),
            Err(problem) => {
                faults.add(place.key("replace"), problem, "write $1 for the first group, and $$ for a dollar sign");
                None
            }
        }
    }

    /// The path with its first match replaced; `None` if it does not match.
    pub(super) fn replace(&self, path: &str) -> Option<String> {
        let captures: Captures<'_> = self.regex.captures(path)?;
        let matched = captures.get(0)?;
        let mut replaced = path.get(..matched.start())?.to_owned();
        for part in &self.replacement {
            match part {
                Part::Text(text) => replaced.push_str(text),
                Part::Group(index) => replaced.push_str(captures.get(*index).map_or("", |group| group.as_str())),
            }
        }
        replaced.push_str(path.get(matched.end()..)?);
        Some(replaced)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The parts of a replacement.
fn parts(replace: &str, regex: &Regex) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut pieces = replace.split('$');
    let mut literal = pieces.next().unwrap_or_default().to_owned();
    while let Some(piece) = pieces.next() {
        if piece.is_empty() {
            // `$$`; the text after it follows.
            literal.push('$');
            literal.push_str(pieces.next().ok_or("the replacement ends with a single $")?);
            continue;
        }
        let (name, rest) = match piece.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or("the replacement has ${ without a closing brace")?,
            None => {
                let numbered = piece.starts_with(|c: char| c.is_ascii_digit());
                let belongs = |c: char| c.is_ascii_digit() || !numbered && (c.is_ascii_alphabetic() || c == '_');
                piece.split_at_checked(piece.find(|c| !belongs(c)).unwrap_or(piece.len())).unwrap_or((piece, ""))
            }
        };
        let group = match name.parse::<usize>() {
            Ok(index) => Some(index).filter(|index| *index < regex.captures_len()),
            Err(_) => regex.capture_names().position(|known| known == Some(name)),
        };
        let group = group.ok_or_else(|| format!("the regular expression has no group `{name}`"))?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        parts.push(Part::Group(group));
        rest.clone_into(&mut literal);
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}
