//! Takes bytes from the start of a field value.

/// The bytes of a field value that were not taken yet.
pub(super) struct Scanner<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Takes the bytes before the first one that `matches` refuses.
    pub(super) fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !matches(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// Takes the next byte if it is this one.
    pub(super) fn take_if(&mut self, byte: u8) -> bool {
        let stripped = self.rest.strip_prefix(&[byte]);
        self.rest = stripped.unwrap_or(self.rest);
        stripped.is_some()
    }
}
