//! Requests of web pages. A page can make a browser send requests to any address, with the client certificate of its
//! user, or by a name of its own that it directs to a private address (DNS rebinding).

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;

use super::super::problem::{Cause, Problem};

/// What a browser sends about the site of the page that caused the request.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Checks the host of a request. `is_known` decides about names in lower case, besides `localhost`.
///
/// # Errors
/// The problem, if a host is missing, invalid or not known.
pub fn check_host(request: &Parts, is_known: impl Fn(&str) -> bool) -> Result<(), Problem> {
    let mut hosts = request.uri.authority().map(Authority::as_str).into_iter().collect::<Vec<_>>();
    for value in request.headers.get_all(HOST) {
        hosts.push(value.to_str().unwrap_or_default());
    }
    if hosts.is_empty() {
        return Err(Problem::new(Cause::UnknownHost, "the request has no host"));
    }
    match hosts.iter().find(|host| !is_allowed(host, &is_known)) {
        None => Ok(()),
        Some(host) => Err(Problem::new(
            Cause::UnknownHost,
            format!("`{host}` is neither an IP address, `localhost`, a name of the certificate, nor in `admin.hosts`"),
        )),
    }
}

fn is_allowed(host: &str, is_known: impl Fn(&str) -> bool) -> bool {
    let Some(name) = name(host) else { return false };
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address || name == "localhost" || is_known(&name)
}

/// The name in a host, in lower case, without port and final dot.
fn name(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    if host.contains('@') {
        return None;
    }
    let name = authority.host();
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Some(name).filter(|name| !name.is_empty())
}

/// Rejects requests that a page of another site has caused. The host has been checked.
///
/// # Errors
/// The problem.
pub fn check_origin(request: &Parts, is_tls: bool) -> Result<(), Problem> {
    let scheme = if is_tls { "https" } else { "http" };
    let port = if is_tls { ":443" } else { ":80" };
    let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    let own = request.uri.authority().map(Authority::as_str);
    let own = own.or_else(|| request.headers.get(HOST)?.to_str().ok()).map(plain);
    for origin in request.headers.get_all(ORIGIN) {
        let host = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme)?.strip_prefix("://"));
        if host.is_none() || host.map(plain) != own {
            return Err(Problem::new(Cause::CrossOrigin, "the request comes from a page of another origin"));
        }
    }
    let sites = request.headers.get_all(SEC_FETCH_SITE).iter();
    if sites.into_iter().any(|site| site != "same-origin" && site != "none") {
        return Err(Problem::new(Cause::CrossOrigin, "the request comes from a page of another site"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn host_is_an_address_localhost_or_a_known_name() {
        let is_known = |name: &str| name == "lb.example.com";
        let check = |headers: &[(&str, &str)]| check_host(&request("/", headers), is_known).is_ok();
        for host in ["127.0.0.1", "127.0.0.1:9443", "[::1]:9443", "LOCALHOST", "localhost.:1", "Lb.example.com:9443"] {
            assert!(check(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "a@127.0.0.1", "", "::1", "a b"]
        {
            assert!(!check(&[("host", host)]), "{host}");
        }
        assert!(!check(&[]), "no host");
        assert!(!check(&[("host", "localhost"), ("host", "evil.example")]), "two hosts");
        let absolute = |uri: &str, host: &str| check_host(&request(uri, &[("host", host)]), is_known).is_ok();
        assert!(absolute("http://localhost/", "localhost"));
        assert!(!absolute("http://evil.example/", "localhost") && !absolute("http://localhost/", "evil.example"));
    }

    #[test]
    fn origin_is_that_of_the_request() {
        let check = |tls: bool, headers: &[(&str, &str)]| check_origin(&request("/", headers), tls).is_ok();
        assert!(check(false, &[("host", "localhost:80")]), "no origin: not a web page");
        for (tls, host, origin) in [
            (false, "localhost:9443", "http://localhost:9443"),
            (true, "localhost:9443", "https://LOCALHOST:9443"),
            (true, "localhost", "https://localhost"),
            (true, "localhost:443", "https://localhost"),
            (false, "localhost", "http://localhost:80"),
        ] {
            assert!(check(tls, &[("host", host), ("origin", origin)]), "{host} {origin}");
        }
        for (tls, host, origin) in [
            (true, "localhost:9443", "http://localhost:9443"),
            (false, "localhost:9443", "http://localhost:9444"),
            (false, "localhost:9443", "http://localhost"),
            (false, "localhost:9443", "http://evil.example"),
            (false, "localhost:9443", "null"),
            (false, "localhost:9443", ""),
        ] {
            assert!(!check(tls, &[("host", host), ("origin", origin)]), "{host} {origin}");
        }
        for (site, expected) in [("same-origin", true), ("none", true), ("cross-site", false), ("same-site", false)] {
            assert_eq!(check(true, &[("host", "localhost"), ("sec-fetch-site", site)]), expected, "{site}");
        }
    }
}
