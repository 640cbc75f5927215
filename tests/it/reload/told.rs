//! What is told: faults, what needs an upgrade, who may ask.

use nix::sys::signal::Signal;

use super::{UNWATCHED, file, reload, reloaded, replace};
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, free_port, run};
use crate::one_pool;

/// Asks for a reload that is refused because of the file; what is said of it.
fn refused(lab: &Lab) -> String {
    let ended = reload(lab);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_once() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], ""));
    let load = Load::start(port, "/apiA", 2, 1);
    replace(&lab, &one_pool(port, &[&one], "").replace("pool: a }", "pool: b }"));
    let line = lab.wait_for_log("configuration rejected");
    assert!(line.contains("the old one stays in force"), "{line}");
    lab.wait_for_log("there is no pool `b`");
    load.wait_for_more(100);
    // It was looked at several times meanwhile; a mended file shows that looking goes on.
    replace(&lab, &one_pool(port, &[&one], "request_limits: { body_size: 1KiB }"));
    lab.wait_for_log("configuration reloaded");
    assert_eq!(lab.log().matches("configuration rejected").count(), 1, "{}", lab.log());
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
}

#[test]
fn the_command_says_what_is_wrong_and_ends_with_2() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    replace(&lab, &one_pool(port, &[&one], UNWATCHED).replace("path: /apiA", "pth: /apiA"));
    let said = refused(&lab);
    assert!(said.contains("the old configuration stays in force"), "{said}");
    assert!(said.contains("l7lb.yaml:5:") && said.contains("did you mean `path`?"), "{said}");
    assert_eq!(get(port, "/apiA").status, 200);
    // Without YAML nobody knows where the process is, and it could not use the file either.
    std::fs::write(file(&lab), "listeners: [").unwrap();
    let said = refused(&lab);
    assert!(said.contains("nothing was changed"), "{said}");
}

#[test]
fn a_file_whose_own_tests_fail_changes_nothing() {
    let one = Backend::start("one");
    let port = free_port();
    let tested = |path: &str| {
        let tests = format!("tests: [{{ request: 'http://localhost{path}', expect: {{ pool: a }} }}]\n{UNWATCHED}");
        one_pool(port, &[&one], &tests)
    };
    let lab = Lab::start(&tested("/apiA"));
    replace(&lab, &tested("/apiB"));
    let said = refused(&lab);
    assert!(said.contains("expected the pool `a`"), "{said}");
    replace(&lab, &tested("/apiA/more"));
    assert!(reload(&lab).status.success());
    assert_eq!(get(port, "/apiA").status, 200);
}

#[test]
fn without_a_process_the_command_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = Lab::configure(
        folder.path(),
        &one_pool(1, &[], "").replace("backends: []", "backends: [{ address: '127.0.0.1:1' }]"),
    );
    let ended = run(&["reload", "--conf", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("no process answers at") && said.contains("control.sock"), "{said}");
}

#[test]
fn what_only_an_upgrade_takes_up_is_told() {
    let one = Backend::start("one");
    let (port, further) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let listeners = format!("listeners: [{{ address: '127.0.0.1:{further}' }}, ");
    replace(&lab, &one_pool(port, &[&one], UNWATCHED).replace("listeners: [", &listeners));
    assert!(reloaded(&lab).contains("needs an upgrade: listeners"));
    assert!(reloaded(&lab).contains("needs an upgrade: listeners"), "until it is done");
    assert_eq!(lab.log().matches("only an upgrade takes it up: keys=listeners").count(), 1, "{}", lab.log());
    assert!(std::net::TcpStream::connect(("127.0.0.1", further)).is_err());
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_exit(crate::lab::PATIENCE);
    assert!(!lab.log().contains("control socket"), "{}", lab.log());
    assert_eq!(get(further, "/apiA").status, 200);
    assert!(reloaded(&next).contains("nothing changed"), "the new process is asked");
}
