//! `conf/schema.json` is current, takes every good file and refuses every unknown key.
//!
//! `UPDATE_EXPECTED=1 cargo test schema` writes it anew.

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
fn the_schema_in_the_repository_is_current() {
    let file = root().join("conf/schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == current, "run with UPDATE_EXPECTED=1");
}

#[test]
fn the_schema_takes_what_loads_and_refuses_unknown_keys() {
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
            // Where a word may stand in a block's place, the whole block is told.
            let names = [format!("'{key}' was unexpected"), format!("\"{key}\":")];
            let named = |fault: &String| names.iter().any(|name| fault.contains(name));
            assert!(told.iter().any(named), "{key}: {told:#?}");
            unknown += 1;
        }
    }
    assert!(unknown >= 6, "only {unknown} unknown keys were found");
}

#[test]
fn each_slip_alone_is_refused() {
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
