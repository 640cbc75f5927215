//! Tests of the filter `compress`.

use bytes::Bytes;
use http::StatusCode;
use pingora_http::RequestHeader;

use super::*;
use crate::filter::Facts;
use crate::filter::body::BodyFilters;
use crate::filter::encoder::tests::decode;

fn filter(config: &Config) -> Arc<dyn Filter> {
    let mut faults = Faults::default();
    let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults);
    assert_eq!(faults.into_vec(), []);
    filter.unwrap()
}

/// The response to a client with these fields, and its body filters.
fn respond(
    filter: &dyn Filter,
    request: &[(&'static str, &'static str)],
    status: u16,
    response: &[(&'static str, &'static str)],
) -> (HeaderMap, BodyFilters) {
    let mut given = RequestHeader::build_no_case("GET", b"/", None).unwrap();
    for (name, value) in request {
        given.append_header(*name, *value).unwrap();
    }
    let mut headers = HeaderMap::new();
    for (name, value) in response {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let facts = Facts {
        client: [127, 0, 0, 1].into(),
        request_id: "",
        scheme: "http",
        host: "",
        route: "",
        server_name: None,
        client_certificate: None,
        is_from_trusted_proxy: false,
        is_example: false,
    };
    let mut body = BodyFilters::default();
    let mut code = StatusCode::from_u16(status).unwrap();
    filter.response(&mut Response {
        status: &mut code,
        headers: &mut headers,
        body: &mut body,
        request: &given,
        accepted: &given.headers,
        path_and_query: "/",
        facts: &facts,
        source: crate::filter::response::Source::Backend,
        upstream: "",
        pool: "",
    });
    assert_eq!(code.as_u16(), status);
    (headers, body)
}

#[test]
fn response_is_compressed_or_stays_as_its_fields_demand() {
    let filter = filter(&Config::default());
    let text = ("content-type", "text/html; charset=utf-8");
    let long = ("content-length", "1024");
    for (status, fields, compressed, varies) in [
        (200, &[text, long][..], true, true),
        (200, &[text], true, true),
        (404, &[text, long], true, true),
        (200, &[("content-type", "APPLICATION/Problem+JSON")], true, true),
        (200, &[text, ("content-encoding", "identity")], true, true),
        (200, &[text, ("vary", "Origin"), ("cache-control", "public, max-age=3")], true, true),
        (200, &[text, ("content-length", "1023")], false, false),
        (200, &[text, ("content-length", "0")], false, false),
        (200, &[long], false, false),
        (200, &[("content-type", "image/png"), long], false, false),
        (200, &[text, ("content-encoding", "gzip")], false, false),
        (200, &[text, ("content-encoding", "unknown")], false, false),
        (200, &[text, ("cache-control", "public, No-Transform")], false, false),
        (206, &[text, ("content-range", "bytes 0-9/99")], false, false),
        (416, &[text, ("content-range", "bytes */99")], false, false),
        (204, &[text], false, false),
        (205, &[text], false, false),
        (101, &[text], false, false),
    ] {
        let (headers, body) = respond(&*filter, &[("accept-encoding", "gzip")], status, fields);
        assert_eq!(!body.is_empty(), compressed, "{status} {fields:?}");
        let was_encoded = fields.contains(&("content-encoding", "gzip"));
        assert_eq!(headers.get("content-encoding").is_some_and(|it| it == "gzip"), compressed || was_encoded);
        assert!(!compressed || !headers.contains_key("content-length"), "{headers:?}");
        let has_vary = headers.get_all("vary").iter().any(|name| name == "Accept-Encoding");
        assert_eq!(has_vary, varies, "{status} {fields:?}");
        let (headers, body) = respond(&*filter, &[], status, fields);
        assert!(body.is_empty(), "the client accepts nothing: {fields:?}");
        let has_vary = headers.get_all("vary").iter().any(|name| name == "Accept-Encoding");
        assert_eq!(has_vary, varies, "with Vary although it is not compressed: {status} {fields:?}");
    }
}

#[test]
fn fields_about_the_bytes_are_removed_and_a_strong_tag_becomes_weak() {
    let filter = filter(&Config::default());
    let fields = [
        ("content-type", "text/css"),
        ("etag", "\"v1\""),
        ("accept-ranges", "bytes"),
        ("content-md5", "x"),
        ("repr-digest", "sha-256=:x:"),
        ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("vary", "accept-encoding, Origin"),
    ];
    let (headers, mut body) = respond(&*filter, &[("accept-encoding", "br;q=0.5, zstd")], 200, &fields);
    assert_eq!(headers["etag"], "W/\"v1\"");
    assert_eq!(headers["content-encoding"], "zstd");
    assert_eq!(headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept-encoding, Origin"]);
    for name in ["accept-ranges", "content-md5", "repr-digest"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(headers.contains_key("last-modified"));
    let encoded = body.transform(Bytes::from_static(b"a { b: c }"), true).unwrap();
    assert_eq!(decode(Coding::Zstd, &encoded), b"a { b: c }");
    let (plain, _) = respond(&*filter, &[], 200, &fields);
    assert_eq!(plain["etag"], "\"v1\"");
    assert_eq!(plain["accept-ranges"], "bytes");
    let (weak, _) =
        respond(&*filter, &[("accept-encoding", "gzip")], 200, &[("content-type", "text/css"), ("etag", "W/\"v\"")]);
    assert_eq!(weak["etag"], "W/\"v\"");
}

#[test]
fn not_modified_has_the_tag_of_the_body_that_the_client_has() {
    let filter = filter(&Config::default());
    for (condition, accepted, tag) in [
        ("W/\"v1\"", "gzip", "W/\"v1\""),
        ("\"v0\", W/\"v1\"", "gzip", "W/\"v1\""),
        ("\"v1\"", "gzip", "\"v1\""),
        ("\"v1\", W/\"v1\"", "gzip", "\"v1\""),
        ("W/\"v1\"", "identity", "\"v1\""),
        ("*", "gzip", "\"v1\""),
    ] {
        let request = [("if-none-match", condition), ("accept-encoding", accepted)];
        let (headers, body) = respond(&*filter, &request, 304, &[("etag", "\"v1\"")]);
        assert_eq!(headers["etag"], tag, "{condition}");
        assert!(body.is_empty() && !headers.contains_key("content-encoding"));
    }
}

#[test]
fn media_types_are_exact_or_have_one_wildcard() {
    let matches = |pattern: &str, media_type: &str| Pattern::parse(pattern).unwrap().matches(media_type);
    for (pattern, media_type, expected) in [
        ("text/html", "TEXT/HTML", true),
        ("text/html", "text/htmlx", false),
        ("Text/*", "text/css", true),
        ("text/*", "tex", false),
        ("text/*", "t\u{e9}xt/css", false),
        ("*+json", "application/ld+json", true),
        ("*+json", "application/json", false),
        ("*+json", "json", false),
    ] {
        assert_eq!(matches(pattern, media_type), expected, "{pattern} {media_type:?}");
    }
    for pattern in ["", "text", "/", "*/*", "*", "text/", "/html", "text/html; charset=utf-8", "a b/c", "*+", "te*/x"] {
        assert_eq!(Pattern::parse(pattern), None, "{pattern:?}");
    }
}
