//! Containers as backends, with a server that speaks the protocol of the Docker Engine: labels, states, hostile data, and
//! an engine that fails under traffic.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::control::call;
use crate::lab::client::get;
use crate::lab::docker::Docker;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

/// How soon an engine that is back is noticed.
const RECOVERY: Duration = Duration::from_secs(2);

/// A running engine, and l7lb with the pool `p`.
struct Setup {
    docker: Docker,
    lab: Lab,
    port: u16,
}

/// Starts both; `fill` runs the first containers. `keys` are further keys of the source.
fn setup(keys: &str, fill: impl FnOnce(&Docker)) -> Setup {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let docker = Docker::start(folder.path());
    fill(&docker);
    let port = free_port();
    let lab = Lab::start_in(folder, &yaml(port, keys));
    Setup { docker, lab, port }
}

fn yaml(port: u16, keys: &str) -> String {
    format!(
        "server: {{ threads: 2, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid' }}\n\
         reload: {{ watch: false }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ slow_start: 0s, balance: round_robin, health_check: {{ type: http, path: /health, \
         interval: 100ms, unhealthy_interval: 100ms, timeout: 5s, rise: 1, fall: 3 }}, \
         discover: [{{ docker: {{ socket: '{{folder}}/docker.sock'{keys} }} }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n"
    )
}

fn pool() -> Value {
    json!({ "l7lb.pool": "p" })
}

fn run(docker: &Docker, backend: &Backend) {
    docker.run(backend.name(), backend.port, &pool());
}

/// Some backends with these names.
fn backends<const N: usize>(names: [&str; N]) -> [Backend; N] {
    names.map(Backend::start)
}

impl Setup {
    fn listed(&self) -> Vec<Value> {
        let (_, listed) = call(&self.lab, Method::GET, "/backends?pool=p", "");
        listed["backends"].as_array().unwrap().clone()
    }

    /// Waits until the pool has exactly these backends, and all of them are available.
    fn wait_for(&self, backends: &[&Backend]) {
        let mut ports: Vec<u16> = backends.iter().map(|backend| backend.port).collect();
        ports.sort_unstable();
        eventually(&format!("the pool has the backends {ports:?}"), PATIENCE, || {
            let listed = self.listed();
            let port =
                |backend: &Value| backend["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            let mut found: Vec<u16> = listed.iter().map(port).collect();
            found.sort_unstable();
            found == ports && listed.iter().all(|backend| backend["available"] == true)
        });
    }

    fn count(&self, text: &str) -> usize {
        self.lab.log().matches(text).count()
    }
}

#[test]
fn five_containers_are_replaced_under_load_without_a_failed_request() {
    let mut old: Vec<Backend> = (1..=5).map(|number| Backend::start(&format!("old-{number}"))).collect();
    let setup = setup("", |docker| old.iter().for_each(|backend| run(docker, backend)));
    let docker = &setup.docker;
    setup.wait_for(&old.iter().collect::<Vec<_>>());
    let load = Load::start(setup.port, "/", 6, 3);
    load.wait_for_more(100);
    let mut new: Vec<Backend> = Vec::new();
    for number in 1..=5 {
        let backend = Backend::start(&format!("new-{number}"));
        let starting = json!({ "Status": "Up 1 second (health: starting)" });
        docker.run_with(backend.name(), backend.port, &pool(), &starting);
        docker.set(backend.name(), "running", "Up 2 seconds (healthy)", "health_status: healthy");
        new.push(backend);
        setup.wait_for(&old.iter().chain(&new).collect::<Vec<_>>());
        // The signal comes before the end of the process, which responds to its requests in flight.
        let mut left = old.remove(0);
        docker.signal(left.name(), 15);
        let address = format!("127.0.0.1:{}", left.port);
        eventually("the container has no requests", PATIENCE, || {
            let listed = setup.listed();
            listed
                .iter()
                .any(|one| one["address"] == address.as_str() && one["state"] == "draining" && one["in_flight"] == 0)
        });
        left.kill();
        docker.end(left.name());
        setup.wait_for(&old.iter().chain(&new).collect::<Vec<_>>());
        load.wait_for_more(100);
    }
    let report = load.stop_without_failure();
    eprintln!("{} requests", report.answered());
    assert!(get(setup.port, "/").header("x-backend").starts_with("new-"));
    assert_eq!(setup.count("discovery failed"), 0, "{}", setup.lab.log());
}

#[test]
fn only_running_healthy_containers_with_the_labels_are_backends() {
    let [one, two, three] = backends(["one", "two", "three"]);
    let setup = setup("", |docker| {
        run(docker, &one);
        docker.run("other-pool", three.port, &json!({ "l7lb.pool": "q" }));
        docker.run("without-label", three.port, &json!({}));
    });
    let docker = &setup.docker;
    setup.wait_for(&[&one]);
    docker.run_with("two", two.port, &pool(), &json!({ "Status": "Up (health: starting)" }));
    docker.run("three", three.port, &pool());
    setup.wait_for(&[&one, &three]);
    docker.set("two", "running", "Up 3 seconds (healthy)", "health_status: healthy");
    setup.wait_for(&[&one, &two, &three]);
    docker.set("two", "running", "Up 9 seconds (unhealthy)", "health_status: unhealthy");
    setup.wait_for(&[&one, &three]);
    docker.set("two", "running", "Up 9 seconds (healthy)", "health_status: healthy");
    docker.set("three", "paused", "Up 9 seconds (Paused)", "pause");
    setup.wait_for(&[&one, &two]);
    docker.set("three", "running", "Up 9 seconds", "unpause");
    setup.wait_for(&[&one, &two, &three]);
    // A signal that does not stop it, then one that does and is survived.
    docker.signal("one", 1);
    docker.signal("two", 15);
    let draining = || setup.listed().iter().filter(|one| one["state"] == "draining").count();
    eventually("one container is drained", PATIENCE, || draining() == 1);
    docker.set("two", "running", "Up 1 second (healthy)", "start");
    setup.wait_for(&[&one, &two, &three]);
    let labels = setup.listed()[0]["labels"].clone();
    assert_eq!(labels["image"], "shop:7", "{labels}");
}

#[test]
fn labels_network_and_port_select_containers_and_their_settings() {
    let [one, two] = backends(["one", "two"]);
    let networks = json!({ "NetworkSettings": { "Networks": {
        "front": { "IPAddress": "192.0.2.1" }, "back": { "IPAddress": "127.0.0.1" }
    } } });
    let setup = setup(&format!(", labels: [app=shop, tier], network: back, port: {}", one.port), |docker| {
        docker.run_with("one", 1, &json!({ "app": "shop", "tier": "x", "l7lb.weight": "7" }), &networks);
        let labels = json!({ "app": "shop", "tier": "", "l7lb.port": two.port.to_string(), "l7lb.backup": "true" });
        docker.run_with("two", 1, &labels, &networks);
        docker.run("without-tier", 1, &json!({ "app": "shop" }));
    });
    setup.wait_for(&[&one, &two]);
    let settings = |port: u16| {
        let listed = setup.listed();
        let one = listed.iter().find(|one| one["address"] == format!("127.0.0.1:{port}").as_str()).unwrap();
        (one["weight"].clone(), one["backup"].clone())
    };
    assert_eq!(settings(one.port), (json!(7), json!(false)));
    assert_eq!(settings(two.port), (json!(1), json!(true)));
}

#[test]
fn events_split_anywhere_are_read_and_garbage_costs_no_backend() {
    let [one, two, three] = backends(["one", "two", "three"]);
    let setup = setup("", |docker| run(docker, &one));
    let docker = &setup.docker;
    setup.wait_for(&[&one]);
    docker.split_events(1);
    run(docker, &two);
    setup.wait_for(&[&one, &two]);
    docker.split_events(7);
    run(docker, &three);
    docker.end("two");
    setup.wait_for(&[&one, &three]);
    docker.split_events(0);
    let long = [&vec![b'x'; 5 << 20][..], b"\n"].concat();
    for garbage in [&b"<html>\n"[..], b"{}\n", b"\xff\xfe\0\n", b"\n\r\n", &long] {
        docker.wait_for_subscriber();
        docker.send_to_readers(garbage);
        run(docker, &two);
        setup.wait_for(&[&one, &two, &three]);
        docker.end("two");
        setup.wait_for(&[&one, &three]);
    }
    assert_eq!(setup.count("discovery failed"), 0, "{}", setup.lab.log());
    assert!(setup.lab.log().len() < 100_000, "the log has no garbage");
}

#[test]
fn invalid_lists_and_errors_of_the_engine_change_nothing() {
    let [one, two] = backends(["one", "two"]);
    let setup = setup("", |docker| run(docker, &one));
    let docker = &setup.docker;
    setup.wait_for(&[&one]);
    let load = Load::start(setup.port, "/", 2, 1);
    let response = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let faults = [
        (
            "/json",
            response("500 Internal Server Error", r#"{"message":"out of\n memory"}"#),
            "500 Internal Server Error: out of",
        ),
        ("/json", response("200 OK", "<html>"), "the list of containers is invalid"),
        ("/json", response("200 OK", r#"[{"Id":"a"}]"#), "the list of containers is invalid"),
        ("/json", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]".to_vec(), "no list of containers within"),
        ("/events", response("403 Forbidden", "no"), "the response has the status 403 Forbidden"),
        ("", b"\0\0garbage\r\n\r\n".to_vec(), "invalid HTTP"),
    ];
    for (number, (target, response, reason)) in faults.iter().enumerate() {
        docker.respond(target, response);
        docker.wait_for_subscriber();
        docker.send_to_readers(b"garbage\n");
        let failed = || setup.lab.log().lines().filter(|line| line.contains("discovery failed")).count() == number + 1;
        eventually(&format!("the failure is reported: {reason}"), PATIENCE, failed);
        let log = setup.lab.log();
        let line = log.lines().rfind(|line| line.contains("discovery failed")).unwrap();
        assert!(line.contains(reason), "{line}");
        setup.wait_for(&[&one]);
        docker.respond_correctly();
        eventually("it works again", PATIENCE, || setup.count("discovery works again") == number + 1);
    }
    run(docker, &two);
    setup.wait_for(&[&one, &two]);
    load.stop_without_failure();
}

/// Stops the engine under traffic, replaces a container meanwhile, and resumes the engine.
fn outage(stop: impl FnOnce(&Docker), resume: impl FnOnce(&Docker)) {
    let [one, two, three] = backends(["one", "two", "three"]);
    let setup = setup("", |docker| [&one, &two].into_iter().for_each(|backend| run(docker, backend)));
    let docker = &setup.docker;
    setup.wait_for(&[&one, &two]);
    let load = Load::start(setup.port, "/", 4, 2);
    load.wait_for_more(100);
    stop(docker);
    let line = setup.lab.wait_for_log("discovery failed");
    assert!(line.contains("docker.sock: "), "{line}");
    load.wait_for_more(500);
    setup.wait_for(&[&one, &two]);
    run(docker, &three);
    docker.end("one");
    resume(docker);
    let back = Instant::now();
    setup.lab.wait_for_log("discovery works again");
    let noticed = back.elapsed();
    eprintln!("noticed after {noticed:?}");
    assert!(noticed < RECOVERY, "noticed after {noticed:?}");
    setup.wait_for(&[&two, &three]);
    load.wait_for_more(100);
    load.stop_without_failure();
    assert_eq!(setup.count("discovery failed"), 1, "{}", setup.lab.log());
}

#[test]
fn containers_stay_while_the_engine_is_stopped_and_its_restart_is_noticed() {
    outage(Docker::stop, Docker::restart);
}

#[test]
fn containers_stay_while_the_engine_hangs_and_its_recovery_is_noticed() {
    outage(Docker::freeze, Docker::thaw);
}

#[test]
fn engine_may_start_after_l7lb() {
    let one = Backend::start("one");
    let setup = setup("", Docker::stop);
    setup.lab.wait_for_log("discovery failed");
    setup.docker.restart();
    run(&setup.docker, &one);
    setup.wait_for(&[&one]);
}

#[test]
fn containers_with_hostile_labels_are_left_out_with_their_names() {
    let one = Backend::start("one");
    let megabyte = "x".repeat(1 << 20);
    let hostile = [
        ("l7lb.port", "0"),
        ("l7lb.weight", "1000000000"),
        ("l7lb.zone", "a\u{1b}[31m\nforged=line"),
        ("l7lb.zone", &megabyte),
        ("l7lb.network", "\u{0}"),
        ("l7lb.wieght", "1"),
    ];
    let setup = setup("", |docker| {
        run(docker, &one);
        for (number, (label, text)) in hostile.iter().enumerate() {
            docker.run(&format!("hostile-{number}"), 1, &json!({ "l7lb.pool": "p", (*label): text }));
        }
        docker.run("a-many-labels", 9, &json!({ "l7lb.pool": "q", "other": megabyte }));
    });
    let docker = &setup.docker;
    let line = setup.lab.wait_for_log("discovered backends rejected");
    assert!(line.contains("count=6") && line.contains("container `hostile-0`: the label `l7lb.port` is `0`"), "{line}");
    setup.wait_for(&[&one]);
    // The address of l7lb itself, and an event with a large label.
    let own = setup.port;
    docker.run("own", own, &json!({ "l7lb.pool": "p", "other": megabyte }));
    eventually("it is left out", PATIENCE, || setup.count("count=7") == 1);
    // Without a valid container, the last list stays.
    docker.end("one");
    docker.end("own");
    let line = setup.lab.wait_for_log("discovery failed");
    assert!(line.contains("none of the 6 containers is usable"), "{line}");
    setup.wait_for(&[&one]);
    let log = setup.lab.log();
    assert!(log.len() < 100_000 && !log.contains('\u{1b}') && !log.contains("\nforged"), "{log}");
}

#[test]
fn requests_use_the_version_of_the_engine_and_only_three_paths() {
    let one = Backend::start("one");
    let setup = setup("", |docker| run(docker, &one));
    setup.wait_for(&[&one]);
    let paths = |requests: &[String]| -> Vec<String> {
        let mut paths: Vec<_> = requests.iter().map(|target| target.split('?').next().unwrap().to_owned()).collect();
        paths.sort();
        paths.dedup();
        paths
    };
    assert_eq!(paths(&setup.docker.requests()), ["/_ping", "/v1.47/containers/json", "/v1.47/events"]);
    // A proxy may reject the ping.
    let before = setup.docker.requests().len();
    setup.docker.respond("/_ping", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    setup.docker.send_to_readers(b"garbage\n");
    eventually("it connects again", PATIENCE, || {
        paths(&setup.docker.requests()[before..]) == ["/_ping", "/containers/json", "/events"]
    });
    setup.wait_for(&[&one]);
    assert_eq!(setup.count("discovery failed"), 0, "{}", setup.lab.log());
}

/// HAProxy with the fragment of the page, in front of the engine; ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn proxy_of_the_page_permits_what_l7lb_needs_and_nothing_else() {
    let page = include_str!("../../docs/configuration/discovery.md");
    let fragment = page.split("```text\nfrontend docker").nth(1).unwrap().split("```").next().unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let engine = folder.path().join("engine");
    std::fs::create_dir(&engine).unwrap();
    let docker = Docker::start(&engine);
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    run(&docker, &one);
    let socket = |name: &str| folder.path().join(name).display().to_string();
    let text = format!("frontend docker{fragment}")
        .replace("/run/l7lb/docker.sock user l7lb", &socket("docker.sock"))
        .replace("/var/run/docker.sock", &socket("engine/docker.sock"));
    std::fs::write(folder.path().join("haproxy.cfg"), text).unwrap();
    let haproxy = ["haproxy", "/usr/sbin/haproxy"].into_iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(folder.path().join("haproxy.cfg")).stderr(Stdio::null()).spawn().ok()
    });
    let Some(haproxy) = haproxy else { return eprintln!("skipped: haproxy is not installed") };
    let _haproxy = Proxy(haproxy);
    let port = free_port();
    let setup = Setup { docker, lab: Lab::start_in(Arc::clone(&folder), &yaml(port, "")), port };
    setup.wait_for(&[&one]);
    run(&setup.docker, &two);
    setup.wait_for(&[&one, &two]);
    for (method, path) in
        [("POST", "/v1.47/containers/create"), ("GET", "/v1.47/containers/a/json"), ("DELETE", "/events")]
    {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(socket("docker.sock")).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 403"), "{method} {path}: {response}");
    }
}
