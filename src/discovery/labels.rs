//! Labels of a discovered backend: names and values that operators see. They do not affect balancing.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most labels of a backend.
const COUNT_MAX: usize = 32;
/// The longest name or value in bytes.
const LENGTH_MAX: usize = 253;

/// The labels of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Why labels are rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLabels(String);

impl fmt::Display for InvalidLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidLabels {}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = InvalidLabels;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, InvalidLabels> {
        if labels.len() > COUNT_MAX {
            return Err(InvalidLabels(format!("{} labels are more than {COUNT_MAX}", labels.len())));
        }
        for (name, value) in &labels {
            let invalid = |text: &str| text.len() > LENGTH_MAX || text.chars().any(char::is_control);
            if name.is_empty() || invalid(name) || invalid(value) {
                let rule = format!("names and values have at most {LENGTH_MAX} bytes and no control characters");
                return Err(InvalidLabels(format!("the label {name:?} is invalid: {rule}")));
            }
        }
        Ok(Self(labels))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_control_characters_or_too_many_are_rejected() {
        let labels = |pairs: &[(&str, &str)]| {
            Labels::try_from(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
        };
        assert_eq!(labels(&[("version", "7"), ("team", "é")]).unwrap().to_string(), "team=é,version=7");
        for (pairs, problem) in [
            (vec![("", "7")], "the label \"\" is invalid"),
            (vec![("a\n", "7")], "the label \"a\\n\" is invalid"),
            (vec![("a", "\u{1b}[31m")], "the label \"a\" is invalid"),
        ] {
            let error = labels(&pairs).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let many: BTreeMap<_, _> = (0..33).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(Labels::try_from(many).unwrap_err().to_string(), "33 labels are more than 32");
    }
}
