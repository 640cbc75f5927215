//! `docs/openapi.json` is current, and `docs/api.md` has every endpoint with a valid example.
//!
//! `UPDATE_EXPECTED=1 cargo test openapi` regenerates the document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::endpoints;
use super::openapi;

fn document() -> Value {
    openapi::document(endpoints())
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

#[test]
fn committed_openapi_document_is_current() {
    let file = docs("openapi.json");
    let current = format!("{:#}\n", document());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == current, "run with UPDATE_EXPECTED=1");
}

/// The operations of the document, such as `GET /pools`.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let named = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| format!("{} {path}", method.to_ascii_uppercase())).collect::<Vec<_>>()
    };
    paths.flat_map(named).collect()
}

/// The sections of the page, by their headings in backticks.
fn sections() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(docs("api.md")).unwrap();
    let sections = page.split("\n## `").skip(1);
    sections
        .map(|section| {
            let (heading, text) = section.split_once("`\n").unwrap();
            (heading.to_owned(), text.to_owned())
        })
        .collect()
}

#[test]
fn api_page_describes_exactly_the_endpoints() {
    let document = document();
    let documented: BTreeSet<String> = sections().into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(documented, operations(&document));
    let ids: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|methods| methods.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), documented.len(), "operation ids are unique");
}

#[test]
fn api_page_and_document_state_the_role_of_every_endpoint() {
    let document = document();
    let sections: BTreeMap<String, String> = sections().into_iter().collect();
    for endpoint in endpoints() {
        let heading = format!("{} {}", endpoint.method, endpoint.path);
        assert!(sections[&heading].starts_with(&format!("\nRole: `{}`.\n", endpoint.role)), "{heading}");
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation[openapi::ROLE], endpoint.role.as_str(), "{heading}");
    }
}

#[test]
fn examples_of_the_api_page_match_the_schemas() {
    let document = document();
    let mut examples = 0;
    for (heading, text) in sections() {
        let (method, path) = heading.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        let response = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let schema = json!({ "allOf": [response], "components": document["components"] });
        let validator = jsonschema::validator_for(&schema).unwrap();
        for example in text.split("\n```json\n").skip(1).filter_map(|rest| rest.split("\n```").next()) {
            let example: Value = serde_json::from_str(example).unwrap_or_else(|e| panic!("{heading}: {e}"));
            let faults: Vec<String> = validator.iter_errors(&example).map(|e| e.to_string()).collect();
            assert_eq!(faults, [""; 0], "{heading}");
            examples += 1;
        }
        let has_example = text.contains("\n```json\n") || heading == "GET /openapi.json";
        assert!(has_example, "{heading} has no example");
    }
    assert!(examples + 1 >= operations(&document).len());
}

#[test]
fn referenced_schemas_exist() {
    let document = document();
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}
