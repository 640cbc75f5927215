//! The value of a key in etcd: nothing, an address, or a JSON object with settings.

use crate::discovery::source::item::{Block, Item};
use crate::discovery::target::Target;
use crate::tls::connection::shorten;

/// The longest value in bytes; the largest labels need a quarter of it.
const VALUE_MAX: usize = 64 << 10;

/// The backend of a key.
///
/// # Errors
/// Why it is invalid, with the key.
pub(super) fn parse(key: &[u8], value: &[u8]) -> Result<Item, String> {
    let text = String::from_utf8_lossy(key);
    let segment = text.rsplit('/').next().unwrap_or_default();
    item(segment, value).map_err(|reason| shorten(&format!("key `{text}`: {reason}")))
}

fn item(segment: &str, value: &[u8]) -> Result<Item, String> {
    if value.len() > VALUE_MAX {
        return Err(format!("the value has {} bytes, more than {VALUE_MAX}", value.len()));
    }
    let value = std::str::from_utf8(value).map_err(|_| "the value is not in UTF-8".to_owned())?.trim();
    if value.starts_with('{') {
        let block: Block = serde_json::from_str(value).map_err(|e| e.to_string())?;
        return block.item(|| target(segment));
    }
    target(if value.is_empty() { segment } else { value }).map(Item::at)
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|e: crate::base::backend_address::NotAnAddress| e.problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::connection::REASON_MAX;

    fn describe(key: &str, value: &[u8]) -> Result<String, String> {
        let item = parse(key.as_bytes(), value)?;
        let found = item.found(vec!["127.0.0.9:9".parse().unwrap()]).next().unwrap();
        let zone = found.zone.as_ref().map_or("-", |zone| zone.as_str());
        let (weight, backup, drain, labels) = (found.weight, found.backup, found.drain, found.labels);
        Ok(format!("{} {weight} {backup} {drain} {zone} {labels}", item.target))
    }

    #[test]
    fn value_is_empty_or_an_address_or_a_json_object() {
        let all = r#"{"address":"10.0.0.8:1","weight":5,"backup":true,"drain":true,"zone":"z","labels":{"team":"a"}}"#;
        for (key, value, expected) in [
            ("/l7lb/api/10.0.0.7:8080", "", "10.0.0.7:8080 1 false false - "),
            ("/l7lb/api/a", " 10.0.0.7:8080\n", "10.0.0.7:8080 1 false false - "),
            ("/l7lb/api/[::1]:8080", "{}", "[::1]:8080 1 false false - "),
            ("/l7lb/api/10.0.0.7:8080", r#"{"weight":3}"#, "10.0.0.7:8080 3 false false - "),
            ("/l7lb/api/a", "name.internal:80", "name.internal:80 1 false false - "),
            ("/l7lb/api/10.0.0.7:8080", all, "10.0.0.8:1 5 true true z team=a"),
        ] {
            assert_eq!(describe(key, value.as_bytes()).as_deref(), Ok(expected), "{key} {value}");
        }
    }

    #[test]
    fn invalid_value_is_reported_with_its_key_in_few_words() {
        let megabyte = vec![b'x'; 1 << 20];
        let long = vec![b'x'; VALUE_MAX];
        for (key, value, problem) in [
            ("/p/a", &b""[..], "key `/p/a`: `a` has no port"),
            ("/p/a", b"{}", "key `/p/a`: `a` has no port"),
            ("/p/a", b"10.0.0.7:0", "has port 0"),
            ("/p/a", b"{\"wieght\":1}", "unknown field `wieght`"),
            ("/p/a", b"{\"address\":\"1.1.1.1:1\",\"weight\":1001}", "the weight 1001 is more than 1000"),
            ("/p/a", b"{\"address\":\"1.1.1.1:1\"", "EOF"),
            ("/p/a", b"{\"address\":\"1.1.1.1:1\"} x", "trailing characters"),
            ("/p/a", b"\xff\xfe", "not in UTF-8"),
            ("/p/a", &megabyte, "the value has 1048576 bytes, more than 65536"),
            ("/p/a", &long, "xxx…"),
        ] {
            let error = describe(key, value).unwrap_err();
            assert!(error.contains(problem), "{error}");
            assert!(error.chars().count() <= REASON_MAX + 1, "{error}");
        }
    }
}
