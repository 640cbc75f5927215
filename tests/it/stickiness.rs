//! Sticky sessions and shares of traffic.

use std::collections::BTreeMap;
use std::io::Write;

use crate::lab::client::{self, Answer, get, get_with};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, free_port};

/// Backends behind one route with this `sticky:` block.
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

fn who(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-backend").to_owned()
}

/// The cookie that an answer sets, as a request brings it back.
fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    format!("Cookie: a=b; {}\r\n", set.split(';').next().unwrap())
}

#[test]
fn a_cookie_binds_a_client_to_its_backend_until_that_dies() {
    let mut backends = backends(3);
    let port = free_port();
    let lab = lab(port, &backends, "{ cookie: {} }");
    let first = get(port, "/apiA");
    let set = first.header("set-cookie").to_owned();
    assert!(set.starts_with("l7lb=") && set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("127.0.0.1"), "opaque");
    let (name, cookie_line) = (who(&first), cookie(&first));
    for _ in 0..10 {
        let again = get_with(port, "/apiA", &cookie_line);
        assert_eq!((who(&again), again.header("set-cookie")), (name.clone(), ""));
    }
    let others: std::collections::BTreeSet<String> = (0..30).map(|_| who(&get(port, "/apiA"))).collect();
    assert_eq!(others.len(), 3, "clients without a cookie go anywhere");

    let index = name[1..].parse::<usize>().unwrap() - 1;
    backends[index].kill();
    let moved = get_with(port, "/apiA", &cookie_line);
    assert_ne!(who(&moved), name);
    let second = cookie(&moved);
    assert_ne!(second, cookie_line, "bound anew");
    lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[index].port));
    get_with(port, "/moved", &cookie_line);
    assert!(lab.wait_for_access("path=/moved").contains("bound to is not available"));
    for _ in 0..5 {
        assert_eq!(who(&get_with(port, "/apiA", &second)), who(&moved));
    }
}

#[test]
fn a_forged_cookie_means_nothing() {
    let backends = backends(2);
    let port = free_port();
    let _lab = lab(port, &backends, "{ cookie: { name: session, path: /apiA, same_site: strict, lifetime: 1m } }");
    let genuine = get(port, "/apiA");
    let value = genuine.header("set-cookie").split(['=', ';']).nth(1).unwrap().to_owned();
    let mut flipped = value.clone().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for forged in [flipped.as_str(), "", "127.0.0.1:8081", &value[1..], &"A".repeat(5000)] {
        let answer = get_with(port, "/apiA", &format!("Cookie: session={forged}\r\n"));
        who(&answer);
        let set = answer.header("set-cookie");
        assert!(
            set.starts_with("session=") && set.contains("; Path=/apiA; Max-Age=60; HttpOnly; SameSite=Strict"),
            "{set}"
        );
    }
    let other_name = get_with(port, "/apiA", &format!("Cookie: l7lb={value}\r\n"));
    assert_ne!(other_name.header("set-cookie"), "");
}

#[test]
fn cookies_survive_a_restart_with_a_key_and_are_secure_over_tls() {
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
    assert!(client::read_answer(&mut secure).header("set-cookie").ends_with("; Secure"));
    drop((secure, lab));
    let _lab = Lab::start(&yaml);
    for _ in 0..6 {
        let again = get_with(port, "/apiA", &cookie(&first));
        assert_eq!((who(&again), again.header("set-cookie")), (who(&first), ""));
    }
}

#[test]
fn a_value_of_the_clients_is_always_served_by_the_same_backend() {
    for (sticky, field) in
        [("{ by: header, name: X-User }", "X-User: "), ("{ by: cookie, name: JSESSIONID }", "Cookie: x=y; JSESSIONID=")]
    {
        let mut backends = backends(3);
        let port = free_port();
        let lab = lab(port, &backends, sticky);
        let ask = |user: usize| get_with(port, "/apiA", &format!("{field}user-{user}\r\n"));
        let homes: Vec<String> = (0..30).map(|user| who(&ask(user))).collect();
        assert_eq!(homes.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!((0..30).map(|user| who(&ask(user))).collect::<Vec<_>>(), homes);
        backends[0].kill();
        lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[0].port));
        for (user, home) in homes.iter().enumerate() {
            let now = who(&ask(user));
            assert!(if home == "b1" { now != "b1" } else { now == *home }, "only its own clients move");
        }
        lab.wait_for_access("bound to is not available");
    }
}

#[test]
fn a_backend_that_dies_under_load_costs_its_sticky_clients_no_request() {
    let mut backends = backends(3);
    let port = free_port();
    let lab = lab(port, &backends, "{ by: client_ip }");
    let load = Load::start(port, "/apiA", 6, 2);
    load.wait_for_more(100);
    let home = who(&get(port, "/apiA"));
    let index: usize = home[1..].parse::<usize>().unwrap() - 1;
    backends[index].kill();
    lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backends[index].port));
    load.wait_for_more(100);
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.keys().copied().collect::<Vec<_>>()), (Vec::<String>::new(), vec![200]));
}

/// A route to two pools of one backend each.
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
fn pools_take_their_shares_and_the_log_tells_which() {
    let (stable, canary) = (Backend::start("stable"), Backend::start("canary"));
    let port = free_port();
    let lab = split_lab(port, &stable, &canary, "pool: { stable: 95, canary: 5 }");
    let mut stream = client::connect(port);
    let mut taken = BTreeMap::<String, usize>::new();
    for _ in 0..2000 {
        stream.write_all(b"GET /apiA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        *taken.entry(who(&client::read_answer(&mut stream))).or_default() += 1;
    }
    // 100 are expected; 6 standard deviations of a binomial are 58.
    assert!((42..=158).contains(&taken["canary"]), "{taken:?}");
    assert!(lab.wait_for_access("pool=canary").contains(&format!("upstream=127.0.0.1:{}", canary.port)));
    lab.wait_for_access("pool=stable");
}

#[test]
fn a_share_sticks_to_a_client_where_wished() {
    let (stable, canary) = (Backend::start("stable"), Backend::start("canary"));
    let port = free_port();
    let _lab =
        split_lab(port, &stable, &canary, "pool: { stable: 50, canary: 50 }, sticky: { cookie: {}, keep: pool }");
    for _ in 0..10 {
        let first = get(port, "/apiA");
        for _ in 0..5 {
            let again = get_with(port, "/apiA", &cookie(&first));
            assert_eq!((who(&again), again.header("set-cookie")), (who(&first), ""));
        }
    }
    let port = free_port();
    let _by_address =
        split_lab(port, &stable, &canary, "pool: { stable: 50, canary: 50 }, sticky: { by: client_ip, keep: pool }");
    let first = who(&get(port, "/apiA"));
    assert!((0..20).all(|_| who(&get(port, "/apiA")) == first));
}
