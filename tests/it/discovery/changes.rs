//! What operators see of changed lists and changed sources: limits, plans and explanations.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{address, source, wait_until_available, yaml};
use crate::control::call;
use crate::lab::client::get;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};

fn write(lab: &Lab, name: &str, backends: &[&Backend]) {
    let text: Vec<String> = backends.iter().map(|backend| address(backend)).collect();
    std::fs::write(lab.folder().join("new"), json!(text).to_string()).unwrap();
    std::fs::rename(lab.folder().join("new"), lab.folder().join(name)).unwrap();
}

fn command(lab: &Lab, arguments: &[&str]) -> String {
    let file = lab.folder().join("l7lb.yaml");
    let output = run(&[arguments, &["--conf", file.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn list_that_moves_too_many_requests_waits_for_an_operator() {
    let backends: Vec<Backend> = ["a", "b", "c", "d"].iter().map(|name| Backend::start(name)).collect();
    let [a, b, c, d] = &backends[..] else { panic!() };
    let port = free_port();
    let lab = Lab::start(&yaml(port, "{ file: '{folder}/list.json', hold: 1h, max_moved: 40% }"));
    write(&lab, "list.json", &[a, b]);
    wait_until_available(&lab, &[a, b]);
    // From two to three backends, a third of the requests moves; then to one of three other ones, all but a third.
    write(&lab, "list.json", &[a, b, c]);
    wait_until_available(&lab, &[a, b, c]);
    write(&lab, "list.json", &[a, b, d]);
    wait_until_available(&lab, &[a, b, d]);
    write(&lab, "list.json", &[b, c]);
    let line = lab.wait_for_log("discovered backends held back");
    assert!(line.contains("moved=66.7% max_moved=40%"), "{line}");
    wait_until_available(&lab, &[a, b, d]);
    assert!((source(&lab)["moves"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9, "{}", source(&lab));
    assert!(command(&lab, &["pools"]).contains("list that moves 67 %"));
    assert_eq!(get(port, "/").status, 200);

    assert!(command(&lab, &["backends", "accept", "p"]).starts_with("accepted: file "));
    wait_until_available(&lab, &[b, c]);
    assert_eq!(source(&lab)["moves"], Value::Null);
    assert_eq!(command(&lab, &["backends", "accept", "p"]), "no list is held back\n");
    let (status, problem) = call(&lab, Method::POST, "/pools/q/sources/accept", "");
    assert_eq!((status, &problem["cause"]), (StatusCode::NOT_FOUND, &json!("unknown_pool")));
}

#[test]
fn plan_shows_which_discovered_backends_stay_and_explain_shows_source_and_age() {
    let backends: Vec<Backend> = ["a", "b"].iter().map(|name| Backend::start(name)).collect();
    let [a, b] = &backends[..] else { panic!() };
    let port = free_port();
    let before = yaml(port, "{ file: '{folder}/list.json' }");
    let lab = Lab::start(&before);
    write(&lab, "list.json", &[a, b]);
    wait_until_available(&lab, &[a, b]);
    let file = lab.folder().join("l7lb.yaml");
    let list = lab.folder().join("list.json").display().to_string();

    let explained = command(&lab, &["explain", "--live", &format!("http://localhost:{port}/")]);
    assert!(explained.contains(&format!("{}  up, found by file {list}, known for ", address(a))), "{explained}");

    let plan = |discover: &str| {
        Lab::configure(lab.folder(), &yaml(port, discover));
        command(&lab, &["plan", file.to_str().unwrap()])
    };
    let kept = plan("{ file: '{folder}/list.json', hold: 5s }");
    assert!(
        kept.contains(&format!("pool `p`: source `file {list}` keeps its 2 backends until its next list")),
        "{kept}"
    );
    let denied = plan("{ file: '{folder}/list.json', deny: [127.0.0.1/32] }");
    let mut both = [address(a), address(b)];
    both.sort();
    assert!(denied.contains(&format!("keeps 0 of its 2 backends; these leave: {}", both.join(", "))), "{denied}");
    let replaced = plan(&format!("[{{ file: '{{folder}}/other.json' }}, {{ dns: localhost:{} }}]", a.port));
    assert!(replaced.contains(&format!("source `file {list}` removed; it keeps 0 of its 2 backends")), "{replaced}");
    assert!(replaced.contains("other.json` added; which backends it finds is not known yet"), "{replaced}");
    assert!(replaced.contains("source `dns localhost:"), "{replaced}");
    eventually("nothing has changed", PATIENCE, || get(port, "/").status == 200);
    wait_until_available(&lab, &[a, b]);
}

#[test]
fn many_backends_that_go_down_together_are_counted_in_one_event() {
    let backend = Backend::start("a");
    let port = free_port();
    let lab = Lab::start(&yaml(port, "{ file: '{folder}/list.json' }"));
    // Nothing listens at the other addresses.
    let others = (1..=300).map(|number| format!("127.2.{}.{}:{}", number / 250, number % 250 + 1, backend.port));
    let text: Vec<String> = others.chain([address(&backend)]).collect();
    std::fs::write(lab.folder().join("new"), json!(text).to_string()).unwrap();
    std::fs::rename(lab.folder().join("new"), lab.folder().join("list.json")).unwrap();
    let line = lab.wait_for_log("further backends changed");
    assert!(line.contains("pool=p up=0 down=") || line.contains("pool=p up=1 down="), "{line}");
    eventually("all have been checked", PATIENCE, || {
        super::backends(&lab).iter().filter(|backend| backend["health"] == "down").count() == 300
    });
    assert!(lab.log().matches("backend down: ").count() < 300, "{}", lab.log());
    assert_eq!(get(port, "/").status, 200);
}
