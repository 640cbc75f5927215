//! Origins of pages, as the filter `cors` allows them: exact, with one wildcard label, or any.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use http::Uri;

/// One entry of `origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `*`.
    Any,
    /// `null`: of pages without an origin, such as files and sandboxed frames.
    Null,
    /// As browsers send it.
    Exact(String),
    /// Before and after one label.
    Label(String, String),
}

const EXAMPLE: &str = "write for example `https://app.example.com`";

impl FromStr for Origin {
    type Err = (String, String);

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = |problem: String, hint: &str| Err((problem, hint.to_owned()));
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let Some((scheme, host)) = text.split_once("://") else {
            return fault(format!("`{text}` has no scheme"), EXAMPLE);
        };
        if host.contains(['/', '?', '#', '@']) {
            return fault(format!("`{text}` is more than an origin"), "write only the scheme, the host and the port");
        }
        let default = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "",
        };
        if !default.is_empty() && host.ends_with(default) {
            return fault(format!("browsers leave out `{default}` in an origin"), "remove the port");
        }
        // Browsers send an origin in lower case.
        let lower = text.to_ascii_lowercase();
        let stars = host.matches('*').count();
        let plain = lower.replacen("://*.", "://label.", 1);
        if plain.contains('*') {
            let problem = format!("`{text}` has a wildcard that is not the first label");
            return fault(problem, "write `https://*.example.com` for one label, or `*` for any origin");
        }
        let is_uri = plain.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !is_uri || !plain.is_ascii() {
            return fault(format!("`{text}` is not an origin"), EXAMPLE);
        }
        match lower.split_once('*') {
            Some((before, after)) if stars == 1 => Ok(Self::Label(before.to_owned(), after.to_owned())),
            _ => Ok(Self::Exact(lower)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Label(before, after) => write!(f, "{before}*{after}"),
        }
    }
}

/// The allowed origins.
#[derive(Debug)]
pub(super) struct Origins {
    listed: Vec<Origin>,
    exact: HashSet<Vec<u8>, ahash::RandomState>,
    labels: Vec<(String, String)>,
    any: bool,
}

impl Origins {
    /// The origins of a list.
    pub(super) fn new(listed: Vec<Origin>) -> Self {
        let exact = listed.iter().filter_map(|origin| match origin {
            Origin::Exact(origin) => Some(origin.as_bytes().to_vec()),
            Origin::Null => Some(b"null".to_vec()),
            Origin::Any | Origin::Label(..) => None,
        });
        let exact = exact.collect();
        let labels = listed.iter().filter_map(|origin| match origin {
            Origin::Label(before, after) => Some((before.clone(), after.clone())),
            _ => None,
        });
        Self { exact, labels: labels.collect(), any: listed.contains(&Origin::Any), listed }
    }

    /// Whether each origin is allowed.
    pub(super) fn are_any(&self) -> bool {
        self.any
    }

    /// Whether the value of a field Origin is allowed.
    pub(super) fn contain(&self, origin: &[u8]) -> bool {
        let is_label = |(before, after): &(String, String)| {
            let label = origin.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(after.as_bytes()));
            // Neither empty, nor several labels, nor any other part of an origin.
            label.is_some_and(|label| {
                let is_in_label = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                !label.is_empty() && label.iter().all(is_in_label)
            })
        };
        self.any || self.exact.contains(origin) || self.labels.iter().any(is_label)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins: Vec<String> = self.listed.iter().map(Origin::to_string).collect();
        f.write_str(&origins.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_and_one_label_of_a_wildcard_are_allowed() {
        let listed = ["https://a.test", "http://b.test:8080", "https://*.c.test", "app://Local", "null"];
        let origins = Origins::new(listed.map(|text| text.parse().unwrap()).to_vec());
        for (origin, wanted) in [
            ("https://a.test", true),
            ("http://a.test", false),
            ("https://a.test:8443", false),
            ("https://a.test.evil", false),
            ("https://A.test", false),
            ("http://b.test:8080", true),
            ("http://b.test", false),
            ("https://x.c.test", true),
            ("https://c.test", false),
            ("https://.c.test", false),
            ("https://x.y.c.test", false),
            ("https://evil.test/.c.test", false),
            ("https://evil.test#.c.test", false),
            ("https://evilc.test", false),
            ("app://local", true),
            ("null", true),
            ("", false),
        ] {
            assert_eq!(origins.contain(origin.as_bytes()), wanted, "{origin}");
        }
    }

    #[test]
    fn invalid_origin_is_a_fault() {
        for (text, problem) in [
            ("a.test", "`a.test` has no scheme"),
            ("https://a.test/", "`https://a.test/` is more than an origin"),
            ("https://u@a.test", "`https://u@a.test` is more than an origin"),
            ("https://a.test:443", "browsers leave out `:443` in an origin"),
            ("http://a.test:80", "browsers leave out `:80` in an origin"),
            ("https://*", "`https://*` has a wildcard that is not the first label"),
            ("https://a.*.test", "`https://a.*.test` has a wildcard that is not the first label"),
            ("https://*.*.test", "`https://*.*.test` has a wildcard that is not the first label"),
            ("https://", "`https://` is not an origin"),
            ("https://a b", "`https://a b` is not an origin"),
            ("https://bücher.test", "`https://bücher.test` is not an origin"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap_err().0, problem);
        }
    }
}
