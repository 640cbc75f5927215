//! Request targets: legal bytes, and no alternative spelling of a path bypasses a route.

use super::{Fixture, Received, Recorder};

#[test]
fn target_with_controls_fragments_or_broken_escapes_is_rejected() {
    let fixture = Fixture::open();
    for (target, detail) in [
        (&b"/a#b"[..], "fragment"),
        (b"/?a#b", "fragment"),
        (b"/a\x00b", "control character"),
        (b"/a\x7fb", "control character"),
        (b"/a\x0bb", "control character"),
        (b"/\xc3\xa9\x01", "control character"),
        (b"/?\xff\x7f", "control character"),
        (b"/|%", "without two hexadecimal digits"),
        (b"/a%", "without two hexadecimal digits"),
        (b"/a%4", "without two hexadecimal digits"),
        (b"/a%zz", "without two hexadecimal digits"),
        (b"/a%+1", "without two hexadecimal digits"),
        (b"/a?b=%", "without two hexadecimal digits"),
        (b"/../a", "dot segments that leave the root"),
        (b"/a/../../b", "dot segments that leave the root"),
        (b"/%2e%2e/a", "dot segments that leave the root"),
        (b"*", "only valid with OPTIONS"),
    ] {
        fixture.rejects(&[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), 400, detail);
    }
    for (target, received) in [
        ("/a//b", "GET /a//b"),
        ("/a?b=[c]&d=/../e", "GET /a?b=[c]&d=/../e"),
        ("/a;b=c", "GET /a;b=c"),
        ("/a%c3%a9", "GET /a%C3%A9"),
        ("/%7euser", "GET /~user"),
        ("/?http://b/", "GET /?http://b/"),
        ("//evil/a", "GET //evil/a"),
    ] {
        fixture.passes(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), received);
    }
    fixture.passes(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *");
}

/// What browsers, curl and scripts send without encoding it. The access log has the path as it is forwarded.
#[test]
fn characters_that_clients_leave_unencoded_are_forwarded() {
    let fixture = Fixture::with(ENCODED_ROUTES, Recorder::start());
    for (target, received) in [
        (&b"/x?a=|{}^`[]\\'&b[]=~"[..], "/x?a=|{}^`[]\\'&b[]=~"),
        (b"/x?a=\"<>", "/x?a=%22%3C%3E"),
        (b"/x?q=caf\xc3\xa9&r=\xff", "/x?q=caf%C3%A9&r=%FF"),
        (b"/a|b^c`d{e}[f]\"<>", "/a%7Cb%5Ec%60d%7Be%7D%5Bf%5D%22%3C%3E"),
        (b"/caf\xc3\xa9/\xff?\xc3", "/caf%C3%A9/%FF?%C3"),
        (b"/\xf0\x9f\x98\x80/../b|", "/b%7C"),
        (b"/slash/a\\b", "/slash/a%5Cb"),
        (b"http://a/caf\xc3\xa9|?|<", "/caf%C3%A9%7C?|%3C"),
        (b"http://a?`", "/?`"),
    ] {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let outcome = fixture.send(&bytes, 1);
        let briefs: Vec<String> = outcome.received.iter().map(Received::brief).collect();
        assert_eq!(briefs, [format!("GET {received}")], "{outcome:#?}");
        let path = received.split('?').next().unwrap();
        assert!(outcome.lines[0].contains(&format!(" path={path} ")), "{outcome:#?}");
        assert_eq!(outcome.lines[0].contains(" route=coffee "), path.starts_with("/caf%C3%A9/"), "{outcome:#?}");
    }
    // The head after an encoded target is still understood.
    fixture.passes_all(
        b"POST /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /< HTTP/1.1\r\nHost: a\r\n\r\n",
        &["POST /%C3%A9|abc", "GET /%3C"],
    );
}

/// Routes whose paths have encoded characters.
const ENCODED_ROUTES: &str = "routes: [{ path: /, pool: p }, { path: /caf%C3%A9, pool: p, name: coffee }, \
    { path: /slash, pool: p, allow_encoded: [slash, backslash] }]\n";

/// `/admin` is a separate route that allows no body: 413 shows that it was selected.
#[test]
fn every_spelling_of_a_path_selects_the_same_route() {
    let more = "routes: [{ path: /, pool: p }, { path: /admin, pool: p, body_size: 0 }]\n";
    let fixture = Fixture::with(more, Recorder::start());
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/%2E./admin/y",
        "/./admin",
        "/%2e/admin",
        "/%61dmin",
        "/%61%64%6d%69%6e/x",
        "/x/y/../../admin",
        "/admin/x/..",
        "/x/../admin?y",
        "http://a/x/../admin",
        "http://a/%61dmin",
    ] {
        let bytes = format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        let outcome = fixture.send(bytes.as_bytes(), 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.received.len()), (&[413][..], 0), "{target}: {outcome:#?}");
        assert!(outcome.lines[0].contains("path=/admin"), "{target}: {outcome:#?}");
    }
    for (target, received) in [
        ("/administrator", "PUT /administrator|x"),
        ("/admin/../x", "PUT /x|x"),
        ("/admin/..", "PUT /|x"),
        ("/Admin", "PUT /Admin|x"),
        ("//admin", "PUT //admin|x"),
        ("/x?/../admin", "PUT /x?/../admin|x"),
        ("/%2561dmin", "PUT /%2561dmin|x"),
    ] {
        fixture.passes(format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").as_bytes(), received);
    }
}

/// Sends `GET target` and returns the status code, the detail if it was rejected, and what the backend received.
fn sent(fixture: &Fixture, target: &str) -> (u16, Option<&'static str>, String) {
    let outcome = fixture.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 1);
    let causes = ["cause=ambiguous_path", "cause=bad_request"];
    let cause = causes.into_iter().find(|cause| outcome.lines[0].contains(cause));
    (outcome.statuses[0], cause, outcome.received.iter().map(Received::brief).collect())
}

/// `/admin` is a route of its own, and so is `/a/exact`.
#[test]
fn encoded_slash_is_rejected_if_the_decoded_path_matches_another_route() {
    let more = "routes: [{ path: /, pool: p }, { path: /admin, pool: p }, { path: /a/exact, exact: true, pool: p }, \
        { path: /only, pool: p, methods: [POST] }]\n";
    let fixture = Fixture::with(more, Recorder::start());
    for (target, forwarded) in [
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/group%2Fproject/-/tree", "/group%2Fproject/-/tree"),
        ("/a%5cb", "/a%5Cb"),
        ("/a\\b", "/a%5Cb"),
        ("/admin/a%2fb", "/admin/a%2Fb"),
        ("/admin/a/..%2fb", "/admin/a/..%2Fb"),
        ("/a%2Fexact%2F", "/a%2Fexact%2F"),
        ("/only%2Fx", "/only%2Fx"),
        ("/x%252f..%252fadmin", "/x%252f..%252fadmin"),
        ("/x?a=%2f%5c%00", "/x?a=%2f%5c%00"),
    ] {
        assert_eq!(sent(&fixture, target), (200, None, format!("GET {forwarded}")), "{target}");
    }
    let ambiguous = (400, Some("cause=ambiguous_path"), String::new());
    for target in [
        "/admin%2fx",
        "/%2e%2fadmin",
        "/x/..%2fadmin",
        "/x/..%5cadmin",
        "/x/..\\admin",
        "/x/%2E%2e%5Cadmin",
        "/x%2F..%2Fadmin/y",
        "/x/y%5c..%2F..%2fadmin",
        "/x%2f..%5cadmin",
        "/a%2Fexact",
        "/admin/..%2f",
        "/admin/a%2F..%2f..%2fb",
        "/..%2fx",
        "/x/..%2f..%2fadmin",
        "/admin/..%5c..%2fadmin",
    ] {
        assert_eq!(sent(&fixture, target), ambiguous, "{target}");
    }
    let rejected = (400, Some("cause=bad_request"), String::new());
    for target in ["/a%00b", "/a%2fb%00"] {
        assert_eq!(sent(&fixture, target), rejected, "{target}");
    }
    let specific = Fixture::with("routes: [{ path: /api, pool: p }]\n", Recorder::start());
    assert_eq!(sent(&specific, "/api/..%2fx"), ambiguous, "the decoded path matches no route");
}

#[test]
fn allow_encoded_passes_exactly_the_listed_characters() {
    let more = "routes: [{ path: /, pool: p, allow_encoded: [] }, { path: /slash, pool: p, allow_encoded: [slash] }, \
        { path: /nul, pool: p, allow_encoded: [nul] }]\n";
    let fixture = Fixture::with(more, Recorder::start());
    for target in ["/a%2fb", "/a%5cb", "/a\\b", "/a%00b", "/slash/a%5cb", "/slash/a%00b", "/nul%2Fx", "/nul/%2f%00"] {
        fixture.rejects(
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            400,
            "an encoded character in the path",
        );
    }
    fixture.passes(b"GET /slash/a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", "GET /slash/a%2Fb");
    fixture.passes(b"GET /slash/..%2fnul HTTP/1.1\r\nHost: a\r\n\r\n", "GET /slash/..%2Fnul");
    fixture.passes(b"GET /nul/%00 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /nul/%00");
}
