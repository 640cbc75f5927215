//! Classes of bytes in one table, so that a scan costs one load per byte.

use crate::http::target;

/// A class of bytes.
#[derive(Clone, Copy)]
pub(super) struct Class(u8);

/// RFC 9110 §5.6.2: methods, field names, parameters.
pub(super) const TOKEN: Class = Class(1);
/// RFC 9110 §5.5: field values, including spaces, tabs and bytes beyond ASCII.
pub(super) const VALUE: Class = Class(2);
/// Bytes of a request target that need no percent-encoding before the `http` crate reads it.
pub(super) const TARGET: Class = Class(4);

const TABLE: [u8; 256] = table();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, which would fail")]
const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        if is_token(byte) {
            table[byte as usize] |= TOKEN.0;
        }
        if matches!(byte, b'\t' | b' '..=b'~' | 0x80..) {
            table[byte as usize] |= VALUE.0;
        }
        if target::is_accepted_by_library(byte) {
            table[byte as usize] |= TARGET.0;
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

impl Class {
    /// Whether a byte belongs to the class.
    pub(super) fn has(self, byte: u8) -> bool {
        TABLE.get(usize::from(byte)).is_some_and(|classes| classes & self.0 != 0)
    }

    /// The number of leading bytes that belong to the class.
    pub(super) fn run(self, bytes: &[u8]) -> usize {
        bytes.iter().position(|byte| !self.has(*byte)).unwrap_or(bytes.len())
    }
}

/// The value without leading and trailing spaces and tabs.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}
