//! References of a response (Location, Content-Location) to targets of the same origin (RFC 3986 §5.2, RFC 9110 §4.3.1).

use std::borrow::Cow;

use crate::cache::target::{Target, normal_host};
use crate::http::target;

/// The target that a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The normalised path, as l7lb forwards it.
    pub path: String,
    /// The query, as l7lb forwards it.
    pub query: Option<String>,
}

/// Resolves an absolute or relative reference against the target of a request. `None` if it has another origin (scheme,
/// host, port) or l7lb would reject its path.
#[must_use]
pub fn resolve(base: &Target<'_>, reference: &str) -> Option<Resolved> {
    let reference = reference.trim_matches([' ', '\t']);
    let reference = reference.split_once('#').map_or(reference, |(reference, _fragment)| reference);
    let below_scheme = same_scheme(base, reference)?;
    let is_absolute = below_scheme.len() != reference.len();
    let Some(below) = below_scheme.strip_prefix("//") else {
        // `http:path` is not a reference to HTTP's origin (RFC 9110 §4.2.1).
        return if is_absolute { None } else { relative(base, below_scheme) };
    };
    let end = below.find(['/', '?']).unwrap_or(below.len());
    let (authority, rest) = below.split_at_checked(end)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_userinfo, host)| host);
    if host.is_empty() || normal_host(host, base.scheme) != normal_host(base.host, base.scheme) {
        return None;
    }
    let (path, query) = split_query(rest);
    finish(if path.is_empty() { "/" } else { path }, query)
}

/// The reference without its scheme, if that is the one of the request or missing.
fn same_scheme<'a>(base: &Target<'_>, reference: &'a str) -> Option<&'a str> {
    let Some((scheme, rest)) = reference.split_once(':') else { return Some(reference) };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Some(reference);
    }
    scheme.eq_ignore_ascii_case(base.scheme).then_some(rest)
}

fn relative(base: &Target<'_>, reference: &str) -> Option<Resolved> {
    let (path, query) = split_query(reference);
    if path.is_empty() {
        return finish(base.path, query.or(base.query));
    }
    if path.starts_with('/') {
        return finish(path, query);
    }
    let (folder, _) = base.path.rsplit_once('/')?;
    finish(&format!("{folder}/{path}"), query)
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)))
}

fn finish(path: &str, query: Option<&str>) -> Option<Resolved> {
    let path = without_dot_segments(path);
    let path = target::normalise(&path).ok()?.path.into_owned();
    Some(Resolved { path, query: query.map(|query| target::encode_query(query).into_owned()) })
}

/// Removes dot segments; those that would leave the root too, unlike in the target of a request (RFC 3986 §5.2.4).
fn without_dot_segments(path: &str) -> Cow<'_, str> {
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    let below_root = path.strip_prefix('/').unwrap_or(path);
    let mut last_is_dots = false;
    for segment in below_root.split('/') {
        last_is_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let end = if last_is_dots && !kept.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", kept.join("/")))
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
