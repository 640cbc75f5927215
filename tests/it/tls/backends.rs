//! TLS to backends: verification of their certificates, and the client certificate.

use crate::lab::authority::{Authority, Issued};
use crate::lab::client::{Response, get};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port, tls_backend};

/// Sends a request to a backend with this `tls:` block; returns the response and the line of the access log.
fn request(backend: &Scripted, authority: &Authority, client: &Issued, tls: &str) -> (Response, String) {
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let files = folder.path().display().to_string();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    client.write(folder.path(), "client");
    let (backend, tls) = (backend.port, tls.replace("FILES", &files));
    // With an HTTP health check, a backend with an invalid certificate would be down before the request.
    let check = if tls.contains("client_key") { "http" } else { "none" };
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ backends: [{{ address: '127.0.0.1:{backend}' }}], health_check: {{ type: {check} }}, tls: {tls} }} }}\n\
         routes: [{{ path: /, pool: a }}]\n"
    ));
    let response = get(port, "/");
    let line = lab.wait_for_access("path=/ ");
    (response, line)
}

#[test]
fn backend_certificate_must_match_the_ca_and_the_server_name() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["backend.test"]);
    let backend = tls_backend::start(&server, None);
    let (response, _) = request(&backend, &authority, &server, "{ server_name: backend.test, ca: FILES/ca.pem }");
    assert_eq!((response.status, response.body.as_str()), (200, "no certificate"));
    for invalid in ["{ server_name: other.test, ca: FILES/ca.pem }", "{ server_name: backend.test }"] {
        let (response, line) = request(&backend, &authority, &server, invalid);
        assert_eq!(response.status, 502, "{invalid}");
        assert!(line.contains("cause=backend_tls_failed"), "{line}");
    }
    let (response, _) = request(&backend, &authority, &server, "{ server_name: other.test, verify: false }");
    assert_eq!(response.status, 200, "verify: false turns verification off");
}

#[test]
fn client_certificate_is_sent_to_backends_that_request_one() {
    let authority = Authority::new("authority");
    let (server, client) = (authority.issue(&["backend.test"]), authority.issue(&["l7lb"]));
    let backend = tls_backend::start(&server, Some(&authority));
    let tls = "{ server_name: backend.test, ca: FILES/ca.pem, client_certificate: FILES/client.pem, client_key: FILES/client-key.pem }";
    let (response, _) = request(&backend, &authority, &client, tls);
    assert_eq!((response.status, response.body.as_str()), (200, "certificate"));
    let (response, line) = request(&backend, &authority, &client, "{ server_name: backend.test, ca: FILES/ca.pem }");
    assert_eq!(response.status, 502, "{line}");
}

#[test]
fn backend_with_an_https_url_is_verified_by_the_name_in_it() {
    let authority = Authority::new("authority");
    for (name, other) in [("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")] {
        let backend = tls_backend::start(&authority.issue(&[name]), None);
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let pool = |host: &str| {
            let tls = format!("tls: {{ ca: {} }}, health_check: {{ type: none }}", ca.display());
            format!("{{ backends: 'https://{host}:{}', {tls} }}", backend.port)
        };
        let lab = Lab::start(&format!(
            "listeners: 127.0.0.1:{port}\npools: {{ good: {}, bad: {} }}\n\
             routes: [{{ path: /, pool: good }}, {{ path: /bad, pool: bad }}]\n",
            pool(name),
            pool(other)
        ));
        assert_eq!(get(port, "/").status, 200, "{name}");
        assert_eq!(get(port, "/bad").status, 502, "{other}");
        assert!(lab.wait_for_access("path=/bad ").contains("cause=backend_tls_failed"), "{other}");
    }
}
