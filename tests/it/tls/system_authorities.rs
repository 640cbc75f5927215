//! The certificate authorities of the system: missing ones, and a worker that cannot read a file of authorities.

use std::process::Command;
use std::sync::Arc;

use crate::lab::authority::Authority;
use crate::lab::client::get;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, tls_backend};

/// The variables that name the authorities of the system.
const MISSING: [(&str, &str); 2] = [("SSL_CERT_FILE", "/missing/ca.pem"), ("SSL_CERT_DIR", "/missing")];

#[test]
fn backends_without_tls_or_with_a_ca_are_served_without_authorities_of_the_system() {
    let (plain, authority, port) = (Backend::start("one"), Authority::new("authority"), free_port());
    let tls = tls_backend::start(&authority.issue(&["backend.test"]), None);
    for stealing in [false, true] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let yaml = format!(
            "server: {{ threads: 2, work_stealing: {stealing}, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid' }}\n\
             listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             pools:\n\
             \x20 plain: {{ backends: [{{ address: '127.0.0.1:{}' }}], health_check: {{ type: http, path: /health }} }}\n\
             \x20 tls: {{ backends: [{{ address: '127.0.0.1:{}' }}], tls: {{ server_name: backend.test, ca: '{{folder}}/ca.pem' }} }}\n\
             routes: [{{ path: /tls, pool: tls }}, {{ path: /, pool: plain }}]\n",
            plain.port, tls.port
        );
        let lab = Lab::start_with(folder, &yaml, &MISSING);
        for path in ["/", "/tls"] {
            assert_eq!(get(port, path).status, 200, "{path} with work stealing {stealing}: {}", lab.log());
        }
        let log = lab.log();
        assert!(log.contains("without the certificate authorities of the system") && log.contains("/missing"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn pool_that_needs_missing_authorities_of_the_system_is_a_fault_with_a_hint() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let of = |tls: &str, ca: &str| {
        let yaml = format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             pools: {{ a: {{ backends: [127.0.0.1:1], tls: {{ server_name: backend.test{tls} }} }} }}\n\
             routes: [{{ path: /, pool: a }}]\nserver: {{ threads: 1{ca} }}\n"
        );
        let file = Lab::configure(folder.path(), &yaml);
        let mut command = Command::new(env!("CARGO_BIN_EXE_l7lb"));
        let output = command.args(["check", "--conf"]).arg(file).envs(MISSING).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for verify in ["", ", verify: false"] {
        let (success, errors) = of(verify, "");
        assert!(!success && errors.contains("error at pools.a.tls"), "{errors}");
        assert!(errors.contains("could not load certs from file /missing/ca.pem"), "{errors}");
        assert!(errors.contains("install the package ca-certificates, or name a PEM file with `ca`"), "{errors}");
    }
    let ca = format!(", ca: '{}'", folder.path().join("localhost.pem").display());
    assert!(of(&ca, "").0, "a pool with its own authority needs no other");
    assert!(of("", &ca.replace("ca:", "ca_file:")).0, "the authorities of the server replace those of the system");
}

#[test]
fn panic_of_a_worker_ends_the_process_before_it_is_ready() {
    // The health of a backend that does not respond is unknown until its check times out, and workers start after that.
    let silent = Scripted::start(|stream| {
        std::io::copy(&mut &stream, &mut std::io::sink()).ok();
    });
    for stealing in [false, true] {
        let (folder, port) = (Arc::new(tempfile::tempdir().unwrap()), free_port());
        let ca = folder.path().join("authorities.pem");
        std::fs::write(&ca, Authority::new("authority").pem()).unwrap();
        let yaml = format!(
            "server: {{ threads: 2, work_stealing: {stealing}, ca_file: '{}', upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid' }}\n\
             listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             pools: {{ a: {{ backends: [{{ address: '127.0.0.1:{}' }}], health_check: {{ type: http, path: /, timeout: 3s }} }} }}\n\
             routes: [{{ path: /, pool: a }}]\n",
            ca.display(),
            silent.port
        );
        let before = silent.connections();
        let mut lab = Lab::start_without_waiting(folder, &yaml);
        eventually("the first check begins", PATIENCE, || silent.connections() > before);
        std::fs::remove_file(&ca).unwrap();
        assert_eq!(lab.wait_exit(PATIENCE).code(), Some(1), "{}", lab.log());
        let line = lab.wait_for_log("l7lb ends, because worker ");
        assert!(line.contains("has failed") && !lab.log().contains(" ready: "), "{}", lab.log());
    }
}
