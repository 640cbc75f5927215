//! Reads method, target and host from rejected bytes, for the access log.

use super::grammar::trim;

/// The longest method, host and target that are logged.
const METHOD_MAX: usize = 32;
const HOST_MAX: usize = 255;
const TARGET_MAX: usize = 1024;

/// The probable parts of a rejected request. Each is printable ASCII without spaces, cut before the first other
/// byte, and empty if it was not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeekedHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The target without its query, which may contain secrets.
    pub target: &'a str,
    /// The value of the first Host.
    pub host: &'a str,
}

/// Peeks at rejected bytes. The result is not validated.
#[must_use]
pub fn peek(bytes: &[u8]) -> PeekedHead<'_> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let mut lines = bytes.get(start..).unwrap_or_default().split(|byte| *byte == b'\n');
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let method = printable(words.next().unwrap_or_default(), METHOD_MAX);
    let target = printable(words.next().unwrap_or_default(), TARGET_MAX);
    let host = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        trim(name).eq_ignore_ascii_case(b"host").then(|| trim(value.get(1..).unwrap_or_default()))
    });
    PeekedHead {
        method,
        target: target.split(['?', '#']).next().unwrap_or_default(),
        host: printable(host.unwrap_or_default(), HOST_MAX),
    }
}

/// The printable prefix.
fn printable(bytes: &[u8], max: usize) -> &str {
    let length = bytes.iter().take(max).position(|byte| !byte.is_ascii_graphic()).unwrap_or(bytes.len().min(max));
    bytes.get(..length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_parts_of_rejected_bytes_are_extracted() {
        for (bytes, method, target, host) in [
            (&b""[..], "", "", ""),
            (b"GET /a?secret HTTP/1.1\r\nX: y\r\nHOST:  a.b:80 \r\nHost: c\r\n\r\n", "GET", "/a", "a.b:80"),
            (b"\r\n\r\nPOST   /a b\nhost : x", "POST", "/a", "x"),
            (b"GE\x1bT /\xff HTTP/1.1\r\nHost: a\0b", "GE", "/", "a"),
            (b"\x16\x03\x01\x02\x00", "", "", ""),
            (b"GET", "GET", "", ""),
            (b"GET /\r\n", "GET", "/", ""),
            (b"\xff\xfe\n:\nHost", "", "", ""),
        ] {
            assert_eq!(peek(bytes), PeekedHead { method, target, host }, "{}", bytes.escape_ascii());
        }
        let long = [b"M".repeat(100), b" /".to_vec(), b"t".repeat(5000)].concat();
        assert_eq!(peek(&long).method.len(), METHOD_MAX);
        assert_eq!(peek(&long).target.len(), TARGET_MAX);
    }
}
