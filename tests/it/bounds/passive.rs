//! Passive health: who is ejected, who stays, and who comes back.

use std::io::{Read, Write};
use std::time::Duration;

use super::{Moody, pool, pool_without_retries};
use crate::lab::client::{self, get};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

const UNCHECKED: &str = "health_check: { type: none }";

/// Asks until the log has `pattern`; the statuses that were seen by then.
fn ask_until(lab: &Lab, port: u16, pattern: &str) -> Vec<u16> {
    let mut seen = Vec::new();
    eventually(pattern, PATIENCE, || {
        seen.push(get(port, "/").status);
        lab.log().contains(pattern)
    });
    seen
}

fn good(count: usize) -> Vec<Moody> {
    (0..count).map(|_| Moody::start(200)).collect()
}

fn ports(backends: &[Moody]) -> Vec<u16> {
    backends.iter().map(Moody::port).collect()
}

#[test]
fn a_backend_that_fails_is_ejected_and_users_see_no_more_of_it() {
    for (status, reason) in [(500, "5 failures in a row"), (503, "5 failures in a row")] {
        let mut backends = good(4);
        backends.push(Moody::start(status));
        let port = free_port();
        let lab = Lab::start(&pool_without_retries(port, &ports(&backends), UNCHECKED));
        let bad = backends[4].port();
        let line = format!("backend ejected: pool=a backend=127.0.0.1:{bad}");
        let seen = ask_until(&lab, port, &line);
        let said = lab.wait_for_log(&line);
        assert!(said.contains(reason) && said.contains("for=10s"), "{said}");
        let failed = seen.iter().filter(|seen| **seen == status).count();
        assert!((5..=7).contains(&failed), "{failed} of {seen:?}");
        assert!((0..30).all(|_| get(port, "/").status == 200));
        assert_eq!(lab.log().matches("backend ejected").count(), 1, "{}", lab.log());
    }
}

#[test]
fn a_backend_that_refuses_connections_is_ejected_and_nobody_notices() {
    let backends = good(4);
    let port = free_port();
    let mut all = ports(&backends);
    all.push(free_port());
    let lab = Lab::start(&pool(port, &all, UNCHECKED));
    let seen = ask_until(&lab, port, "backend ejected");
    assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
    assert!((0..20).all(|_| get(port, "/after").status == 200));
    let after = || -> Vec<String> { lab.access().into_iter().filter(|line| line.contains("path=/after")).collect() };
    eventually("all lines are written", PATIENCE, || after().len() == 20);
    assert!(after().iter().all(|line| line.contains("tries=1")), "nobody goes there any more: {:?}", after());
}

#[test]
fn a_backend_ten_times_slower_than_its_peers_is_ejected() {
    let fast: Vec<Backend> = (0..4).map(|_| Backend::start_with("fast", &["--latency", "4ms"])).collect();
    let slow = Backend::start_with("slow", &["--latency", "60ms"]);
    let mut all: Vec<u16> = fast.iter().map(|backend| backend.port).collect();
    all.push(slow.port);
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { window: 200ms, minimum_requests: 3 }";
    let lab = Lab::start(&pool(port, &all, keys));
    ask_until(&lab, port, "backend ejected");
    let said = lab.wait_for_log(&format!("backend ejected: pool=a backend=127.0.0.1:{}", slow.port));
    assert!(said.contains("median"), "{said}");
    assert!((0..10).all(|_| get(port, "/").header("x-backend") == "fast"));
}

#[test]
fn an_ejected_backend_comes_back_and_is_out_for_longer_the_next_time() {
    let mut backends = good(2);
    backends.push(Moody::start(503));
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { ejection_time: 2s }";
    let lab = Lab::start(&pool(port, &ports(&backends), keys));
    ask_until(&lab, port, "for=2s");
    lab.wait_for_log("backend returned");
    // Before two seconds of good behaviour have taken the doubling back.
    ask_until(&lab, port, "for=4s");
    backends[2].set(200);
    eventually("it is back again", PATIENCE, || lab.log().matches("backend returned").count() == 2);
    let own = backends[2].port().to_string();
    eventually("it is used again", PATIENCE, || get(port, "/").header("x-backend") == own);
    assert!((0..12).all(|_| get(port, "/").status == 200));
    assert_eq!(lab.log().matches("backend ejected").count(), 2, "{}", lab.log());
}

#[test]
fn a_backend_that_hangs_gets_hardly_any_requests_by_default() {
    let backends = good(3);
    let port = free_port();
    let _lab = Lab::start(&pool(port, &ports(&backends), UNCHECKED).replace("balance: round_robin, ", ""));
    assert!((0..30).all(|_| get(port, "/").status == 200));
    backends[2].set(0);
    // Each leaves the time that it waited as a peak; one more may come once that has faded.
    assert!((0..100).filter(|_| !is_answered_within(Duration::from_millis(300), port)).count() <= 3);
}

/// A request that is given up after `patience`; whether it was answered.
fn is_answered_within(patience: Duration, port: u16) -> bool {
    let mut stream = client::connect(port);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read(&mut [0; 64]).is_ok()
}

#[test]
fn who_waits_for_a_backend_that_answers_nobody_is_answered_by_another() {
    let backends = good(4);
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { window: 200ms, minimum_requests: 1 }";
    let silent = pool(port, &ports(&backends), keys).replace("[connect, reset]", "[connect, reset, silent]");
    let lab = Lab::start(&silent);
    backends[3].set(0);
    let waiting: Vec<_> = (0..32).map(|_| std::thread::spawn(move || get(port, "/waits").status)).collect();
    // Silence means something only while the peers answer.
    eventually("it is ejected", PATIENCE, || {
        is_answered_within(Duration::from_millis(30), port);
        lab.log().contains("backend ejected")
    });
    assert!(lab.log().contains("no answer for"), "{}", lab.log());
    let statuses: Vec<u16> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let moved = || lab.access().iter().filter(|line| line.contains("path=/waits") && line.contains("tries=2")).count();
    eventually("as many as prove a silence waited there", PATIENCE, || moved() >= 3);
}

#[test]
fn at_most_half_of_a_pool_is_ejected() {
    let mut backends = good(1);
    backends.extend((0..3).map(|_| Moody::start(503)));
    let port = free_port();
    let lab = Lab::start(&pool_without_retries(port, &ports(&backends), UNCHECKED));
    let seen: Vec<u16> = (0..80).map(|_| get(port, "/").status).collect();
    assert_eq!(lab.log().matches("backend ejected").count(), 2, "{}", lab.log());
    // One good, one bad are left, and take turns.
    assert_eq!(seen[60..].iter().filter(|status| **status == 503).count(), 10, "{seen:?}");
}

#[test]
fn what_only_traffic_condemned_is_tried_where_nobody_else_is_left() {
    let well = Backend::start("well");
    let ill = Moody::start(200);
    let port = free_port();
    let keys = "health_check: { type: http, interval: 100ms, unhealthy_interval: 100ms, path: /health, fall: 1, status: [200] }";
    let lab = Lab::start(&pool(port, &[well.port, ill.port()], keys).replace("fall: 1", "fall: 1000000"));
    ill.set(503);
    ask_until(&lab, port, "backend ejected");
    assert!((0..5).all(|_| get(port, "/").header("x-backend") == "well"));
    drop(well);
    // Its health check goes on failing without taking it out; connections to it are refused at once.
    assert_eq!(get(port, "/").header("x-backend"), ill.port().to_string());
}

#[test]
fn a_broken_page_takes_no_backend_out() {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start("well")).collect();
    let port = free_port();
    let all: Vec<u16> = backends.iter().map(|backend| backend.port).collect();
    let lab = Lab::start(&pool(port, &all, UNCHECKED));
    assert!((0..60).all(|_| get(port, "/status/500").status == 500));
    assert!((0..12).all(|_| get(port, "/").status == 200));
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}

#[test]
fn without_passive_health_nobody_is_ejected() {
    let backends = [Moody::start(200), Moody::start(503)];
    let port = free_port();
    let lab =
        Lab::start(&pool_without_retries(port, &ports(&backends), "health_check: { type: none }, passive_health: off"));
    let failed = (0..40).filter(|_| get(port, "/").status == 503).count();
    assert_eq!(failed, 20);
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}
