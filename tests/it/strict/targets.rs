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

#[test]
fn encoded_slash_and_nul_are_rejected_unless_the_route_allows_them() {
    let more = "routes: [{ path: /, pool: p }, { path: /slash, pool: p, allow_encoded: [slash] }]\n";
    let fixture = Fixture::with(more, Recorder::start());
    for target in
        ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%00b", "/x/..%2fadmin", "/slash%2fx", "/slash/a%5cb", "/slash/a%00b"]
    {
        fixture.rejects(
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            400,
            "an encoded character in the path",
        );
    }
    fixture.passes(b"GET /slash/a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", "GET /slash/a%2Fb");
    fixture.passes(b"GET /x?a=%2f%5c%00 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?a=%2f%5c%00");
}
