//! Illegal bytes in a request head.

use super::Fixture;

#[test]
fn line_end_other_than_crlf_is_rejected() {
    let fixture = Fixture::open();
    for (bytes, detail) in [
        (&b"GET /x HTTP/1.1\nHost: a\r\n\r\n"[..], "bare LF"),
        (b"GET /x HTTP/1.1\r\nHost: a\n\r\n", "bare LF"),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n\n", "a"),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\nZ: 1\r\n\r\n", "bare LF"),
        (b"GET /x HTTP/1.1\r\nHost: a\n\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", "bare LF"),
        (b"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "bare LF"),
        (b"GET /x HTTP/1.1\rHost: a\r\n\r\n", "bare CR"),
        (b"GET /x HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "bare CR"),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", "bare CR"),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", "bare CR"),
        (b"GET /x HTTP/1.1\r\r\nHost: a\r\n\r\n", "bare CR"),
        (b"\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "more than one empty line"),
    ] {
        fixture.rejects(bytes, 400, detail);
    }
    fixture.passes(b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x");
}

#[test]
fn illegal_header_names_and_values_are_rejected() {
    let fixture = Fixture::open();
    for (field, detail) in [
        (&b"X : y\r\n"[..], "space before the colon"),
        (b"X\t: y\r\n", "space before the colon"),
        (b"X: y\r\n  folded\r\n", "folded"),
        (b"X: y\r\n\tfolded\r\n", "folded"),
        (b" X: y\r\n", "folded"),
        (b": y\r\n", "empty field name"),
        (b"X\r\n", "without a colon"),
        (b"X y\r\n", "space before the colon"),
        (b"X\x00: y\r\n", "illegal character in a field name"),
        (b"X\xff: y\r\n", "illegal character in a field name"),
        (b"X(: y\r\n", "illegal character in a field name"),
        (b"X\"Y: y\r\n", "illegal character in a field name"),
        (b"X/Y: y\r\n", "illegal character in a field name"),
        (b"X@: y\r\n", "illegal character in a field name"),
        (b"X: a\x00b\r\n", "control character"),
        (b"X: a\x01b\r\n", "control character"),
        (b"X: a\x1bb\r\n", "control character"),
        (b"X: a\x7fb\r\n", "control character"),
        (b"X: a\x0bb\r\n", "control character"),
    ] {
        fixture.rejects(&[b"GET /x HTTP/1.1\r\nHost: a\r\n", field, b"\r\n"].concat(), 400, detail);
        // Some parsers are less strict for the first field.
        fixture.rejects(&[b"GET /x HTTP/1.1\r\n", field, b"Host: a\r\n\r\n"].concat(), 400, "a");
    }
    let received = fixture.forwards(b"GET /x HTTP/1.1\r\nHost: a\r\nX!#$%&'*+-.^`|~9: \t a\tb \r\nEmpty:\r\n\r\n");
    assert_eq!(received.values("X!#$%&'*+-.^`|~9"), ["a\tb"]);
    assert_eq!(received.values("empty"), [""]);
}

#[test]
fn malformed_request_line_is_rejected() {
    let fixture = Fixture::open();
    for (line, detail) in [
        ("GET /x", "without a version"),
        ("GET", "without a target"),
        ("GET  /x HTTP/1.1", "more than one space between parts of the request line"),
        ("GET /x  HTTP/1.1", "more than one space between parts of the request line"),
        (" GET /x HTTP/1.1", "not a token"),
        ("GET\t/x HTTP/1.1", "not a token"),
        ("GET /x\tHTTP/1.1", "control character"),
        ("GET /x HTTP/1.1 ", "space after the version"),
        ("GET /x HTTP/1.1x", "a version other than"),
        ("GET /x HTTP/1.2", "a version other than"),
        ("GET /x HTTP/1.10", "a version other than"),
        ("GET /x HTTP/2.0", "a version other than"),
        ("GET /x HTTP/0.9", "a version other than"),
        ("GET /x http/1.1", "a version other than"),
        ("GET /x HTTP/1,1", "a version other than"),
        ("GET /x HTTP/01.1", "a version other than"),
        ("GET /x y HTTP/1.1", "a version other than"),
        ("GET /x HTTP/1.1 HTTP/1.1", "space after the version"),
        ("G(T /x HTTP/1.1", "not a token"),
        ("G\u{e9}T /x HTTP/1.1", "not a token"),
        ("GET: /x HTTP/1.1", "not a token"),
        ("\u{0}GET /x HTTP/1.1", "not a token"),
        ("GET\u{0} /x HTTP/1.1", "not a token"),
    ] {
        fixture.rejects(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), 400, detail);
    }
    fixture.passes(b"PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n", "PROPFIND /x");
}

#[test]
fn connect_and_trace_are_rejected() {
    let fixture = Fixture::open();
    for line in ["CONNECT a:443", "CONNECT /x", "TRACE /x", "TRACE *"] {
        fixture.rejects(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 405, "CONNECT or TRACE");
    }
    fixture.passes(b"trace /x HTTP/1.1\r\nHost: a\r\n\r\n", "trace /x");
}

/// Other protocols are rejected as broken HTTP or closed without a response, and logged.
#[test]
fn other_protocols_are_rejected_and_logged() {
    let fixture = Fixture::open();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x00\x00\x00",
        b"EHLO mail\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n",
    ] {
        fixture.rejects(bytes, 400, "a");
    }
}
