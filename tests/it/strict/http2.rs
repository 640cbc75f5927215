//! HTTP/2: requests that would smuggle another request into HTTP/1 are malformed, and never reach an HTTP/1
//! backend.

use std::io::Read;

use super::{Fixture, Received, Recorder};
use crate::lab::frames::{DATA, END_STREAM, Frames, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, request};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port, yaml};

/// How the balancer responded to stream 1.
#[derive(Debug, PartialEq, Eq)]
enum Response {
    Status(u16),
    Reset,
    Goaway,
    Closed,
}

type Field<'a> = (&'a [u8], &'a [u8]);

/// The h2 crate resets the stream without an error that could be logged.
const RESET: &str = "";
/// The h2 crate closes the connection.
const BROKEN: &str = "malformed HTTP/2";
/// Pingora rejects the request.
const MALFORMED: &str = "malformed HTTP/2 request";

impl Fixture {
    /// Sends one request on a connection of its own: HEADERS, then DATA if there is a body.
    fn ask(&self, fields: &[Field<'_>], body: Option<&[u8]>) -> Response {
        let mut frames = Frames::connect(self.port);
        frames.headers(1, body.is_none(), fields);
        if let Some(body) = body {
            frames.send(DATA, END_STREAM, 1, body);
        }
        let response = frames
            .find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.stream == 1);
        match response {
            Some(frame) if frame.kind == HEADERS => Response::Status(frame.status()),
            Some(frame) if frame.kind == RST_STREAM => Response::Reset,
            Some(_) => Response::Goaway,
            None => Response::Closed,
        }
    }

    /// A malformed request is rejected, does not reach the backend, and has an access log line with the reason.
    fn rejects_h2(&self, fields: &[Field<'_>], body: Option<&[u8]>, detail: &str) {
        let before = self.lab.access().len();
        let shown = |(name, value): &Field<'_>| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        let shown: Vec<String> = fields.iter().map(shown).collect();
        let response = self.ask(fields, body);
        let fitting = match detail {
            RESET => response == Response::Reset,
            BROKEN => response == Response::Goaway,
            _ => matches!(response, Response::Status(400..) | Response::Reset),
        };
        assert!(fitting, "{detail}: {response:?} {shown:#?}");
        // A further request gets its response after the malformed one was handled.
        assert_eq!(self.ask(&request(b"GET", b"/after"), None), Response::Status(200), "{shown:#?}");
        let received: Vec<String> = self.backend.take().iter().map(Received::brief).collect();
        assert_eq!(received, ["GET /after"], "{shown:#?}");
        eventually("the line of the further request", PATIENCE, || {
            self.lab.access()[before..].iter().any(|line| line.contains("/after"))
        });
        if detail != RESET {
            eventually("the line of the rejected request", PATIENCE, || {
                self.lab.access()[before..].iter().any(|line| line.contains("detail="))
            });
            let lines = &self.lab.access()[before..];
            assert!(lines.iter().any(|line| line.contains(detail)), "{detail}: {lines:#?}");
        }
    }
}

/// A POST with one of its pseudo-header fields replaced.
fn with<'a>(name: &'a [u8], value: &'a [u8]) -> Vec<Field<'a>> {
    request(b"POST", b"/x").map(|field| if field.0 == name { (name, value) } else { field }).to_vec()
}

#[test]
fn malformed_http2_pseudo_headers_are_rejected_before_a_backend() {
    let fixture = Fixture::open();
    for (name, value, detail) in [
        (&b":path"[..], &b""[..], RESET),
        (b":path", b"x", RESET),
        (b":path", b"http://b/x", RESET),
        (b":path", b"/x y", RESET),
        (b":path", b"/x HTTP/1.1\r\nHost: b\r\n\r\nGET /inner", RESET),
        (b":path", b"/x\r\nx: y", RESET),
        (b":path", b"/x\x00", RESET),
        // The h2 library refuses these: a path with them, a query with quotes or angle brackets, and invalid UTF-8.
        (b":path", b"/x<y", RESET),
        (b":path", b"/x>y", RESET),
        (b":path", b"/x`y", RESET),
        (b":path", b"/x?\"", RESET),
        (b":path", b"/x?<", RESET),
        (b":path", b"/\xff", BROKEN),
        (b":path", b"/x?\xff", BROKEN),
        (b":path", b"/../x", "dot segments that leave the root"),
        (b":path", b"/a%00b", "an encoded character in the path"),
        (b":path", b"/..%2fb", "the path matches another route, or none"),
        (b":path", b"/..\\b", "the path matches another route, or none"),
        (b":path", b"/%zz", "without two hexadecimal digits"),
        (b":path", b"*", "only valid with OPTIONS"),
        (b":method", b"", BROKEN),
        (b":method", b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\nGET", BROKEN),
        (b":method", b"G T", BROKEN),
        (b":method", b"CONNECT", RESET),
        (b":method", b"TRACE", "CONNECT or TRACE"),
        (b":authority", b"", RESET),
        (b":authority", b"a b", RESET),
        (b":authority", b"a/b", RESET),
        (b":authority", b"a\r\nx: y", RESET),
        (b":authority", b"[::1", RESET),
        (b":authority", b"a%00", RESET),
        (b":authority", b"a,b", "a host that is neither"),
        (b":authority", b"u@a", MALFORMED),
        (b":authority", b"a:x", "a port that is not a number"),
        (b":authority", b"a:65536", "a port above 65535"),
        (b":scheme", b"", "the scheme is neither http nor https"),
        (b":scheme", b"ftp", "the scheme is neither http nor https"),
        (b":scheme", b"http://b/x?", RESET),
        (b":scheme", b"http\r\nx: y", RESET),
    ] {
        fixture.rejects_h2(&with(name, value), Some(b"abc"), detail);
    }
    let get = request(b"GET", b"/x");
    fixture.rejects_h2(&get[..3], None, RESET);
    fixture.rejects_h2(&get[1..], None, RESET);
    fixture.rejects_h2(&[get[0], get[1], get[3]], None, MALFORMED);
    for extra in
        [(&b":path"[..], &b"/y"[..]), (b":authority", b"b"), (b":status", b"200"), (b":protocol", b"websocket")]
    {
        fixture.rejects_h2(&[&get[..], &[extra]].concat(), None, RESET);
    }
    fixture.rejects_h2(&[&get[..2], &[(b"x", b"y")], &get[2..]].concat(), None, RESET);
}

#[test]
fn malformed_http2_headers_are_rejected_before_a_backend() {
    let fixture = Fixture::open();
    let smuggle: &[u8] = b"x\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    for (fields, detail) in [
        (&[(&b"host"[..], &b"b"[..])][..], MALFORMED),
        (&[(b"host", b"")], MALFORMED),
        (&[(b"host", b"a"), (b"host", b"a")], MALFORMED),
        (&[(b"x", smuggle)], BROKEN),
        (&[(b"x", b"a\rb")], BROKEN),
        (&[(b"x", b"a\nb")], BROKEN),
        (&[(b"x", b"a\x00b")], BROKEN),
        (&[(b"x\r\ny", b"z")], BROKEN),
        (&[(b"x: y", b"z")], BROKEN),
        (&[(b"x y", b"z")], BROKEN),
        (&[(b"x:", b"z")], BROKEN),
        (&[(b"X", b"z")], BROKEN),
        (&[(b"", b"z")], BROKEN),
        (&[(b"transfer-encoding", b"chunked")], RESET),
        (&[(b"transfer-encoding", b"identity")], RESET),
        (&[(b"connection", b"close")], RESET),
        (&[(b"connection", b"x-forwarded-for")], RESET),
        (&[(b"keep-alive", b"timeout=9")], RESET),
        (&[(b"proxy-connection", b"close")], RESET),
        (&[(b"upgrade", b"h2c")], RESET),
        (&[(b"te", b"gzip")], RESET),
        (&[(b"expect", b"200-ok")], "the expectation"),
        (&[(b"content-length", b"3,3")], RESET),
        (&[(b"content-length", b"3,4")], RESET),
        (&[(b"content-length", b"+3")], RESET),
        (&[(b"content-length", b"3 ")], RESET),
        (&[(b"content-length", b"")], MALFORMED),
        (&[(b"content-length", b"18446744073709551619")], RESET),
        (&[(b"content-length", b"3"), (b"content-length", b"3")], "more than one Content-Length"),
        (&[(b"content-length", b"3"), (b"content-length", b"4")], RESET),
    ] {
        fixture.rejects_h2(&[&request(b"POST", b"/x")[..], fields].concat(), Some(b"abc"), detail);
    }
    fixture.rejects_h2(&[&request(b"POST", b"/x")[..], &[(b"content-length", b"3")]].concat(), None, RESET);
}

#[test]
fn whitespace_around_an_http2_header_value_resets_the_stream_with_protocol_error() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let fixture = Fixture::open();
    for value in [&b" a"[..], b"a ", b"a\t", b" "] {
        let mut frames = Frames::connect(fixture.port);
        frames.headers(1, true, &[&request(b"GET", b"/x")[..], &[(b"x", value)]].concat());
        let frame = frames.find(|frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
        assert!(frame.kind == RST_STREAM && frame.code() == PROTOCOL_ERROR, "{frame:?}");
    }
    assert!(fixture.backend.take().is_empty());
}

#[test]
fn malformed_http2_trailers_end_the_request_before_the_backend_has_it() {
    let (sender, received) = std::sync::mpsc::channel();
    let backend = Scripted::start(move |mut stream| {
        let mut bytes = Vec::new();
        // A reset also counts as the end.
        stream.read_to_end(&mut bytes).ok();
        sender.send(bytes).ok();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    for value in [&b"a\r\nb"[..], b"a\nb", b"a\rb", b"a\x00b"] {
        let mut frames = Frames::connect(port);
        frames.headers(1, false, &request(b"POST", b"/x"));
        frames.send(DATA, 0, 1, b"abc");
        frames.headers(1, true, &[(b"x", value)]);
        let frame = frames.find(|frame| matches!(frame.kind, GOAWAY | RST_STREAM | HEADERS)).unwrap();
        assert!(matches!(frame.kind, GOAWAY | RST_STREAM), "{}: {frame:?}", value.escape_ascii());
        drop(frames);
        while let Ok(bytes) = received.recv_timeout(std::time::Duration::from_millis(200)) {
            assert!(!bytes.ends_with(b"\r\n0\r\n\r\n"), "{}: {}", value.escape_ascii(), bytes.escape_ascii());
        }
    }
}

/// The h2 crate removes them instead of rejecting the request.
#[test]
fn pseudo_headers_in_http2_trailers_do_not_reach_the_backend() {
    let fixture = Fixture::open();
    for trailer in [(&b":path"[..], &b"/y"[..]), (b":status", b"200")] {
        let mut frames = Frames::connect(fixture.port);
        frames.headers(1, false, &request(b"POST", b"/x"));
        frames.send(DATA, 0, 1, b"abc");
        frames.headers(1, true, &[trailer]);
        let frame = frames.find(|frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
        assert_eq!(frame.status(), 200);
        let received = fixture.backend.take();
        assert_eq!(received.iter().map(Received::brief).collect::<Vec<_>>(), ["POST /x|abc"]);
    }
}

/// Content-Length differs from the body: the head may already have been forwarded, but the body is never
/// forwarded as complete, and the backend's connection is not reused.
#[test]
fn http2_body_that_differs_from_content_length_is_never_forwarded_as_complete() {
    let fixture = Fixture::open();
    for length in [&b"4"[..], b"2", b"0", b"40"] {
        let fields = [&request(b"POST", b"/x")[..], &[(b"content-length", length)]].concat();
        assert_eq!(fixture.ask(&fields, Some(b"GET")), Response::Reset, "{}", length.escape_ascii());
        assert_eq!(fixture.ask(&request(b"GET", b"/after"), None), Response::Status(200));
        // The head of the incomplete request may be recorded before or after.
        let received: Vec<Received> = fixture.backend.take();
        let briefs: Vec<String> = received.iter().map(Received::brief).collect();
        assert!(briefs.contains(&"GET /after".to_owned()), "{briefs:?}");
        assert!(briefs.iter().all(|brief| ["GET /after", "POST /x"].contains(&brief.as_str())), "{briefs:?}");
    }
}

#[test]
fn legal_http2_request_is_forwarded_as_legal_http1() {
    let more = "routes: [{ path: /, pool: p }, { path: /admin, pool: p, body_size: 0 }]\nrequest_limits: { body_size: 1KiB, target_size: 100, header_count: 10, header_size: 2KiB }\n";
    let fixture = Fixture::with(more, Recorder::start());
    for (path, received) in [
        (&b"/a/../x?y=/../z"[..], "POST /x?y=/../z|abc"),
        (b"/%61", "POST /a|abc"),
        // A fragment is never forwarded; the h2 crate drops it.
        (b"/x#y", "POST /x|abc"),
        (b"//x", "POST //x|abc"),
        (b"/caf\xc3\xa9|^{}[]\"?\xc3\xa9|^{}[]`\\'", "POST /caf%C3%A9%7C%5E%7B%7D%5B%5D%22?%C3%A9|^{}[]`\\'|abc"),
        (b"/x?\xc3\xa9", "POST /x?%C3%A9|abc"),
        (b"/a%2fb\\c", "POST /a%2Fb%5Cc|abc"),
    ] {
        assert_eq!(fixture.ask(&with(b":path", path), Some(b"abc")), Response::Status(200));
        let all = fixture.backend.take();
        assert_eq!(all.iter().map(Received::brief).collect::<Vec<_>>(), [received]);
        assert_eq!(all[0].values("host"), ["a"]);
    }
    for path in [&b"/admin"[..], b"/x/../admin", b"/%61dmin", b"/x/%2e%2e/admin"] {
        assert_eq!(fixture.ask(&with(b":path", path), Some(b"abc")), Response::Status(413), "{}", path.escape_ascii());
    }
    fixture.backend.take();
    let fields: &[Field<'_>] = &[
        (b"a_b", b"1"),
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"te", b"trailers"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"host", b"a"),
    ];
    assert_eq!(fixture.ask(&[&request(b"GET", b"/x")[..], fields].concat(), None), Response::Status(200));
    // Parts of aborted requests may arrive late.
    let all = fixture.backend.take();
    let received = all.iter().find(|received| received.head.starts_with("GET /x ")).unwrap();
    assert!(received.values("a_b").is_empty() && received.values("te").is_empty(), "{received:?}");
    assert_eq!(received.values("x-forwarded-for"), ["127.0.0.1"], "{received:?}");
    assert_eq!(received.values("host"), ["a"], "{received:?}");
    assert_eq!(received.values("cookie").join("; "), "a=1; b=2", "{received:?}");
}

#[test]
fn http2_request_over_a_size_limit_is_rejected() {
    let more = "routes: [{ path: /, pool: p }]\nrequest_limits: { body_size: 1KiB, target_size: 100, header_count: 10, header_size: 2KiB }\n";
    let fixture = Fixture::with(more, Recorder::start());
    let long = [b"/", "t".repeat(100).as_bytes()].concat();
    assert_eq!(fixture.ask(&with(b":path", &long), Some(b"abc")), Response::Status(414));
    let value = "v".repeat(1970);
    let fields = [
        &request(b"GET", b"/x")[..],
        &[(b"x", value.as_bytes()), (b"y", b"0123456789012345678901234567890123456789012345678901234567890123456789")],
    ]
    .concat();
    let response = fixture.ask(&fields, None);
    assert!(matches!(response, Response::Status(431) | Response::Reset), "{response:?}");
    let many: Vec<Field<'_>> = (0..11).map(|_| (&b"x"[..], &b"y"[..])).collect();
    assert_eq!(fixture.ask(&[&request(b"GET", b"/x")[..], &many].concat(), None), Response::Status(431));
    let kibibyte = [b'b'; 1025];
    assert_eq!(fixture.ask(&with(b":path", b"/x"), Some(&kibibyte)), Response::Status(413), "without Content-Length");
    let oversized = [&request(b"POST", b"/x")[..], &[(b"content-length", b"1025")]].concat();
    fixture.backend.take();
    assert_eq!(fixture.ask(&oversized, Some(&kibibyte)), Response::Status(413), "with Content-Length");
    let announced = |received: &Received| received.values("content-length") == ["1025"];
    assert!(!fixture.backend.take().iter().any(announced), "a body announced as too large reaches no backend");
}
