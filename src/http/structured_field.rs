//! Values of Structured Fields (RFC 9651).

use std::fmt::Write;

/// Adds a string (RFC 9651 §4.1.6). Bytes that it can not contain are percent-encoded.
pub fn push_string(text: &mut String, content: &str) {
    text.push('"');
    for byte in content.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").unwrap_or_default(),
        }
    }
    text.push('"');
}
