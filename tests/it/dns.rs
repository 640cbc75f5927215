//! Backends in DNS, with dnsmasq as the server: lists that change, and a server that fails.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::relay::{self, Port};
use crate::lab::{Backend, Lab, PATIENCE, can_mount, eventually, free_port, run};

/// How soon a server that is back is noticed.
const RECOVERY: Duration = Duration::from_secs(2);

/// A running dnsmasq; its names are in a file that it reads again after SIGHUP.
struct Dnsmasq {
    ip: String,
    port: u16,
    hosts: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Dnsmasq {
    /// `None`, with a message, if it is not installed.
    fn start(folder: &Path, arguments: &[String]) -> Option<Self> {
        Self::start_at("127.0.0.1", free_port(), folder, arguments)
    }

    /// Like [`Dnsmasq::start`], at this address.
    fn start_at(ip: &str, port: u16, folder: &Path, arguments: &[String]) -> Option<Self> {
        let hosts = folder.join("hosts");
        let arguments = &[&[format!("--listen-address={ip}")], arguments].concat();
        let ip = ip.to_owned();
        fs::write(&hosts, "").unwrap();
        let Some(child) = spawn(port, &hosts, arguments) else {
            eprintln!("skipped: dnsmasq is not installed (dnsmasq-base)");
            return None;
        };
        let dnsmasq = Self { ip, port, hosts, arguments: arguments.to_vec(), child };
        dnsmasq.wait_until_it_answers();
        Some(dnsmasq)
    }

    /// Lets `api.test` have these addresses.
    fn list(&self, addresses: &[&str]) {
        self.list_names(&addresses.iter().map(|address| (*address, "api.test")).collect::<Vec<_>>());
    }

    /// Lets these names have these addresses.
    fn list_names(&self, names: &[(&str, &str)]) {
        let lines: Vec<String> = names.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
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
        socket.connect((self.ip.as_str(), self.port)).unwrap();
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
            .args(["--bind-interfaces", "--local=/test/", "--local-ttl=1"])
            .args([format!("--port={port}"), format!("--addn-hosts={}", hosts.display())])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .ok()
    };
    programs.filter_map(start).next()
}

/// `count` backends at one port, and at the addresses from 127.0.0.1 on.
fn backends(count: usize) -> Vec<Backend> {
    let port = free_port();
    let start = |number| Backend::start_at(port, &format!("b{number}"), &["--address", &format!("127.0.0.{number}")]);
    (1..=count).map(start).collect()
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
fn five_backends_are_replaced_one_after_the_other_through_dns_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dnsmasq) = Dnsmasq::start(folder.path(), &[]) else { return };
    let (mut backends, port) = (backends(10), free_port());
    let at = backends[0].port;
    let mut ips: Vec<String> = (1..=5).map(|number| format!("127.0.0.{number}")).collect();
    let list = |ips: &[String], lab: Option<&Lab>| {
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        dnsmasq.list(&ips);
        lab.into_iter().for_each(|lab| wait_for_backends(lab, at, &ips));
    };
    list(&ips, None);
    let lab = Lab::start(&yaml(port, &at_resolver(at, dnsmasq.port)));
    list(&ips, Some(&lab));
    let load = Load::start(port, "/", 4, 2);
    for old in 0..5 {
        load.wait_for_more(100);
        ips[old] = format!("127.0.0.{}", old + 6);
        list(&ips, Some(&lab));
        // The requests at the backend that has left end before it does.
        load.wait_for_more(100);
        backends[old].kill();
        load.wait_for_more(100);
    }
    let report = load.stop_without_failure();
    eprintln!("{} requests", report.answered());
    let mut names: Vec<String> = (0..40).map(|_| get(port, "/").header("x-backend").to_owned()).collect();
    names.sort();
    names.dedup();
    assert!(
        !names.is_empty() && names.iter().all(|name| ["b6", "b7", "b8", "b9", "b10"].contains(&&**name)),
        "{names:?}"
    );
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

/// `api.test` at this port, by a resolver at 127.0.0.1.
fn at_resolver(port: u16, resolver: u16) -> String {
    format!("{{ name: api.test, port: {port}, resolvers: ['127.0.0.1:{resolver}'] }}")
}

/// Stops the server or its port under traffic, lets a backend leave the list meanwhile, and resumes it. `is_relayed`:
/// whether l7lb asks at the port.
fn outage(
    is_relayed: bool,
    stop: impl FnOnce(&mut Dnsmasq, &Port),
    resume: impl FnOnce(&mut Dnsmasq, &Port),
    reason: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut dnsmasq) = Dnsmasq::start(folder.path(), &[]) else { return };
    let (backends, port) = (backends(3), free_port());
    let at = backends[0].port;
    let (relay, dns_port) = relay::udp(dnsmasq.port);
    dnsmasq.list(&["127.0.0.1", "127.0.0.2"]);
    let lab = Lab::start(&yaml(port, &at_resolver(at, if is_relayed { relay } else { dnsmasq.port })));
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    let load = Load::start(port, "/", 4, 1);
    load.wait_for_more(100);
    stop(&mut dnsmasq, &dns_port);
    let line = lab.wait_for_log("discovery failed");
    assert!(line.contains(reason), "{line}");
    load.wait_for_more(1000);
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    fs::write(&dnsmasq.hosts, "127.0.0.2 api.test\n127.0.0.3 api.test\n").unwrap();
    if is_relayed {
        dnsmasq.signal(Signal::SIGHUP);
    }
    resume(&mut dnsmasq, &dns_port);
    let back = Instant::now();
    lab.wait_for_log("discovery works again");
    let noticed = back.elapsed();
    eprintln!("noticed after {noticed:?}");
    assert!(noticed < RECOVERY, "noticed after {noticed:?}");
    wait_for_backends(&lab, at, &["127.0.0.2", "127.0.0.3"]);
    load.wait_for_more(100);
    load.stop_without_failure();
    assert_eq!(lab.log().matches("discovery failed").count(), 1, "{}", lab.log());
}

#[test]
fn backends_stay_while_the_dns_server_hangs_and_its_recovery_is_noticed() {
    outage(
        false,
        |dnsmasq, _| dnsmasq.signal(Signal::SIGSTOP),
        |dnsmasq, _| {
            dnsmasq.signal(Signal::SIGHUP);
            dnsmasq.signal(Signal::SIGCONT);
        },
        "no answer within",
    );
}

#[test]
fn backends_stay_after_the_dns_server_was_killed_and_its_restart_is_noticed() {
    outage(false, |dnsmasq, _| dnsmasq.kill(), |dnsmasq, _| dnsmasq.restart(), "refused");
}

#[test]
fn closed_port_of_the_resolver_costs_no_backend_and_its_opening_is_noticed() {
    outage(true, |_, port| port.close(), |_, port| port.open(), "refused");
}

#[test]
fn dropped_packets_to_the_resolver_cost_no_backend_and_their_end_is_noticed() {
    outage(true, |_, port| port.block(), |_, port| port.open(), "no answer within");
}

#[test]
fn thousand_addresses_are_backends_and_one_that_is_replaced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dnsmasq) = Dnsmasq::start(folder.path(), &[]) else { return };
    // One process serves all addresses of the loopback interface.
    let backend = Backend::start_with("all", &["--address", "0.0.0.0"]);
    let mut ips: Vec<String> = (0..1000).map(|number| format!("127.1.{}.{}", number / 250, number % 250 + 1)).collect();
    let list = |ips: &[String]| dnsmasq.list(&ips.iter().map(String::as_str).collect::<Vec<_>>());
    list(&ips);
    let port = free_port();
    let yaml = yaml(port, &at_resolver(backend.port, dnsmasq.port)).replace("100ms", "10s").replace("500ms", "5s");
    let lab = Lab::start(&yaml);
    let has = |ips: &[String]| {
        let mut expected: Vec<String> = ips.iter().map(|ip| format!("{ip}:{}", backend.port)).collect();
        expected.sort();
        let all = listed(&lab);
        let mut found: Vec<&str> = all.iter().map(|backend| backend["address"].as_str().unwrap()).collect();
        found.sort_unstable();
        found == expected && all.iter().all(|backend| backend["available"] == true)
    };
    eventually("the pool has all backends", PATIENCE, || has(&ips));
    let load = Load::start(port, "/", 4, 2);
    load.wait_for_more(500);
    ips[7] = "127.1.9.9".to_owned();
    list(&ips);
    eventually("one of them is replaced", PATIENCE, || has(&ips));
    load.wait_for_more(500);
    load.stop_without_failure();
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

/// A folder for `/etc` of l7lb, with its own resolv.conf.
struct Etc(Arc<tempfile::TempDir>);

impl Etc {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/ssl")).unwrap();
        Self(Arc::new(folder))
    }

    /// Replaces the file, as programs do.
    fn write_resolv_conf(&self, text: &str) {
        let etc = self.0.path().join("etc");
        fs::write(etc.join("new"), text).unwrap();
        fs::rename(etc.join("new"), etc.join("resolv.conf")).unwrap();
    }

    fn start(&self, yaml: &str) -> Lab {
        let etc = self.0.path().join("etc").display().to_string();
        // The authorities of the system are needed at the start.
        let script = format!("mount --bind /etc/ssl {etc}/ssl && mount --rbind {etc} /etc && exec \"$0\" \"$@\"");
        Lab::start_in_own_mounts(Arc::clone(&self.0), yaml, &script)
    }
}

#[test]
fn search_domains_of_resolv_conf_are_used_in_order_and_a_change_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dnsmasq) = Dnsmasq::start(folder.path(), &[]).filter(|_| can_mount()) else { return };
    let (backends, port) = (backends(3), free_port());
    let at = backends[0].port;
    let names = [(1, "one"), (2, "one"), (2, "two"), (3, "two")];
    let names = names.map(|(number, domain)| (format!("127.0.0.{number}"), format!("shop.{domain}.test")));
    let names: Vec<(&str, &str)> = names.iter().map(|(ip, name)| (ip.as_str(), name.as_str())).collect();
    dnsmasq.list_names(&names);
    let etc = Etc::new();
    etc.write_resolv_conf("nameserver 192.0.2.1\nsearch none.test one.test two.test\n");
    let dns = at_resolver(at, dnsmasq.port).replace("api.test", "shop");
    let lab = etc.start(&yaml(port, &dns));
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    let load = Load::start(port, "/", 2, 1);
    load.wait_for_more(100);
    etc.write_resolv_conf("nameserver 192.0.2.1\nsearch two.test one.test\n");
    wait_for_backends(&lab, at, &["127.0.0.2", "127.0.0.3"]);
    load.wait_for_more(100);
    load.stop_without_failure();
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
}

#[test]
fn resolvers_of_resolv_conf_are_used_and_a_change_is_noticed() {
    let (first, second) = ("127.53.0.1", "127.53.0.2");
    let is_free = |ip: &&str| UdpSocket::bind((*ip, 53)).is_ok();
    if ![first, second].iter().all(is_free) {
        return eprintln!("skipped: port 53 is in use, or needs root");
    }
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let Some(mut one) = Dnsmasq::start_at(first, 53, folders[0].path(), &[]).filter(|_| can_mount()) else { return };
    let Some(two) = Dnsmasq::start_at(second, 53, folders[1].path(), &[]) else { return };
    let (backends, port) = (backends(3), free_port());
    let at = backends[0].port;
    one.list(&["127.0.0.1", "127.0.0.2"]);
    two.list(&["127.0.0.2", "127.0.0.3"]);
    let etc = Etc::new();
    etc.write_resolv_conf(&format!("nameserver {first}\n"));
    let lab = etc.start(&yaml(port, &format!("'api.test:{at}'")));
    wait_for_backends(&lab, at, &["127.0.0.1", "127.0.0.2"]);
    let load = Load::start(port, "/", 2, 1);
    load.wait_for_more(100);
    etc.write_resolv_conf(&format!("nameserver {second}\nnameserver {first}\n"));
    wait_for_backends(&lab, at, &["127.0.0.2", "127.0.0.3"]);
    one.kill();
    load.wait_for_more(100);
    load.stop_without_failure();
    assert!(!lab.log().contains("discovery failed"), "{}", lab.log());
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
