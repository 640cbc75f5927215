//! Legal heads, and every kind of illegal head. Each is read at once and byte by byte, with the same result.

use super::{Body, DetailedRejection, Head, HeadReader, encode_target};
use crate::base::fault::{Faults, Place};
use crate::http::rejection::Rejection;
use crate::http::request_limits::{Config, RequestLimits};

fn limits() -> RequestLimits {
    Config::default().check(&Place::root(), &mut Faults::default())
}

fn inspect(bytes: &[u8], limits: &RequestLimits) -> Result<Option<Head>, DetailedRejection> {
    let at_once = HeadReader::default().inspect(bytes, limits);
    let mut reader = HeadReader::default();
    let mut dribbled = Ok(None);
    for length in 0..=bytes.len() {
        dribbled = reader.inspect(&bytes[..length], limits);
        if !matches!(dribbled, Ok(None)) {
            break;
        }
    }
    assert_eq!(at_once, dribbled, "{}", bytes.escape_ascii());
    at_once
}

fn head(bytes: &str) -> Head {
    inspect(bytes.as_bytes(), &limits()).unwrap_or_else(|e| panic!("{bytes:?}: {e:?}")).expect(bytes)
}

fn detail(bytes: &[u8]) -> &'static str {
    match inspect(bytes, &limits()) {
        Err(DetailedRejection { rejection: Rejection::BadRequest, detail }) => detail,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// A head with this request line, or with these fields next to Host.
fn with_line(line: &str) -> String {
    format!("{line}\r\nHost: a.example\r\n\r\n")
}

fn with_fields(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

#[test]
fn legal_head_is_parsed_with_its_positions() {
    let bytes = "\r\nPOST /a?b=[c] HTTP/1.1\r\nhOST: \t a.example:8080 \t\r\nContent-Length: 007 \r\nX:\r\n\r\nbody";
    let head = head(bytes);
    assert_eq!(&bytes[head.method.clone()], "POST");
    assert_eq!(&bytes[head.target.clone()], "/a?b=[c]");
    assert_eq!(&bytes[head.host.clone().unwrap()], "a.example:8080");
    assert_eq!(&bytes[head.length..], "body");
    assert_eq!((head.start, head.fields, head.body), (2, 3, Body::Length(7)));
    assert!(head.version_1_1 && !head.expects_continue && !head.upgrade && head.authority.is_none());
}

#[test]
fn incomplete_head_needs_more_bytes() {
    let bytes = with_fields("X-Y: z\r\n");
    for length in 0..bytes.len() {
        assert_eq!(inspect(&bytes.as_bytes()[..length], &limits()), Ok(None), "{length}");
    }
    assert_eq!(head(&bytes).length, bytes.len());
}

#[test]
fn reader_is_reset_after_a_head() {
    let mut reader = HeadReader::default();
    let first = with_fields("Transfer-Encoding: chunked\r\n");
    assert_eq!(reader.inspect(first.as_bytes(), &limits()).unwrap().unwrap().body, Body::Chunked);
    let second = with_line("GET / HTTP/1.1");
    let head = reader.inspect(second.as_bytes(), &limits()).unwrap().unwrap();
    assert_eq!((head.length, head.body), (second.len(), Body::None));
}

#[test]
fn legal_request_lines_are_accepted() {
    for line in [
        "GET / HTTP/1.1",
        "get / HTTP/1.1",
        "M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET //a;b=c/%C3%A9?x=%20&y=[1]?/ HTTP/1.1",
        "GET http://a.example HTTP/1.1",
        "GET HTTP://a.example?x HTTP/1.1",
        "GET http://a.example/:@x HTTP/1.0",
        "GET /é|^`{}[]\\<>\"?é|^`{}[]\\<>\"' HTTP/1.1",
    ] {
        head(&with_line(line));
    }
    assert!(head("GET https://a:443/ HTTP/1.1\r\nHost: a:443\r\n\r\n").authority.is_some());
    let old = head("GET / HTTP/1.0\r\n\r\n");
    assert!(!old.version_1_1 && old.host.is_none());
}

#[test]
fn target_is_percent_encoded_and_positions_move() {
    for (line, encoded) in [
        ("GET /\u{e9}|?\u{e9}| HTTP/1.1", "GET /%C3%A9%7C?%C3%A9| HTTP/1.1"),
        ("GET http://a.example/<[>]?\"[ HTTP/1.1", "GET http://a.example/%3C%5B%3E%5D?%22[ HTTP/1.1"),
        ("GET http://a.example?` HTTP/1.1", "GET http://a.example?` HTTP/1.1"),
    ] {
        let (bytes, wanted) = (format!("\r\n{}", with_line(line)), with_line(encoded));
        let mut moved = head(&bytes);
        assert!(moved.encode_target, "{line}");
        assert_eq!(encode_target(&bytes.as_bytes()[2..], &mut moved).unwrap(), wanted);
        let same = Head { encode_target: false, ..head(&format!("\r\n{wanted}")) };
        assert_eq!(moved, same, "{line}");
    }
    assert!(!head(&with_line("GET /?a=|{}^[]\\' HTTP/1.1")).encode_target, "the library accepts these");
}

#[test]
fn target_that_is_too_long_when_encoded_is_rejected() {
    let limits = RequestLimits { target_size: 65_534, header_size: 1 << 20, ..limits() };
    for (length, accepted) in [(21_844, true), (21_845, false)] {
        let bytes = with_line(&format!("GET /{} HTTP/1.1", "<".repeat(length)));
        let mut head = inspect(bytes.as_bytes(), &limits).unwrap().unwrap();
        let encoded = encode_target(bytes.as_bytes(), &mut head).map_err(|e| e.rejection);
        assert_eq!(encoded.map(|_| ()), if accepted { Ok(()) } else { Err(Rejection::TargetTooLong) }, "{length}");
    }
}

#[test]
fn malformed_request_lines_are_rejected_by_the_parser() {
    for (line, wanted) in [
        (" GET / HTTP/1.1", "a method that is not a token"),
        ("G(T / HTTP/1.1", "a method that is not a token"),
        ("GET\t/ HTTP/1.1", "a method that is not a token"),
        ("\x16\x03\x01", "a method that is not a token"),
        ("GET", "a request line without a target"),
        ("GET  / HTTP/1.1", "more than one space between parts of the request line"),
        ("GET /  HTTP/1.1", "more than one space between parts of the request line"),
        ("GET / HTTP/1.1 ", "space after the version"),
        ("GET /", "a request line without a version"),
        ("GET /\t HTTP/1.1", "a control character in the target"),
        ("GET /\0 HTTP/1.1", "a control character in the target"),
        ("GET /\x7f HTTP/1.1", "a control character in the target"),
        ("GET /#a HTTP/1.1", "a fragment in the target"),
        ("GET /% HTTP/1.1", "a % without two hexadecimal digits in the target"),
        ("GET /?%2 HTTP/1.1", "a % without two hexadecimal digits in the target"),
        ("GET /%zz HTTP/1.1", "a % without two hexadecimal digits in the target"),
        ("GET * HTTP/1.1", "the target * is only valid with OPTIONS"),
        ("GET a HTTP/1.1", "a target that is neither a path nor an http URL"),
        ("GET a.example:80 HTTP/1.1", "a target that is neither a path nor an http URL"),
        ("GET ftp://a.example/ HTTP/1.1", "a target that is neither a path nor an http URL"),
        ("GET ?x HTTP/1.1", "a target that is neither a path nor an http URL"),
        ("GET http://u@a.example/ HTTP/1.1", "userinfo before the host"),
        ("GET http:///x HTTP/1.1", "a host that is neither a name nor an address"),
        ("GET http://b.example/ HTTP/1.1", "the authority of the target differs from Host"),
        ("GET http://a.example:81/ HTTP/1.1", "the authority of the target differs from Host"),
        ("GET https://a.example:80/ HTTP/1.1", "the authority of the target differs from Host"),
        ("GET http://b.example/ HTTP/1.0", "the authority of the target differs from Host"),
        // Pingora compares bytes, and would close the connection without a response.
        ("GET http://A.EXAMPLE/ HTTP/1.1", "the authority of the target differs from Host"),
        ("GET http://a.example:80/ HTTP/1.1", "the authority of the target differs from Host"),
    ] {
        assert_eq!(detail(with_line(line).as_bytes()), wanted, "{line}");
    }
}

#[test]
fn version_other_than_1_0_and_1_1_is_rejected() {
    let versions =
        ["HTTP/0.9", "HTTP/1.2", "HTTP/1.10", "HTTP/1.01", "HTTP/2.0", "http/1.1", "HTTP/1", "HTTPS/1.1", "X HTTP/1.1"];
    for version in versions {
        let line = with_line(&format!("GET / {version}"));
        assert_eq!(detail(line.as_bytes()), "a version other than HTTP/1.0 and HTTP/1.1", "{version}");
    }
}

#[test]
fn connect_and_trace_are_rejected_by_the_parser() {
    for line in ["CONNECT a.example:443 HTTP/1.1", "TRACE / HTTP/1.1", "CONNECT "] {
        let rejection = inspect(with_line(line).as_bytes(), &limits()).unwrap_err();
        assert_eq!(rejection.rejection, Rejection::MethodNotAllowed, "{line}");
    }
    head(&with_line("trace / HTTP/1.1"));
}

#[test]
fn bare_cr_or_lf_is_rejected_anywhere() {
    for bytes in [
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\n/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\nHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / \nHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
    ] {
        assert_eq!(detail(bytes.as_bytes()), "a bare LF in the header", "{bytes:?}");
    }
    for bytes in [
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX",
    ] {
        assert_eq!(detail(bytes.as_bytes()), "a bare CR in the header", "{bytes:?}");
    }
    assert_eq!(detail(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "more than one empty line");
}

#[test]
fn malformed_fields_are_rejected() {
    for (fields, wanted) in [
        ("X : y\r\n", "space before the colon of a field"),
        ("X\t: y\r\n", "space before the colon of a field"),
        ("X y: z\r\n", "space before the colon of a field"),
        ("X: y\r\n z\r\n", "a folded field, or space before a field"),
        ("X: y\r\n\tz\r\n", "a folded field, or space before a field"),
        (" \r\n", "a folded field, or space before a field"),
        (": y\r\n", "an empty field name"),
        ("X\r\n", "a field without a colon"),
        ("X(y): z\r\n", "an illegal character in a field name"),
        ("X\0: z\r\n", "an illegal character in a field name"),
        ("Xé: z\r\n", "an illegal character in a field name"),
        ("\"X\": z\r\n", "an illegal character in a field name"),
        ("X: \0\r\n", "a control character in a field value"),
        ("X: a\x0bb\r\n", "a control character in a field value"),
        ("X: a\x7fb\r\n", "a control character in a field value"),
    ] {
        assert_eq!(detail(with_fields(fields).as_bytes()), wanted, "{fields:?}");
    }
    head(&with_fields("!#$%&'*+-.^_`|~09aZ: \t a\tb \u{e9} \" ( \t\r\nEmpty:\r\n"));
    let first = "GET / HTTP/1.1\r\n Host: a\r\n\r\n";
    assert_eq!(detail(first.as_bytes()), "a folded field, or space before a field");
}

#[test]
fn host_that_is_not_one_legal_authority_is_rejected() {
    for host in ["a", "A-b_c.example.", "a:80", "a:", "a:65535", "127.0.0.1:1", "[::1]", "[2001:db8::1]:443", "~a"] {
        head(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    let host = "a host that is neither a name nor an address";
    for (value, wanted) in [
        ("", host),
        (" ", host),
        (":80", host),
        ("a b", host),
        ("a,b", host),
        ("a/b", host),
        ("a%41", host),
        ("a\"", host),
        ("é", host),
        ("::1", host),
        ("[::1", host),
        ("[]", host),
        ("[a]", host),
        ("[::1%25eth0]", host),
        ("[v1.a]", host),
        ("[127.0.0.1]", host),
        ("u@a", "userinfo before the host"),
        ("u:p@a", "userinfo before the host"),
        ("a:b", "a port that is not a number"),
        ("a:8 0", "a port that is not a number"),
        ("a:+80", "a port that is not a number"),
        ("a:80:80", "a port that is not a number"),
        ("[::1]80", "a port that is not a number"),
        ("a:65536", "a port above 65535"),
    ] {
        for version in ["1.1", "1.0"] {
            let bytes = format!("GET / HTTP/{version}\r\nHost: {value}\r\n\r\n");
            assert_eq!(detail(bytes.as_bytes()), wanted, "{value}");
        }
    }
    assert_eq!(detail(b"GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 without Host");
    assert_eq!(detail(b"GET http://a/ HTTP/1.1\r\n\r\n"), "HTTP/1.1 without Host");
    assert_eq!(detail(b"GET http://a/ HTTP/1.0\r\n\r\n"), "an absolute-form target without Host");
    assert_eq!(detail(with_fields("HOST: a.example\r\n").as_bytes()), "more than one Host");
    assert_eq!(detail(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), "more than one Host");
}

#[test]
fn connection_that_names_protected_headers_is_rejected() {
    for options in ["", "close", "keep-alive, Upgrade", ",,x,", "a,b,c,d,e,f,g,h,i", "x-request-id"] {
        head(&with_fields(&format!("Connection: {options}\r\n")));
    }
    for (fields, wanted) in [
        ("Connection: Host\r\n", "Connection names a header that must not be removed"),
        ("Connection: close, CONTENT-length\r\n", "Connection names a header that must not be removed"),
        ("Connection: x\r\nConnection:transfer-encoding\r\n", "Connection names a header that must not be removed"),
        ("Connection: x-forwarded-for\r\n", "Connection names a header that must not be removed"),
        ("Connection: \"host\"\r\n", "an option in Connection that is not a token"),
        ("Connection: a b\r\n", "an option in Connection that is not a token"),
        ("Connection: a,b,c,d,e\r\nConnection: f,g,h,i,j\r\n", "too many options in Connection"),
    ] {
        assert_eq!(detail(with_fields(fields).as_bytes()), wanted, "{fields}");
    }
}

#[test]
fn ambiguous_framing_is_rejected() {
    for (fields, body) in [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::Length(0)),
        ("Content-Length:18446744073709551615\r\n", Body::Length(u64::MAX)),
        ("Transfer-Encoding:\tCHUNKED \r\n", Body::Chunked),
        ("X-Content-Length: 5\r\n", Body::None),
    ] {
        assert_eq!(head(&with_fields(fields)).body, body, "{fields}");
    }
    let number = "a Content-Length that is not a number";
    let coding = "a Transfer-Encoding other than chunked";
    for (fields, wanted) in [
        ("Content-Length: +5\r\n", number),
        ("Content-Length: -5\r\n", number),
        ("Content-Length: 5 5\r\n", number),
        ("Content-Length: 5, 5\r\n", number),
        ("Content-Length: 5,\r\n", number),
        ("Content-Length: 0x5\r\n", number),
        ("Content-Length: 5.0\r\n", number),
        ("Content-Length:\r\n", number),
        ("Content-Length: ٥\r\n", number),
        ("Content-Length: 18446744073709551616\r\n", "a Content-Length that exceeds 64 bits"),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", "more than one Content-Length"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "both Transfer-Encoding and Content-Length"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "both Transfer-Encoding and Content-Length"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "more than one Transfer-Encoding"),
        ("Transfer-Encoding: gzip, chunked\r\n", coding),
        ("Transfer-Encoding: chunked, chunked\r\n", coding),
        ("Transfer-Encoding: chunked,\r\n", coding),
        ("Transfer-Encoding: xchunked\r\n", coding),
        ("Transfer-Encoding: \"chunked\"\r\n", coding),
        ("Transfer-Encoding: chunked;q=1\r\n", coding),
        ("Transfer-Encoding: identity\r\n", coding),
        ("Transfer-Encoding: \r\n", coding),
    ] {
        assert_eq!(detail(with_fields(fields).as_bytes()), wanted, "{fields}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(detail(old.as_bytes()), "Transfer-Encoding in HTTP/1.0");
}

#[test]
fn expectations_and_upgrades_are_detected() {
    assert!(head(&with_fields("Expect: 100-Continue\r\n")).expects_continue);
    for fields in ["Expect: x\r\n", "Expect:\r\n", "Expect: 100-continue\r\nExpect: 100-continue\r\n"] {
        let rejection = inspect(with_fields(fields).as_bytes(), &limits()).unwrap_err();
        assert_eq!(rejection.rejection, Rejection::ExpectationFailed, "{fields}");
    }
    assert!(head(&with_fields("Connection: keep-alive , Upgrade\r\nUpgrade: websocket\r\n")).upgrade);
    assert!(head(&with_fields("Upgrade: websocket\r\nConnection: a\r\nConnection: upgrade\r\n")).upgrade);
    assert!(!head(&with_fields("Connection: upgrade\r\n")).upgrade);
    assert!(!head(&with_fields("Upgrade: websocket\r\nConnection: upgrades\r\n")).upgrade);
    let old = "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n\r\n";
    assert!(!head(old).upgrade && !head(old).expects_continue);
}

#[test]
fn size_limits_are_exact_and_apply_before_the_head_is_complete() {
    let bytes = with_fields("X: y\r\n");
    let exact = RequestLimits { header_size: bytes.len() as u64, header_count: 2, target_size: 1, body_size: 0 };
    let rejection = |bytes: &str, limits| inspect(bytes.as_bytes(), &limits).unwrap_err().rejection;
    assert!(inspect(bytes.as_bytes(), &exact).unwrap().is_some());
    assert!(inspect(format!("\r\n{bytes}body").as_bytes(), &exact).unwrap().is_some());
    let smaller = RequestLimits { header_size: exact.header_size - 1, ..exact };
    assert_eq!(rejection(&bytes, smaller), Rejection::HeaderTooLarge);
    assert_eq!(rejection(&bytes, RequestLimits { header_count: 1, ..exact }), Rejection::HeaderTooLarge);
    assert_eq!(rejection(&bytes, RequestLimits { target_size: 0, ..exact }), Rejection::TargetTooLong);
    assert_eq!(rejection("GET /a", exact), Rejection::TargetTooLong);
    assert_eq!(rejection(&"G".repeat(100), exact), Rejection::HeaderTooLarge);
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(100));
    assert_eq!(rejection(&endless, exact), Rejection::HeaderTooLarge);
    let none = RequestLimits { header_size: 0, header_count: 0, target_size: 0, body_size: 0 };
    assert_eq!(rejection("G", none), Rejection::HeaderTooLarge);
    let endless = RequestLimits { header_size: u64::MAX, ..limits() };
    assert!(inspect(bytes.as_bytes(), &endless).unwrap().is_some());
}
