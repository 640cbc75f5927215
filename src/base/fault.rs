//! Faults in a configuration: the place, the problem, and a hint.
//!
//! Faults are collected rather than returned one by one, so that all of them are reported together.

use std::fmt;

/// A position in the configuration, such as `pools.api-a.backends[1].address`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(String);

impl Place {
    /// The root of the configuration.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The value of `key` in the mapping here. A key that is not a plain word is quoted.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let key = if plain { key.to_owned() } else { format!("{key:?}") };
        match self.0.as_str() {
            "" => Self(key),
            parent => Self(format!("{parent}.{key}")),
        }
    }

    /// The element `index` (from 0) of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A place from its text, the inverse of [`Place::as_str`].
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The place as in messages; empty at the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(file)" } else { &self.0 })
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The place.
    pub place: Place,
    /// The problem, as a sentence without a full stop.
    pub problem: String,
    /// How to correct it; empty if there is no hint.
    pub hint: String,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault.
    pub fn add(&mut self, place: Place, problem: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Fault { place, problem: problem.into(), hint: hint.into() });
    }

    /// What `check` makes, unless it adds a fault.
    pub fn unless_added<T>(&mut self, check: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let before = self.len();
        let made = check(self);
        (self.len() == before).then_some(made)
    }

    /// The number of faults.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in the order in which they were added.
    #[must_use]
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

/// The known word nearest to `word`, if one is similar enough.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3 + 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_written_as_a_path() {
        let place = Place::root().key("pools").key("api-a").key("backends").index(1).key("address");
        assert_eq!(place.to_string(), "pools.api-a.backends[1].address");
        assert_eq!(Place::root().key("a.b").to_string(), "\"a.b\"");
        assert_eq!(Place::root().to_string(), "(file)");
    }

    #[test]
    fn nearest_finds_typing_errors_only() {
        let known = ["interval", "timeout", "path", "rise"];
        assert_eq!(nearest("intervall", known), Some("interval"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("colour", known), None);
    }
}
