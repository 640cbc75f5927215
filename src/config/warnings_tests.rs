//! Warnings about valid but unwise settings.

use super::*;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::load;
use crate::tls::development;

const POOLS_AND_ROUTES: &str =
    "pools: { p: { backends: [{ address: '127.0.0.1:1' }] } }\nroutes: [{ path: /, pool: p }]\n";

fn told(text: &str, circumstances: &Circumstances) -> Vec<Diagnostic> {
    let loaded = load::read(text, "f.yaml", &|_| None)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(ToString::to_string).collect::<String>()));
    loaded.source.diagnostics(Severity::Warning, warnings(&loaded.checked.written, circumstances))
}

fn today() -> Circumstances {
    Circumstances { now: SystemTime::now(), descriptors: Some(2500) }
}

fn places(text: &str, circumstances: &Circumstances) -> Vec<String> {
    told(text, circumstances).into_iter().map(|diagnostic| diagnostic.place).collect()
}

#[test]
fn unwise_settings_are_reported_with_their_place() {
    let text = "listeners: [{ address: 0.0.0.0:80, proxy_protocol: { trusted: ['::/0'] } }]\n\
        trusted_proxies: [10.0.0.0/8, 0.0.0.0/0]\n\
        connection_limits: { total: 1001 }\n\
        client_timeouts: { body: 2days }\n\
        pools:\n  p:\n    tls: { server_name: a.test, verify: false }\n    keepalive_timeout: 61s\n    \
        health_check: { type: none }\n    timeouts: { idle: 30days }\n    backends: [{ address: '127.0.0.1:1' }]\n\
        routes: [{ path: /, pool: p, timeouts: { first_byte: 25h }, filters: [{ timeout: { idle: 26h } }] }]\n";
    let said = places(text, &today());
    assert_eq!(
        said,
        [
            "listeners[0].proxy_protocol.trusted[0]",
            "trusted_proxies[1]",
            "connection_limits.total",
            "client_timeouts.body",
            "pools.p.tls.verify",
            "pools.p.keepalive_timeout",
            "pools.p.health_check.type",
            "pools.p.timeouts.idle",
            "routes[0].timeouts.first_byte",
            "routes[0].filters[0].timeout.idle",
        ]
    );
    let first = told(text, &today()).remove(0);
    assert_eq!(
        first.to_string(),
        "f.yaml:1:64: warning at listeners[0].proxy_protocol.trusted[0]: ::/0 contains every address, so every client can forge its address\n    \
         1 | listeners: [{ address: 0.0.0.0:80, proxy_protocol: { trusted: ['::/0'] } }]\n      \
         |                                                                ^\n      \
         = list only the networks of the proxies in front of l7lb, such as 10.0.0.0/8\n"
    );
}

#[test]
fn path_with_a_wildcard_at_its_end_is_reported_with_the_right_form() {
    for (path, prefix) in
        [("/api/*", "/api"), ("/api*", "/api"), ("/*", "/"), ("/**", "/"), ("/api/.*", "/api"), ("/a/(.*)$", "/a")]
    {
        let text =
            format!("listeners: 80\npools: {{ p: {{ backends: 81 }} }}\nroutes: {{ path: '{path}', pool: p }}\n");
        let told = told(&text, &today());
        assert_eq!(told.len(), 1, "{path}: {told:?}");
        assert_eq!((told[0].place.as_str(), told[0].position.unwrap().line), ("routes.path", 3));
        assert_eq!(told[0].hint, format!("write {prefix}, which matches {prefix} and everything below it"));
    }
    let text = "listeners: 80\npools: { p: { backends: 81 } }\nroutes: { path: '/a/*/b', pool: p }\n";
    assert_eq!(places(text, &today()), [""; 0]);
}

#[test]
fn sensible_settings_have_no_warning() {
    let text =
        format!("listeners: [{{ address: 0.0.0.0:80 }}]\nconnection_limits: {{ total: 1000 }}\n{POOLS_AND_ROUTES}");
    assert_eq!(places(&text, &today()), [""; 0]);
    let unknown = Circumstances { descriptors: None, ..today() };
    assert_eq!(places(&text.replace("total: 1000", "total: 100000"), &unknown), [""; 0]);
}

#[test]
fn token_file_that_every_user_can_read_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
    let token = format!("[{{ name: a, file: '{}', role: read }}]", file.display());
    let text = format!(
        "listeners: [{{ address: 0.0.0.0:80 }}]\nadmin: {{ listen: 127.0.0.1:81, tokens: {token} }}\n{POOLS_AND_ROUTES}"
    );
    for (mode, expected) in [(0o644, &["admin.tokens[0].file"][..]), (0o640, &[]), (0o600, &[])] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(places(&text, &today()), expected, "{mode:o}");
    }
}

#[test]
fn metrics_at_an_address_that_is_not_loopback_are_reported() {
    let text = format!(
        "listeners: [{{ address: 0.0.0.0:80 }}]\nmetrics: {{ listen: ['127.0.0.1:81', '0.0.0.0:82', '[::1]:81', '10.0.0.1:83'] }}\n{POOLS_AND_ROUTES}"
    );
    assert_eq!(places(&text, &today()), ["metrics.listen[1]", "metrics.listen[3]"]);
}

#[test]
fn missing_socket_of_a_backend_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("a.sock")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let text = format!(
        "listeners: [{{ address: 0.0.0.0:80 }}]\npools: {{ p: {{ backends: [{{ address: 'unix:{at}/a.sock' }}, \
         {{ address: 'unix:{at}/b.sock' }}, {{ address: 'unix:@abstract' }}, {{ address: 'unix:{at}/file' }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n"
    );
    let said = told(&text, &today());
    let at = |index: usize| (said[index].place.as_str(), said[index].problem.as_str());
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(at(0).0, "pools.p.backends[1].address");
    assert!(at(0).1.ends_with("b.sock: No such file or directory (os error 2)"), "{}", at(0).1);
    assert_eq!(at(1).0, "pools.p.backends[3].address");
    assert!(at(1).1.ends_with("file is not a socket"), "{}", at(1).1);
}

#[test]
fn folder_of_the_cache_that_cannot_be_used_is_reported_and_none_is_created() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let text = |path: &str, store: &str| {
        format!(
            "listeners: [{{ address: '127.0.0.1:80' }}]\ncache: {{ disk: {{ path: '{}/{path}' }} }}\n{}",
            folder.path().display(),
            POOLS_AND_ROUTES.replace("pool: p }", &format!("pool: p, cache: {{ store: {store} }} }}"))
        )
    };
    assert_eq!(places(&text("new/cache", "disk"), &today()), [""; 0]);
    assert!(!folder.path().join("new").exists());
    assert_eq!(places(&text("file", "memory"), &today()), [""; 0], "no route uses it");
    for path in ["file", "file/cache"] {
        assert_eq!(places(&text(path, "disk"), &today()), ["cache.disk.path"], "{path}");
    }
    let said = told(&text("file", "disk"), &today()).remove(0).to_string();
    assert!(said.contains("/file, cannot be used: not a directory"), "{said}");
}

#[test]
fn limits_above_the_file_descriptor_limit_are_reported_with_the_limit_that_they_need() {
    let few = Circumstances { descriptors: Some(500), ..today() };
    let text = "server: { threads: 8 }\nlisteners: [80, 81]\nconnection_limits: { total: 201 }\n\
        pools:\n  p: { backends: [1, 2, 3, 4, 5, 6], max_in_flight: { total: 300 } }\n  \
        q: { backends: [7], protocol: h2c, max_in_flight: { total: 300 } }\nroutes: { path: /, pool: p }\n";
    let told = |text: &str, circumstances| -> Vec<_> {
        told(text, circumstances).into_iter().map(|told| (told.place, told.problem, told.hint)).collect()
    };
    let said = told(text, &few);
    let places: Vec<&str> = said.iter().map(|(place, ..)| place.as_str()).collect();
    assert_eq!(places, ["connection_limits.total", "pools", "pools.p.max_in_flight.total"]);
    assert!(said[0].1.contains("limit of 500 allows only 200 connections") && said[0].2.contains("to 502"), "{said:?}");
    assert!(said[1].1.contains("need about 111 file descriptors"), "{said:?}");
    assert!(said[1].2.contains("to 555"), "{said:?}");
    assert!(said[2].2.contains("to 750"), "{said:?}");
    assert_eq!(told(text, &Circumstances { descriptors: Some(750), ..today() }), []);
}

#[test]
fn plain_listener_beside_tls_and_expiring_certificates_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, certificate) = development::certificate(&["a.test".to_owned()]).unwrap();
    std::fs::write(folder.path().join("c.pem"), pem.certificate).unwrap();
    std::fs::write(folder.path().join("k.pem"), pem.key).unwrap();
    let at = folder.path().display();
    let with = |plain: &str| {
        format!(
            "listeners: [{{ address: 0.0.0.0:443, tls: {{ certificates: [{{ certificate: {at}/c.pem, key: {at}/k.pem }}] }} }}, {plain}]\n{POOLS_AND_ROUTES}"
        )
    };
    let day = Duration::from_secs(24 * 3600);
    let at = |now| Circumstances { now, descriptors: None };
    let early = at(certificate.expires() - 22 * day);
    let plain = with("{ address: '0.0.0.0:80' }");
    assert_eq!(places(&plain, &early), ["listeners[1].address"]);
    let elsewhere = told(&plain.replace("0.0.0.0:443", "0.0.0.0:8443"), &early);
    assert!(elsewhere[0].hint.contains("`redirect_to_https: 8443`"), "{}", elsewhere[0].hint);
    for wise in ["{ address: '127.0.0.1:80' }", "{ address: '0.0.0.0:80', redirect_to_https: 443 }"] {
        assert_eq!(places(&with(wise), &early), [""; 0], "{wise}");
    }
    let wise = with("{ address: '127.0.0.1:80' }");
    for (now, said) in [
        (certificate.expires() - 20 * day, "the certificate expires in 20 days"),
        (certificate.expires() + day, "the certificate has expired"),
    ] {
        let told = told(&wise, &at(now));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].place, "listeners[0].tls.certificates[0].certificate");
        assert!(told[0].problem.starts_with(said), "{}", told[0].problem);
    }
}

#[test]
fn local_zone_without_a_backend_is_reported_with_the_similar_zone_unless_a_source_may_supply_one() {
    let said = |zone: &str, pool: &str| -> Vec<String> {
        let text = format!(
            "server: {{ zone: {zone} }}\nlisteners: [{{ address: 127.0.0.1:80 }}]\n\
             pools: {{ p: {{ {pool} }} }}\nroutes: [{{ path: /, pool: p }}]\n"
        );
        told(&text, &today()).iter().map(ToString::to_string).collect()
    };
    let zones = "backends: [{ address: '127.0.0.1:1', zone: eu-1a }, { address: '127.0.0.1:2', zone: eu-1b }]";
    assert_eq!(said("eu-1b", zones), [""; 0]);
    let [wrong] = &said("eu-1bb", zones)[..] else { panic!() };
    assert!(wrong.contains("warning at server.zone: no backend is in the zone `eu-1bb`"), "{wrong}");
    assert!(wrong.contains("did you mean `eu-1b`?"), "{wrong}");
    let [other] = &said("us-east", zones)[..] else { panic!() };
    assert!(other.contains("the zones of the backends are eu-1a, eu-1b"), "{other}");
    let [none] = &said("a", "backends: ['127.0.0.1:1']")[..] else { panic!() };
    assert!(none.contains("set `zone` of the backends, or remove this key"), "{none}");
    assert_eq!(said("a", "discover: [{ file: /nonexistent/a.yaml }]"), [""; 0]);
    assert_eq!(said("a", "discover: [{ dns: api.internal:80 }]").len(), 1, "DNS knows no zones");
}
