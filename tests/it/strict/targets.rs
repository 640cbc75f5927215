//! Request targets: legal bytes, and no alternative spelling of a path bypasses a route.

use super::{Fixture, Recorder};

#[test]
fn targets_have_the_bytes_that_rfc_3986_allows() {
    let fixture = Fixture::open();
    for (target, detail) in [
        (&b"/a#b"[..], "fragment"),
        (b"/a\\b", "must be percent-encoded"),
        (b"/a<b", "must be percent-encoded"),
        (b"/a>b", "must be percent-encoded"),
        (b"/a\"b", "must be percent-encoded"),
        (b"/a^b", "must be percent-encoded"),
        (b"/a`b", "must be percent-encoded"),
        (b"/a{b}", "must be percent-encoded"),
        (b"/a|b", "must be percent-encoded"),
        (b"/a\x00b", "control character"),
        (b"/a\x7fb", "control character"),
        (b"/a\x0bb", "control character"),
        (b"/\xc3\xa9", "a non-ASCII byte"),
        (b"/\xff", "a non-ASCII byte"),
        (b"/?\xff", "a non-ASCII byte"),
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
