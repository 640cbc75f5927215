//! Session affinity, and traffic split over pools by weight.

use std::collections::BTreeMap;
use std::io::Write;

use crate::lab::client::{self, Response, get, get_with};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, free_port};

/// Starts l7lb with these backends in one pool and a route with this `sticky:` block.
fn lab(port: u16, backends: &[Backend], sticky: &str) -> Lab {
    let backends: Vec<String> =
        backends.iter().map(|backend| format!("{{ address: '127.0.0.1:{}' }}", backend.port)).collect();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  p: {{ balance: round_robin, health_check: {{ type: http, path: /health, interval: 200ms, unhealthy_interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }}, backends: [{}] }}\n\
         routes: [{{ path: /, pool: p, sticky: {sticky} }}]\n",
        backends.join(", ")
    ))
}

fn backends(count: usize) -> Vec<Backend> {
    (1..=count).map(|n| Backend::start(&format!("b{n}"))).collect()
}

fn backend_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("x-backend").to_owned()
}

/// The header field with which a client returns the cookie of a response.
fn cookie(response: &Response) -> String {
    let set = response.header("set-cookie");
    format!("Cookie: a=b; {}\r\n", set.split(';').next().unwrap())
}

#[test]
fn affinity_cookie_keeps_a_client_on_its_backend_until_the_backend_fails() {
    let mut backends = backends(3);
    let port = free_port();
    let lab = lab(port, &backends, "{ cookie: {} }");
    let first = get(port, "/apiA");
    let set = first.header("set-cookie").to_owned();
    assert!(set.starts_with("l7lb=") && set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("127.0.0.1"), "the cookie does not reveal the address");
    let (name, cookie_line) = (backend_of(&first), cookie(&first));
    for _ in 0..10 {
        let again = get_with(port, "/apiA", &cookie_line);
        assert_eq!((backend_of(&again), again.header("set-cookie")), (name.clone(), ""));
    }
    let others: std::collections::BTreeSet<String> = (0..30).map(|_| backend_of(&get(port, "/apiA"))).collect();
    assert_eq!(others.len(), 3, "clients without a cookie are balanced");

    let index = name[1..].parse::<usize>().unwrap() - 1;
    backends[index].kill();
    let moved = get_with(port, "/apiA", &cookie_line);
    assert_ne!(backend_of(&moved), name);
    let second = cookie(&moved);
    assert_ne!(second, cookie_line, "the response sets a new cookie");
    lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[index].port));
    get_with(port, "/moved", &cookie_line);
    assert!(lab.wait_for_access("path=/moved").contains("the affinity backend is not available"));
    for _ in 0..5 {
        assert_eq!(backend_of(&get_with(port, "/apiA", &second)), backend_of(&moved));
    }
}

#[test]
fn forged_affinity_cookie_is_ignored_and_replaced() {
    let backends = backends(2);
    let port = free_port();
    let _lab = lab(port, &backends, "{ cookie: { name: session, path: /apiA, same_site: strict, lifetime: 1m } }");
    let original = get(port, "/apiA");
    let value = original.header("set-cookie").split(['=', ';']).nth(1).unwrap().to_owned();
    let mut flipped = value.clone().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for forged in [flipped.as_str(), "", "127.0.0.1:8081", &value[1..], &"A".repeat(5000)] {
        let response = get_with(port, "/apiA", &format!("Cookie: session={forged}\r\n"));
        backend_of(&response);
        let set = response.header("set-cookie");
        assert!(
            set.starts_with("session=") && set.contains("; Path=/apiA; Max-Age=60; HttpOnly; SameSite=Strict"),
            "{set}"
        );
    }
    let other_name = get_with(port, "/apiA", &format!("Cookie: l7lb={value}\r\n"));
    assert_ne!(other_name.header("set-cookie"), "");
}

#[test]
fn affinity_cookies_survive_a_restart_with_a_key_and_are_secure_over_tls() {
    let backends = backends(3);
    let (port, tls) = (free_port(), free_port());
    let yaml = |key: &str| {
        let all: Vec<String> =
            backends.iter().map(|backend| format!("{{ address: '127.0.0.1:{}' }}", backend.port)).collect();
        format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}, {{ address: '127.0.0.1:{tls}', tls: {{ certificates: [{{ certificate: localhost.pem, key: localhost-key.pem }}] }} }}]\n\
             pools: {{ p: {{ health_check: {{ type: none }}, backends: [{}] }} }}\n\
             routes: [{{ path: /, pool: p, sticky: {{ cookie: {{}}, key: '{key}' }} }}]\n",
            all.join(", ")
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let secret: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    std::fs::write(&key, base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret)).unwrap();
    let yaml = yaml(&key.display().to_string());
    let lab = Lab::start(&yaml);
    let first = get(port, "/apiA");
    assert!(!first.header("set-cookie").contains("Secure"));
    let mut secure = client::connect_tls(tls, client::tls_config(lab.folder(), &["http/1.1"]));
    secure.write_all(b"GET /apiA HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(client::read_response(&mut secure).header("set-cookie").ends_with("; Secure"));
    drop((secure, lab));
    let _lab = Lab::start(&yaml);
    for _ in 0..6 {
        let again = get_with(port, "/apiA", &cookie(&first));
        assert_eq!((backend_of(&again), again.header("set-cookie")), (backend_of(&first), ""));
    }
}

#[test]
fn affinity_by_header_or_client_cookie_always_selects_the_same_backend() {
    for (sticky, field) in
        [("{ by: header, name: X-User }", "X-User: "), ("{ by: cookie, name: JSESSIONID }", "Cookie: x=y; JSESSIONID=")]
    {
        let mut backends = backends(3);
        let port = free_port();
        let lab = lab(port, &backends, sticky);
        let request = |user: usize| get_with(port, "/apiA", &format!("{field}user-{user}\r\n"));
        let assigned: Vec<String> = (0..30).map(|user| backend_of(&request(user))).collect();
        assert_eq!(assigned.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!((0..30).map(|user| backend_of(&request(user))).collect::<Vec<_>>(), assigned);
        backends[0].kill();
        lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[0].port));
        for (user, backend) in assigned.iter().enumerate() {
            let now = backend_of(&request(user));
            assert!(
                if backend == "b1" { now != "b1" } else { now == *backend },
                "only clients of the failed backend move"
            );
        }
        lab.wait_for_access("the affinity backend is not available");
    }
}

#[test]
fn sticky_clients_lose_no_request_when_their_backend_fails_under_load() {
    let mut backends = backends(3);
    let port = free_port();
    let lab = lab(port, &backends, "{ by: client_ip }");
    let load = Load::start(port, "/apiA", 6, 2);
    load.wait_for_more(100);
    let name = backend_of(&get(port, "/apiA"));
    let index: usize = name[1..].parse::<usize>().unwrap() - 1;
    backends[index].kill();
    lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[index].port));
    load.wait_for_more(100);
    load.stop_without_failure();
}

/// Starts l7lb with two pools of one backend each and a route with these keys.
fn split_lab(port: u16, stable: &Backend, canary: &Backend, route: &str) -> Lab {
    let pool = |name: &str, backend: &Backend| {
        format!(
            "  {name}: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n",
            backend.port
        )
    };
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\npools:\n{}{}routes: [{{ path: /, {route} }}]\n",
        pool("stable", stable),
        pool("canary", canary)
    ))
}

#[test]
fn pools_get_their_configured_shares_and_are_named_in_the_access_log() {
    let (stable, canary) = (Backend::start("stable"), Backend::start("canary"));
    let port = free_port();
    let lab = split_lab(port, &stable, &canary, "pool: { stable: 95, canary: 5 }");
    let mut stream = client::connect(port);
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..2000 {
        stream.write_all(b"GET /apiA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        *counts.entry(backend_of(&client::read_response(&mut stream))).or_default() += 1;
    }
    // 100 are expected; six standard deviations of the binomial distribution are 58.
    assert!((42..=158).contains(&counts["canary"]), "{counts:?}");
    assert!(lab.wait_for_access("pool=canary").contains(&format!("upstream=127.0.0.1:{}", canary.port)));
    lab.wait_for_access("pool=stable");
}

#[test]
fn keep_pool_keeps_a_client_on_its_pool() {
    let (stable, canary) = (Backend::start("stable"), Backend::start("canary"));
    let port = free_port();
    let _lab =
        split_lab(port, &stable, &canary, "pool: { stable: 50, canary: 50 }, sticky: { cookie: {}, keep: pool }");
    for _ in 0..10 {
        let first = get(port, "/apiA");
        for _ in 0..5 {
            let again = get_with(port, "/apiA", &cookie(&first));
            assert_eq!((backend_of(&again), again.header("set-cookie")), (backend_of(&first), ""));
        }
    }
    let port = free_port();
    let _by_address =
        split_lab(port, &stable, &canary, "pool: { stable: 50, canary: 50 }, sticky: { by: client_ip, keep: pool }");
    let first = backend_of(&get(port, "/apiA"));
    assert!((0..20).all(|_| backend_of(&get(port, "/apiA")) == first));
}
