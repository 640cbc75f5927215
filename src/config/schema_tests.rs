//! `conf/schema.json` is current, accepts every valid file and rejects every unknown key.
//!
//! `UPDATE_EXPECTED=1 cargo test schema` regenerates it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::schema::schema;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}

fn faults(value: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn committed_schema_is_current() {
    let file = root().join("conf/schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == current, "run with UPDATE_EXPECTED=1");
}

#[test]
fn schema_accepts_valid_files_and_rejects_unknown_keys() {
    let mut taken = 0;
    for folder in ["conf", "tests/config/good"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                assert_eq!(faults(&read(&file)), [""; 0], "{}", file.display());
                taken += 1;
            }
        }
    }
    assert!(taken >= 4, "only {taken} files were found");
    let mut unknown = 0;
    for entry in std::fs::read_dir(root().join("tests/config/bad")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "expected") {
            continue;
        }
        let expected = std::fs::read_to_string(&file).unwrap();
        let keys = expected.lines().filter_map(|line| line.split("unknown key `").nth(1)?.split('`').next());
        for key in keys {
            let told = faults(&read(&file.with_extension("yaml")));
            // If a block may also be a word, the whole block is reported.
            let names = [format!("'{key}' was unexpected"), format!("\"{key}\":")];
            let named = |fault: &String| names.iter().any(|name| fault.contains(name));
            assert!(told.iter().any(named), "{key}: {told:#?}");
            unknown += 1;
        }
    }
    assert!(unknown >= 6, "only {unknown} unknown keys were found");
}

/// The keys below `value`, each as a path such as `pools.NAME.backends[].weight`, with their defaults.
fn keys(value: &Value, path: &str, found: &mut BTreeMap<String, Option<Value>>) {
    for (key, block) in value["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // A chain, and rules of access, have the same keys wherever they are.
        let of_chain = ["listeners[].filters", "routes[].filters", "listeners[].access"]
            .iter()
            .find_map(|chain| path.strip_prefix(chain));
        if of_chain.is_some_and(|rest| !rest.is_empty()) || path.starts_with("chains.NAME") {
            continue;
        }
        keys(block, &path, found);
        found.insert(path, block.get("default").cloned());
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|word| value[word].as_array()).flatten() {
        keys(alternative, path, found);
    }
    keys_of_parts(value, path, found);
}

fn keys_of_parts(value: &Value, path: &str, found: &mut BTreeMap<String, Option<Value>>) {
    for (part, suffix) in [("items", "[]"), ("additionalProperties", ".NAME")] {
        if value[part].is_object() {
            keys(&value[part], &format!("{path}{suffix}"), found);
        }
    }
}

/// The words that are values, anywhere below `value`.
fn words(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let listed = map.get("enum").and_then(Value::as_array).into_iter().flatten();
            found.extend(listed.chain(map.get("const")).filter_map(|word| word.as_str().map(str::to_owned)));
            map.values().for_each(|value| words(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| words(value, found)),
        _ => {}
    }
}

fn pages() -> Vec<String> {
    let folder = std::fs::read_dir(root().join("docs/configuration")).unwrap();
    folder.map(|page| std::fs::read_to_string(page.unwrap().path()).unwrap()).collect()
}

/// The text between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The keys in the key tables of `page` with the text of the column "default". The first cell of the head of such a
/// table is "key", or "key in" and the blocks.
fn documented_keys(page: &str, found: &mut BTreeMap<String, String>) {
    let mut blocks = None;
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(first) = cells.get(1) else {
            blocks = None;
            continue;
        };
        if *first == "key" || first.starts_with("key in ") {
            blocks = Some(quoted(first));
            continue;
        }
        let Some(blocks) = &blocks else { continue };
        for key in quoted(first) {
            let default = cells[3].to_owned();
            if blocks.is_empty() {
                found.insert(key.to_owned(), default.clone());
            }
            found.extend(blocks.iter().map(|block| (format!("{block}.{key}"), default.clone())));
        }
    }
}

#[test]
fn configuration_pages_list_exactly_the_keys_with_their_defaults() {
    let (mut expected, mut documented) = (BTreeMap::new(), BTreeMap::new());
    keys(&serde_json::to_value(schema()).unwrap(), "", &mut expected);
    pages().iter().for_each(|page| documented_keys(page, &mut documented));
    assert!(expected.len() > 150, "only {} keys were found", expected.len());
    let missing: Vec<_> = expected.keys().filter(|key| !documented.contains_key(*key)).collect();
    let unknown: Vec<_> = documented.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:#?}\nunknown: {unknown:#?}");
    for (key, default) in expected {
        let text = match default {
            None | Some(Value::Null | Value::Object(_)) => continue,
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
        };
        assert!(quoted(&documented[&key]).contains(&text.as_str()), "{key}: the default is `{text}`");
    }
}

#[test]
fn reference_configuration_names_every_key() {
    let reference = std::fs::read_to_string(root().join("conf/reference.yaml")).unwrap();
    let mut all = BTreeMap::new();
    keys(&schema(), "", &mut all);
    let names: BTreeSet<&str> = all.keys().filter_map(|path| path.rsplit('.').next()).collect();
    let names_key = |key: &str| {
        let key = format!("{}:", key.trim_end_matches("[]"));
        reference
            .match_indices(&key)
            .any(|(at, _)| !reference[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let missing: Vec<&str> = names.into_iter().filter(|key| *key != "NAME" && !names_key(key)).collect();
    assert!(missing.is_empty(), "conf/reference.yaml does not name {missing:?}");
}

#[test]
fn configuration_pages_name_every_value() {
    let pages = pages().concat();
    let mut expected = BTreeSet::new();
    words(&serde_json::to_value(schema()).unwrap(), &mut expected);
    let named: BTreeSet<&str> = pages.lines().flat_map(quoted).collect();
    let missing: Vec<_> = expected.iter().filter(|word| !named.contains(word.as_str())).collect();
    assert!(expected.len() > 40 && missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn each_typing_error_is_reported_once() {
    let good = serde_json::json!({
        "listeners": [{ "address": "0.0.0.0:80" }],
        "pools": { "p": { "backends": [{ "address": "a:1", "weight": "${WEIGHT:-1}" }], "keepalive_timeout": "50s" } },
        "routes": [{ "path": "/", "pool": "p", "body_size": "1GiB", "exact": "${EXACT}" }],
    });
    assert_eq!(faults(&good), [""; 0]);
    for (place, value) in [
        ("/listeners/0/adress", "x"),
        ("/pools/p/backends/0/wieght", "2"),
        ("/pools/p/backends/0/weight", "two"),
        ("/pools/p/keepalive_timeout", "50"),
        ("/pools/p/protocol", "http3"),
        ("/routes/0/body_size", "1 lot"),
        ("/routes/0/exact", "yes"),
        ("/bogus", "x"),
    ] {
        let mut bad = good.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[key] = value.into();
        assert_eq!(faults(&bad).len(), 1, "{place}: {:?}", faults(&bad));
    }
}
