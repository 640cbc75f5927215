//! `rewrite`: changes the path, the query and the Host that backends get.
//!
//! The parts of the path apply in this order: `strip_prefix`, then `path` or `regex`, then `add_prefix`. The result is
//! checked and normalised as [`rewrite_path`](super::rewrite_path) describes, so no value of a client can leave the part
//! of the path that the configuration names, or break the request line.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::X_FORWARDED_PREFIX;
use super::config::{Configuration, Surroundings};
use super::rewrite_back::Back;
use super::rewrite_path::{self as path, Pattern};
use super::rewrite_query::{self as query, Query};
use super::variables::{Scope, Template, Values};
use super::{Filter, Request, Response, Step};
use crate::base::fault::{Faults, Place};
use crate::http::h1::check_authority;
use crate::http::rejection::DetailedRejection;

/// Configuration of the filter. Parts that are not given stay as requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A prefix of whole segments that is removed from the path; other paths stay. Backends get it in
    /// `X-Forwarded-Prefix`.
    pub strip_prefix: Option<String>,
    /// A prefix that is put in front of the path.
    pub add_prefix: Option<String>,
    /// The whole path, with variables.
    pub path: Option<String>,
    /// Replaces the part of the path that matches a regular expression; other paths stay.
    pub regex: Option<RegexConfig>,
    /// Changes to the query.
    pub query: query::Config,
    /// The Host, with variables.
    pub host: Option<String>,
    /// Whether Location and the Path of Set-Cookie in responses are mapped back to the path that clients use.
    pub map_back: bool,
}

/// A regular expression and what replaces its match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexConfig {
    /// The regular expression, in the syntax of the `regex` crate. It is not anchored.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What replaces the first match: text with `$1`, `$2` for groups, `$name` for named ones, and `$$` for `$`.
    pub replace: String,
}

impl Config {
    /// The first variable that depends on more than the requested URL.
    #[must_use]
    pub fn beyond_the_url(&self) -> Option<String> {
        let texts = self.path.iter().chain(&self.host).chain(self.query.set.values());
        let mut templates =
            texts.filter_map(|text| Template::check(text, Scope::Request, &Place::root(), &mut Faults::default()));
        templates.find_map(|template| template.beyond_the_url())
    }

    fn check_combination(&self, place: &Place, faults: &mut Faults) {
        if *self == (Self { map_back: self.map_back, ..Self::default() }) {
            faults.add(place.clone(), "nothing changes", "write for example `strip_prefix: /api`");
        }
        let others = [
            ("strip_prefix", self.strip_prefix.is_some()),
            ("add_prefix", self.add_prefix.is_some()),
            ("regex", self.regex.is_some()),
        ];
        if let Some((key, _)) = others.iter().find(|(_, given)| *given && self.path.is_some()) {
            faults.add(place.key(key), "`path` is the whole path", format!("remove `path` or `{key}`"));
        }
        let has_prefix = self.strip_prefix.is_some() || self.add_prefix.is_some();
        if self.map_back && (!has_prefix || self.regex.is_some()) {
            let problem = "only the change of a prefix can be mapped back";
            faults.add(place.key("map_back"), problem, "use `strip_prefix` or `add_prefix`, without `regex`");
        }
    }
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        self.check_combination(place, faults);
        let before = faults.len();
        let mut prefix = |key: &str, text: &Option<String>| {
            text.as_ref().and_then(|text| path::check_prefix(text, &place.key(key), faults))
        };
        let (strip, add) = (prefix("strip_prefix", &self.strip_prefix), prefix("add_prefix", &self.add_prefix));
        let new = match (&self.path, &self.regex) {
            (Some(text), _) => path::check_template(text, &place.key("path"), faults).map(NewPath::Whole),
            (None, Some(regex)) => {
                let texts = (regex.pattern.as_str(), regex.replace.as_str());
                Pattern::check(texts, &place.key("regex"), faults).map(NewPath::Pattern)
            }
            (None, None) => None,
        };
        let query = self.query.check(&place.key("query"), faults);
        let host = self.host.as_ref().and_then(|text| check_host(text, &place.key("host"), faults));
        let back = self.map_back.then(|| Back::new(strip.clone(), add.clone()));
        // Without one of its parts, the filter would do something else.
        (faults.len() == before).then(|| Arc::new(Rewrite { strip, new, add, query, host, back }) as Arc<dyn Filter>)
    }
}

fn check_host(text: &str, place: &Place, faults: &mut Faults) -> Option<Template> {
    let template = Template::check(text, Scope::Request, place, faults)?;
    if template.literal().is_some_and(|literal| authority(literal.as_bytes()).is_none()) {
        faults.add(place.clone(), format!("`{text}` is not a host"), "write for example example.com");
        return None;
    }
    Some(template)
}

/// A valid, non-empty Host.
fn authority(text: &[u8]) -> Option<Authority> {
    check_authority(text).ok()?;
    Authority::try_from(text).ok()
}

#[derive(Debug)]
enum NewPath {
    Whole(Template),
    Pattern(Pattern),
}

#[derive(Debug)]
struct Rewrite {
    strip: Option<String>,
    new: Option<NewPath>,
    add: Option<String>,
    query: Query,
    host: Option<Template>,
    back: Option<Back>,
}

/// A new path, and the prefix that was removed from it.
type Rewritten<'a> = (Option<String>, Option<&'a str>);

impl Rewrite {
    /// The new path, if it differs.
    fn path(&self, request: &Request<'_>) -> Result<Rewritten<'_>, DetailedRejection> {
        let before = request.path();
        if !before.starts_with('/') {
            // The target is `*`.
            return Ok((None, None));
        }
        let mut after = Cow::Borrowed(before);
        let mut removed = None;
        if let Some(prefix) = &self.strip
            && let Some(rest) = path::below(before, prefix)
        {
            after = if rest.is_empty() { Cow::Borrowed("/") } else { Cow::Borrowed(rest) };
            removed = Some(prefix.as_str());
        }
        match &self.new {
            Some(NewPath::Whole(template)) => {
                after = Cow::Owned(path::encode(&template.render(&Values::of_request(request))));
            }
            Some(NewPath::Pattern(pattern)) => {
                if let Some(replaced) = pattern.replace(&after) {
                    after = Cow::Owned(path::encode(replaced.as_bytes()));
                }
            }
            None => {}
        }
        if let Some(prefix) = &self.add {
            after = Cow::Owned(if after == "/" { prefix.clone() + "/" } else { format!("{prefix}{after}") });
        }
        if after == before {
            return Ok((None, removed));
        }
        path::normalise(&after, request.uri().path()).map(|path| (Some(path), removed))
    }

    /// The new path and query, if they differ.
    fn target(&self, request: &Request<'_>) -> Result<(Option<PathAndQuery>, Option<&str>), DetailedRejection> {
        let (path, removed) = self.path(request)?;
        let query = self.query.apply(request.query(), &Values::of_request(request));
        if path.is_none() && query.is_none() {
            return Ok((None, removed));
        }
        let mut target = path.unwrap_or_else(|| request.path().to_owned());
        let query = query.map_or(request.query().map(Cow::Borrowed), |query| query.map(Cow::Owned));
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        let target = PathAndQuery::try_from(target);
        let target = target.map_err(|_| DetailedRejection::bad_request("the rewritten target is invalid"))?;
        Ok((Some(target), removed))
    }

    fn apply(&self, request: &mut Request<'_>) -> Result<(), DetailedRejection> {
        let (target, removed) = self.target(request)?;
        let removed = removed.and_then(|prefix| joined_prefix(request, prefix));
        if let Some(host) = &self.host {
            let host = authority(&host.render(&Values::of_request(request)));
            let invalid = DetailedRejection::bad_request("the rewritten Host is invalid");
            request.changes.host = Some(host.ok_or(invalid)?);
        }
        if target.is_some() {
            request.changes.target = target;
        }
        if removed.is_some() {
            request.changes.removed_prefix = removed;
        }
        Ok(())
    }
}

/// The prefixes that trusted proxies and earlier filters have removed, followed by `prefix`.
fn joined_prefix(request: &Request<'_>, prefix: &str) -> Option<HeaderValue> {
    let of_proxy = || request.facts.is_from_trusted_proxy.then(|| request.fields().get(X_FORWARDED_PREFIX)).flatten();
    let before = request.changes.removed_prefix.as_ref().or_else(of_proxy).and_then(|value| value.to_str().ok());
    let before = before.unwrap_or_default().trim_end_matches('/');
    HeaderValue::try_from(format!("{before}{prefix}")).ok()
}

impl Filter for Rewrite {
    fn request(&self, request: &mut Request<'_>) -> Step {
        self.apply(request).map_or_else(Step::Reject, |()| Step::Continue)
    }

    fn response(&self, response: &mut Response<'_>) {
        if let Some(back) = self.back.as_ref().filter(|_| response.source.is_backend()) {
            let host = self.host.as_ref().map(|host| host.render(&Values::of_response(response)));
            back.apply(response, host.as_deref().and_then(|host| std::str::from_utf8(host).ok()));
        }
    }

    fn describe(&self) -> String {
        let (whole, pattern) = match &self.new {
            Some(NewPath::Whole(template)) => (Some(template), None),
            Some(NewPath::Pattern(pattern)) => (None, Some(pattern)),
            None => (None, None),
        };
        let parts = [
            self.strip.as_ref().map(|prefix| format!("removes {prefix}")),
            whole.map(|template| format!("path {template}")),
            pattern.map(ToString::to_string),
            self.add.as_ref().map(|prefix| format!("adds {prefix}")),
            self.query.words(),
            self.host.as_ref().map(|host| format!("host {host}")),
            self.back.as_ref().map(|_| "maps responses back".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
