//! `l7lb plan` and `l7lb reload --max-moved`: the effect of a changed configuration on recorded requests.

use std::path::PathBuf;
use std::process::Output;

use http::{Method, StatusCode};
use l7lb::control::plan::Plan;
use l7lb::control::plan::replay::OutcomeKind;
use serde_json::{Value, json};

use crate::control::call;
use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};

/// A lab with two pools of one backend each, with the file watch turned off.
struct Fixture {
    lab: Lab,
    port: u16,
    backends: [Backend; 2],
}

impl Fixture {
    fn start(rest: &str) -> Self {
        let (port, backends) = (free_port(), [Backend::start("one"), Backend::start("two")]);
        let lab = Lab::start(&yaml(port, &backends, rest));
        Self { lab, port, backends }
    }

    fn yaml(&self, rest: &str) -> String {
        yaml(self.port, &self.backends, rest)
    }

    /// Runs `l7lb plan` with a file that has these routes.
    fn plan(&self, rest: &str, more: &[&str]) -> Output {
        let folder = tempfile::tempdir_in(self.lab.folder()).unwrap();
        std::fs::write(folder.path().join("localhost.pem"), "").unwrap();
        let new = Lab::configure(folder.path(), &self.yaml(rest));
        // The `server` block stays unchanged.
        let text = std::fs::read_to_string(&new).unwrap();
        let text = text.replace(&folder.path().display().to_string(), &self.lab.folder().display().to_string());
        std::fs::write(&new, text).unwrap();
        let (new, conf) = (new.display().to_string(), self.file().display().to_string());
        run(&[&["plan", &new, "--conf", &conf], more].concat())
    }

    fn planned(&self, rest: &str) -> Plan {
        let output = self.plan(rest, &["--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.lab.folder().join("l7lb.yaml")
    }

    fn reload(&self, rest: &str, more: &[&str]) -> (Option<i32>, String) {
        Lab::configure(self.lab.folder(), &self.yaml(rest));
        let output = run(&[&["reload", "--conf", self.file().to_str().unwrap()], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn yaml(port: u16, [one, two]: &[Backend; 2], rest: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nreload: {{ watch: false }}\naccess_log: {{ format: json }}\n\
         trusted_proxies: [127.0.0.0/8]\n\
         pools:\n  a: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n  b: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         {rest}\n",
        one.port, two.port
    )
}

const OLD: &str = "routes: [{ path: /, pool: a, name: rest }, { path: /api, pool: b, name: api }]";
const NEW: &str = "routes: [{ path: /api, pool: b, name: api }, { path: /new, pool: b, name: new }]";

#[test]
fn plan_reports_moved_and_lost_requests_and_the_reload_matches_it() {
    let fixture = Fixture::start(OLD);
    let paths = ["/api/1", "/api/2", "/new/1", "/new/2", "/new/3", "/other", "/other", "/", "/x?secret=1", "/y"];
    let statuses = || paths.map(|path| get(fixture.port, path).status);
    assert_eq!(statuses(), [200; 10]);

    let plan = fixture.planned(NEW);
    let (replay, pool) = (&plan.replay, |name: &str| OutcomeKind::Pool(name.to_owned()));
    let no_route = OutcomeKind::Rejected { status: 404, cause: "no_route".to_owned() };
    let moves: Vec<_> = replay.moves.iter().map(|one| (one.from.clone(), one.to.clone(), one.requests)).collect();
    assert_eq!(moves, [(pool("a"), no_route, 5.0), (pool("a"), pool("b"), 3.0)], "{replay:?}");
    assert_eq!((replay.requests, replay.moved), (10, 0.8));
    let stdout = String::from_utf8(fixture.plan(NEW, &[]).stdout).unwrap();
    for line in [
        "route `new` added (*/new): to pool b",
        "route `rest` removed (*/)",
        "80.0 % would have another outcome",
        "50.0 %  from pool a to 404 no_route",
        "30.0 %  from pool a to pool b",
        "GET localhost/new/1  (client 127.0.0.1)",
    ] {
        assert!(stdout.contains(line), "no {line:?} in:\n{stdout}");
    }
    assert!(!stdout.contains("secret"), "{stdout}");
    assert_eq!(statuses(), [200; 10], "nothing has changed");

    let (code, stderr) = fixture.reload(NEW, &["--max-moved", "79.9%"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("80.0 % of the last 20 requests would have another outcome, more than 79.9%"), "{stderr}");
    assert!(stderr.contains("the active configuration stays") && stderr.contains("from pool a to pool b"), "{stderr}");
    assert_eq!(statuses(), [200; 10], "nothing has changed");

    let (code, stderr) = fixture.reload(NEW, &["--max-moved", "80%"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(statuses(), [200, 200, 200, 200, 200, 404, 404, 404, 404, 404]);
    // Forty requests have been recorded, including the rejected ones.
    let back = fixture.planned(OLD);
    assert_eq!((back.replay.requests, back.replay.moved), (40, 0.8), "{back:?}");
}

#[test]
fn plan_counts_newly_limited_clients_by_request_times() {
    let fixture = Fixture::start(OLD);
    for (client, times) in [("203.0.113.1", 1), ("203.0.113.2", 3), ("203.0.113.3", 5), ("203.0.113.4", 6)] {
        for _ in 0..times {
            let response = get_with(fixture.port, "/", &format!("X-Forwarded-For: {client}\r\n"));
            assert_eq!(response.status, 200);
        }
    }
    let limit = |kind: &str| format!("rate_limit: {{ type: {kind}, limit: 4, window: 1h }}\n{OLD}");
    for kind in ["fixed_window", "sliding_window", "token_bucket"] {
        let plan = fixture.planned(&limit(kind));
        assert_eq!(plan.details, ["the global rate limit added: ".to_owned() + limit_text(kind)]);
        let limited = &plan.replay.newly_limited;
        let samples: Vec<String> = limited.samples.iter().map(ToString::to_string).collect();
        assert_eq!((limited.count, samples), (2, vec!["203.0.113.3".to_owned(), "203.0.113.4".to_owned()]), "{kind}");
        // Of fifteen requests, one of the third client and two of the fourth exceed the limit.
        assert!((plan.replay.moved - 0.2).abs() < 1e-9, "{kind}: {plan:?}");
    }
}

fn limit_text(kind: &str) -> &'static str {
    if kind == "token_bucket" { "4 requests in 1h, bursts of 4" } else { "4 requests in 1h" }
}

#[test]
fn plan_of_the_running_file_moves_nothing_and_an_invalid_file_is_rejected() {
    let fixture = Fixture::start(OLD);
    assert!(fixture.planned(OLD).replay.notes.is_empty(), "no request has been recorded yet");
    (0..5).for_each(|_| assert_eq!(get(fixture.port, "/api").status, 200));
    let stdout = String::from_utf8(fixture.plan(OLD, &[]).stdout).unwrap();
    assert!(
        stdout.starts_with("changes\n  none\nthe last 5 requests, from the past ")
            && stdout.contains("all would have the same outcome"),
        "{stdout}"
    );

    let output = fixture.plan("routes: [{ path: /, pool: nowhere }]", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("there is no pool `nowhere`") && stderr.contains("^"), "{stderr}");
    let test = "tests: [{ request: 'GET http://x/', expect: { pool: b } }]";
    let output = fixture.plan(&format!("{OLD}\n{test}"), &[]);
    assert_eq!(output.status.code(), Some(2), "a failed configuration test");
    assert_eq!(run(&["plan", "/missing.yaml"]).status.code(), Some(2));
    assert_eq!(get(fixture.port, "/api").status, 200);
}

#[test]
fn max_moved_in_the_file_rejects_reloads_that_exceed_it() {
    let max_moved = "reload: { watch: false, max_moved: 10% }";
    let (port, backends) = (free_port(), [Backend::start("one"), Backend::start("two")]);
    let yaml = |rest: &str| yaml(port, &backends, rest).replace("reload: { watch: false }", max_moved);
    let lab = Lab::start(&yaml(OLD));
    assert_eq!([get(port, "/api").status, get(port, "/").status], [200, 200]);
    Lab::configure(lab.folder(), &yaml(NEW));
    lab.signal(nix::sys::signal::Signal::SIGHUP);
    lab.wait_for_log("50.0 % of the last 2 requests would have another outcome, more than 10%");
    assert_eq!(get(port, "/").status, 200);
    let (status, response) = call(&lab, Method::POST, "/reload", "");
    assert_eq!((status, &response["cause"]), (StatusCode::PRECONDITION_FAILED, &json!("exceeds_max_moved")));
    let (status, _) = call(&lab, Method::POST, "/reload?max_moved=100%25", "");
    assert_eq!(status, StatusCode::OK, "the parameter of the request overrides the file");
    assert_eq!(get(port, "/").status, 404);
}

#[test]
fn watched_file_that_exceeds_max_moved_is_rejected_until_the_limit_is_overridden() {
    let (port, backends) = (free_port(), [Backend::start("one"), Backend::start("two")]);
    let with = |reload: &str, rest: &str| yaml(port, &backends, rest).replace("reload: { watch: false }", reload);
    let limited = |rest: &str| with("reload: { watch: true, max_moved: 10% }", rest);
    let lab = Lab::start(&limited(OLD));
    assert_eq!([get(port, "/api").status, get(port, "/").status], [200, 200]);
    Lab::configure(lab.folder(), &limited(NEW));
    lab.wait_for_log("50.0 % of the last 2 requests would have another outcome, more than 10%");
    assert_eq!(get(port, "/").status, 200);
    // The new file cannot lift its own limit.
    Lab::configure(lab.folder(), &with("reload: { watch: true }", &format!("{NEW} # later")));
    eventually("the second file is rejected", PATIENCE, || lab.log().matches("configuration rejected").count() == 2);
    assert_eq!(get(port, "/").status, 200);
    let conf = lab.folder().join("l7lb.yaml").display().to_string();
    let reload = |limit: &str| {
        let output = run(&["reload", "--conf", &conf, "--max-moved", limit]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(reload("10%").0, Some(2));
    assert_eq!(reload("100%").0, Some(0));
    assert_eq!(get(port, "/").status, 404);
    // Without the key, a saved file is active before the command can reject it, and the command reports that.
    Lab::configure(lab.folder(), &with("reload: { watch: true }", OLD));
    eventually("the file is active", PATIENCE, || get(port, "/").status == 200);
    let (code, stderr) = reload("0%");
    assert!(code == Some(0) && stderr.contains("a saved file is active before this command"), "{stderr}");
}

#[test]
fn max_moved_is_rejected_if_no_requests_are_recorded() {
    let fixture = Fixture::start(&format!("recent_requests: {{ count: 0 }}\n{OLD}"));
    assert_eq!(get(fixture.port, "/").status, 200);
    let (status, plan) = call(&fixture.lab, Method::POST, "/plan", &draft(&fixture.yaml(NEW)));
    assert_eq!((status, &plan["replay"]["requests"]), (StatusCode::OK, &json!(0)), "{plan}");
    let (code, stderr) = fixture.reload(NEW, &["--max-moved", "100%"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("no recent requests are kept"), "{stderr}");
    let (status, problem) = call(&fixture.lab, Method::POST, "/reload?max_moved=5", "");
    assert_eq!((status, &problem["cause"]), (StatusCode::BAD_REQUEST, &json!("malformed")), "{problem}");
}

fn draft(text: &str) -> String {
    Value::from_iter([("file", json!("new.yaml")), ("text", json!(text))]).to_string()
}

#[test]
fn plan_moves_clients_without_a_cookie_by_the_new_shares_and_keeps_sticky_ones() {
    let split =
        |a: u32, b: u32| format!("routes: [{{ path: /, pool: {{ a: {a}, b: {b} }}, sticky: {{ cookie: {{}} }} }}]");
    let fixture = Fixture::start(&split(1, 0));
    let first = get(fixture.port, "/");
    let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("l7lb="), "{cookie}");
    for _ in 0..9 {
        assert_eq!(get_with(fixture.port, "/", &format!("Cookie: {cookie}\r\n")).status, 200);
    }
    let plan = fixture.planned(&split(1, 3));
    let moves: Vec<_> = plan.replay.moves.iter().map(|one| (one.from.to_string(), one.to.to_string())).collect();
    assert_eq!(moves, [("pool a".to_owned(), "pool b".to_owned())], "{plan}");
    assert!(
        (plan.replay.moves[0].requests - 0.75).abs() < 1e-9,
        "three quarters of the one request without a cookie: {plan}"
    );
    let without_a = fixture.planned(&split(0, 1));
    assert_eq!(without_a.replay.moved, 1.0, "the pool of the sticky clients has no share: {without_a}");
}

#[test]
fn requests_of_all_work_stealing_threads_are_recorded() {
    let server = "server: { threads: 3, work_stealing: true, upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid' }";
    let fixture = Fixture::start(&format!("{OLD}\n{server}"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(get(fixture.port, "/api").status, 200)));
        }
    });
    let (status, plan) = call(&fixture.lab, Method::POST, "/plan", &draft(&fixture.yaml(NEW)));
    assert_eq!((status, &plan["replay"]["requests"]), (StatusCode::OK, &json!(80)), "{plan:#}");
}

#[test]
fn short_forms_of_the_active_configuration_are_no_change() {
    let fixture = Fixture::start("routes: [{ path: /, pool: a, methods: [GET], retry: { on: [connect] } }]");
    assert_eq!(get(fixture.port, "/").status, 200);
    let short = fixture
        .yaml("routes: { path: /, pool: a, methods: GET, retry: { on: connect } }")
        .replace(&format!("[{{ address: '127.0.0.1:{}' }}]", fixture.port), &format!("127.0.0.1:{}", fixture.port))
        .replace("trusted_proxies: [127.0.0.0/8]", "trusted_proxies: 127.0.0.0/8")
        .replace(
            &format!("[{{ address: '127.0.0.1:{}' }}]", fixture.backends[0].port),
            &fixture.backends[0].port.to_string(),
        )
        .replace(
            &format!("[{{ address: '127.0.0.1:{}' }}]", fixture.backends[1].port),
            &format!("http://127.0.0.1:{}", fixture.backends[1].port),
        );
    assert!(!short.contains("address:"), "{short}");
    let file = fixture.lab.folder().join("short.yaml");
    let text = std::fs::read_to_string(fixture.file()).unwrap();
    let server = text.lines().find(|line| line.starts_with("server:")).unwrap();
    std::fs::write(&file, format!("{server}\n{short}")).unwrap();
    let conf = fixture.file().display().to_string();
    let output = run(&["plan", file.to_str().unwrap(), "--conf", &conf, "--json"]);
    let plan: Plan = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(plan.details, [""; 0]);
    assert!(plan.replay.moves.is_empty(), "{:?}", plan.replay.moves);
}
