//! `conf/schema.json` is current, accepts every valid file and rejects every unknown key.
//!
//! `UPDATE_EXPECTED=1 cargo test schema` regenerates it.

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
        let keys = expected.lines().filter_map(|line| line.split("unknown key `").nth(1)?.strip_suffix('`'));
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

/// The keys and the literal values, anywhere below `value`.
fn names(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let keys =
                map.get("properties").and_then(Value::as_object).into_iter().flat_map(|keys| keys.keys().cloned());
            let listed = map.get("enum").and_then(Value::as_array).into_iter().flatten();
            let words = listed.chain(map.get("const")).filter_map(|word| word.as_str().map(str::to_owned));
            found.extend(keys.chain(words));
            map.values().for_each(|value| names(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn configuration_pages_describe_every_key_and_value() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    // Also the parts of `cookie.name`.
    let split = |delicate: &'static str| {
        let is_part = move |c: char| c.is_ascii_alphanumeric() || "_-".contains(c) || delicate.contains(c);
        page.split('`').flat_map(move |part| part.split(move |c| !is_part(c)))
    };
    let words: std::collections::BTreeSet<&str> = split("").chain(split("./")).collect();
    let mut found = std::collections::BTreeSet::new();
    names(&serde_json::to_value(schema()).unwrap(), &mut found);
    assert!(found.len() > 150, "only {} names were found", found.len());
    let missing: Vec<&String> = found.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not name {missing:?}");
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
