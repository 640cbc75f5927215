//! What must hold for every input. The fuzzer looks for an input for which it does not, and
//! `tests/corpus.rs` proves it for the inputs that were worth keeping.
//!
//! A property is named like its target in `fuzz_targets` and its folder in `corpus`.

#[path = "bodies/filters.rs"]
pub mod filters;
#[path = "bodies/frame_meter.rs"]
pub mod frame_meter;
#[path = "bodies/proxy_protocol.rs"]
pub mod proxy_protocol;

use std::net::IpAddr;
use std::time::Instant;

use l7lb::config::load;
use l7lb::decision::snapshot::Snapshot;
use l7lb::filter::htpasswd::{Hash, Users};
use l7lb::http::client_address::{TrustedProxies, canonical};
use l7lb::http::h1::{Body, Chunk, Chunked, DetailedRejection, Head, HeadReader, encode_target, parse_request, peek};
use l7lb::http::request_limits::RequestLimits;
use l7lb::http::target;

/// A property: it panics if it does not hold.
pub type Property = fn(&[u8]);

/// All of them by name.
pub const ALL: [(&str, Property); 11] = [
    ("http1_head", http1_head),
    ("http1_chunked", http1_chunked),
    ("target", target),
    ("forwarded_for", forwarded_for),
    ("config", config),
    ("htpasswd", htpasswd),
    ("variables", filters::variables),
    ("accept_encoding", filters::accept_encoding),
    ("rewritten_path", filters::rewritten_path),
    ("proxy_protocol", proxy_protocol::proxy_protocol),
    ("frame_meter", frame_meter::frame_meter),
];

/// Heads: the answer does not depend on how the bytes arrive, and Pingora's parser reads what we took
/// as we did.
pub fn http1_head(data: &[u8]) {
    let generous =
        RequestLimits { header_size: 64 * 1024, header_count: 128, target_size: 8 * 1024, body_size: u64::MAX };
    let small = RequestLimits { header_size: 100, header_count: 2, target_size: 20, body_size: 0 };
    for limits in [generous, small] {
        let at_once = HeadReader::default().inspect(data, &limits);
        assert_eq!(at_once, dribbled_head(data, &limits));
        if let Ok(Some(head)) = at_once {
            assert!(head.length - head.start <= limits.header_size as usize);
            assert!(head.fields <= limits.header_count && head.target.len() <= limits.target_size as usize);
            if head.encode_target {
                same_when_encoded(data, head);
            } else {
                same_as_pingora(data, &head);
            }
        }
    }
    let seen = peek(data);
    for text in [seen.method, seen.target, seen.host] {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    }
}

fn dribbled_head(data: &[u8], limits: &RequestLimits) -> Result<Option<Head>, DetailedRejection> {
    let mut reader = HeadReader::default();
    for length in 0..data.len() {
        let answer = reader.inspect(&data[..length], limits);
        if answer != Ok(None) {
            return answer;
        }
    }
    reader.inspect(data, limits)
}

/// A target with bytes that the `http` crate refuses is encoded; the rest of the head stays the same.
fn same_when_encoded(data: &[u8], head: Head) {
    let alone = &data[head.start..head.length];
    let mut encoded = head.clone();
    let Ok(bytes) = encode_target(alone, &mut encoded) else { return };
    assert!(!encoded.encode_target && encoded.body == head.body && encoded.fields == head.fields);
    let all = [&data[..head.start], &bytes].concat();
    assert_eq!(all.len(), encoded.length);
    assert_eq!(HeadReader::default().inspect(&all, &BOUNDLESS), Ok(Some(encoded.clone())));
    assert!(parse_request(&bytes.freeze(), &encoded).is_ok());
    same_as_pingora(&all, &encoded);
}

/// Limits that no input of the fuzzer exceeds.
const BOUNDLESS: RequestLimits =
    RequestLimits { header_size: 1 << 30, header_count: 128, target_size: 1 << 30, body_size: u64::MAX };

fn same_as_pingora(data: &[u8], head: &Head) {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(data), Ok(httparse::Status::Complete(head.length)));
    assert_eq!(request.method.map(str::as_bytes), data.get(head.method.clone()));
    assert_eq!(request.path.map(str::as_bytes), data.get(head.target.clone()));
    assert_eq!(request.version, Some(u8::from(head.version_1_1)));
    assert_eq!(request.headers.len(), head.fields);
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect()
    };
    let host = head.host.clone().map(|place| &data[place]);
    assert_eq!(values("host"), host.into_iter().collect::<Vec<_>>());
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match head.body {
        Body::None => assert!(lengths.is_empty() && codings.is_empty()),
        Body::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        Body::Length(length) => {
            let told = str::from_utf8(lengths[0]).unwrap().parse();
            assert!(lengths.len() == 1 && codings.is_empty() && told == Ok(length));
        }
    }
}

/// Chunked bodies: likewise.
pub fn http1_chunked(data: &[u8]) {
    let at_once = Chunked::default().advance(data);
    assert_eq!(at_once, followed(data.chunks(1)));
    assert_eq!(at_once, followed(data.chunks(data.len() / 2 + 1)));
    match at_once {
        Ok(Chunk { consumed, data: bytes, done: true }) => assert_eq!(plain_reading(data), (consumed, bytes)),
        Ok(Chunk { consumed, .. }) => assert_eq!(consumed, data.len()),
        Err(_) => {}
    }
}

fn followed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Chunk, DetailedRejection> {
    let mut chunked = Chunked::default();
    let mut sum = Chunk { consumed: 0, data: 0, done: false };
    for piece in pieces {
        let chunk = chunked.advance(piece)?;
        sum = Chunk { consumed: sum.consumed + chunk.consumed, data: sum.data + chunk.data, done: chunk.done };
    }
    Ok(sum)
}

/// Where a legal body ends, and how much data it has, as Pingora's parser sees it.
fn plain_reading(body: &[u8]) -> (usize, u64) {
    let (mut at, mut sum) = (0, 0);
    loop {
        let Ok(httparse::Status::Complete((length, size))) = httparse::parse_chunk_size(&body[at..]) else {
            panic!("Pingora does not read the size at {at}");
        };
        at += length;
        if size == 0 {
            break;
        }
        sum += size;
        at += usize::try_from(size).unwrap();
        assert_eq!(&body[at..at + 2], b"\r\n");
        at += 2;
    }
    let mut headers = vec![httparse::EMPTY_HEADER; 4096];
    match httparse::parse_headers(&body[at..], &mut headers) {
        Ok(httparse::Status::Complete((length, _))) => (at + length, sum),
        other => panic!("Pingora does not read the trailers at {at}: {other:?}"),
    }
}

/// Paths: one form, stable, without dot segments, of legal characters, and what RFC 3986 §5.2.4 says.
pub fn target(data: &[u8]) {
    let Ok(path) = str::from_utf8(data) else { return };
    let Ok(normalised) = target::normalise(path) else { return };
    let normal = &*normalised.path;
    assert!(normal.len() <= 3 * path.len());
    assert!(normal.bytes().all(|byte| byte == b'%' || is_legal_in_paths(byte)));
    assert!(!normal.split('/').any(|segment| matches!(&*segment.replace("%2E", "."), "." | "..")));
    assert_eq!(target::normalise(normal).unwrap().path, normal);
    if path != "*" {
        assert_eq!(normal, without_dot_segments(&decoded(path)));
    }
}

/// RFC 3986 §3.3, without `%`.
fn is_legal_in_paths(byte: u8) -> bool {
    target::is_unreserved(byte) || b"/:@!$&'()*+,;=".contains(&byte)
}

/// The path with unreserved characters decoded, capital escapes, and other characters encoded.
fn decoded(path: &str) -> String {
    let encoded: String = path
        .bytes()
        .map(|byte| match byte {
            b'%' => "%".to_owned(),
            byte if is_legal_in_paths(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let mut parts = encoded.split('%');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap();
        if target::is_unreserved(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text.push_str(&part[2..]);
    }
    text
}

/// RFC 3986 §5.2.4 to the letter, for paths that begin with a slash.
fn without_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input.starts_with("/./") || input == "/." {
            input = format!("/{}", input.get(3..).unwrap_or_default());
        } else if input.starts_with("/../") || input == "/.." {
            input = format!("/{}", input.get(4..).unwrap_or_default());
            output.truncate(output.rfind('/').expect("what dot segments that leave the root is refused"));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |slash| slash + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}

/// `X-Forwarded-For`, one header line per input line: addresses to the left of an untrusted hop are ignored.
pub fn forwarded_for(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let lines: Vec<&[u8]> = text.split('\n').map(str::as_bytes).collect();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
    let (proxy, client) = (ip("10.0.0.1"), ip("203.0.113.9"));

    assert_eq!(TrustedProxies::default().client_by_lines(proxy, lines.iter().copied()), proxy);
    assert_eq!(trusted.client_by_lines(client, lines.iter().copied()), client);
    let walked = trusted.client_by_lines(proxy, lines.iter().copied());
    assert_eq!(walked, canonical(walked));
    assert_eq!(
        walked,
        trusted.client_by_lines(proxy, std::iter::once(lines.join(&b',').as_slice())),
        "lines are one list"
    );
    for end in ["203.0.113.9", "203.0.113.9:4711, [2001:db8::7]:80", "::ffff:203.0.113.9 ,10.9.9.9"] {
        let appended = format!("{text},{end}");
        assert_eq!(trusted.client_by_lines(proxy, appended.split('\n').map(str::as_bytes)), client);
        assert_eq!(trusted.client_by_lines(proxy, lines.iter().copied().chain([end.as_bytes()])), client);
    }
}

/// Configurations: any text is good and can be built, or has faults that can be told.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let variable = |name: &str| (name.len() % 2 == 1).then(|| "127.0.0.1:80".to_owned());
    match load::parse(text, "fuzz.yaml", &variable) {
        Ok(mut checked) => {
            // Each takes megabytes.
            checked.rate_limit = None;
            checked.routes.iter_mut().for_each(|route| route.rate_limit = None);
            if let Err(e) = Snapshot::build(&checked, None, Instant::now()) {
                panic!("what was proved consistent cannot be built: {e}");
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            for diagnostic in diagnostics {
                assert!(!diagnostic.to_string().is_empty());
            }
        }
    }
}

/// Files with users: a file has allowed hashes only, or faults that name a line and show no part of a hash.
pub fn htpasswd(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        assert!(Users::parse(data.to_vec()).is_err());
        return;
    };
    let lines = || text.lines().filter(|line| !line.trim_end().is_empty() && !line.starts_with('#'));
    match Users::parse(data.to_vec()) {
        Ok(users) => {
            assert_eq!(users.count(), lines().count());
            for (name, hash) in lines().map(|line| line.trim_end().split_once(':').unwrap()) {
                assert_eq!(users.get(name).unwrap().hash, Hash::parse(hash).unwrap());
            }
        }
        Err(faults) => assert!(faults.starts_with("line ") && lines().count() > 0, "{faults}"),
    }
}
