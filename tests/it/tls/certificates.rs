//! Certificates: their choice per client, and their replacement without a restart.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::with_tls;
use crate::lab::authority::{Authority, Client, Issued, TlsConnection, handshake, replace, shown};
use crate::lab::client::{get_h2, read_response};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

const ONE: &str = "{ certificates: [{ certificate: '{folder}/one.pem', key: '{folder}/one-key.pem' }] }";

/// The documented time within which a new certificate is presented.
const PROMPT: Duration = Duration::from_secs(2);

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn is_presented(port: u16, client: &Client<'_>, issued: &Issued) -> bool {
    shown(&handshake(port, "a.test", &client.config()).unwrap()) == issued.der
}

fn request(connection: &mut TlsConnection, host: &str) -> u16 {
    write!(connection, "GET /apiA HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    read_response(connection).status
}

#[test]
fn clients_without_ecdsa_support_get_the_rsa_certificate() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let (ecdsa, rsa) = (authority.issue(&["a.test"]), authority.issue_rsa(&["a.test"]));
    ecdsa.write(folder.path(), "ecdsa");
    rsa.write(folder.path(), "rsa");
    let tls = "{ certificates: [{ certificate: '{folder}/ecdsa.pem', key: '{folder}/ecdsa-key.pem' }, { certificate: '{folder}/rsa.pem', key: '{folder}/rsa-key.pem' }] }";
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, tls));
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        let client = Client { versions: &versions, ..Client::new(&authority) };
        assert!(is_presented(port, &client, &ecdsa));
        assert!(is_presented(port, &Client { rsa_only: true, ..client }, &rsa));
    }
}

#[test]
fn handshake_honours_the_minimum_version_and_alpn_of_the_listener() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let tls = ONE.replace("{ certificates", "{ minimum_version: '1.3', alpn: [http/1.1], certificates");
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, &tls));
    let client = Client { protocols: &["h2", "http/1.1"], ..Client::new(&authority) };
    let connection = handshake(port, "a.test", &client.config()).unwrap();
    assert_eq!(connection.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let old = Client { versions: &[&rustls::version::TLS12], ..Client::new(&authority) };
    let error = handshake(port, "a.test", &old.config()).err().unwrap();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let other = Client { protocols: &["h2"], ..Client::new(&authority) };
    let error = handshake(port, "a.test", &other.config()).err().unwrap();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn new_certificate_is_served_promptly_and_an_invalid_one_never() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let (first, second, third) =
        (authority.issue(&["a.test"]), authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    first.write(folder.path(), "one");
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let client = Client::new(&authority);
    let mut old = handshake(port, "a.test", &client.config()).unwrap();
    assert_eq!(request(&mut old, "a.test"), 200);

    replace(&folder.path().join("one.pem"), &second.certificate);
    let line = lab.wait_for_log("TLS files not reloaded");
    assert!(line.contains("the key does not belong to the certificate"), "{line}");
    assert!(is_presented(port, &client, &first), "a certificate without its key is not used");

    replace(&folder.path().join("one-key.pem"), &second.key);
    lab.wait_for_log("certificate loaded");
    assert!(is_presented(port, &client, &second), "the complete pair is used");
    assert_eq!(request(&mut old, "a.test"), 200, "open connections stay usable");

    replace(&folder.path().join("one.pem"), "no certificate");
    lab.wait_for_log("contains no certificate");
    assert!(is_presented(port, &client, &second));
    third.write(folder.path(), "one");
    eventually("the third certificate is presented", PROMPT, || is_presented(port, &client, &third));
    assert_eq!(lab.log().matches("not reloaded").count(), 2, "each fault is logged once:\n{}", lab.log());
}

#[test]
fn replaced_certificates_behind_symbolic_links_are_loaded() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    // As Kubernetes mounts secrets: ..data is a link to the current folder.
    let (first, second) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let root = folder.path();
    for (name, issued) in [("..1", &first), ("..2", &second)] {
        std::fs::create_dir(root.join(name)).unwrap();
        issued.write(&root.join(name), "one");
    }
    let link = |from: &str, to: &Path| {
        std::os::unix::fs::symlink(to, root.join("new")).unwrap();
        std::fs::rename(root.join("new"), root.join(from)).unwrap();
    };
    link("..data", Path::new("..1"));
    link("one.pem", Path::new("..data/one.pem"));
    link("one-key.pem", Path::new("..data/one-key.pem"));
    let _lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let client = Client::new(&authority);
    assert!(is_presented(port, &client, &first));
    link("..data", Path::new("..2"));
    eventually("the second certificate is presented", PROMPT, || is_presented(port, &client, &second));
}

#[test]
fn replacing_certificates_under_load_fails_no_handshake() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let _lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let config = Client::new(&authority).config();
                        let mut connection = handshake(port, "a.test", &config).unwrap();
                        assert_eq!(request(&mut connection, "a.test"), 200);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            let next = authority.issue(&["a.test"]);
            next.write(folder.path(), "one");
            eventually("the new certificate is presented", PROMPT, || {
                is_presented(port, &Client::new(&authority), &next)
            });
            eventually("requests are in progress", PATIENCE, || done.load(Ordering::Relaxed) > before);
        }
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap();
        }
    });
}

#[test]
fn request_for_a_host_outside_the_certificate_gets_421() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test", "b.test", "127.0.0.1"]).write(folder.path(), "one");
    let lab = Lab::start_in(folder, &with_tls(port, &backend, ONE));
    let config = Client::new(&authority).config();
    let mut connection = handshake(port, "a.test", &config).unwrap();
    for (host, status) in [("a.test", 200), ("A.test:443", 200), ("b.test", 200), ("c.test", 421), ("a.test", 200)] {
        assert_eq!(request(&mut connection, host), status, "{host}");
    }
    assert!(lab.wait_for_access("cause=misdirected").contains("host=c.test"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (host, status) in [("b.test", 200), ("c.test", 421)] {
        let response = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let h2 = Client { protocols: &["h2"], ..Client::new(&authority) };
            let connector = tokio_rustls::TlsConnector::from(h2.config());
            let stream = connector.connect(ServerName::try_from("a.test").unwrap(), tcp).await.unwrap();
            get_h2(stream, &format!("https://{host}/apiA")).await
        });
        assert_eq!(response.0, status, "{host} over HTTP/2");
    }
    let mut unnamed = handshake(port, "127.0.0.1", &config).unwrap();
    assert_eq!(request(&mut unnamed, "127.0.0.1"), 200, "a client that connects to an IP address sends no server name");
}

#[test]
fn ocsp_responses_are_stapled_and_reloaded() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let file = folder.path().join("response.der");
    std::fs::write(&file, [0x30, 3, 0x0a, 1, 0]).unwrap();
    let tls = ONE.replace("-key.pem'", "-key.pem', ocsp: '{folder}/response.der'");
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, &tls));
    let stapled = |response: &[u8]| {
        let verifier = Arc::new(OcspRecorder::default());
        let mut config = Arc::unwrap_or_clone(Client::new(&authority).config());
        config.dangerous().set_certificate_verifier(Arc::clone(&verifier) as _);
        handshake(port, "a.test", &Arc::new(config)).unwrap();
        *verifier.0.lock().unwrap() == response
    };
    assert!(stapled(&[0x30, 3, 0x0a, 1, 0]));
    let new = [0x30, 5, 0x0a, 1, 0, 5, 0];
    replace(&file, new);
    eventually("the new response is stapled", PROMPT, || stapled(&new));
}

/// Records the OCSP response of a handshake, and verifies nothing.
#[derive(Debug, Default)]
struct OcspRecorder(std::sync::Mutex<Vec<u8>>);

impl rustls::client::danger::ServerCertVerifier for OcspRecorder {
    fn verify_server_cert(
        &self,
        _certificate: &rustls::pki_types::CertificateDer<'_>,
        _chain: &[rustls::pki_types::CertificateDer<'_>],
        _name: &rustls::pki_types::ServerName<'_>,
        ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp_response.to_vec();
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn expired_and_expiring_certificates_are_logged() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let expired = authority.issue_with(&["expired.test"], |params| params.not_after = rcgen::date_time_ymd(2024, 2, 3));
    expired.write(folder.path(), "one");
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let line = lab.wait_for_log("certificate has expired");
    assert!(line.contains("certificate=expired.test") && line.contains("expires=2024-02-03T00:00:00Z"), "{line}");
    let soon = std::time::SystemTime::now() + Duration::from_secs(20 * 24 * 60 * 60);
    authority.issue_with(&["soon.test"], |params| params.not_after = soon.into()).write(folder.path(), "one");
    assert!(lab.wait_for_log("certificate expires soon").contains("certificate=soon.test"));
}

#[test]
fn invalid_certificate_does_not_block_updates_of_other_certificates() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let (one, two) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    one.write(folder.path(), "one");
    two.write(folder.path(), "two");
    let tls = ONE.replace("}] }", "}, { certificate: '{folder}/two.pem', key: '{folder}/two-key.pem' }] }");
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, &tls));
    let new = authority.issue(&["a.test"]);
    replace(&folder.path().join("two.pem"), "broken");
    new.write(folder.path(), "one");
    lab.wait_for_log("two.pem contains no certificate");
    let client = Client::new(&authority);
    eventually("the valid certificate is presented", PROMPT, || is_presented(port, &client, &new));
    assert!(shown(&handshake(port, "b.test", &client.config()).unwrap()) == two.der);
}
