//! Maps the URLs in responses back to the paths that clients use: Location, and the Path of Set-Cookie.
//!
//! A backend that gets `/x` for `/app/x` names `/x` in its redirects and cookies. Browsers would send them to another
//! application.

use http::{HeaderValue, header};

use super::Response;
use super::rewrite_path::below;
use super::variables::without_port;

/// The change of a prefix, seen from the response.
#[derive(Debug)]
pub(super) struct Back {
    /// The prefix that was removed from the requested path; empty if none is.
    removed: String,
    /// The prefix that was added; empty if none is.
    added: String,
}

impl Back {
    pub(super) fn new(removed: Option<String>, added: Option<String>) -> Self {
        Self { removed: removed.unwrap_or_default(), added: added.unwrap_or_default() }
    }

    /// Changes the response of a backend, which got `host` if that differs from the requested one.
    pub(super) fn apply(&self, response: &mut Response<'_>, host: Option<&str>) {
        let path = response.path_and_query.split(['?', '#']).next().unwrap_or_default();
        if below(path, &self.removed).is_none() {
            return;
        }
        let location = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let hosts = (response.facts.scheme, response.facts.host, host);
        if let Some(location) = location.and_then(|location| self.location(location, hosts))
            && let Ok(value) = HeaderValue::try_from(location)
        {
            response.headers.insert(header::LOCATION, value);
        }
        let cookies = response.headers.get_all(header::SET_COOKIE).iter();
        let mapped = |cookie: &HeaderValue| HeaderValue::try_from(self.cookie(cookie.to_str().ok()?)?).ok();
        let changed: Vec<Option<HeaderValue>> = cookies.map(mapped).collect();
        if changed.iter().any(Option::is_some) {
            let old: Vec<HeaderValue> = response.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
            response.headers.remove(header::SET_COOKIE);
            for (old, new) in old.into_iter().zip(changed) {
                response.headers.append(header::SET_COOKIE, new.unwrap_or(old));
            }
        }
    }

    /// The path that clients use for a path of the backend; `None` if there is none.
    fn path(&self, path: &str) -> Option<String> {
        let rest = below(path, &self.added)?;
        let mapped = format!("{}{rest}", self.removed);
        Some(if mapped.is_empty() { "/".to_owned() } else { mapped })
    }

    /// The location for the client; `None` if it stays. `hosts`: the requested scheme and host, and the Host that the
    /// backend got if that differs.
    fn location(&self, location: &str, (scheme, requested, sent): (&str, &str, Option<&str>)) -> Option<String> {
        let after_scheme = location.split_once("://").filter(|(scheme, _)| is_http(scheme));
        let after_scheme = after_scheme.map(|(_, rest)| rest).or_else(|| location.strip_prefix("//"));
        let Some(rest) = after_scheme else {
            return self.target(location);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let same = |host: &str| without_port(host).eq_ignore_ascii_case(without_port(authority));
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        match sent {
            Some(sent) if same(sent) && !same(requested) => {
                Some(format!("{scheme}://{requested}{}", self.target(&target)?))
            }
            _ if same(requested) => {
                let before = location.strip_suffix(rest).unwrap_or_default();
                Some(format!("{before}{authority}{}", self.target(&target)?))
            }
            _ => None,
        }
    }

    /// A mapped path with its query and fragment.
    fn target(&self, target: &str) -> Option<String> {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let (path, rest) = target.split_at_checked(end)?;
        // Others are relative to the URL of the client.
        path.starts_with('/').then(|| self.path(path)).flatten().map(|path| format!("{path}{rest}"))
    }

    /// A cookie with its Path for the client; `None` if it stays.
    fn cookie(&self, cookie: &str) -> Option<String> {
        // Browsers accept `__Host-` cookies only with the path `/`.
        if cookie.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("__host-")) {
            return None;
        }
        let mut has_changed = false;
        let mapped = cookie.split(';').enumerate().map(|(position, part)| {
            let new = part.split_once('=').filter(|_| position > 0).and_then(|(name, path)| {
                let path = name.trim().eq_ignore_ascii_case("path").then(|| self.cookie_path(path.trim()))??;
                Some(format!("{name}={path}"))
            });
            has_changed |= new.as_ref().is_some_and(|new| new != part);
            new.unwrap_or_else(|| part.to_owned())
        });
        let mapped = mapped.collect::<Vec<_>>().join(";");
        has_changed.then_some(mapped)
    }

    /// The path of a cookie for the client. One that contains all paths of the prefix becomes the removed prefix.
    fn cookie_path(&self, path: &str) -> Option<String> {
        if !path.starts_with('/') {
            return None;
        }
        let contains_all = path == "/" || below(&self.added, path.trim_end_matches('/')).is_some() && path.len() > 1;
        if contains_all {
            return Some(if self.removed.is_empty() { "/".to_owned() } else { self.removed.clone() });
        }
        self.path(path)
    }
}

fn is_http(scheme: &str) -> bool {
    ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(removed: &str, added: &str) -> Back {
        Back { removed: removed.to_owned(), added: added.to_owned() }
    }

    #[test]
    fn location_of_the_backend_is_mapped_and_others_stay() {
        for (removed, added, location, wanted) in [
            ("/app", "", "/x?y#z", Some("/app/x?y#z")),
            ("/app", "", "/", Some("/app/")),
            ("/app", "", "/app/x", Some("/app/app/x")),
            ("/app", "/v1", "/v1/x", Some("/app/x")),
            ("/app", "/v1", "/v1", Some("/app")),
            ("/app", "/v1", "/v10/x", None),
            ("", "/v1", "/v1", Some("/")),
            ("", "/v1", "/v1?a", Some("/?a")),
            ("/app", "", "x/y", None),
            ("/app", "", "?page=2", None),
            ("/app", "", "https://a.test/x", Some("https://a.test/app/x")),
            ("/app", "", "HTTP://A.test:80", Some("HTTP://A.test:80/app/")),
            ("/app", "", "//a.test/x", Some("//a.test/app/x")),
            ("/app", "", "http://inner:81/x", Some("https://a.test:8443/app/x")),
            ("/app", "", "//inner/x", Some("https://a.test:8443/app/x")),
            ("/app", "", "https://other.test/x", None),
            ("/app", "", "mailto:a@b", None),
            ("/app", "", "", None),
        ] {
            let mapped = back(removed, added).location(location, ("https", "a.test:8443", Some("inner:81")));
            assert_eq!(mapped.as_deref(), wanted, "{removed} {added} {location}");
        }
    }

    #[test]
    fn path_of_a_cookie_is_mapped() {
        for (removed, added, cookie, wanted) in [
            ("/app", "", "a=b; Path=/; Secure", Some("a=b; Path=/app; Secure")),
            ("/app", "", "a=b;path=/x", Some("a=b;path=/app/x")),
            ("/app", "/v1/w", "a=b; PATH = /v1", Some("a=b; PATH =/app")),
            ("/app", "/v1", "a=b; Path=/v1/", Some("a=b; Path=/app")),
            ("/app", "/v1", "a=b; Path=/v2", None),
            ("", "/v1", "a=b; Path=/v1/x", Some("a=b; Path=/x")),
            ("/app", "", "a=b", None),
            ("/app", "", "path=/x; Path=relative", None),
            ("/app", "", "__Host-a=b; Path=/; Secure", None),
        ] {
            assert_eq!(back(removed, added).cookie(cookie).as_deref(), wanted, "{removed} {added} {cookie}");
        }
    }
}
