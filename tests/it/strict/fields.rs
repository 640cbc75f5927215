//! Header fields: hop-by-hop fields are removed, and a `Connection` header cannot remove other fields.

use super::{Fixture, Recorder};

fn get(fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn hop_by_hop_request_headers_are_not_sent_to_backends() {
    let fixture = Fixture::open();
    for (fields, gone) in [
        ("Connection: X-Secret\r\nX-Secret: 1\r\n", &["x-secret"][..]),
        ("Connection: a, X-Secret ,,b\r\nx-secret: 1\r\nA: 1\r\nB: 1\r\n", &["x-secret", "a", "b"]),
        ("Connection: keep-alive\r\nConnection: X-Secret\r\nX-Secret: 1\r\n", &["x-secret"]),
        ("Keep-Alive: timeout=9\r\n", &["keep-alive"]),
        ("Proxy-Connection: keep-alive\r\n", &["proxy-connection"]),
        ("Proxy-Authenticate: x\r\nProxy-Authorization: x\r\n", &["proxy-authenticate"]),
        ("Trailer: X\r\n", &["trailer"]),
        ("TE: gzip\r\n", &["te"]),
        ("Connection: TE\r\nTE: trailers\r\n", &["te"]),
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
            &["http2-settings"],
        ),
        ("Upgrade: foo\r\n", &["upgrade"]),
        ("a_b: 1\r\nX_Forwarded_For: 6.6.6.6\r\n", &["a_b", "x_forwarded_for"]),
    ] {
        let received = fixture.forwards(&get(&format!("{fields}X-Kept: 1\r\n")));
        for name in gone {
            assert!(received.values(name).is_empty(), "{fields:?} {name}: {received:?}");
        }
        assert_eq!(received.values("x-kept"), ["1"], "{fields:?}: {received:?}");
    }
}

/// A client must not use `Connection` to remove fields that the balancer adds, or fields that define where the
/// body ends: a backend that finds no length parses the body as a request.
#[test]
fn connection_header_that_names_other_fields_is_rejected() {
    let fixture = Fixture::open();
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = |option: &str| {
        format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: {option}\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())
    };
    for option in [
        "Content-Length",
        "close, content-length",
        "Transfer-Encoding",
        "Host",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "keep-alive,X-Forwarded-Host",
        "X-Request-Id",
        "X-Client-Cert-Subject",
    ] {
        fixture.rejects(post(option).as_bytes(), 400, "Connection names a header that must not be removed");
    }
    for option in ["\"Host\"", ":authority", "a b", "a;b", "h\u{f6}st"] {
        fixture.rejects(post(option).as_bytes(), 400, "an option in Connection that is not a token");
    }
    fixture.rejects(post(&"a,".repeat(10)).as_bytes(), 400, "too many options");
    for option in ["X-Request-Id", "close, x-client-cert-verified"] {
        fixture.rejects(post(option).as_bytes(), 400, "Connection names a header that must not be removed");
    }
    let body = inner.as_bytes().escape_ascii();
    for option in ["Connection", "Authorization", "a,,b", "", "a,b,c,d,e,f,g,h,i"] {
        let received = fixture.forwards(post(option).as_bytes());
        assert_eq!(received.brief(), format!("POST /x|{body}"), "{option}");
        for (name, values) in [
            ("host", &["a"][..]),
            ("x-forwarded-for", &["127.0.0.1"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-host", &["a"]),
        ] {
            assert_eq!(received.values(name), values, "{option}: {received:?}");
        }
        assert_eq!(received.values("x-request-id").len(), 1, "{option}: {received:?}");
    }
}

#[test]
fn hop_by_hop_response_headers_are_not_sent_to_clients() {
    let fixture = Fixture::with(
        "routes: [{ path: /, pool: p }]\n",
        Recorder::answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Internal, Content-Length\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nProxy-Connection: close\r\nTrailer: X\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\nok",
        ),
    );
    let outcome = fixture.send(&get(""), 1);
    let answer = outcome.answers.to_ascii_lowercase();
    for name in ["x-internal", "keep-alive:", "proxy-authenticate", "proxy-connection", "trailer", "upgrade"] {
        assert!(!answer.contains(&format!("\r\n{name}")), "{name}: {answer}");
    }
    assert!(answer.contains("x-kept: 1") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn an_expectation_other_than_100_continue_is_rejected() {
    let fixture = Fixture::open();
    for fields in [
        "Expect: 200-ok\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect:\r\n",
    ] {
        fixture.rejects(&get(fields), 417, "the expectation");
    }
    let bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let outcome = fixture.send(bytes, 1);
    assert_eq!(outcome.statuses.last(), Some(&200), "{outcome:#?}");
    assert_eq!(outcome.received[0].brief(), "POST /x|abc");
}
