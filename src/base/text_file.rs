//! Text files as editors of all systems write them: with a byte-order mark, or in another encoding than UTF-8.

use std::path::Path;

/// The mark that some editors write at the start of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads a file in UTF-8. A byte-order mark is kept; see [`without_mark`].
///
/// # Errors
/// A sentence for the operator, without any part of the file.
pub fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read the file: {e}"))?;
    String::from_utf8(bytes).map_err(|e| not_utf8(e.as_bytes(), e.utf8_error().valid_up_to()))
}

/// Why `bytes` are not UTF-8; the first `valid` of them are.
fn not_utf8(bytes: &[u8], valid: usize) -> String {
    if is_utf16(bytes) {
        return "the file is in UTF-16; save it as UTF-8".to_owned();
    }
    let line = bytes.iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line} is not in UTF-8; save the file as UTF-8")
}

/// Whether the content has the byte-order mark of UTF-16.
#[must_use]
pub fn is_utf16(content: &[u8]) -> bool {
    content.starts_with(&[0xFF, 0xFE]) || content.starts_with(&[0xFE, 0xFF])
}

/// The text after a byte-order mark.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The bytes after a byte-order mark.
#[must_use]
pub fn bytes_without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_removed_and_other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text");
        let read_back = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            read(&file)
        };
        assert_eq!(without_mark(&read_back(b"\xEF\xBB\xBFa: 1").unwrap()), "a: 1");
        assert_eq!(bytes_without_mark(b"\xEF\xBB\xBFa"), b"a");
        assert_eq!(without_mark("a: 1"), "a: 1");
        assert_eq!(read_back(b"\xFF\xFEa\0:\0").unwrap_err(), "the file is in UTF-16; save it as UTF-8");
        assert_eq!(read_back(b"a: 1\nb: \xE9").unwrap_err(), "line 2 is not in UTF-8; save the file as UTF-8");
        assert!(read(&folder.path().join("none")).unwrap_err().starts_with("cannot read the file: "));
    }
}
