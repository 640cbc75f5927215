//! Backends in the EndpointSlices of a Service. The API server runs in the test, and fails in every way under traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::authority::{Authority, replace};
use crate::lab::client::get;
use crate::lab::kubernetes::{ApiServer, ready, ready_at, terminating_at, write_account};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::reload::UNWATCHED;

const BOTH: &[&str] = &["h2", "http/1.1"];

/// A pool with the endpoints of the Service `api`. `source` has further keys of the source, `rules` of the item.
fn yaml(port: u16, source: &str, rules: &str) -> String {
    format!(
        "{UNWATCHED}server: {{ threads: 2, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid', \
         state_file: '{{folder}}/state.json' }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ health_check: {{ type: http, path: /health, interval: 200ms, unhealthy_interval: 100ms, \
         timeout: 500ms, rise: 1, fall: 2 }}, balance: round_robin, slow_start: 0s, \
         discover: [{{ kubernetes: {{ service: api{source} }}{rules} }}] }} }}\n\
         routes: [{{ path: /, pool: a }}]\n"
    )
}

/// An API server, and the folder of a process that uses it with a service account.
struct Cluster {
    server: ApiServer,
    folder: Arc<tempfile::TempDir>,
    authority: Authority,
}

impl Cluster {
    fn start(protocols: &[&str]) -> Self {
        let authority = Authority::new("cluster");
        let server = ApiServer::start(&authority, protocols);
        let folder = Arc::new(tempfile::tempdir().unwrap());
        write_account(&folder.path().join("account"), &authority, "first");
        Self { server, folder, authority }
    }

    /// Starts `l7lb` as in a pod.
    fn run(&self, port: u16, rules: &str) -> Lab {
        let yaml = yaml(port, ", service_account: '{folder}/account'", rules);
        let api = self.server.port.to_string();
        let environment = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", api.as_str())];
        Lab::start_with(Arc::clone(&self.folder), &yaml, &environment)
    }

    /// Lists a backend in a slice of its own.
    fn put(&self, backend: &Backend) {
        self.server.put(backend.name(), backend.port, &[ready(backend)]);
    }
}

fn responding(port: u16) -> BTreeSet<String> {
    (0..12).map(|_| get(port, "/")).filter(|r| r.status == 200).map(|r| r.header("x-backend").to_owned()).collect()
}

/// l7lb with these pods, and its port, once all of them respond.
fn serving(cluster: &Cluster, pods: &[&Backend]) -> (u16, Lab) {
    pods.iter().for_each(|pod| cluster.put(pod));
    let port = free_port();
    let lab = cluster.run(port, "");
    wait_for(port, &pods.iter().map(|pod| pod.name()).collect::<Vec<_>>());
    (port, lab)
}

fn wait_for(port: u16, names: &[&str]) {
    let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    eventually(&format!("{names:?} respond"), PATIENCE, || responding(port) == names);
}

/// Waits until the log has `count` lines with `text`.
fn wait_for_count(lab: &Lab, text: &str, count: usize) {
    let counted = || lab.log().lines().filter(|line| line.contains(text)).count() == count;
    eventually(&format!("{count} lines with `{text}`"), PATIENCE, counted);
}

#[test]
fn rolling_deployment_of_five_pods_fails_no_request() {
    let cluster = Cluster::start(BOTH);
    cluster.server.state().part = 7;
    let shared_port = free_port();
    let pod = |number: u8| {
        let address = format!("127.0.0.{number}");
        (Backend::start_at(shared_port, &format!("pod-{number}"), &["--address", &address]), address)
    };
    let ready = |pods: &[(Backend, String)]| -> Vec<Value> {
        pods.iter().map(|(backend, address)| ready_at(address, backend)).collect()
    };
    let mut pods: Vec<(Backend, String)> = (11..=15).map(pod).collect();
    cluster.server.put("api-1", shared_port, &ready(&pods));
    let port = free_port();
    let lab = cluster.run(port, "");
    wait_for(port, &["pod-11", "pod-12", "pod-13", "pod-14", "pod-15"]);
    let load = Load::start(port, "/", 6, 3);
    for number in 21..=25 {
        pods.push(pod(number));
        cluster.server.put("api-1", shared_port, &ready(&pods));
        eventually("the new pod responds", PATIENCE, || responding(port).contains(&format!("pod-{number}")));
        let (old, address) = pods.remove(0);
        let mut endpoints = ready(&pods);
        endpoints.push(terminating_at(&address, &old));
        cluster.server.put("api-1", shared_port, &endpoints);
        cluster.server.bookmark();
        eventually("the terminating pod gets no requests", PATIENCE, || !responding(port).contains(old.name()));
        let removed = lab.log().matches("removed=1").count();
        assert_eq!(removed, usize::from(number - 21), "the terminating pod stays in the pool: {}", lab.log());
        load.wait_for_more(100);
        cluster.server.put("api-1", shared_port, &ready(&pods));
        wait_for_count(&lab, "added=0 removed=1 total=5", usize::from(number - 20));
        drop(old);
        load.wait_for_more(100);
    }
    let report = load.stop_without_failure();
    eprintln!("{} requests", report.answered());
    wait_for(port, &["pod-21", "pod-22", "pod-23", "pod-24", "pod-25"]);
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
    assert_eq!(cluster.server.count("list"), 1);
}

#[test]
fn killed_or_frozen_api_server_causes_no_failed_request_and_its_return_is_noticed() {
    let mut cluster = Cluster::start(BOTH);
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let (port, lab) = serving(&cluster, &[&one]);
    let load = Load::start(port, "/", 4, 2);
    cluster.server.freeze();
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("no TLS handshake within 2s"), "{line}");
    load.wait_for_more(200);
    cluster.put(&two);
    cluster.server.thaw();
    let since = Instant::now();
    wait_for(port, &["one", "two"]);
    eprintln!("the change takes effect {:?} after the API server continues", since.elapsed());
    wait_for_count(&lab, "discovery works again", 1);
    cluster.server.kill();
    wait_for_count(&lab, "discovery failed", 2);
    load.wait_for_more(200);
    cluster.put(&three);
    cluster.server.run();
    let since = Instant::now();
    wait_for(port, &["one", "three", "two"]);
    eprintln!("the change takes effect {:?} after the restart", since.elapsed());
    let report = load.stop_without_failure();
    eprintln!("{} requests", report.answered());
    assert_eq!(cluster.server.count("list"), 1, "the watch continues at its version");
}

#[test]
fn version_that_is_too_old_causes_a_new_list_and_no_change_is_lost() {
    let mut cluster = Cluster::start(BOTH);
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let (port, lab) = serving(&cluster, &[&one, &two, &three]);
    for (gone_as_status, lists, names) in [(false, 2, &["one", "three"][..]), (true, 3, &["one", "two"])] {
        cluster.server.kill();
        lab.wait_for_log("discovery failed");
        if gone_as_status {
            cluster.server.delete("three");
            cluster.put(&two);
        } else {
            cluster.server.delete("two");
        }
        cluster.server.compact();
        cluster.server.state().gone_as_status = gone_as_status;
        cluster.server.run();
        wait_for(port, names);
        assert_eq!(cluster.server.count("list"), lists * 2 - if lists == 2 { 1 } else { 2 }, "pages of {lists} lists");
    }
    // While a watch is open.
    cluster.server.send_event("ERROR", &json!({ "kind": "Status", "code": 410, "reason": "Expired" }));
    cluster.put(&three);
    wait_for(port, &["one", "three", "two"]);
    assert!(!lab.log().contains("410"), "{}", lab.log());
}

#[test]
fn watch_that_ends_is_continued_at_the_version_of_the_last_bookmark() {
    for protocols in [BOTH, &["http/1.1"]] {
        let cluster = Cluster::start(protocols);
        let (one, two) = (Backend::start("one"), Backend::start("two"));
        cluster.put(&one);
        let port = free_port();
        let lab = cluster.run(port, "");
        wait_for(port, &["one"]);
        cluster.server.wait_for_watch();
        cluster.server.bookmark();
        cluster.server.end_watches();
        eventually("the watch continues", PATIENCE, || cluster.server.count("watch") == 2);
        assert_eq!(cluster.server.state().requests.last().map(String::as_str), Some("watch 102"));
        cluster.put(&two);
        wait_for(port, &["one", "two"]);
        assert_eq!(cluster.server.count("list"), 1);
        assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
    }
}

#[test]
fn invalid_message_of_a_watch_is_reported_and_the_list_stays() {
    let cluster = Cluster::start(BOTH);
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (port, lab) = serving(&cluster, &[&one]);
    let garbage: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(b' '..b'~')).chain([b'\n']).collect();
    let error = json!({ "kind": "Status", "code": 500, "message": "etcdserver: leader changed" });
    let error = format!("{}\n", json!({ "type": "ERROR", "object": error })).into_bytes();
    for (number, (message, reason)) in [
        (garbage, "a message of the watch is invalid"),
        (vec![b' '; (4 << 20) + 1], "a message of the watch has more than 4194304 bytes"),
        (error, "the API server ended the watch: 500 etcdserver: leader changed"),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.server.wait_for_watch();
        cluster.server.send(message);
        let line = lab.wait_for_log(reason);
        assert!(line.contains("discovery failed") && line.len() < 1000, "{line}");
        wait_for_count(&lab, "discovery works again", number + 1);
        assert_eq!(responding(port), BTreeSet::from(["one".to_owned()]));
    }
    cluster.put(&two);
    wait_for(port, &["one", "two"]);
    assert!(!lab.log().contains("removed=1"), "{}", lab.log());
}

#[test]
fn missing_permission_is_named_and_a_granted_one_is_noticed() {
    let cluster = Cluster::start(BOTH);
    let one = Backend::start("one");
    cluster.put(&one);
    cluster.server.state().forbidden = "list";
    let port = free_port();
    let lab = cluster.run(port, "");
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("the permission to list endpointslices in namespace web is missing: User"), "{line}");
    cluster.server.state().forbidden = "";
    wait_for(port, &["one"]);
    // A permission that is taken away is noticed by the next watch; the list stays.
    cluster.server.state().forbidden = "watch";
    cluster.server.end_watches();
    lab.wait_for_log("the permission to watch endpointslices in namespace web is missing");
    wait_for(port, &["one"]);
}

#[test]
fn replaced_token_is_used_and_a_rejected_one_is_not_shown() {
    let cluster = Cluster::start(BOTH);
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (port, lab) = serving(&cluster, &[&one]);
    let token = cluster.folder.path().join("account/token");
    // Rotation: the next watch has the new token.
    "second".clone_into(&mut cluster.server.state().token);
    replace(&token, "second\n");
    cluster.server.end_watches();
    cluster.put(&two);
    wait_for(port, &["one", "two"]);
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
    // A token that is rejected, until its file changes.
    "thirdtoken".clone_into(&mut cluster.server.state().token);
    cluster.server.end_watches();
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains("the API server rejects the credentials: Unauthorized"), "{line}");
    wait_for(port, &["one", "two"]);
    replace(&token, "thirdtoken\n");
    lab.wait_for_log("discovery works again");
    cluster.server.delete("two");
    wait_for(port, &["one"]);
    assert!(!lab.log().contains("second") && !lab.log().contains("thirdtoken"), "{}", lab.log());
}

#[test]
fn last_list_is_used_at_the_start_while_the_api_server_is_down() {
    let mut cluster = Cluster::start(BOTH);
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (port, mut lab) = serving(&cluster, &[&one, &two]);
    let saved = cluster.folder.path().join("state.json.discovered");
    eventually("the list is saved", PATIENCE, || saved.exists());
    lab.signal(Signal::SIGKILL);
    lab.wait_exit(PATIENCE);
    cluster.server.kill();
    let lab = cluster.run(port, "");
    assert_eq!(responding(port), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    lab.wait_for_log("discovery failed");
    cluster.server.delete("two");
    cluster.server.run();
    wait_for(port, &["one"]);
}

#[test]
fn endpoints_outside_the_rules_are_left_out_and_an_empty_service_keeps_its_backends() {
    let cluster = Cluster::start(BOTH);
    let one = Backend::start("one");
    let (port, ports) = (free_port(), json!([{ "name": "http", "port": one.port }]));
    cluster.put(&one);
    cluster.server.put_value("names", "FQDN", ports.clone(), json!([{ "addresses": ["a.example.com"] }]));
    cluster.server.put_value("own", "IPv4", json!([{ "name": "http", "port": port }]), json!([ready(&one)]));
    cluster.server.put_value("outside", "IPv4", ports.clone(), json!([{ "addresses": ["192.0.2.1"] }]));
    cluster.server.put_value("denied", "IPv4", ports, json!([{ "addresses": ["127.9.9.9"] }]));
    let lab = cluster.run(port, ", allow: [127.0.0.0/8], deny: [127.9.0.0/16]");
    let line = lab.wait_for_log("discovered backends rejected");
    assert!(line.contains("count=4") && line.contains("the slice `names` has the address type `FQDN`"), "{line}");
    lab.wait_for_log("added=1 removed=0 total=1");
    wait_for(port, &["one"]);
    ["names", "own", "outside", "denied", "one"].into_iter().for_each(|name| cluster.server.delete(name));
    lab.wait_for_log("discovery lacks too many backends, they stay for now");
    assert_eq!(responding(port), BTreeSet::from(["one".to_owned()]));
}

#[test]
fn kubeconfig_gives_the_server_and_a_wrong_authority_or_port_is_reported() {
    let cluster = Cluster::start(BOTH);
    let one = Backend::start("one");
    cluster.put(&one);
    let write = |ca: &Authority, name: &str| {
        let folder = cluster.folder.path();
        std::fs::write(folder.join(format!("{name}.crt")), ca.pem()).unwrap();
        let text = format!(
            "current-context: c\ncontexts: [{{ name: c, context: {{ cluster: c, user: u, namespace: web }} }}]\n\
             clusters: [{{ name: c, cluster: {{ server: 'https://127.0.0.1:{}', certificate-authority: {name}.crt }} }}]\n\
             users: [{{ name: u, user: {{ token: first }} }}]\n",
            cluster.server.port
        );
        std::fs::write(folder.join(name), text).unwrap();
    };
    write(&cluster.authority, "right");
    write(&Authority::new("other"), "wrong");
    for (file, more, reason) in
        [("wrong", "", "UnknownIssuer"), ("right", ", port: metrics", "no port `metrics`; its ports are: http")]
    {
        let source = format!(", kubeconfig: '{{folder}}/{file}'{more}");
        let lab = Lab::start_in(Arc::clone(&cluster.folder), &yaml(free_port(), &source, ""));
        let line = lab.wait_for_log("discovery failed");
        assert!(line.contains(reason) && line.contains("/web/api"), "{line}");
    }
    let port = free_port();
    let source = ", kubeconfig: '{folder}/right', port: http";
    let _lab = Lab::start_in(Arc::clone(&cluster.folder), &yaml(port, source, ""));
    wait_for(port, &["one"]);
}
