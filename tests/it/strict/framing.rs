//! Message framing: exactly one header field defines where a body ends.

use super::Fixture;

/// A POST with these fields and this body behind them.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
}

#[test]
fn malformed_or_repeated_content_length_is_rejected() {
    let fixture = Fixture::open();
    for (fields, detail) in [
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "more than one Content-Length"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "more than one Content-Length"),
        ("Content-Length: 0\r\ncontent-LENGTH: 44\r\n", "more than one Content-Length"),
        ("Content-Length: 3, 3\r\n", "not a number"),
        ("Content-Length: 3,4\r\n", "not a number"),
        ("Content-Length: +3\r\n", "not a number"),
        ("Content-Length: -3\r\n", "not a number"),
        ("Content-Length: -0\r\n", "not a number"),
        ("Content-Length: 0x3\r\n", "not a number"),
        ("Content-Length: 3 \t3\r\n", "not a number"),
        ("Content-Length: 3.0\r\n", "not a number"),
        ("Content-Length: 3e0\r\n", "not a number"),
        ("Content-Length: 1_0\r\n", "not a number"),
        ("Content-Length: \"3\"\r\n", "not a number"),
        ("Content-Length: \u{663}\r\n", "not a number"),
        ("Content-Length:\r\n", "not a number"),
        ("Content-Length: \t\r\n", "not a number"),
        ("Content-Length: 18446744073709551616\r\n", "exceeds 64 bits"),
        ("Content-Length: 18446744073709551619\r\n", "exceeds 64 bits"),
        ("Content-Length: 99999999999999999999999999999999\r\n", "exceeds 64 bits"),
    ] {
        fixture.rejects(&post(fields, "abc"), 400, detail);
    }
    fixture.passes(&post("Content-Length: 3\r\n", "abc"), "POST /x|abc");
    fixture.passes(&post("Content-Length:\t 3 \t\r\n", "abc"), "POST /x|abc");
    fixture.passes(&post("Content-Length: 0\r\n", ""), "POST /x");
    fixture.passes(&post("", ""), "POST /x");
    let leading = fixture.forwards(&post("Content-Length: 00003\r\n", "abc"));
    assert_eq!(leading.brief(), "POST /x|abc");
}

#[test]
fn transfer_encoding_other_than_a_single_chunked_is_rejected() {
    let fixture = Fixture::open();
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for (fields, detail) in [
        // CL.TE and TE.CL: two servers that use different fields see different requests.
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "both Transfer-Encoding and Content-Length"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 13\r\n", "both Transfer-Encoding and Content-Length"),
        ("Content-Length: 0\r\ntransfer-encoding:chunked\r\n", "both Transfer-Encoding and Content-Length"),
        // TE.TE: one of the servers does not recognise the coding.
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "more than one Transfer-Encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "more than one Transfer-Encoding"),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "other than chunked"),
        ("Transfer-Encoding: xchunked\r\n", "other than chunked"),
        ("Transfer-Encoding: chunkedx\r\n", "other than chunked"),
        ("Transfer-Encoding: chunked, identity\r\n", "other than chunked"),
        ("Transfer-Encoding: identity, chunked\r\n", "other than chunked"),
        ("Transfer-Encoding: gzip, chunked\r\n", "other than chunked"),
        ("Transfer-Encoding: chunked, chunked\r\n", "other than chunked"),
        ("Transfer-Encoding: chunked,\r\n", "other than chunked"),
        ("Transfer-Encoding: ,chunked\r\n", "other than chunked"),
        ("Transfer-Encoding: chunked;q=1\r\n", "other than chunked"),
        ("Transfer-Encoding: \"chunked\"\r\n", "other than chunked"),
        ("Transfer-Encoding: 'chunked'\r\n", "other than chunked"),
        ("Transfer-Encoding: ch\u{fc}nked\r\n", "other than chunked"),
        ("Transfer-Encoding: gzip\r\n", "other than chunked"),
        ("Transfer-Encoding: identity\r\n", "other than chunked"),
        ("Transfer-Encoding:\r\n", "other than chunked"),
        ("Transfer-Encoding: \x0bchunked\r\n", "a control character"),
        ("Transfer-Encoding: chunked\x00\r\n", "a control character"),
        ("Transfer-Encoding : chunked\r\n", "space before the colon"),
        ("Transfer-Encoding\t: chunked\r\n", "space before the colon"),
        (" Transfer-Encoding: chunked\r\n", "folded"),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", "folded"),
        ("Transfer-Encoding:\r\n chunked\r\n", "a"),
        ("X: y\nTransfer-Encoding: chunked\r\n", "bare LF"),
        ("X: y\rTransfer-Encoding: chunked\r\n", "bare CR"),
    ] {
        fixture.rejects(&post(fields, chunks), 400, detail);
    }
    fixture.rejects(
        format!("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{chunks}").as_bytes(),
        400,
        "in HTTP/1.0",
    );
    fixture.passes(&post("Transfer-Encoding: chunked\r\n", chunks), "POST /x|abc");
    fixture.passes(&post("TRANSFER-encoding:\t CHUNKED \r\n", chunks), "POST /x|abc");
}

/// A field whose name resembles a framing field is an ordinary field. A name with an underscore is dropped,
/// because backends may read the underscore as a hyphen.
#[test]
fn header_that_resembles_a_framing_header_is_not_used_for_framing() {
    let fixture = Fixture::open();
    for fields in ["Content_Length: 44\r\n", "Transfer_Encoding: chunked\r\n", "X-Content-Length: 44\r\n"] {
        let received = fixture.forwards(&post(fields, ""));
        assert_eq!(received.brief(), "POST /x", "{fields}");
        assert!(!received.head.contains('_'), "{received:?}");
    }
}

/// CL.0: a body is read for methods that rarely have one, and the bytes after it are the next request.
#[test]
fn body_is_read_for_every_method() {
    let fixture = Fixture::open();
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        let bytes = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        fixture.passes(bytes.as_bytes(), &format!("{method} /x|{}", inner.as_bytes().escape_ascii()));
        let bytes = format!(
            "{method} /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        );
        fixture.passes(bytes.as_bytes(), &format!("{method} /x|{}", inner.as_bytes().escape_ascii()));
    }
    // Also when the balancer responds itself.
    let fixture = Fixture::with("routes: [{ path: /ok, pool: p }]\n", crate::lab::recorder::Recorder::start());
    let outcome = fixture.send(
        format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()).as_bytes(),
        1,
    );
    assert_eq!((outcome.statuses.as_slice(), outcome.received.len()), (&[404][..], 0), "{outcome:#?}");
}
