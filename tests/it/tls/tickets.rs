//! Session resumption with shared ticket keys.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::HandshakeKind::{Full, Resumed};

use super::with_tls;
use crate::lab::authority::{Authority, Client, handshake, replace};
use crate::lab::{Backend, Lab, free_port};

/// A line as printed by `openssl rand -base64 48`.
fn key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..64).map(|_| char::from(DIGITS[fastrand::usize(..64)])).chain(['\n']).collect()
}

fn request(port: u16, config: &Arc<rustls::ClientConfig>) -> rustls::HandshakeKind {
    let mut connection = handshake(port, "a.test", config).unwrap();
    connection.write_all(b"GET /apiA HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).ok();
    assert!(response.contains("200 OK"), "{response}");
    connection.conn.handshake_kind().unwrap()
}

fn wait_until_loaded(lab: &Lab, times: usize) {
    crate::lab::eventually("the ticket keys are loaded", crate::lab::PATIENCE, || {
        lab.log().matches("TLS file loaded").count() == times
    });
}

#[test]
fn instances_with_shared_ticket_keys_resume_sessions_across_key_rotation() {
    let (backend, authority, folder) =
        (Backend::start("one"), Authority::new("authority"), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys");
    let (first, second) = (key(), key());
    replace(&keys, &first);
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let files = folder.path().display();
    let tls = format!(
        "{{ certificates: [{{ certificate: '{files}/one.pem', key: '{files}/one-key.pem' }}], ticket_keys: '{files}/keys' }}"
    );
    let (first_port, second_port) = (free_port(), free_port());
    let labs = [first_port, second_port].map(|port| Lab::start(&with_tls(port, &backend, &tls)));
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        let config = Client { versions: &versions, ..Client::new(&authority) }.config();
        assert_eq!(
            [request(first_port, &config), request(second_port, &config), request(first_port, &config)],
            [Full, Resumed, Resumed]
        );
    }

    let config = Client::new(&authority).config();
    assert_eq!(request(first_port, &config), Full);
    replace(&keys, format!("{second}{first}"));
    labs.iter().for_each(|lab| wait_until_loaded(lab, 1));
    assert_eq!(
        [request(second_port, &config), request(first_port, &config)],
        [Resumed, Resumed],
        "tickets of the old key are still accepted"
    );
    replace(&keys, &second);
    labs.iter().for_each(|lab| wait_until_loaded(lab, 2));
    assert_eq!(request(second_port, &config), Resumed, "the resumed session got a ticket of the new key");

    replace(&keys, key());
    labs.iter().for_each(|lab| wait_until_loaded(lab, 3));
    assert_eq!(request(first_port, &config), Full, "tickets of removed keys are not accepted");
    replace(&keys, "broken");
    labs[0].wait_for_log("line 1 is not 48 bytes in base64");
    assert_eq!(request(second_port, &config), Resumed, "an invalid file changes nothing");
}

#[test]
fn session_is_resumed_after_a_certificate_change() {
    let (backend, authority) = (Backend::start("one"), Authority::new("authority"));
    let (port, folder) = (free_port(), Arc::new(tempfile::tempdir().unwrap()));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let tls = "{ certificates: [{ certificate: '{folder}/one.pem', key: '{folder}/one-key.pem' }] }";
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, tls));
    let config = Client::new(&authority).config();
    assert_eq!(request(port, &config), Full);
    authority.issue(&["a.test"]).write(folder.path(), "one");
    lab.wait_for_log("certificate loaded");
    assert_eq!(request(port, &config), Resumed);
}

#[test]
fn session_ticket_does_not_bypass_client_authentication() {
    let (backend, authority, folder) =
        (Backend::start("one"), Authority::new("authority"), tempfile::tempdir().unwrap());
    replace(&folder.path().join("keys"), key());
    replace(&folder.path().join("ca.pem"), authority.pem());
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let files = folder.path().display();
    let tls = |more: &str| {
        format!(
            "{{ certificates: [{{ certificate: '{files}/one.pem', key: '{files}/one-key.pem' }}], ticket_keys: '{files}/keys'{more} }}"
        )
    };
    let (open, closed) = (free_port(), free_port());
    let _open = Lab::start(&with_tls(open, &backend, &tls("")));
    let closing = format!(", client_auth: {{ mode: required, ca: '{files}/ca.pem' }}");
    let _closed = Lab::start(&with_tls(closed, &backend, &tls(&closing)));
    let config = Client::new(&authority).config();
    assert_eq!([request(open, &config), request(open, &config)], [Full, Resumed]);
    let mut connection = handshake(closed, "a.test", &config).unwrap();
    connection.write_all(b"GET /apiA HTTP/1.1\r\nHost: a.test\r\n\r\n").ok();
    let error = connection.read(&mut [0; 1]).unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}
