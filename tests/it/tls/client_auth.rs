//! Clients that prove who they are.

use std::io::Write;
use std::sync::Arc;

use super::with_tls;
use crate::lab::authority::{Authority, Client, Issued, handshake, replace};
use crate::lab::client::{Answer, exchange, read_answer};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

struct Scene {
    port: u16,
    authority: Authority,
    folder: Arc<tempfile::TempDir>,
    _lab: Lab,
    _backend: Backend,
}

impl Scene {
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

    /// A request with forged headers, by a client that shows this certificate.
    fn ask(&self, shows: Option<&Issued>) -> Result<Answer, String> {
        let config = Client { shows, ..Client::new(&self.authority) }.config();
        self.ask_with(&config).map(|(answer, _)| answer)
    }

    fn ask_with(&self, config: &Arc<rustls::ClientConfig>) -> Result<(Answer, rustls::HandshakeKind), String> {
        let mut connection = handshake(self.port, "a.test", config)?;
        connection.write_all(FORGED.as_bytes()).map_err(|e| e.to_string())?;
        let mut first = [0];
        // In TLS 1.3 a client hears of its refusal after its side of the handshake.
        std::io::Read::read_exact(&mut connection, &mut first).map_err(|e| e.to_string())?;
        let answer = read_answer(&mut std::io::Read::chain(&first[..], &mut connection));
        Ok((answer, connection.conn.handshake_kind().unwrap()))
    }
}

const FORGED: &str = "GET /apiA/echo HTTP/1.1\r\nHost: a.test\r\nX-Client-Cert-Subject: CN=root\r\n\
                      X-Client-Cert-Verified: true\r\nX_Client_Cert_Subject: CN=root\r\nx-client-cert: root\r\n\
                      Connection: close\r\n\r\n";

#[test]
fn backends_learn_who_the_client_is_and_clients_cannot_pretend() {
    let scene = Scene::start("client_auth: { mode: optional, ca: '{folder}/ca.pem' }");
    let alice = scene.authority.issue(&["alice"]);
    let body = scene.ask(Some(&alice)).unwrap().body.to_ascii_lowercase();
    assert!(body.contains("cn=alice") && !body.contains("root"), "{body}");
    let serial: String = alice.serial.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(body.contains(&serial) && body.contains("x-client-cert-verified"), "{body}");
    assert!(body.contains("x-client-cert-fingerprint"), "{body}");

    let body = scene.ask(None).unwrap().body.to_ascii_lowercase();
    assert!(!body.contains("x-client-cert") && !body.contains("x_client"), "no certificate is needed here: {body}");

    let stranger = Authority::new("stranger").issue(&["alice"]);
    assert!(scene.ask(Some(&stranger)).is_err(), "a bad certificate is refused even where none is needed");
}

#[test]
fn nobody_pretends_on_a_plain_listener() {
    let (backend, port) = (Backend::start("one"), free_port());
    let yaml = crate::one_pool(port, &[&backend], "trusted_proxies: [127.0.0.1/32]\n");
    let _lab = Lab::start(&yaml);
    let body = exchange(port, FORGED.as_bytes()).body.to_ascii_lowercase();
    assert!(!body.contains("x-client-cert") && !body.contains("x_client"), "{body}");
}

#[test]
fn clients_without_a_good_certificate_are_refused() {
    let scene = Scene::start("client_auth: { mode: required, ca: '{folder}/ca.pem' }");
    assert_eq!(scene.ask(Some(&scene.authority.issue(&["alice"]))).unwrap().status, 200);
    let refused = scene.ask(None).err().unwrap();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let stranger = Authority::new("stranger").issue(&["alice"]);
    assert!(scene.ask(Some(&stranger)).is_err());
    let ended = scene.authority.issue_with(&["alice"], |params| params.not_after = rcgen::date_time_ymd(2024, 1, 1));
    let refused = scene.ask(Some(&ended)).err().unwrap();
    assert!(refused.contains("CertificateExpired"), "{refused}");
}

#[test]
fn revoked_clients_are_refused_from_the_new_list_on_and_cannot_resume() {
    let scene = Scene::start("client_auth: { mode: required, ca: '{folder}/ca.pem', crl: ['{folder}/crl.pem'] }");
    let (alice, bob) = (scene.authority.issue(&["alice"]), scene.authority.issue(&["bob"]));
    let config = |shows| Client { shows: Some(shows), ..Client::new(&scene.authority) }.config();
    let (alice_config, bob_config) = (config(&alice), config(&bob));
    for (kind, config) in [
        (rustls::HandshakeKind::Full, &alice_config),
        (rustls::HandshakeKind::Resumed, &alice_config),
        (rustls::HandshakeKind::Full, &bob_config),
    ] {
        let (answer, seen) = scene.ask_with(config).unwrap();
        assert_eq!((answer.status, seen), (200, kind));
        assert!(answer.body.contains("CN=alice") || answer.body.contains("CN=bob"), "also when resumed: {answer:?}");
    }
    replace(&scene.folder.path().join("crl.pem"), scene.authority.revoke(&[&alice]));
    eventually("alice is refused, with a ticket too", PATIENCE, || scene.ask_with(&alice_config).is_err());
    assert!(scene.ask(Some(&alice)).err().unwrap().contains("CertificateRevoked"));
    assert_eq!(scene.ask_with(&bob_config).unwrap().0.status, 200);
}
