//! Certificates: the right one for a client, and new ones without a restart.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::with_tls;
use crate::lab::authority::{Authority, Client, Issued, TlsConnection, handshake, replace, shown};
use crate::lab::client::{get_h2, read_answer};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

const ONE: &str = "{ certificates: [{ certificate: '{folder}/one.pem', key: '{folder}/one-key.pem' }] }";

/// How soon a new certificate is promised to be shown.
const PROMPT: Duration = Duration::from_secs(2);

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn is_shown(port: u16, client: &Client<'_>, issued: &Issued) -> bool {
    shown(&handshake(port, "a.test", &client.config()).unwrap()) == issued.der
}

fn ask(connection: &mut TlsConnection, host: &str) -> u16 {
    write!(connection, "GET /apiA HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    read_answer(connection).status
}

#[test]
fn clients_that_know_only_rsa_are_shown_the_rsa_certificate_of_the_name() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let (ecdsa, rsa) = (authority.issue(&["a.test"]), authority.issue_rsa(&["a.test"]));
    ecdsa.write(folder.path(), "ecdsa");
    rsa.write(folder.path(), "rsa");
    let tls = "{ certificates: [{ certificate: '{folder}/ecdsa.pem', key: '{folder}/ecdsa-key.pem' }, { certificate: '{folder}/rsa.pem', key: '{folder}/rsa-key.pem' }] }";
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, tls));
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        let client = Client { versions: &versions, ..Client::new(&authority) };
        assert!(is_shown(port, &client, &ecdsa));
        assert!(is_shown(port, &Client { rsa_only: true, ..client }, &rsa));
    }
}

#[test]
fn versions_and_protocols_are_what_the_listener_says() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let tls = ONE.replace("{ certificates", "{ minimum_version: '1.3', alpn: [http/1.1], certificates");
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, &tls));
    let client = Client { protocols: &["h2", "http/1.1"], ..Client::new(&authority) };
    let connection = handshake(port, "a.test", &client.config()).unwrap();
    assert_eq!(connection.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let old = Client { versions: &[&rustls::version::TLS12], ..Client::new(&authority) };
    let refused = handshake(port, "a.test", &old.config()).err().unwrap();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let other = Client { protocols: &["h2"], ..Client::new(&authority) };
    let refused = handshake(port, "a.test", &other.config()).err().unwrap();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn a_new_certificate_is_shown_soon_and_a_broken_one_never() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let (first, second, third) =
        (authority.issue(&["a.test"]), authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    first.write(folder.path(), "one");
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let client = Client::new(&authority);
    let mut old = handshake(port, "a.test", &client.config()).unwrap();
    assert_eq!(ask(&mut old, "a.test"), 200);

    replace(&folder.path().join("one.pem"), &second.certificate);
    let said = lab.wait_for_log("TLS files not reloaded");
    assert!(said.contains("the key does not belong to the certificate"), "{said}");
    assert!(is_shown(port, &client, &first), "half a pair is not used");

    replace(&folder.path().join("one-key.pem"), &second.key);
    lab.wait_for_log("certificate loaded");
    assert!(is_shown(port, &client, &second), "it was mended");
    assert_eq!(ask(&mut old, "a.test"), 200, "connections that were open stay");

    replace(&folder.path().join("one.pem"), "no certificate");
    lab.wait_for_log("holds no certificate");
    assert!(is_shown(port, &client, &second));
    third.write(folder.path(), "one");
    eventually("the third certificate is shown", PROMPT, || is_shown(port, &client, &third));
    assert_eq!(lab.log().matches("not reloaded").count(), 2, "each fault is told once:\n{}", lab.log());
}

#[test]
fn certificates_are_swapped_behind_symbolic_links() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    // The way in which Kubernetes hands secrets out: ..data leads to the folder of the moment.
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
    assert!(is_shown(port, &client, &first));
    link("..data", Path::new("..2"));
    eventually("the second certificate is shown", PROMPT, || is_shown(port, &client, &second));
}

#[test]
fn swapping_certificates_under_load_fails_no_handshake() {
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
                        assert_eq!(ask(&mut connection, "a.test"), 200);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            let next = authority.issue(&["a.test"]);
            next.write(folder.path(), "one");
            eventually("the new certificate is shown", PROMPT, || is_shown(port, &Client::new(&authority), &next));
            eventually("there is load", PATIENCE, || done.load(Ordering::Relaxed) > before);
        }
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap();
        }
    });
}

#[test]
fn requests_for_a_host_of_another_connection_are_misdirected() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test", "b.test", "127.0.0.1"]).write(folder.path(), "one");
    let lab = Lab::start_in(folder, &with_tls(port, &backend, ONE));
    let config = Client::new(&authority).config();
    let mut connection = handshake(port, "a.test", &config).unwrap();
    for (host, status) in [("a.test", 200), ("A.test:443", 200), ("b.test", 200), ("c.test", 421), ("a.test", 200)] {
        assert_eq!(ask(&mut connection, host), status, "{host}");
    }
    assert!(lab.wait_for_access("cause=misdirected").contains("host=c.test"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (host, status) in [("b.test", 200), ("c.test", 421)] {
        let answer = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let h2 = Client { protocols: &["h2"], ..Client::new(&authority) };
            let connector = tokio_rustls::TlsConnector::from(h2.config());
            let stream = connector.connect(ServerName::try_from("a.test").unwrap(), tcp).await.unwrap();
            get_h2(stream, &format!("https://{host}/apiA")).await
        });
        assert_eq!(answer.0, status, "{host} over HTTP/2");
    }
    let mut unnamed = handshake(port, "127.0.0.1", &config).unwrap();
    assert_eq!(ask(&mut unnamed, "127.0.0.1"), 200, "an address is no server name");
}

#[test]
fn ocsp_responses_are_stapled_and_read_anew() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let file = folder.path().join("response.der");
    std::fs::write(&file, [0x30, 3, 0x0a, 1, 0]).unwrap();
    let tls = ONE.replace("-key.pem'", "-key.pem', ocsp: '{folder}/response.der'");
    let _lab = Lab::start_in(folder, &with_tls(port, &backend, &tls));
    let stapled = |response: &[u8]| {
        let seen = Arc::new(Stapled::default());
        let mut config = Arc::unwrap_or_clone(Client::new(&authority).config());
        config.dangerous().set_certificate_verifier(Arc::clone(&seen) as _);
        handshake(port, "a.test", &Arc::new(config)).unwrap();
        *seen.0.lock().unwrap() == response
    };
    assert!(stapled(&[0x30, 3, 0x0a, 1, 0]));
    let new = [0x30, 5, 0x0a, 1, 0, 5, 0];
    replace(&file, new);
    eventually("the new response is stapled", PROMPT, || stapled(&new));
}

/// Notes the OCSP response that came with a certificate, and verifies nothing.
#[derive(Debug, Default)]
struct Stapled(std::sync::Mutex<Vec<u8>>);

impl rustls::client::danger::ServerCertVerifier for Stapled {
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
fn certificates_that_end_are_announced() {
    let (backend, port, folder, authority) =
        (Backend::start("one"), free_port(), folder(), Authority::new("authority"));
    let ended = authority.issue_with(&["ended.test"], |params| params.not_after = rcgen::date_time_ymd(2024, 2, 3));
    ended.write(folder.path(), "one");
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, ONE));
    let said = lab.wait_for_log("certificate has expired");
    assert!(said.contains("certificate=ended.test") && said.contains("expires=2024-02-03T00:00:00Z"), "{said}");
    let soon = std::time::SystemTime::now() + Duration::from_secs(20 * 24 * 60 * 60);
    authority.issue_with(&["soon.test"], |params| params.not_after = soon.into()).write(folder.path(), "one");
    assert!(lab.wait_for_log("certificate expires soon").contains("certificate=soon.test"));
}

#[test]
fn one_broken_certificate_does_not_hold_the_others_back() {
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
    lab.wait_for_log("two.pem holds no certificate");
    let client = Client::new(&authority);
    eventually("the good one is shown", PROMPT, || is_shown(port, &client, &new));
    assert!(shown(&handshake(port, "b.test", &client.config()).unwrap()) == two.der);
}
