//! Where a body ends: one way to say so, said once.

use super::Door;

/// A POST with these fields and this body behind them.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
}

#[test]
fn content_length_is_one_plain_number() {
    let door = Door::open();
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
        ("Content-Length: 18446744073709551616\r\n", "beyond 64 bits"),
        ("Content-Length: 18446744073709551619\r\n", "beyond 64 bits"),
        ("Content-Length: 99999999999999999999999999999999\r\n", "beyond 64 bits"),
    ] {
        door.refuses(&post(fields, "abc"), 400, detail);
    }
    door.passes(&post("Content-Length: 3\r\n", "abc"), "POST /x|abc");
    door.passes(&post("Content-Length:\t 3 \t\r\n", "abc"), "POST /x|abc");
    door.passes(&post("Content-Length: 0\r\n", ""), "POST /x");
    door.passes(&post("", ""), "POST /x");
    let leading = door.forwards(&post("Content-Length: 00003\r\n", "abc"));
    assert_eq!(leading.brief(), "POST /x|abc");
}

#[test]
fn transfer_encoding_is_one_chunked_and_alone() {
    let door = Door::open();
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for (fields, detail) in [
        // CL.TE and TE.CL: two servers that believe different ones see different requests.
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "beside Content-Length"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 13\r\n", "beside Content-Length"),
        ("Content-Length: 0\r\ntransfer-encoding:chunked\r\n", "beside Content-Length"),
        // TE.TE: one of them does not recognise it.
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
        door.refuses(&post(fields, chunks), 400, detail);
    }
    door.refuses(
        format!("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{chunks}").as_bytes(),
        400,
        "in HTTP/1.0",
    );
    door.passes(&post("Transfer-Encoding: chunked\r\n", chunks), "POST /x|abc");
    door.passes(&post("TRANSFER-encoding:\t CHUNKED \r\n", chunks), "POST /x|abc");
}

/// A name that looks like a framing field is a field like any other, and one with an underscore is
/// dropped, since servers behind may read it as a hyphen.
#[test]
fn what_looks_like_framing_is_none() {
    let door = Door::open();
    for fields in ["Content_Length: 44\r\n", "Transfer_Encoding: chunked\r\n", "X-Content-Length: 44\r\n"] {
        let received = door.forwards(&post(fields, ""));
        assert_eq!(received.brief(), "POST /x", "{fields}");
        assert!(!received.head.contains('_'), "{received:?}");
    }
}

/// CL.0: methods that rarely have a body must have theirs read all the same, and what is behind a
/// body is the next request.
#[test]
fn a_body_is_read_whatever_the_method() {
    let door = Door::open();
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        let bytes = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        door.passes(bytes.as_bytes(), &format!("{method} /x|{}", inner.as_bytes().escape_ascii()));
        let bytes = format!(
            "{method} /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        );
        door.passes(bytes.as_bytes(), &format!("{method} /x|{}", inner.as_bytes().escape_ascii()));
    }
    // Also where no backend is asked.
    let door = Door::with("routes: [{ path: /ok, pool: p }]\n", crate::lab::recorder::Recorder::start());
    let outcome = door.send(
        format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()).as_bytes(),
        1,
    );
    assert_eq!((outcome.statuses.as_slice(), outcome.received.len()), (&[404][..], 0), "{outcome:#?}");
}
