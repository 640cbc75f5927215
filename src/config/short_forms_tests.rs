//! Tests of the short forms: what they mean, where they are accepted, and the faults in them.

use std::collections::BTreeSet;

use serde_yaml::Value;

use crate::config::{Config, load};

const TAIL: &str = "\nroutes: { path: /, pool: p }\n";

fn read(text: &str) -> Result<Config, Vec<String>> {
    let read = load::parse(text, "f", &|name| (name == "PORT").then(|| "8080".to_owned()));
    read.map(|checked| checked.written).map_err(|diagnostics| {
        let said = |d: crate::config::diagnostic::Diagnostic| format!("{}: {} = {}", d.place, d.problem, d.hint);
        diagnostics.into_iter().map(said).collect()
    })
}

/// A file with this pool.
fn with_pool(pool: &str) -> Result<Config, Vec<String>> {
    read(&format!("listeners: 0.0.0.0:8080\npools: {{ p: {pool} }}{TAIL}"))
}

fn written(config: &Config) -> String {
    format!("{config:?}")
}

#[test]
fn short_forms_mean_the_same_as_the_long_ones() {
    let long = read(
        "listeners: [{ address: 0.0.0.0:8080 }]\n\
        pools: { p: { backends: [{ address: 127.0.0.1:8081 }, { address: 127.0.0.1:8082 }] } }\n\
        routes: [{ path: /, pool: p, methods: [GET] }]\n",
    );
    let long = written(&long.unwrap());
    for listeners in [
        "0.0.0.0:8080",
        "8080",
        "':8080'",
        "'*:8080'",
        "'8080'",
        "[8080]",
        "{ address: 8080 }",
        "[{ address: 8080 }]",
        "${PORT}",
        "'${PORT}'",
    ] {
        for backends in
            ["[127.0.0.1:8081, 127.0.0.1:8082]", "[8081, { address: 8082 }]", "[':8081', http://127.0.0.1:8082]"]
        {
            let short = format!(
                "listeners: {listeners}\npools: {{ p: {{ backends: {backends} }} }}\nroutes: {{ path: /, pool: p, methods: GET }}\n"
            );
            assert_eq!(written(&read(&short).unwrap()), long, "{short}");
        }
    }
}

#[test]
fn short_form_of_a_source_means_the_same_as_the_long_one() {
    for (short, long) in [
        ("dns: api.internal:8080", "dns: { name: api.internal, port: 8080 }"),
        ("dns: 'api.internal.:80'", "dns: { name: api.internal., port: 80 }"),
        ("file: /a.yaml", "file: { path: /a.yaml }"),
        ("api:", "api: {}"),
    ] {
        let of = |source: &str| written(&with_pool(&format!("{{ discover: [{{ {source} }}] }}")).unwrap());
        assert_eq!(of(short), of(long), "{short}");
    }
    let faults = with_pool("{ discover: { dns: api.internal } }").unwrap_err();
    assert!(faults[0].contains("pools.p.discover.dns: the port is missing"), "{faults:?}");
}

/// Every list in `value` by its keys and indexes, the outer ones first.
fn lists(value: &Value, path: &mut Vec<Value>, found: &mut Vec<Vec<Value>>) {
    match value {
        Value::Sequence(items) => {
            if !items.is_empty() {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                path.push(index.into());
                lists(item, path, found);
                path.pop();
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                path.push(key.clone());
                lists(value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// The keys whose values are lists.
fn list_keys(schema: &serde_json::Value, name: &str, found: &mut BTreeSet<String>) {
    if schema.get("items").is_some() {
        found.insert(name.to_owned());
    }
    for (key, value) in schema.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Array(values) => values.iter().for_each(|value| list_keys(value, name, found)),
            value if key == "properties" => {
                value.as_object().unwrap().iter().for_each(|(key, value)| list_keys(value, key, found));
            }
            value => list_keys(value, name, found),
        }
    }
}

fn at<'a>(value: &'a mut Value, path: &[Value]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match step.as_u64() {
        Some(index) => &mut value[usize::try_from(index).unwrap()],
        None => &mut value[step],
    })
}

/// The names of a certificate's files do not matter here.
fn shape(value: Value) -> String {
    let text = serde_yaml::to_string(&value).unwrap();
    let source = crate::config::diagnostic::Source::new("f", &text);
    let mut faults = crate::base::fault::Faults::default();
    let tree = load::tree(&source, &crate::config::schema::types(), &|_| Some("x".to_owned()), &mut faults).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    format!("{:?}", serde_yaml::from_value::<Config>(tree.to_value()).unwrap_or_else(|e| panic!("{e}: {text}")))
}

#[test]
fn one_item_is_accepted_wherever_a_list_is_expected() {
    let mut text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/good/everything.yaml")).unwrap();
    text.push_str("recent_requests: { headers: [x-user] }\nserver: { client_bind_to_ipv4: [127.0.0.1], client_bind_to_ipv6: ['::1'] }\ntests: [{ request: http://x/, expect: { route: rest } }]\n");
    let text = text.replace("crl: []", "crl: [x]").replace(
        "{ address: \"[::]:8080\" }",
        "{ address: [\"[::]:8080\"], proxy_protocol: { trusted: [10.0.0.0/8] } }",
    );
    let mut all: Value = serde_yaml::from_str(&text).unwrap();
    all.apply_merge().unwrap();
    let mut found = Vec::new();
    lists(&all, &mut Vec::new(), &mut found);
    let mut expected = BTreeSet::new();
    list_keys(&crate::config::schema::types(), "", &mut expected);
    let tried: BTreeSet<String> = found.iter().filter_map(|path| Some(path.last()?.as_str()?.to_owned())).collect();
    assert_eq!(tried, expected, "tests/config/good/everything.yaml has every list");
    for path in found {
        let (mut list, mut single) = (all.clone(), all.clone());
        let first = at(&mut list, &path)[0].clone();
        *at(&mut list, &path) = Value::Sequence(vec![first.clone()]);
        *at(&mut single, &path) = first;
        assert_eq!(shape(single), shape(list), "{path:?}");
    }
}

#[test]
fn schema_has_no_list_that_rejects_a_single_item() {
    fn check(schema: &serde_json::Value, alternatives: usize) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            assert!(key != "items" || alternatives > 1, "{schema:#}");
            match value.as_array() {
                Some(values) if key == "anyOf" => values.iter().for_each(|value| check(value, values.len())),
                _ => check(value, 0),
            }
        }
    }
    let schema = crate::config::schema::schema();
    check(&schema, 0);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let short: serde_json::Value = serde_yaml::from_str(
        "listeners: 8080\n\
        trusted_proxies: 10.0.0.0/8\n\
        pools:\n  a: { backends: [127.0.0.1:8081, 8082, { address: 8083 }], health_check: { status: 200 } }\n  \
        b: { backends: https://api.example.com, tls: { ca: /ca.pem } }\n\
        routes: { path: /, pool: a, methods: GET, retry: { on: connect }, allow_encoded: slash }\n",
    )
    .unwrap();
    assert!(
        validator.is_valid(&short),
        "{:?}",
        validator.iter_errors(&short).map(|e| e.to_string()).collect::<Vec<_>>()
    );
    for (pointer, wrong) in [("/listeners", "true"), ("/routes/methods", "5"), ("/pools/a/backends/0", "{ weight: 1 }")]
    {
        let mut bad = short.clone();
        *bad.pointer_mut(pointer).unwrap() = serde_yaml::from_str(wrong).unwrap();
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn https_address_enables_tls_with_its_name() {
    for (short, long) in [
        (
            "{ backends: https://api.example.com }",
            "{ backends: [{ address: api.example.com:443 }], tls: { server_name: api.example.com } }",
        ),
        (
            "{ backends: ['HTTPS://a.test:8443', { address: 'https://a.test:9443', weight: 2 }], tls: { verify: false } }",
            "{ backends: [{ address: a.test:8443 }, { address: a.test:9443, weight: 2 }], tls: { server_name: a.test, verify: false } }",
        ),
        (
            "{ backends: ['https://a.test:8443', https://b.test, c.test:443], tls: { server_name: all.test } }",
            "{ backends: [a.test:8443, b.test:443, c.test:443], tls: { server_name: all.test } }",
        ),
        ("{ backends: 'https://[::1]:8443', tls: }", "{ backends: ['[::1]:8443'], tls: { server_name: '::1' } }"),
        ("{ backends: [http://a.test, 'http://[::1]'] }", "{ backends: [a.test:80, '[::1]:80'] }"),
    ] {
        assert_eq!(with_pool(short).map(|c| written(&c)), with_pool(long).map(|c| written(&c)), "{short}");
        assert!(with_pool(short).is_ok(), "{:?}", with_pool(short));
    }
}

#[test]
fn contradictory_url_of_a_backend_is_a_fault_at_its_place() {
    for (pool, expected) in [
        (
            "{ backends: http://a.test/api }",
            "pools.p.backends: `http://a.test/api` has a path, and a backend has none = write http://a.test; a request keeps its own path",
        ),
        (
            "{ backends: [{ address: 'http://a.test:80/' }] }",
            "pools.p.backends[0].address: `http://a.test:80/` has a path, and a backend has none = write http://a.test:80; a request keeps its own path",
        ),
        (
            "{ backends: [https://a.test, https://b.test] }",
            "pools.p.backends[1]: the backends have different names, `a.test` and `b.test` = add `tls: { server_name: NAME }` with the name that all certificates have, or use one pool for each",
        ),
        (
            "{ backends: [https://a.test, http://a.test] }",
            "pools.p.backends[1]: a pool uses TLS to all of its backends or to none = write https:// for all of them, or use two pools",
        ),
        (
            "{ backends: [https://a.test, 'a.test:444'] }",
            "pools.p.backends[1]: the pool uses TLS because of `https://a.test`, and this address has no scheme = write https:// for all of them, or add `tls: { server_name: NAME }` to the pool",
        ),
        (
            "{ backends: http://a.test, tls: { server_name: a.test } }",
            "pools.p.backends: `http://` contradicts `tls` of the pool = write https://, or remove `tls`",
        ),
        (
            "{ backends: 'h2c://a.test:80' }",
            "pools.p.backends: `h2c://` is not a scheme of backends = write NAME:PORT, and `protocol: h2c` in the pool",
        ),
        (
            "{ backends: 'http://me:secret@a.test' }",
            "pools.p.backends: the address has a user name, and a backend has none = write http://a.test; a request keeps its own `Authorization`",
        ),
        (
            "{ backends: 'https://a.test:8443', protocol: h2c }",
            "pools.p.protocol: h2c is HTTP/2 without TLS = write `protocol: http2`, or remove `tls`",
        ),
        (
            "{ backends: 70000 }",
            "pools.p.backends: `127.0.0.1:70000` has no valid port (1 to 65535) = write address:port, such as 127.0.0.1:8081",
        ),
    ] {
        assert_eq!(with_pool(pool).unwrap_err(), [expected], "{pool}");
    }
}

#[test]
fn fault_in_a_short_form_is_reported_where_it_is_written() {
    let text = "listeners: 8080\npools: { p: { backends: 8081 } }\nroutes:\n  path: /\n  pool: q\n  methods: get\n";
    let Err(diagnostics) = load::parse(text, "f", &|_| None) else { panic!("there is no pool q") };
    let said: Vec<_> = diagnostics.iter().map(|d| (d.place.as_str(), d.position.unwrap().line)).collect();
    assert_eq!(said, [("routes.pool", 5), ("routes.methods", 6)]);
}
