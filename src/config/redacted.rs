//! The configuration for display: without possible secrets.
//!
//! Keys and certificates are in files, which are named but not shown. Environment variables are shown by name.
//! Values of headers, such as `Authorization`, are hidden.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::diagnostic::Source;
use super::load::read_yaml;

/// The replacement for hidden values.
const HIDDEN: &str = "(hidden)";

/// A configuration for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedConfig {
    /// The SHA-256 of the file in hexadecimal digits, as printed by sha256sum.
    pub sha256: String,
    /// The configuration.
    pub written: Value,
}

impl RedactedConfig {
    /// The configuration in `source` for display.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        let digest = digest(&SHA256, source.text().as_bytes());
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let tree = read_yaml(source.content()).ok().and_then(|tree| serde_json::to_value(tree).ok());
        let mut written = tree.unwrap_or_default();
        hide(&mut written);
        Self { sha256, written }
    }
}

/// Hides values of headers anywhere.
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
    fn secrets_are_hidden_and_the_rest_is_unchanged() {
        let text = "pools:\n  a:\n    health_check: { type: http, headers: { Authorization: Bearer 1234 } }\n    \
            backends: [{ address: '${HOST}:80', weight: 2 }]\n\
            tests: [{ request: http://x/, headers: { Cookie: 5678 } }]\n";
        let shown = RedactedConfig::of(&Source::new("f", text));
        let said = shown.written.to_string();
        assert!(!said.contains("1234") && !said.contains("5678"), "{said}");
        let check = &shown.written["pools"]["a"]["health_check"];
        assert_eq!(check, &serde_json::json!({ "type": "http", "headers": { "Authorization": HIDDEN } }));
        assert_eq!(shown.written["pools"]["a"]["backends"][0]["address"], "${HOST}:80");
        assert_eq!(shown.sha256.len(), 64);
        assert_ne!(shown.sha256, RedactedConfig::of(&Source::new("f", &format!("{text}\n"))).sha256);
    }
}
