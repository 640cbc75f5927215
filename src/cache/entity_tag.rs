//! Entity tags: lists of them, and their comparison (RFC 9110 §8.8.3).

/// An entity tag of a field value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityTag<'a> {
    /// `"..."` or `W/"..."`.
    Valid {
        /// Whether it is a weak validator.
        weak: bool,
        /// The text between the quotes.
        opaque: &'a [u8],
    },
    /// Something else. It matches only the same bytes.
    Invalid(&'a [u8]),
}

impl<'a> EntityTag<'a> {
    /// Reads the value of an ETag field.
    #[must_use]
    pub fn read(value: &'a [u8]) -> Self {
        let value = value.trim_ascii();
        match first(value) {
            Some((tag, [])) => tag,
            _ => Self::Invalid(value),
        }
    }

    /// The strong comparison (§8.8.3.2): both are strong and equal.
    #[must_use]
    pub fn matches_strongly(&self, other: &Self) -> bool {
        self.is_strong() && self == other
    }

    /// The weak comparison (§8.8.3.2): equal, whether weak or strong. A tag without quotes, which some servers and
    /// clients send, matches the same text.
    #[must_use]
    pub fn matches_weakly(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Valid { opaque, .. }, Self::Valid { opaque: other, .. } | Self::Invalid(other)) => opaque == other,
            (Self::Invalid(text), Self::Valid { opaque, .. }) => text == opaque,
            _ => self == other,
        }
    }

    /// Whether this is a strong validator.
    #[must_use]
    pub const fn is_strong(&self) -> bool {
        matches!(self, Self::Valid { weak: false, .. })
    }
}

/// The members of a list of entity tags. A member that is no entity tag ends at the next comma.
pub fn list(value: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return None;
        }
        if let Some((tag, after)) = first(rest)
            && matches!(after.trim_ascii_start(), [] | [b',', ..])
        {
            rest = after;
            return Some(tag);
        }
        let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
        let (member, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(EntityTag::Invalid(member.trim_ascii_end()))
    })
}

/// The entity tag at the start of `text`, and what follows. An opaque tag has no escapes, whitespace and controls.
fn first(text: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (weak, quoted) = match text.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let below = quoted.strip_prefix(b"\"")?;
    let end = below.iter().position(|byte| *byte == b'"')?;
    let (opaque, after) = below.split_at_checked(end)?;
    let is_opaque = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    opaque.iter().all(is_opaque).then_some((EntityTag::Valid { weak, opaque }, after.get(1..)?))
}

#[cfg(test)]
#[path = "entity_tag_tests.rs"]
mod tests;
