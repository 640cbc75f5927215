//! Wrong types in the terms of YAML: what was expected, what was found, and an example.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::short_forms::schema_of;
use super::tree::{Step, Tree};

/// Converts serde's message about a wrong type at `steps` into a problem and a hint; `None` for other messages.
pub(super) fn wrong_type(message: &str, steps: &[Step], node: &Tree, schema: &Json) -> Option<(String, String)> {
    if message == "invalid IP address syntax" {
        return Some(not_an_address(steps, node));
    }
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = found_in_yaml(found);
    let expected = match words(schema, steps).as_slice() {
        [] => expected_in_yaml(expected),
        words => format!("one of the words {}", words.join(", ")),
    };
    let hint = example(steps).or_else(|| example_of_scalar(&expected, &found, steps)).unwrap_or_default();
    Some((format!("expected {expected}, found {found}"), hint))
}

/// What serde found.
fn found_in_yaml(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "string" => format!("the text {value}"),
        "integer" => format!("the number {}", value.trim_matches('`')),
        "floating" => format!("the number {}", value.trim_start_matches("point ").trim_matches('`')),
        "boolean" => format!("the value {}", value.trim_matches('`')),
        "map" => "a block of keys".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit" | "null" | "Option" => "no value".to_owned(),
        _ => found.to_owned(),
    }
}

/// What serde expected. Names of Rust types do not help an operator; visitors of l7lb name what they expect.
fn expected_in_yaml(expected: &str) -> String {
    match expected {
        "a map" | "map" => "a block of keys",
        "a sequence" => "a list",
        "a string" | "path string" | "string" | "borrowed string" => "a text",
        "a boolean" => "true or false",
        "u8" | "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a non-negative whole number",
        "a nonzero u64" => "a whole number above 0",
        "f32" | "f64" => "a number",
        "IPv4 or IPv6 network address" => "a network such as 10.0.0.0/8",
        "IP address" | "an IP address" => "an IP address such as 192.0.2.1",
        other if other.starts_with("struct ") => "a block of keys",
        other => other,
    }
    .to_owned()
}

/// The words that are the only values at `steps`; empty if there are others.
fn words<'a>(schema: &'a Json, steps: &[Step]) -> Vec<&'a str> {
    let place = steps.iter().try_fold(schema, |schema, step| match step {
        Step::Index(_) => schema.get("items"),
        Step::Key(key) => schema_of(schema, key),
    });
    let Some(schema) = place else { return Vec::new() };
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|word| schema[word].as_array());
    let alternatives = alternatives.map_or(std::slice::from_ref(schema), Vec::as_slice);
    let words = alternatives.iter().filter(|one| one["type"] != "null").map(|one| {
        let listed = one["enum"].as_array().into_iter().flatten().chain(one.get("const"));
        let nested = one["oneOf"].as_array().into_iter().flatten().filter_map(|one| one.get("const"));
        listed.chain(nested).map(Json::as_str).collect::<Option<Vec<_>>>().filter(|words| !words.is_empty())
    });
    words.collect::<Option<Vec<_>>>().map(|words| words.concat()).unwrap_or_default()
}

/// An example for a scalar, by what was expected.
fn example_of_scalar(expected: &str, found: &str, steps: &[Step]) -> Option<String> {
    let key = steps.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    })?;
    if expected.contains("number") {
        return Some(format!("write for example `{key}: 10`"));
    }
    let value = found.strip_prefix("the number ").or_else(|| found.strip_prefix("the value "));
    match (expected, value) {
        ("true or false", _) => Some(format!("write `{key}: true` or `{key}: false`")),
        ("a text", Some(value)) => Some(format!("put it in quotes: `{key}: \"{value}\"`")),
        ("a text", None) => Some(format!("write one text: `{key}: TEXT`")),
        _ => expected.strip_prefix("one of the words ").map(|words| {
            let word = words.split(',').next().unwrap_or_default();
            format!("write for example `{key}: {word}`")
        }),
    }
}

/// A text that is neither a network nor an address.
fn not_an_address(steps: &[Step], node: &Tree) -> (String, String) {
    let text = node.scalar().and_then(serde_yaml::Value::as_str).unwrap_or_default();
    if steps.last() == Some(&Step::Key("from".to_owned())) {
        return (format!("`{text}` is not an IP address"), "write for example 192.0.2.1".to_owned());
    }
    let hint = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("write {text}/32"),
        Ok(IpAddr::V6(_)) => format!("write {text}/128"),
        Err(_) => "write for example 10.0.0.0/8 or 2001:db8::/32".to_owned(),
    };
    (format!("`{text}` is not a network"), hint)
}

/// The example for the block or list at `steps`.
fn example(steps: &[Step]) -> Option<String> {
    let pattern = pattern(steps);
    let (_, example) = EXAMPLES.iter().find(|(key, _)| *key == pattern)?;
    Some(match steps.last() {
        Some(Step::Key(key)) => format!("write for example `{key}: {example}`"),
        _ => format!("write for example `{example}`"),
    })
}

/// The steps as the pages of the configuration write them: `pools.NAME.backends[]`.
fn pattern(steps: &[Step]) -> String {
    let mut pattern = String::new();
    for step in steps {
        // As a filter, `headers` is a block.
        let named = !pattern.ends_with("[].headers") || pattern == "tests[].headers" || pattern == "routes[].headers";
        let named = named
            && ["pools", "headers", "pool", "roles", "chains", "set", "set_if_absent", "add"]
                .into_iter()
                .chain(["request_headers", "response_headers", "claim_headers", "required_claims", "cost"])
                .any(|map| pattern == map || pattern.ends_with(&format!(".{map}")))
            || pattern == "routes[].query"
            || pattern == "routes[].cookies";
        match step {
            Step::Index(_) => pattern.push_str("[]"),
            Step::Key(_) if named => pattern.push_str(".NAME"),
            Step::Key(key) if pattern.is_empty() => pattern.push_str(key),
            Step::Key(key) => {
                pattern.push('.');
                pattern.push_str(key);
            }
        }
    }
    of_filter(pattern)
}

/// The pattern of a place in a chain of filters, which is the same wherever the chain is.
fn of_filter(pattern: String) -> String {
    // Rules of access have the same keys at a listener, and both kinds of rules have.
    let pattern =
        pattern.replace("listeners[].access.", "filters[].access.").replace(".rules[].deny", ".rules[].allow");
    for chain in ["listeners[].filters", "routes[].filters", "chains.NAME"] {
        if let Some(rest) = pattern.strip_prefix(chain) {
            return format!("filters{rest}");
        }
    }
    pattern
}

/// An example of every block and list.
const EXAMPLES: &[(&str, &str)] = &[
    ("access_log", "{ format: json, file: access.log }"),
    ("access_log.redact", "{ query: [token], client_address: true }"),
    ("access_log.redact.headers", "[X-Api-Key]"),
    ("access_log.redact.query", "[token, password]"),
    ("access_log.request_headers", "[User-Agent]"),
    ("access_log.response_headers", "[Content-Type]"),
    ("access_log.sample", "{ 2xx: 1%, 5xx: 100% }"),
    ("access_log.syslog", "{ address: \"udp:10.0.0.1:514\" }"),
    ("admin", "{ listen: 127.0.0.1:9443, tokens: [{ name: deploy, file: deploy.token, role: operate }] }"),
    ("admin.clients", "{ ca: clients.pem, role: read }"),
    ("admin.clients.crl", "[revoked.pem]"),
    ("admin.clients.roles", "{ deploy.example.com: operate }"),
    ("admin.hosts", "[lb.example.com]"),
    ("admin.listen", "127.0.0.1:9443"),
    ("admin.tls", "{ certificates: [{ certificate: admin.pem, key: admin-key.pem }] }"),
    ("admin.tls.alpn", "[h2, http/1.1]"),
    ("admin.tls.certificates", "[{ certificate: admin.pem, key: admin-key.pem }]"),
    ("admin.tls.certificates[]", "{ certificate: admin.pem, key: admin-key.pem }"),
    ("admin.tls.client_auth", "{ mode: required, ca: clients.pem }"),
    ("admin.tls.client_auth.crl", "[revoked.pem]"),
    ("admin.tokens", "[{ name: deploy, file: deploy.token, role: operate }]"),
    ("admin.tokens[]", "{ name: deploy, file: deploy.token, role: operate }"),
    ("metrics", "{ listen: 127.0.0.1:9464 }"),
    ("metrics.listen", "127.0.0.1:9464"),
    ("cache", "{ memory: { size: 256MiB } }"),
    ("cache.disk", "{ path: /var/cache/l7lb, size: 10GiB }"),
    ("cache.memory", "{ size: 256MiB }"),
    ("client_timeouts", "{ header: 10s }"),
    ("connection_limits", "{ total: 10000 }"),
    ("chains", "{ browser: [{ security_headers: default }] }"),
    ("tests[].expect.request_headers", "{ X-Tenant: a }"),
    ("tests[].expect.response_headers", "{ X-Frame-Options: DENY }"),
    ("filters", "[{ security_headers: default }]"),
    ("filters[]", "{ security_headers: default }"),
    ("filters[].access", "{ rules: [{ allow: { networks: 10.0.0.0/8 } }] }"),
    ("filters[].access.rules", "[{ allow: { networks: 10.0.0.0/8 } }]"),
    ("filters[].access.rules[]", "{ allow: { networks: 10.0.0.0/8 } }"),
    ("filters[].access.rules[].allow", "{ networks: 10.0.0.0/8 }"),
    ("filters[].access.rules[].allow.countries", "[DE, AT]"),
    ("filters[].access.rules[].allow.fingerprints", "[5e8848…]"),
    ("filters[].access.rules[].allow.networks", "[10.0.0.0/8]"),
    ("filters[].access.rules[].allow.subjects", "[\"CN=alice,O=Example\"]"),
    ("filters[].basic_auth", "{ file: /etc/l7lb/users.htpasswd }"),
    ("filters[].forward_auth", "{ pool: auth, path: /verify }"),
    ("filters[].forward_auth.copy_headers", "[Remote-User]"),
    ("filters[].forward_auth.request_headers", "[Authorization, Cookie]"),
    ("filters[].cors", "{ origins: [https://app.example.com] }"),
    ("filters[].cors.expose", "[X-Total]"),
    ("filters[].cors.headers", "[Content-Type]"),
    ("filters[].cors.methods", "[GET, PUT]"),
    ("filters[].cors.origins", "[https://app.example.com]"),
    ("filters[].body_limit", "{ size: 10MiB }"),
    ("filters[].buffer", "{ size: 1MiB }"),
    ("filters[].compress", "{ encodings: [br, gzip] }"),
    ("filters[].compress.encodings", "[br, gzip]"),
    ("filters[].compress.media_types", "[text/*, application/json]"),
    ("filters[].error_pages", "{ pages: [{ statuses: [503], html: unavailable.html }] }"),
    ("filters[].error_pages.pages", "[{ statuses: [503], html: unavailable.html }]"),
    ("filters[].error_pages.pages[]", "{ statuses: [503], html: unavailable.html }"),
    ("filters[].error_pages.pages[].causes", "[no_route]"),
    ("filters[].error_pages.pages[].statuses", "[502, 503, 504]"),
    ("filters[].headers", "{ response: { set: { X-Frame-Options: DENY } } }"),
    ("filters[].headers.request", "{ remove: X-Debug }"),
    ("filters[].headers.request.add", "{ X-Tag: a }"),
    ("filters[].headers.request.remove", "[X-Debug]"),
    ("filters[].headers.request.set", "{ X-Real-IP: \"${client.ip}\" }"),
    ("filters[].headers.request.set_if_absent", "{ X-Tenant: none }"),
    ("filters[].headers.response", "{ set: { X-Frame-Options: DENY } }"),
    ("filters[].headers.response.add", "{ Link: </a.css> }"),
    ("filters[].headers.response.remove", "[Server]"),
    ("filters[].headers.response.set", "{ X-Frame-Options: DENY }"),
    ("filters[].headers.response.set_if_absent", "{ Cache-Control: no-store }"),
    ("filters[].jwt", "{ jwks: https://login.example.com/jwks.json, issuers: [https://login.example.com] }"),
    ("filters[].jwt.algorithms", "[RS256]"),
    ("filters[].jwt.audiences", "[shop]"),
    ("filters[].jwt.claim_headers", "{ X-User: sub }"),
    ("filters[].jwt.issuers", "[https://login.example.com]"),
    ("filters[].jwt.required_claims", "{ scope: [read] }"),
    ("filters[].jwt.required_claims.NAME", "[read]"),
    ("filters[].rate_limit", "{ by: client, limits: { type: token_bucket, limit: 10, window: 1s } }"),
    ("filters[].rate_limit.by", "[client]"),
    ("filters[].rate_limit.cost", "{ POST: 5 }"),
    ("filters[].rate_limit.limits", "[{ type: token_bucket, limit: 10, window: 1s }]"),
    ("filters[].rate_limit.limits[]", "{ type: token_bucket, limit: 10, window: 1s }"),
    ("filters[].maintenance", "{ switch_file: /run/l7lb/maintenance }"),
    ("filters[].maintenance.allow", "[10.0.0.0/8]"),
    ("filters[].mirror", "{ pool: shadow, share: 10% }"),
    ("filters[].timeout", "{ first_byte: 5m }"),
    ("filters[].redirect", "{ scheme: https, status: 308 }"),
    ("filters[].respond", "{ status: 200, body: ok }"),
    ("filters[].respond.headers", "{ Content-Type: text/html }"),
    ("filters[].rewrite", "{ strip_prefix: /api }"),
    ("filters[].rewrite.query", "{ remove: debug }"),
    ("filters[].rewrite.query.remove", "[debug]"),
    ("filters[].rewrite.query.set", "{ lang: en }"),
    ("filters[].rewrite.regex", "{ match: \"^/user/([0-9]+)$\", replace: /u/$1 }"),
    ("listeners", "0.0.0.0:8080"),
    ("listeners[]", "{ address: 0.0.0.0:8080 }"),
    ("listeners[].access", "{ rules: [{ allow: { networks: 10.0.0.0/8 } }] }"),
    ("listeners[].address", "0.0.0.0:8080"),
    ("listeners[].health", "{ live: /livez, ready: /readyz }"),
    ("listeners[].proxy_protocol", "{ trusted: [10.0.0.0/8] }"),
    ("listeners[].proxy_protocol.trusted", "[10.0.0.0/8]"),
    ("listeners[].strict_transport_security", "{ max_age: 365d }"),
    ("listeners[].tls", "{ certificates: [{ certificate: www.pem, key: www-key.pem }] }"),
    ("listeners[].tls.alpn", "[h2, http/1.1]"),
    ("listeners[].tls.certificates", "[{ certificate: www.pem, key: www-key.pem }]"),
    ("listeners[].tls.certificates[]", "{ certificate: www.pem, key: www-key.pem }"),
    ("listeners[].tls.client_auth", "{ mode: required, ca: clients.pem }"),
    ("listeners[].tls.client_auth.crl", "[revoked.pem]"),
    ("pools", "{ api: { backends: [127.0.0.1:8081] } }"),
    ("pools.NAME", "{ backends: [127.0.0.1:8081, 127.0.0.1:8082] }"),
    ("pools.NAME.adaptive_concurrency", "{ mode: observe }"),
    ("pools.NAME.backends", "[127.0.0.1:8081, 127.0.0.1:8082]"),
    ("pools.NAME.backends[]", "{ address: 127.0.0.1:8081, weight: 2 }"),
    ("pools.NAME.balance", "round_robin"),
    ("pools.NAME.circuit_breaker", "{ failure_percent: 50 }"),
    ("pools.NAME.discover", "[api, { file: /etc/l7lb/api.yaml }]"),
    ("pools.NAME.discover[]", "{ file: /etc/l7lb/api.yaml }"),
    ("pools.NAME.discover[].allow", "[10.0.0.0/8]"),
    ("pools.NAME.discover[].api", "{}"),
    ("pools.NAME.discover[].deny", "[169.254.0.0/16]"),
    ("pools.NAME.discover[].dns", "api.internal:8080"),
    ("pools.NAME.discover[].dns.resolvers", "[10.0.0.53, 127.0.0.1:5353]"),
    ("pools.NAME.discover[].docker", "{ labels: [app=shop] }"),
    ("pools.NAME.discover[].docker.labels", "[app=shop]"),
    ("pools.NAME.discover[].etcd", "{ endpoints: [http://127.0.0.1:2379], prefix: /l7lb/api/ }"),
    ("pools.NAME.discover[].etcd.endpoints", "[http://127.0.0.1:2379]"),
    ("pools.NAME.discover[].etcd.tls", "{ ca: /etc/l7lb/ca.pem }"),
    ("pools.NAME.discover[].file", "/etc/l7lb/api.yaml"),
    ("pools.NAME.discover[].kubernetes", "{ service: api, port: http }"),
    ("pools.NAME.health_check", "{ type: http, path: /health }"),
    ("pools.NAME.health_check.headers", "{ X-Probe: l7lb }"),
    ("pools.NAME.health_check.status", "[200, 300-399]"),
    ("pools.NAME.max_in_flight", "{ per_backend: 100 }"),
    ("pools.NAME.passive_health", "{ consecutive_failures: 5 }"),
    ("pools.NAME.queue", "{ length: 100, timeout: 500ms }"),
    ("pools.NAME.timeouts", "{ connect: 2s, first_byte: 30s }"),
    ("pools.NAME.tls", "{ server_name: api.internal }"),
    ("rate_limit", "{ type: token_bucket, limit: 100, window: 1s }"),
    ("recent_requests", "{ count: 10000 }"),
    ("recent_requests.headers", "[X-User]"),
    ("reload", "{ watch: true }"),
    ("request_limits", "{ body_size: 10MiB }"),
    ("routes", "[{ path: /, pool: api }]"),
    ("routes[]", "{ path: /, pool: api }"),
    ("routes[].allow_encoded", "[slash]"),
    ("routes[].cache", "{ default_ttl: 1m }"),
    ("routes[].cache.bypass", "{ cookies: [session] }"),
    ("routes[].cache.bypass.cookies", "[session]"),
    ("routes[].cache.bypass.headers", "[X-Preview]"),
    ("routes[].cache.bypass.query", "[preview]"),
    ("routes[].cache.key", "{ query: without_tracking }"),
    ("routes[].cache.key.cookies", "[language]"),
    ("routes[].cache.key.headers", "[X-Country]"),
    ("routes[].cache.key.parameters", "[page]"),
    ("routes[].cache.methods", "[GET, HEAD]"),
    ("routes[].cache.statuses", "[200, 404]"),
    ("routes[].clients", "[10.0.0.0/8]"),
    ("routes[].cookies", "{ beta: { exact: \"1\" } }"),
    ("routes[].cookies.NAME", "{ exact: \"1\" }"),
    ("routes[].except_clients", "[10.1.0.0/16]"),
    ("routes[].headers", "{ X-Version: { exact: \"2\" } }"),
    ("routes[].headers.NAME", "{ exact: \"2\" }"),
    ("routes[].methods", "[GET, HEAD]"),
    ("routes[].pool", "api"),
    ("routes[].query", "{ preview: { present: true } }"),
    ("routes[].query.NAME", "{ present: true }"),
    ("routes[].rate_limit", "{ type: token_bucket, limit: 100, window: 1s }"),
    ("routes[].retry", "{ attempts: 2 }"),
    ("routes[].retry.on", "[connect, timeout, 503]"),
    ("routes[].sticky", "{ cookie: { name: sid } }"),
    ("routes[].sticky.cookie", "{ name: sid }"),
    ("routes[].timeouts", "{ first_byte: 30s, total: 60s }"),
    ("server", "{ threads: 4 }"),
    ("server.client_bind_to_ipv4", "[192.0.2.1]"),
    ("server.client_bind_to_ipv6", "['2001:db8::1']"),
    ("tests", "[{ request: GET http://www.example.com/, expect: { pool: api } }]"),
    ("tests[]", "{ request: GET http://www.example.com/, expect: { pool: api } }"),
    ("tests[].expect", "{ pool: api }"),
    ("tests[].headers", "{ X-User: '1' }"),
    ("trusted_proxies", "[10.0.0.0/8]"),
];

#[cfg(test)]
#[path = "expected_tests.rs"]
mod tests;
