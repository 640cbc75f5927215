//! Short forms: one item where a list is expected, an address where a block is expected, and the URL of a backend.
//!
//! They are replaced by their long forms before anything else reads the file, so that both mean the same to every
//! command. The nodes keep their place in the file.

use serde_json::Value as Json;
use serde_yaml::Value;

use super::tree::Tree;
use crate::base::fault::{Faults, Place};

/// Replaces every short form in `tree`. `schema` says where a list is expected.
pub(super) fn expand(tree: &mut Tree, schema: &Json, faults: &mut Faults) {
    lists(tree, schema);
    for listener in tree.get_mut("listeners").into_iter().flat_map(Tree::items_mut) {
        expand_listener(listener);
    }
    for (_, pool) in tree.get_mut("pools").into_iter().flat_map(Tree::entries_mut) {
        expand_pool(pool, faults);
        pool.get_mut("discover").into_iter().flat_map(Tree::items_mut).for_each(expand_source);
    }
}

/// Makes lists of single items where the schema has a list.
fn lists(tree: &mut Tree, schema: &Json) {
    if is_list(schema) && !tree.is_sequence() && !tree.is_null() {
        tree.wrap_in_list();
    }
    for item in tree.items_mut() {
        lists(item, &schema["items"]);
    }
    for (key, value) in tree.entries_mut() {
        if let Some(schema) = schema_of(schema, &key) {
            lists(value, schema);
        }
    }
}

fn is_list(schema: &Json) -> bool {
    match &schema["type"] {
        Json::Array(types) => types.iter().any(|one| one == "array"),
        one => one == "array",
    }
}

/// The schema of the value of `key` in a mapping.
pub(super) fn schema_of<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    let direct = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
    direct.filter(|found| found.is_object()).or_else(|| {
        let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        alternatives.filter_map(|alternative| schema_of(alternative, key)).next()
    })
}

/// An address instead of a block, and ports instead of addresses.
fn expand_listener(listener: &mut Tree) {
    if is_address(listener) {
        listener.wrap_under("address");
    }
    let Some(address) = listener.get_mut("address") else { return };
    complete(address, "0.0.0.0");
    address.items_mut().iter_mut().for_each(|address| complete(address, "0.0.0.0"));
}

fn is_address(tree: &Tree) -> bool {
    tree.scalar().is_some_and(|value| value.is_string() || value.is_number())
}

/// Sources of backends for which one value suffices, and its key.
pub(super) const SHORT_SOURCES: [(&str, &str); 3] = [("dns", "name"), ("file", "path"), ("kubernetes", "service")];

/// Sources of backends that need no key.
pub(super) const BARE_SOURCES: [&str; 2] = ["api", "docker"];

/// `api` and `api:` instead of `api: {}`, and the most important value instead of a block.
fn expand_source(source: &mut Tree) {
    for kind in BARE_SOURCES {
        if source.scalar().and_then(Value::as_str) == Some(kind) {
            source.set(Value::Null);
            source.wrap_under(kind);
        }
        if let Some(block) = source.get_mut(kind).filter(|block| block.is_null()) {
            block.set(Value::Mapping(serde_yaml::Mapping::new()));
        }
    }
    if let Some(dns) = source.get_mut("dns") {
        expand_name(dns);
    }
    for (kind, key) in SHORT_SOURCES {
        if let Some(block) = source.get_mut(kind).filter(|block| is_address(block)) {
            block.wrap_under(key);
        }
    }
}

/// `NAME:PORT` instead of a block with both.
fn expand_name(dns: &mut Tree) {
    let Some((name, port)) = dns.scalar().and_then(Value::as_str).and_then(|text| text.rsplit_once(':')) else {
        return;
    };
    let (name, Ok(port)) = (name.to_owned(), port.parse::<u16>()) else { return };
    let place = dns.origin.clone();
    dns.set(Value::String(name));
    dns.wrap_under("name");
    dns.insert("port", Some(Value::Number(port.into())), place);
}

/// Adds the address to a port: `8080`, `:8080` or `*:8080`.
fn complete(tree: &mut Tree, ip: &str) {
    let port = match tree.scalar() {
        Some(Value::Number(number)) => number.as_u64().map(|port| port.to_string()),
        Some(Value::String(text)) => {
            let port = text.strip_prefix('*').unwrap_or(text);
            let port = port.strip_prefix(':').or((port.len() == text.len()).then_some(port));
            port.filter(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned)
        }
        _ => None,
    };
    if let Some(port) = port {
        tree.set(Value::String(format!("{ip}:{port}")));
    }
}

/// The address of a backend with its scheme.
struct Url {
    place: Place,
    /// Whether the scheme is `https`; `None` without a scheme.
    tls: Option<bool>,
    host: String,
}

/// Addresses instead of blocks, ports instead of addresses, and URLs.
fn expand_pool(pool: &mut Tree, faults: &mut Faults) {
    let mut urls = Vec::new();
    for backend in pool.get_mut("backends").into_iter().flat_map(Tree::items_mut) {
        if is_address(backend) {
            backend.wrap_under("address");
        }
        let Some(address) = backend.get_mut("address") else { continue };
        complete(address, "127.0.0.1");
        urls.extend(expand_url(address, faults));
    }
    let Some(name) = urls.iter().find(|url| url.tls == Some(true)).map(|url| (url.host.clone(), url.place.clone()))
    else {
        return reject_plain_urls(pool, &urls, faults);
    };
    infer_tls(pool, &urls, name, faults);
}

/// Replaces a URL by host and port. `None` if the address is not a text.
fn expand_url(address: &mut Tree, faults: &mut Faults) -> Option<Url> {
    let Some(Value::String(text)) = address.scalar() else { return None };
    let text = text.clone();
    let place = address.origin.clone();
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| *scheme != "unix") else {
        return Some(Url { place, tls: None, host: String::new() });
    };
    let tls = is_tls(scheme, &place, faults);
    let authority = authority(&text, scheme, rest, &place, faults);
    let (host, port) = match split_port(authority) {
        (host, Some(port)) => (host, port.to_owned()),
        (host, None) => (host, if tls { "443" } else { "80" }.to_owned()),
    };
    address.set(Value::String(format!("{host}:{port}")));
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Url { place, tls: Some(tls), host })
}

/// Whether the scheme means TLS.
fn is_tls(scheme: &str, place: &Place, faults: &mut Faults) -> bool {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        other => {
            faults.add(place.clone(), format!("`{other}://` is not a scheme of backends"), scheme_hint(other));
            false
        }
    }
}

/// Host and port of a URL. What a backend does not have is reported.
fn authority<'a>(url: &str, scheme: &str, rest: &'a str, place: &Place, faults: &mut Faults) -> &'a str {
    let written = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = written.rsplit_once('@').map_or(written, |(_, authority)| authority);
    if authority.len() < written.len() {
        let hint = format!("write {scheme}://{authority}; a request keeps its own `Authorization`");
        faults.add(place.clone(), "the address has a user name, and a backend has none", hint);
    }
    if written.len() < rest.len() {
        let hint = format!("write {scheme}://{authority}; a request keeps its own path");
        faults.add(place.clone(), format!("`{url}` has a path, and a backend has none"), hint);
    }
    authority
}

fn scheme_hint(scheme: &str) -> &'static str {
    match scheme {
        "h2c" | "grpc" => "write NAME:PORT, and `protocol: h2c` in the pool",
        "h2" | "grpcs" => "write https://NAME:PORT, and `protocol: http2` in the pool",
        "ws" | "wss" => "write http:// or https://; WebSocket needs nothing else",
        _ => "write NAME:PORT, http://NAME:PORT or https://NAME:PORT",
    }
}

/// Host and port; the brackets of an IPv6 address belong to the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `http://` contradicts `tls`.
fn reject_plain_urls(pool: &Tree, urls: &[Url], faults: &mut Faults) {
    if pool.get("tls").is_none_or(Tree::is_null) {
        return;
    }
    for url in urls.iter().filter(|url| url.tls == Some(false)) {
        faults.add(url.place.clone(), "`http://` contradicts `tls` of the pool", "write https://, or remove `tls`");
    }
}

/// Derives `tls.server_name` from the URLs with `https`. `name` is the first host and its place.
fn infer_tls(pool: &mut Tree, urls: &[Url], (name, place): (String, Place), faults: &mut Faults) {
    for url in urls.iter().filter(|url| url.tls == Some(false)) {
        let hint = "write https:// for all of them, or use two pools";
        faults.add(url.place.clone(), "a pool uses TLS to all of its backends or to none", hint);
    }
    if pool.get("tls").is_none() {
        pool.insert("tls", None, place.clone());
    }
    let Some(tls) = pool.get_mut("tls").filter(|tls| tls.is_mapping() || tls.is_null()) else { return };
    if tls.get("server_name").is_some() {
        return;
    }
    for url in urls {
        let (problem, hint) = match url.tls {
            Some(true) if url.host != name => (
                format!("the backends have different names, `{name}` and `{}`", url.host),
                "add `tls: { server_name: NAME }` with the name that all certificates have, or use one pool for each",
            ),
            None => (
                format!("the pool uses TLS because of `https://{name}`, and this address has no scheme"),
                "write https:// for all of them, or add `tls: { server_name: NAME }` to the pool",
            ),
            _ => continue,
        };
        faults.add(url.place.clone(), problem, hint);
    }
    tls.insert("server_name", Some(Value::String(name)), place);
}

#[cfg(test)]
#[path = "short_forms_tests.rs"]
mod tests;
