//! What a change would do is told before it is done, by `l7lb plan` and `l7lb reload --max-moved`.

use std::path::PathBuf;
use std::process::Output;

use http::{Method, StatusCode};
use l7lb::plan::Plan;
use l7lb::plan::replay::End;
use serde_json::{Value, json};

use crate::admin::ask;
use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, free_port, run};

/// Two pools and the routes to them, in a file that is read only when told.
struct Scene {
    lab: Lab,
    port: u16,
    backends: [Backend; 2],
}

impl Scene {
    fn start(rest: &str) -> Self {
        let (port, backends) = (free_port(), [Backend::start("one"), Backend::start("two")]);
        let lab = Lab::start(&yaml(port, &backends, rest));
        Self { lab, port, backends }
    }

    fn yaml(&self, rest: &str) -> String {
        yaml(self.port, &self.backends, rest)
    }

    /// `l7lb plan` of a file with other routes.
    fn plan(&self, rest: &str, more: &[&str]) -> Output {
        let folder = tempfile::tempdir_in(self.lab.folder()).unwrap();
        std::fs::write(folder.path().join("localhost.pem"), "").unwrap();
        let new = Lab::configure(folder.path(), &self.yaml(rest));
        // The server block must stay what it was.
        let text = std::fs::read_to_string(&new).unwrap();
        let same = text.replace(&folder.path().display().to_string(), &self.lab.folder().display().to_string());
        std::fs::write(&new, same).unwrap();
        let (new, conf) = (new.display().to_string(), self.file().display().to_string());
        run(&[&["plan", &new, "--conf", &conf], more].concat())
    }

    fn planned(&self, rest: &str) -> Plan {
        let ended = self.plan(rest, &["--json"]);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        serde_json::from_slice(&ended.stdout).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.lab.folder().join("l7lb.yaml")
    }

    fn reload(&self, rest: &str, more: &[&str]) -> (Option<i32>, String) {
        Lab::configure(self.lab.folder(), &self.yaml(rest));
        let ended = run(&[&["reload", "--conf", self.file().to_str().unwrap()], more].concat());
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
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
fn a_plan_tells_what_moves_and_what_is_lost_and_the_reload_does_exactly_that() {
    let scene = Scene::start(OLD);
    let paths = ["/api/1", "/api/2", "/new/1", "/new/2", "/new/3", "/other", "/other", "/", "/x?secret=1", "/y"];
    let statuses = || paths.map(|path| get(scene.port, path).status);
    assert_eq!(statuses(), [200; 10]);

    let plan = scene.planned(NEW);
    let (replay, pool) = (&plan.replay, |name: &str| End::Pool(name.to_owned()));
    let no_route = End::Refused { status: 404, cause: "no_route".to_owned() };
    let moves: Vec<_> = replay.moves.iter().map(|one| (one.from.clone(), one.to.clone(), one.requests)).collect();
    assert_eq!(moves, [(pool("a"), no_route, 5.0), (pool("a"), pool("b"), 3.0)], "{replay:?}");
    assert_eq!((replay.requests, replay.moved), (10, 0.8));
    let said = String::from_utf8(scene.plan(NEW, &[]).stdout).unwrap();
    for line in [
        "route `new` added (*/new): to pool b",
        "route `rest` removed (*/)",
        "80.0 % would end elsewhere",
        "50.0 %  from pool a to 404 no_route",
        "30.0 %  from pool a to pool b",
        "GET localhost/new/1  (client 127.0.0.1)",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(statuses(), [200; 10], "nothing was changed");

    let (code, said) = scene.reload(NEW, &["--max-moved", "79.9%"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("80.0 % of the last 20 requests would end elsewhere, more than 79.9%"), "{said}");
    assert!(said.contains("the old configuration stays in force") && said.contains("from pool a to pool b"), "{said}");
    assert_eq!(statuses(), [200; 10], "nothing was changed");

    let (code, said) = scene.reload(NEW, &["--max-moved", "80%"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(statuses(), [200, 200, 200, 200, 200, 404, 404, 404, 404, 404]);
    // Forty requests went there before; those that were refused are remembered as well.
    let back = scene.planned(OLD);
    assert_eq!((back.replay.requests, back.replay.moved), (40, 0.8), "{back:?}");
}

#[test]
fn clients_that_would_be_limited_are_counted_by_the_times_at_which_they_came() {
    let scene = Scene::start(OLD);
    for (client, times) in [("203.0.113.1", 1), ("203.0.113.2", 3), ("203.0.113.3", 5), ("203.0.113.4", 6)] {
        for _ in 0..times {
            let told = get_with(scene.port, "/", &format!("X-Forwarded-For: {client}\r\n"));
            assert_eq!(told.status, 200);
        }
    }
    let limit = |kind: &str| format!("rate_limit: {{ type: {kind}, limit: 4, window: 1h }}\n{OLD}");
    for kind in ["fixed_window", "sliding_window", "token_bucket"] {
        let plan = scene.planned(&limit(kind));
        assert_eq!(plan.details, ["the limit over everything added: ".to_owned() + plan_amount(kind)]);
        let limited = &plan.replay.newly_limited;
        let samples: Vec<String> = limited.samples.iter().map(ToString::to_string).collect();
        assert_eq!((limited.count, samples), (2, vec!["203.0.113.3".to_owned(), "203.0.113.4".to_owned()]), "{kind}");
        // One of the third client's requests, two of the fourth's, of fifteen.
        assert!((plan.replay.moved - 0.2).abs() < 1e-9, "{kind}: {plan:?}");
    }
}

fn plan_amount(kind: &str) -> &'static str {
    if kind == "token_bucket" { "4 requests in 1h, bursts of 4" } else { "4 requests in 1h" }
}

#[test]
fn a_plan_of_the_running_file_moves_nothing_and_a_faulty_one_says_why() {
    let scene = Scene::start(OLD);
    assert!(scene.planned(OLD).replay.notes.is_empty(), "nothing was asked yet");
    (0..5).for_each(|_| assert_eq!(get(scene.port, "/api").status, 200));
    let said = String::from_utf8(scene.plan(OLD, &[]).stdout).unwrap();
    assert!(said.starts_with("changes\n  none\nthe last 5 requests, of ") && said.contains("all would end"), "{said}");

    let ended = scene.plan("routes: [{ path: /, pool: nowhere }]", &[]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no pool `nowhere`") && said.contains("^"), "{said}");
    let test = "tests: [{ request: 'GET http://x/', expect: { pool: b } }]";
    let ended = scene.plan(&format!("{OLD}\n{test}"), &[]);
    assert_eq!(ended.status.code(), Some(2), "a test that fails");
    assert_eq!(run(&["plan", "/nowhere.yaml"]).status.code(), Some(2));
    assert_eq!(get(scene.port, "/api").status, 200);
}

#[test]
fn the_file_itself_may_say_how_much_may_move() {
    let careful = "reload: { watch: false, max_moved: 10% }";
    let (port, backends) = (free_port(), [Backend::start("one"), Backend::start("two")]);
    let yaml = |rest: &str| yaml(port, &backends, rest).replace("reload: { watch: false }", careful);
    let lab = Lab::start(&yaml(OLD));
    assert_eq!([get(port, "/api").status, get(port, "/").status], [200, 200]);
    Lab::configure(lab.folder(), &yaml(NEW));
    lab.signal(nix::sys::signal::Signal::SIGHUP);
    lab.wait_for_log("50.0 % of the last 2 requests would end elsewhere, more than 10%");
    assert_eq!(get(port, "/").status, 200);
    let (status, answer) = ask(&lab, Method::POST, "/reload", "");
    assert_eq!((status, &answer["cause"]), (StatusCode::PRECONDITION_FAILED, &json!("moves_too_much")));
    let (status, _) = ask(&lab, Method::POST, "/reload?max_moved=100%25", "");
    assert_eq!(status, StatusCode::OK, "whoever is told may do it");
    assert_eq!(get(port, "/").status, 404);
}

#[test]
fn without_requests_remembered_no_promise_is_made() {
    let scene = Scene::start(&format!("recent_requests: {{ count: 0 }}\n{OLD}"));
    assert_eq!(get(scene.port, "/").status, 200);
    let (status, plan) = ask(&scene.lab, Method::POST, "/plan", &draft(&scene.yaml(NEW)));
    assert_eq!((status, &plan["replay"]["requests"]), (StatusCode::OK, &json!(0)), "{plan}");
    let (code, said) = scene.reload(NEW, &["--max-moved", "100%"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no request is remembered"), "{said}");
    let (status, problem) = ask(&scene.lab, Method::POST, "/reload?max_moved=5", "");
    assert_eq!((status, &problem["cause"]), (StatusCode::BAD_REQUEST, &json!("malformed")), "{problem}");
}

fn draft(text: &str) -> String {
    Value::from_iter([("file", json!("new.yaml")), ("text", json!(text))]).to_string()
}

#[test]
fn clients_that_a_cookie_binds_stay_and_others_move_by_the_shares() {
    let split =
        |a: u32, b: u32| format!("routes: [{{ path: /, pool: {{ a: {a}, b: {b} }}, sticky: {{ cookie: {{}} }} }}]");
    let scene = Scene::start(&split(1, 0));
    let first = get(scene.port, "/");
    let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("l7lb="), "{cookie}");
    for _ in 0..9 {
        assert_eq!(get_with(scene.port, "/", &format!("Cookie: {cookie}\r\n")).status, 200);
    }
    let plan = scene.planned(&split(1, 3));
    let moves: Vec<_> = plan.replay.moves.iter().map(|one| (one.from.to_string(), one.to.to_string())).collect();
    assert_eq!(moves, [("pool a".to_owned(), "pool b".to_owned())], "{plan}");
    assert!((plan.replay.moves[0].requests - 0.75).abs() < 1e-9, "three quarters of the one without a cookie: {plan}");
    let gone = scene.planned(&split(0, 1));
    assert_eq!(gone.replay.moved, 1.0, "their pool takes nothing any more: {gone}");
}

#[test]
fn workers_that_share_their_work_forget_no_request() {
    let server = "server: { threads: 3, work_stealing: true, upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid' }";
    let scene = Scene::start(&format!("{OLD}\n{server}"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(get(scene.port, "/api").status, 200)));
        }
    });
    let (status, plan) = ask(&scene.lab, Method::POST, "/plan", &draft(&scene.yaml(NEW)));
    assert_eq!((status, &plan["replay"]["requests"]), (StatusCode::OK, &json!(80)), "{plan:#}");
}
