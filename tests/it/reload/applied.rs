//! What a reload changes, whether it is triggered by command, signal or file watch.

use nix::sys::signal::Signal;

use super::{UNWATCHED, file, reloaded, replace};
use crate::lab::client::{get, get_with};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

fn with_route(yaml: &str, path: &str) -> String {
    yaml.replace("routes: [", &format!("routes: [{{ path: {path}, pool: a }}, "))
}

#[test]
fn reload_changes_routes_and_backends_under_load_without_a_failed_request() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let load = Load::start(port, "/apiA", 6, 3);
    load.wait_for_more(200);
    assert_eq!(get(port, "/by-command").status, 404);
    replace(&lab, &with_route(&one_pool(port, &[&one], UNWATCHED), "/by-command"));
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  routes added: */by-command\n");
    assert_eq!(get(port, "/by-command").status, 200, "the new configuration is active when the command returns");

    load.wait_for_more(200);
    replace(&lab, &with_route(&one_pool(port, &[&one, &two], UNWATCHED), "/by-signal"));
    lab.signal(Signal::SIGHUP);
    eventually("the signal triggers a reload", PATIENCE, || get(port, "/by-signal").status == 200);
    assert_eq!(get(port, "/by-command").status, 404);
    eventually("the new backend is used", PATIENCE, || get(port, "/apiA").header("x-backend") == "two");

    load.wait_for_more(200);
    replace(&lab, &one_pool(port, &[&two], UNWATCHED));
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  pools changed: a\n  routes removed: */by-signal\n");
    assert!((0..4).all(|_| get(port, "/apiA").header("x-backend") == "two"));
    load.wait_for_more(200);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  nothing changed\n");
}

#[test]
fn file_changes_are_detected_through_renames_and_symbolic_links() {
    let one = Backend::start("one");
    let port = free_port();
    let yaml = one_pool(port, &[&one], "");
    let lab = Lab::start(&yaml);
    replace(&lab, &with_route(&yaml, "/renamed"));
    eventually("a renamed file is detected", PATIENCE, || get(port, "/renamed").status == 200);
    std::fs::write(file(&lab), std::fs::read_to_string(file(&lab)).unwrap().replace("/renamed", "/rewritten")).unwrap();
    eventually("a rewritten file is detected", PATIENCE, || get(port, "/rewritten").status == 200);
    // As Kubernetes does: the file is a link into a folder that is itself a link, and that link is replaced.
    let text = std::fs::read_to_string(file(&lab)).unwrap();
    for (folder, path) in [("first", "/rewritten"), ("second", "/linked")] {
        std::fs::create_dir(lab.folder().join(folder)).unwrap();
        std::fs::write(lab.folder().join(folder).join("l7lb.yaml"), text.replace("/rewritten", path)).unwrap();
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, lab.folder().join("new")).unwrap();
        std::fs::rename(lab.folder().join("new"), lab.folder().join(name)).unwrap();
    };
    link("first", "data");
    link("data/l7lb.yaml", "l7lb.yaml");
    link("second", "data");
    eventually("a replaced link is detected", PATIENCE, || get(port, "/linked").status == 200);
}

#[test]
fn reloaded_client_settings_apply_to_open_connections() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let mut connection = crate::lab::client::connect(port);
    let mut post = || {
        use std::io::Write;
        connection.write_all(b"POST /apiA HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789").unwrap();
        crate::lab::client::read_response(&mut connection).status
    };
    assert_eq!(post(), 200);
    let more = "request_limits: { body_size: 5, target_size: 64 }\ntrusted_proxies: [127.0.0.0/8]\n\
        connection_limits: { per_client: 1 }\nclient_timeouts: { keepalive: 9s }\n";
    replace(&lab, &one_pool(port, &[&one], &format!("{more}{UNWATCHED}")));
    let stderr = reloaded(&lab);
    let settings = "trusted_proxies, request_limits, client_timeouts, connection_limits";
    assert!(stderr.contains(&format!("settings changed: {settings}")), "{stderr}");
    assert_eq!(post(), 413, "the limit applies to the open connection");
    assert_eq!(get(port, &format!("/apiA/{}", "x".repeat(80))).status, 414);
    get_with(port, "/apiA", "X-Forwarded-For: 203.0.113.7\r\n");
    lab.wait_for_access("client=203.0.113.7");
}

#[test]
fn access_log_format_and_file_change_on_reload_and_an_unusable_file_rejects_it() {
    let one = Backend::start("one");
    let port = free_port();
    let logged = |log: &str| one_pool(port, &[&one], &format!("access_log: {{ {log} }}\n{UNWATCHED}"));
    let lab = Lab::start(&logged("format: text"));
    get(port, "/apiA/first");
    lab.wait_for_access("path=/apiA/first");
    replace(
        &lab,
        &logged("format: json, file: '{folder}/access.log'").replace("{folder}", &lab.folder().display().to_string()),
    );
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  settings changed: access_log\n");
    get(port, "/apiA/second");
    let file = lab.folder().join("access.log");
    eventually("the file contains the line", PATIENCE, || {
        std::fs::read_to_string(&file).unwrap_or_default().contains("\"path\":\"/apiA/second\"")
    });
    replace(&lab, &logged("file: /nowhere/at/all/access.log").replace("path: /apiA", "path: /other"));
    let output = super::reload(&lab);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && stderr.contains("cannot open the access log"), "{stderr}");
    assert_eq!(get(port, "/apiA/third").status, 200);
    replace(&lab, &logged("off: true"));
    reloaded(&lab);
    assert!(lab.access().len() == 1, "{:?}", lab.access());
}

#[test]
fn daemon_resolves_relative_paths_identically_on_reload() {
    let one = Backend::start("one");
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let tls = "tls: { certificates: [{ certificate: localhost.pem, key: localhost-key.pem }] }";
    let server = "server: { pid_file: l7lb.pid, upgrade_sock: run/upgrade.sock, error_log: error.log }\n";
    let with_tls = format!("listeners: [{{ address: '127.0.0.1:{}', {tls} }}, ", free_port());
    let yaml = one_pool(port, &[&one], &format!("{server}{UNWATCHED}access_log: {{ off: true }}\n"));
    Lab::configure(folder.path(), &yaml.replace("listeners: [", &with_tls));
    let l7lb = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_l7lb"));
        command.current_dir(folder.path()).args(arguments).output().unwrap()
    };
    assert!(l7lb(&["-c", "l7lb.yaml", "-d"]).status.success());
    eventually("the daemon serves its control socket", PATIENCE, || {
        l7lb(&["reload", "-c", "l7lb.yaml"]).status.code() != Some(1)
    });
    let output = l7lb(&["reload", "-c", "l7lb.yaml"]);
    let pid: i32 = std::fs::read_to_string(folder.path().join("l7lb.pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "l7lb: reloaded\n  nothing changed\n");
    eventually("the daemon has exited", PATIENCE, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}
