//! Client certificates: verification, revocation, and the fields for the backend.

use std::io::Write;
use std::sync::Arc;

use super::with_tls;
use crate::lab::authority::{Authority, Client, Issued, handshake, replace};
use crate::lab::client::{Response, exchange, read_response};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

struct Fixture {
    port: u16,
    authority: Authority,
    folder: Arc<tempfile::TempDir>,
    _lab: Lab,
    _backend: Backend,
}

impl Fixture {
    fn start(more: &str) -> Self {
        let (backend, port) = (Backend::start("one"), free_port());
        let (authority, folder) = (Authority::new("authority"), Arc::new(tempfile::tempdir().unwrap()));
        authority.issue(&["a.test"]).write(folder.path(), "one");
        replace(&folder.path().join("ca.pem"), authority.pem());
        replace(&folder.path().join("crl.pem"), authority.revoke(&[]));
        let tls = format!(
            "{{ certificates: [{{ certificate: '{{folder}}/one.pem', key: '{{folder}}/one-key.pem' }}], {more} }}"
        );
        let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, &tls));
        Self { port, authority, folder, _lab: lab, _backend: backend }
    }

    /// Sends a request with forged header fields from a client with this certificate.
    fn request(&self, shows: Option<&Issued>) -> Result<Response, String> {
        let config = Client { shows, ..Client::new(&self.authority) }.config();
        self.request_with(&config).map(|(response, _)| response)
    }

    fn request_with(&self, config: &Arc<rustls::ClientConfig>) -> Result<(Response, rustls::HandshakeKind), String> {
        let mut connection = handshake(self.port, "a.test", config)?;
        connection.write_all(FORGED.as_bytes()).map_err(|e| e.to_string())?;
        let mut first = [0];
        // In TLS 1.3, the alert of a rejected client arrives only after the client has completed its handshake.
        std::io::Read::read_exact(&mut connection, &mut first).map_err(|e| e.to_string())?;
        let response = read_response(&mut std::io::Read::chain(&first[..], &mut connection));
        Ok((response, connection.conn.handshake_kind().unwrap()))
    }
}

const FORGED: &str = "GET /apiA/echo HTTP/1.1\r\nHost: a.test\r\nX-Client-Cert-Subject: CN=root\r\n\
                      X-Client-Cert-Verified: true\r\nX_Client_Cert_Subject: CN=root\r\nx-client-cert: root\r\n\
                      Connection: close\r\n\r\n";

#[test]
fn client_certificate_fields_reach_the_backend_and_forged_ones_are_removed() {
    let fixture = Fixture::start("client_auth: { mode: optional, ca: '{folder}/ca.pem' }");
    let alice = fixture.authority.issue(&["alice"]);
    let body = fixture.request(Some(&alice)).unwrap().body.to_ascii_lowercase();
    assert!(body.contains("cn=alice") && !body.contains("root"), "{body}");
    let serial: String = alice.serial.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(body.contains(&serial) && body.contains("x-client-cert-verified"), "{body}");
    assert!(body.contains("x-client-cert-fingerprint"), "{body}");

    let body = fixture.request(None).unwrap().body.to_ascii_lowercase();
    assert!(!body.contains("x-client-cert") && !body.contains("x_client"), "the certificate is optional: {body}");

    let stranger = Authority::new("stranger").issue(&["alice"]);
    assert!(
        fixture.request(Some(&stranger)).is_err(),
        "an untrusted certificate is rejected even if certificates are optional"
    );
}

#[test]
fn forged_client_certificate_fields_are_removed_on_a_plaintext_listener() {
    let (backend, port) = (Backend::start("one"), free_port());
    let yaml = crate::one_pool(port, &[&backend], "trusted_proxies: [127.0.0.1/32]\n");
    let _lab = Lab::start(&yaml);
    let body = exchange(port, FORGED.as_bytes()).body.to_ascii_lowercase();
    assert!(!body.contains("x-client-cert") && !body.contains("x_client"), "{body}");
}

#[test]
fn clients_without_a_valid_certificate_are_rejected() {
    let fixture = Fixture::start("client_auth: { mode: required, ca: '{folder}/ca.pem' }");
    assert_eq!(fixture.request(Some(&fixture.authority.issue(&["alice"]))).unwrap().status, 200);
    let error = fixture.request(None).err().unwrap();
    assert!(error.contains("CertificateRequired"), "{error}");
    let stranger = Authority::new("stranger").issue(&["alice"]);
    assert!(fixture.request(Some(&stranger)).is_err());
    let expired =
        fixture.authority.issue_with(&["alice"], |params| params.not_after = rcgen::date_time_ymd(2024, 1, 1));
    let error = fixture.request(Some(&expired)).err().unwrap();
    assert!(error.contains("CertificateExpired"), "{error}");
}

#[test]
fn revoked_client_is_rejected_after_the_crl_update_and_cannot_resume_its_session() {
    let fixture = Fixture::start("client_auth: { mode: required, ca: '{folder}/ca.pem', crl: ['{folder}/crl.pem'] }");
    let (alice, bob) = (fixture.authority.issue(&["alice"]), fixture.authority.issue(&["bob"]));
    let config = |shows| Client { shows: Some(shows), ..Client::new(&fixture.authority) }.config();
    let (alice_config, bob_config) = (config(&alice), config(&bob));
    for (kind, config) in [
        (rustls::HandshakeKind::Full, &alice_config),
        (rustls::HandshakeKind::Resumed, &alice_config),
        (rustls::HandshakeKind::Full, &bob_config),
    ] {
        let (response, seen) = fixture.request_with(config).unwrap();
        assert_eq!((response.status, seen), (200, kind));
        assert!(
            response.body.contains("CN=alice") || response.body.contains("CN=bob"),
            "the subject is also forwarded in resumed sessions: {response:?}"
        );
    }
    replace(&fixture.folder.path().join("crl.pem"), fixture.authority.revoke(&[&alice]));
    eventually("alice is rejected, even with a session ticket", PATIENCE, || {
        fixture.request_with(&alice_config).is_err()
    });
    assert!(fixture.request(Some(&alice)).err().unwrap().contains("CertificateRevoked"));
    assert_eq!(fixture.request_with(&bob_config).unwrap().0.status, 200);
}
