//! The dashboard of Grafana and the alerting rules, evaluated by a real Prometheus that reads a real l7lb.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::lab::client::{connect, connect_tls, exchange, get, read_response, tls_config};
use crate::lab::prometheus::{Prometheus, promtool};
use crate::lab::{Backend, Lab, PATIENCE, free_port};

/// The folder with the dashboard and the rules.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("l7lb.json")).unwrap()).unwrap()
}

/// The title and the expression of every target of every panel, with values for the variables.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut found = Vec::new();
    for panel in panels.filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} has no expression");
        for target in targets {
            let mut expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "30s");
            for variable in variables(dashboard) {
                expression = expression.replace(&format!("${variable}"), ".*");
            }
            assert!(!expression.contains('$'), "{title}: unknown variable in {expression}");
            found.push((title.to_owned(), expression));
        }
    }
    found
}

/// The names of the variables that Prometheus has values for.
fn variables(dashboard: &Value) -> Vec<&str> {
    let list = dashboard["templating"]["list"].as_array().unwrap().iter();
    list.filter(|variable| variable["type"] == "query").map(|variable| variable["name"].as_str().unwrap()).collect()
}

/// The names and expressions of all rules.
fn alerts() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let file: Value = serde_yaml::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| {
            let name = rule["alert"].as_str().unwrap().to_owned();
            for text in ["summary", "description"] {
                assert!(rule["annotations"][text].as_str().is_some_and(|text| !text.is_empty()), "{name}: {text}");
            }
            assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()), "{name}");
            (name, rule["expr"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// The names of l7lb's metrics in an expression.
fn names(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("l7lb_") || *word == "up").collect()
}

/// A process with traffic that has every kind of outcome.
struct Site {
    port: u16,
    tls_port: u16,
    metrics: u16,
    lab: Lab,
    tls: Arc<rustls::ClientConfig>,
    _backends: [Backend; 2],
}

impl Site {
    fn start() -> Self {
        let backends = [Backend::start("one"), Backend::start_with("bad", &["--error-rate", "1"])];
        let (port, tls_port, metrics, closed) = (free_port(), free_port(), free_port(), free_port());
        let (one, bad) = (backends[0].port, backends[1].port);
        let folder = Arc::new(tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("found.yaml"), format!("- 127.0.0.1:{one}\n")).unwrap();
        let mut yaml = format!(
            "listeners:\n\
             \x20 - {{ address: '127.0.0.1:{port}' }}\n\
             \x20 - address: '127.0.0.1:{tls_port}'\n\
             \x20   tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}] }}\n\
             metrics: {{ listen: '127.0.0.1:{metrics}' }}\n\
             access_log: {{ format: json, file: '{{folder}}/access.log' }}\n\
             reload: {{ watch: false }}\n"
        );
        write!(
            yaml,
            "pools:\n\
             \x20 queued: {{ health_check: {{ type: http, path: /health, interval: 1s }}, max_in_flight: {{ total: 1 }}, \
             queue: {{ length: 8, timeout: 5s }}, adaptive_concurrency: {{ mode: observe }}, backends: ['127.0.0.1:{one}'] }}\n\
             \x20 mixed: {{ health_check: {{ type: none }}, balance: round_robin, \
             backends: ['127.0.0.1:{one}', '127.0.0.1:{closed}'] }}\n\
             \x20 breaker: {{ health_check: {{ type: none }}, passive_health: off, backends: ['127.0.0.1:{bad}'], \
             circuit_breaker: {{ minimum_requests: 3, window: 1s, open_for: 500ms }} }}\n\
             \x20 found: {{ health_check: {{ type: none }}, discover: [{{ file: '{{folder}}/found.yaml' }}] }}\n\
             routes:\n\
             \x20 - {{ path: /queued, pool: queued, body_size: 1KiB }}\n\
             \x20 - {{ path: /mixed, pool: mixed }}\n\
             \x20 - {{ path: /breaker, pool: breaker }}\n\
             \x20 - {{ path: /found, pool: found }}\n\
             \x20 - {{ path: /cached, pool: found, cache: {{ default_ttl: 1m }} }}\n"
        )
        .unwrap();
        let lab = Lab::start_in(folder, &yaml);
        let tls = tls_config(lab.folder(), &["http/1.1"]);
        Self { port, tls_port, metrics, lab, tls, _backends: backends }
    }

    /// Successes and failures of each part.
    fn traffic(&self) {
        // The circuit opens after three failures and rejects the others.
        for path in ["/mixed", "/mixed", "/mixed", "/found/status/404", "/cached"].into_iter().chain(["/breaker"; 6]) {
            get(self.port, path);
        }
        get(self.port, "/found/bytes/5000");
        // The backend closes the connection, so the next request makes a new one.
        get(self.port, "/found/close");
        get(self.port, "/nowhere");
        let post = |path: &str, length: usize| {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            exchange(self.port, format!("{head}{}", "x".repeat(length)).as_bytes())
        };
        assert_eq!(post("/queued/upload", 500).status, 200);
        exchange(self.port, b"POST /queued HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nConnection: close\r\n\r\n");
        // Three at the same time, of which two wait in the queue.
        std::thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(|| get(self.port, "/queued/delay/20ms"))));
        });
        let request = b"GET /found HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        for _ in 0..2 {
            let mut stream = connect_tls(self.tls_port, Arc::clone(&self.tls));
            stream.write_all(request).unwrap();
            assert_eq!(read_response(&mut stream).status, 200);
        }
        // Not TLS.
        connect(self.tls_port).write_all(request).unwrap();
    }

    /// A rejected reload, then an applied one.
    fn reloads(&self) {
        let file = self.lab.folder().join("l7lb.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, good.replace("pool: mixed", "pool: missing")).unwrap();
        assert!(!crate::reload::reload(&self.lab).status.success());
        std::fs::write(&file, good.replace("body_size: 1KiB", "body_size: 2KiB")).unwrap();
        crate::reload::reloaded(&self.lab);
    }
}

#[test]
fn every_panel_has_data_and_every_alert_is_evaluated_by_prometheus() {
    if !Prometheus::is_installed() || crate::lab::lacks_own_engine() {
        return;
    }
    let site = Site::start();
    // So that the first scrape has a value for each counter, which `increase` needs.
    site.traffic();
    let prometheus = Prometheus::start(site.metrics);
    site.reloads();
    let dashboard = dashboard();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() >= 60, "{expressions:?}");
    eventually_or("every panel has data", || {
        site.traffic();
        let empty: Vec<_> = expressions.iter().filter(|(_, expression)| !has_data(&prometheus, expression)).collect();
        if empty.is_empty() { shows_outcomes(&prometheus, &expressions) } else { Err(format!("no data: {empty:#?}")) }
    });
    let existing = prometheus.names();
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for (alert, expression) in &alerts {
        prometheus.query(expression).unwrap_or_else(|e| panic!("{alert}: {e}"));
        assert!(!names(expression).is_empty(), "{alert} uses no metric");
        for name in names(expression) {
            assert!(existing.iter().any(|existing| existing == name), "{alert}: {name} does not exist");
        }
    }
    let firing = |alert: &str| {
        let (_, expression) = alerts.iter().find(|(name, _)| name == alert).unwrap();
        prometheus.query(expression).unwrap().len()
    };
    assert_eq!((firing("L7lbErrorsFast"), firing("L7lbReloadRejected")), (1, 1));
    assert_eq!((firing("L7lbNotScraped"), firing("L7lbCertificateExpires"), firing("L7lbRestarts")), (0, 0, 0));
}

/// Polls a condition that takes a while to check, and reports its last error.
fn eventually_or(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let mut last = Ok(());
    let until = std::time::Instant::now() + 2 * PATIENCE;
    while std::time::Instant::now() < until {
        last = check();
        if last.is_ok() {
            return;
        }
    }
    panic!("not within {:?}: {what}: {last:?}", 2 * PATIENCE);
}

/// Whether a series of the expression has a number; a quantile or ratio without requests is not one.
fn has_data(prometheus: &Prometheus, expression: &str) -> bool {
    prometheus.query(expression).unwrap().iter().any(|(_, value)| !value.is_nan())
}

/// Whether the panels show the outcomes of [`Site::traffic`].
fn shows_outcomes(prometheus: &Prometheus, expressions: &[(String, String)]) -> Result<(), String> {
    for (title, label, values) in [
        ("Requests by status", "status", &["2xx", "4xx", "5xx"][..]),
        ("Requests with an error by cause", "cause", &["no_route", "body_too_large", "circuit_open"]),
        ("Attempts by outcome", "outcome", &["2xx", "4xx", "5xx", "connect_failed"]),
        ("Requests by result", "result", &["hit", "miss"]),
        ("TLS handshakes", "resumed", &["true", "false"]),
        ("Connections closed before a request", "cause", &["tls_handshake"]),
        ("Reloads", "result", &["applied", "rejected"]),
        ("Events", "event", &["config_rejected", "backend_ejected", "circuit_opened"]),
    ] {
        let (_, expression) = expressions.iter().find(|(known, _)| known == title).unwrap();
        let found = prometheus.query(expression).unwrap();
        for value in values {
            if !found.iter().any(|(labels, _)| labels[label] == *value) {
                return Err(format!("{title}: no {value} in {found:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn rules_and_scrape_pass_the_checks_of_promtool() {
    if !Prometheus::is_installed() || crate::lab::lacks_own_engine() {
        return;
    }
    let rules = folder().join("alerts.yaml");
    let checked = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(checked.status.success(), "{checked:?}");
    let site = Site::start();
    site.traffic();
    site.reloads();
    let scrape = get(site.metrics, "/metrics").body;
    assert!(scrape.contains("l7lb_tls_handshakes_total{"), "{scrape}");
    let checked = promtool(&["check", "metrics"], &scrape);
    assert!(checked.status.success() && checked.stdout.is_empty() && checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn alerts_fire_for_their_conditions_and_only_for_them() {
    if !Prometheus::is_installed() {
        return;
    }
    let rules = folder().join("alerts.test.yaml");
    let tested = promtool(&["test", "rules", rules.to_str().unwrap()], "");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    let tests = std::fs::read_to_string(rules).unwrap();
    for (alert, _) in alerts() {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
    }
}

#[test]
fn dashboard_has_its_variables_and_panels_without_overlap() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let list = dashboard["templating"]["list"].as_array().unwrap();
    assert!(list.iter().any(|variable| variable["type"] == "datasource" && variable["name"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let (id, title) = (panel["id"].as_u64().unwrap(), panel["title"].as_str().unwrap());
        assert!(ids.insert(id), "{title}: id {id} is there twice");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for y in at("y")..at("y") + at("h") {
            for x in at("x")..at("x") + at("w") {
                assert!(x < 24 && cells.insert((x, y)), "{title} overlaps at {x}, {y}");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        }
    }
}
