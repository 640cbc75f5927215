//! Backends in DNS, with dnsmasq as the server: lists that change, and a server that fails.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};

/// How soon a server that is back is noticed.
const RECOVERY: Duration = Duration::from_secs(2);

/// A running dnsmasq; its names are in a file that it reads again after SIGHUP.
struct Dnsmasq {
    port: u16,
    hosts: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Dnsmasq {
    /// `None`, with a message, if it is not installed.
    fn start(folder: &Path, arguments: &[String]) -> Option<Self> {
        let (port, hosts) = (free_port(), folder.join("hosts"));
        fs::write(&hosts, "").unwrap();
        let Some(child) = spawn(port, &hosts, arguments) else {
            eprintln!("skipped: dnsmasq is not installed (dnsmasq-base)");
            return None;
        };
        let dnsmasq = Self { port, hosts, arguments: arguments.to_vec(), child };
        dnsmasq.wait_until_it_answers();
        Some(dnsmasq)
    }

    /// Lets `api.test` have these addresses.
    fn list(&self, addresses: &[&str]) {
        let lines: Vec<String> = addresses.iter().map(|address| format!("{address} api.test\n")).collect();
        fs::write(&self.hosts, lines.concat()).unwrap();
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(self.port, &self.hosts, &self.arguments).unwrap();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("other.test.").unwrap(), RecordType::A));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        eventually("dnsmasq answers", PATIENCE, || {
            socket.send(&question.to_vec().unwrap()).ok();
            socket.recv(&mut [0; 512]).is_ok()
        });
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(port: u16, hosts: &Path, arguments: &[String]) -> Option<Child> {
    // Debian installs it in a folder that is not in the PATH of every user.
    let programs = ["dnsmasq", "/usr/sbin/dnsmasq"].into_iter();
    let start = |program| {
        Command::new(program)
            .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--group=root"])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--local-ttl=1"])
            .args([format!("--port={port}"), format!("--addn-hosts={}", hosts.display())])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .ok()
    };
    programs.filter_map(start).next()
}

/// Four backends at one port and four addresses.
fn backends() -> Vec<Backend> {
    let port = free_port();
    let start = |number| Backend::start_at(port, &format!("b{number}"), &["--address", &format!("127.0.0.{number}")]);
    (1..=4).map(start).collect()
}

fn yaml(port: u16, dns: &str) -> String {
    format!(
        "reload: {{ watch: false }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ slow_start: 0s, discover: [{{ dns: {dns} }}], health_check: {{ type: http, path: /health, \
         interval: 100ms, unhealthy_interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }} }} }}\n\
         routes: [{{ path: /, pool: p }}]\n"
    )
}

/// The backends of the pool.
fn listed(lab: &Lab) -> Vec<Value> {
    let file = lab.folder().join("l7lb.yaml");
    let output = run(&["backends", "--json", "--conf", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all["backends"].as_array().unwrap().clone()
}

/// Waits until the pool has exactly these backends, and all of them are available.
fn wait_for_backends(lab: &Lab, port: u16, ips: &[&str]) {
    let mut expected: Vec<String> = ips.iter().map(|ip| format!("{ip}:{port}")).collect();
    expected.sort();
    eventually("the pool has the backends of the list", PATIENCE, || {
        let listed = listed(lab);
        let mut addresses: Vec<&str> = listed.iter().map(|backend| backend["address"].as_str().unwrap()).collect();
        addresses.sort_unstable();
        addresses == expected && listed.iter().all(|backend| backend["available"] == true)
    });
}

#[test]
fn backends_are_replaced_one_after_the_other_through_dns_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dnsmasq) = Dnsmasq::start(folder.path(), &[]) else { return };
    let (mut backends, port) = (backends(), free_port());
    let at = backends[0].port;
    dnsmasq.list(&["127.0.0.1", "127.0.0.2"]);
    let lab = Lab::start(&yaml(
        port,
        &format!("{{ name: api.test, port: {at}, resolvers: ['127.0.0.1:{}'] }}", dnsmasq.port),
    ));
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    let load = Load::start(port, "/", 4, 1);
    for (gone, ips) in
        [["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.4"], ["127.0.0.4", "127.0.0.1"]].iter().enumerate()
    {
        load.wait_for_more(100);
        if gone == 2 {
            backends[0].restart();
        }
        dnsmasq.list(ips);
        wait_for_backends(&lab, at, ips);
        // The requests at the backend that has left end before it does.
        load.wait_for_more(100);
        backends[gone].kill();
        load.wait_for_more(100);
    }
    let names: Vec<String> = (0..20).map(|_| get(port, "/").header("x-backend").to_owned()).collect();
    assert!(names.iter().any(|name| name == "b1") && names.iter().any(|name| name == "b4"), "{names:?}");
    load.stop_without_failure();
}

/// Stops the server under traffic, lets a backend leave the list meanwhile, and resumes the server.
fn outage(stop: impl FnOnce(&mut Dnsmasq), resume: impl FnOnce(&mut Dnsmasq)) {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut dnsmasq) = Dnsmasq::start(folder.path(), &[]) else { return };
    let (backends, port) = (backends(), free_port());
    let at = backends[0].port;
    dnsmasq.list(&["127.0.0.1", "127.0.0.2"]);
    let lab = Lab::start(&yaml(
        port,
        &format!("{{ name: api.test, port: {at}, resolvers: ['127.0.0.1:{}'] }}", dnsmasq.port),
    ));
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    let load = Load::start(port, "/", 4, 1);
    load.wait_for_more(100);
    stop(&mut dnsmasq);
    lab.wait_for_log("discovery failed");
    load.wait_for_more(1000);
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    fs::write(&dnsmasq.hosts, "127.0.0.2 api.test\n127.0.0.3 api.test\n").unwrap();
    resume(&mut dnsmasq);
    let back = Instant::now();
    lab.wait_for_log("discovery works again");
    let noticed = back.elapsed();
    assert!(noticed < RECOVERY, "noticed after {noticed:?}");
    wait_for_backends(&lab, at, &["127.0.0.2", "127.0.0.3"]);
    load.wait_for_more(100);
    load.stop_without_failure();
    assert_eq!(lab.log().matches("discovery failed").count(), 1, "{}", lab.log());
}

#[test]
fn backends_stay_while_the_dns_server_hangs_and_its_recovery_is_noticed() {
    outage(
        |dnsmasq| dnsmasq.signal(Signal::SIGSTOP),
        |dnsmasq| {
            dnsmasq.signal(Signal::SIGHUP);
            dnsmasq.signal(Signal::SIGCONT);
        },
    );
}

#[test]
fn backends_stay_after_the_dns_server_was_killed_and_its_restart_is_noticed() {
    outage(Dnsmasq::kill, Dnsmasq::restart);
}

#[test]
fn srv_records_give_ports_weights_and_backups() {
    let folder = tempfile::tempdir().unwrap();
    let backends: Vec<Backend> = ["b1", "b2", "b3"].into_iter().map(Backend::start).collect();
    let srv = |backend: &Backend, priority: u16, weight: u16| {
        format!("--srv-host=_http._tcp.api.test,host.test,{},{priority},{weight}", backend.port)
    };
    let records = [srv(&backends[0], 5, 60_000), srv(&backends[1], 5, 20_000), srv(&backends[2], 9, 0)];
    let host = "--host-record=host.test,127.0.0.1".to_owned();
    let Some(dnsmasq) = Dnsmasq::start(folder.path(), &[&records[..], &[host]].concat()) else { return };
    let port = free_port();
    let lab = Lab::start(&yaml(
        port,
        &format!("{{ name: _http._tcp.api.test, type: srv, resolvers: ['127.0.0.1:{}'] }}", dnsmasq.port),
    ));
    eventually("the pool has the backends of the records", PATIENCE, || {
        let listed = listed(&lab);
        let has = |backend: &Backend, weight: u32, backup: bool| {
            listed.iter().any(|listed| {
                listed["address"] == format!("127.0.0.1:{}", backend.port)
                    && (&listed["weight"], &listed["backup"]) == (&weight.into(), &backup.into())
            })
        };
        has(&backends[0], 1000, false) && has(&backends[1], 333, false) && has(&backends[2], 1, true)
    });
    let names: Vec<String> = (0..20).map(|_| get(port, "/").header("x-backend").to_owned()).collect();
    assert!(names.iter().all(|name| name != "b3") && names.iter().any(|name| name == "b2"), "{names:?}");
}
