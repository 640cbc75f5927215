//! Escapes values of clients and backends, so that they cannot forge lines or fields.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a value needs no quotes in a line of text.
pub(super) fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| PLAIN.get(usize::from(byte)) == Some(&true))
}

/// The bytes that need no quotes. A table costs half as much as comparisons.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and rejects an index that is out of bounds")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\');
        byte += 1;
    }
    plain
};

/// Bytes as text, in which invalid UTF-8 is replaced.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    // `from_utf8_lossy` alone costs several times as much for valid bytes.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Whether a character could end a line, or change the order of others, when the log is viewed.
fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The bytes that stay as they are between quotes: those of [`PLAIN`], and spaces.
fn is_kept(byte: u8) -> bool {
    byte == b' ' || PLAIN.get(usize::from(byte)) == Some(&true)
}

/// Adds a value with `\"`, `\\` and `\uXXXX`, as in a JSON string. Writing to a `String` cannot fail, hence the `ok`s.
pub(super) fn push_escaped(line: &mut String, value: &str) {
    let mut rest = value;
    loop {
        // Most values are one such run, which costs a tenth of its characters.
        let end = rest.bytes().position(|byte| !is_kept(byte)).unwrap_or(rest.len());
        let (run, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        line.push_str(run);
        let mut characters = after.chars();
        let Some(character) = characters.next() else { return };
        match character {
            '"' | '\\' => {
                line.push('\\');
                line.push(character);
            }
            c if is_misleading(c) => {
                write!(line, "\\u{:04x}", u32::from(c)).ok();
            }
            c => line.push(c),
        }
        rest = characters.as_str();
    }
}

/// Adds bytes as Apache does: `\"`, `\\`, and `\xHH` for all that is not printable ASCII.
pub(super) fn push_apache(line: &mut String, value: &[u8]) {
    let mut rest = value;
    loop {
        let end = rest.iter().position(|byte| !is_kept(*byte)).unwrap_or(rest.len());
        let (run, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        // The run is ASCII.
        line.push_str(std::str::from_utf8(run).unwrap_or_default());
        let Some((byte, after)) = after.split_first() else { return };
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            _ => {
                write!(line, "\\x{byte:02x}").ok();
            }
        }
        rest = after;
    }
}
