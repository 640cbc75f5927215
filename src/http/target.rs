//! Request targets: their legal bytes, and normalised paths.
//!
//! One path can be written in several ways (`/a`, `/%61`, `/b/../a`). If the balancer routes by one form and
//! the backend interprets another, a rule at the balancer can be bypassed. So a path is normalised before
//! routing, and the normalised path is forwarded, for HTTP/1 and HTTP/2 alike (RFC 3986 §6.2.2):
//!
//! - dot segments are removed (§5.2.4), also those written with `%2e`; a path that leaves the root is rejected,
//!   because normal clients do not send it;
//! - percent-encoded characters that need no encoding are decoded; the remaining ones have capital digits;
//! - characters that RFC 3986 does not allow unencoded are rejected, as is a `%` without two hexadecimal
//!   digits;
//! - empty segments are kept: `//` and `/` are different paths.
//!
//! `%2f`, `%5c` and `%00` are kept and reported as [`Encoded`]: backends interpret them differently, so only a
//! route may allow them.

use std::borrow::Cow;

use crate::http::rejection::DetailedRejection;

/// A normalised path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// The path for routing and forwarding; borrowed if nothing changed. It has no dot segment and is never
    /// longer than the original.
    pub path: Cow<'a, str>,
    /// Encoded characters in it that only a route may allow.
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
    check(path.as_bytes())?;
    if !path.contains('%') && !below_root.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(Normalised { path: Cow::Borrowed(path), encoded: Encoded::default() });
    }
    let mut encoded = Encoded::default();
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

/// Appends a segment whose percent-encodings are complete.
fn decode(segment: &str, normal: &mut String, encoded: &mut Encoded) {
    let mut parts = segment.split('%');
    normal.push_str(parts.next().unwrap_or_default());
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
        normal.push_str(rest);
    }
}

/// Checks that a path, a query or a target has only bytes that RFC 3986 allows, and complete percent-encodings.
/// Brackets are allowed anywhere: queries commonly have them unencoded.
///
/// # Errors
/// [`crate::http::rejection::Rejection::BadRequest`].
pub fn check(text: &[u8]) -> Result<(), DetailedRejection> {
    if let Some(bad) = text.iter().find(|byte| !is_allowed(**byte)) {
        return Err(DetailedRejection::bad_request(match bad {
            b'#' => "a fragment in the target",
            0x80.. => "a non-ASCII byte in the target",
            0..b' ' | 0x7f => "a control character in the target",
            _ => "a character in the target that must be percent-encoded",
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

/// Whether a byte is allowed in a target: the reserved and unreserved characters of RFC 3986 and `%`, without
/// the `#` of fragments, which are never sent.
#[must_use]
pub const fn is_allowed(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'/'
                | b':'
                | b';'
                | b'='
                | b'?'
                | b'@'
                | b'['
                | b']'
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
    fn characters_not_allowed_by_rfc_3986_are_rejected() {
        for sent in ["", "a", "a/b", "http://a/", "/ ", "/\"", "/<", "/>", "/\\", "/^", "/`", "/{", "/|", "/}"] {
            assert!(normalise(sent).is_err(), "{sent}");
        }
        for sent in ["/é", "/#", "/\0", "/\u{7f}", "/\t", "/%", "/%2", "/%g0", "/%0g", "/%%41", "/%+1", "/a%", "/%é"]
        {
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

    /// Random paths from critical parts, with a fixed seed, keep the three guarantees.
    #[test]
    fn normal_form_is_stable_without_dot_segments_and_never_longer() {
        const PIECES: [&str; 16] =
            ["/", "/", "/", ".", "..", "a", "%2e", "%2E", "%2f", "%5c", "%00", "%61", "%C3", "%25", ";", "2e"];
        let mut random = fastrand::Rng::with_seed(7);
        let mut accepted = 0;
        for _ in 0..50_000 {
            let pieces = (0..random.usize(..9)).map(|_| PIECES[random.usize(..PIECES.len())]);
            let sent = std::iter::once("/").chain(pieces).collect::<String>();
            let Ok(first) = normalise(&sent) else { continue };
            accepted += 1;
            assert!(first.path.len() <= sent.len(), "{sent}");
            let plain = first.path.replace("%2E", ".");
            assert!(!plain.split('/').any(|segment| segment == "." || segment == ".."), "{sent}");
            let second = normalise(&first.path).unwrap();
            assert_eq!(second.path, first.path, "{sent}");
        }
        assert!(accepted > 20_000, "{accepted}");
    }
}
