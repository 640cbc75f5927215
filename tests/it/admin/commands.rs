//! Commands with `--server`.

use std::process::{Command, Output, Stdio};

use super::{Admin, OPERATOR, TOKENS, folder};
use crate::lab::authority::Authority;
use crate::lab::free_port;

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l7lb"));
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command that must succeed.
fn succeeds(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run_with(arguments, environment);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

#[test]
fn commands_call_a_server_with_tls_by_flags_and_by_variables() {
    let (folder, servers, clients) = (folder(), Authority::new("servers"), Authority::new("clients"));
    servers.issue(&["localhost"]).write(folder.path(), "server");
    clients.issue(&["boss"]).write(folder.path(), "boss");
    std::fs::write(folder.path().join("ca.pem"), servers.pem()).unwrap();
    std::fs::write(folder.path().join("clients.pem"), clients.pem()).unwrap();
    let tls = "tls: { certificates: [{ certificate: '{folder}/server.pem', key: '{folder}/server-key.pem' }] }";
    let clients = "clients: { ca: '{folder}/clients.pem', roles: { boss: admin } }";
    let admin = Admin::start_in(folder, &format!("{tls}, {clients}, {TOKENS}"), "");
    let path = |name: &str| admin.lab.folder().join(name).display().to_string();
    let url = format!("https://localhost:{}", admin.port);
    let backend = format!("127.0.0.1:{}", admin.backend.port);
    let (ca, token) = (path("ca.pem"), path("operator.token"));
    let flags = ["--server", &url, "--ca", &ca, "--token-file", &token];
    let variables = [("L7LB_SERVER", url.as_str()), ("L7LB_CA", &ca), ("L7LB_TOKEN_FILE", &token)];
    let new = path("l7lb.yaml");
    for command in [
        &["status"][..],
        &["pools", "--json"],
        &["routes"],
        &["backends"],
        &["backends", "drain", "a", &backend],
        &["backends", "weight", "a", &backend, "5"],
        &["backends", "reset", "a", &backend],
        &["cache"],
        &["events"],
        &["log-level"],
    ] {
        succeeds(&[command, &flags].concat(), &[]);
        succeeds(command, &variables);
    }
    let explain = ["explain", "GET http://localhost/apiA"];
    assert!(succeeds(&[&explain[..], &flags].concat(), &[]).contains("pool"));
    succeeds(&[&explain[..], &["--live"]].concat(), &variables);
    let output = run_with(&[&["reload"][..], &flags].concat(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("the role `admin` is required, and token operator has the role `operate`"));
    let (certificate, key) = (path("boss.pem"), path("boss-key.pem"));
    let certificate = ["--server", &url, "--ca", &ca, "--client-cert", &certificate, "--client-key", &key];
    succeeds(&[&["reload"][..], &certificate].concat(), &[]);
    succeeds(&[&["plan", &new][..], &certificate].concat(), &[]);
    // A process of this machine that is named comes before the variables.
    let nowhere = [("L7LB_SERVER", "https://localhost:1")];
    succeeds(&["status", "--conf", &new], &nowhere);
    succeeds(&["status", "--socket", &path("control.sock")], &nowhere);
}

#[test]
fn failed_calls_of_a_server_name_the_reason_and_the_remedy() {
    let (folder, servers) = (folder(), Authority::new("servers"));
    servers.issue(&["localhost"]).write(folder.path(), "server");
    std::fs::write(folder.path().join("ca.pem"), servers.pem()).unwrap();
    std::fs::write(folder.path().join("other.pem"), Authority::new("others").pem()).unwrap();
    super::write_token(folder.path(), "wrong", "wrong-0123456789abcdef0123456789abcdef");
    super::write_token(folder.path(), "short", "secret");
    let tls = "tls: { certificates: [{ certificate: '{folder}/server.pem', key: '{folder}/server-key.pem' }] }";
    let admin = Admin::start_in(folder, &format!("{tls}, {TOKENS}"), "");
    let plain = Admin::start(TOKENS);
    let path = |name: &str| admin.lab.folder().join(name).display().to_string();
    let (port, ca) = (admin.port, path("ca.pem"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (reader, wrong, short) = (path("reader.token"), path("wrong.token"), path("short.token"));
    let silent = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    for (server, ca, token, code, expected) in [
        (format!("https://localhost:{port}"), &path("other.pem"), &reader, 1, "not signed by a known authority"),
        (format!("https://127.0.0.1:{port}"), &ca, &reader, 1, "certificate is for other names"),
        (format!("https://localhost:{port}"), &ca, &wrong, 2, "the token is not known"),
        (format!("https://localhost:{}", free_port()), &ca, &reader, 1, "connection refused"),
        (format!("https://localhost:{}", plain.port), &ca, &reader, 1, "does not use TLS; write http://"),
        (silent, &ca, &reader, 1, "no response in time"),
        (format!("https://localhost:{port}"), &ca, &short, 2, "contains no token of at least 32 characters"),
        (format!("https://localhost:{port}"), &path("none.pem"), &reader, 2, "cannot read"),
        ("http://192.0.2.1:9443".to_owned(), &ca, &reader, 2, "needs TLS"),
        ("localhost:9443".to_owned(), &ca, &reader, 2, "is not a server"),
    ] {
        let output = run_with(&["pools", "--server", &server, "--ca", ca, "--token-file", token], &[]);
        let text = said(&output);
        assert!(output.status.code() == Some(code) && text.contains(expected), "{server}: {text}");
        assert!(!text.contains("0123456789abcdef") && !text.contains("secret"), "{text}");
    }
    let output = run_with(&["pools", "--server", &format!("https://localhost:{port}")], &[]);
    assert!(said(&output).contains("authority"), "without --ca: {}", said(&output));
    let output = run_with(&["pools", "--server", "https://localhost:1", "--conf", "x"], &[]);
    assert_eq!(output.status.code(), Some(2), "two processes: {}", said(&output));
    let output = run_with(&["pools", "--token-file", &reader], &[]);
    assert!(said(&output).contains("name the server with `--server URL` or L7LB_SERVER"), "{}", said(&output));
    let plain_url = format!("http://localhost:{}", plain.port);
    let token = plain.lab.folder().join("operator.token").display().to_string();
    succeeds(&["pools", "--server", &plain_url, "--token-file", &token], &[("L7LB_CA", "/nonexistent")]);
    assert_eq!(plain.call(Some(OPERATOR), "GET /version", "").status, 200);
}
