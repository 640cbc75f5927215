//! Golden diagnostics: each file in `tests/config/bad` with its expected diagnostics, and every YAML file of
//! the repository loads.
//!
//! `UPDATE_EXPECTED=1 cargo test golden` regenerates the `.expected` files; review the difference.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::load;
use crate::decision::snapshot::Snapshot;
use crate::http::target::Encoded;
use crate::tls::development;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml")).collect();
    files.sort();
    files
}

/// The values of `${NAME}` in these tests: a certificate pair.
fn variables(folder: &Path) -> impl Fn(&str) -> Option<String> + use<> {
    let certificate = folder.join("certificate.pem");
    let (key, other_key) = (folder.join("key.pem"), folder.join("other-key.pem"));
    let ticket_keys = folder.join("ticket-keys");
    let (users, weak_users) = (root().join("tests/config/users.htpasswd"), folder.join("weak-users"));
    std::fs::write(&weak_users, "# users\na:$apr1$salt$hash\nb:hunter2\n\nc\n").unwrap();
    let countries = root().join("tests/config/countries.mmdb");
    let (token, short_token) = (folder.join("token"), folder.join("short-token"));
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(&short_token, "0123456789abcdef0123456789abcde\n").unwrap();
    let names = ["localhost".to_owned()];
    let (pem, _) = development::certificate(&names).unwrap();
    let (other, _) = development::certificate(&names).unwrap();
    std::fs::write(&certificate, pem.certificate).unwrap();
    std::fs::write(&key, pem.key).unwrap();
    std::fs::write(&other_key, other.key).unwrap();
    std::fs::write(&ticket_keys, "A".repeat(64)).unwrap();
    move |name| {
        let path = match name {
            "CERTIFICATE" | "L7LB_CERTIFICATE" => &certificate,
            "KEY" | "L7LB_KEY" => &key,
            "OTHER_KEY" => &other_key,
            "TICKET_KEYS" => &ticket_keys,
            "COUNTRIES" => &countries,
            "USERS" => &users,
            "WEAK_USERS" => &weak_users,
            "TOKEN" => &token,
            "SHORT_TOKEN" => &short_token,
            _ => return None,
        };
        Some(path.display().to_string())
    }
}

#[test]
fn golden_diagnostics_of_bad_files_are_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let variables = variables(folder.path());
    let bad = root().join("tests/config/bad");
    let files = yaml_files(&bad);
    assert!(files.len() >= 8, "the bad files exist");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let Err(diagnostics) = load::parse(&text, name, &variables) else { panic!("{name} is accepted") };
        let said: String = diagnostics.iter().map(|d| format!("{d}\n")).collect();
        let said = said.replace(&folder.path().display().to_string(), "FOLDER");
        let expected = file.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        assert_eq!(said, std::fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }
}

#[test]
fn every_configuration_in_the_repository_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let variables = variables(folder.path());
    let mut loaded = 0;
    for folder in ["conf", "tests/config/good"] {
        for file in yaml_files(&root().join(folder)) {
            // The example names files that `l7lb cert` creates.
            let text = std::fs::read_to_string(&file).unwrap();
            let text = text
                .replace(" certs/localhost.pem", " '${CERTIFICATE}'")
                .replace(" certs/localhost-key.pem", " '${KEY}'");
            if let Err(diagnostics) = load::parse(&text, &file.display().to_string(), &variables) {
                panic!("{}", diagnostics.iter().map(ToString::to_string).collect::<String>());
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 4, "only {loaded} files were found");
}

#[test]
fn reference_configuration_has_every_key_with_its_default() {
    let text = std::fs::read_to_string(root().join("conf/reference.yaml")).unwrap();
    let checked = load::parse(&text, "reference", &|_| None).unwrap_or_else(|_| panic!("see the test above"));
    let minimal = "listeners: [{ address: 0.0.0.0:8080 }]\npools: { example: { backends: [{ address: 127.0.0.1:8081 }] } }\nroutes: [{ path: /, pool: example }]";
    let default = load::parse(minimal, "minimal", &|_| None).unwrap_or_else(|_| panic!("the minimal file is valid"));
    assert_eq!(checked.request_limits, default.request_limits);
    assert_eq!(checked.access_log, default.access_log);
    assert_eq!(checked.written.reload, default.written.reload);
    assert_eq!(checked.recent_requests, default.recent_requests);
    let (shown, real) = (checked.pools.values().next().unwrap(), default.pools.values().next().unwrap());
    assert_eq!(shown.health_check, real.health_check);
    assert_eq!(shown.template.timeouts, real.template.timeouts);
    assert_eq!(shown.template.proxy_protocol.is_some(), real.template.proxy_protocol.is_some());
    assert_eq!(shown.template.keepalive_timeout, real.template.keepalive_timeout);
    assert_eq!(checked.rate_limit, default.rate_limit);
    assert_eq!(checked.routes[0].allow_encoded, default.routes[0].allow_encoded);
    assert_eq!(checked.routes[0].retry, default.routes[0].retry);
    assert!(checked.routes[0].sticky.is_none() && default.routes[0].sticky.is_none());
    assert_eq!(checked.server.grace_period_seconds, default.server.grace_period_seconds);
    assert_eq!(checked.server.upstream_keepalive_pool_size, default.server.upstream_keepalive_pool_size);
}

#[test]
fn route_allows_only_its_configured_encoded_characters() {
    let text = "listeners: [{ address: 0.0.0.0:8080 }]\npools: { p: { backends: [{ address: 127.0.0.1:1 }] } }\nroutes:\n  - { path: /, pool: p }\n  - { path: /none, pool: p, allow_encoded: [] }\n  - { path: /a, pool: p, allow_encoded: [nul, slash, slash] }\n  - { path: /b, pool: p, allow_encoded: [backslash] }";
    let checked = load::parse(text, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    let none = Encoded::default();
    let wanted =
        [None, Some(none), Some(Encoded { slash: true, nul: true, ..none }), Some(Encoded { backslash: true, ..none })];
    assert_eq!(checked.routes.iter().map(|route| route.allow_encoded).collect::<Vec<_>>(), wanted);
    let snapshot = Snapshot::build(&checked, None, Instant::now()).unwrap();
    assert_eq!(snapshot.routes.iter().map(|(_, route)| route.allow_encoded).collect::<Vec<_>>(), wanted);
}

#[test]
fn environment_variables_cannot_add_keys() {
    let text = "listeners: [{ address: '0.0.0.0:${PORT:-8080}' }]\nserver:\n  threads: ${THREADS:-3}\npools: { p: { backends: [{ address: '${EVIL}' }] } }\nroutes: [{ path: /, pool: p }]";
    let variable = |name: &str| (name == "EVIL").then(|| "127.0.0.1:1', weight: 5, x: '".to_owned());
    let Err(diagnostics) = load::parse(text, "f", &variable) else { panic!("the address is invalid") };
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    assert_eq!(diagnostics[0].place, "pools.p.backends[0].address");
    let good = load::parse(&text.replace("${EVIL}", "127.0.0.1:1"), "f", &|_| None);
    assert_eq!(good.map(|c| c.server.threads).unwrap_or_default(), 3, "an unquoted number is a number");
}

#[test]
fn unusual_yaml_is_reported_without_a_panic() {
    for text in [
        "",
        "null",
        "[]",
        "a",
        "1",
        "{",
        "\u{0}",
        "? [a]\n: b",
        "pools: &a [*a]",
        "server: {threads: -1}",
        "routes: {}",
        "{1: 2}",
        "a: !!binary x",
        "<<: {server: {}}",
    ] {
        assert!(load::parse(text, "f", &|_| None).is_err(), "{text:?}");
    }
}
