//! Request targets: their legal bytes, and normalised paths.
//!
//! One path can be written in several ways (`/a`, `/%61`, `/b/../a`). If the balancer routes by one form and
//! the backend interprets another, a rule at the balancer can be bypassed. So a path is normalised before
//! routing, and the normalised path is forwarded, for HTTP/1 and HTTP/2 alike (RFC 3986 §6.2.2):
//!
//! - dot segments are removed (§5.2.4), also those written with `%2e`; a path that leaves the root is rejected,
//!   because normal clients do not send it;
//! - percent-encoded characters that need no encoding are decoded; the remaining ones have capital digits;
//! - characters that RFC 3986 does not allow in a path, and bytes beyond ASCII, are percent-encoded, as WHATWG URL
//!   parsers and RFC 3987 do;
//! - controls, spaces and `#` are rejected, as is a `%` without two hexadecimal digits;
//! - empty segments are kept: `//` and `/` are different paths.
//!
//! A query does not select a route. It is forwarded as it is, except that bytes beyond ASCII and `"`, `<` and `>`,
//! which the `http` crate refuses, are percent-encoded ([`encode_query`]).
//!
//! `%2f`, `%5c` and `%00` are kept and reported as [`Encoded`], because backends interpret them differently. `%2f` and
//! `%5c` pass if each reading of the path ([`readings`]) selects the same route; `%00` passes only if the route allows
//! it.

use std::borrow::Cow;

use crate::http::rejection::DetailedRejection;

/// A normalised path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// The path for routing and forwarding; borrowed if nothing changed. It has no dot segment, and is longer than
    /// the original only if characters were percent-encoded.
    pub path: Cow<'a, str>,
    /// Encoded characters in it that backends interpret differently.
    pub encoded: Encoded,
}

/// Encoded characters that backends interpret differently: those in a path, or those that a route allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// `%2f`: some backends decode it to a slash.
    pub slash: bool,
    /// `%5c`: some backends treat it as a slash.
    pub backslash: bool,
    /// `%00`: some backends end the path there.
    pub nul: bool,
}

impl Encoded {
    /// Whether a route that allows `self` accepts a path with `found`.
    #[must_use]
    pub const fn permits(self, found: Self) -> bool {
        (self.slash || !found.slash) && (self.backslash || !found.backslash) && (self.nul || !found.nul)
    }

    fn record(&mut self, byte: u8) {
        match byte {
            b'/' => self.slash = true,
            b'\\' => self.backslash = true,
            0 => self.nul = true,
            _ => {}
        }
    }
}

/// Normalises a path without its query. `*` (of `OPTIONS *`) is kept.
///
/// # Errors
/// [`crate::http::rejection::Rejection::BadRequest`] for paths that violate the rules of this module.
pub fn normalise(path: &str) -> Result<Normalised<'_>, DetailedRejection> {
    if path == "*" {
        return Ok(Normalised { path: Cow::Borrowed(path), encoded: Encoded::default() });
    }
    let Some(below_root) = path.strip_prefix('/') else {
        return Err(DetailedRejection::bad_request("a path that does not start with a slash"));
    };
    let has_dots = || below_root.split('/').any(|segment| matches!(segment, "." | ".."));
    if path.bytes().all(is_in_paths) && !has_dots() {
        return Ok(Normalised { path: Cow::Borrowed(path), encoded: Encoded::default() });
    }
    check(path.as_bytes())?;
    // An unencoded backslash is percent-encoded below.
    let mut encoded = Encoded { backslash: path.contains('\\'), ..Encoded::default() };
    let mut normal = String::with_capacity(path.len());
    let mut segments = below_root.split('/').peekable();
    while let Some(segment) = segments.next() {
        let before = normal.len();
        normal.push('/');
        decode(segment, &mut normal, &mut encoded);
        let climbs = match normal.get(before + 1..) {
            Some(".") => false,
            Some("..") => true,
            _ => continue,
        };
        normal.truncate(before);
        if climbs {
            let Some(parent) = normal.rfind('/') else {
                return Err(DetailedRejection::bad_request("a path with dot segments that leave the root"));
            };
            normal.truncate(parent);
        }
        if segments.peek().is_none() {
            normal.push('/');
        }
    }
    let path = if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) };
    Ok(Normalised { path, encoded })
}

/// The paths that backends may read in a normalised path with `encoded`: with `%2F`, `%5C`, or both decoded to a slash,
/// and dot segments resolved. `None` for a reading that leaves the root.
pub fn readings(path: &str, encoded: Encoded) -> impl Iterator<Item = Option<String>> {
    let decoded = [(true, false), (false, true), (true, true)];
    let found = move |(slash, backslash): &(bool, bool)| (!slash || encoded.slash) && (!backslash || encoded.backslash);
    decoded.into_iter().filter(found).map(move |(slash, backslash)| {
        // In a checked path, `%` always starts an escape.
        let mut decoded = if slash { path.replace("%2F", "/") } else { path.to_owned() };
        if backslash {
            decoded = decoded.replace("%5C", "/");
        }
        normalise(&decoded).ok().map(|normalised| normalised.path.into_owned())
    })
}

/// Appends a segment whose percent-encodings are complete.
fn decode(segment: &str, normal: &mut String, encoded: &mut Encoded) {
    let mut parts = segment.split('%');
    encode_into(normal, parts.next().unwrap_or_default().as_bytes(), is_in_paths);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        if is_unreserved(byte) {
            normal.push(char::from(byte));
        } else {
            encoded.record(byte);
            normal.push('%');
            normal.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
        }
        encode_into(normal, rest.as_bytes(), is_in_paths);
    }
}

/// Appends bytes, percent-encoded unless `keeps` accepts them, which must accept ASCII only.
fn encode_into(out: &mut String, bytes: &[u8], keeps: fn(u8) -> bool) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in bytes {
        if keeps(*byte) {
            out.push(char::from(*byte));
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// A path with its query, if it has one, in the form that the `http` crate accepts: with each byte percent-encoded
/// that a path or a query must not have. Escapes are kept.
#[must_use]
pub fn encode(path_and_query: &[u8]) -> String {
    let end = path_and_query.iter().position(|byte| *byte == b'?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at_checked(end).unwrap_or_default();
    let mut encoded = String::with_capacity(path_and_query.len() + 16);
    encode_into(&mut encoded, path, |byte| byte == b'%' || is_in_paths(byte));
    encode_into(&mut encoded, query, is_in_queries);
    encoded
}

/// A URL for Location: bytes that a URL must not have are percent-encoded. Escapes are kept.
#[must_use]
pub fn encode_url(url: &[u8]) -> String {
    let mut encoded = String::with_capacity(url.len() + 16);
    encode_into(&mut encoded, url, |byte| byte == b'#' || is_in_queries(byte));
    encoded
}

/// A query without bytes beyond ASCII, `"`, `<` and `>`, which are percent-encoded.
#[must_use]
pub fn encode_query(query: &str) -> Cow<'_, str> {
    if query.bytes().all(is_in_queries) {
        return Cow::Borrowed(query);
    }
    let mut encoded = String::with_capacity(query.len() + 16);
    encode_into(&mut encoded, query.as_bytes(), is_in_queries);
    Cow::Owned(encoded)
}

/// The bytes of a name or a value of a query: `%XX` and `+` decoded. An incomplete escape stays.
#[must_use]
pub fn decode_component(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        match (first, escape(rest)) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                bytes = rest.get(2..).unwrap_or_default();
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

/// A name or a value of a query: bytes that separate parameters or end a query are percent-encoded. Escapes are kept.
#[must_use]
pub fn encode_component(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len() + 16);
    for (at, byte) in text.iter().enumerate() {
        let is_escape = *byte == b'%' && text.get(at + 1..).and_then(escape).is_some();
        let keeps: fn(u8) -> bool = if is_escape { |_| true } else { is_in_components };
        encode_into(&mut encoded, &[*byte], keeps);
    }
    encoded
}

/// The byte of the two hexadecimal digits at the start.
fn escape(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Checks that a path, a query or a target has no controls, spaces and fragments, and complete percent-encodings.
///
/// # Errors
/// [`crate::http::rejection::Rejection::BadRequest`].
pub fn check(text: &[u8]) -> Result<(), DetailedRejection> {
    if let Some(bad) = text.iter().find(|byte| !is_allowed(**byte)) {
        return Err(DetailedRejection::bad_request(match bad {
            b'#' => "a fragment in the target",
            b' ' => "a space in the target",
            _ => "a control character in the target",
        }));
    }
    check_escapes(text)
}

/// Checks that each `%` is followed by two hexadecimal digits.
pub(crate) fn check_escapes(text: &[u8]) -> Result<(), DetailedRejection> {
    for part in text.split(|byte| *byte == b'%').skip(1) {
        if !matches!(part, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()) {
            return Err(DetailedRejection::bad_request("a % without two hexadecimal digits in the target"));
        }
    }
    Ok(())
}

/// Whether a target with this byte is accepted: visible ASCII without the `#` of fragments, which are never sent, and
/// bytes beyond ASCII.
#[must_use]
pub const fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0x80..) && byte != b'#'
}

/// Whether the `http` crate accepts a target with this byte wherever it is. The other allowed bytes are
/// percent-encoded before ([`encode`]).
#[must_use]
pub const fn is_accepted_by_library(byte: u8) -> bool {
    is_in_queries(byte) && byte != b'`' && byte != b'#'
}

/// Whether a query may have a byte.
const fn is_in_queries(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'<' | b'>')
}

/// Whether a name or a value of a query may have a byte.
const fn is_in_components(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b'/' | b':' | b'?' | b'@')
}

/// Whether a path may have a byte: a slash, or a character of RFC 3986 §3.3 other than `%`.
const fn is_in_paths(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
        )
}

/// RFC 3986 §2.3: characters with the same meaning encoded and unencoded.
#[must_use]
pub const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        normalise(text).unwrap().path.into_owned()
    }

    #[test]
    fn equivalent_paths_have_the_same_normal_form() {
        for (sent, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/%2e%2E/c", "/c"),
            ("/a/.%2e/c", "/c"),
            ("/a/%2e/c", "/a/c"),
            ("/%61%7E%2d%5f", "/a~-_"),
            ("/%c3%a9%3a", "/%C3%A9%3A"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("//", "//"),
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/.a", "/.a"),
            ("/..a/...", "/..a/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a;b=1,2/(c)!$&'*+=:@", "/a;b=1,2/(c)!$&'*+=:@"),
        ] {
            assert_eq!(path(sent), normal, "{sent}");
        }
    }

    #[test]
    fn path_that_leaves_the_root_is_rejected() {
        for sent in ["/..", "/../", "/../a", "/a/../..", "/./..", "/%2e%2e", "/.%2E/", "/a/%2e./%2e./x", "//../.."] {
            assert_eq!(normalise(sent).unwrap_err().detail, "a path with dot segments that leave the root", "{sent}");
        }
    }

    #[test]
    fn characters_not_allowed_in_paths_are_percent_encoded() {
        for (sent, normal) in [
            ("/a|b", "/a%7Cb"),
            ("/\"<>\\^`{}[]", "/%22%3C%3E%5C%5E%60%7B%7D%5B%5D"),
            ("/caf\u{e9}/\u{1f600}", "/caf%C3%A9/%F0%9F%98%80"),
            ("/%c3\u{e9}|%7e", "/%C3%C3%A9%7C~"),
            ("/|/../\u{e9}/.", "/%C3%A9/"),
        ] {
            assert_eq!(path(sent), normal, "{sent}");
            assert_eq!(path(normal), normal, "the same path, written in normal form");
        }
        assert_eq!(path("/caf%c3%a9"), path("/caf\u{e9}"), "one path has one form");
        assert!(normalise("/a\\b").unwrap().encoded.backslash, "as if it had been sent encoded");
    }

    #[test]
    fn target_is_encoded_for_the_library_and_escapes_are_kept() {
        for (sent, encoded) in [
            (&b"/a|b?a|b"[..], "/a%7Cb?a|b"),
            (b"/%2f\xff?\xff\xc3\xa9%2f", "/%2f%FF?%FF%C3%A9%2f"),
            (b"/\"<>\\^`{}[]?\"<>\\^`{}[]?'", "/%22%3C%3E%5C%5E%60%7B%7D%5B%5D?%22%3C%3E\\^`{}[]?'"),
            (b"?\xff", "?%FF"),
        ] {
            assert_eq!(encode(sent), encoded, "{}", sent.escape_ascii());
        }
        assert_eq!(encode_query("a=\u{e9}&b=|\""), "a=%C3%A9&b=|%22");
        assert!(matches!(encode_query("a={|}^`\\[]'/?:@"), Cow::Borrowed(_)));
    }

    /// Every byte that is allowed reaches the `http` crate in a form that it accepts.
    #[test]
    fn each_allowed_byte_is_accepted_by_the_library() {
        let uri = |target: &[u8]| http::Uri::try_from(target);
        for byte in (0..=255).filter(|byte| is_allowed(*byte) && !matches!(byte, b'?' | b'%')) {
            for target in [[b'/', byte].as_slice(), &[b'/', b'?', byte]] {
                assert!(!is_accepted_by_library(byte) || uri(target).is_ok(), "{}", target.escape_ascii());
                let encoded = encode(target);
                assert_eq!(uri(encoded.as_bytes()).unwrap().path_and_query().unwrap().as_str(), encoded);
            }
        }
    }

    #[test]
    fn controls_spaces_fragments_and_broken_escapes_are_rejected() {
        for sent in ["", "a", "a/b", "http://a/", "/ "] {
            assert!(normalise(sent).is_err(), "{sent}");
        }
        for sent in ["/#", "/\0", "/\u{7f}", "/\t", "/%", "/%2", "/%g0", "/%0g", "/%%41", "/%+1", "/a%", "/%é"] {
            assert!(normalise(sent).is_err(), "{sent}");
        }
    }

    #[test]
    fn normalised_path_is_borrowed() {
        for sent in ["/", "/a/b", "/.well-known", "//", "/a%2Fb", "/%C3%A9"] {
            assert!(matches!(normalise(sent).unwrap().path, Cow::Borrowed(_)), "{sent}");
        }
    }

    #[test]
    fn ambiguous_encodings_are_reported_and_need_permission() {
        let encoded = |sent| normalise(sent).unwrap().encoded;
        let none = Encoded::default();
        assert_eq!(encoded("/a%20%2525"), none);
        assert_eq!(encoded("/a%2fb"), Encoded { slash: true, ..none });
        assert_eq!(encoded("/a%5Cb"), Encoded { backslash: true, ..none });
        assert_eq!(encoded("/a%00b"), Encoded { nul: true, ..none });
        let all = encoded("/%00%2F%5c");
        assert_eq!(all, Encoded { slash: true, backslash: true, nul: true });
        assert!(none.permits(none) && all.permits(all) && all.permits(none));
        assert!(!none.permits(Encoded { slash: true, ..none }));
        assert!(!Encoded { slash: true, ..none }.permits(Encoded { nul: true, ..none }));
        assert!(!Encoded { slash: true, nul: true, ..none }.permits(all));
        assert!(encoded("/a%2fb/..") == Encoded { slash: true, ..none }, "even in a removed segment");
    }

    #[test]
    fn each_reading_of_encoded_slashes_is_normalised() {
        let read = |sent: &str| {
            let normalised = normalise(sent).unwrap();
            readings(&normalised.path, normalised.encoded).collect::<Vec<_>>()
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(read("/a%20b"), []);
        assert_eq!(read("/a%2fb"), [some("/a/b")]);
        assert_eq!(read("/a\\b%5c"), [some("/a/b/")]);
        assert_eq!(read("/a/..%2fb"), [some("/b")]);
        assert_eq!(read("/a/%2e%2e%5Cb/%2F."), [some("/a/..%5Cb//"), some("/b/%2F."), some("/b//")]);
        assert_eq!(read("/..%2f"), [None]);
        assert_eq!(read("/a%252Fb%5c"), [some("/a%252Fb/")], "an encoded % stays");
    }

    /// Random paths from critical parts, with a fixed seed, keep the three guarantees.
    #[test]
    fn normal_form_is_stable_without_dot_segments_and_longer_only_by_encoding() {
        const PIECES: [&str; 18] = [
            "/", "/", "/", ".", "..", "a", "%2e", "%2E", "%2f", "%5c", "%00", "%61", "%C3", "%25", ";", "2e", "|", "\\",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let mut accepted = 0;
        for _ in 0..50_000 {
            let pieces = (0..random.usize(..9)).map(|_| PIECES[random.usize(..PIECES.len())]);
            let sent = std::iter::once("/").chain(pieces).collect::<String>();
            let Ok(first) = normalise(&sent) else { continue };
            accepted += 1;
            let to_encode = sent.bytes().filter(|byte| matches!(byte, b'|' | b'\\')).count();
            assert!(first.path.len() <= sent.len() + 2 * to_encode, "{sent}");
            let plain = first.path.replace("%2E", ".");
            assert!(!plain.split('/').any(|segment| segment == "." || segment == ".."), "{sent}");
            let second = normalise(&first.path).unwrap();
            assert_eq!(second.path, first.path, "{sent}");
        }
        assert!(accepted > 20_000, "{accepted}");
    }
}
