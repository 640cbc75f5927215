//! The Host header: exactly one, valid, and consistent with the request target.

use super::Fixture;

#[test]
fn missing_repeated_or_invalid_host_is_rejected() {
    let fixture = Fixture::open();
    for (fields, detail) in [
        ("", "without Host"),
        ("X: y\r\n", "without Host"),
        ("Host: a\r\nHost: a\r\n", "more than one Host"),
        ("Host: a\r\nhOST: b\r\n", "more than one Host"),
        ("Host:\r\n", "a host that is neither"),
        ("Host:  \t \r\n", "a host that is neither"),
        ("Host: a, b\r\n", "a host that is neither"),
        ("Host: a b\r\n", "a host that is neither"),
        ("Host: a/b\r\n", "a host that is neither"),
        ("Host: a?b\r\n", "a host that is neither"),
        ("Host: a#b\r\n", "a host that is neither"),
        ("Host: a\\b\r\n", "a host that is neither"),
        ("Host: a%00b\r\n", "a host that is neither"),
        ("Host: \u{e9}\r\n", "a host that is neither"),
        ("Host: good@evil\r\n", "userinfo before the host"),
        ("Host: a:b\r\n", "a port that is not a number"),
        ("Host: a:-1\r\n", "a port that is not a number"),
        ("Host: a:80:80\r\n", "a port that is not a number"),
        ("Host: a:65536\r\n", "a port above 65535"),
        ("Host: [::1\r\n", "a host that is neither"),
        ("Host: [::1]x\r\n", "a port that is not a number"),
        ("Host: [zz]\r\n", "a host that is neither"),
        ("Host: http://a/\r\n", "a port that is not a number"),
    ] {
        fixture.rejects(format!("GET /x HTTP/1.1\r\n{fields}\r\n").as_bytes(), 400, detail);
    }
    for host in ["a", "a:80", "a:", "A.B-c_d~e", "127.0.0.1:8080", "[::1]", "[::1]:80"] {
        fixture.passes(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), "GET /x");
    }
    // HTTP/1.0 does not require Host, but backends receive HTTP/1.1.
    let received = fixture.forwards(b"GET /x HTTP/1.0\r\n\r\n");
    assert_eq!(received.head.lines().next(), Some("GET /x HTTP/1.1"));
    assert_eq!(received.values("host"), [format!("127.0.0.1:{}", fixture.port)], "{received:?}");
    fixture.rejects(b"GET http://a/x HTTP/1.0\r\n\r\n", 400, "an absolute-form target without Host");
}

#[test]
fn absolute_form_must_match_host_and_is_forwarded_in_origin_form() {
    let fixture = Fixture::open();
    for (target, host) in [
        ("http://a/", "b"),
        ("http://a/", "a:81"),
        ("http://a:81/", "a"),
        ("https://a/", "a:80"),
        ("http://a.b/", "a"),
        // The comparison is byte by byte, as in Pingora.
        ("http://A/", "a"),
        ("http://a:80/", "a"),
        ("http://[::1]/", "[::2]"),
    ] {
        fixture.rejects(
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
            400,
            "the authority of the target differs from Host",
        );
    }
    for (target, detail) in [
        ("http://u@a/", "userinfo before the host"),
        ("http:///x", "a host that is neither"),
        ("ftp://a/", "neither a path nor an http URL"),
        ("a:80", "neither a path nor an http URL"),
        ("x", "neither a path nor an http URL"),
        ("http:/a", "neither a path nor an http URL"),
    ] {
        fixture.rejects(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 400, detail);
    }
    for (target, host, received) in [
        ("http://a/x?y=1", "a", "GET /x?y=1"),
        ("HTTP://a:80/x", "a:80", "GET /x"),
        ("http://a", "a", "GET /"),
        ("http://a?y", "a", "GET /?y"),
        ("http://a/x/../y", "a", "GET /y"),
        ("https://A:443/x", "A:443", "GET /x"),
        ("http://[::1]:8/x", "[::1]:8", "GET /x"),
    ] {
        let forwarded = fixture.forwards(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(forwarded.brief(), received, "{target}");
        assert_eq!(forwarded.values("host"), [host], "{target}: {forwarded:?}");
        assert_eq!(forwarded.values("x-forwarded-host"), [host], "{target}: {forwarded:?}");
    }
}
