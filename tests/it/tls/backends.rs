//! Backends that speak TLS: whom we believe, and who we say we are.

use crate::lab::authority::{Authority, Issued};
use crate::lab::client::{Answer, get};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port, tls_backend};

/// What a request comes back with from a backend that is reached with this `tls:` block.
fn ask(backend: &Scripted, authority: &Authority, shown: &Issued, tls: &str) -> (Answer, String) {
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let files = folder.path().display().to_string();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    shown.write(folder.path(), "client");
    let (backend, tls) = (backend.port, tls.replace("FILES", &files));
    // A faulty backend would be found out before the request.
    let check = if tls.contains("client_key") { "http" } else { "none" };
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ backends: [{{ address: '127.0.0.1:{backend}' }}], health_check: {{ type: {check} }}, tls: {tls} }} }}\n\
         routes: [{{ path: /, pool: a }}]\n"
    ));
    let answer = get(port, "/");
    let line = lab.wait_for_access("path=/ ");
    (answer, line)
}

#[test]
fn backends_are_believed_by_their_authority_and_name_only() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["backend.test"]);
    let backend = tls_backend::start(&server, None);
    let (answer, _) = ask(&backend, &authority, &server, "{ server_name: backend.test, ca: FILES/ca.pem }");
    assert_eq!((answer.status, answer.body.as_str()), (200, "nobody"));
    for faulty in ["{ server_name: other.test, ca: FILES/ca.pem }", "{ server_name: backend.test }"] {
        let (answer, line) = ask(&backend, &authority, &server, faulty);
        assert_eq!(answer.status, 502, "{faulty}");
        assert!(line.contains("cause=backend_tls_failed"), "{line}");
    }
    let (answer, _) = ask(&backend, &authority, &server, "{ server_name: other.test, verify: false }");
    assert_eq!(answer.status, 200, "nothing is verified where that is said");
}

#[test]
fn backends_that_ask_are_shown_our_certificate() {
    let authority = Authority::new("authority");
    let (server, client) = (authority.issue(&["backend.test"]), authority.issue(&["l7lb"]));
    let backend = tls_backend::start(&server, Some(&authority));
    let tls = "{ server_name: backend.test, ca: FILES/ca.pem, client_certificate: FILES/client.pem, client_key: FILES/client-key.pem }";
    let (answer, _) = ask(&backend, &authority, &client, tls);
    assert_eq!((answer.status, answer.body.as_str()), (200, "somebody"));
    let (answer, line) = ask(&backend, &authority, &client, "{ server_name: backend.test, ca: FILES/ca.pem }");
    assert_eq!(answer.status, 502, "{line}");
}
