//! Backends in a real etcd, which fails in every way under traffic.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::authority::Authority;
use crate::lab::client::get;
use crate::lab::etcd::{Etcd, Relay};
use crate::lab::load::{Load, Report};
use crate::lab::relay::{self, Port};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::reload::UNWATCHED;

/// A pool with the backends below `/l7lb/api/`; `more` has further keys of the source.
fn yaml(port: u16, endpoints: &[String], more: &str) -> String {
    format!(
        "{UNWATCHED}listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ health_check: {{ type: http, path: /health, interval: 200ms, unhealthy_interval: 100ms, \
         timeout: 500ms, rise: 1, fall: 2 }}, balance: round_robin, slow_start: 0s, \
         discover: [{{ etcd: {{ endpoints: [{}], prefix: /l7lb/api/{more} }} }}] }} }}\n\
         routes: [{{ path: /, pool: a }}]\n",
        endpoints.join(", ")
    )
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn key(name: &str) -> String {
    format!("/l7lb/api/{name}")
}

fn register(etcd: &Etcd, backend: &Backend) {
    etcd.put(&key(backend.name()), format!("127.0.0.1:{}", backend.port).as_bytes());
}

fn responding(port: u16) -> BTreeSet<String> {
    (0..12).map(|_| get(port, "/")).filter(|r| r.status == 200).map(|r| r.header("x-backend").to_owned()).collect()
}

fn wait_for(port: u16, names: &[&str]) {
    let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    eventually(&format!("{names:?} respond"), PATIENCE, || responding(port) == names);
}

fn assert_no_failure(report: &Report) {
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
}

#[test]
fn five_backends_are_replaced_in_etcd_without_a_failed_request() {
    let Some(etcd) = Etcd::start() else { return };
    let mut backends: Vec<Backend> = (1..=5).map(|number| Backend::start(&format!("old-{number}"))).collect();
    backends.iter().for_each(|backend| register(&etcd, backend));
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(etcd.port)], ""));
    wait_for(port, &["old-1", "old-2", "old-3", "old-4", "old-5"]);
    let load = Load::start(port, "/", 6, 3);
    for number in 1..=5 {
        let new = Backend::start(&format!("new-{number}"));
        register(&etcd, &new);
        eventually("the new backend responds", PATIENCE, || responding(port).contains(new.name()));
        let old = backends.remove(0);
        etcd.ctl(&["del", &key(old.name())]);
        eventually("the old backend has no requests", PATIENCE, || !responding(port).contains(old.name()));
        load.wait_for_more(100);
        backends.push(new);
    }
    let report = load.stop();
    eprintln!("{} requests", report.answered());
    assert_no_failure(&report);
    wait_for(port, &["new-1", "new-2", "new-3", "new-4", "new-5"]);
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

#[test]
fn killed_or_stopped_etcd_causes_no_failed_request_and_its_return_is_noticed() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    register(&etcd, &one);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(etcd.port)], ""));
    wait_for(port, &["one"]);
    let load = Load::start(port, "/", 4, 2);
    etcd.signal(Signal::SIGSTOP);
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("no response to /v3/kv/range within 2s"), "{line}");
    load.wait_for_more(200);
    etcd.signal(Signal::SIGCONT);
    let since = Instant::now();
    lab.wait_for_log("discovery works again");
    eprintln!("noticed {:?} after SIGCONT", since.elapsed());
    register(&etcd, &two);
    wait_for(port, &["one", "two"]);
    etcd.kill();
    let refused = || lab.log().lines().filter(|line| line.contains("discovery failed")).count() == 2;
    eventually("the failure is reported", PATIENCE, refused);
    load.wait_for_more(200);
    etcd.restart();
    let since = Instant::now();
    let works = || lab.log().lines().filter(|line| line.contains("discovery works again")).count() == 2;
    eventually("the return is noticed", PATIENCE, works);
    eprintln!("noticed {:?} after the restart", since.elapsed());
    register(&etcd, &three);
    wait_for(port, &["one", "three", "two"]);
    let report = load.stop();
    eprintln!("{} requests", report.answered());
    assert_no_failure(&report);
}

/// How soon an etcd that can be reached again is noticed.
const RECOVERY: Duration = Duration::from_secs(2);

/// Makes the port of etcd unreachable under traffic, changes a key meanwhile, and opens the port again.
fn unreachable_port(shut: impl Fn(&Port), reason: &str) {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    register(&etcd, &one);
    let (relay, etcd_port) = relay::tcp(etcd.port);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(relay)], ""));
    wait_for(port, &["one"]);
    let load = Load::start(port, "/", 4, 2);
    load.wait_for_more(100);
    shut(&etcd_port);
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains(reason), "{line}");
    load.wait_for_more(1000);
    register(&etcd, &two);
    assert_eq!(responding(port), BTreeSet::from(["one".to_owned()]));
    etcd_port.open();
    let since = Instant::now();
    lab.wait_for_log("discovery works again");
    let noticed = since.elapsed();
    eprintln!("noticed after {noticed:?}");
    assert!(noticed < RECOVERY, "noticed after {noticed:?}");
    wait_for(port, &["one", "two"]);
    let report = load.stop();
    eprintln!("{} requests", report.answered());
    assert_no_failure(&report);
    assert_eq!(lab.log().matches("discovery failed").count(), 1, "{}", lab.log());
}

#[test]
fn closed_port_of_etcd_causes_no_failed_request_and_its_opening_is_noticed() {
    unreachable_port(Port::close, "Connection refused");
}

#[test]
fn dropped_packets_to_etcd_cause_no_failed_request_and_their_end_is_noticed() {
    unreachable_port(Port::block, "no connection within");
}

#[test]
fn frozen_or_refusing_endpoint_is_replaced_by_the_next_one() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    register(&etcd, &one);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(etcd.port);
    let ports = [silent.local_addr().unwrap().port(), free_port(), relay.port, etcd.port];
    let port = free_port();
    let lab = Lab::start(&yaml(port, &ports.map(url), ", timeout: 500ms"));
    wait_for(port, &["one"]);
    relay.freeze();
    register(&etcd, &two);
    wait_for(port, &["one", "two"]);
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

#[test]
fn change_is_noticed_although_the_watch_is_silent() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    register(&etcd, &one);
    register(&etcd, &two);
    let relay = Relay::start(etcd.port);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(relay.port)], ""));
    wait_for(port, &["one", "two"]);
    relay.freeze_first();
    // The number of keys stays the same.
    etcd.put(&key("two"), format!("127.0.0.1:{}", three.port).as_bytes());
    wait_for(port, &["one", "three"]);
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

#[test]
fn backend_is_removed_when_its_lease_expires() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    register(&etcd, &one);
    let granted = etcd.ctl(&["lease", "grant", "3"]);
    let lease = granted.split(' ').nth(1).unwrap();
    // The address is the last segment of the key.
    etcd.ctl(&["put", &format!("--lease={lease}"), &key(&format!("127.0.0.1:{}", two.port)), ""]);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(etcd.port)], ""));
    lab.wait_for_log("added=2 removed=0 total=2");
    lab.wait_for_log("added=0 removed=1 total=1");
    wait_for(port, &["one"]);
}

#[test]
fn compaction_and_an_outage_during_which_keys_change_lose_no_change() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    register(&etcd, &one);
    register(&etcd, &two);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(etcd.port)], ""));
    wait_for(port, &["one", "two"]);
    let compact = |etcd: &Etcd| {
        let status = etcd.ctl(&["get", "x", "--write-out=json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        etcd.ctl(&["compact", &status["header"]["revision"].to_string()]);
    };
    // While the watch is active.
    etcd.ctl(&["put", "/unrelated", "x"]);
    compact(&etcd);
    register(&etcd, &three);
    wait_for(port, &["one", "three", "two"]);
    // While l7lb is stopped, its connections are lost, and the revision of its watch is compacted.
    lab.signal(Signal::SIGSTOP);
    etcd.kill();
    etcd.restart();
    etcd.ctl(&["del", &key("two")]);
    for number in 0..10 {
        etcd.ctl(&["put", "/unrelated", &number.to_string()]);
    }
    compact(&etcd);
    lab.signal(Signal::SIGCONT);
    wait_for(port, &["one", "three"]);
}

#[test]
fn invalid_value_leaves_out_only_its_key_and_never_empties_the_pool() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    register(&etcd, &one);
    let megabyte: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(..)).collect();
    etcd.put(&key("garbage"), &megabyte);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &[url(etcd.port)], ""));
    let line = lab.wait_for_log("discovered backends rejected");
    assert!(line.contains("count=1") && line.contains("1048576 bytes"), "{line}");
    wait_for(port, &["one"]);
    // The same key, then another one, while it is watched.
    register(&etcd, &two);
    wait_for(port, &["one", "two"]);
    etcd.put(&key("garbage"), format!("{{\"address\":\"127.0.0.1:{}\",\"weight\":0}}", two.port).as_bytes());
    etcd.put(&key("two"), &megabyte);
    wait_for(port, &["one"]);
    // Without a valid key, the last list stays.
    etcd.ctl(&["del", &key("garbage")]);
    etcd.put(&key("one"), b"nonsense");
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("none of the 2 keys is valid; key `/l7lb/api/one`: `nonsense` has no port"), "{line}");
    wait_for(port, &["one"]);
    register(&etcd, &two);
    register(&etcd, &one);
    wait_for(port, &["one", "two"]);
    assert!(lab.log().len() < 100_000, "the log has no garbage");
}

#[test]
fn wrong_password_is_reported_without_it_and_a_corrected_file_works() {
    let Some(mut etcd) = Etcd::start() else { return };
    let one = Backend::start("one");
    register(&etcd, &one);
    etcd.ctl(&["user", "add", "root:for-root"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["user", "add", "l7lb:for-l7lb"]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "reader", "--prefix=true", "read", "/l7lb/api/"]);
    etcd.ctl(&["user", "grant-role", "l7lb", "reader"]);
    etcd.ctl(&["auth", "enable"]);
    etcd.use_client_arguments(&["--user", "root:for-root"]);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("password");
    std::fs::write(&file, "something-else\n").unwrap();
    let port = free_port();
    let lab = Lab::start_in(
        Arc::clone(&folder),
        &yaml(port, &[url(etcd.port)], ", user: l7lb, password_file: '{folder}/password'"),
    );
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("authentication failed"), "{line}");
    std::fs::write(&file, "for-l7lb\n").unwrap();
    wait_for(port, &["one"]);
    let two = Backend::start("two");
    register(&etcd, &two);
    wait_for(port, &["one", "two"]);
    assert!(!lab.log().contains("something-else") && !lab.log().contains("for-l7lb"), "{}", lab.log());
}

#[test]
fn etcd_with_client_certificates_is_used_and_one_with_another_authority_is_not() {
    let (authority, other) = (Authority::new("etcd"), Authority::new("other"));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    authority.issue(&["etcd.internal"]).write(folder.path(), "server");
    authority.issue(&["l7lb"]).write(folder.path(), "client");
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("other.pem"), other.pem()).unwrap();
    let (server, key_file, ca) = (path("server.pem"), path("server-key.pem"), path("ca.pem"));
    let server = ["--cert-file", &server, "--key-file", &key_file, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let (client, client_key) = (path("client.pem"), path("client-key.pem"));
    let client = ["--cacert", &ca, "--cert", &client, "--key", &client_key, "--insecure-skip-tls-verify"];
    let Some(etcd) = Etcd::start_with("https", &server, &client) else { return };
    let one = Backend::start("one");
    register(&etcd, &one);
    let endpoints = [format!("https://127.0.0.1:{}", etcd.port)];
    let tls = |ca: &str, more: &str| format!(", tls: {{ ca: '{{folder}}/{ca}', server_name: etcd.internal{more} }}");
    let shown = ", client_certificate: '{folder}/client.pem', client_key: '{folder}/client-key.pem'";
    for (tls, reason) in [(tls("other.pem", shown), "UnknownIssuer"), (tls("ca.pem", ""), "ertificate")] {
        let lab = Lab::start_in(Arc::clone(&folder), &yaml(free_port(), &endpoints, &tls));
        let line = lab.wait_for_log("discovery failed");
        assert!(line.contains(reason), "{line}");
    }
    let port = free_port();
    let _lab = Lab::start_in(Arc::clone(&folder), &yaml(port, &endpoints, &tls("ca.pem", shown)));
    wait_for(port, &["one"]);
    let two = Backend::start("two");
    register(&etcd, &two);
    wait_for(port, &["one", "two"]);
}
