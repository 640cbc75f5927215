//! Tests of the terms of other proxies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{BLOCKS, advice};
use crate::config::load;
use crate::config::schema::types;

/// The keys of each block, and the words of each set of values.
fn blocks(schema: &Value, found: &mut Vec<BTreeSet<String>>) {
    if let Some(object) = schema.as_object() {
        found.extend(object.get("properties").and_then(Value::as_object).map(|keys| keys.keys().cloned().collect()));
        let listed = object.get("enum").and_then(Value::as_array).into_iter().flatten();
        let alternatives = object.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let words = listed.chain(alternatives.filter_map(|one| one.get("const")));
        found.push(words.filter_map(|word| word.as_str().map(str::to_owned)).collect());
        object.values().for_each(|value| blocks(value, found));
    }
    schema.as_array().into_iter().flatten().for_each(|value| blocks(value, found));
}

#[test]
fn every_term_of_another_proxy_leads_to_its_advice_and_is_no_term_of_l7lb_there() {
    let mut all = Vec::new();
    blocks(&types(), &mut all);
    let mut wrong = Vec::new();
    for block in BLOCKS.iter().filter(|block| !block.known.is_empty()) {
        let mut sets: Vec<_> = all.iter().filter(|set| set.contains(block.known)).collect();
        sets.dedup();
        assert!(!sets.is_empty(), "{} is not known", block.known);
        for (terms, expected) in block.terms {
            for term in terms.split(' ') {
                for set in &sets {
                    let known: Vec<&str> = set.iter().map(String::as_str).collect();
                    if known.contains(&term) || advice(term, &known).as_deref() != Some(*expected) {
                        wrong.push(format!("{term} in the block with {}", block.known));
                    }
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn advice_names_only_existing_keys_and_values() {
    let mut all = Vec::new();
    blocks(&types(), &mut all);
    let mut known: BTreeSet<&str> = all.iter().flatten().map(String::as_str).collect();
    known.extend([
        "NAME",
        "VALUE",
        "FILE",
        "stable",
        "canary",
        "X-Forwarded-*",
        "grpc_",
        "127.0.0.1",
        "0.0.0.0",
        "365d",
        "client",
        "scope",
        "sub",
        "X-Tenant",
        "a",
        "default",
    ]);
    for (terms, advice) in BLOCKS.iter().flat_map(|block| block.terms) {
        let quoted = advice.split('`').skip(1).step_by(2);
        let mut words = 0;
        for quoted in quoted {
            let parts = quoted.split(|c: char| !(c.is_alphanumeric() || "_-*".contains(c)));
            for word in parts.filter(|word| word.starts_with(|c: char| c.is_lowercase() || c == 'X')) {
                assert!(
                    known.contains(word) || ["www", "example", "com", "api", "health", "true", "false"].contains(&word),
                    "{terms}: {word}"
                );
                words += 1;
            }
        }
        assert!(
            words > 0 || advice.starts_with("remove it") || advice.starts_with("write the status"),
            "{terms}: {advice}"
        );
    }
}

#[test]
fn terms_of_other_proxies_get_a_hint_with_the_term_of_l7lb() {
    let base = |pool: &str, route: &str, root: &str| {
        format!(
            "listeners: 8080\npools: {{ p: {{ backends: 8081{pool} }} }}\nroutes: {{ path: /, pool: p{route} }}\n{root}"
        )
    };
    for (text, hint) in [
        (base(", balance: leastconn", "", ""), "write `least_requests`"),
        (base(", balance: LEAST_REQUEST", "", ""), "write `least_requests`"),
        (base(", balance: { type: roundrobin }", "", ""), "write `round_robin`"),
        (base(", balance: round-robin", "", ""), "write `round_robin`"),
        (base(", balance: ip_hash", "", ""), "write `{ type: consistent_hash, by: client_ip }`"),
        (base(", balance: uri", "", ""), "write `{ type: consistent_hash, by: path }`"),
        (base(", least_conn: true", "", ""), "write `balance: least_requests`"),
        (base(", healthCheck: {}", "", ""), "write `health_check`"),
        (base(", health_uri: /h", "", ""), "write `health_check: { type: http, path: /health }`"),
        (base(", health_check: { uri: /h }", "", ""), "write `path`"),
        (base(", max_fails: 3", "", ""), "write `passive_health: { consecutive_failures: 5, ejection_time: 10s }`"),
        (base("", ", proxy_pass: http://p", ""), "write `pool: NAME`"),
        (base("", ", strip_prefix: /api", ""), "rewrite: { strip_prefix: /api }"),
        (base("", ", middlewares: [a]", ""), "write `filters`"),
        (base("", ", rule: Host(`a`)", ""), "write `path: /api`"),
        (base("", ", cors: {}", ""), "write `filters: [{ cors:"),
        (base("", ", filters: { cors: { origins: https://a, allowOrigins: a } }", ""), "write `origins: [https://www"),
        (base("", "", "upstream: { a: {} }\n"), "write `pools`"),
        (base("", "", "ssl_certificate: /a.pem\n"), "write `tls: { certificates"),
        (base("", ", retry: { on: [5xx] }", ""), "write the status codes"),
    ] {
        let Err(diagnostics) = load::parse(&text, "f", &|_| None) else { panic!("{text} is accepted") };
        assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
        assert!(diagnostics[0].hint.contains(hint), "{text}: {}", diagnostics[0]);
    }
}
