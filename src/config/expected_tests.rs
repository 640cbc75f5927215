//! Every place of the configuration, with a value of every wrong type.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::{EXAMPLES, pattern};
use crate::base::fault::{Fault, Faults, Place};
use crate::config::diagnostic::Source;
use crate::config::load;
use crate::config::schema::types;
use crate::config::tree::{Step, steps_of};

/// Every place of the schema, and whether it is a block or a list.
fn places(schema: &Json, place: &Place, found: &mut BTreeMap<Place, bool>) {
    let compound = schema.get("properties").is_some() || schema.get("items").is_some();
    *found.entry(place.clone()).or_default() |= compound || schema["additionalProperties"].is_object();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        places(value, &place.key(key), found);
    }
    if schema["items"].is_object() {
        places(&schema["items"], &place.index(0), found);
    }
    if schema["additionalProperties"].is_object() {
        places(&schema["additionalProperties"], &place.key("x"), found);
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        places(alternative, place, found);
    }
}

fn all_places() -> BTreeMap<Place, bool> {
    let mut found = BTreeMap::new();
    places(&types(), &Place::root(), &mut found);
    found.remove(&Place::root());
    found
}

/// A file with only `value` at `place`.
fn file(place: &Place, value: Value) -> String {
    let wrapped = steps_of(place).into_iter().rev().fold(value, |value, step| match step {
        Step::Key(key) => Value::Mapping(Mapping::from_iter([(key.into(), value)])),
        Step::Index(_) => Value::Sequence(vec![value]),
    });
    serde_yaml::to_string(&wrapped).unwrap()
}

/// The faults of types, without those of consistency.
fn faults(text: &str, schema: &Json) -> Vec<Fault> {
    let mut faults = Faults::default();
    let source = Source::new("f", text);
    let mut tree = load::tree(&source, schema, &|_| None, &mut faults).unwrap();
    load::shape(&mut tree, schema, &mut faults);
    faults.into_vec()
}

#[test]
fn wrong_type_is_described_in_terms_of_yaml_with_an_example_at_every_place() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let schema = types();
    for place in all_places().keys() {
        for value in ["5", "-1", "70000000000", "1.5", "true", "~", "x", "[[x]]", "{ x: [] }"] {
            for told in faults(&file(place, serde_yaml::from_str(value).unwrap()), &schema) {
                let words: Vec<&str> = told.problem.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
                let of_rust = [
                    "struct", "sequence", "map", "u8", "u16", "u32", "u64", "usize", "f64", "enum", "variant",
                    "untagged", "nonzero", "string", "integer", "boolean", "invalid",
                ];
                let is_of_rust = of_rust.iter().any(|word| words.contains(word));
                let has_example = !told.hint.is_empty()
                    || ["such as", "for example", "write "].iter().any(|it| told.problem.contains(it));
                seen += usize::from(told.problem.starts_with("expected "));
                if is_of_rust || !has_example {
                    wrong.push(format!("{place} = {value}: {}: {} = {}", told.place, told.problem, told.hint));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 500, "only {seen} wrong types were found");
}

#[test]
fn every_block_and_list_has_an_example_that_is_accepted_there() {
    let schema = types();
    for (place, compound) in all_places() {
        let pattern = pattern(&steps_of(&place));
        let example = EXAMPLES.iter().find(|(key, _)| *key == pattern);
        let Some((_, example)) = example else {
            assert!(!compound, "no example for {pattern}");
            continue;
        };
        let text = file(&place, serde_yaml::from_str(example).unwrap());
        for told in faults(&text, &schema) {
            let known = ["unknown", "expected", "invalid"].iter().all(|word| !told.problem.starts_with(word));
            let within = told.place.as_str().starts_with(place.as_str()) && told.problem.ends_with("is missing");
            assert!(known && !within, "{pattern}: {example}: {told:?}");
        }
    }
}

#[test]
fn single_address_instead_of_a_network_gets_the_network_as_a_hint() {
    let said = |text: &str| faults(text, &types()).into_iter().map(|d| (d.problem, d.hint)).next().unwrap();
    assert_eq!(said("trusted_proxies: 10.0.0.1\n"), ("`10.0.0.1` is not a network".into(), "write 10.0.0.1/32".into()));
    assert_eq!(said("trusted_proxies: ['::1']\n"), ("`::1` is not a network".into(), "write ::1/128".into()));
}
