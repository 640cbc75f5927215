//! Renamed keys and values: `l7lb check` suggests the new name for an old one.
//!
//! To add a rename, add one line to [`RENAMED`].

/// Old and new names. A rename applies wherever the new name is valid.
const RENAMED: &[(&str, &str)] = &[("tries", "attempts"), ("try", "attempt"), ("silent", "unresponsive")];

/// The new name of `old`, if it is one of the names in `known`.
pub(super) fn new_name<'a>(old: &str, known: &[&'a str]) -> Option<&'a str> {
    let (_, new) = RENAMED.iter().find(|(name, _)| *name == old)?;
    known.iter().copied().find(|name| name == new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_key_is_found_only_where_its_new_name_is_valid() {
        assert_eq!(new_name("tries", &["on", "attempts"]), Some("attempts"));
        assert_eq!(new_name("try", &["connect", "attempt"]), Some("attempt"));
        assert_eq!(new_name("tries", &["connect", "attempt"]), None);
        assert_eq!(new_name("attempts", &["attempts"]), None);
    }
}
