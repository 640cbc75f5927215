//! Size limits of heads and bodies.

use super::{Fixture, Recorder, SMUGGLED};

const LIMITS: &str = "routes: [{ path: /, pool: p }]\nrequest_limits: { header_size: 2KiB, header_count: 10, target_size: 100, body_size: 1KiB }\n";

#[test]
fn heads_over_their_size_limits_are_rejected() {
    let fixture = Fixture::with(LIMITS, Recorder::start());
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let fields = |count: usize| (0..count).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    fixture.passes(get(&format!("/{}", "t".repeat(99)), "").as_bytes(), &format!("GET /{}", "t".repeat(99)));
    fixture.rejects(get(&format!("/{}", "t".repeat(100)), "").as_bytes(), 414, "target is too long");
    fixture.rejects(get(&format!("/{}", "t".repeat(3000)), "").as_bytes(), 414, "target is too long");
    fixture.passes(get("/x", &fields(9)).as_bytes(), "GET /x");
    fixture.rejects(get("/x", &fields(10)).as_bytes(), 431, "too many fields");
    fixture.passes(get("/x", &format!("X: {}\r\n", "y".repeat(1900))).as_bytes(), "GET /x");
    fixture.rejects(get("/x", &format!("X: {}\r\n", "y".repeat(2100))).as_bytes(), 431, "header is too large");
    fixture.rejects(get("/x", &format!("{}: y\r\n", "X".repeat(2100))).as_bytes(), 431, "header is too large");
    // Rejected before the end of the head, so that an endless head costs nothing.
    fixture.rejects(
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(5000)).as_bytes(),
        431,
        "header is too large",
    );
    fixture.rejects("M".repeat(3000).as_bytes(), 431, "header is too large");
}

#[test]
fn bodies_over_their_size_limit_are_rejected() {
    let fixture = Fixture::with(LIMITS, Recorder::start());
    let post = |framing: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
    let kibibyte = "b".repeat(1024);
    fixture.passes(post("Content-Length: 1024", &kibibyte).as_bytes(), &format!("POST /x|{kibibyte}"));
    let chunked = post("Transfer-Encoding: chunked", &format!("400\r\n{kibibyte}\r\n0\r\n\r\n"));
    fixture.passes(chunked.as_bytes(), &format!("POST /x|{kibibyte}"));
    // A request whose Content-Length is too large never reaches a backend, whether its body arrives or not.
    for request in [
        post("Content-Length: 1025", &"b".repeat(1025)),
        post("Content-Length: 1025", ""),
        post("Content-Length: 18446744073709551615", ""),
    ] {
        let outcome = fixture.send(&[request.as_bytes(), SMUGGLED].concat(), 1);
        assert_eq!((outcome.statuses.as_slice(), outcome.has_close), (&[413][..], true), "{outcome:#?}");
        assert!(outcome.received.is_empty() && outcome.lines[0].contains("cause=body_too_large"), "{outcome:#?}");
    }
    let outcome = fixture.send(
        &[
            post("Transfer-Encoding: chunked", &format!("400\r\n{kibibyte}\r\n1\r\nb\r\n0\r\n\r\n")).as_bytes(),
            SMUGGLED,
        ]
        .concat(),
        1,
    );
    assert_eq!((outcome.statuses.as_slice(), outcome.has_close), (&[413][..], true), "{outcome:#?}");
    assert!(outcome.lines[0].contains("cause=body_too_large"), "{outcome:#?}");
    assert!(outcome.received.iter().all(|received| !received.head.contains("smuggled")), "{outcome:#?}");
}
