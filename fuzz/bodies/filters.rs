//! Properties of filters: what values of clients can do to header fields, to rewritten paths, and to the choice of a coding.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode};
use l7lb::base::fault::{Faults, Place};
use l7lb::config::load;
use l7lb::decision::example::ExampleRequest;
use l7lb::decision::snapshot::Snapshot;
use l7lb::filter::accept_encoding::{Coding, choose};
use l7lb::filter::body::BodyFilters;
use l7lb::filter::response::Source;
use l7lb::filter::variables::{Scope, Template, Value, Values};
use l7lb::filter::{Changes, Facts, Request, Response};
use l7lb::http::target;
use pingora_http::RequestHeader;

/// A text with variables is rendered to a header value without CR, LF and NUL, whatever the values are.
///
/// The lines of the input are: the text, the path and query, the host, the server name, the request id. The rest is the value
/// of a header field and of a cookie.
pub fn variables(data: &[u8]) {
    let mut parts = data.splitn(6, |byte| *byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let Ok(text) = str::from_utf8(line()) else { return };
    let (target, host, name, id) = (line(), text_of(line()), text_of(line()), text_of(line()));
    let value = line();
    let built = RequestHeader::build("GET", target, None).or_else(|_| RequestHeader::build("GET", b"/", None));
    let mut header = built.unwrap();
    for field in ["x-value", "cookie"] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            header.insert_header(field, value).unwrap();
        }
    }
    let facts = facts((&host, &name), &id);
    let (mut changes, mut status, mut headers) = (Changes::default(), StatusCode::OK, header.headers.clone());
    let request = Request { header: &header, facts: &facts, changes: &mut changes };
    check(text, Scope::Request, &Values::of_request(&request));
    let response = Response {
        status: &mut status,
        headers: &mut headers,
        body: &mut BodyFilters::default(),
        request: &header,
        accepted: &HeaderMap::new(),
        path_and_query: header.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        facts: &facts,
        source: Source::Backend,
        upstream: &host,
        pool: &name,
    };
    check(text, Scope::Response, &Values::of_response(&response));
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn facts<'a>((host, server_name): (&'a str, &'a str), request_id: &'a str) -> Facts<'a> {
    Facts {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        request_id,
        scheme: "https",
        host,
        route: host,
        server_name: Some(server_name),
        client_certificate: None,
        is_from_trusted_proxy: false,
        is_example: true,
    }
}

fn check(text: &str, scope: Scope, values: &Values<'_>) {
    let mut faults = Faults::default();
    let template = Template::check(text, scope, &Place::root(), &mut faults);
    assert_eq!(template.is_some(), faults.is_empty());
    if let Some(template) = &template {
        assert_eq!(template.to_string(), text);
        let rendered = template.render(values);
        let mut rest = rendered.as_slice();
        for literal in template.literals() {
            let at = rest.windows(literal.len().max(1)).position(|window| window == literal.as_bytes());
            let at = at.unwrap_or_else(|| panic!("{literal:?} is not in {rendered:?}"));
            rest = &rest[at + literal.len()..];
        }
        if let Some(literal) = template.literal() {
            assert_eq!(rendered, literal.as_bytes());
            assert_eq!(literal, text.replace("$${", "${"));
        }
    }
    if let Some(value) = Value::check(text, scope, &Place::root(), &mut faults) {
        assert!(template.is_some());
        let rendered = value.render(values);
        let bytes = rendered.as_bytes();
        assert!(!bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{rendered:?}");
    }
}

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

/// The coding for an Accept-Encoding is one that the client accepts, and depends neither on lines, case nor spaces.
pub fn accept_encoding(data: &[u8]) {
    let chosen = choose([data], &CODINGS);
    assert_eq!(chosen, choose(data.split(|byte| *byte == b','), &CODINGS), "lines are one list");
    assert_eq!(chosen, choose([data.to_ascii_uppercase().as_slice()], &CODINGS));
    let spaced: Vec<&[u8]> = data.split(|byte| *byte == b',').collect();
    assert_eq!(chosen, choose([spaced.join(&b" \t, "[..]).as_slice()], &CODINGS));
    for refused in [", zstd;q=0, br;q=0, gzip;q=0, *;q=0", ",*;q=0.0,gzip;q=0,br;q=0.000,zstd;q=0."] {
        assert_eq!(choose([data, refused.as_bytes()], &CODINGS), None);
        assert_eq!(choose([refused.as_bytes(), data], &CODINGS), None);
    }
    assert_eq!(choose([data], &[]), None);
    let Some(chosen) = chosen else { return };
    assert_eq!(choose([data], &[chosen]), Some(chosen), "other codings do not matter");
    let text = data.to_ascii_lowercase();
    let names = |name: &str| text.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(names(chosen.name()) || names("*"), "the client names it");
}

/// The routes of [`rewritten_path`].
const REWRITES: &str = r#"
listeners: [{ address: 127.0.0.1:80 }]
pools: { p: { backends: [{ address: 127.0.0.1:1 }] } }
routes:
  - { path: /strip, pool: p, filters: [{ rewrite: { strip_prefix: /strip } }] }
  - { path: /add, pool: p, filters: [{ rewrite: { strip_prefix: /add, add_prefix: /v1 } }] }
  - { path: /whole, pool: p, filters: [{ rewrite: { path: "/t/${request.header.x-v}${request.path}" } }] }
  - { path: /values, pool: p, filters: [{ rewrite: { path: "/t/${request.query.q}/${request.cookie.c}/x" } }] }
  - { path: /regex, pool: p, filters: [{ rewrite: { regex: { match: "^/regex/(.*?)(x|$)", replace: "/t/$1/$2" } } }] }
  - { path: /query, pool: p, filters: [{ rewrite: { query: { remove: a, set: { v: "${request.header.x-v}" } } } }] }
  - { path: /host, pool: p, filters: [{ rewrite: { host: "${request.header.x-v}.inner" } }] }
"#;

fn rewrites() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let checked = load::parse(REWRITES, "fuzz.yaml", &|_| None).unwrap_or_else(|faults| panic!("{faults:?}"));
        Snapshot::build(&checked, None, Instant::now()).unwrap()
    })
}

/// A rewritten request has a valid target that stays below its folder, and a valid Host, or it gets 400.
///
/// The first line of the input is the target, the second one a header field, the rest a cookie.
pub fn rewritten_path(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(example) = ExampleRequest::parse(&format!("http://a.test{}", line())) else { return };
    let Ok(example) = example.with_header("x-v", line()) else { return };
    let Ok(example) = example.with_header("cookie", line()) else { return };
    let outcome = example.outcome(rewrites(), &[]);
    if let Some(rejected) = outcome.decision.rejection {
        let status = rejected.rejection.status();
        assert!(matches!(status, 400 | 404 | 414 | 431), "{status}");
        assert!(outcome.forwarded().is_none());
        return;
    }
    let forwarded = outcome.forwarded().expect("every route has a pool");
    let (before, path) = (outcome.request.as_ref().unwrap().uri.path(), forwarded.uri.path());
    let sent = forwarded.uri.path_and_query().unwrap().as_str();
    assert!(sent.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{sent:?}");
    assert!(path.starts_with('/') && !path.starts_with("//"), "{path:?}");
    assert_eq!(target::normalise(path).unwrap().path, path);
    assert!(!path.contains("%00"), "{path:?}");
    let host = forwarded.headers.get("host").unwrap().to_str().unwrap();
    assert!(!host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '\\', ',']), "{host:?}");
    for value in forwarded.headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{value:?}");
    }
    if path != before {
        let decoded = path.replace("%2F", "/").replace("%5C", "/").replace("%2E", ".");
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        assert!(!decoded.split('/').any(is_dots), "{path:?} from {before:?}");
    }
    let folder = match before.split('/').nth(1).unwrap() {
        "whole" | "values" => "/t/",
        "add" => "/v1/",
        _ => "/",
    };
    assert!(path.starts_with(folder), "{path:?} from {before:?}");
}
