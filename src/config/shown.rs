//! A configuration as it may be shown: as written, without what might be secret.
//!
//! Keys and certificates are in files, which are named and not shown. Variables of the environment are
//! shown by their names, as they were written. What is left are the values of header fields, such as
//! `Authorization`; all of them are hidden.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::diagnostic::Source;
use super::load::read_yaml;

/// What stands in the place of a value that is hidden.
const HIDDEN: &str = "(hidden)";

/// A configuration as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The SHA-256 of the file's bytes in hexadecimal digits, as sha256sum prints it.
    pub sha256: String,
    /// What was written.
    pub written: Value,
}

impl Shown {
    /// What may be shown of a text that is a configuration.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        let digest = digest(&SHA256, source.text().as_bytes());
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let tree = read_yaml(source.text()).ok().and_then(|tree| serde_json::to_value(tree).ok());
        let mut written = tree.unwrap_or_default();
        hide(&mut written);
        Self { sha256, written }
    }
}

/// Hides the values of header fields, wherever they are.
fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Object(headers) if key == "headers" => {
                        headers.values_mut().for_each(|value| *value = HIDDEN.into());
                    }
                    value => hide(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_as_written() {
        let text = "pools:\n  a:\n    health_check: { type: http, headers: { Authorization: Bearer 1234 } }\n    \
            backends: [{ address: '${HOST}:80', weight: 2 }]\n\
            tests: [{ request: http://x/, headers: { Cookie: 5678 } }]\n";
        let shown = Shown::of(&Source::new("f", text));
        let said = shown.written.to_string();
        assert!(!said.contains("1234") && !said.contains("5678"), "{said}");
        let check = &shown.written["pools"]["a"]["health_check"];
        assert_eq!(check, &serde_json::json!({ "type": "http", "headers": { "Authorization": HIDDEN } }));
        assert_eq!(shown.written["pools"]["a"]["backends"][0]["address"], "${HOST}:80");
        assert_eq!(shown.sha256.len(), 64);
        assert_ne!(shown.sha256, Shown::of(&Source::new("f", &format!("{text}\n"))).sha256);
    }
}
